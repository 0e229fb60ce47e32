//! The sales that run: one keeper each, and what they share.
//!
//! ```text
//!  direct streams ─► Order ─► Keeper (one task a sale) ─► market::sale::step ─► Record in the journal ─► effects
//!                                ▲                                                                        │
//!                                └──── Done: lock seen, built, torn down, redeemed, given back ◄──────────┘
//! ```
//!
//! Invariants: a sale's state changes in its keeper alone, and is durable before anything is done about it; what takes
//! long (the rail, a build) runs beside the keeper and comes back as an order, so that a status is always answered;
//! at most one call to the rail is under way for one sale. A seal key, a host key's private half and an unlock key are
//! in the keeper's memory alone.

mod changed;
mod clock;
mod earned;
mod effects;
mod keeper;
mod keys;
mod outcomes;
mod pace;
mod record;
mod resizing;
mod restoring;
mod retired;
mod shared;
mod show;
mod spaces;
mod unpaid;

pub use changed::Changed;
pub use clock::{RailClock, boot_ms};
pub use keeper::{Keeper, No, Order};
pub use record::{PORTS, Record, RecordError, recalled, request_of};
pub use resizing::{Rules, SNAPSHOT_EVERY_MS};
pub use restoring::RESTORE_EVERY_MS;
pub use shared::{Given, Shared, SpaceVolume};
pub use spaces::{Bytes, Failed, NotRestored, Spaces};
pub use storage::luks::UnlockKey;
