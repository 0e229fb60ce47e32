//! Tunnels: raw bytes both ways, for SSH.
//!
//! ```text
//!   dials                              accepts
//!     │ opening: u32 BE, ≤ 4 KiB ──────►│  who, to which space? (opaque here)
//!     │◄──── answer: u32 BE, ≤ 4 KiB ───│  first byte 1: accepted, 0: refused; then opaque
//!     │◄════════ raw bytes ════════════►│  each way ends by itself (half close)
//! ```
//!
//! ALPN `steading/tunnel/1`. A tunnel outlives a silent network longer than other connections do.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Holder, Kept, PeerId, StreamError, frame,
    stream::{Carried, LINGER},
};

/// The most bytes of an opening, and of an answer.
pub const MAX_OPENING_BYTES: usize = 4 * 1024;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 0;

/// The raw bytes of a tunnel. `shutdown` ends this direction alone; reading goes on until the
/// other end has ended its own. Dropping it ends both, and what was written still arrives.
#[derive(Debug)]
pub struct TunnelStream {
    carried: Carried,
}

impl TunnelStream {
    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.carried.peer()
    }

    /// Ends this direction and waits, within a bound, until all of it has arrived or the other end
    /// has gone. Needed only where the process or the [`Grid`](crate::Grid) ends next.
    pub async fn finish(mut self) {
        self.carried.delivered(LINGER).await;
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.carried.recv), context, into)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.carried.send() {
            Some(send) => AsyncWrite::poll_write(Pin::new(send), context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.carried.send() {
            Some(send) => AsyncWrite::poll_flush(Pin::new(send), context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.carried.send() {
            Some(send) => AsyncWrite::poll_shutdown(Pin::new(send), context),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A tunnel that somebody wants; its opening was read, nothing was answered.
#[derive(Debug)]
pub struct IncomingTunnel {
    carried: Carried,
    opening: Bytes,
    frame: Duration,
}

impl IncomingTunnel {
    pub(crate) async fn read(mut carried: Carried, within: Duration) -> Result<Self, StreamError> {
        let opening = frame::read(&mut carried.recv, MAX_OPENING_BYTES, within, within).await?;
        Ok(Self {
            carried,
            opening,
            frame: within,
        })
    }

    /// Who wants it, proven by the handshake.
    pub fn peer(&self) -> PeerId {
        self.carried.peer()
    }

    /// Its connection gives way to others' last, as long as that lives, and is counted to this holder; none where this end
    /// dialled it.
    pub fn keep(&self, holder: Holder) -> Option<Kept> {
        self.carried.keep(holder)
    }

    /// What it said to open it.
    pub fn opening(&self) -> &Bytes {
        &self.opening
    }

    /// Opens it; `answer` may be empty.
    pub async fn accept(mut self, answer: &[u8]) -> Result<TunnelStream, StreamError> {
        if !self.carried.widen() {
            return Err(StreamError::Lost("the last wide place was taken".into()));
        }
        self.answer(ACCEPTED, answer).await?;
        Ok(TunnelStream {
            carried: self.carried,
        })
    }

    /// Says no; `answer` says why, to the caller's own taste.
    pub async fn refuse(mut self, answer: &[u8]) -> Result<(), StreamError> {
        self.answer(REFUSED, answer).await
    }

    async fn answer(&mut self, verdict: u8, answer: &[u8]) -> Result<(), StreamError> {
        let mut bytes = Vec::with_capacity(1 + answer.len());
        bytes.push(verdict);
        bytes.extend_from_slice(answer);
        let send = self.carried.send().ok_or(StreamError::Ended)?;
        Ok(frame::write(send, &bytes, MAX_OPENING_BYTES, self.frame).await?)
    }
}

/// How a tunnel was answered.
pub(crate) enum Opened {
    Accepted(Bytes, TunnelStream),
    Refused(Bytes),
}

/// The dialling side: says the opening, waits for the answer.
pub(crate) async fn open(
    mut carried: Carried,
    opening: &[u8],
    answer_within: Duration,
    frame_within: Duration,
) -> Result<Opened, StreamError> {
    let (send, recv) = carried.halves();
    let send = send.ok_or(StreamError::Ended)?;
    frame::write(send, opening, MAX_OPENING_BYTES, frame_within).await?;
    let mut answer = frame::read(recv, MAX_OPENING_BYTES, answer_within, frame_within).await?;
    if answer.is_empty() {
        return Err(StreamError::Cut);
    }
    let verdict = answer.split_to(1);
    Ok(match verdict[..] {
        [ACCEPTED] => Opened::Accepted(answer, TunnelStream { carried }),
        _ => Opened::Refused(answer),
    })
}
