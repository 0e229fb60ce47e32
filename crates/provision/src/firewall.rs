//! The walls: which packets of a space go where, as one nftables set for each namespace, computed whole.
//!
//! ```text
//!   space ──► user's namespace ──────────────► node's namespace ──────────► uplink ──► outside
//!             its address only (no spoofing)   never to the node itself     as the node's address
//!             gateway:53 ─► the resolver       never behind a wall
//!             one user's spaces see each other  no mail, unless opened
//!
//!   outside ──► node: declared port ──────────► user's namespace ─────────► space:22
//! ```
//!
//! - [`Plan`] is a value: live spaces, uplinks, what the farmer opened. [`node_rules`] and [`user_rules`] are pure
//!   functions from it to text; [`apply`] hands the text to `nft`, which replaces our table in one transaction.
//!   There is no rule added or removed by itself anywhere: what is in the kernel is what the plan says, whole.
//! - Walls first, then the way out; what no rule lets through is refused.
//! - IPv6 does not leave a space: no address is given there, and what a user configures by hand is dropped.
//! - `established` comes after the check for spoofing and before the walls: answers to what was let in pass.

mod apply;
mod node;
mod user;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use market::quantity::BitsPerSecond;

use crate::network::address::{Prefix, SpaceIndex, UserIndex};

pub use apply::{ApplyError, apply};
pub use node::node_rules;
pub use user::user_rules;

/// What no space reaches over IPv4, with the reason. The uplinks' own prefixes and addresses come on top.
pub const WALLS: [(&str, &str); 11] = [
    ("0.0.0.0/8", "this host, RFC 1122"),
    ("10.0.0.0/8", "private, RFC 1918"),
    ("100.64.0.0/10", "carriers' own, RFC 6598"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local and metadata services, RFC 3927"),
    ("172.16.0.0/12", "private, RFC 1918"),
    ("192.0.0.0/24", "protocol assignments, RFC 6890"),
    ("192.168.0.0/16", "private, RFC 1918"),
    ("198.18.0.0/15", "other users' spaces"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved, and the broadcast address"),
];

/// Ports by which mail is handed in: a space that sends spam costs the farmer the address.
pub const MAIL_PORTS: [u16; 3] = [25, 465, 587];

/// Connections that one space may have under way: an entry of the kernel's table is memory of nobody's cgroup, and a
/// full table takes no new connection of anybody.
pub const MOST_CONNECTIONS: u32 = 4096;
/// The same for all spaces of one user together, in the node's table.
pub const MOST_CONNECTIONS_OF_A_USER: u32 = 8192;
/// Connections that the outside may have under way to all declared ports of one user.
pub const MOST_CONNECTIONS_TO_A_USER: u32 = 1024;

/// What is left of a user's rate when the month's traffic is used up: a login still comes through.
pub const TRICKLE: BitsPerSecond = BitsPerSecond(64_000);

/// The largest segment of a stream: 1280, which every path of IPv6 carries (RFC 8200, section 5) and tunnels keep to,
/// less the headers of IPv4 and TCP. A segment that is smaller already stays as it is.
pub const LARGEST_SEGMENT: u16 = 1240;

/// Everything that the rules follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How the node reaches the outside.
    pub uplinks: Vec<Uplink>,
    /// What the farmer opens.
    pub openings: Openings,
    /// What the farmer allows of his line.
    pub caps: Caps,
    /// Users with at least one space.
    pub users: Vec<UserPlan>,
}

/// One interface by which the node reaches the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub interface: InterfaceName,
    /// What is on-link there, and the node's own addresses on it.
    pub prefixes: Vec<Prefix>,
    /// Its name servers, the preferred first.
    pub resolvers: Vec<IpAddr>,
}

/// What the farmer lets spaces reach beyond the walls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// Networks that spaces may reach.
    pub prefixes: Vec<Prefix>,
    /// Whether spaces may hand in mail.
    pub mail: bool,
    /// The port of the status page, where there is one: for the uplinks' own private networks alone.
    pub status_port: Option<u16>,
}

/// What the farmer lets spaces have of his line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What all spaces together may send, and receive. No more than this is sold, so it is felt only where it was
    /// lowered later.
    pub rate: Option<BitsPerSecond>,
    /// Whether the month's traffic is used up: each user then has [`TRICKLE`], each way.
    pub slowed: bool,
}

/// One user's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPlan {
    /// The user's number, from which all addresses follow.
    pub index: UserIndex,
    /// The link's end in the node's namespace.
    pub link_of_node: InterfaceName,
    /// The link's end in the user's namespace.
    pub link_of_user: InterfaceName,
    /// The user's spaces.
    pub spaces: Vec<SpacePlan>,
}

/// One space's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpacePlan {
    /// Its number among the user's.
    pub index: SpaceIndex,
    /// The link's end in the user's namespace.
    pub link: InterfaceName,
    /// The port on the node's uplinks that leads to its SSH server, where one was declared.
    pub public_port: Option<u16>,
}

impl Plan {
    /// The name server to which the gateways' port 53 leads: the first that can be reached over IPv4.
    pub fn resolver(&self) -> Option<Ipv4Addr> {
        self.uplinks
            .iter()
            .flat_map(|uplink| &uplink.resolvers)
            .find_map(|resolver| match resolver {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            })
    }
}

impl UserPlan {
    /// The address of one of the user's spaces.
    pub fn address(&self, space: &SpacePlan) -> Ipv4Addr {
        self.index.space(space.index)
    }
}

/// An interface name that can stand in a rule: what the kernel allows (1 to 15 bytes) less what would end a string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// A name that cannot stand in a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no interface name: 1 to 15 letters, digits, '.', '_', '-' or '@'")]
pub struct InterfaceNameError {
    name: String,
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(name: String) -> Result<Self, InterfaceNameError> {
        let fits = (1..=15).contains(&name.len());
        if fits
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
        {
            Ok(Self(name))
        } else {
            Err(InterfaceNameError { name })
        }
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> String {
        name.0
    }
}

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    /// As a rule wants it: quoted.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

/// A named set with these elements; nft refuses an empty list, so none then.
fn set(name: &str, kind: &str, elements: impl IntoIterator<Item = String>) -> String {
    let elements: Vec<String> = elements.into_iter().collect();
    let mut text = format!("\tset {name} {{\n\t\ttype {kind}\n");
    if kind.starts_with("ipv") {
        text.push_str("\t\tflags interval\n\t\tauto-merge\n");
    }
    if !elements.is_empty() {
        text.push_str(&format!("\t\telements = {{ {} }}\n", elements.join(", ")));
    }
    text.push_str("\t}\n");
    text
}

/// The end of a rule that drops what is more than this. After a pause the kernel lets one second's worth and the burst
/// pass at once (`nft_limit.c`, `nft_limit_init`); the burst is what a login needs.
fn beyond(rate: BitsPerSecond) -> String {
    let kbytes = (rate.0 / 8 / 1024).max(1);
    format!("limit rate over {kbytes} kbytes/second burst 64 kbytes drop")
}

/// Our table, whole: whatever stood there goes in the same transaction.
fn table(body: &str) -> String {
    format!("table inet steading\ndelete table inet steading\ntable inet steading {{\n{body}}}\n")
}

#[cfg(test)]
mod tests;
