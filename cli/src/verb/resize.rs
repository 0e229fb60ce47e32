//! `steading resize`: more or less CPU and memory, more disk, while the space runs.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use market::message::{Gives, Quote};
use market::prices::Prices;
use market::quantity::{Bytes, MilliCpus, Seconds};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{find_active, or_interrupted};
use crate::client::Client;
use crate::client::selling::Walk;
use crate::client::selling::resizing::Size;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::money;
use crate::store::SaleFiles;
use crate::store::record::Record;

/// Flags of `resize`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading resize calm-otter --disk 20GiB           shows the price and asks
  steading resize calm-otter --memory 2GiB --yes
What costs more begins the next period at once and pays it; what costs less counts from the next period on. A disk only
grows; files and logins stay.
Without a size it goes on with a resize that was interrupted.")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// CPU time from now on: 0.5, 2, 1500m.
    #[arg(long, value_name = "CPUS", allow_hyphen_values = true)]
    cpu: Option<MilliCpus>,
    /// Memory from now on.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<Bytes>,
    /// Disk from now on; never less than it has.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    disk: Option<Bytes>,
    /// Yes to the price, unasked.
    #[arg(long)]
    yes: bool,
    /// How long the new size may take.
    #[arg(long, value_name = "TIME", default_value = "2min")]
    timeout: Seconds,
}

/// Resizes.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let store = client.store.clone();
    let next = "only a space that is active can be resized";
    let (files, record) = find_active(&client.store, &arguments.name, next)?;
    let resized = or_interrupted(&store, resize(&mut client, &arguments, files, record)).await;
    client.leave().await;
    let (json, text) = resized?;
    screen.result(&json, &text)
}

async fn resize(
    client: &mut Client,
    arguments: &Arguments,
    files: SaleFiles,
    record: Record,
) -> Outcome<(Value, String)> {
    let held = files.lock()?;
    let record = files.record()?.unwrap_or(record);
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout.0);
    let mut walk = Walk::resume(client, files, record).await?;
    let mut steps = Steps::new();
    let size = Size {
        cpu: arguments.cpu,
        memory: arguments.memory,
        disk: arguments.disk,
        snapshot: None,
    };
    let has = walk.gives().disk;
    if let Some(disk) = size.disk.filter(|disk| *disk < has) {
        return Err(Failure::new(
            Code::Usage,
            format!("--disk {disk} is less than it has; nothing was sent"),
        )
        .because(format!("a disk never shrinks; {} has {has}", walk.record.name))
        .next("write a larger --disk, or leave it away"));
    }
    let quote = walk.quote(size, &mut steps).await?;
    agree_to_price(&mut walk, &quote, arguments.yes, "resize?", &mut steps).await?;
    walk.resize(&quote, deadline, &mut steps).await?;
    drop((steps, held));
    let gives = walk.gives();
    let json = json!({
        "name": walk.record.name,
        "cpu_milli": gives.cpu.0,
        "memory_bytes": gives.memory.0,
        "disk_bytes": gives.disk.0,
        "price_of_period": walk.prices().price,
        "periods": walk.record.periods,
        "total": walk.total(),
        "amended": walk.files.path(&format!("amended-{}", walk.record.amendments)),
        "inside": walk.record.inside,
    });
    let text = format!(
        "{} has {} from now on, {} a period",
        walk.record.name,
        size_words(gives),
        money(walk.prices().price)
    );
    Ok((json, text))
}

/// A size, as people read it.
pub(super) fn size_words(gives: &Gives) -> String {
    let (cpu, memory, disk) = (gives.cpu.human(), gives.memory.human(), gives.disk.human());
    let snapshot = if gives.snapshot > Bytes::ZERO {
        " + snapshot"
    } else {
        ""
    };
    format!("{cpu} · {memory} · {disk}{snapshot}")
}

/// Shows the price of another size and asks; nothing where the space has that size by now.
pub(super) async fn agree_to_price(
    walk: &mut Walk<'_>,
    quote: &Quote,
    yes: bool,
    question: &str,
    steps: &mut Steps,
) -> Outcome {
    if quote.gives == *walk.gives() {
        return Ok(());
    }
    let prices = walk.prices_with(quote).await?;
    let (funded, total) = walk.needs(&prices).await?;
    let words = price_words(walk, quote, &prices, money(total.saturating_sub(funded)));
    steps.quiet();
    agree(yes, &words, question)
}

/// What changes, from when on, and what it takes.
fn price_words(walk: &Walk<'_>, quote: &Quote, prices: &Prices, more: String) -> String {
    let (gives, now) = (quote.gives, walk.gives());
    let from = (quote.begun + 1..).find(|period| prices.at(*period) == quote.price);
    let begins = if walk.costs_more(quote) {
        ", which begins now and is paid with it"
    } else {
        ""
    };
    format!(
        "{}: {}, until now {}\n{} a period from period {} on{begins}, until now {}; {more} more goes into escrow",
        walk.record.name,
        size_words(&gives),
        size_words(now),
        money(quote.price),
        from.unwrap_or(quote.begun + 1),
        money(walk.prices().price),
    )
}

/// Whether the person says yes: by `--yes`, or typed in a terminal.
pub(super) fn agree(yes: bool, words: &str, question: &str) -> Outcome {
    eprintln!("{words}");
    if yes {
        return Ok(());
    }
    let unsigned = |why: &str| {
        Failure::new(Code::Usage, "nothing was signed")
            .because(why)
            .next("add --yes to agree")
    };
    if !std::io::stdin().is_terminal() {
        return Err(unsigned("nobody is there to say yes"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(Code::Unexpected, "the answer cannot be read").because(error))?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(unsigned("the answer was no"))
}
