//! The bytes of a seat: one ask, then words both ways, each in a frame of at most [`MOST_FRAME`] bytes.
//!
//! ```text
//!   ask      01 ‖ node 32 ‖ instance 16 ‖ held, ms, u64 big endian ‖ signature 64
//!            signed: "steading/seat/1\0" ‖ grid 32 ‖ bootstrap peer 32 ‖ asking endpoint 32 ‖ node 32 ‖ instance 16 ‖ held 8
//!   here     02 ‖ the call's nonce 8                     (the only other word of the asker)
//!   granted  03 ‖ 01: remembered, the stream stays · 00: there is no room, the stream ends
//!   refused  04 ‖ how long the other has had it, ms, u64 big endian
//!   call     05 ‖ nonce 8
//! ```
//!
//! Invariant: an ask counts only from the endpoint, at the bootstrap peer and in the grid that its signature names, so
//! nobody who saw one can use it. A node signs other things too; none of them begins like this.

use std::time::Duration;

use iroh::{PublicKey, SecretKey, Signature};

/// More than the longest of them.
pub(crate) const MOST_FRAME: usize = 128;
const CONTEXT: &[u8] = b"steading/seat/1\0";
const ASK: u8 = 1;
const HERE: u8 = 2;
const GRANTED: u8 = 3;
const REFUSED: u8 = 4;
const CALL: u8 = 5;

/// What a machine says that would act for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The node's key.
    pub(crate) node: [u8; 32],
    /// Which run of which machine.
    pub(crate) instance: [u8; 16],
    /// How long it has had the seat already.
    pub(crate) held: Duration,
}

/// Everything else that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Here([u8; 8]),
    Granted { kept: bool },
    Refused { since: Duration },
    Call([u8; 8]),
}

fn ms(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .to_be_bytes()
}

impl Ask {
    fn said(&self, grid: &[u8; 32], bootstrap: &[u8; 32], endpoint: &[u8; 32]) -> Vec<u8> {
        let held = ms(self.held);
        [
            CONTEXT,
            grid,
            bootstrap,
            endpoint,
            &self.node,
            &self.instance,
            &held,
        ]
        .concat()
    }

    /// Its bytes, from this endpoint to this bootstrap peer.
    pub(crate) fn sign(
        &self,
        node: &SecretKey,
        grid: &[u8; 32],
        bootstrap: &[u8; 32],
        endpoint: &[u8; 32],
    ) -> Vec<u8> {
        let signature = node.sign(&self.said(grid, bootstrap, endpoint)).to_bytes();
        [&[ASK][..], &self.node, &self.instance, &ms(self.held), &signature].concat()
    }

    /// Reads what came from this endpoint; nothing where the node did not sign it for it.
    pub(crate) fn open(
        bytes: &[u8],
        grid: &[u8; 32],
        bootstrap: &[u8; 32],
        endpoint: &[u8; 32],
    ) -> Option<Ask> {
        let [ASK, rest @ ..] = bytes else { return None };
        let (node, rest) = rest.split_first_chunk::<32>()?;
        let (instance, rest) = rest.split_first_chunk::<16>()?;
        let (held, rest) = rest.split_first_chunk::<8>()?;
        let signature: &[u8; 64] = rest.try_into().ok()?;
        let ask = Ask {
            node: *node,
            instance: *instance,
            held: Duration::from_millis(u64::from_be_bytes(*held)),
        };
        let key = PublicKey::from_bytes(node).ok()?;
        let said = ask.said(grid, bootstrap, endpoint);
        key.verify(&said, &Signature::from_bytes(signature)).ok()?;
        Some(ask)
    }
}

impl Word {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Word::Here(nonce) => [&[HERE][..], &nonce].concat(),
            Word::Granted { kept } => vec![GRANTED, kept.into()],
            Word::Refused { since } => [&[REFUSED][..], &ms(since)].concat(),
            Word::Call(nonce) => [&[CALL][..], &nonce].concat(),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Word> {
        let (kind, rest) = bytes.split_first()?;
        match (kind, rest) {
            (&HERE, _) => Some(Word::Here(rest.try_into().ok()?)),
            (&GRANTED, [0]) => Some(Word::Granted { kept: false }),
            (&GRANTED, [1]) => Some(Word::Granted { kept: true }),
            (&REFUSED, _) => Some(Word::Refused {
                since: Duration::from_millis(u64::from_be_bytes(rest.try_into().ok()?)),
            }),
            (&CALL, _) => Some(Word::Call(rest.try_into().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the node with secret 04…, in grid 01…, to bootstrap peer 02…, from endpoint 03….
    const GOLDEN: &[u8] = include_bytes!("../../golden/seat-ask.bin");

    fn golden() -> (SecretKey, Ask) {
        let node = SecretKey::from_bytes(&[4; 32]);
        let ask = Ask {
            node: *node.public().as_bytes(),
            instance: [6; 16],
            held: Duration::from_millis(3_600_000),
        };
        (node, ask)
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let (node, ask) = golden();
        let bytes = ask.sign(&node, &[1; 32], &[2; 32], &[3; 32]);
        assert_eq!(bytes, GOLDEN);
        let words = [
            (Word::Here([7; 8]), "020707070707070707"),
            (Word::Granted { kept: false }, "0300"),
            (Word::Granted { kept: true }, "0301"),
            (
                Word::Refused {
                    since: Duration::from_secs(1),
                },
                "0400000000000003e8",
            ),
            (Word::Call([7; 8]), "050707070707070707"),
        ];
        for (word, hex) in words {
            assert_eq!(data_encoding::HEXLOWER.encode(&word.to_bytes()), hex);
            assert_eq!(Word::from_bytes(&word.to_bytes()), Some(word));
        }
    }

    #[test]
    fn an_ask_counts_where_it_was_meant_and_nowhere_else() {
        let (node, ask) = golden();
        let bytes = ask.sign(&node, &[1; 32], &[2; 32], &[3; 32]);
        assert_eq!(Ask::open(&bytes, &[1; 32], &[2; 32], &[3; 32]), Some(ask));
        assert_eq!(Ask::open(&bytes, &[9; 32], &[2; 32], &[3; 32]), None);
        assert_eq!(Ask::open(&bytes, &[1; 32], &[9; 32], &[3; 32]), None);
        assert_eq!(Ask::open(&bytes, &[1; 32], &[2; 32], &[9; 32]), None);
        for index in 0..bytes.len() {
            let mut other = bytes.clone();
            other[index] ^= 1;
            assert_eq!(
                Ask::open(&other, &[1; 32], &[2; 32], &[3; 32]),
                None,
                "byte {index}"
            );
        }
        let other = SecretKey::from_bytes(&[5; 32]);
        let forged = ask.sign(&other, &[1; 32], &[2; 32], &[3; 32]);
        assert_eq!(Ask::open(&forged, &[1; 32], &[2; 32], &[3; 32]), None);
        assert_eq!(
            Ask::open(&[bytes, vec![0]].concat(), &[1; 32], &[2; 32], &[3; 32]),
            None
        );
    }
}
