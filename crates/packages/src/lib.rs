//! Debian packages for the image: pinned, downloaded as an ordinary user, unpacked.
//!
//! ```text
//! sets (what we ask for) ── apt with a private configuration ──▶ packages.lock.toml
//! packages.lock.toml ── apt-helper, by path and SHA-256 ──▶ store (one file a hash) ── dpkg-deb ──▶ trees
//! ```
//!
//! Invariants: a file is in the store only under the hash that its content has; a build from the lock asks the archive
//! for nothing but those files; no host name is written here, the archive's address comes from the machine.

pub mod apt;
pub mod described;
pub mod lock;
pub mod mirror;
pub mod program;
pub mod sets;
pub mod store;
pub mod unpack;

pub use described::Described;
pub use lock::{Archive, Lock, Locked};
pub use mirror::Mirror;
pub use sets::Set;
pub use store::{Fetched, Store};
