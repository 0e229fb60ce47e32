//! Doors for the fuzz targets: the decoders of this crate that are private otherwise. Compiled for them alone
//! (`--cfg fuzzing`).

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::check::{Gate, GateLimits};
use crate::seat::wire::{Ask, Word};
use crate::{PeerId, frame, membership};

/// Broadcasts, each with its length before it as one byte, through the frame and the gate: how many passed.
pub fn broadcasts(mut rest: &[u8]) -> usize {
    let (mut gate, start) = (Gate::new(GateLimits::default()), Instant::now());
    let (mut passed, mut number) = (0, 0u8);
    while let [length, after @ ..] = rest {
        let (content, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        number = number.wrapping_add(1);
        let Some(message) = membership::unframed(Bytes::copy_from_slice(content)) else {
            continue;
        };
        let now = start + Duration::from_millis(u64::from(number));
        let from = PeerId([number % 3; 32]);
        let judge =
            |gate: &mut Gate| gate.judged(&message, from, number % 5 != 0, Duration::from_micros(50), now);
        passed += usize::from(
            gate.admit(&message, from, now)
                .and_then(|()| judge(&mut gate))
                .is_ok(),
        );
    }
    passed
}

/// The frames of a stream, until it ends or one is refused: their lengths.
pub fn frames(mut stream: &[u8], most: usize) -> Vec<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let long = Duration::from_secs(60);
    runtime.block_on(async {
        let mut lengths = Vec::new();
        while let Ok(frame) = frame::read(&mut stream, most, long, long).await {
            assert!(frame.len() <= most);
            lengths.push(frame.len());
        }
        lengths
    })
}

/// What is said about a seat: whether it was an ask that counts here, or another word.
pub fn seat(bytes: &[u8]) -> bool {
    // Grid, bootstrap peer and asking endpoint of the seeds.
    let (grid, own, endpoint) = ([1; 32], [2; 32], [3; 32]);
    if let Some(word) = Word::from_bytes(bytes) {
        assert_eq!(word.to_bytes(), bytes);
        return true;
    }
    Ask::open(bytes, &grid, &own, &endpoint).is_some()
}
