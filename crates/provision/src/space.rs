//! A space as one table of steps, and the one who runs it.
//!
//! ```text
//!            ensure ─────────────────────────────────────────────────────────────────►
//!   volume ──┬── key ──────────┐        LV, LUKS2, ext4, open; the one key slot
//!            └── mount ─ files ┤        mounted; host key, login keys
//!                    └── limits┼─ process   cgroup, fresh; the space's PID 1, and sshd's banner
//!   network ───────────────────┘        namespaces, cables, walls
//!   ◄───────────────────────────────────────────────────────────────── ensure_absent, one by one
//!   needs what the user sends: key, files, process; the others are prepared before it comes
//!
//!   Building ── all steps done ──► Built ── end ──► Ending ── all undone ──► (no record)
//!      │  power lost, or a step failed   │  power lost
//!      └─► all undone, no record         └─► Locked: undone down to `mount`; `unlock` runs from there
//! ```
//!
//! - [`Provisioner::build`] answers when sshd inside has said `SSH-2.0` through the very way that a login takes.
//! - A snapshot of the volume comes and goes while the space runs: a table of one step beside this one.
//!
//! ```text
//!   [`Provisioner::resize`], the size says a snapshot ─► snapshot: taken         says none ─► removed
//!   [`Provisioner::restore`]:  restoring ─► undone down to `mount` ─► put back ─► Locked; the snapshot stays
//!                                 └──────── power lost, or it failed: `unlock` refuses until `restore` came through
//! ```
//! - Where a space sits (numbers, id range) is taken from the journal before anything is made, and is given back with
//!   the record, when nothing of the space is left. An undo that failed keeps both: capacity is withheld, not lost.
//! - [`Provisioner::recover`] compares the journal with the kernel: what runs is adopted, what was half built is
//!   undone, what was built and does not run is locked, what is on the machine and in no record goes.
//! - A space whose processes end by themselves (a reboot inside) is started again by its keeper.
//! - [`Provisioner::resize`] makes `limits` and, with the key, `mount` again for another size, while the space runs.
//! - [`Provisioner::prepare`] makes what needs no key while the user still makes and seals it. Whatever ends the sale
//!   before the key comes ends what was prepared; so does a restart of the agent.

mod context;
mod error;
mod keeper;
mod lines;
mod network;
mod process;
mod provisioner;
mod record;
mod recover;
mod snapshots;
mod walls;

use market::id::{Digest, GroupId, SaleId, UserId};
use market::message::Gives;
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};
use serde::{Deserialize, Serialize};

use crate::network::address::{SpaceIndex, UserIndex};

pub use context::{Access, SpaceContext};
pub use error::{BuildError, EndError, Lost, NotKept, ProvisionerError, ResizeError, RestoreError};
pub use process::{HEAD_START, ProcessError};
pub use provisioner::{Ended, Provisioner, Ready};
pub use record::{AdmitError, Phase, SpaceRecord};
pub use recover::{Outcome, RecoverError, Recovered};
pub use walls::{Walls, WallsError};

/// What was sold, as far as the machine is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceSpec {
    /// The sale.
    pub sale: SaleId,
    /// Who bought it.
    pub user: UserId,
    /// The host name inside.
    pub name: String,
    /// CPU time.
    pub cpu: MilliCpus,
    /// Memory.
    pub memory: Bytes,
    /// The volume.
    pub disk: Bytes,
    /// The network, each way.
    pub rate: BitsPerSecond,
    /// Processes and threads together.
    pub pids: u32,
    /// The base below it.
    pub base: Digest,
    /// The volume group in which its volume lies.
    pub group: GroupId,
    /// The port of the node's uplinks that leads to its SSH server, where the farmer declared some.
    #[serde(default)]
    pub public_port: Option<u16>,
    /// What a snapshot of its volume takes of the group; 0: it has none.
    #[serde(default)]
    pub snapshot: Bytes,
}

impl SpaceSpec {
    /// What of the node it holds.
    pub fn gives(&self) -> Gives {
        Gives {
            cpu: self.cpu,
            memory: self.memory,
            disk: self.disk,
            rate: self.rate,
            pids: self.pids,
            snapshot: self.snapshot,
        }
    }
}

/// Where a space sits on this node: numbers that no other space has while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its user's number.
    pub user_index: UserIndex,
    /// Its own among the user's.
    pub space_index: SpaceIndex,
    /// The first of its 65536 ids.
    pub first_id: u32,
}
