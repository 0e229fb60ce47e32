//! Direct streams: bounded frames both ways between two endpoints.
//!
//! ALPN `steading/direct/1`; one bidirectional stream; each frame is a u32 big-endian length and
//! at most [`MAX_FRAME_BYTES`]. Who dialled speaks first. Dropping a stream ends it: what was sent
//! still arrives.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Holder, Kept, PeerId,
    frame::{self, FrameError},
    stream::{Carried, LINGER},
};

/// The most bytes of one frame.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// One stream of frames to or from an endpoint.
#[derive(Debug)]
pub struct DirectStream {
    carried: Carried,
    idle: Duration,
    frame: Duration,
}

/// Why a frame was not sent or received. The stream is of no use afterwards, except after
/// [`StreamError::TooLarge`] on sending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The frame is larger than allowed; nothing was sent, or nothing was read.
    #[error("a frame of {bytes} bytes, where at most {max} are allowed")]
    TooLarge {
        /// The frame's length.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// The other end has said all it wanted.
    #[error("the other end has ended the stream")]
    Ended,
    /// It ended in the middle of a frame.
    #[error("the other end has ended the stream in the middle of a frame")]
    Cut,
    /// Nothing came for too long.
    #[error("the other end was silent for {0:?}")]
    Silent(Duration),
    /// A frame that had begun took too long.
    #[error("one frame took longer than {0:?}")]
    Slow(Duration),
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            FrameError::Ended => Self::Ended,
            FrameError::Cut => Self::Cut,
            FrameError::Idle(limit) => Self::Silent(limit),
            FrameError::Slow(limit) => Self::Slow(limit),
            FrameError::Lost(why) => Self::Lost(why),
        }
    }
}

impl DirectStream {
    pub(crate) fn new(carried: Carried, idle: Duration, frame: Duration) -> Self {
        Self { carried, idle, frame }
    }

    /// Who is at the other end, proven by the handshake.
    pub fn peer(&self) -> PeerId {
        self.carried.peer()
    }

    /// Its connection gives way to others' last, as long as that lives, and is counted to this holder; none where this end
    /// dialled it.
    pub fn keep(&self, holder: Holder) -> Option<Kept> {
        self.carried.keep(holder)
    }

    /// Sends one frame. Returning says that it is on its way, not that it was read.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), StreamError> {
        let within = self.frame;
        let send = self.carried.send().ok_or(StreamError::Ended)?;
        Ok(frame::write(send, frame, MAX_FRAME_BYTES, within).await?)
    }

    /// Receives the next frame; waits as long as this grid's idle bound allows.
    pub async fn receive(&mut self) -> Result<Bytes, StreamError> {
        self.receive_within(self.idle).await
    }

    /// Receives the next frame, whose first byte must come within `idle`.
    pub async fn receive_within(&mut self, idle: Duration) -> Result<Bytes, StreamError> {
        Ok(frame::read(&mut self.carried.recv, MAX_FRAME_BYTES, idle, self.frame).await?)
    }

    /// Says that nothing more comes from here, and waits, within a bound, until all of it has
    /// arrived or the other end has gone. Needed only where the process or the
    /// [`Grid`](crate::Grid) ends next. Whether it was *read*, only an answer can say.
    pub async fn finish(mut self) {
        self.carried.delivered(LINGER).await;
    }
}
