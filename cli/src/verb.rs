//! The verbs, one file each. A verb reads flags, calls the client, and shows what came of it; none
//! speaks to the network or the rail by itself.

mod buy;
mod cancel;
mod connect;
mod export;
mod extend;
mod flash;
mod grid;
mod import;
mod ledger;
mod node;
mod nodes;
mod offers;
mod request;
mod resize;
mod restore;
mod snapshot;
mod spaces;
mod ssh;
mod unlock;
mod verify;
mod wallet;

#[cfg(fuzzing)]
pub use wallet::is_backup;

use std::process::ExitCode;

use clap::Subcommand;

use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::store::record::{Record, Step};
use crate::store::{SaleFiles, Store};

/// The space of this name, if it was active; `next` says what only such a space can have done.
fn find_active(store: &Store, name: &str, next: &str) -> Outcome<(SaleFiles, Record)> {
    let (files, record) = store.find(name)?;
    if record.step == Step::Active {
        return Ok((files, record));
    }
    let words = format!("{} is {}", record.name, record.step.words());
    Err(Failure::new(Code::Usage, words).next(next))
}

/// Does it, unless Ctrl-C is pressed first: then says what is open. Every step was written down when it was done, and
/// can be done again.
async fn or_interrupted<T>(store: &Store, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        done = work => done,
        pressed = tokio::signal::ctrl_c() => {
            pressed.map_err(|error| Failure::new(Code::Unexpected, "Ctrl-C cannot be heard").because(error))?;
            let open = store.sales()?.into_iter().rfind(|(_, record)| !record.is_over());
            let stopped = Failure::new(Code::Interrupted, "stopped");
            Err(match open {
                None => stopped
                    .because("Ctrl-C was pressed before anything was signed")
                    .next("nothing is open"),
                Some((_, record)) => {
                    let (name, words) = (&record.name, record.step.words());
                    stopped
                        .because(format!("Ctrl-C was pressed; {name} is open: {words}"))
                        .next(format!(
                            "`steading unlock {name}` goes on, `steading cancel {name}` undoes it; no money is lost"
                        ))
                }
            })
        }
    }
}

/// What is there of an export or an import that Ctrl-C stopped.
const PARTS_KEPT: &str = "Ctrl-C was pressed; every part that is whole is kept";

/// Does it, unless Ctrl-C is pressed first: what there is of it then is kept.
async fn or_stopped<T>(work: impl Future<Output = Outcome<T>>, because: &str) -> Outcome<T> {
    tokio::select! {
        done = work => done,
        pressed = tokio::signal::ctrl_c() => {
            pressed.map_err(|error| Failure::new(Code::Unexpected, "Ctrl-C cannot be heard").because(error))?;
            Err(Failure::new(Code::Interrupted, "stopped")
                .because(because)
                .next("the same command goes on where this one stopped"))
        }
    }
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Your keys and your money: new, show, address, balance, backup, restore.
    #[command(subcommand)]
    Wallet(wallet::Verb),
    /// Ask all nodes for capacity and show their offers.
    Request(request::Arguments),
    /// Show the last offers again.
    Offers,
    /// Take an offer: sign, lock the money, wait for the space, prove it, pay the first period.
    Buy(buy::Arguments),
    /// Your spaces and how they stand.
    Spaces(spaces::Arguments),
    /// Log in to a space, or run a command there.
    Ssh(ssh::Arguments),
    /// Carry bytes to a space's SSH server: what OpenSSH starts as ProxyCommand.
    Connect(connect::Arguments),
    /// Hand the unlock key over again (after a node's power cut), or go on with a purchase.
    Unlock(unlock::Arguments),
    /// Add time to a space.
    Extend(extend::Arguments),
    /// Change the size of a running space: CPU and memory at once, disk without unmounting.
    Resize(resize::Arguments),
    /// Take what a space holds, encrypted, into a folder here; check one; print its key.
    Export(export::Arguments),
    /// Put an export into a space, on whichever node, and compare it there.
    Import(import::Arguments),
    /// Keep a space's files as they are now; with --delete, no longer.
    Snapshot(snapshot::Arguments),
    /// Make a space what its snapshot is.
    Restore(restore::Arguments),
    /// End a space: what was not used comes back, the node signs a receipt.
    Cancel(cancel::Arguments),
    /// Who is there: all nodes, what they offer or why not.
    Nodes(nodes::Arguments),
    /// Check a signed message and say who signed what.
    Verify(verify::Arguments),
    /// Put an image onto a stick for a node, with your settings; or list sticks, or change one.
    Flash(Box<flash::Arguments>),
    /// Run the escrow ledger, or issue play money as its operator.
    #[command(subcommand)]
    Ledger(ledger::Verb),
    /// Your own nodes, from afar: their spaces, their disks, how they booted.
    #[command(subcommand)]
    Node(node::Verb),
    /// Run the bootstrap and relay that all meet through.
    #[command(subcommand)]
    Grid(grid::Verb),
}

impl Verb {
    /// Does it.
    pub async fn run(self, settings: Settings, screen: Screen) -> Result<ExitCode, Failure> {
        match self {
            Verb::Wallet(verb) => verb.run(settings, screen).await?,
            Verb::Request(arguments) => request::run(arguments, settings, screen).await?,
            Verb::Offers => offers::run(settings, screen)?,
            Verb::Buy(arguments) => buy::run(arguments, settings, screen).await?,
            Verb::Spaces(arguments) => spaces::run(arguments, settings, screen).await?,
            Verb::Ssh(_) | Verb::Connect(_) if screen.json => return Err(no_json()),
            Verb::Ssh(arguments) => return ssh::run(arguments, settings).await,
            Verb::Connect(arguments) => connect::run(arguments, settings).await?,
            Verb::Unlock(arguments) => unlock::run(arguments, settings, screen).await?,
            Verb::Extend(arguments) => extend::run(arguments, settings, screen).await?,
            Verb::Resize(arguments) => resize::run(arguments, settings, screen).await?,
            Verb::Export(arguments) => export::run(arguments, settings, screen).await?,
            Verb::Import(arguments) => import::run(arguments, settings, screen).await?,
            Verb::Snapshot(arguments) => snapshot::run(arguments, settings, screen).await?,
            Verb::Restore(arguments) => restore::run(arguments, settings, screen).await?,
            Verb::Cancel(arguments) => return cancel::run(arguments, settings, screen).await,
            Verb::Nodes(arguments) => nodes::run(arguments, settings, screen).await?,
            Verb::Verify(arguments) => verify::run(arguments, screen)?,
            Verb::Flash(arguments) => flash::run(*arguments, settings, screen).await?,
            Verb::Ledger(verb) => verb.run(settings, screen).await?,
            Verb::Grid(verb) => verb.run(screen).await?,
            Verb::Node(verb) => verb.run(settings, screen).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Standard output belongs to what runs in the space.
fn no_json() -> Failure {
    Failure::new(
        Code::Usage,
        "`ssh` and `connect` have no --json; nothing was sent",
    )
    .because("standard output carries what the space says")
    .next("leave --json away; `steading spaces --json` says how a space stands")
}
