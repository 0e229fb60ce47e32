//! Links, addresses and routes, each made so that making it again changes nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use netlink_packet_route::route::RouteScope;
use rtnetlink::{Error, Handle, LinkIfb, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// What could not be done to which link.
#[derive(Debug, thiserror::Error)]
#[error("{link}: {act}")]
pub struct LinkError {
    /// The link.
    pub link: String,
    /// What was tried.
    pub act: String,
    /// The kernel's answer.
    #[source]
    pub source: Box<Error>,
}

fn failed(link: &str, act: impl Into<String>) -> impl FnOnce(Error) -> LinkError {
    let (link, act) = (link.to_owned(), act.into());
    move |source| LinkError {
        link,
        act,
        source: Box::new(source),
    }
}

/// The kernel's errno in a netlink error; 0 for every other error.
pub fn errno(error: &Error) -> i32 {
    match error {
        Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

fn unless_exists(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if errno(&error) == nix::libc::EEXIST => Ok(()),
        other => other,
    }
}

/// The link's index, if there is such a link.
pub async fn read_index(handle: &Handle, link: &str) -> Result<Option<u32>, LinkError> {
    let mut found = handle.link().get().match_name(link.to_owned()).execute();
    match found.try_next().await {
        Ok(message) => Ok(message.map(|message| message.header.index)),
        Err(error) if errno(&error) == nix::libc::ENODEV => Ok(None),
        Err(error) => Err(failed(link, "could not be looked up")(error)),
    }
}

/// The link's index; an error where there is no such link.
pub async fn index(handle: &Handle, link: &str) -> Result<u32, LinkError> {
    let found = read_index(handle, link).await?;
    found.ok_or_else(|| LinkError {
        link: link.to_owned(),
        act: "is not there".to_owned(),
        source: Box::new(Error::RequestFailed),
    })
}

/// Makes a pair of virtual cables: `link` here, `peer` in the namespace that `peer_namespace` (a descriptor of this
/// process) names. Fails where either exists.
pub async fn create_pair(
    handle: &Handle,
    link: &str,
    peer: &str,
    peer_namespace: RawFd,
) -> Result<(), LinkError> {
    let far = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer.to_owned())
        .append_extra_attribute(LinkAttribute::NetNsFd(peer_namespace))
        .build();
    let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(link.to_owned())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .build();
    let made = handle.link().add(near).execute().await;
    made.map_err(failed(link, format!("the pair with {peer} could not be made")))
}

/// Makes the device through which what a space sends is led, so that it can be slowed there.
pub async fn ensure_ifb(handle: &Handle, link: &str) -> Result<u32, LinkError> {
    let made = handle.link().add(LinkIfb::new(link).build()).execute().await;
    unless_exists(made).map_err(failed(link, "the device could not be made"))?;
    ensure_up(handle, link).await
}

/// Sets the link up; its index.
pub async fn ensure_up(handle: &Handle, link: &str) -> Result<u32, LinkError> {
    let index = index(handle, link).await?;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle
        .link()
        .set(up)
        .execute()
        .await
        .map_err(failed(link, "could not be set up"))?;
    Ok(index)
}

/// Removes the link; a pair goes as a whole.
pub async fn ensure_absent(handle: &Handle, link: &str) -> Result<(), LinkError> {
    let Some(index) = read_index(handle, link).await? else {
        return Ok(());
    };
    match handle.link().del(index).execute().await {
        Err(error) if errno(&error) == nix::libc::ENODEV => Ok(()),
        other => other.map_err(failed(link, "could not be removed")),
    }
}

/// Gives the link an address.
pub async fn ensure_address(
    handle: &Handle,
    link: &str,
    address: Ipv4Addr,
    length: u8,
) -> Result<(), LinkError> {
    let index = index(handle, link).await?;
    let added = handle
        .address()
        .add(index, IpAddr::V4(address), length)
        .execute()
        .await;
    unless_exists(added).map_err(failed(
        link,
        format!("address {address}/{length} could not be given"),
    ))
}

/// Leads a network through the link: by `gateway`, or on-link without one.
pub async fn ensure_route(
    handle: &Handle,
    link: &str,
    to: (Ipv4Addr, u8),
    gateway: Option<Ipv4Addr>,
) -> Result<(), LinkError> {
    let index = index(handle, link).await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.0, to.1)
        .output_interface(index);
    let route = match gateway {
        Some(gateway) => route.gateway(gateway),
        None => route.scope(RouteScope::Link),
    };
    let added = handle.route().add(route.build()).execute().await;
    unless_exists(added).map_err(failed(
        link,
        format!("the route to {}/{} could not be made", to.0, to.1),
    ))
}
