//! The hash chain: every entry names the one before it.
//!
//! ```text
//! hash(n) = SHA-256("steading/ledger/entry/1\0" ‖ hash(n-1) ‖ sequence ‖ time
//!                   ‖ operation ‖ instruction ‖ debit ‖ credit ‖ amount)
//! ```
//! Numbers are 8 bytes, big-endian; each text goes in after its length in 8
//! bytes. hash(0) is SHA-256 over the ledger's name, so that no two ledgers
//! share a beginning.

use sha2::{Digest, Sha256};

/// 32 bytes of SHA-256.
pub type Hash = [u8; 32];

/// One booked operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1 without a gap.
    pub sequence: i64,
    /// The ledger's time, unix milliseconds; never runs back.
    pub time_ms: i64,
    /// What makes the operation unique.
    pub operation: Hash,
    /// The signed instruction, byte for byte.
    pub instruction: String,
    /// The account that the amount left.
    pub debit: String,
    /// The account at which it arrived.
    pub credit: String,
    /// Smallest units; zero where only a deadline moved.
    pub amount: i64,
}

/// What stands before the first entry.
pub fn genesis(ledger_name: &str) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"steading/ledger/genesis/1\0");
    hasher.update(ledger_name.as_bytes());
    hasher.finalize().into()
}

impl Entry {
    /// The entry's hash, given that of the one before it.
    pub fn hash(&self, previous: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(b"steading/ledger/entry/1\0");
        hasher.update(previous);
        hasher.update(self.sequence.to_be_bytes());
        hasher.update(self.time_ms.to_be_bytes());
        hasher.update(self.operation);
        for text in [&self.instruction, &self.debit, &self.credit] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(self.amount.to_be_bytes());
        hasher.finalize().into()
    }
}
