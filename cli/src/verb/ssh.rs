//! `steading ssh`: log in, or run a command; ends with OpenSSH's own exit code.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use market::message::Sale;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::selling::Walk;
use crate::client::selling::paying::is_due;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::steps::Steps;
use crate::ssh;
use crate::store::SaleFiles;
use crate::store::record::{Record, Step};

/// How long a space that is not proven yet may take to become so.
const FINISH_WITHIN: Duration = Duration::from_secs(300);
/// How long handing over vouchers may hold up a login.
const PAY_WITHIN: Duration = Duration::from_secs(20);

/// Flags of `ssh`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading ssh calm-otter
  steading ssh calm-otter -- df -h /
For plain ssh, scp, rsync and VS Code: `steading wallet show` names the file to Include.")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// A command to run there; the exit code is its own.
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
}

/// Proves the space if nobody has, then becomes ssh.
pub async fn run(arguments: Arguments, settings: Settings) -> Result<ExitCode, Failure> {
    let mut client = Client::open(settings)?;
    let (files, record) = client.store.find(&arguments.name)?;
    let finished = finish_first(&mut client, files, record).await;
    client.leave().await;
    let name = finished?;
    let mut command = ssh::command(client.store.folders());
    command.arg(&name);
    if !arguments.command.is_empty() {
        command.arg("--").args(&arguments.command);
    }
    // exec returns only where it failed.
    let error = command.exec();
    Err(Failure::new(Code::Unexpected, "OpenSSH was not run")
        .because(error)
        .next("install it (Debian: apt install openssh-client)"))
}

/// Goes on with a purchase that stopped halfway; pays what is due. Returns the space's name.
pub async fn finish_first(client: &mut Client, files: SaleFiles, record: Record) -> Outcome<String> {
    let name = record.name.clone();
    match record.step {
        Step::Ended | Step::Ending => {
            return Err(Failure::new(Code::NotFound, format!("{name} is over"))
                .next("`steading spaces` shows what you have"));
        }
        Step::Active => {
            ssh::write_files(&client.store, &client.seed)?;
            pay_what_is_due(client, files, record).await;
        }
        Step::Agreeing | Step::Agreed | Step::Funded | Step::Keyed | Step::Ready | Step::Proven => {
            let held = files.lock()?;
            // Another command may have gone on meanwhile.
            let record = files.record()?.unwrap_or(record);
            let mut steps = Steps::new();
            Walk::resume(client, files, record)
                .await?
                .finish(Instant::now() + FINISH_WITHIN, &mut steps)
                .await?;
            drop(held);
        }
    }
    Ok(name)
}

/// Hands over vouchers that are due, if any are and no other command is at it. A login does not
/// fail because of it: the node gives notice before it ends a space.
pub async fn pay_what_is_due(client: &mut Client, files: SaleFiles, record: Record) {
    let due = async {
        let sale = files.need::<Sale>("sale")?;
        if !record.from_backup && !is_due(&record, sale.message.body().period) {
            return Ok(());
        }
        let Some(held) = files.try_lock()? else {
            return Ok(());
        };
        let record = files.record()?.unwrap_or(record);
        Walk::resume(client, files, record).await?.top_up().await?;
        drop(held);
        Ok::<(), Failure>(())
    };
    let paid = tokio::time::timeout(PAY_WITHIN, due).await;
    match paid {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => eprintln!("vouchers that are due were not handed over: {failure}"),
        Err(_) => eprintln!("vouchers that are due were not handed over: the node or the ledger is silent"),
    }
}
