//! The walk of a sale: each step does one thing, is written down, and can be gone on from.
//!
//! ```text
//! agree ─► lock ─► keys ─► until ready ─► prove ─► pay          (buy; ssh and unlock go on from where it stopped)
//!            └────────┴─────────┴────────────┴─► end ─► refunded, receipt        (cancel, or a proof that failed)
//! pay ─► extend, resize ─► pay
//! ```
//! Invariant: money is locked only for a sale that both signed, and a voucher is signed only after
//! the proof held over SSH with the host key that the node signed.

mod catching;
pub mod ending;
pub mod extending;
pub mod paying;
pub mod resizing;
pub mod snapshots;
pub mod starting;

use std::time::Duration;

use escrow::{Amount, LockState, LockView, Rail, Sure, Terms};
use grid::{EndpointAddress, GridTicket};
use ledger::{LedgerWallet, RailAddress};
use market::envelope::{self, Signed};
use market::id::{GridId, NodeId};
use market::message::{Gives, Offer, Receipt, Sale, SaleBody, SaleState, Status, StatusQuery};
use market::prices::Prices;
use market::quantity::UnixMillis;
use tokio::time::Instant;

use super::talk::{Talk, TalkError};
use super::{Client, now_ms, random};
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::money;
use crate::store::SaleFiles;
use crate::store::record::{Heard, Record, Step};

/// How long a short answer may take: the node is emulated, loaded, or far away.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long a space that the node calls ready may keep everybody out, unless said otherwise.
pub const LOGIN_WITHIN: Duration = Duration::from_secs(120);

/// A sale and everything that is needed to go on with it.
pub struct Walk<'c> {
    /// Whose.
    pub client: &'c mut Client,
    /// Its files.
    pub files: SaleFiles,
    /// How far it got.
    pub record: Record,
    /// What both sign.
    pub body: SaleBody,
    /// What was offered.
    pub offer: Signed<Offer>,
    talk: Talk,
    wallet: LedgerWallet,
    /// What each period costs.
    prices: Prices,
    /// What the space gets now.
    gives: Gives,
    /// How long a space that the node calls ready may keep everybody out.
    pub login_within: Duration,
    /// The key went out in this process: what answers now is looked at from inside.
    proof_is_due: bool,
    /// It was just looked at from inside.
    seen_now: bool,
    /// Boot and epoch of the grant that this process answered: a node that still says "locked" in
    /// them is opening the volume.
    answered: Option<([u8; 16], u64)>,
}

/// The grid of a recorded sale.
pub fn ticket_of(record: &Record) -> Outcome<GridTicket> {
    record.grid.parse().map_err(|error: grid::TicketError| {
        Failure::new(Code::Unexpected, "the sale's record is damaged").caused_by(&error)
    })
}

/// The node's address of a recorded sale.
pub fn address_of(record: &Record) -> Outcome<EndpointAddress> {
    let bytes = data_encoding::HEXLOWER
        .decode(record.node_address.as_bytes())
        .unwrap_or_default();
    EndpointAddress::from_bytes(&bytes)
        .map_err(|error| Failure::new(Code::Unexpected, "the sale's record is damaged").caused_by(&error))
}

fn rail_of(record: &Record) -> Outcome<RailAddress> {
    record
        .ledger
        .parse()
        .map_err(|error: ledger::address::AddressError| {
            Failure::new(Code::Unexpected, "the sale's record is damaged").caused_by(&error)
        })
}

impl<'c> Walk<'c> {
    /// Takes up a sale that both signed.
    pub async fn resume(client: &'c mut Client, files: SaleFiles, mut record: Record) -> Outcome<Walk<'c>> {
        let body = match files.message::<Sale>("sale")? {
            Some(sale) => sale.message.body().clone(),
            // The node's signature never came; what the user signed says what it was about.
            None => files
                .need::<market::message::Agree>("agree")?
                .message
                .body
                .clone(),
        };
        let offer = files.need::<Offer>("offer")?;
        // The grid and the ledger keep their keys, yet may have moved; what is configured now
        // goes before what was noted then.
        if let Ok(ticket) = client.settings.ticket()
            && ticket.grid_id() == body.grid.0
        {
            record.grid = ticket.to_string();
        }
        if let Ok(address) = client.settings.rail()
            && address.name() == body.rail
        {
            record.ledger = address.to_string();
        }
        Walk::new(client, files, record, body, offer).await
    }

    async fn new(
        client: &'c mut Client,
        files: SaleFiles,
        record: Record,
        body: SaleBody,
        offer: Signed<Offer>,
    ) -> Outcome<Walk<'c>> {
        let ticket = ticket_of(&record)?;
        let grid = client.grid(&ticket).await?;
        let (grid_id, node) = (GridId(ticket.grid_id()), NodeId(offer.signer));
        let talk = Talk::with(grid, grid_id, node, address_of(&record)?, client.seed.user_key());
        let wallet = client
            .wallet(&rail_of(&record)?)?
            .with_voucher_key(client.seed.voucher_key(&body.nonce));
        let change = resizing::newest_change(&files, &record)?;
        let gives = change.as_ref().and_then(|change| change.gives);
        let gives = gives.unwrap_or(offer.message.gives);
        let prices = change.map_or_else(|| Prices::of(body.price), |change| change.prices);
        let mut walk = Walk {
            client,
            files,
            record,
            body,
            offer,
            talk,
            wallet,
            prices,
            gives,
            login_within: LOGIN_WITHIN,
            proof_is_due: false,
            seen_now: false,
            answered: None,
        };
        if walk.record.step > Step::Agreeing {
            let id = walk.files.id;
            walk.talk.about(id);
        }
        Ok(walk)
    }

    /// What the lock is for.
    pub fn terms(&self) -> Terms {
        self.body.terms()
    }

    /// What the space gets now.
    pub fn gives(&self) -> &Gives {
        &self.gives
    }

    /// What each period costs.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// What is owed in all once so many periods have begun.
    pub fn owed_after(&self, periods: u32) -> Amount {
        self.prices.owed(u64::from(periods)).unwrap_or(Amount(u128::MAX))
    }

    /// Writes down how far it got.
    pub fn keep(&self) -> Outcome {
        self.files.keep_record(&self.record)
    }

    fn reach(&mut self, step: Step, moment: &str) -> Outcome {
        self.record.reach(step, moment, now_ms());
        self.keep()
    }

    /// The lock as it stands.
    pub async fn view(&self) -> Outcome<LockView> {
        self.wallet
            .view(&self.terms(), Sure::Final)
            .await
            .map_err(|error| Failure::of_rail("the ledger does not say how the lock stands", &error))
    }

    /// Asks the node how the sale stands, and writes it down.
    pub async fn status(&mut self, within: Duration) -> Result<Status, TalkError> {
        let nonce = random::<16>().map_err(|error| TalkError::Nonsense(self.body.node, error.to_string()))?;
        let query = StatusQuery {
            sale: self.files.id,
            nonce,
        };
        let (_, status) = self.talk.ask::<_, Status>(query, within).await?;
        let status = status.message;
        if status.nonce != nonce || status.sale != self.files.id {
            let words = "its status is to another question".to_owned();
            return Err(TalkError::Nonsense(self.body.node, words));
        }
        self.heard(&status);
        Ok(status)
    }

    fn heard(&mut self, status: &Status) {
        self.talk.moved(&status.address);
        self.record.node_address = data_encoding::HEXLOWER.encode(&self.talk.address().to_bytes());
        self.record.tcp = status.candidates.iter().find_map(|candidate| match candidate {
            market::message::Candidate::Tcp { host, port } if host.contains(':') => {
                Some(format!("[{host}]:{port}"))
            }
            market::message::Candidate::Tcp { host, port } => Some(format!("{host}:{port}")),
            market::message::Candidate::Grid => None,
        });
        if matches!(status.state, SaleState::Ready | SaleState::Active) {
            self.record.restoring = None; // it serves: a restore that is asked for now is another one
        }
        self.record.heard = Some(Heard {
            state: status.state.word().to_owned(),
            why: status.why.clone(),
            paid_until_ms: status.paid_until.map(|UnixMillis(ms)| ms),
            paid: status.paid,
            periods_paid: status.periods_paid,
            snapshot_ms: status.snapshot.map(|UnixMillis(ms)| ms),
        });
    }

    /// A node that says the sale is over: what that means for the money is looked up, not believed.
    async fn over(&mut self, status: &Status) -> Failure {
        let name = self.record.name.clone();
        let mut failure = Failure::new(
            Code::NodeRefuses,
            format!("the node ended the sale of {name} ({})", status.state),
        );
        if let Some(why) = &status.why {
            failure = failure.because(why);
        }
        let settled = self.is_settled(status).await;
        match settled {
            Ok(Some(back)) => failure
                .because(format!("{} is back in your wallet", money(back)))
                .next(format!(
                    "nothing is left to do; `steading request` finds another node for {name}"
                )),
            Ok(None) | Err(_) => failure.next(format!(
                "`steading cancel {name}` settles the money and keeps the receipt"
            )),
        }
    }

    /// Whether the rail says that nothing is held any more; then the sale is over here too. What
    /// came back.
    async fn is_settled(&mut self, status: &Status) -> Outcome<Option<Amount>> {
        if let Some(bytes) = &status.receipt
            && let Ok(receipt) = envelope::open::<Receipt>(bytes, Some(self.body.grid))
            && receipt.signer == self.body.node.0
            && receipt.message.sale == self.files.id
        {
            self.files.keep("receipt", bytes)?;
        }
        let view = self.view().await?;
        let back = match view.state {
            LockState::None => Amount::ZERO,
            LockState::Closed => view.funded.saturating_sub(view.paid),
            LockState::Locked | LockState::Active => return Ok(None),
        };
        self.reach(Step::Ended, "ended")?;
        crate::ssh::write_files(&self.client.store, &self.client.seed)?;
        Ok(Some(back))
    }

    /// Goes on as far as a space that can be used: whatever is missing is done.
    pub async fn finish(&mut self, deadline: Instant, steps: &mut Steps) -> Outcome {
        if self.record.step == Step::Agreeing {
            self.agree(steps).await?;
        }
        if self.record.step == Step::Agreed {
            self.lock(steps).await?;
        }
        if self.record.step == Step::Funded {
            self.hand_over_key(deadline, steps).await?;
        }
        self.until_ready(deadline, steps).await?;
        if !self.record.is_proven() || self.proof_is_due {
            self.prove(deadline, steps).await?;
        }
        self.pay(steps).await
    }
}
