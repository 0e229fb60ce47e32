//! The end of a sale: the node tears down and gives the rest back, or the client closes alone.

use std::time::Duration;

use escrow::lock::Windows;
use escrow::{Amount, LockState, LockView, Rail, RailError, Refusal, Wallet};
use market::envelope::Signed;
use market::id::SaleId;
use market::message::{Cancel, Receipt};
use tokio::time::Instant;

use super::Walk;
use crate::client::{Client, now_ms};
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::{moment, money};
use crate::ssh;
use crate::store::record::Step;

/// How long a node may tear down.
const TEAR_DOWN_WITHIN: Duration = Duration::from_secs(90);
/// How long a node that has signed its receipt may take to give the rest back.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at the lock.
const REPEAT: Duration = Duration::from_millis(300);

/// How a sale ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The lock as the ledger shows it.
    pub view: LockView,
    /// The node's signed receipt.
    pub receipt: Option<Signed<Receipt>>,
    /// When the rest returns, where the node did not give it back: unix milliseconds.
    pub refund_from_ms: Option<u64>,
}

impl Ended {
    /// Whether nothing is held any more: a lock that is closing with nothing left in it is over, too.
    pub fn is_over(&self) -> bool {
        self.view.held() == Amount::ZERO
    }

    /// What came back.
    pub fn returned(&self) -> Amount {
        match self.view.state {
            LockState::Closed => self.view.funded.saturating_sub(self.view.paid),
            LockState::None | LockState::Locked | LockState::Active => Amount::ZERO,
        }
    }
}

impl Walk<'_> {
    /// Ends the sale: asks the node first; if it is silent, closes the lock alone.
    pub async fn end(&mut self, why: Option<String>, steps: &mut Steps) -> Outcome<Ended> {
        self.reach(Step::Ending, "cancelled")?;
        let id = self.files.id;
        self.talk.about(id); // also where the node's signature never came: it may have signed
        steps.begin("ending", "the node tears down");
        let receipt = self.ask_receipt(why, steps).await?;
        steps.begin("refund", "asking the ledger");
        let view = self.settle(receipt.is_some()).await?;
        let ended = Ended {
            view,
            receipt,
            refund_from_ms: view.refund_from(Windows::from(&self.terms())).map(|time| time.0),
        };
        let is_over = ended.is_over();
        if is_over {
            self.record.times.entry("refunded".to_owned()).or_insert(now_ms());
        }
        // What became of the money is said once, by who asked for the end.
        steps.quiet();
        if ended.receipt.is_some() {
            self.record.times.entry("receipt".to_owned()).or_insert(now_ms());
        }
        // The rail decides that it is over; what a node's receipt says is told after that is kept.
        if is_over {
            self.reach(Step::Ended, "ended")?;
        } else {
            self.keep()?;
        }
        ssh::write_files(&self.client.store, &self.client.seed)?;
        self.check_receipt(&ended, steps)?;
        Ok(ended)
    }

    async fn ask_receipt(
        &mut self,
        why: Option<String>,
        steps: &mut Steps,
    ) -> Outcome<Option<Signed<Receipt>>> {
        if let Some(known) = self.files.message::<Receipt>("receipt")? {
            return Ok(Some(known));
        }
        let why = why.map(|why| {
            why.chars()
                .filter(|letter| market::is_plain(*letter))
                .take(200)
                .collect()
        });
        let cancel = Cancel {
            sale: self.files.id,
            why,
        };
        match self.talk.ask::<_, Receipt>(cancel, TEAR_DOWN_WITHIN).await {
            Ok((_, receipt)) if receipt.message.sale == self.files.id => {
                self.files.keep("receipt", &receipt.bytes)?;
                let gone = match (
                    receipt.message.key_slot_destroyed,
                    receipt.message.volume_destroyed,
                ) {
                    (true, true) => "key slot and volume destroyed",
                    (true, false) => "key slot destroyed, the volume is withheld",
                    (false, _) => "the node could not destroy the key slot",
                };
                steps.done("ended", gone);
                Ok(Some(receipt))
            }
            Ok(_) => {
                steps.failed("ended", "the node's receipt is for another sale");
                Ok(None)
            }
            Err(error) => {
                steps.failed("ended", format!("{error}: closing the lock without it"));
                Ok(None)
            }
        }
    }

    /// The rail's own word on the money; where the node did not give back, the payer closes, and
    /// refunds once it may.
    async fn settle(&self, node_ended: bool) -> Outcome<LockView> {
        let terms = self.terms();
        let of_rail = |error: RailError| Failure::of_rail("the money is not settled yet", &error);
        let view = self.view().await?;
        match view.state {
            LockState::None | LockState::Closed => return Ok(view),
            LockState::Locked | LockState::Active => {}
        }
        if node_ended && let Some(view) = self.given_back().await? {
            return Ok(view);
        }
        let view = self.wallet.close(&terms).await.map_err(of_rail)?;
        match self.wallet.refund(&terms).await {
            Ok(view) => Ok(view),
            Err(RailError::Refused(Refusal::RefundFrom(_))) => Ok(view),
            Err(error) => Err(of_rail(error)),
        }
    }

    /// A lock that the node saw only as it ended the sale is given back a moment after its receipt.
    async fn given_back(&self) -> Outcome<Option<LockView>> {
        let deadline = Instant::now() + GIVEN_BACK_WITHIN;
        while Instant::now() < deadline {
            let view = self.view().await?;
            if view.state == LockState::Closed {
                return Ok(Some(view));
            }
            tokio::time::sleep(REPEAT).await;
        }
        tracing::warn!("the node ended the sale but did not give the rest back");
        Ok(None)
    }

    /// A receipt that says something else than the ledger is shown as what it is.
    fn check_receipt(&self, ended: &Ended, steps: &mut Steps) -> Outcome {
        let Some(receipt) = &ended.receipt else {
            return Ok(());
        };
        if receipt.message.paid == ended.view.paid {
            return Ok(());
        }
        steps.failed(
            "receipt",
            format!(
                "says {} was paid, the ledger says {}",
                money(receipt.message.paid),
                money(ended.view.paid)
            ),
        );
        let failure = Failure::new(Code::NodeRefuses, "the node's receipt and the ledger differ")
            .because("the ledger is right; the receipt is kept as evidence");
        let name = &self.record.name;
        Err(match ended.refund_from_ms.filter(|_| !ended.is_over()) {
            Some(from) => failure.next(format!(
                "`steading cancel {name}` from {} on takes the money back",
                moment(from)
            )),
            None => failure.next(format!(
                "nothing is left to do: {} came back, {name} is over",
                money(ended.returned())
            )),
        })
    }
}

/// A lock of this wallet's whose sale has no files here (a seed was restored without its sales):
/// the payer's key alone closes it, and refunds once it may.
pub async fn close_unknown(
    client: &Client,
    sale: &str,
    steps: &mut Steps,
) -> Outcome<Option<(SaleId, Ended)>> {
    let address = client.settings.rail()?;
    let wallet = client.wallet(&address)?;
    let of_rail = |error: RailError| Failure::of_rail("the money is not settled yet", &error);
    let locks = wallet
        .rail()
        .open_locks(&wallet.account())
        .await
        .map_err(of_rail)?;
    let found = locks
        .into_iter()
        .find(|lock| SaleId(lock.terms.sale).to_string().starts_with(sale));
    let Some(lock) = found else { return Ok(None) };
    steps.begin("refund", "closing the lock");
    let closing = wallet.close(&lock.terms).await.map_err(of_rail)?;
    let view = match wallet.refund(&lock.terms).await {
        Ok(view) => view,
        Err(RailError::Refused(Refusal::RefundFrom(_))) => closing,
        Err(error) => return Err(of_rail(error)),
    };
    let refund_from_ms = view.refund_from(Windows::from(&lock.terms)).map(|time| time.0);
    steps.quiet();
    let ended = Ended {
        view,
        receipt: None,
        refund_from_ms,
    };
    Ok(Some((SaleId(lock.terms.sale), ended)))
}
