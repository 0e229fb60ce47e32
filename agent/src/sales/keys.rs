//! The secrets of one sale, in memory only: the seal key of the newest grant, the SSH host key's seed until it is
//! written into the volume, the unlock key between its arrival and the step that uses it.

use ed25519_dalek::SigningKey;
use market::message::SealedKey;
use market::seal::{SealError, SealSecret};
use provision::space::Access;
use storage::luks::UnlockKey;
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The kernel gave no random bytes.
    #[error("the kernel has no random bytes")]
    Random,
    /// No grant of this boot is open.
    #[error("this grant's key is gone: ask for a new one")]
    NoGrant,
    /// It does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The secrets of one sale. `Debug` is absent on purpose.
#[derive(Default)]
pub struct Keys {
    grant: Option<(u64, SealSecret)>,
    host_seed: Option<Zeroizing<[u8; 32]>>,
    access: Option<(Zeroizing<[u8; 64]>, Vec<String>)>,
}

/// 32 fresh random bytes.
fn random() -> Result<[u8; 32], KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

impl Keys {
    /// A new seal key for this epoch, in place of the one before; its public half.
    pub fn new_grant(&mut self, epoch: u64) -> Result<[u8; 32], KeyError> {
        let secret = SealSecret::from_randomness(random()?);
        let public = secret.public();
        self.grant = Some((epoch, secret));
        Ok(public)
    }

    /// The host key's public half, made now where there is none in memory.
    pub fn host_key(&mut self) -> Result<[u8; 32], KeyError> {
        let seed = match self.host_seed.take() {
            Some(seed) => seed,
            None => Zeroizing::new(random()?),
        };
        let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        self.host_seed = Some(seed);
        Ok(public)
    }

    /// Opens what the user sealed; it waits here for the build.
    pub fn open(&mut self, sealed: &SealedKey) -> Result<(), KeyError> {
        let (epoch, secret) = self.grant.as_ref().ok_or(KeyError::NoGrant)?;
        if *epoch != sealed.epoch {
            return Err(KeyError::NoGrant);
        }
        let key = secret.open(
            sealed.sale,
            sealed.epoch,
            &sealed.encapsulated,
            &sealed.ciphertext,
        )?;
        self.access = Some((key, sealed.authorized_keys.clone()));
        Ok(())
    }

    /// Hands everything to the build; the host key's seed goes with it when the volume is new.
    pub fn take_access(&mut self, new_volume: bool) -> Option<Access> {
        let (mut key, authorized_keys) = self.access.take()?;
        let host_key_seed = if new_volume { self.host_seed.take() } else { None };
        self.grant = None;
        Some(Access {
            unlock_key: UnlockKey::take(&mut key),
            host_key_seed,
            authorized_keys,
        })
    }

    /// Forgets all of it.
    pub fn forget(&mut self) {
        *self = Keys::default();
    }
}
