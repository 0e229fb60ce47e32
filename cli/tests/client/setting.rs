//! A whole market on loopback with a stand-in for the node: the real ledger, grid and client.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::person::write_ssh;
use crate::stand_in::{BASE, Node};

pub const MONEY: u128 = 10_000_000;

/// Ledger, grid, a node, a user with money.
pub struct Market {
    pub node: Option<Node>,
    _ledger: Service,
    _grid: Service,
    pub farmer: PathBuf,
    farmer_account: String,
    pub user: PathBuf,
    ledger_line: String,
    grid_line: String,
    pub dir: tempfile::TempDir,
}

struct Service(Child, String);

impl Service {
    fn start(arguments: &[&str]) -> Service {
        let mut child = Command::new(env!("CARGO_BIN_EXE_steading"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Service(child, line.trim().to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an honest space of the usual request says of itself.
pub fn facts() -> String {
    crate::person::facts(512, &BASE.to_string())
}

impl Market {
    pub async fn open() -> Market {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name).display().to_string();
        let ledger = Service::start(&[
            "ledger",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--dir",
            &folder("ledger"),
        ]);
        let grid = Service::start(&[
            "grid",
            "serve",
            "--name",
            "test",
            "--listen",
            "127.0.0.1:0",
            "--dir",
            &folder("grid"),
        ]);
        let mut market = Market {
            node: None,
            ledger_line: ledger.1.clone(),
            grid_line: grid.1.clone(),
            _ledger: ledger,
            _grid: grid,
            farmer: dir.path().join("farmer"),
            farmer_account: String::new(),
            user: dir.path().join("user"),
            dir,
        };
        write_ssh(market.dir.path(), &facts());
        let farmer = market.json_of(&market.farmer, &["wallet", "new"]);
        let user = market.json_of(&market.user, &["wallet", "new"]);
        let ledger_dir = market.dir.path().join("ledger").display().to_string();
        let (to, amount) = (user["address"].as_str().unwrap(), MONEY.to_string());
        market.json(&[
            "ledger",
            "fund",
            "--to",
            to,
            "--amount",
            &amount,
            "--dir",
            &ledger_dir,
        ]);
        market.farmer_account = farmer["address"].as_str().unwrap().to_owned();
        market.node = Some(market.another_node().await);
        market
    }

    /// One more of the farmer's.
    pub async fn another_node(&self) -> Node {
        Node::start(&self.grid_line, &self.ledger_line, &self.farmer_account).await
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub fn run_as(&self, home: &Path, arguments: &[&str]) -> Output {
        self.command_as(home, arguments).output().unwrap()
    }

    /// The command, not yet started.
    pub fn command_as(&self, home: &Path, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_steading"));
        command
            .args(arguments)
            .env(
                "PATH",
                format!("{}:{path}", self.dir.path().join("bin").display()),
            )
            .env("STEADING_HOME", home)
            .env("STEADING_LEDGER", &self.ledger_line)
            .env("STEADING_GRID", &self.grid_line)
            .stdin(Stdio::null());
        command
    }

    pub fn json_of(&self, home: &Path, arguments: &[&str]) -> Value {
        let output = self.run_as(home, &[arguments, &["--json"]].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        self.json_of(&self.user, arguments)
    }

    pub fn code(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run_as(&self.user, arguments);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Free money of user and farmer, and what lies in escrow.
    pub fn balances(&self) -> (u128, u128, u128) {
        let amount = |home: &Path, name: &str| {
            let json = self.json_of(home, &["wallet", "balance"]);
            json[name].as_str().unwrap().parse::<u128>().unwrap()
        };
        (
            amount(&self.user, "balance"),
            amount(&self.farmer, "balance"),
            amount(&self.user, "escrow"),
        )
    }

    /// Changes the record of the only sale of a home; as it was before.
    pub fn record_of(&self, home: &Path, change: impl FnOnce(&mut Value)) -> Value {
        let sale = std::fs::read_dir(home.join("data/sales")).unwrap().next();
        let path = sale.unwrap().unwrap().path().join("record.json");
        let before: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut record = before.clone();
        change(&mut record);
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        before
    }

    pub fn state(&self) -> String {
        let spaces = self.json(&["spaces"]);
        spaces["spaces"][0]["state"].as_str().unwrap().to_owned()
    }
}
