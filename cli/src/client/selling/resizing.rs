//! Another size: asked, signed by both, paid for, made, and looked at from inside.
//!
//! ```text
//! quote ─► (the person says yes) ─► lock what is missing ─► sign ─► the key, where the disk grows ─► prove ─► pay
//!                                                            └─ what costs more: with the voucher of the period that begins
//! ```
//!
//! Invariants: nothing is signed that the wallet cannot pay; what has begun keeps its price; one period at a higher
//! price is signed with the change, and no more of them before the new size was seen from inside. Repeating it goes on
//! where it stopped.

use std::time::Duration;

use escrow::{Amount, Rail, RailTime, Wallet};
use market::envelope;
use market::message::{Amend, Amended, DeclineCode, Gives, Offer, Quote, RefusalCode, Resize};
use market::prices::Prices;
use market::quantity::{Bytes, MilliCpus};
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Walk};
use crate::client::random;
use crate::client::talk::TalkError;
use crate::exit::{Code, Failure, Outcome};
use crate::proof::{self, ProofError, Sold};
use crate::show::steps::Steps;
use crate::show::tables::reason_words;
use crate::show::text::money;
use crate::store::SaleFiles;
use crate::store::record::Record;

/// A node's clock of the ledger may be behind the ledger's by this, and a voucher is to be good for it at once.
const CLOCKS_DIFFER_MS: u64 = 10_000;
/// Between two looks from inside.
const REPEAT: Duration = Duration::from_millis(700);

/// What is asked for; none: as it is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// CPU time.
    pub cpu: Option<MilliCpus>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// The volume.
    pub disk: Option<Bytes>,
    /// Whether there is to be a snapshot of it.
    pub snapshot: Option<bool>,
}

/// What a file system of this size shows at least: a sixteenth for inodes and tables, and 40 MiB for journal, header and the
/// tables that let it grow.
fn least_volume(disk: Bytes) -> u64 {
    disk.0.saturating_sub(disk.0 / 16).saturating_sub(40 << 20)
}

/// Whether of the periods that have begun by the client's own count some would cost more than both signed. What costs
/// more than the period that runs is another matter: it begins one at once, so who says fewer has been paid for fewer.
/// But after a price has fallen a node that says fewer, and has redeemed no more, would have a rise count from there.
fn prices_anew(prices: &Prices, quote: &Quote, own: u32) -> bool {
    let owed = |prices: &Prices| prices.owed(u64::from(own.max(quote.begun)));
    let quoted = prices.changed(quote.begun, quote.price);
    quoted.is_some_and(|quoted| owed(&quoted) > owed(prices))
}

/// What a space gets now: as the newest change says, else as was offered.
pub fn gives_now(files: &SaleFiles, record: &Record, offer: &Offer) -> Outcome<Gives> {
    let newest = newest_change(files, record)?.and_then(|change| change.gives);
    Ok(newest.unwrap_or(offer.gives))
}

/// The newest change that both signed.
pub(super) fn newest_change(files: &SaleFiles, record: &Record) -> Outcome<Option<Amend>> {
    if record.amendments == 0 {
        return Ok(None);
    }
    let amended = files.message::<Amended>(&format!("amended-{}", record.amendments))?;
    Ok(amended.map(|amended| amended.message.amend.message))
}

impl Walk<'_> {
    /// Asks the node what a size would come to; what it lacks is a failure that says the price too.
    pub async fn quote(&mut self, size: Size, steps: &mut Steps) -> Outcome<Quote> {
        steps.begin("asked", "asking the node");
        self.change_signed_before().await?;
        let nonce = random::<16>()?;
        let resize = Resize {
            sale: self.files.id,
            nonce,
            cpu: size.cpu,
            memory: size.memory,
            disk: size.disk,
            snapshot: size.snapshot,
        };
        let answer = self.talk.ask::<_, Quote>(resize, ANSWER_WITHIN).await;
        let (_, quote) = answer.map_err(|error| error.failure("the node does not say what it would cost"))?;
        let quote = quote.message;
        let (gives, now) = (quote.gives, self.gives);
        let meant = quote.sale == self.files.id
            && quote.nonce == nonce
            && size.cpu.is_none_or(|cpu| gives.cpu == cpu)
            && size.memory.is_none_or(|memory| gives.memory == memory)
            && size.disk.is_none_or(|disk| gives.disk >= disk)
            && match size.snapshot {
                None => gives.snapshot == now.snapshot,
                Some(wanted) => (gives.snapshot > Bytes::ZERO) == wanted,
            }
            && (gives.rate, gives.pids) == (now.rate, now.pids);
        if !meant {
            return Err(Failure::new(
                Code::NodeSilent,
                "the node answers another question than was asked; nothing was signed",
            ));
        }
        if !quote.lacks.is_empty() {
            return Err(self.cannot_be(&quote));
        }
        steps.done(
            "asked",
            format!("{} a period from period {}", money(quote.price), quote.begun + 1),
        );
        Ok(quote)
    }

    fn cannot_be(&self, quote: &Quote) -> Failure {
        let name = &self.record.name;
        let is_full = quote.lacks.iter().all(|reason| reason.have.is_some());
        let code = if is_full { Code::NoOffer } else { Code::NodeRefuses };
        let mut failure = Failure::new(code, format!("{name} cannot have that size; nothing was signed"));
        for reason in &quote.lacks {
            failure = failure.because(reason_words(reason));
        }
        if quote
            .lacks
            .iter()
            .any(|reason| reason.code == DeclineCode::NotSelling)
        {
            return failure.next("the node sells nothing now; try again in a while");
        }
        failure
            .because(format!("it would cost {} a period", money(quote.price)))
            .next("what is free counts what the space has already; ask for less, or try another time")
    }

    /// What the prices would be, and that the node counts the periods as the ledger does.
    pub async fn prices_with(&self, quote: &Quote) -> Outcome<Prices> {
        let paid = self.periods_paid().await?;
        let most = paid.max(self.record.vouchers_signed).saturating_add(1);
        if !(paid..=most).contains(&quote.begun) {
            return Err(Failure::new(
                Code::NodeRefuses,
                "the node counts other periods than the ledger; nothing was signed",
            )
            .because(format!(
                "{} have begun, it says; {paid} are paid, vouchers are signed for {}",
                quote.begun, self.record.vouchers_signed
            )));
        }
        let own = self.periods_by_the_clock().await?;
        if !self.costs_more(quote) && prices_anew(&self.prices, quote, own) {
            return Err(Failure::new(
                Code::NodeRefuses,
                "the node would have periods that have begun cost more than they did; nothing was signed",
            )
            .because(format!(
                "{} have begun, it says; by the ledger's clock {own} have",
                quote.begun
            ))
            .next("if the space was down for as long, that is right, and a smaller or larger size can be asked for"));
        }
        let prices = self.prices.changed(quote.begun, quote.price);
        prices.ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "this sale has changed its price too often; nothing was signed",
            )
            .next("cancel it and buy a space of the size that you want")
        })
    }

    /// Periods that have begun if the space was never down, without the last seconds: clocks differ.
    async fn periods_by_the_clock(&self) -> Outcome<u32> {
        let now = self.wallet.now().await;
        let now = now.map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let Some(since) = self.record.active_since_ms else {
            return Ok(0);
        };
        let ran_ms = now.0.saturating_sub(CLOCKS_DIFFER_MS).saturating_sub(since);
        let whole = ran_ms / self.body.period.as_ms().max(1);
        let begun = u32::try_from(whole.saturating_add(1)).unwrap_or(u32::MAX);
        Ok(begun.min(self.record.periods))
    }

    /// What is locked, and what these prices need in all.
    pub async fn needs(&self, prices: &Prices) -> Outcome<(Amount, Amount)> {
        let total = prices.owed(u64::from(self.record.periods));
        let total = total.ok_or_else(|| Failure::new(Code::Usage, "so much money cannot be counted"))?;
        Ok((self.view().await?.funded, total))
    }

    /// Signs, locks, hands over the key where the disk grows, looks from inside, and pays what is due.
    pub async fn resize(&mut self, quote: &Quote, deadline: Instant, steps: &mut Steps) -> Outcome {
        let before = (
            self.gives,
            self.record.inside.as_ref().map(|inside| inside.volume_bytes),
        );
        if quote.gives != self.gives {
            self.sign_size(quote, deadline, steps).await?;
        }
        if quote.gives.disk > before.0.disk || quote.gives == before.0 {
            self.hand_over_key(deadline, steps).await?;
        }
        let grown = quote.gives.disk.0.saturating_sub(before.0.disk.0);
        let least = before.1.unwrap_or(0).saturating_add(grown - grown / 8);
        let least = least.max(least_volume(quote.gives.disk));
        self.prove_size(least, deadline, steps).await?;
        self.pay(steps).await
    }

    pub(super) async fn sign_size(&mut self, quote: &Quote, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("locked", "asking the ledger");
        let prices = self.prices_with(quote).await?;
        self.can_pay_all(&prices, self.record.periods).await?;
        // The node signs nothing that it does not see locked: what is too much comes back at the end.
        let (_, total) = self.needs(&prices).await?;
        self.fund_with(total).await?;
        steps.done("locked", format!("{} in all", money(total)));
        steps.begin("resized", "signing");
        let amend = Amend {
            sale: self.files.id,
            number: self.record.amendments.saturating_add(1),
            periods: self.record.periods,
            gives: Some(quote.gives),
            voucher: self.paid_with(quote, &prices).await?,
            prices,
        };
        let amend = envelope::sign(&self.client.seed.user_key(), self.body.grid, amend).map_err(|error| {
            Failure::new(Code::Usage, "such a change cannot be made; nothing was sent").caused_by(&error)
        })?;
        self.files.keep(super::extending::AMENDING, &amend.bytes)?;
        let signed = loop {
            match self.sign_change(&amend).await {
                Err(error)
                    if error
                        .refusal()
                        .is_some_and(|refusal| refusal.code.is_worth_repeating())
                        && Instant::now() + REPEAT < deadline =>
                {
                    steps.doing(error.to_string());
                    tokio::time::sleep(REPEAT).await;
                }
                signed => break signed,
            }
        };
        match signed {
            Ok(()) => {}
            Err(error) => {
                let failure = error
                    .failure("the node does not resize the space")
                    .because("what was locked more comes back when the space ends");
                let moved = matches!(failure.refusal, Some(RefusalCode::State | RefusalCode::Mismatch));
                return Err(if moved && matches!(error, TalkError::Refused(..)) {
                    failure.next("a period may have begun meanwhile: say it again")
                } else {
                    failure
                });
            }
        }
        steps.done("resized", "signed by both");
        Ok(())
    }

    /// What costs more than the period that runs begins the next one at once: the voucher that pays it.
    async fn paid_with(&self, quote: &Quote, prices: &Prices) -> Outcome<Option<Vec<u8>>> {
        if !self.costs_more(quote) {
            return Ok(None);
        }
        let next = quote.begun.saturating_add(1);
        let owed = prices
            .owed(u64::from(next))
            .filter(|_| next <= self.record.periods);
        let owed = owed.ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "the last period runs, and what costs more begins one; nothing was signed",
            )
            .next(format!(
                "`steading extend {}` first, by one period or more",
                self.record.name
            ))
        })?;
        let now = self.wallet.now().await;
        let now = now.map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let from = RailTime(now.0.saturating_sub(CLOCKS_DIFFER_MS));
        let voucher = self.wallet.voucher(&self.terms(), owed, from);
        let voucher = voucher.map_err(|error| Failure::of_rail("the voucher cannot be signed", &error))?;
        Ok(Some(voucher.to_bytes()))
    }

    /// Whether a period of this size costs more than the one that runs.
    pub fn costs_more(&self, quote: &Quote) -> bool {
        quote.price > self.prices.at(quote.begun)
    }

    /// Looks from inside until the size is there: `least` is what the file system has at least.
    async fn prove_size(&mut self, least: u64, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("proven", "looking from inside");
        let sold = Sold {
            gives: self.gives,
            base: self.body.base,
        };
        let name = self.record.name.clone();
        loop {
            let why = match proof::prove(self.client, &name, &sold).await {
                Ok(inside) if inside.volume_bytes >= least => {
                    self.record.inside = Some(inside);
                    self.proof_is_due = false;
                    self.seen_now = true;
                    self.keep()?;
                    let words = self.proven_words();
                    steps.done("proven", words);
                    return Ok(());
                }
                Ok(inside) => {
                    let has = Bytes(inside.volume_bytes).human();
                    format!("the file system has {has}, it has not grown")
                }
                Err(ProofError::NotIn(why) | ProofError::Failed(why)) => why,
                Err(ProofError::Broken(failure)) => return Err(failure),
            };
            steps.doing(why.clone());
            let refused = match self.status(ANSWER_WITHIN).await {
                Ok(status) => status.why.filter(|why| why.starts_with("not resized")),
                Err(_) => None,
            };
            if refused.is_some() || Instant::now() + REPEAT >= deadline {
                return Err(Failure::new(
                    Code::ProofFailed,
                    format!("{name} has not the size that both signed; nothing more was signed"),
                )
                .because(refused.unwrap_or(why))
                .next(format!(
                    "`steading resize {name}` goes on; what is in it is untouched"
                )));
            }
            tokio::time::sleep(REPEAT).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(gives: Gives, begun: u32, price: u128) -> Quote {
        Quote {
            sale: market::id::SaleId([1; 32]),
            nonce: [1; 16],
            gives,
            price: Amount(price),
            begun,
            lacks: Vec::new(),
        }
    }

    /// A node says, of five periods that began, that it was fewer, for each list of prices and each new one. It is
    /// refused, or the user owes no more than with the truth: neither for what began, nor with the period that begins.
    #[test]
    fn a_node_that_says_fewer_periods_gains_nothing() {
        const BEGUN: u32 = 5;
        let gives = Gives {
            cpu: MilliCpus(500),
            memory: Bytes(1 << 30),
            disk: Bytes(4 << 30),
            rate: market::quantity::BitsPerSecond(1),
            pids: 1,
            snapshot: Bytes::ZERO,
        };
        let (mut refused, mut gained) = (0, 0);
        for (first, second, at) in (0..27).map(|n| (n % 3, n / 3 % 3, n / 9 % 3)) {
            let price = |step: u32| 10 + 10 * u128::from(step);
            let prices = Prices::of(Amount(price(first)));
            let prices = prices.changed(at + 1, Amount(price(second))).unwrap();
            for (said, new) in (1..=BEGUN).flat_map(|said| [5, 15, 25, 35].map(|new| (said, new))) {
                let quote = quote(gives, said, new);
                let costs_more = |begun: u32| quote.price > prices.at(begun);
                let owed = |begun: u32| {
                    let changed = prices.changed(begun, quote.price).unwrap();
                    // with what costs more the next one has begun, and no more of them
                    let periods = if costs_more(begun) { begun + 1 } else { BEGUN };
                    changed.owed(u64::from(periods)).unwrap()
                };
                let is_worse = owed(said) > owed(BEGUN);
                if !costs_more(said) && prices_anew(&prices, &quote, BEGUN) {
                    refused += 1;
                    gained += u32::from(is_worse);
                } else {
                    assert!(!is_worse, "{prices:?} {said} {new}");
                }
                assert!(
                    said < BEGUN || !prices_anew(&prices, &quote, BEGUN),
                    "the truth is taken"
                );
            }
        }
        assert!(
            gained > 0 && refused > 0,
            "the control: {gained} of {refused} would have gained"
        );
    }
}
