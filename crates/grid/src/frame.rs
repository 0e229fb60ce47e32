//! Frames on a stream: a length, u32 big-endian, and that many bytes.
//!
//! Invariant: the length is checked before anything is allocated for it, and a frame that has
//! begun must end within a bound.

use std::{io, time::Duration};

use bytes::Bytes;
use iroh::endpoint::SendStream;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What went wrong with one frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes, where at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("the stream ended")]
    Ended,
    #[error("the stream ended inside a frame")]
    Cut,
    #[error("nothing came within {0:?}")]
    Idle(Duration),
    #[error("the other end took longer than {0:?} for one frame")]
    Slow(Duration),
    #[error("the connection was lost: {0}")]
    Lost(String),
}

/// Writes one frame.
pub(crate) async fn write(
    send: &mut SendStream,
    frame: &[u8],
    max: usize,
    within: Duration,
) -> Result<(), FrameError> {
    let length = match u32::try_from(frame.len()) {
        Ok(length) if frame.len() <= max => length,
        _ => {
            return Err(FrameError::TooLarge {
                bytes: frame.len(),
                max,
            });
        }
    };
    let both = async {
        send.write_all(&length.to_be_bytes()).await?;
        send.write_all(frame).await
    };
    match tokio::time::timeout(within, both).await {
        Err(_) => Err(FrameError::Slow(within)),
        Ok(Err(lost)) => Err(FrameError::Lost(lost.to_string())),
        Ok(Ok(())) => Ok(()),
    }
}

/// Reads one frame: its first byte within `idle`, the rest within `whole`.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    recv: &mut R,
    max: usize,
    idle: Duration,
    whole: Duration,
) -> Result<Bytes, FrameError> {
    let mut head = [0u8; 4];
    let first = tokio::time::timeout(idle, recv.read_exact(&mut head[..1])).await;
    match first.map_err(|_| FrameError::Idle(idle))? {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Ended),
        Err(lost) => return Err(FrameError::Lost(lost.to_string())),
    }
    let rest = async {
        recv.read_exact(&mut head[1..]).await.map_err(cut)?;
        let bytes = u32::from_be_bytes(head) as usize;
        if bytes > max {
            return Err(FrameError::TooLarge { bytes, max });
        }
        let mut frame = vec![0; bytes];
        recv.read_exact(&mut frame).await.map_err(cut)?;
        Ok(Bytes::from(frame))
    };
    tokio::time::timeout(whole, rest)
        .await
        .map_err(|_| FrameError::Slow(whole))?
}

fn cut(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Cut,
        _ => FrameError::Lost(error.to_string()),
    }
}
