//! One direct stream: a conversation of frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grid::{DirectStream, Kept, Share};
use market::envelope::{Signed, open, peek_kind, sign};
use market::id::{Digest, EndpointId, SaleId, UserId};
use market::message::{
    Agree, Amend, Cancel, Command, Funded, Kind, Message, Recall, Refusal, RefusalCode, Resize, Restore,
    SealedKey, StatusQuery, VoucherMessage,
};
use market::sale::Why;
use tokio::time::timeout;

use super::{command, read_delegate, recall};
use crate::desk::Counter;
use crate::sales::{Changed, Keeper, No, Order};

/// Frames of one stream: a client that polls for an hour stays below.
const MOST_FRAMES: usize = 8192;
/// Sales one stream may speak for.
const MOST_SALES: usize = 16;
/// The longest an answer may take: tearing down a space.
const PATIENCE: Duration = Duration::from_secs(150);

pub(super) struct Conversation {
    counter: Arc<Counter>,
    peer: EndpointId,
    stream: DirectStream,
    /// Sales this stream speaks for, and the user key that let it.
    speaks_for: BTreeMap<SaleId, [u8; 32]>,
    /// Whose key or voucher over this stream changed something; until its place is kept for him.
    served: Option<UserId>,
}

/// What a frame is answered with; a delegate is not answered.
type Answer = Result<Option<Vec<u8>>, No>;

fn no(code: RefusalCode, words: impl Into<String>) -> No {
    No {
        code,
        words: words.into(),
    }
}

impl Conversation {
    pub(super) fn new(counter: Arc<Counter>, peer: EndpointId, stream: DirectStream) -> Conversation {
        Conversation {
            counter,
            peer,
            stream,
            speaks_for: BTreeMap::new(),
            served: None,
        }
    }

    /// Until the other end is done. The stream keeps its place once a key or a voucher came over it that changed something:
    /// what is only said again costs nothing.
    pub(super) async fn run(mut self, share: &Share) {
        let mut kept: Option<(Kept, Option<Kept>)> = None;
        for _ in 0..MOST_FRAMES {
            let Ok(frame) = self.stream.receive().await else {
                return;
            };
            let slow = |_| {
                Err(no(
                    RefusalCode::Busy,
                    "it takes longer than usual: ask for the status",
                ))
            };
            let answer = timeout(PATIENCE, self.answer(&frame)).await.unwrap_or_else(slow);
            if let Some(user) = self.served.take() {
                kept.get_or_insert_with(|| (share.keep(user.0), self.stream.keep(user.0)));
            }
            let bytes = match answer {
                Ok(None) => continue,
                Ok(Some(bytes)) => bytes,
                Err(refusal) => match self.refusal(&frame, refusal) {
                    Some(bytes) => bytes,
                    None => return,
                },
            };
            if self.stream.send(&bytes).await.is_err() {
                return;
            }
        }
    }

    fn refusal(&self, frame: &[u8], refusal: No) -> Option<Vec<u8>> {
        let words: String = refusal
            .words
            .chars()
            .filter(|letter| market::is_plain(*letter))
            .take(250)
            .collect();
        let refusal = Refusal {
            about: Digest::of(frame),
            code: refusal.code,
            words,
        };
        let shared = &self.counter.shared;
        sign(&shared.node_key, shared.grid_id, refusal)
            .ok()
            .map(|signed| signed.bytes)
    }

    async fn answer(&mut self, frame: &[u8]) -> Answer {
        let unread = |error| no(RefusalCode::NotExpected, crate::words::chain(&error));
        match peek_kind(frame).map_err(unread)? {
            Kind::Request => {
                let answer = self.counter.answer_on_stream(frame, self.peer).await;
                answer
                    .map(Some)
                    .ok_or_else(|| no(RefusalCode::NotExpected, "not a request this node can answer"))
            }
            Kind::Agree => self.counter.agree(self.open::<Agree>(frame)?).await.map(Some),
            Kind::Delegate => self.delegate(frame).map(|()| None),
            Kind::Command => command::answer(&self.counter, self.open::<Command>(frame)?)
                .await
                .map(Some),
            Kind::Recall => recall::answer(&self.counter, self.open::<Recall>(frame)?, self.peer)
                .await
                .map(Some),
            Kind::Funded => {
                let (_, keeper) = self.of_user::<Funded>(frame, |message| message.sale)?;
                keeper.ask(Order::Funded).await.map(Some)
            }
            Kind::SealedKey => {
                let (sealed, keeper) = self.of_user::<SealedKey>(frame, |message| message.sale)?;
                let changed = Changed::default();
                let order = |reply| Order::Sealed(sealed.message, changed.clone(), reply);
                let answer = keeper.ask(order).await;
                self.served = changed.has().then(|| keeper.user());
                answer.map(Some)
            }
            Kind::StatusQuery => {
                let (query, keeper) = self.of_user::<StatusQuery>(frame, |message| message.sale)?;
                keeper
                    .ask(|reply| Order::Query(query.message.nonce, reply))
                    .await
                    .map(Some)
            }
            Kind::Voucher => {
                let (vouchers, keeper) = self.of_user::<VoucherMessage>(frame, |message| message.sale)?;
                let changed = Changed::default();
                let order = |reply| Order::Vouchers(vouchers.message, changed.clone(), reply);
                let answer = keeper.ask(order).await;
                self.served = changed.has().then(|| keeper.user());
                answer.map(Some)
            }
            Kind::Cancel => {
                let (_, keeper) = self.of_user::<Cancel>(frame, |message| message.sale)?;
                keeper
                    .ask(|reply| Order::End(Why::Cancelled, reply))
                    .await
                    .map(Some)
            }
            Kind::Amend => {
                let (amend, keeper) = self.of_user::<Amend>(frame, |message| message.sale)?;
                let rules = self.counter.rules();
                keeper
                    .ask(|reply| Order::Amend(Box::new(amend), rules, reply))
                    .await
                    .map(Some)
            }
            Kind::Resize => {
                let (resize, keeper) = self.of_user::<Resize>(frame, |message| message.sale)?;
                let rules = self.counter.rules();
                keeper
                    .ask(|reply| Order::Quote(resize.message, rules, reply))
                    .await
                    .map(Some)
            }
            Kind::Restore => {
                let (restore, keeper) = self.of_user::<Restore>(frame, |message| message.sale)?;
                keeper
                    .ask(|reply| Order::Restore(restore.message, reply))
                    .await
                    .map(Some)
            }
            kind @ (Kind::Offer
            | Kind::Decline
            | Kind::Sale
            | Kind::Grant
            | Kind::Status
            | Kind::Amended
            | Kind::Quote
            | Kind::Answer
            | Kind::Receipt
            | Kind::Refusal
            | Kind::Recalled) => Err(no(
                RefusalCode::NotExpected,
                format!("a node takes no {}", kind.name()),
            )),
        }
    }

    fn open<M: Message>(&self, frame: &[u8]) -> Result<Signed<M>, No> {
        let opened = open::<M>(frame, Some(self.counter.shared.grid_id));
        opened.map_err(|error| no(RefusalCode::NotExpected, crate::words::chain(&error)))
    }

    fn delegate(&mut self, frame: &[u8]) -> Result<(), No> {
        let delegate = read_delegate(&self.counter, frame, self.peer)?;
        if self.speaks_for.len() >= MOST_SALES {
            return Err(no(RefusalCode::Busy, "this stream speaks for 16 sales already"));
        }
        self.speaks_for.insert(delegate.message.sale, delegate.signer);
        Ok(())
    }

    /// A message about a sale: delegated to this endpoint, signed by the sale's user.
    fn of_user<M: Message>(
        &self,
        frame: &[u8],
        sale: impl Fn(&M) -> SaleId,
    ) -> Result<(Signed<M>, Keeper), No> {
        let message = self.open::<M>(frame)?;
        let sale = sale(&message.message);
        let keeper = self.counter.shared.keeper(sale);
        let keeper = keeper.ok_or_else(|| no(RefusalCode::NoSale, "this node knows no such sale"))?;
        let user = keeper.user().0;
        if self.speaks_for.get(&sale) != Some(&user) {
            return Err(no(
                RefusalCode::NotAllowed,
                "show a delegate of the sale's user for this endpoint first",
            ));
        }
        if message.signer != user {
            return Err(no(
                RefusalCode::NotAllowed,
                "signed by another than the sale's user",
            ));
        }
        Ok((message, keeper))
    }
}
