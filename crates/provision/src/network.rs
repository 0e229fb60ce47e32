//! The network of spaces: a namespace for each user, a namespace for each space, cables between them.
//!
//! ```text
//!   node's namespace          user's namespace u-<user>              space's namespace s-<sale>
//!   ┌──────────────┐   /30   ┌─────────────────────────┐    /32     ┌───────────────────────┐
//!   │ uplinks      │         │ node                    │            │                       │
//!   │   u<user> ───┼─────────┼── (link_of_user)        │            │                       │
//!   │              │  veth   │          s<sale> ───────┼────────────┼── eth0 (its address)  │
//!   │              │         │  gateway │              │    veth    │   lo                  │
//!   │              │         │          t<sale> (ifb)  │            │                       │
//!   └──────────────┘         └─────────────────────────┘            └───────────────────────┘
//!     walls, NAT, ports        own address only, DNS, rate            owned by the space's root
//! ```
//!
//! - Routed, not bridged: each space hangs on a cable of its own with a /32, so that every packet between two spaces,
//!   of one user too, passes the rules, and no frame of one space (ARP, router advertisements) reaches another.
//! - Every `ensure` looks at the kernel and makes what is missing; every `ensure_absent` makes sure.
//! - The space's namespace belongs to the space's user namespace: root inside may bind port 22, add links and rules of
//!   its own. What holds it therefore stands on our ends of the cables, never on its own.

pub mod address;
mod connect;
pub mod inside;
pub mod link;
mod pace;
mod space;
mod user;

use std::io;

pub use connect::{ConnectError, connect};
pub use pace::{Bucket, Paced};
pub use space::{SpaceLink, ensure_space, ensure_space_absent};
pub use user::{LINK_OF_USER, UserLink, ensure_user, ensure_user_absent};

use crate::rate::RateError;
use inside::InsideError;
use link::LinkError;

/// Why a namespace with its links does not stand, or does not go.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace itself.
    #[error("network namespace {name}")]
    Namespace {
        /// Its name.
        name: String,
        /// What host said.
        #[source]
        source: Box<host::netns::NetnsError>,
    },
    /// It could not be worked in.
    #[error("network namespace {name} cannot be worked in")]
    Inside {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: InsideError,
    },
    /// A link, an address or a route.
    #[error("network namespace {name}: a link is not as it should be")]
    Link {
        /// Its name.
        name: String,
        /// Which, and why.
        #[source]
        source: LinkError,
    },
    /// The rate.
    #[error("network namespace {name}: the rate")]
    Rate {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: RateError,
    },
    /// A setting below /proc/sys.
    #[error("network namespace {name}: {setting} could not be set")]
    Setting {
        /// Its name.
        name: String,
        /// The file below /proc/sys.
        setting: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Writes a setting of the namespace that this thread is in.
fn set(name: &str, setting: &'static str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(std::path::Path::new("/proc/sys").join(setting), value).map_err(|source| {
        NetworkError::Setting {
            name: name.to_owned(),
            setting,
            source,
        }
    })
}
