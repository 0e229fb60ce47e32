//! `steading`: buys spaces, logs in to them, and runs a ledger or a grid.
//!
//! ```text
//! verb/*  one file a verb: flags in, one outcome out
//!    │
//! client  the one place that speaks to grid and rail      proof, ssh  the space from inside
//!    │                                                     carry       its files, out and in
//! store   seed, sales, signed messages                    show        what a person reads
//! ```

mod carry;
mod client;
mod exit;
mod files;
mod flash;
#[cfg(fuzzing)]
pub mod fuzzing;
mod key_file;
mod keys;
mod proof;
mod settings;
mod show;
mod ssh;
mod store;
mod verb;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use exit::{Code, Failure};
use settings::Settings;
use show::Screen;
use verb::Verb;

/// Buys computing capacity from strangers' machines: ask, choose, pay for what is proven, log in.
#[derive(Debug, Parser)]
#[command(name = "steading", version, term_width = 80, after_help = EXAMPLES)]
struct Arguments {
    /// Print the result as JSON on standard output, and nothing else there.
    #[arg(long, global = true, help_heading = COMMON, display_order = 900)]
    json: bool,

    /// The grid's ticket: the line that `steading grid serve` prints. Else STEADING_GRID, else
    /// config.toml.
    #[arg(long, global = true, value_name = "TICKET", help_heading = COMMON, display_order = 901)]
    grid: Option<String>,

    /// The ledger's address: the line that `steading ledger serve` prints. Else STEADING_LEDGER,
    /// else config.toml.
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = COMMON, display_order = 902)]
    ledger: Option<String>,

    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb takes stand apart from its own.
const COMMON: &str = "With every command";

const EXAMPLES: &str = "\
Examples:
  steading wallet new                       make a wallet and show its address
  steading request --memory 1GiB            ask all nodes, see their offers
  steading buy 1                            take the first offer
  steading buy --cpu 2 --duration 1d        ask, and take the best offer at once
  steading ssh calm-otter                   log in
  steading ssh calm-otter -- df -h /        run one command
  steading cancel calm-otter                end it; what was not used comes back

Exit codes: 0 done, 2 usage, 12 failed proof; docs/exit-codes.md has the table.";

/// Reads the command line; what cannot be read is told as every other failure is.
fn arguments() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // --help and --version: what was asked for.
            let printed = error.print();
            return ExitCode::from(u8::from(printed.is_err()));
        }
        let words = std::env::args_os().skip(1).take_while(|word| word != "--");
        let json = words.into_iter().any(|word| word == "--json");
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !json {
            // A verb is missing: all of them say best what could be meant.
            let _ = error.print();
            return ExitCode::from(Code::Usage.number());
        }
        let failure = exit::usage(&error.render().to_string());
        Screen { json }.failure(&failure);
        ExitCode::from(failure.code.number())
    })
}

/// The whole program: what `main` is.
#[must_use]
pub fn main() -> ExitCode {
    let log = std::env::var("STEADING_LOG").unwrap_or_else(|_| "off".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(log))
        .with_writer(std::io::stderr)
        .init();
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let screen = Screen { json: arguments.json };
    match run(arguments, screen) {
        Ok(code) => code,
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.code.number())
        }
    }
}

fn run(arguments: Arguments, screen: Screen) -> Result<ExitCode, Failure> {
    let settings = Settings::read(arguments.grid, arguments.ledger)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Unexpected, "no runtime").because(error))?;
    let outcome = runtime.block_on(arguments.verb.run(settings, screen));
    // What still runs in the background holds nothing that matters.
    runtime.shutdown_background();
    outcome
}
