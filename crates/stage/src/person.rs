//! Someone who uses the client: a home folder of its own, and the commands that a person types.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Stage;

/// A user or a farmer.
#[derive(Debug, Clone)]
pub struct Person {
    client: PathBuf,
    home: PathBuf,
    ledger: String,
    ticket: String,
    address: String,
    ssh_config: PathBuf,
}

/// What the client answered.
#[derive(Debug)]
pub struct Answer {
    command: String,
    /// The exit code; 255 when a signal ended it.
    pub code: i32,
    /// Standard output, parsed: `Null` when it is no JSON.
    pub json: Value,
    /// Standard output as it is.
    pub out: String,
    /// Standard error: what a person sees beside `--json`.
    pub err: String,
}

impl Answer {
    /// The answer when the command succeeded, else an error with all that it said.
    pub fn expect_success(self, doing: &str) -> Result<Answer> {
        if self.code != 0 {
            bail!(
                "{doing}: `{}` exited {}\n{}{}",
                self.command,
                self.code,
                self.out,
                self.err
            );
        }
        Ok(self)
    }

    /// A text field of the JSON.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("`{}` gave no text at {pointer}: {}", self.command, self.out))
    }

    /// An amount in smallest units: a decimal string.
    pub fn amount(&self, pointer: &str) -> Result<u128> {
        self.text(pointer)?
            .parse()
            .with_context(|| format!("{pointer} is not an amount: {}", self.out))
    }
}

impl Person {
    pub(crate) fn without_wallet(stage: &Stage, name: &str) -> Person {
        Person {
            client: stage.artefacts.client.clone(),
            home: stage.dir.join("people").join(name),
            ledger: stage.ledger_address.clone(),
            ticket: stage.ticket.clone(),
            address: String::new(),
            ssh_config: PathBuf::new(),
        }
    }

    pub(crate) fn open(stage: &Stage, name: &str) -> Result<Person> {
        let mut person = Person::without_wallet(stage, name);
        let verb = if person.home.exists() { "show" } else { "new" };
        let answer = person
            .run(&["wallet", verb, "--json"])?
            .expect_success("opening a wallet")?;
        person.address = answer.text("/address")?.to_string();
        person.ssh_config = answer.text("/ssh_config")?.into();
        Ok(person)
    }

    /// The wallet's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The home folder of the client's state.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The ssh_config that the client keeps for plain `ssh`, `scp` and their like.
    pub fn ssh_config(&self) -> &Path {
        &self.ssh_config
    }

    /// Runs one command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        self.answer(arguments, Stdio::piped())
    }

    /// Runs one command whose standard error the person at the terminal sees as it comes.
    pub fn show(&self, arguments: &[&str]) -> Result<Answer> {
        self.answer(arguments, Stdio::inherit())
    }

    fn answer(&self, arguments: &[&str], err: Stdio) -> Result<Answer> {
        let output: Output = self
            .command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(err)
            .spawn()
            .and_then(Child::wait_with_output)
            .context("starting the client")?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Answer {
            command: format!("steading {}", arguments.join(" ")),
            code: output.status.code().unwrap_or(255),
            json: serde_json::from_str(&out).unwrap_or(Value::Null),
            out,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Hands the terminal over to one command, a shell in a space for example.
    pub fn hand_over(&self, arguments: &[&str]) -> Result<ExitStatus> {
        self.command(arguments).status().context("starting the client")
    }

    /// What is free in the wallet, in smallest units, as the ledger says.
    pub fn balance(&self) -> Result<u128> {
        self.run(&["wallet", "balance", "--json"])?
            .expect_success("asking for the balance")?
            .amount("/balance")
    }

    /// What of this wallet lies in escrow, in smallest units.
    pub fn in_escrow(&self) -> Result<u128> {
        self.run(&["wallet", "balance", "--json"])?
            .expect_success("asking for the balance")?
            .amount("/escrow")
    }

    /// The command a person would type, with this person's home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .args(arguments)
            .env("STEADING_HOME", &self.home)
            .env("STEADING_LEDGER", &self.ledger)
            .env("STEADING_GRID", &self.ticket);
        command
    }
}
