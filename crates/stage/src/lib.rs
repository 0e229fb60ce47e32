//! A whole little market on one machine, every part real: the escrow ledger, the grid's
//! bootstrap and relay, nodes in QEMU, and people with the client.
//!
//! ```text
//!        this machine (loopback only)                    QEMU's user network, one a node
//!   ledger serve ◄──────────────────────── 10.0.2.2 ──── node a ── disks, farmer.toml, base
//!   grid serve   ◄──────────────────────── 10.0.2.2 ──── node b
//!   person "user", person "farmer": steading …
//! ```
//!
//! The demo, `./x qemu` and the scenarios all stand on this one stage, so what is shown is
//! what is tested. It runs the programs that people run and reads what they print; it reaches
//! into nothing. Everything it keeps is under one folder; everything it started ends with it.

mod node;
mod person;
mod service;

pub use node::{BOOT_WITHIN, Node, NodeSettings, emulated_command_line, farmer_toml, wait_until_selling};
pub use person::{Answer, Person};
pub use service::Service;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What was built and is run here.
#[derive(Debug, Clone)]
pub struct Artefacts {
    /// The kernel for QEMU's direct boot.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The base file system.
    pub base: PathBuf,
    /// The client, `steading`.
    pub client: PathBuf,
}

/// The ledger and the grid that all meet through.
pub struct Stage {
    artefacts: Artefacts,
    dir: PathBuf,
    ledger: Option<Service>,
    grid: Option<Service>,
    ledger_address: String,
    ticket: String,
}

/// The host as a guest behind QEMU's user network sees it.
const HOST_FROM_GUEST: &str = "10.0.2.2";

impl Stage {
    /// Starts ledger and grid, keeping all state under `dir` (made if missing).
    pub fn open(dir: &Path, artefacts: Artefacts, grid_name: &str) -> Result<Stage> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut stage = Stage {
            artefacts,
            dir: dir.to_path_buf(),
            ledger: None,
            grid: None,
            ledger_address: String::new(),
            ticket: String::new(),
        };
        stage.start_ledger()?;
        let grid_dir = stage.dir.join("grid");
        let listen = kept_address(&stage.dir.join("grid.listen"))?;
        let grid = Service::start(
            "grid serve",
            &stage.artefacts.client,
            &[
                "grid",
                "serve",
                "--name",
                grid_name,
                "--listen",
                &listen,
                "--dir",
                &grid_dir.display().to_string(),
            ],
            &stage.dir.join("grid.log"),
        )?;
        stage.ticket = grid.first_line().to_string();
        stage.grid = Some(grid);
        Ok(stage)
    }

    /// Starts the ledger, or starts it again on the same port and data.
    pub fn start_ledger(&mut self) -> Result<()> {
        self.ledger = None;
        let dir = self.dir.join("ledger").display().to_string();
        let listen = kept_address(&self.dir.join("ledger.listen"))?;
        let ledger = Service::start(
            "ledger serve",
            &self.artefacts.client,
            &["ledger", "serve", "--listen", &listen, "--dir", &dir],
            &self.dir.join("ledger.log"),
        )?;
        self.ledger_address = ledger.first_line().to_string();
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Ends the ledger: what a farmer's line or an operator's mistake does.
    pub fn stop_ledger(&mut self) {
        self.ledger = None;
    }

    /// Ends the grid's bootstrap and relay.
    pub fn stop_grid(&mut self) {
        self.grid = None;
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was built.
    pub fn artefacts(&self) -> &Artefacts {
        &self.artefacts
    }

    /// The ledger's address as this machine reaches it.
    pub fn ledger_address(&self) -> &str {
        &self.ledger_address
    }

    /// The grid's ticket as this machine reaches it.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Ledger address and grid ticket as a node behind QEMU's user network reaches them.
    pub fn seen_from_guest(&self) -> (String, String) {
        let host = Ipv4Addr::LOCALHOST.to_string();
        (
            self.ledger_address.replace(&host, HOST_FROM_GUEST),
            self.ticket.replace(&host, HOST_FROM_GUEST),
        )
    }

    /// Someone with the client; a new wallet where the name is new.
    pub fn person(&self, name: &str) -> Result<Person> {
        Person::open(self, name)
    }

    /// Gives play money, in smallest units. Only the ledger's operator can.
    pub fn fund(&self, account: &str, amount: u64) -> Result<()> {
        let operator = Person::without_wallet(self, "operator");
        let dir = self.dir.join("ledger").display().to_string();
        let answer = operator.run(&[
            "ledger",
            "fund",
            "--dir",
            &dir,
            "--to",
            account,
            "--amount",
            &amount.to_string(),
        ])?;
        answer.expect_success("giving play money").map(|_| ())
    }
}

/// An address on loopback that stays the same when the service is started again: nodes and
/// wallets have it written down.
fn kept_address(file: &Path) -> Result<String> {
    if let Ok(kept) = std::fs::read_to_string(file) {
        return Ok(kept);
    }
    let free = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .and_then(|listener| listener.local_addr())
        .context("finding a free port on 127.0.0.1")?
        .to_string();
    std::fs::write(file, &free).with_context(|| format!("writing {}", file.display()))?;
    Ok(free)
}
