//! One bidirectional stream and the connection that carries it.
//!
//! Invariant: letting go of a stream ends it properly. A QUIC connection closes when its last
//! handle is dropped, and takes unsent bytes with it; so on drop the sending half is finished and
//! the connection is held, in the background and within [`LINGER`], until the other end has it all.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::{Connection, RecvStream, SendStream};

use crate::{
    Kept, PeerId,
    accept::BUSY,
    shares::{Holder, Keeping},
    windows::Widens,
};

/// How long the last bytes of a dropped stream may take.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// Both halves and the connection.
#[derive(Debug)]
pub(crate) struct Carried {
    send: Option<SendStream>,
    pub(crate) recv: RecvStream,
    connection: Connection,
    /// Counts this stream among those of an accepted connection.
    open: Option<Arc<Keeping>>,
    /// Its connection's, where it is an accepted tunnel's.
    widens: Option<Arc<Widens>>,
}

impl Carried {
    pub(crate) fn new(
        connection: Connection,
        send: SendStream,
        recv: RecvStream,
        open: Option<Arc<Keeping>>,
        widens: Option<Arc<Widens>>,
    ) -> Self {
        Self {
            send: Some(send),
            recv,
            connection,
            open,
            widens,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.connection.remote_id().into()
    }

    /// Keeps the place of the connection that carries it; there is none where it was dialled from here.
    pub(crate) fn keep(&self, holder: Holder) -> Option<Kept> {
        self.open.as_ref().map(|open| open.keep(holder))
    }

    /// It is let in: its connection is wide from now on, if it may be. False where there is no place for that any more:
    /// then it is closed, and who comes again is narrow.
    pub(crate) fn widen(&self) -> bool {
        let is_wide = self
            .widens
            .as_ref()
            .is_none_or(|widens| widens.widen(&self.connection));
        if !is_wide {
            self.connection.close(BUSY.into(), b"others were faster");
        }
        is_wide
    }

    /// The sending half; there is none after [`Carried::delivered`].
    pub(crate) fn send(&mut self) -> Option<&mut SendStream> {
        self.send.as_mut()
    }

    /// Both halves at once.
    pub(crate) fn halves(&mut self) -> (Option<&mut SendStream>, &mut RecvStream) {
        (self.send.as_mut(), &mut self.recv)
    }

    /// Ends the sending half and waits until the other end's machine has every byte, or has closed.
    pub(crate) async fn delivered(&mut self, within: Duration) {
        let Some(mut send) = self.send.take() else {
            return;
        };
        // An error says that it was finished or reset before: `stopped` knows which.
        let _ = send.finish();
        let _ = tokio::time::timeout(within, send.stopped()).await;
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let Some(mut send) = self.send.take() else { return };
        let _ = send.finish();
        let (connection, open, widens) = (self.connection.clone(), self.open.take(), self.widens.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(LINGER, send.stopped()).await;
                drop((connection, open, widens));
            });
        }
    }
}
