//! `steading ledger`: run the escrow ledger; issue play money as its operator.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use escrow::{Account, Amount, LEDGER_DECIMALS};
use ledger::server::{Bounds, Config, ServeError, serve};
use ledger::{RailAddress, keys};
use serde_json::json;

use crate::client::{rail, random};
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::text::money;

/// What to do with a ledger.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the ledger; prints its address on one line, then serves until it is stopped.
    Serve(Serve),
    /// Issue play money; only whoever has the ledger's folder can.
    Fund(Fund),
}

/// Flags of `ledger serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  steading ledger serve --listen 127.0.0.1:7070 --dir ./ledger
The operator is trusted: what the ledger holds are IOUs. Its answers are signed, its journal is
hash-chained; keys and journal lie in the folder.")]
pub struct Serve {
    /// Where to listen: HOST:PORT; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// The folder of its keys and its journal.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Flags of `ledger fund`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, 100.00 of play money:
  steading ledger fund --to steading:… --amount 100000000 --dir ./ledger
  steading ledger fund --to steading:… --whole 100 --dir ./ledger")]
pub struct Fund {
    /// Who gets it: what `steading wallet address` prints.
    #[arg(long, value_name = "ADDRESS")]
    to: Account,
    /// How much, in smallest units: 1000000 is 1.00.
    #[arg(
        long,
        value_name = "UNITS",
        required_unless_present = "whole",
        conflicts_with = "whole"
    )]
    amount: Option<Amount>,
    /// How much, in whole money: 1.50.
    #[arg(long, value_name = "MONEY", value_parser = whole)]
    whole: Option<Amount>,
    /// The folder of the running ledger.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

fn whole(text: &str) -> Result<Amount, String> {
    Amount::from_decimal(text, LEDGER_DECIMALS).map_err(|error| error.to_string())
}

impl Verb {
    /// Does it.
    pub async fn run(self, settings: Settings, screen: Screen) -> Outcome {
        match self {
            Verb::Serve(flags) => run_ledger(flags, screen).await,
            Verb::Fund(flags) => fund(flags, settings, screen).await,
        }
    }
}

async fn run_ledger(flags: Serve, screen: Screen) -> Outcome {
    let config = Config {
        dir: flags.dir,
        listen: flags.listen,
        time: None,
        bounds: Bounds::default(),
    };
    let serving = serve(config).await.map_err(|error| {
        let code = match &error {
            ServeError::Busy(_) | ServeError::Io { .. } | ServeError::Address(_) => Code::Usage,
            ServeError::Key(_) | ServeError::Open(_) => Code::Unexpected,
        };
        Failure::new(code, "the ledger does not run").caused_by(&error)
    })?;
    let address = serving.address().to_string();
    let json = json!({"address": address, "listen": serving.address().authority()});
    screen.result(&json, &address)?;
    wait_for_the_end().await?;
    serving.shut_down().await;
    Ok(())
}

/// Until SIGTERM or Ctrl-C.
pub async fn wait_for_the_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be waited for")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn fund(flags: Fund, settings: Settings, screen: Screen) -> Outcome {
    let amount = flags.amount.or(flags.whole).unwrap_or(Amount::ZERO);
    if amount.is_zero() {
        return Err(Failure::new(Code::Usage, "an amount is more than zero"));
    }
    let operator = keys::read(&flags.dir, keys::OPERATOR_KEY).map_err(|error| {
        Failure::new(Code::NotFound, "the operator's key is not here")
            .caused_by(&error)
            .next("give the folder of the ledger that runs: --dir DIR")
    })?;
    let address = address_in(&flags.dir).or_else(|_| settings.rail())?;
    let free = rail(&address)?
        .fund(&operator, &flags.to, amount, random()?)
        .await
        .map_err(|error| Failure::of_rail("no play money was issued", &error))?;
    let text = format!(
        "{} issued; {} has {} free",
        money(amount),
        flags.to.short(),
        money(free)
    );
    screen.result(&json!({"to": flags.to, "amount": amount, "balance": free}), &text)
}

/// The address that a running ledger left in its folder.
fn address_in(dir: &std::path::Path) -> anyhow::Result<RailAddress> {
    let path = dir.join("address");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text.trim().parse()?)
}
