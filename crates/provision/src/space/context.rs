//! What the steps of one space share while they run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use storage::Storage;
use storage::luks::UnlockKey;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Place, SpaceSpec, Walls};
use crate::files::{FilesContext, SpaceFiles};
use crate::volume::VolumeContext;

/// What the user's client sent, and the host key that the node made: with it a space can be opened.
pub struct Access {
    /// Opens the volume's one key slot.
    pub unlock_key: UnlockKey,
    /// The seed of the space's SSH host key; `None` at an unlock, when the key on the volume stays.
    pub host_key_seed: Option<Zeroizing<[u8; 32]>>,
    /// Who may log in: lines as `authorized_keys` has them.
    pub authorized_keys: Vec<String>,
}

/// The context of one run of a space's table. Without access, only what needs no key can be made; everything can be
/// undone.
pub struct SpaceContext {
    /// What was sold.
    pub(super) spec: SpaceSpec,
    /// Where it sits.
    pub(super) place: Place,
    /// LVM and LUKS.
    pub(super) storage: Storage,
    /// The user's key, while it is at hand.
    unlock_key: Option<UnlockKey>,
    /// What is written into the volume, while it is at hand.
    files: Option<SpaceFiles>,
    /// The volume with the base: what limits of its disk count on. Read through [`crate::base::device`].
    pub(super) base: PathBuf,
    /// A filter in the place of the built-in one.
    pub(super) seccomp: Option<PathBuf>,
    /// The firewall's owner.
    pub(super) walls: Arc<Walls>,
    /// Held while a user's namespace is made or removed.
    pub(super) networks: Arc<Mutex<()>>,
}

/// What a context is made of beside the space's record.
pub(super) struct Node {
    pub(super) storage: Storage,
    pub(super) base: PathBuf,
    pub(super) seccomp: Option<PathBuf>,
    pub(super) walls: Arc<Walls>,
    pub(super) networks: Arc<Mutex<()>>,
}

impl SpaceContext {
    pub(super) fn new(spec: SpaceSpec, place: Place, node: Node, access: Option<Access>) -> Self {
        let Node {
            storage,
            base,
            seccomp,
            walls,
            networks,
        } = node;
        let (mut unlock_key, mut files) = (None, None);
        if let Some(access) = access {
            unlock_key = Some(access.unlock_key);
            files = Some(SpaceFiles {
                host_key_seed: access.host_key_seed,
                authorized_keys: access.authorized_keys,
                hostname: spec.name.clone(),
                resolvers: vec![IpAddr::V4(place.user_index.gateway())],
                machine_id: machine_id(&spec),
            });
        }
        Self {
            spec,
            place,
            storage,
            unlock_key,
            files,
            base,
            seccomp,
            walls,
            networks,
        }
    }
}

/// The machine's id inside: the same at every start of the space, another for every space.
fn machine_id(spec: &SpaceSpec) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&spec.sale.as_bytes()[16..]);
    id
}

impl VolumeContext for SpaceContext {
    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn group(&self) -> &str {
        &self.spec.group.0
    }

    fn bytes(&self) -> u64 {
        self.spec.disk.0
    }

    fn snapshot_bytes(&self) -> u64 {
        self.spec.snapshot.0
    }

    fn unlock_key(&self) -> Option<&UnlockKey> {
        self.unlock_key.as_ref()
    }
}

impl FilesContext for SpaceContext {
    fn files(&self) -> Option<&SpaceFiles> {
        self.files.as_ref()
    }
}
