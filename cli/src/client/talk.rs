//! One node, one sale: a signed question goes out, a signed answer comes back on the same stream.
//!
//! ```text
//! dial ─► Delegate (names this endpoint and the sale) ─► question ─► answer ─► question ─► …
//! ```
//! The stream is kept between questions and opened again when it broke; every question can be
//! asked twice.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use grid::{DirectStream, EndpointAddress, Grid};
use market::envelope::{self, EnvelopeError, Signed};
use market::id::{EndpointId, GridId, NodeId, SaleId};
use market::message::{Delegate, Kind, Message, Refusal};
use market::quantity::UnixMillis;

use super::now_ms;
use crate::exit::{Code, Failure};

/// How long one dial may take.
pub const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// How long a delegation holds; a node refuses more than a day.
const DELEGATION_MS: u64 = 6 * 3_600_000;

/// A conversation with one node.
pub struct Talk {
    grid: Grid,
    grid_id: GridId,
    node: NodeId,
    address: EndpointAddress,
    user: SigningKey,
    sale: Option<SaleId>,
    stream: Option<DirectStream>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The node was not reached, or the stream broke.
    #[error("the node {} does not answer", .0.short())]
    Silent(NodeId, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered something that is no answer.
    #[error("the node {} answers nonsense: {}", .0.short(), .1)]
    Nonsense(NodeId, String),
    /// It refuses.
    #[error("the node {} refuses: {}", .0.short(), .1.words)]
    Refused(NodeId, Box<Refusal>),
    /// The question itself cannot be signed.
    #[error("the message cannot be made")]
    Unsigned(#[from] EnvelopeError),
}

impl TalkError {
    /// The refusal, if that is what it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            TalkError::Refused(_, refusal) => Some(refusal),
            TalkError::Silent(..) | TalkError::Nonsense(..) | TalkError::Unsigned(_) => None,
        }
    }

    /// As a command ends with it.
    pub fn failure(&self, what: impl Into<String>) -> Failure {
        match self {
            TalkError::Refused(_, refusal) => Failure {
                refusal: Some(refusal.code),
                ..Failure::new(Code::NodeRefuses, what).caused_by(self)
            },
            TalkError::Silent(..) => Failure::new(Code::NodeSilent, what).caused_by(self).next(
                "try again in a while: the node may be starting; money that is in escrow stays there until you or the rules release it",
            ),
            TalkError::Nonsense(..) => Failure::new(Code::NodeSilent, what).caused_by(self),
            TalkError::Unsigned(_) => Failure::new(Code::Unexpected, what).caused_by(self),
        }
    }
}

impl Talk {
    /// With that node at that address; nothing is sent yet.
    pub fn with(
        grid: Grid,
        grid_id: GridId,
        node: NodeId,
        address: EndpointAddress,
        user: SigningKey,
    ) -> Talk {
        Talk {
            grid,
            grid_id,
            node,
            address,
            user,
            sale: None,
            stream: None,
        }
    }

    /// About that sale from now on: each stream begins with a delegation.
    pub fn about(&mut self, sale: SaleId) {
        if self.sale != Some(sale) {
            self.sale = Some(sale);
            self.stream = None;
        }
    }

    /// The node's address, to be kept.
    pub fn address(&self) -> &EndpointAddress {
        &self.address
    }

    /// This process's endpoint.
    pub fn endpoint(&self) -> EndpointId {
        EndpointId(self.grid.id().0)
    }

    /// The node has told a newer address.
    pub fn moved(&mut self, bytes: &[u8]) {
        if let Ok(address) = EndpointAddress::from_bytes(bytes)
            && address.id().0 == self.node.0
        {
            self.address = address;
        }
    }

    /// A delegation of this endpoint for the sale, signed.
    pub fn delegation(&self, sale: SaleId) -> Result<Signed<Delegate>, EnvelopeError> {
        delegation(&self.user, self.grid_id, &self.grid, sale)
    }

    /// Asks, and waits for the answer no longer than `within`.
    pub async fn ask<Q: Message + Clone, A: Message>(
        &mut self,
        question: Q,
        within: Duration,
    ) -> Result<(Signed<Q>, Signed<A>), TalkError> {
        let signed = envelope::sign(&self.user, self.grid_id, question)?;
        let answer = self.ask_signed(&signed.bytes, within).await?;
        Ok((signed, answer))
    }

    /// The same with a question that was signed before.
    pub async fn ask_signed<A: Message>(
        &mut self,
        question: &[u8],
        within: Duration,
    ) -> Result<Signed<A>, TalkError> {
        let had_stream = self.stream.is_some();
        let frame = match self.exchange(question, within).await {
            Err(TalkError::Silent(..)) if had_stream => self.exchange(question, within).await?,
            other => other?,
        };
        self.read(&frame)
    }

    async fn exchange(&mut self, question: &[u8], within: Duration) -> Result<bytes::Bytes, TalkError> {
        let node = self.node;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        let silent = |error: grid::StreamError| TalkError::Silent(node, Box::new(error));
        stream.send(question).await.map_err(silent)?;
        let frame = stream.receive_within(within).await.map_err(silent)?;
        self.stream = Some(stream);
        Ok(frame)
    }

    async fn open(&self) -> Result<DirectStream, TalkError> {
        let node = self.node;
        let mut stream = self
            .grid
            .dial(&self.address, DIAL_WITHIN)
            .await
            .map_err(|error| TalkError::Silent(node, Box::new(error)))?;
        if let Some(sale) = self.sale {
            let delegate = self.delegation(sale)?;
            stream
                .send(&delegate.bytes)
                .await
                .map_err(|error| TalkError::Silent(node, Box::new(error)))?;
        }
        Ok(stream)
    }

    fn read<A: Message>(&self, frame: &[u8]) -> Result<Signed<A>, TalkError> {
        let nonsense = |words: String| TalkError::Nonsense(self.node, words);
        let opened = |error: EnvelopeError| nonsense(error.to_string());
        if envelope::peek_kind(frame).map_err(opened)? == Kind::Refusal {
            let refusal = envelope::open::<Refusal>(frame, Some(self.grid_id)).map_err(opened)?;
            self.is_by_node(refusal.signer)?;
            return Err(TalkError::Refused(self.node, Box::new(refusal.message)));
        }
        let answer = envelope::open::<A>(frame, Some(self.grid_id)).map_err(opened)?;
        self.is_by_node(answer.signer)?;
        Ok(answer)
    }

    fn is_by_node(&self, signer: [u8; 32]) -> Result<(), TalkError> {
        if signer == self.node.0 {
            Ok(())
        } else {
            Err(TalkError::Nonsense(
                self.node,
                "its answer is signed by another key".to_owned(),
            ))
        }
    }
}

/// A delegation of this process's endpoint for a sale, signed by the user.
pub fn delegation(
    user: &SigningKey,
    grid_id: GridId,
    grid: &Grid,
    sale: SaleId,
) -> Result<Signed<Delegate>, EnvelopeError> {
    let delegate = Delegate {
        sale,
        endpoint: EndpointId(grid.id().0),
        expires: UnixMillis(now_ms()).plus_ms(DELEGATION_MS),
    };
    envelope::sign(user, grid_id, delegate)
}
