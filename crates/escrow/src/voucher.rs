//! A voucher: "I owe this sale so much in all, from that time on", signed by the sale's voucher key.
//!
//! Invariant: cumulative, so the newest alone counts and any may be shown twice. What is signed is the rail's affair;
//! how a voucher travels is the same for every rail and stands here:
//!
//! ```text
//! 1 byte version = 1 │ 32 lease │ 16 cumulative, big endian │ 8 not before, big endian │ signature (1 to 256 bytes)
//! ```

use serde::{Deserialize, Serialize};

use crate::amount::{Amount, RailTime};
use crate::terms::LeaseId;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 1 + 32 + 16 + 8;
const MOST_SIGNATURE_BYTES: usize = 256;

/// A promise to pay, in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voucher {
    /// The lock it draws on.
    pub lease: LeaseId,
    /// What is owed in all, earlier vouchers included.
    pub cumulative: Amount,
    /// Void before this time, and void for good if the user closed earlier.
    pub not_before: RailTime,
    /// By the voucher key, over the rail's bytes.
    #[serde(with = "hex_bytes")]
    pub signature: Vec<u8>,
}

/// Why bytes are no voucher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// Too short or too long.
    #[error(
        "a voucher of {0} bytes; {FIXED_BYTES} and a signature of 1 to {MOST_SIGNATURE_BYTES} are expected"
    )]
    Length(usize),
    /// Made by somebody newer.
    #[error("a voucher of version {0}; this program knows version {VERSION}")]
    Version(u8),
}

impl Voucher {
    /// The bytes that travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.lease.0);
        bytes.extend_from_slice(&self.cumulative.0.to_be_bytes());
        bytes.extend_from_slice(&self.not_before.0.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads what [`Voucher::to_bytes`] writes. The signature is not looked at: [`crate::Rail::check`] does that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Voucher, VoucherError> {
        let bad_length = VoucherError::Length(bytes.len());
        let (version, rest) = bytes.split_first().ok_or(bad_length.clone())?;
        if *version != VERSION {
            return Err(VoucherError::Version(*version));
        }
        let (lease, rest) = rest.split_first_chunk::<32>().ok_or(bad_length.clone())?;
        let (cumulative, rest) = rest.split_first_chunk::<16>().ok_or(bad_length.clone())?;
        let (not_before, signature) = rest.split_first_chunk::<8>().ok_or(bad_length.clone())?;
        if signature.is_empty() || signature.len() > MOST_SIGNATURE_BYTES {
            return Err(bad_length);
        }
        Ok(Voucher {
            lease: LeaseId(*lease),
            cumulative: Amount(u128::from_be_bytes(*cumulative)),
            not_before: RailTime(u64::from_be_bytes(*not_before)),
            signature: signature.to_vec(),
        })
    }
}

/// Bytes as lower-case hex digits.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::account::lower_hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voucher_reads_back_and_a_cut_one_does_not() {
        let voucher = Voucher {
            lease: LeaseId([3; 32]),
            cumulative: Amount(400_000),
            not_before: RailTime(17),
            signature: vec![5; 64],
        };
        let bytes = voucher.to_bytes();
        assert_eq!(Voucher::from_bytes(&bytes).unwrap(), voucher);
        for end in 0..=FIXED_BYTES {
            assert!(Voucher::from_bytes(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(Voucher::from_bytes(&[9; 121]), Err(VoucherError::Version(9)));
        assert!(Voucher::from_bytes(&[1; FIXED_BYTES + 257]).is_err());
    }
}
