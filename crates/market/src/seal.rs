//! The unlock key on its way from the client to the node: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256, ChaCha20-Poly1305.
//!
//! ```text
//! info = "steading/seal/1\0" ‖ sale (32) ‖ epoch (8, big endian)      aad = nothing      plaintext = 64 bytes
//! ```
//!
//! Invariants: a key sealed for one sale or epoch opens for no other; the seal key lives in memory only and is
//! zeroized, as is the opened unlock key; neither has `Clone` or shows itself in `Debug`. Randomness is an argument,
//! used once.

use std::convert::Infallible;
use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as X25519;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::id::SaleId;

/// Length of an unlock key.
pub const UNLOCK_KEY_BYTES: usize = 64;

/// Why a sealed key was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The public half is no usable X25519 key.
    #[error("the seal key is not a usable key")]
    PublicKey,
    /// Sealed to another key, sale or epoch, or changed on the way.
    #[error("the sealed unlock key does not open: it is for another grant, or was changed")]
    Open,
}

/// The node's half, for one sale and epoch.
pub struct SealSecret {
    secret: <X25519 as Kem>::PrivateKey,
    public: [u8; 32],
}

impl fmt::Debug for SealSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealSecret(hidden)")
    }
}

impl SealSecret {
    /// Derives the pair from fresh random bytes, which are zeroized.
    pub fn from_randomness(mut randomness: [u8; 32]) -> SealSecret {
        let (secret, public) = X25519::derive_keypair(&randomness);
        randomness.zeroize();
        SealSecret {
            secret,
            public: public.to_bytes().into(),
        }
    }

    /// What the grant carries.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Opens what the client sealed for this sale and epoch.
    pub fn open(
        &self,
        sale: SaleId,
        epoch: u64,
        encapsulated: &[u8; 32],
        ciphertext: &[u8; 80],
    ) -> Result<Zeroizing<[u8; UNLOCK_KEY_BYTES]>, SealError> {
        let encapsulated =
            <X25519 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealError::Open)?;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519>(
            &OpModeR::Base,
            &self.secret,
            &encapsulated,
            &info(sale, epoch),
            ciphertext,
            b"",
        );
        let opened = Zeroizing::new(opened.map_err(|_| SealError::Open)?);
        let mut key = Zeroizing::new([0; UNLOCK_KEY_BYTES]);
        if opened.len() != key.len() {
            return Err(SealError::Open);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }
}

/// Seals an unlock key to a grant's seal key: the encapsulated key and the ciphertext. `randomness` is used once.
pub fn seal(
    seal_key: &[u8; 32],
    sale: SaleId,
    epoch: u64,
    unlock_key: &[u8; UNLOCK_KEY_BYTES],
    randomness: [u8; 32],
) -> Result<([u8; 32], [u8; 80]), SealError> {
    let recipient = <X25519 as Kem>::PublicKey::from_bytes(seal_key).map_err(|_| SealError::PublicKey)?;
    let mut stream = Stream {
        seed: Zeroizing::new(randomness),
        counter: 0,
    };
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519>(
        &OpModeS::Base,
        &recipient,
        &info(sale, epoch),
        unlock_key,
        b"",
        &mut stream,
    )
    .map_err(|_| SealError::PublicKey)?;
    let ciphertext = ciphertext.try_into().map_err(|_| SealError::PublicKey)?;
    Ok((encapsulated.to_bytes().into(), ciphertext))
}

fn info(sale: SaleId, epoch: u64) -> Vec<u8> {
    [&b"steading/seal/1\0"[..], sale.as_bytes(), &epoch.to_be_bytes()].concat()
}

/// 32 random bytes as the generator HPKE wants: SHA-256(seed ‖ counter), block by block.
struct Stream {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for chunk in target.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(self.seed.as_slice())
                .chain_update(self.counter.to_be_bytes());
            chunk.copy_from_slice(&block.finalize()[..chunk.len()]);
            self.counter += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: SaleId = SaleId([7; 32]);
    const UNLOCK_KEY: [u8; 64] = [42; 64];

    #[test]
    fn the_node_opens_what_the_client_sealed() {
        let secret = SealSecret::from_randomness([1; 32]);
        let (encapsulated, ciphertext) = seal(&secret.public(), SALE, 3, &UNLOCK_KEY, [2; 32]).unwrap();
        assert_eq!(
            *secret.open(SALE, 3, &encapsulated, &ciphertext).unwrap(),
            UNLOCK_KEY
        );
    }

    #[test]
    fn for_another_sale_epoch_or_key_it_stays_shut() {
        let secret = SealSecret::from_randomness([1; 32]);
        let (encapsulated, ciphertext) = seal(&secret.public(), SALE, 3, &UNLOCK_KEY, [2; 32]).unwrap();
        assert_eq!(
            secret.open(SaleId([8; 32]), 3, &encapsulated, &ciphertext),
            Err(SealError::Open)
        );
        assert_eq!(
            secret.open(SALE, 4, &encapsulated, &ciphertext),
            Err(SealError::Open)
        );
        let other = SealSecret::from_randomness([9; 32]);
        assert_eq!(
            other.open(SALE, 3, &encapsulated, &ciphertext),
            Err(SealError::Open)
        );
    }

    #[test]
    fn every_bit_counts() {
        let secret = SealSecret::from_randomness([1; 32]);
        let (encapsulated, ciphertext) = seal(&secret.public(), SALE, 3, &UNLOCK_KEY, [2; 32]).unwrap();
        for bit in 0..80 * 8 {
            let mut changed = ciphertext;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                secret.open(SALE, 3, &encapsulated, &changed),
                Err(SealError::Open)
            );
        }
        assert_eq!(
            seal(&[0; 32], SALE, 1, &UNLOCK_KEY, [2; 32]),
            Err(SealError::PublicKey)
        );
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(
            format!("{:?}", SealSecret::from_randomness([1; 32])),
            "SealSecret(hidden)"
        );
    }
}
