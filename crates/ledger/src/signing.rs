//! The bytes that instructions and answers sign.
//!
//! Each begins with a label of its own that ends in a zero byte, so that
//! nothing signed for one purpose passes for another; what follows has a
//! fixed length (numbers big-endian). The lease id commits to the rail, hence
//! to the ledger's key: an instruction is void at any other ledger.
//!
//! | what | signed by | after the label |
//! |---|---|---|
//! | lock | the payer's account key | lease id, total (16), expiry (8) |
//! | voucher | the sale's voucher key | lease id, cumulative (16), not before (8) |
//! | close | the payer's account key | lease id |
//! | give back | the node's give-back key | lease id, paid (16) |
//! | refund | nobody: anyone may, after the deadline | lease id |
//! | fund | the operator's key | the ledger's key, SHA-256 of the account's text, amount (16), id (32) |
//! | answer | the ledger's own key | SHA-256 of the request's body, SHA-256 of the answer's body |

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use escrow::{Account, Amount, LeaseId, RailName, RailTime};
use sha2::{Digest, Sha256};

fn message(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(b"steading/ledger/");
    bytes.extend_from_slice(label.as_bytes());
    bytes.extend_from_slice(b"/1\0");
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// What the payer signs to lock `total` until `expiry`.
pub fn lock(lease: &LeaseId, total: Amount, expiry: RailTime) -> Vec<u8> {
    message(
        "lock",
        &[&lease.0, &total.0.to_be_bytes(), &expiry.0.to_be_bytes()],
    )
}

/// What the voucher key signs.
pub fn voucher(lease: &LeaseId, cumulative: Amount, not_before: RailTime) -> Vec<u8> {
    message(
        "voucher",
        &[&lease.0, &cumulative.0.to_be_bytes(), &not_before.0.to_be_bytes()],
    )
}

/// What the payer signs to close.
pub fn close(lease: &LeaseId) -> Vec<u8> {
    message("close", &[&lease.0])
}

/// What the node's give-back key signs: the rest returns, `paid` stays paid.
pub fn give_back(lease: &LeaseId, paid: Amount) -> Vec<u8> {
    message("give-back", &[&lease.0, &paid.0.to_be_bytes()])
}

/// What names a refund; it needs no signature.
pub fn refund(lease: &LeaseId) -> Vec<u8> {
    message("refund", &[&lease.0])
}

/// What the operator signs to issue play money on the ledger of that name,
/// once for each `id`.
pub fn fund(ledger: &RailName, to: &Account, amount: Amount, id: &[u8; 32]) -> Vec<u8> {
    let account: [u8; 32] = Sha256::digest(to.as_str().as_bytes()).into();
    let key = ledger.ledger_key().unwrap_or_default();
    message("fund", &[&key, &account, &amount.0.to_be_bytes(), id])
}

/// What the ledger's own key signs under every answer. The request's body
/// holds a fresh nonce, so an old answer fits no new request.
pub fn answer(request_body: &[u8], answer_body: &[u8]) -> Vec<u8> {
    let request: [u8; 32] = Sha256::digest(request_body).into();
    let answer: [u8; 32] = Sha256::digest(answer_body).into();
    message("answer", &[&request, &answer])
}

/// A signature as 64 bytes.
pub fn sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    key.sign(message).to_bytes()
}

/// Whether `signature` is `key`'s over `message`, strictly (no weak keys, no
/// second encoding of one signature).
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(key), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}
