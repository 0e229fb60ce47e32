//! More time: both sign the change, then the lock is topped up.
//!
//! Invariant: nothing is signed that the wallet cannot pay; a change that was signed and not answered is said again
//! before another one takes its number.

use escrow::{Voucher, Wallet};
use market::envelope::{self, Signed};
use market::message::{Amend, Amended};
use market::prices::Prices;

use super::{ANSWER_WITHIN, Walk};
use crate::client::talk::TalkError;
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::money;

/// The change that is being signed, until the next one.
pub(super) const AMENDING: &str = "amending";

impl Walk<'_> {
    /// Adds periods: both sign the change, then the lock is topped up.
    pub async fn extend(&mut self, periods: u32, steps: &mut Steps) -> Outcome {
        steps.begin("extended", "asking the ledger");
        self.catch_up_after_restore().await?;
        // A change whose money was never locked is no base for another one.
        let funded = self.periods_funded().await?;
        let all = funded
            .checked_add(periods)
            .ok_or_else(|| Failure::new(Code::Usage, "so many periods cannot be counted"))?;
        self.can_pay_all(&self.prices, all).await?;
        steps.doing("signing");
        self.change_signed_before().await?;
        if self.record.periods != all {
            let amend = Amend {
                sale: self.files.id,
                number: self.record.amendments.saturating_add(1),
                periods: all,
                // once it has another size, each change says so
                gives: (self.gives != self.offer.message.gives).then_some(self.gives),
                prices: self.prices.clone(),
                voucher: None,
            };
            let amend =
                envelope::sign(&self.client.seed.user_key(), self.body.grid, amend).map_err(|error| {
                    Failure::new(Code::Usage, "such a change cannot be made; nothing was sent")
                        .caused_by(&error)
                })?;
            self.files.keep(AMENDING, &amend.bytes)?;
            let signed = self.sign_change(&amend).await;
            signed.map_err(|error| {
                error.failure("the node does not extend the sale; nothing was locked for it")
            })?;
        }
        steps.done("extended", format!("{all} periods in all, signed by both"));
        steps.begin("locked", "asking the ledger");
        self.fund().await?;
        steps.done("locked", format!("{} in all", money(self.total())));
        self.pay(steps).await
    }

    /// A change that was signed here and never answered has the next number: the node gets the same one again, for it
    /// may have signed it.
    pub(super) async fn change_signed_before(&mut self) -> Outcome {
        self.catch_up_after_restore().await?;
        let Some(amend) = self.files.message::<Amend>(AMENDING)? else {
            return Ok(());
        };
        if amend.message.number != self.record.amendments.saturating_add(1) {
            return Ok(());
        }
        match self.sign_change(&amend).await {
            Ok(()) => Ok(()),
            // Another one may have that number by now.
            Err(TalkError::Refused(..)) => self.catch_up().await.map(|_| ()),
            Err(error) => {
                Err(error
                    .failure("whether an earlier change was signed is not known; nothing new was signed"))
            }
        }
    }

    /// The newest change that both signed, said again: a node that could not do it tries once more.
    pub(super) async fn say_change_again(&mut self) -> Outcome {
        let name = format!("amended-{}", self.record.amendments);
        let Some(amended) = self.files.message::<Amended>(&name)? else {
            return Ok(());
        };
        let said = self.sign_change(&amended.message.amend).await;
        said.map_err(|error| error.failure("the node does not do what both signed"))
    }

    pub(super) async fn sign_change(&mut self, amend: &Signed<Amend>) -> Result<(), TalkError> {
        let amended = self
            .talk
            .ask_signed::<Amended>(&amend.bytes, ANSWER_WITHIN)
            .await?;
        let node = self.body.node;
        if amended.message.amend.bytes != amend.bytes {
            let words = "it signed another change than this one".to_owned();
            return Err(TalkError::Nonsense(node, words));
        }
        self.take_change(&amended)
            .map_err(|failure| TalkError::Nonsense(node, failure.to_string()))
    }

    /// What both signed counts from now on, here too.
    pub(super) fn take_change(&mut self, amended: &Signed<Amended>) -> Outcome {
        let change = &amended.message.amend.message;
        let number = change.number;
        let kept = self.files.keep(&format!("amended-{number}"), &amended.bytes);
        // What was signed at another price is signed anew.
        let same = |period: &u32| self.prices.at(*period) == change.prices.at(*period);
        let right = (1..=self.record.vouchers_signed).take_while(same).count();
        let right = u32::try_from(right).unwrap_or(u32::MAX);
        self.record.vouchers_signed = right;
        self.record.vouchers_sent = self.record.vouchers_sent.min(right);
        if let Some(voucher) = &change.voucher {
            self.period_began(&change.prices, voucher)?;
        }
        self.record.amendments = number;
        self.record.periods = change.periods;
        self.prices = change.prices.clone();
        self.gives = change.gives.unwrap_or(self.gives);
        kept?;
        self.keep()
    }

    /// A change that costs more began a period, which the voucher in it pays; later ones are good from then on.
    fn period_began(&mut self, prices: &Prices, voucher: &[u8]) -> Outcome {
        let voucher = Voucher::from_bytes(voucher).map_err(anyhow::Error::from)?;
        let number = prices.paid(voucher.cumulative, u32::MAX);
        let before = u64::from(number.saturating_sub(1));
        let before_ms = self.body.period.as_ms().saturating_mul(before);
        self.record.vouchers_signed = self.record.vouchers_signed.max(number);
        self.record.vouchers_sent = self.record.vouchers_sent.max(number);
        self.record.active_since_ms = Some(voucher.not_before.0.saturating_sub(before_ms));
        Ok(())
    }

    /// Periods that the lock pays for in all.
    async fn periods_funded(&self) -> Outcome<u32> {
        let view = self.view().await?;
        let periods = self.prices.paid(view.funded, self.record.periods);
        Ok(periods.min(self.record.periods))
    }

    /// Before anything is signed: is there enough for so many periods at these prices?
    pub(super) async fn can_pay_all(&self, prices: &Prices, periods: u32) -> Outcome {
        let (view, account) = (self.view().await?, self.wallet.account());
        let balance = self.wallet.rail().balance_of(&account).await;
        let free = balance
            .map_err(|error| Failure::of_rail("the ledger does not say what you have", &error))?
            .free;
        let total = prices.owed(u64::from(periods));
        let needed = total.map(|total| total.saturating_sub(view.funded));
        if needed.is_some_and(|needed| needed <= free) {
            return Ok(());
        }
        let needed = needed.map_or("more than there is".to_owned(), money);
        let what = format!(
            "not enough money: {needed} more is needed, {} is free",
            money(free)
        );
        Err(Failure::new(Code::Money, what)
            .next("nothing was signed; take less, or have money sent to `steading wallet address`"))
    }
}
