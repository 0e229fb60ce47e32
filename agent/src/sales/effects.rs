//! What a keeper does about a step: the rail, the machine, the grant, the receipt.
//!
//! What takes long is spawned and comes back as [`Done`]. Each effect may be asked for again by the next tick: one
//! that is under way is not begun twice.

use std::future::Future;
use std::time::Duration;

use ed25519_dalek::Signer;
use escrow::{LockState, LockView, RailError, Refusal, Sure};
use market::message::{KeyGrant, RefusalCode, SaleState};
use market::quantity::Bytes;
use market::sale::{Effect, Event, Made, step};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::keeper::{Done, No, Order, Task, answer, no};
use super::resizing::Resizes;
use super::{Failed, PORTS, boot_ms, record};

/// How long one call to the rail may take.
const RAIL_PATIENCE: Duration = Duration::from_secs(15);
/// A rail that gave no answer is asked again after this.
const RAIL_REST_MS: u64 = 3_000;

impl Task {
    /// Does one effect; events that follow at once are returned.
    pub(super) async fn perform(&mut self, effect: Effect) -> Option<Event> {
        let (sale, spaces) = (self.record.id(), self.shared.spaces.clone());
        match effect {
            Effect::CheckLock => {
                let (rail, terms) = (self.shared.rail.clone(), self.terms.clone());
                self.ask_rail(async move { rail.view(&terms, Sure::Final).await }, Done::Looked);
            }
            Effect::Redeem(voucher) => {
                self.redeem_wanted = true;
                let (rail, terms, sum) = (self.shared.rail.clone(), self.terms.clone(), voucher.cumulative);
                let redeem = async move { rail.redeem(&terms, &voucher).await };
                self.ask_rail(redeem, move |result| Done::Redeemed(sum, result));
            }
            Effect::GiveBack { paid } => {
                let (rail, terms) = (self.shared.rail.clone(), self.terms.clone());
                let signature = self
                    .shared
                    .give_back_key
                    .sign(&rail.give_back_bytes(&terms, paid))
                    .to_bytes();
                let give_back = async move { rail.give_back(&terms, paid, &signature).await };
                self.ask_rail(give_back, Done::GaveBack);
            }
            Effect::SendGrant { epoch } => {
                let grant = self.grant(epoch).await;
                answer(&mut self.waiting.grant, &grant);
            }
            Effect::PrepareSpace => {
                let spec = self.record.spec.clone();
                self.on_machine(async move { Done::Prepared(spaces.prepare(spec).await) });
            }
            Effect::BuildSpace | Effect::UnlockSpace => {
                let new_volume = effect == Effect::BuildSpace;
                let doing = if new_volume { "building" } else { "unlocking" };
                let name = &self.record.spec.name;
                self.shared.board.event(format!("{name} {doing}"));
                (self.not_unlocked, self.not_restored) = (None, None);
                let Some(access) = self.keys.take_access(new_volume) else {
                    let why = "the key is gone from memory".to_owned();
                    return Some(Event::BuildFailed {
                        why,
                        quarantine: None,
                    });
                };
                let (spec, began) = (self.record.spec.clone(), boot_ms());
                self.on_machine(async move {
                    let built = match new_volume {
                        true => spaces.build(spec, access).await.map(|()| true),
                        false => spaces.unlock(spec, access).await,
                    };
                    Done::Built(built, began)
                });
            }
            Effect::ResizeSpace if self.resizes.is_under_way() => self.resizes = Resizes::OnceMore,
            Effect::ResizeSpace => {
                self.resizes = Resizes::UnderWay;
                let key = self.keys.take_access(false).map(|access| access.unlock_key);
                let (spec, resizing) = (self.record.spec.clone(), self.record.sale.resizing);
                let made = Made {
                    number: resizing.map_or(0, |resizing| resizing.number),
                    grown: key.as_ref().map(|_| spec.disk),
                    snapshot: spec.snapshot > Bytes::ZERO,
                };
                if resizing.is_some_and(|resizing| resizing.snapshot == Some(true)) {
                    self.snapshot_begun_ms = Some(boot_ms());
                }
                self.on_machine(async move { Done::Resized(spaces.resize(spec, key).await, made) });
            }
            Effect::RestoreSpace => {
                self.keys.forget();
                (self.not_restored, self.not_unlocked) = (None, None);
                let name = &self.record.spec.name;
                let event = format!("{name}: its snapshot is being put back");
                self.shared.board.event(event);
                self.on_machine(async move { Done::Restored(spaces.restore(sale).await) });
            }
            Effect::LockSpace => self.on_machine(async move { Done::Locked(spaces.lock(sale).await) }),
            Effect::TearDown => {
                self.keys.forget();
                spaces.hurry(sale);
                self.on_machine(async move { Done::TornDown(spaces.end(sale).await) });
            }
            Effect::UndoBuild => {
                self.keys.forget();
                self.record.host_key = None;
                self.on_machine(async move {
                    let undone = spaces.end(sale).await;
                    if let Some(causes) = undone.quarantine {
                        tracing::error!(%causes, "what was half built could not be undone");
                    }
                    Done::Undone
                });
            }
            Effect::Release => {
                self.shared.book().release(sale);
                let given_back = self
                    .shared
                    .journal
                    .write(move |entry| entry.taken(PORTS).give_back(sale.as_bytes()));
                if let Err(error) = given_back.await {
                    tracing::error!(%error, "a port was not given back");
                }
            }
            Effect::Withhold => {
                let name = &self.record.spec.name;
                self.shared.board.event(format!(
                    "{name}: not all could be undone; its capacity is withheld"
                ));
            }
            Effect::SignReceipt => {} // `state_changed` signs it for every end
            Effect::Say(say) => self.say(say),
        }
        None
    }

    /// Runs something beside the keeper; its outcome comes back as an order, and then `ended` is dropped.
    fn beside<T: Send + 'static>(&self, work: impl Future<Output = Done> + Send + 'static, ended: T) {
        let orders = self.orders.clone();
        crate::task::spawn(async move {
            let done = work.await;
            let _ = orders.send(Order::Done(done)).await;
            drop(ended);
        });
    }

    /// Runs work on the machine beside the keeper, after all such work that was begun before it: an end must not
    /// overtake the build that it ends.
    fn on_machine(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        let (ended, next) = oneshot::channel::<()>();
        let before = self.last_on_machine.replace(next);
        let in_turn = async move {
            if let Some(before) = before {
                let _ = before.await; // it ends by being dropped
            }
            work.await
        };
        self.beside(in_turn, ended);
    }

    /// One call to the rail at a time: the next tick asks again for what is not begun now.
    fn ask_rail(
        &mut self,
        call: impl Future<Output = Result<LockView, RailError>> + Send + 'static,
        done: impl FnOnce(Result<LockView, RailError>) -> Done + Send + 'static,
    ) {
        if self.rail_busy || boot_ms() < self.rail_rests_until_ms {
            return;
        }
        self.rail_busy = true;
        let asked = async move {
            let silent = |_| Err(RailError::Unknown("no answer in time".to_owned()));
            done(timeout(RAIL_PATIENCE, call).await.unwrap_or_else(silent))
        };
        self.beside(asked, ());
    }

    /// The rail has answered, or has not: then it is left alone for a while.
    fn rail_answered(&mut self, result: &Result<LockView, RailError>) {
        self.rail_busy = false;
        if matches!(result, Err(RailError::Unknown(_))) {
            self.rail_rests_until_ms = boot_ms().saturating_add(RAIL_REST_MS);
        }
    }

    /// Something that ran beside is done.
    pub(super) async fn done(&mut self, done: Done) {
        match done {
            Done::Looked(result) => self.looked(result).await,
            Done::Redeemed(sum, result) => self.redeemed(sum, result).await,
            Done::GaveBack(result) => self.gave_back(result).await,
            Done::Prepared(Ok(())) => {}
            // while the build stands behind it, the build tries again, and tells
            Done::Prepared(Err(_))
                if !matches!(self.record.sale.state, SaleState::Funded | SaleState::Keyed) => {}
            Done::Prepared(Err(failed)) => self.not_built(failed).await,
            Done::Built(Ok(is_grown), began) => {
                self.began_ms = began;
                self.unlocks.forget();
                let event = if is_grown {
                    Event::Built
                } else {
                    self.not_resized = Some("its disk did not grow as it was opened".to_owned());
                    Event::OpenedSmaller
                };
                let _ = self.happen(event).await;
                self.count_disk();
            }
            Done::Built(Err(failed), _) => self.not_built(failed).await,
            Done::Resized(result, made) => self.resized(result, made).await,
            Done::Restored(result) => self.put_back(result).await,
            Done::TornDown(torn_down) => drop(self.happen(Event::TornDown(torn_down)).await),
            Done::Undone | Done::Locked(Ok(())) => {}
            Done::Locked(Err(failed)) => {
                let (name, why) = (&self.record.spec.name, failed.why);
                let event = format!("{name}: not all of it could be taken down: {why}");
                self.shared.board.event(event);
            }
        }
        self.show();
    }

    async fn not_built(&mut self, failed: Failed) {
        self.unlocks.again(boot_ms());
        let (name, why) = (&self.record.spec.name, &failed.why);
        self.shared
            .board
            .event(format!("{name}: the space could not be built: {why}"));
        let event = Event::BuildFailed {
            why: failed.why,
            quarantine: failed.quarantine,
        };
        let _ = self.happen(event).await;
    }

    async fn looked(&mut self, result: Result<LockView, RailError>) {
        self.rail_answered(&result);
        let view = match result {
            Ok(view) => view,
            Err(error) => {
                if self.record.sale.state == SaleState::Agreed {
                    let name = &self.record.spec.name;
                    self.shared
                        .board
                        .event(format!("{name}: nothing is built: {error}"));
                }
                let refusal = Err(no(
                    RefusalCode::RailSilent,
                    format!("the rail does not answer: {error}"),
                ));
                return answer(&mut self.waiting.grant, &refusal);
            }
        };
        let was_agreed = self.record.sale.state == SaleState::Agreed;
        let admitted = !was_agreed || self.admit(view);
        let mut outcome = self.happen(Event::LockSeen { view, admitted }).await;
        if was_agreed && self.record.sale.state == SaleState::Funded {
            self.say_sold();
        }
        if outcome.is_ok() && !self.waiting.grant.is_empty() {
            outcome = match self.record.sale.state {
                // the grant answers all who wait
                SaleState::Funded | SaleState::Keyed | SaleState::Locked => {
                    self.happen(Event::FundedHint).await
                }
                _ => Err(no(RefusalCode::NotFunded, self.record.sale.words())),
            };
        }
        if let Err(refusal) = outcome {
            answer(&mut self.waiting.grant, &Err(refusal));
        }
    }

    /// Whether the book takes it; asked only where the lock itself is as agreed.
    fn admit(&mut self, view: LockView) -> bool {
        let good = step(
            &self.record.sale,
            Event::LockSeen { view, admitted: true },
            self.now(),
        )
        .is_ok();
        let held = matches!(view.state, LockState::Locked | LockState::Active);
        if !good || !held {
            return true; // the machine refuses it for its own reason
        }
        let sale = self.record.id();
        let mut book = self.shared.book();
        if book.fund(sale, boot_ms()).is_err() {
            return false;
        }
        // the disk that was offered may be full by now: it is built where it is booked
        if let Some(group) = book.group_of(sale) {
            self.record.spec.group = group;
        }
        true
    }

    async fn redeemed(&mut self, sum: escrow::Amount, result: Result<LockView, RailError>) {
        self.rail_answered(&result);
        let refusal = match result {
            Ok(view) => {
                let _ = self.happen(Event::Redeemed(view)).await;
                None
            }
            Err(RailError::Refused(Refusal::NotYet(from))) => {
                Some(format!("the voucher is void until {from}"))
            }
            // it is asked again by the next tick; a rail that knows no such lock has lost its books, which says nothing
            // of the voucher
            Err(RailError::Unknown(_) | RailError::Refused(Refusal::NoLock)) => None,
            Err(RailError::Refused(why)) => {
                let words = format!("the rail refuses the voucher: {why}");
                let _ = self.happen(Event::RedeemRefused { cumulative: sum, why }).await;
                Some(words)
            }
            Err(error @ (RailError::NoKey | RailError::Invalid(_))) => Some(error.to_string()),
        };
        let with = match refusal {
            Some(words) => Err(no(RefusalCode::Voucher, words)),
            None => self.status([0; 16]),
        };
        answer(&mut self.waiting.voucher, &with);
    }

    async fn gave_back(&mut self, result: Result<LockView, RailError>) {
        self.rail_answered(&result);
        match result {
            Ok(view) => {
                self.give_backs.forget();
                drop(self.happen(Event::GaveBack(view)).await);
            }
            Err(error) => {
                // what was paid is not what we know: look, then give back what is right; a rail that has lost its books
                // is as if it were silent
                if matches!(&error, RailError::Refused(why) if *why != Refusal::NoLock) {
                    drop(self.perform(Effect::CheckLock).await);
                }
                self.rest_from_giving_back(&error);
            }
        }
    }

    /// It may be so for ever, and each ending sale asks: longer each time, and the console is told once.
    fn rest_from_giving_back(&mut self, error: &RailError) {
        if self.give_backs.is_new() {
            let name = &self.record.spec.name;
            tracing::warn!(%error, name, "the rail does not take what is given back; it is asked again until it does");
        }
        self.give_backs.again(boot_ms());
        self.rail_rests_until_ms = self.give_backs.until_ms();
    }

    /// A grant: a new seal key, and the host key to pin.
    async fn grant(&mut self, epoch: u64) -> Result<Vec<u8>, No> {
        let busy = |error: super::keys::KeyError| no(RefusalCode::Busy, error.to_string());
        // once there is a volume, its host key stays; before, it is whatever the seed in memory says
        let host_key = match (self.record.host_key, self.record.sale.ready_at) {
            (Some(host_key), Some(_)) => host_key,
            (Some(_), None) | (None, _) => self.keys.host_key().map_err(busy)?,
        };
        let seal_key = self.keys.new_grant(epoch).map_err(busy)?;
        if self.record.host_key != Some(host_key) {
            self.record.host_key = Some(host_key);
            if let Err(error) = self.keep().await {
                return Err(self.not_kept(&error));
            }
        }
        let (boot, image_version) = (self.shared.boot, self.shared.image_version.clone());
        let sale = self.record.id();
        let bytes = self.sign(KeyGrant {
            sale,
            epoch,
            boot,
            image_version,
            seal_key,
            host_key,
        })?;
        let kept = record::keep_grant(&self.shared.journal, sale, bytes.clone()).await;
        kept.map_err(|error| self.not_kept(&error))?;
        Ok(bytes)
    }

    /// What is over is kept with a bound. What is quarantined still holds something: it stays until it is freed.
    pub(super) fn retire(&self) {
        let sale = &self.record.sale;
        if sale.state.is_final() && sale.state != SaleState::Quarantined {
            self.shared.retire(sale, &self.record.signed.message.body().payer);
        }
    }

    /// A new state: the screen, and at an end the receipt.
    pub(super) async fn state_changed(&mut self) {
        if self.record.sale.state.is_final() {
            if let Some(receipt) = self.record.sale.receipt() {
                match self.sign(receipt) {
                    Ok(bytes) => self.record.receipt = Some(bytes),
                    Err(refusal) => tracing::error!(words = refusal.words, "no receipt"),
                }
            }
            if let Err(error) = self.keep().await {
                let _ = self.not_kept(&error);
            }
            if let Some(receipt) = self.record.receipt.clone() {
                answer(&mut self.waiting.receipt, &Ok(receipt));
            }
        } else {
            self.record.receipt = None;
        }
        self.retire();
        self.show();
    }
}
