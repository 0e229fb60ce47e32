//! `steading grid`: run the bootstrap and relay that all meet through.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use ed25519_dalek::SigningKey;
use grid::serve::{Serve as Running, ServeConfig, ServeError};
use ledger::keys;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ledger::wait_for_the_end;
use crate::exit::{Code, Failure, Outcome};
use crate::files::{read_if_there, write_whole};
use crate::show::Screen;

/// Names the grid: its id is the public half.
const FOUNDER_KEY: &str = "founder.key";
/// The bootstrap peer's own.
const PEER_KEY: &str = "peer.key";

/// What to do with a grid.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run bootstrap and relay; prints the grid's ticket on one line, then serves until it is
    /// stopped.
    Serve(Serve),
}

/// Flags of `grid serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steading grid serve --name home --listen 127.0.0.1:7080 --dir ./grid
  steading grid serve --name coop --listen 0.0.0.0:7080 --host grid.example.org --dir ./grid
Started again with the same folder, the ticket stays the same.")]
pub struct Serve {
    /// What people call the grid.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the relay listens: HOST:PORT; port 0 takes a free one. Two UDP ports beside it are
    /// chosen at the first start and kept.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
    /// The host that the ticket names, where it listens on all addresses.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The folder of its keys.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Verb {
    /// Does it.
    pub async fn run(self, screen: Screen) -> Outcome {
        match self {
            Verb::Serve(flags) => serve(flags, screen).await,
        }
    }
}

/// Ports that stay the same over restarts, so that the ticket does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ports {
    relay: u16,
    peer: u16,
    discovery: u16,
}

async fn serve(flags: Serve, screen: Screen) -> Outcome {
    let of_key = |error: keys::KeyError| {
        Failure::new(Code::Unexpected, "the grid's keys cannot be used").caused_by(&error)
    };
    keys::ensure_folder(&flags.dir).map_err(of_key)?;
    let founder: SigningKey = keys::read_or_create(&flags.dir, FOUNDER_KEY).map_err(of_key)?;
    let peer = keys::read_or_create(&flags.dir, PEER_KEY).map_err(of_key)?;
    let kept = ports(&flags.dir)?;
    let mut config = ServeConfig::new(&flags.name, founder.verifying_key().to_bytes(), peer.to_bytes());
    config.bind = flags.listen.ip();
    config.host.clone_from(&flags.host);
    config.relay_port = if flags.listen.port() == 0 {
        kept.relay
    } else {
        flags.listen.port()
    };
    config.peer_port = kept.peer;
    config.discovery_port = Some(kept.discovery);
    let running = Running::start(config).await.map_err(|error| {
        let code = match &error {
            ServeError::Ticket(_) | ServeError::NoHost(_) | ServeError::Relay { .. } => Code::Usage,
            ServeError::Certificate(_) | ServeError::Peer(_) => Code::Unexpected,
        };
        Failure::new(code, "the grid does not run").caused_by(&error)
    })?;
    let ticket = running.ticket().clone();
    let used = Ports {
        relay: ticket.relay_port(),
        peer: port_in(&ticket.to_string(), "udp"),
        discovery: port_in(&ticket.to_string(), "qad"),
    };
    let text = serde_json::to_vec(&used).map_err(anyhow::Error::from)?;
    write_whole(&flags.dir.join("ports.json"), &text)?;
    let json = json!({
        "ticket": ticket.to_string(),
        "name": ticket.name(),
        "grid": ledger::hex::encode(&ticket.grid_id()),
    });
    screen.result(&json, &ticket.to_string())?;
    wait_for_the_end().await?;
    running.shutdown().await;
    Ok(())
}

/// A port that the ticket's text names; 0 where it names none.
fn port_in(ticket: &str, name: &str) -> u16 {
    let query = ticket.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

fn ports(dir: &Path) -> Outcome<Ports> {
    let path = dir.join("ports.json");
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(Ports::default());
    };
    Ok(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?)
}
