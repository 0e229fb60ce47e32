//! What a sale needs of the machine: build, open again, resize, put its snapshot back, end, connect.
//!
//! The one for this machine is the provisioner. The tests of the sales put another in its place, for what they look
//! at is money and messages; the provisioner itself is tested on the real kernel, in the guest.

use async_trait::async_trait;
use market::id::SaleId;
use market::quantity;
use market::sale::TornDown;
use provision::space::{Access, BuildError, EndError, Provisioner, RestoreError, SpaceSpec};
use storage::luks::UnlockKey;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::words::chain;

/// A byte stream into a space.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Why a space is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failed {
    /// All causes, in one line.
    pub why: String,
    /// Where something could not be undone: what.
    pub quarantine: Option<String>,
}

/// Why a space is not as its snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRestored {
    /// All causes, in one line.
    pub why: String,
    /// Nothing was changed.
    pub is_untouched: bool,
}

/// What a sale needs of the machine.
#[async_trait]
pub trait Spaces: Send + Sync {
    /// Makes what of a space needs no key; what fails is undone.
    async fn prepare(&self, spec: SpaceSpec) -> Result<(), Failed>;
    /// Builds a space; what fails is undone.
    async fn build(&self, spec: SpaceSpec, access: Access) -> Result<(), Failed>;
    /// Opens a space again after a reboot, with the size that is agreed now; what fails is undone down to the volume.
    /// Says whether its volume has that size: one that cannot be grown is opened as it was.
    async fn unlock(&self, spec: SpaceSpec, access: Access) -> Result<bool, Failed>;
    /// Gives a running space this size, its snapshot too; its volume, where the key is there. Repeating it is fine.
    async fn resize(&self, spec: SpaceSpec, key: Option<UnlockKey>) -> Result<(), Failed>;
    /// Takes a space down to its volume, which is closed; its key opens it again. Repeating it is fine.
    async fn lock(&self, sale: SaleId) -> Result<(), Failed>;
    /// Closes it and makes its volume what its snapshot is. What failed is gone on with by repeating it.
    async fn restore(&self, sale: SaleId) -> Result<(), NotRestored>;
    /// Says that its end comes next: what takes long of it stops.
    fn hurry(&self, sale: SaleId);
    /// Memory that it could not give back now.
    fn memory_in_use(&self, sale: SaleId) -> Result<quantity::Bytes, Failed>;
    /// Undoes everything, whatever state it is in. Repeating it is fine.
    async fn end(&self, sale: SaleId) -> TornDown;
    /// Whether the space's process lives.
    fn runs(&self, sale: SaleId) -> bool;
    /// Connects to a port inside.
    async fn connect(&self, sale: SaleId, port: u16) -> Result<Box<dyn Bytes>, Failed>;
}

#[async_trait]
impl Spaces for Provisioner {
    async fn prepare(&self, spec: SpaceSpec) -> Result<(), Failed> {
        Provisioner::prepare(self, spec)
            .await
            .map_err(|error| failed(&error))
    }

    async fn build(&self, spec: SpaceSpec, access: Access) -> Result<(), Failed> {
        Provisioner::build(self, spec, access)
            .await
            .map(drop)
            .map_err(|error| failed(&error))
    }

    async fn unlock(&self, spec: SpaceSpec, access: Access) -> Result<bool, Failed> {
        self.set_size(&spec).await.map_err(|error| plain(&error))?;
        Provisioner::unlock(self, spec.sale, access)
            .await
            .map(|ready| ready.is_grown)
            .map_err(|error| failed(&error))
    }

    async fn resize(&self, spec: SpaceSpec, key: Option<UnlockKey>) -> Result<(), Failed> {
        let resized = Provisioner::resize(self, spec, key).await;
        resized.map_err(|error| plain(&error))
    }

    async fn lock(&self, sale: SaleId) -> Result<(), Failed> {
        let locked = Provisioner::lock(self, sale).await;
        locked.map_err(|error| plain(&error))
    }

    async fn restore(&self, sale: SaleId) -> Result<(), NotRestored> {
        let restored = Provisioner::restore(self, sale).await;
        restored.map(drop).map_err(|error: RestoreError| NotRestored {
            why: chain(&error),
            is_untouched: error.is_untouched(),
        })
    }

    fn hurry(&self, sale: SaleId) {
        Provisioner::hurry(self, sale);
    }

    fn memory_in_use(&self, sale: SaleId) -> Result<quantity::Bytes, Failed> {
        Provisioner::memory_in_use(self, &sale).map_err(|error| plain(&error))
    }

    async fn end(&self, sale: SaleId) -> TornDown {
        match Provisioner::end(self, sale).await {
            Ok(_) => TornDown::CLEAN,
            Err(error) => torn(&error),
        }
    }

    fn runs(&self, sale: SaleId) -> bool {
        self.space_pid(&sale).is_some()
    }

    async fn connect(&self, sale: SaleId, port: u16) -> Result<Box<dyn Bytes>, Failed> {
        let stream = Provisioner::connect(self, &sale, port).await;
        let stream = stream.map_err(|error| plain(&error))?;
        Ok(Box::new(stream))
    }
}

fn plain(error: &(dyn std::error::Error + 'static)) -> Failed {
    Failed {
        why: chain(error),
        quarantine: None,
    }
}

fn failed(error: &BuildError) -> Failed {
    let why = chain(error);
    Failed {
        quarantine: error.is_quarantined().then(|| why.clone()),
        why,
    }
}

fn torn(error: &EndError) -> TornDown {
    TornDown {
        key_slot: false,
        volume: false,
        quarantine: Some(chain(error)),
    }
}
