//! Messages of strangers.

use ::market::envelope::{inspect, open, peek_kind, sign};
use ::market::id::{GridId, NodeId, SaleId};
use ::market::message::*;
use ::market::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds};
use ::market::seal::SealSecret;
use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, Asset, LeaseId, RailName, Terms, Voucher};

use crate::{json, shown, text};

/// The seeds of the golden bytes' keys, in the order in which a message's signer is tried.
const SIGNERS: [u8; 4] = [3, 4, 5, 1];

/// Bytes as they come from the grid. Nothing that was changed on the way verifies.
pub fn envelope(bytes: &[u8]) {
    let (kind, whole) = (peek_kind(bytes), inspect(bytes));
    if let Ok(whole) = whole {
        assert_eq!(kind.unwrap(), whole.kind);
        assert!(bytes.len() <= whole.kind.most_bytes());
    }
}

/// The first byte chooses the kind, the rest is the payload; what is read is signed by each of the test keys, opened,
/// and is the same. So the fuzzer needs no signature to reach the decoders behind it.
pub fn message(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else {
        return;
    };
    match Kind::ALL[usize::from(*kind) % Kind::ALL.len()] {
        Kind::Request => payload_of::<CapacityRequest>(payload),
        Kind::Offer => payload_of::<Offer>(payload),
        Kind::Decline => payload_of::<Decline>(payload),
        Kind::Agree => payload_of::<Agree>(payload),
        Kind::Sale => payload_of::<Sale>(payload),
        Kind::Funded => payload_of::<Funded>(payload),
        Kind::Grant => payload_of::<KeyGrant>(payload),
        Kind::SealedKey => payload_of::<SealedKey>(payload),
        Kind::StatusQuery => payload_of::<StatusQuery>(payload),
        Kind::Status => payload_of::<Status>(payload),
        Kind::Voucher => payload_of::<VoucherMessage>(payload),
        Kind::Cancel => payload_of::<Cancel>(payload),
        Kind::Amend => payload_of::<Amend>(payload),
        Kind::Amended => payload_of::<Amended>(payload),
        Kind::Delegate => payload_of::<Delegate>(payload),
        Kind::Command => payload_of::<Command>(payload),
        Kind::Answer => payload_of::<Answer>(payload),
        Kind::Receipt => payload_of::<Receipt>(payload),
        Kind::Refusal => payload_of::<Refusal>(payload),
        Kind::Recall => payload_of::<Recall>(payload),
        Kind::Recalled => payload_of::<Recalled>(payload),
        Kind::Resize => payload_of::<Resize>(payload),
        Kind::Quote => payload_of::<Quote>(payload),
        Kind::Restore => payload_of::<Restore>(payload),
    }
}

fn payload_of<M: Message + Clone + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    let Ok(message) = M::from_payload(payload) else {
        return;
    };
    let grid = GridId(SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
    for seed in SIGNERS {
        let key = SigningKey::from_bytes(&[seed; 32]);
        if let Ok(signed) = sign(&key, grid, message.clone()) {
            assert_eq!(open::<M>(&signed.bytes, Some(grid)).unwrap(), signed);
        }
    }
}

/// A sealed key: what the fuzzer makes opens nothing.
pub fn seal(bytes: &[u8]) {
    let secret = SealSecret::from_randomness([0x5e; 32]);
    let Some((encapsulated, rest)) = bytes.split_first_chunk::<32>() else {
        return;
    };
    let Some((ciphertext, rest)) = rest.split_first_chunk::<80>() else {
        return;
    };
    let epoch = rest.first().copied().unwrap_or_default();
    let _ = secret.open(SaleId([7; 32]), u64::from(epoch), encapsulated, ciphertext);
}

/// The opening and the answer of a tunnel.
pub fn tunnel_opening(bytes: &[u8]) {
    if let Ok(opening) = TunnelOpening::from_bytes(bytes) {
        assert_eq!(TunnelOpening::from_bytes(&opening.to_bytes()).unwrap(), opening);
    }
    if let Ok(answer) = TunnelAnswer::from_bytes(bytes) {
        // Words are shortened when they are written, so only that they are read again.
        TunnelAnswer::from_bytes(&answer.to_bytes()).unwrap();
    }
}

/// A voucher.
pub fn voucher(bytes: &[u8]) {
    if let Ok(voucher) = Voucher::from_bytes(bytes) {
        assert_eq!(voucher.to_bytes(), bytes);
    }
    json::<Voucher>(bytes);
}

/// Whatever people and files write.
pub fn names(bytes: &[u8]) {
    let text = text(bytes);
    shown::<Account>(text);
    shown::<RailName>(text);
    shown::<Asset>(text);
    shown::<Amount>(text);
    shown::<LeaseId>(text);
    shown::<SaleId>(text);
    shown::<NodeId>(text);
    shown::<ledger::RailAddress>(text);
    json::<Terms>(bytes);
    let _ = text.parse::<MilliCpus>();
    let _ = text.parse::<Bytes>();
    let _ = text.parse::<BitsPerSecond>();
    let _ = text.parse::<Seconds>();
}
