//! The one place that speaks to the grid and the rail.
//!
//! ```text
//! verb/* ─► Client ─┬─ asking   broadcast a request, gather what nodes answer
//!                   ├─ talk     one node, one sale: signed question, signed answer
//!                   ├─ selling  the walk of a sale, step by step
//!                   ├─ command  a farmer's own node: signed command, signed answer
//!                   ├─ recall   sales that only ledger and nodes know
//!                   └─ tunnel   bytes to a space's SSH server
//! ```
//! Invariant: everything that comes in is opened by `market::envelope` (bounded, verified, for
//! this grid) before anything else looks at it, and its signer is compared with whom was asked.

pub mod asking;
pub mod command;
pub mod ears;
pub mod recall;
pub mod selling;
pub mod talk;
pub mod tunnel;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use escrow::{Account, RailError};
use grid::{Grid, GridTicket, JoinConfig, PeerId, Verdict};
use ledger::{LedgerRail, LedgerWallet, RailAddress};

use crate::exit::{Code, Failure, Outcome};
use crate::keys::Seed;
use crate::settings::Settings;
use crate::store::Store;

/// How long joining may take.
const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// One person's client: the keys, the store, and a place on the grid once one is needed.
pub struct Client {
    /// What was configured.
    pub settings: Settings,
    /// What is kept.
    pub store: Store,
    /// The keys.
    pub seed: Seed,
    grid: Option<(String, Grid)>,
    /// The place on the grid is another client's, who says goodbye.
    is_lent: bool,
}

/// Unix milliseconds of this machine; only for what is shown and how long things took.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the kernel gives no random bytes: {error}"))?;
    Ok(bytes)
}

impl Client {
    /// Opens the wallet; nothing is sent yet.
    pub fn open(settings: Settings) -> Outcome<Client> {
        let store = Store::new(settings.folders.clone());
        let seed = store.seed()?;
        Ok(Client {
            settings,
            store,
            seed,
            grid: None,
            is_lent: false,
        })
    }

    /// Another client of the same person, for work beside this one: with the same place on the grid.
    pub fn beside(&self) -> Outcome<Client> {
        Ok(Client {
            grid: self.grid.clone(),
            is_lent: self.grid.is_some(),
            ..Client::open(self.settings.clone())?
        })
    }

    /// An endpoint on that grid: fresh for this process, made at the first call.
    pub async fn grid(&mut self, ticket: &GridTicket) -> Outcome<Grid> {
        let text = ticket.to_string();
        if let Some((_, grid)) = self.grid.as_ref().filter(|(of, _)| *of == text) {
            return Ok(grid.clone());
        }
        let secret = grid::fresh_secret()
            .map_err(|error| anyhow::anyhow!("the kernel gives no random bytes: {error}"))?;
        // A client listens to answers, not to others' requests.
        let check = |_: &[u8], _: PeerId| Verdict::Reject("not for a client".to_owned());
        let grid = Grid::join(JoinConfig::new(ticket.clone(), secret), Arc::new(check))
            .await
            .map_err(|error| Failure::new(Code::Grid, "no endpoint on the grid").caused_by(&error))?;
        self.leave().await;
        self.grid = Some((text, grid.clone()));
        Ok(grid)
    }

    /// The same, waiting until a broadcast would be heard.
    pub async fn joined(&mut self, ticket: &GridTicket) -> Outcome<Grid> {
        let grid = self.grid(ticket).await?;
        grid.joined(JOIN_WITHIN).await.map_err(|error| {
            Failure::new(
                Code::Grid,
                format!("the grid \"{}\" cannot be reached", ticket.name()),
            )
            .because(error)
            .next(format!(
                "check that `steading grid serve` runs at {}, and that the ticket is the newest",
                ticket.host()
            ))
        })?;
        Ok(grid)
    }

    /// Says goodbye to the grid, so that nobody waits for a neighbour that is gone.
    pub async fn leave(&mut self) {
        let is_lent = std::mem::take(&mut self.is_lent);
        if let Some((_, grid)) = self.grid.take()
            && !is_lent
        {
            grid.close().await;
        }
    }

    /// The rail at that address.
    pub fn rail(&self, address: &RailAddress) -> Outcome<LedgerRail> {
        rail(address)
    }

    /// The wallet on the rail at that address.
    pub fn wallet(&self, address: &RailAddress) -> Outcome<LedgerWallet> {
        Ok(LedgerWallet::new(rail(address)?, self.seed.account_key()))
    }

    /// This wallet's account on that rail.
    pub fn account(&self, address: &RailAddress) -> Account {
        self.seed.account_on(&address.key())
    }
}

/// The rail at that address, for whoever has no wallet.
pub fn rail(address: &RailAddress) -> Outcome<LedgerRail> {
    LedgerRail::new(address.clone())
        .map_err(|error: RailError| Failure::of_rail("the ledger's client cannot be made", &error))
}
