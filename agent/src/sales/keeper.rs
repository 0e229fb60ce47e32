//! The keeper of one sale: takes orders, steps the machine, keeps the record, has the effects done.

use std::sync::Arc;
use std::time::Duration;

use escrow::{Amount, LockView, RailError, Terms};
use market::envelope::{Signed, sign};
use market::id::{SaleId, UserId};
use market::message::{
    Amend, Message, RefusalCode, Resize, Restore, SaleState, SealedKey, Status, VoucherMessage,
};
use market::sale::{Event, Made, Now, Rejection, TornDown, Why, step};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::changed::Changed;
use super::keys::{KeyError, Keys};
use super::pace::{NO_KEY, Pace};
use super::resizing::{Resizes, Rules};
use super::spaces::NotRestored;
use super::{Failed, Record, RecordError, Shared, boot_ms};

/// The machine is told of time so often.
const TICK: Duration = Duration::from_millis(500);
/// Time in service is written at least so often; what a crash loses is the farmer's.
const KEEP_SERVED_MS: u64 = 10_000;
/// Orders that may wait.
const MOST_ORDERS: usize = 64;
/// Answers that may wait for one thing.
pub(super) const MOST_WAITING: usize = 32;

/// A refusal: why, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    /// Why.
    pub code: RefusalCode,
    /// In words.
    pub words: String,
}

/// Where an answer goes: the bytes of a signed message, or a refusal.
pub type Reply = oneshot::Sender<Result<Vec<u8>, No>>;

/// What a keeper is asked to do.
pub enum Order {
    /// The user says that the money is locked: answered by a grant.
    Funded(Reply),
    /// The sealed unlock key: answered by a status.
    Sealed(SealedKey, Changed, Reply),
    /// How it stands.
    Query([u8; 16], Reply),
    /// Vouchers: answered by a status, once the rail has answered.
    Vouchers(VoucherMessage, Changed, Reply),
    /// The user or the farmer ends it: answered by the receipt.
    End(Why, Reply),
    /// Another size: answered by what it would cost.
    Quote(Resize, Rules, Reply),
    /// The space as its snapshot is: answered by a status.
    Restore(Restore, Reply),
    /// Longer, or another size: answered by the node's signature over it.
    Amend(Box<Signed<Amend>>, Rules, Reply),
    /// Something that ran beside the keeper is done.
    Done(Done),
    /// The book waits for its money no longer.
    Lapse,
    /// It is over, and others are over since: nothing of it is kept.
    Forget,
}

/// What ran beside the keeper.
#[derive(Debug)]
pub enum Done {
    /// The rail's answer to a look.
    Looked(Result<LockView, RailError>),
    /// What needs no key is there, or why not.
    Prepared(Result<(), Failed>),
    /// The space is built or open again, or why not.
    Built(Result<bool, Failed>, u64),
    /// The space has the size of this change, or why not; and what that is.
    Resized(Result<(), Failed>, Made),
    /// Its volume is what the snapshot is, or why not.
    Restored(Result<(), NotRestored>),
    /// Everything is undone, or as much as could be.
    TornDown(TornDown),
    /// What was half built is undone.
    Undone,
    /// The space is taken down to its volume, or as much as could be.
    Locked(Result<(), Failed>),
    /// The rail redeemed, or not.
    Redeemed(Amount, Result<LockView, RailError>),
    /// The rail gave back, or not.
    GaveBack(Result<LockView, RailError>),
}

/// A handle to a sale's keeper.
#[derive(Clone)]
pub struct Keeper {
    sale: SaleId,
    user: UserId,
    orders: mpsc::Sender<Order>,
    /// What is taken before any of those: a tenant who asks without end keeps nobody else from it.
    first: mpsc::Sender<Order>,
}

impl Keeper {
    /// Starts the keeper of a sale. `restarted`: the sale comes out of the journal, and whether its space runs.
    pub fn start(shared: Arc<Shared>, record: Record, restarted: Option<bool>) -> Keeper {
        let (orders, queue) = mpsc::channel(MOST_ORDERS);
        let (first, before) = mpsc::channel(MOST_ORDERS);
        let sale = record.id();
        let user = record.signed.message.body().user;
        let keeper = Keeper {
            sale,
            user,
            orders: orders.clone(),
            first,
        };
        shared.add_keeper(sale, keeper.clone());
        let (terms, alive) = (record.signed.message.body().terms(), shared.alive());
        let restore_every_ms = shared.restore_every_ms;
        let task = Task {
            shared,
            record,
            terms,
            orders,
            keys: Keys::default(),
            rail_busy: false,
            rail_rests_until_ms: 0,
            give_backs: Pace::GIVE_BACKS,
            redeem_wanted: false,
            waiting: Waiting::default(),
            not_unlocked: None,
            unlocks: Pace::UNLOCKS,
            restores: Pace::new(restore_every_ms, restore_every_ms),
            not_resized: None,
            owed: Vec::new(),
            not_restored: None,
            snapshot_begun_ms: None,
            resizes: Resizes::None,
            last_on_machine: None,
            kept_ms: boot_ms(),
            began_ms: boot_ms(),
            _alive: alive,
        };
        crate::task::spawn(task.run(before, queue, restarted));
        keeper
    }

    /// Which sale.
    pub fn sale(&self) -> SaleId {
        self.sale
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Ends the keeper of a sale that is over, and all that is known of it.
    pub(super) fn forget(&self) {
        let orders = self.orders.clone();
        // beside the caller: keepers never wait for each other
        crate::task::spawn(async move { orders.send(Order::Forget).await });
    }

    /// The book's place of this agreement is another's: it ends now, for nobody would let its money in.
    pub fn lapse(&self) {
        let orders = self.orders.clone();
        crate::task::spawn(async move { orders.send(Order::Lapse).await });
    }

    /// Gives an order and waits for its answer.
    pub async fn ask(&self, order: impl FnOnce(Reply) -> Order) -> Result<Vec<u8>, No> {
        ask(&self.orders, order).await
    }

    /// The farmer's: before all that the user's clients ask.
    pub async fn ask_first(&self, order: impl FnOnce(Reply) -> Order) -> Result<Vec<u8>, No> {
        ask(&self.first, order).await
    }
}

async fn ask(orders: &mpsc::Sender<Order>, order: impl FnOnce(Reply) -> Order) -> Result<Vec<u8>, No> {
    let (reply, answer) = oneshot::channel();
    let busy = || no(RefusalCode::Busy, "the node cannot answer now");
    orders.try_send(order(reply)).map_err(|_| busy())?;
    answer.await.map_err(|_| busy())?
}

pub(super) fn no(code: RefusalCode, words: impl Into<String>) -> No {
    No {
        code,
        words: words.into(),
    }
}

/// Who waits for what.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) grant: Vec<Reply>,
    pub(super) voucher: Vec<Reply>,
    pub(super) receipt: Vec<Reply>,
}

/// The keeper's own state.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) record: Record,
    pub(super) terms: Terms,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) keys: Keys,
    pub(super) rail_busy: bool,
    /// No call before this: it did not answer the last one.
    pub(super) rail_rests_until_ms: u64,
    /// How fast is given back what is not taken.
    pub(super) give_backs: Pace,
    /// A voucher is due: whoever brought it is answered when the rail has answered.
    pub(super) redeem_wanted: bool,
    pub(super) waiting: Waiting,
    /// Why the last unlock failed.
    pub(super) not_unlocked: Option<String>,
    /// How fast keys may be tried.
    pub(super) unlocks: Pace,
    /// How fast snapshots may be put back.
    pub(super) restores: Pace,
    /// Why the last resize failed.
    pub(super) not_resized: Option<String>,
    /// What the machine did and the journal has not taken yet.
    pub(super) owed: Vec<Event>,
    /// Why the last restore failed.
    pub(super) not_restored: Option<String>,
    /// When a snapshot was begun last, in this process.
    pub(super) snapshot_begun_ms: Option<u64>,
    /// Whether the machine is at one, or has it before it.
    pub(super) resizes: Resizes,
    /// Closed when the last work on the machine has ended.
    pub(super) last_on_machine: Option<oneshot::Receiver<()>>,
    /// When the record was last written.
    kept_ms: u64,
    /// When the lock was seen: what "ready in" counts from.
    pub(super) began_ms: u64,
    _alive: Arc<()>,
}

impl Task {
    async fn run(
        mut self,
        mut first: mpsc::Receiver<Order>,
        mut queue: mpsc::Receiver<Order>,
        restarted: Option<bool>,
    ) {
        if let Some(space_runs) = restarted {
            let _ = self.happen(Event::Restarted { space_runs }).await;
            if self.record.sale.state.is_final() && self.record.receipt.is_none() {
                self.state_changed().await; // it ended in the moment of the power cut
            } else {
                self.retire();
            }
        }
        self.show();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(order) = first.recv() => self.take(order).await,
                _ = ticks.tick(), if !self.record.sale.is_settled() => {
                    self.catch_up().await;
                    self.look_at_space().await;
                    let _ = self.happen(Event::Tick).await;
                }
                order = queue.recv() => match order {
                    Some(Order::Forget) => if self.forgotten().await { return },
                    Some(order) => self.take(order).await,
                    None => return,
                },
            }
        }
    }

    /// A space whose process ended by itself earns nothing until it runs again.
    async fn look_at_space(&mut self) {
        let sale = &self.record.sale;
        let serves = matches!(sale.state, SaleState::Ready | SaleState::Active);
        let runs = self.shared.spaces.runs(sale.deal.id);
        if serves && runs == sale.down {
            let _ = self.happen(Event::SpaceRuns(runs)).await;
            self.show();
        }
    }

    /// Whether all that is known of it is gone: not while it is not over, nor while the journal takes nothing.
    async fn forgotten(&self) -> bool {
        let (sale, paid) = (self.record.id(), self.record.sale.lock.paid);
        if !self.record.sale.state.is_final() {
            return false;
        }
        let forgotten = self.shared.forget(sale, paid).await;
        forgotten.map_err(|error| self.not_kept(&error)).is_ok()
    }

    pub(super) fn now(&self) -> Now {
        self.shared.clock.now(self.record.sale.since)
    }

    /// One event: step, keep, act. The record is durable before anything is done.
    pub(super) async fn happen(&mut self, event: Event) -> Result<(), No> {
        let mut next = vec![event];
        let mut outcome = Ok(());
        while let Some(event) = next.pop() {
            let stepped = step(&self.record.sale, event.clone(), self.now());
            let (sale, effects) = match stepped {
                Ok(stepped) => stepped,
                Err(rejection) => {
                    outcome = Err(no(rejection.code(), rejection.to_string()));
                    continue;
                }
            };
            let before = std::mem::replace(&mut self.record.sale, sale);
            if self.is_worth_keeping(&before)
                && let Err(error) = self.keep().await
            {
                self.record.sale = before;
                self.owe(&event);
                return Err(self.not_kept(&error));
            }
            for effect in effects {
                next.extend(self.perform(effect).await);
            }
            if self.record.sale.state != before.state {
                self.state_changed().await;
            }
        }
        outcome
    }

    /// All but the time in service is; that is, now and then.
    fn is_worth_keeping(&self, before: &market::sale::Sale) -> bool {
        let now = &self.record.sale;
        let quiet = market::sale::Sale {
            served_ms: now.served_ms,
            waited_ms: now.waited_ms,
            last_boot_ms: now.last_boot_ms,
            looked_boot_ms: now.looked_boot_ms,
            ..before.clone()
        };
        quiet != *now
            || (*now != *before
                && !now.state.is_final()
                && boot_ms().saturating_sub(self.kept_ms) >= KEEP_SERVED_MS)
    }

    pub(super) async fn keep(&mut self) -> Result<(), RecordError> {
        self.record.write(&self.shared.journal).await?;
        self.kept_ms = boot_ms();
        Ok(())
    }

    pub(super) fn not_kept(&self, error: &RecordError) -> No {
        let why = crate::words::chain(error);
        self.shared.board.event(format!(
            "{}: the journal does not take it: {why}",
            self.record.spec.name
        ));
        no(RefusalCode::Busy, "the node's journal does not take it now")
    }

    async fn take(&mut self, order: Order) {
        match order {
            Order::Funded(reply) => self.funded(reply).await,
            Order::Sealed(sealed, changed, reply) => {
                let answer = self.sealed(sealed, &changed).await;
                let _ = reply.send(answer.and_then(|()| self.status([0; 16])));
            }
            Order::Query(nonce, reply) => {
                let _ = reply.send(self.status(nonce));
            }
            Order::Vouchers(vouchers, changed, reply) => self.vouchers(vouchers, &changed, reply).await,
            Order::End(why, reply) => self.end(why, reply).await,
            Order::Quote(resize, rules, reply) => {
                let _ = reply.send(self.quote(&resize, &rules));
            }
            Order::Restore(restore, reply) => {
                let _ = reply.send(self.restore(&restore).await);
            }
            Order::Amend(amend, rules, reply) => {
                let _ = reply.send(self.amend(*amend, &rules).await);
            }
            Order::Done(done) => self.done(done).await,
            Order::Lapse if self.record.sale.state == SaleState::Agreed => {
                let _ = self.happen(Event::End(Why::Late)).await;
            }
            Order::Lapse => {}  // it ended by itself meanwhile
            Order::Forget => {} // taken before it comes here: it ends the keeper
        }
    }

    async fn funded(&mut self, reply: Reply) {
        if self.waiting.grant.len() >= MOST_WAITING {
            let _ = reply.send(Err(no(RefusalCode::Busy, "asked too often")));
            return;
        }
        if self.record.sale.state == SaleState::Locked
            && let Err(rests) = self.unlocks.may_begin(boot_ms(), NO_KEY)
        {
            drop(reply.send(Err(rests)));
            return;
        }
        self.waiting.grant.push(reply);
        if let Err(refusal) = self.happen(Event::FundedHint).await {
            answer(&mut self.waiting.grant, &Err(refusal));
        } else if !self.rail_busy {
            let silent = no(RefusalCode::RailSilent, "the rail does not answer");
            answer(&mut self.waiting.grant, &Err(silent));
        }
    }

    async fn sealed(&mut self, sealed: SealedKey, changed: &Changed) -> Result<(), No> {
        let sale = &self.record.sale;
        let handed_over = matches!(
            sale.state,
            SaleState::Building | SaleState::Ready | SaleState::Active
        );
        if (handed_over && !sale.wants_key()) || sale.unlocking {
            return Ok(()); // said again: the status tells how it goes
        }
        let newest = sale.epoch;
        if sealed.epoch != newest {
            let rejection = Rejection::Epoch {
                got: sealed.epoch,
                newest,
            };
            return Err(no(rejection.code(), rejection.to_string()));
        }
        if sale.state == SaleState::Locked {
            self.unlocks.may_begin(boot_ms(), NO_KEY)?;
        }
        self.keys.open(&sealed).map_err(|error| match error {
            KeyError::NoGrant => no(RefusalCode::Epoch, error.to_string()),
            KeyError::Random | KeyError::Seal(_) => no(RefusalCode::Key, error.to_string()),
        })?;
        self.happen(Event::KeyOpened { epoch: sealed.epoch }).await?;
        changed.now();
        Ok(())
    }

    async fn end(&mut self, why: Why, reply: Reply) {
        if let Err(refusal) = self.happen(Event::End(why)).await {
            return drop(reply.send(Err(refusal)));
        }
        match &self.record.receipt {
            Some(receipt) if self.record.sale.state.is_final() => {
                let _ = reply.send(Ok(receipt.clone()));
            }
            _ if self.waiting.receipt.len() < MOST_WAITING => self.waiting.receipt.push(reply),
            _ => drop(reply.send(Err(no(RefusalCode::Busy, "asked too often")))),
        }
    }

    pub(super) fn sign<M: Message>(&self, message: M) -> Result<Vec<u8>, No> {
        let signed = sign(&self.shared.node_key, self.shared.grid_id, message);
        signed
            .map(|signed| signed.bytes)
            .map_err(|error| no(RefusalCode::Busy, error.to_string()))
    }

    /// How it stands, signed.
    pub(super) fn status(&self, nonce: [u8; 16]) -> Result<Vec<u8>, No> {
        let sale = &self.record.sale;
        let (words, now) = (self.words(), self.now());
        let reachable = matches!(sale.state, SaleState::Ready | SaleState::Active);
        self.sign(Status {
            sale: sale.deal.id,
            nonce,
            // while it is opened again it is building: what falls back to locked has failed, and says why
            state: if sale.unlocking || self.is_being_restored() {
                SaleState::Building
            } else {
                sale.state
            },
            since: sale.since.into(),
            why: (!words.is_empty()).then_some(words),
            candidates: if reachable { self.candidates() } else { Vec::new() },
            address: self.shared.grid.address().to_bytes(),
            boot: self.shared.boot,
            epoch: sale.epoch,
            periods_paid: sale.periods_paid(),
            paid: sale.lock.paid,
            paid_until: sale.paid_until(now),
            receipt: self.record.receipt.clone(),
            snapshot: sale.snapshot_at.map(Into::into),
        })
    }
}

/// Answers all who wait for the same thing.
pub(super) fn answer(waiting: &mut Vec<Reply>, with: &Result<Vec<u8>, No>) {
    waiting.drain(..).for_each(|reply| drop(reply.send(with.clone())));
}
