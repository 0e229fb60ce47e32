//! The client's keys: all from one secret seed, each for one thing.
//!
//! ```text
//! seed (32) ─HKDF-SHA256─┬─ "steading/client/account/1"              account key: pays on a rail
//!                        ├─ "steading/client/user/1"                 user key: signs what travels
//!                        ├─ "steading/client/ssh/1"                  SSH user key: logs in
//!                        ├─ "steading/client/owner/1"                owner key: commands a farmer's own nodes
//!                        ├─ "steading/client/voucher/1\0" ‖ nonce    voucher key of the sale with that nonce
//!                        ├─ "steading/client/unlock/1\0" ‖ sale id   unlock key, 64 bytes
//!                        ├─ "steading/client/export/1\0" ‖ sale id   age identity of that sale's exports
//!                        └─ "steading/client/manifest/1\0" ‖ sale id authenticates what their export.json says
//! ```
//! No salt. Whoever has the seed has everything; whoever loses it loses the spaces.

use ed25519_dalek::SigningKey;
use escrow::{Account, RailKey};
use hkdf::Hkdf;
use market::id::{SaleId, UserId};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// What everything is derived from. Never shown by `Debug`, wiped when dropped.
pub struct Seed(Zeroizing<[u8; 32]>);

/// Why a text is no seed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Not the shape.
    #[error("a seed looks like steading-seed-1:, 64 hex digits, a dash and 8 hex digits")]
    Shape,
    /// Something was mistyped.
    #[error("the seed's last 8 digits do not fit the rest: copy it again, whole")]
    Check,
}

const PREFIX: &str = "steading-seed-1:";

impl Seed {
    /// A new one from the kernel.
    pub fn fresh() -> anyhow::Result<Seed> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|error| anyhow::anyhow!("the kernel gives no random bytes: {error}"))?;
        Ok(Seed(bytes))
    }

    /// The line that is written down: with check digits, so that a mistyped one is noticed.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut hex = ledger::hex::encode(self.0.as_slice());
        let line = Zeroizing::new(format!("{PREFIX}{hex}-{}", check(&self.0)));
        hex.zeroize();
        line
    }

    /// Reads such a line.
    pub fn from_line(line: &str) -> Result<Seed, SeedError> {
        let (hex, digits) = line
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .ok_or(SeedError::Shape)?;
        let bytes = Zeroizing::new(ledger::hex::decode::<32>(hex).ok_or(SeedError::Shape)?);
        if digits != check(&bytes) {
            return Err(SeedError::Check);
        }
        Ok(Seed(bytes))
    }

    fn derive<const N: usize>(&self, label: &str, context: &[u8]) -> Zeroizing<[u8; N]> {
        let mut output = Zeroizing::new([0u8; N]);
        let info = [label.as_bytes(), context];
        #[allow(clippy::expect_used)] // the only error is more than 255 hashes of output
        Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand_multi_info(&info, output.as_mut_slice())
            .expect("32 and 64 bytes are far below HKDF's bound");
        output
    }

    fn signing_key(&self, label: &str, context: &[u8]) -> SigningKey {
        SigningKey::from_bytes(&self.derive::<32>(label, context))
    }

    /// Pays and is paid.
    pub fn account_key(&self) -> SigningKey {
        self.signing_key("steading/client/account/1", b"")
    }

    /// Signs requests, sales, cancels, delegations.
    pub fn user_key(&self) -> SigningKey {
        self.signing_key("steading/client/user/1", b"")
    }

    /// Logs in.
    pub fn ssh_key(&self) -> SigningKey {
        self.signing_key("steading/client/ssh/1", b"")
    }

    /// Signs commands to the nodes whose `farmer.toml` names its public half as `owner`.
    pub fn owner_key(&self) -> SigningKey {
        self.signing_key("steading/client/owner/1", b"")
    }

    /// Signs the vouchers of the sale whose body has that nonce.
    pub fn voucher_key(&self, nonce: &[u8; 32]) -> SigningKey {
        self.signing_key("steading/client/voucher/1\0", nonce)
    }

    /// Opens the volume of that sale's space.
    pub fn unlock_key(&self, sale: &SaleId) -> Zeroizing<[u8; 64]> {
        self.derive("steading/client/unlock/1\0", sale.as_bytes())
    }

    /// Opens the parts of that sale's exports, as an X25519 key of age.
    pub fn export_key(&self, sale: &SaleId) -> Zeroizing<[u8; 32]> {
        self.derive("steading/client/export/1\0", sale.as_bytes())
    }

    /// Authenticates what an export of that sale says of itself: whoever was given the identity cannot write another.
    pub fn manifest_key(&self, sale: &SaleId) -> Zeroizing<[u8; 32]> {
        self.derive("steading/client/manifest/1\0", sale.as_bytes())
    }

    /// Who this is on the grid.
    pub fn user_id(&self) -> UserId {
        UserId(self.user_key().verifying_key().to_bytes())
    }

    /// Who this is on a ledger.
    pub fn account_on(&self, ledger_key: &[u8; 32]) -> Account {
        Account::on_ledger(ledger_key, self.account_key().verifying_key().as_bytes())
    }

    /// The public half of a sale's voucher key.
    pub fn voucher_public_key(&self, nonce: &[u8; 32]) -> RailKey {
        RailKey::ed25519(self.voucher_key(nonce).verifying_key().as_bytes())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

fn check(seed: &[u8; 32]) -> String {
    let digest = Sha256::new()
        .chain_update(b"steading/seed/1\0")
        .chain_update(seed)
        .finalize();
    ledger::hex::encode(&digest[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reads_back_and_one_wrong_digit_is_noticed() {
        let seed = Seed(Zeroizing::new([7; 32]));
        let line = seed.to_line();
        assert_eq!(Seed::from_line(&line).unwrap().0, seed.0);
        for at in PREFIX.len()..line.len() {
            let mut wrong = line.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(
                Seed::from_line(std::str::from_utf8(&wrong).unwrap()).is_err(),
                "{at}"
            );
        }
        assert_eq!(format!("{seed:?}"), "Seed(secret)");
    }

    /// Frozen: another derivation would lose every space and coin of every user.
    #[test]
    fn the_derivation_never_changes() {
        let seed = Seed(Zeroizing::new([7; 32]));
        let public = |key: SigningKey| ledger::hex::encode(key.verifying_key().as_bytes());
        let all = [
            public(seed.account_key()),
            public(seed.user_key()),
            public(seed.ssh_key()),
            public(seed.voucher_key(&[1; 32])),
            ledger::hex::encode(seed.unlock_key(&SaleId([1; 32])).as_slice()),
            public(seed.owner_key()),
            ledger::hex::encode(seed.export_key(&SaleId([1; 32])).as_slice()),
            ledger::hex::encode(seed.manifest_key(&SaleId([1; 32])).as_slice()),
        ];
        let golden: Vec<&str> = include_str!("../tests/golden/derivation.txt").lines().collect();
        assert_eq!(all.to_vec(), golden);
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
