//! What comes over the grid before anybody knows what it means.

use ::grid::{EndpointAddress, GridTicket, MAX_BROADCAST_BYTES, MAX_FRAME_BYTES, MAX_OPENING_BYTES, fuzzing};

use crate::{shown, text};

/// An address.
pub fn address(bytes: &[u8]) {
    if let Ok(address) = EndpointAddress::from_bytes(bytes) {
        assert!(bytes.len() <= EndpointAddress::MAX_BYTES);
        assert_eq!(EndpointAddress::from_bytes(&address.to_bytes()).unwrap(), address);
    }
}

/// A ticket.
pub fn ticket(bytes: &[u8]) {
    shown::<GridTicket>(text(bytes));
}

/// A stream, by each of the bounds.
pub fn frames(bytes: &[u8]) {
    for most in [MAX_FRAME_BYTES, MAX_OPENING_BYTES, 16] {
        let carried: usize = fuzzing::frames(bytes, most).iter().map(|length| 4 + length).sum();
        assert!(carried <= bytes.len());
    }
}

/// Broadcasts.
pub fn broadcast(bytes: &[u8]) {
    assert!(fuzzing::broadcasts(bytes) <= bytes.len());
    let _ = MAX_BROADCAST_BYTES;
}

/// An ask for a seat, or a word about one.
pub fn seat(bytes: &[u8]) {
    if fuzzing::seat(bytes) {
        assert!(bytes.len() <= 128);
    }
}
