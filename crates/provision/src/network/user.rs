//! A user's namespace and its link to the node.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use host::names;
use market::id::UserId;
use rtnetlink::Handle;

use super::address::UserIndex;
use super::inside::{self, InsideError};
use super::link::{self, LinkError};
use super::{NetworkError, set};

/// The user's end of the link to the node; the same name in every user's namespace.
pub const LINK_OF_USER: &str = "node";

/// One user's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLink {
    /// Whose.
    pub user: UserId,
    /// The number from which the addresses follow.
    pub index: UserIndex,
}

/// Makes the user's namespace, the link between it and the node, addresses and routes of both.
pub async fn ensure_user(user: &UserLink) -> Result<(), NetworkError> {
    let name = names::user_netns(user.user.as_bytes());
    let path = names::netns_path(&name);
    if !host::netns::exists(&name) {
        host::netns::create(&name).map_err(|source| NetworkError::Namespace {
            name: name.clone(),
            source: Box::new(source),
        })?;
    }
    let of_node = names::user_interface(user.user.as_bytes());
    let index = user.index;

    let target = path.clone();
    let outside = inside::netlink(None, move |handle| async move {
        set("the node", "net/ipv4/ip_forward", "1")?;
        outside(&handle, &of_node, &target, index).await
    });
    outside.await.map_err(|source| NetworkError::Inside {
        name: "the node".to_owned(),
        source,
    })??;

    let owned = name.clone();
    let within = inside::netlink(Some(&path), move |handle| async move {
        set(&owned, "net/ipv6/conf/all/disable_ipv6", "1")?;
        within(&handle, index)
            .await
            .map_err(|source| NetworkError::Link {
                name: owned.clone(),
                source,
            })?;
        set(&owned, "net/ipv4/ip_forward", "1")
    });
    within
        .await
        .map_err(|source: InsideError| NetworkError::Inside { name, source })?
}

/// The node's end: the pair, unless it is there, an address, and the way to the user's spaces.
async fn outside(
    handle: &Handle,
    of_node: &str,
    namespace: &std::path::Path,
    index: UserIndex,
) -> Result<(), NetworkError> {
    let node = || "the node".to_owned();
    let of_link = |source| NetworkError::Link { name: node(), source };
    if link::read_index(handle, of_node)
        .await
        .map_err(of_link)?
        .is_none()
    {
        let descriptor = File::open(namespace).map_err(|source| NetworkError::Inside {
            name: namespace.display().to_string(),
            source: InsideError::Netlink {
                namespace: namespace.display().to_string(),
                source,
            },
        })?;
        link::create_pair(handle, of_node, LINK_OF_USER, descriptor.as_raw_fd())
            .await
            .map_err(of_link)?;
    }
    let ends = async {
        link::ensure_address(handle, of_node, index.link_of_node(), 30).await?;
        link::ensure_up(handle, of_node).await?;
        link::ensure_route(
            handle,
            of_node,
            (index.subnet_address(), 26),
            Some(index.link_of_user()),
        )
        .await
    };
    ends.await.map_err(of_link)
}

/// The user's end: an address, and the way out.
async fn within(handle: &Handle, index: UserIndex) -> Result<(), LinkError> {
    link::ensure_up(handle, "lo").await?;
    link::ensure_address(handle, LINK_OF_USER, index.link_of_user(), 30).await?;
    link::ensure_up(handle, LINK_OF_USER).await?;
    link::ensure_route(
        handle,
        LINK_OF_USER,
        (Ipv4Addr::UNSPECIFIED, 0),
        Some(index.link_of_node()),
    )
    .await
}

/// Removes the user's link and namespace. Only when no space of the user is left.
pub async fn ensure_user_absent(user: &UserId) -> Result<(), NetworkError> {
    let name = names::user_netns(user.as_bytes());
    let of_node = names::user_interface(user.as_bytes());
    let gone = inside::netlink(None, move |handle| async move {
        link::ensure_absent(&handle, &of_node).await
    });
    gone.await
        .map_err(|source| NetworkError::Inside {
            name: "the node".to_owned(),
            source,
        })?
        .map_err(|source| NetworkError::Link {
            name: "the node".to_owned(),
            source,
        })?;
    host::netns::delete(&name).map_err(|source| NetworkError::Namespace {
        name,
        source: Box::new(source),
    })
}
