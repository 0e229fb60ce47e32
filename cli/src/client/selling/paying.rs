//! The proof, and the money that it unlocks.

use std::time::Duration;

use escrow::{Rail, RailError, RailTime, Sure, Voucher, Wallet};
use market::message::{RefusalCode, SaleState, Status, VoucherMessage};
use market::quantity::Seconds;
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Walk};
use crate::client::now_ms;
use crate::exit::{Code, Failure, Outcome};
use crate::files::write_whole;
use crate::proof::{self, ProofError, Sold};
use crate::show::steps::Steps;
use crate::show::text::{moment, money};
use crate::store::record::{Inside, Record, Step};

/// Between two tries of a login that the space is not ready for.
const REPEAT: Duration = Duration::from_millis(700);
/// Vouchers that a node keeps waiting.
pub const MOST_AHEAD: u32 = 64;
/// How long the ledger may take to show a payment that the node has acknowledged.
const PAID_WITHIN: Duration = Duration::from_secs(20);

impl Walk<'_> {
    /// Logs in with the pinned host key and checks from inside that it is what was sold. One check
    /// that fails: nothing is signed, the money is asked back, exit 12. The first check is that the space the node calls
    /// ready lets its user in.
    pub async fn prove(&mut self, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("proven", "logging in");
        let login_by = Instant::now() + self.login_within;
        let failed = loop {
            let sold = Sold {
                gives: self.gives,
                base: self.body.base,
            };
            match proof::prove(self.client, &self.record.name, &sold).await {
                Ok(inside) => {
                    self.record.inside = Some(inside);
                    self.proof_is_due = false;
                    if self.record.step < Step::Active {
                        self.reach(Step::Proven, "logged_in")?;
                    } else {
                        self.keep()?;
                    }
                    steps.done("proven", self.proven_words());
                    return Ok(());
                }
                Err(ProofError::NotIn(why)) => {
                    steps.doing(format!("logging in: {why}"));
                    if Instant::now() >= login_by {
                        break format!("no login, though the node says that it is ready: {why}");
                    }
                    if Instant::now() + REPEAT >= deadline {
                        return Err(self.still_going(&format!("no login yet: {why}")));
                    }
                    tokio::time::sleep(REPEAT).await;
                }
                // It may be what was sold since: both signed a change that this machine has lost.
                Err(ProofError::Failed(check)) => {
                    if !self.catch_up().await.unwrap_or(false) {
                        break check;
                    }
                }
                Err(ProofError::Broken(failure)) => return Err(failure),
            }
        };
        steps.failed("proven", format!("FAILED: {failed}"));
        let node = self.body.node.short();
        if self.record.step >= Step::Active {
            // Ending it would destroy the user's files: that is for the user to say.
            let name = &self.record.name;
            return Err(Failure::new(
                Code::ProofFailed,
                format!("{name} is not what it was; nothing more was signed"),
            )
            .because(failed)
            .next(format!(
                "`steading unlock {name}` looks again, `steading cancel {name}` ends it"
            )));
        }
        let back = self.end(Some(format!("proof failed: {failed}")), steps).await;
        let mut failure = Failure::new(
            Code::ProofFailed,
            format!("the node {node} did not give what it sold; nothing was paid"),
        )
        .because(failed);
        let name = &self.record.name;
        match back {
            Ok(ended) if ended.is_over() => {
                let (back, paid) = (money(ended.returned()), money(ended.view.paid));
                steps.done("refund", format!("{back} came back · {paid} was paid"));
                failure = failure.next("nothing is left to do; `steading request` finds another node");
            }
            Ok(ended) => {
                let from = ended.refund_from_ms.map(moment).unwrap_or_default();
                let held = money(ended.view.held());
                steps.done("refund", format!("{held} comes back from {from}"));
                failure = failure.next(format!(
                    "`steading cancel {name}` from {from} on takes the money back"
                ));
            }
            Err(error) if self.record.is_over() => {
                failure = failure
                    .because(error.what)
                    .next("nothing is left to do; keep the receipt");
            }
            Err(error) => {
                failure = failure
                    .because(error.what)
                    .next(format!("`steading cancel {name}` asks for the money again"));
            }
        }
        Err(failure)
    }

    pub(super) fn proven_words(&self) -> String {
        let Some(inside) = &self.record.inside else {
            return String::new();
        };
        let gives = self.gives();
        format!(
            "root inside is {} outside · files {} of {} · {} · {}",
            inside.outside_uid,
            market::quantity::Bytes(inside.volume_bytes).human(),
            gives.disk.human(),
            gives.cpu.human(),
            gives.memory.human()
        )
    }

    /// Signs the vouchers that are due and hands them over; the first one makes the sale active.
    pub async fn pay(&mut self, steps: &mut Steps) -> Outcome {
        let is_first = self.record.step < Step::Active;
        if is_first {
            steps.begin("paid", "signing the first voucher");
        }
        self.top_up().await?;
        if is_first {
            self.wait_until_paid().await?;
            self.reach(Step::Active, "unlocked")?;
            let (price, period) = (money(self.body.price), self.body.period);
            steps.done(
                "paid",
                format!("{price} for the first {}", period_words(period.0)),
            );
        }
        Ok(())
    }

    /// Whether, by this machine's clock, vouchers are due: cheap, asks nobody.
    pub fn is_due(&self) -> bool {
        is_due(&self.record, self.body.period)
    }

    /// Signs what is due, keeps it, and hands it to the node. Returns how many were new. For a space that is paid
    /// already nothing more is signed before a login has shown that it is there.
    pub async fn top_up(&mut self) -> Outcome<u32> {
        self.catch_up_after_restore().await?;
        let now = self
            .wallet
            .now()
            .await
            .map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let view = self.view().await?;
        let paid = self.prices.paid(view.paid, self.record.periods);
        let locked = view.accept_by.0.saturating_sub(self.terms().accept_window_ms);
        let since = active_since(&self.record, self.body.period, locked).unwrap_or(now.0);
        let due = vouchers_due(&self.record, since, self.body.period, now, paid);
        let (known, sent) = (self.record.vouchers_signed, self.record.vouchers_sent);
        let all = due.max(known);
        if all <= sent && self.record.active_since_ms.is_some() {
            return Ok(0);
        }
        if due > known && self.record.step >= Step::Active {
            let change = self.record.amendments;
            self.still_serves().await?;
            if self.record.amendments != change {
                self.seen_now = true; // in its new size, and from here on at its new price
                return Box::pin(self.top_up()).await;
            }
        }
        // What was signed and not acknowledged goes out again: the reply, or the client, may have been lost.
        let mut vouchers = Vec::new();
        for number in sent.max(paid).saturating_add(1)..=all {
            vouchers.push(self.voucher(number, since)?);
        }
        self.record.active_since_ms = Some(since);
        self.record.vouchers_signed = all;
        let json = serde_json::to_vec_pretty(&vouchers).map_err(anyhow::Error::from)?;
        write_whole(&self.files.path("vouchers.json"), &json)?;
        self.keep()?;
        for part in vouchers.chunks(32) {
            let message = VoucherMessage {
                sale: self.files.id,
                vouchers: part.iter().map(Voucher::to_bytes).collect(),
            };
            let answer = self.talk.ask::<_, Status>(message, ANSWER_WITHIN).await;
            // Signed at the price of before a change that this machine has lost.
            let is_stale = answer.as_ref().is_err_and(|error| {
                let code = error.refusal().map(|refusal| refusal.code);
                matches!(code, Some(RefusalCode::Voucher | RefusalCode::State))
            });
            if is_stale && self.catch_up().await.unwrap_or(false) {
                return Box::pin(self.top_up()).await;
            }
            let (_, status) = answer.map_err(|error| {
                error
                    .failure("vouchers were signed, and the node has not taken them")
                    .next(format!("`steading unlock {}` sends them again", self.record.name))
            })?;
            self.heard(&status.message);
        }
        self.record.vouchers_sent = all;
        self.keep()?;
        Ok(due.saturating_sub(known))
    }

    /// Periods that the ledger itself shows as paid.
    pub(super) async fn periods_paid(&self) -> Outcome<u32> {
        let view = self.wallet.view(&self.terms(), Sure::Final).await;
        let view = view.map_err(|error| Failure::of_rail("the ledger does not show what is paid", &error))?;
        Ok(self.prices.paid(view.paid, self.record.periods))
    }

    /// It was down and waits for its key: no period ran meanwhile, so those that come begin later. A ledger that is
    /// silent changes nothing: what is not moved now is at the next unlock.
    pub(super) async fn was_dark(&mut self) {
        if self.record.step < Step::Active {
            return;
        }
        let (Ok(now), Ok(paid)) = (self.wallet.now().await, self.periods_paid().await) else {
            return;
        };
        let since = since_after_dark(self.record.active_since_ms, now.0, paid, self.body.period);
        self.record.active_since_ms = Some(since);
    }

    /// Looks from inside again: a node that says "active" and lets nobody in is paid for nothing more.
    async fn still_serves(&mut self) -> Outcome {
        if std::mem::take(&mut self.seen_now) {
            return Ok(());
        }
        let name = self.record.name.clone();
        let unpaid = |code, why: String| {
            Failure::new(code, format!("no more vouchers were signed for {name}"))
                .because(why)
                .next(format!(
                    "what is signed already stays; `steading unlock {name}` looks again, `steading cancel {name}` ends it"
                ))
        };
        let status = self.status(ANSWER_WITHIN).await;
        let status = status.map_err(|error| unpaid(Code::NodeSilent, error.to_string()))?;
        if !matches!(status.state, SaleState::Ready | SaleState::Active) {
            let why = format!("the node says that it is {}", status.state);
            return Err(unpaid(Code::NodeRefuses, why));
        }
        let mut looked = self.look(&name).await;
        if matches!(looked, Err(ProofError::Failed(_))) && self.catch_up().await.unwrap_or(false) {
            looked = self.look(&name).await;
        }
        match looked {
            Ok(inside) => {
                self.record.inside = Some(inside);
                self.proof_is_due = false;
                Ok(())
            }
            Err(ProofError::NotIn(why)) => Err(unpaid(Code::NodeSilent, format!("no login: {why}"))),
            Err(ProofError::Failed(check)) => Err(unpaid(Code::ProofFailed, check)),
            Err(ProofError::Broken(failure)) => Err(failure),
        }
    }

    async fn look(&mut self, name: &str) -> Result<Inside, ProofError> {
        let sold = Sold {
            gives: self.gives,
            base: self.body.base,
        };
        proof::prove(self.client, name, &sold).await
    }

    /// Voucher n is the price of n periods, void until its period may begin.
    fn voucher(&self, number: u32, since_ms: u64) -> Outcome<Voucher> {
        let before = u64::from(number.saturating_sub(1));
        let not_before = match before {
            0 => RailTime(0),
            _ => RailTime(since_ms).plus_ms(self.body.period.as_ms().saturating_mul(before)),
        };
        self.wallet
            .voucher(&self.terms(), self.owed_after(number), not_before)
            .map_err(|error| Failure::of_rail("the voucher cannot be signed", &error))
    }

    /// The ledger itself says that the first period is paid; the node's word is not enough.
    async fn wait_until_paid(&self) -> Outcome {
        let deadline = Instant::now() + PAID_WITHIN;
        loop {
            let view = self.wallet.view(&self.terms(), Sure::Final).await;
            match &view {
                Ok(view) if !view.paid.is_zero() => return Ok(()),
                Ok(_) | Err(RailError::Unknown(_)) => {}
                Err(error) => return Err(Failure::of_rail("the ledger does not show the payment", error)),
            }
            if Instant::now() + REPEAT >= deadline {
                return Err(Failure::new(
                    Code::StillGoing,
                    "the first voucher is signed, but the node has not redeemed it yet",
                )
                .next(format!("`steading spaces` shows how {} stands", self.record.name)));
            }
            tokio::time::sleep(REPEAT).await;
        }
    }
}

/// How many vouchers should be signed by now: those of periods that are over, and `ahead` from the
/// one that runs; never more than `ahead` beyond what was redeemed, for a node that was dark redeems
/// nothing, and what is signed in advance is what the user risks.
fn vouchers_due(record: &Record, since: u64, period: Seconds, now: RailTime, paid: u32) -> u32 {
    let over = now.0.saturating_sub(since) / period.as_ms().max(1);
    let ahead = record.ahead.clamp(1, MOST_AHEAD);
    let due = over.saturating_add(u64::from(ahead));
    u32::try_from(due)
        .unwrap_or(u32::MAX)
        .min(paid.saturating_add(ahead))
        .min(record.periods)
}

/// When the first period began, by the rail's clock; before the lock, where a change of size began one early. A record
/// that came back from the node does not know: then it is as long before the end of what is paid as what is paid lasts,
/// by the node's word; but never before the lock, by the rail's, or a node could have every voucher be good at once.
fn active_since(record: &Record, period: Seconds, locked_ms: u64) -> Option<u64> {
    let heard = || {
        let heard = record.heard.as_ref().filter(|_| record.step >= Step::Active)?;
        let paid_ms = period.as_ms().saturating_mul(u64::from(heard.periods_paid));
        Some(heard.paid_until_ms?.saturating_sub(paid_ms).max(locked_ms))
    };
    record.active_since_ms.or_else(heard)
}

/// When the first period would have begun, had there been no dark time: what is paid may just have run.
fn since_after_dark(since: Option<u64>, now_ms: u64, paid: u32, period: Seconds) -> u64 {
    let ran_ms = period.as_ms().saturating_mul(u64::from(paid));
    now_ms.saturating_sub(ran_ms).max(since.unwrap_or(0))
}

/// Whether, by this machine's clock, a proven space's vouchers are due.
pub fn is_due(record: &Record, period: Seconds) -> bool {
    let now = RailTime(now_ms());
    let since = active_since(record, period, 0).unwrap_or(now.0);
    let due = vouchers_due(record, since, period, now, u32::MAX);
    record.step == Step::Active && due > record.vouchers_signed
}

fn period_words(seconds: u64) -> String {
    match seconds {
        3600 => "hour".to_owned(),
        86400 => "day".to_owned(),
        60 => "minute".to_owned(),
        other => market::quantity::Seconds(other).human(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vouchers_due(record: &Record, period: Seconds, now: RailTime, paid: u32) -> u32 {
        let since = active_since(record, period, 0).unwrap_or(now.0);
        super::vouchers_due(record, since, period, now, paid)
    }

    #[test]
    fn vouchers_run_ahead_by_what_was_said_and_end_with_the_sale() {
        let mut record = crate::store::record::tests::record("calm-otter");
        (record.periods, record.ahead, record.active_since_ms) = (10, 3, Some(1_000_000));
        let hour = Seconds(3600);
        let at = |hours: u64, extra_ms: u64| RailTime(1_000_000 + hours * 3_600_000 + extra_ms);
        for (now, due) in [
            (at(0, 0), 3),
            (at(0, 3_599_999), 3),
            (at(1, 0), 4),
            (at(5, 1), 8),
            (at(50, 0), 10),
        ] {
            assert_eq!(vouchers_due(&record, hour, now, 10), due, "{now:?}");
        }
        record.active_since_ms = None;
        assert_eq!(
            vouchers_due(&record, hour, at(9, 0), 10),
            3,
            "before the first one"
        );
        record.periods = 2;
        assert_eq!(vouchers_due(&record, hour, at(9, 0), 10), 2);
    }

    /// A node that was dark for days redeemed one period: no more than three further ones are ever at risk.
    #[test]
    fn dark_time_puts_nothing_more_at_risk() {
        let mut record = crate::store::record::tests::record("calm-otter");
        (record.periods, record.ahead, record.active_since_ms) = (100, 3, Some(1_000_000));
        let hour = Seconds(3600);
        let after_two_days = RailTime(1_000_000 + 48 * 3_600_000);
        assert_eq!(vouchers_due(&record, hour, after_two_days, 1), 4);
        assert_eq!(
            vouchers_due(&record, hour, after_two_days, 47),
            50,
            "one that served is paid on"
        );
    }

    /// A node that was dark for two days and redeems whatever is good gets what was signed ahead, not the dark periods.
    #[test]
    fn dark_periods_are_not_paid_one_after_another() {
        let hour = Seconds(3600);
        let two_days = 48 * 3_600_000;
        let now = RailTime(1_000_000 + two_days);
        let pays = |moves: bool| {
            let mut record = crate::store::record::tests::record("calm-otter");
            (record.periods, record.ahead, record.active_since_ms) = (100, 3, Some(1_000_000));
            if moves {
                let since = since_after_dark(record.active_since_ms, now.0, 1, hour);
                record.active_since_ms = Some(since);
            }
            let mut paid = 1;
            loop {
                let signed = vouchers_due(&record, hour, now, paid);
                if signed == paid {
                    return paid;
                }
                paid = signed; // by a node that redeems it all at once
            }
        };
        assert_eq!(pays(true), 4);
        assert_eq!(pays(false), 51, "the control: all dark periods");
        let since = since_after_dark(Some(now.0), now.0, 5, hour);
        assert_eq!(since, now.0, "it never begins earlier than it did");
    }

    #[test]
    fn a_record_that_came_back_counts_from_what_is_paid() {
        let mut record = crate::store::record::tests::record("calm-otter");
        (record.active_since_ms, record.vouchers_signed) = (None, 0);
        record.heard = Some(crate::store::record::Heard {
            state: "active".to_owned(),
            why: None,
            paid_until_ms: Some(1_000_000 + 5 * 3_600_000),
            paid: escrow::Amount(0),
            periods_paid: 5,
            snapshot_ms: None,
        });
        let hour = Seconds(3600);
        assert_eq!(active_since(&record, hour, 900_000), Some(1_000_000));
        // A node that says 1970: no voucher of a later period is good before that period can have begun.
        let locked = 1_500_000_000_000;
        record.heard.as_mut().unwrap().paid_until_ms = Some(0);
        assert_eq!(active_since(&record, hour, locked), Some(locked));
        assert_eq!(
            active_since(&record, hour, 0),
            Some(0),
            "what the lie would be worth"
        );
        record.active_since_ms = Some(locked - 1);
        assert_eq!(
            active_since(&record, hour, locked),
            Some(locked - 1),
            "what the user signed himself is his own word"
        );
        record.active_since_ms = None;
        record.step = Step::Ready;
        assert_eq!(active_since(&record, hour, locked), None);
    }
}
