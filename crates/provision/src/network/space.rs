//! A space's namespace and its cable to the user's.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use host::names;
use market::id::{SaleId, UserId};
use market::quantity::BitsPerSecond;
use rtnetlink::Handle;

use super::NetworkError;
use super::address::{SpaceIndex, UserIndex};
use super::inside::{self, InsideError};
use super::link::{self, LinkError};
use crate::rate;

/// The space's end of its cable, as root inside sees it.
pub const LINK_OF_SPACE: &str = "eth0";

/// One space's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLink {
    /// Which space.
    pub sale: SaleId,
    /// Whose.
    pub user: UserId,
    /// The user's number.
    pub user_index: UserIndex,
    /// The space's number among the user's.
    pub space_index: SpaceIndex,
    /// The first id of the space's range: who owns its namespace.
    pub first_id: u32,
    /// Bits a second, each way.
    pub rate: BitsPerSecond,
}

impl SpaceLink {
    fn address(&self) -> Ipv4Addr {
        self.user_index.space(self.space_index)
    }

    fn gateway(&self) -> Ipv4Addr {
        self.user_index.gateway()
    }

    /// The name of the space's namespace and where it is bound.
    fn own(&self) -> (String, PathBuf) {
        let name = names::space_netns(self.sale.as_bytes());
        let path = names::netns_path(&name);
        (name, path)
    }

    /// The same of the user's.
    fn users(&self) -> (String, PathBuf) {
        let name = names::user_netns(self.user.as_bytes());
        let path = names::netns_path(&name);
        (name, path)
    }
}

/// Makes the space's namespace, the cable to its user's, addresses, routes and the rate. The user's namespace is there.
pub async fn ensure_space(space: &SpaceLink) -> Result<(), NetworkError> {
    let space = *space;
    let (name, path) = space.own();
    let (users_name, users_path) = space.users();
    if !host::netns::exists(&name) {
        create_owned(&name, space.first_id).await?;
    }

    let (owned, target) = (users_name.clone(), path.clone());
    let ours = inside::netlink(Some(&users_path), move |handle| async move {
        our_end(&handle, &owned, &target, &space).await
    });
    ours.await.map_err(|source| NetworkError::Inside {
        name: users_name,
        source,
    })??;

    let owned = name.clone();
    let theirs = inside::netlink(Some(&path), move |handle| async move {
        their_end(&handle, &space)
            .await
            .map_err(|source| NetworkError::Link { name: owned, source })
    });
    theirs
        .await
        .map_err(|source: InsideError| NetworkError::Inside { name, source })?
}

/// Through the helper, which takes its time: not on a worker.
async fn create_owned(name: &str, first_id: u32) -> Result<(), NetworkError> {
    let owned = name.to_owned();
    let made = tokio::task::spawn_blocking(move || host::netns::create_owned(&owned, first_id));
    let ended = |_| NetworkError::Inside {
        name: name.to_owned(),
        source: InsideError::Ended {
            namespace: name.to_owned(),
        },
    };
    made.await
        .map_err(ended)?
        .map_err(|source| NetworkError::Namespace {
            name: name.to_owned(),
            source: Box::new(source),
        })
}

async fn our_end(
    handle: &Handle,
    name: &str,
    namespace: &std::path::Path,
    space: &SpaceLink,
) -> Result<(), NetworkError> {
    let of_link = |source| NetworkError::Link {
        name: name.to_owned(),
        source,
    };
    let cable = names::space_interface(space.sale.as_bytes());
    if link::read_index(handle, &cable).await.map_err(of_link)?.is_none() {
        let descriptor = File::open(namespace).map_err(|source| NetworkError::Inside {
            name: namespace.display().to_string(),
            source: InsideError::Netlink {
                namespace: namespace.display().to_string(),
                source,
            },
        })?;
        link::create_pair(handle, &cable, LINK_OF_SPACE, descriptor.as_raw_fd())
            .await
            .map_err(of_link)?;
    }
    let end = async {
        link::ensure_address(handle, &cable, space.gateway(), 32).await?;
        link::ensure_up(handle, &cable).await?;
        link::ensure_route(handle, &cable, (space.address(), 32), None).await
    };
    end.await.map_err(of_link)?;
    rate::ensure(handle, &cable, &turn(&space.sale), space.rate)
        .await
        .map_err(|source| NetworkError::Rate {
            name: name.to_owned(),
            source,
        })
}

async fn their_end(handle: &Handle, space: &SpaceLink) -> Result<(), LinkError> {
    link::ensure_up(handle, "lo").await?;
    link::ensure_address(handle, LINK_OF_SPACE, space.address(), 32).await?;
    link::ensure_up(handle, LINK_OF_SPACE).await?;
    link::ensure_route(handle, LINK_OF_SPACE, (space.gateway(), 32), None).await?;
    link::ensure_route(
        handle,
        LINK_OF_SPACE,
        (Ipv4Addr::UNSPECIFIED, 0),
        Some(space.gateway()),
    )
    .await
}

/// Removes the space's cable and namespace. The user's namespace may be gone already.
pub async fn ensure_space_absent(sale: &SaleId, user: &UserId) -> Result<(), NetworkError> {
    let users_name = names::user_netns(user.as_bytes());
    let users_path = names::netns_path(&users_name);
    if users_path.exists() {
        let (cable, turn) = (names::space_interface(sale.as_bytes()), turn(sale));
        let gone = inside::netlink(Some(&users_path), move |handle| async move {
            link::ensure_absent(&handle, &cable).await?;
            link::ensure_absent(&handle, &turn).await
        });
        gone.await
            .map_err(|source| NetworkError::Inside {
                name: users_name.clone(),
                source,
            })?
            .map_err(|source| NetworkError::Link {
                name: users_name,
                source,
            })?;
    }
    let name = names::space_netns(sale.as_bytes());
    host::netns::delete(&name).map_err(|source| NetworkError::Namespace {
        name,
        source: Box::new(source),
    })
}

/// The device through which what the space sends is led.
fn turn(sale: &SaleId) -> String {
    names::space_interface(sale.as_bytes()).replacen('s', "t", 1)
}
