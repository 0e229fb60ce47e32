//! What ledger and client read of each other.

use ::ledger::door::{Door, Passed};
use ::ledger::wire::Request;
use ::ledger::{client, signing};
use ed25519_dalek::SigningKey;
use escrow::RailName;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

/// A request: only what the operator or an account signed becomes an operation, but for a refund.
pub fn request(bytes: &[u8]) {
    let door = Door {
        name: RailName::ledger(&key().verifying_key().to_bytes()),
        operator: key().verifying_key(),
    };
    if let Ok(Passed::Operation(operation)) = door.pass(bytes) {
        assert!(operation.instruction.len() <= 4 * bytes.len() + 4096);
    }
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let again = serde_json::to_vec(&request).unwrap();
        let again: Request = serde_json::from_slice(&again).unwrap();
        assert_eq!(again.ask, request.ask);
    }
}

/// An answer: unsigned ones are nothing; signed ones are read without harm.
pub fn answer(bytes: &[u8]) {
    let (key, asked) = (key(), b"{}");
    let ledger = key.verifying_key().to_bytes();
    let (signature, body) = bytes.split_at(bytes.len().min(64));
    assert!(client::read_answer(&ledger, asked, body, signature).is_err());
    let signature = signing::sign(&key, &signing::answer(asked, bytes));
    if let Ok(reply) = client::read_answer(&ledger, asked, bytes, &signature) {
        let _ = format!("{reply:?}");
        assert!(client::read_answer(&ledger, b"{ }", bytes, &signature).is_err());
    }
}
