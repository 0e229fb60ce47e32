//! Whose answers are listened to: a few streams a peer, of so many peers.
//!
//! Invariant: what one peer opens is never counted against another, so whoever floods an asker with streams is unheard
//! himself, and nobody else is.

use std::collections::HashMap;

use grid::PeerId;

/// Peers that are listened to for one request; a crowd beyond is left unread.
const MOST_PEERS: usize = 2000;
/// Streams of one peer: a node that could not deliver its answer tries again, once at each of two addresses.
const MOST_STREAMS: u8 = 3;

/// Who has been listened to, and how often.
#[derive(Debug, Default)]
pub struct Ears(HashMap<PeerId, u8>);

impl Ears {
    /// Whether one more stream of this peer is read.
    pub fn listen_to(&mut self, peer: PeerId) -> bool {
        if self.0.len() >= MOST_PEERS && !self.0.contains_key(&peer) {
            return false;
        }
        let streams = self.0.entry(peer).or_default();
        *streams = streams.saturating_add(1);
        *streams <= MOST_STREAMS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn a_peer_that_opens_a_hundred_streams_is_unheard_and_another_is_heard() {
        let mut ears = Ears::default();
        for number in 0..10 * MOST_PEERS {
            assert_eq!(ears.listen_to(peer(1)), number < usize::from(MOST_STREAMS));
        }
        assert!(ears.listen_to(peer(2)));
    }

    /// The control: where streams are counted and not peers, as many of one peer leave no ear for another.
    #[test]
    fn a_crowd_of_peers_is_bounded() {
        let mut ears = Ears::default();
        assert_eq!(
            (0..3 * MOST_PEERS)
                .filter(|number| ears.listen_to(peer(*number)))
                .count(),
            MOST_PEERS
        );
        assert!(!ears.listen_to(peer(3 * MOST_PEERS)));
        assert!(ears.listen_to(peer(0)), "who was heard before may try again");
    }
}
