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
#[derive(Debug)]
pub struct Ears {
    heard: HashMap<PeerId, u8>,
    most_peers: usize,
    most_streams: u8,
}

impl Default for Ears {
    fn default() -> Ears {
        Ears {
            heard: HashMap::new(),
            most_peers: MOST_PEERS,
            most_streams: MOST_STREAMS,
        }
    }
}

impl Ears {
    /// Whether one more stream of this peer is read.
    pub fn listen_to(&mut self, peer: PeerId) -> bool {
        if self.heard.len() >= self.most_peers && !self.heard.contains_key(&peer) {
            return false;
        }
        let streams = self.heard.entry(peer).or_default();
        *streams = streams.saturating_add(1);
        *streams <= self.most_streams
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

    /// One that listens to everything, for the controls.
    fn unbounded() -> Ears {
        Ears {
            most_peers: usize::MAX,
            most_streams: u8::MAX,
            ..Ears::default()
        }
    }

    #[test]
    fn a_peer_that_opens_thousands_of_streams_is_unheard_and_another_is_heard() {
        let flood = |ears: &mut Ears| (0..10 * MOST_PEERS).filter(|_| ears.listen_to(peer(1))).count();
        let mut ears = Ears::default();
        assert_eq!(flood(&mut ears), usize::from(MOST_STREAMS));
        assert!(ears.listen_to(peer(2)));
        // The control: without the bound every one of them is read.
        assert_eq!(flood(&mut unbounded()), 10 * MOST_PEERS);
    }

    #[test]
    fn a_crowd_of_peers_is_bounded() {
        let crowd = |ears: &mut Ears| {
            (0..3 * MOST_PEERS)
                .filter(|number| ears.listen_to(peer(*number)))
                .count()
        };
        let mut ears = Ears::default();
        assert_eq!(crowd(&mut ears), MOST_PEERS);
        assert!(!ears.listen_to(peer(3 * MOST_PEERS)));
        assert!(ears.listen_to(peer(0)), "who was heard before may try again");
        assert_eq!(ears.heard.len(), MOST_PEERS);
        // The control: without the bound each of them is read and remembered.
        let mut ears = unbounded();
        assert_eq!(crowd(&mut ears), 3 * MOST_PEERS);
        assert_eq!(ears.heard.len(), 3 * MOST_PEERS);
    }
}
