//! `steading spaces`: what you have, and how it stands.

use std::time::Duration;

use clap::Args;
use market::message::Gives;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::resize::size_words;
use crate::client::selling::resizing::gives_now;
use crate::client::selling::{Walk, ticket_of};
use crate::client::{Client, now_ms};
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::tables::{self, SpaceRow};
use crate::show::text::{count, moment};
use crate::store::SaleFiles;
use crate::store::record::{Record, Step};

/// How long the nodes may take, all at once, to say how their spaces stand.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long handing over what is due may take after that.
const PAY_WITHIN: Duration = Duration::from_secs(10);
/// How long after its offer ended an agreement that the node never signed is given up: nothing was ever locked for it.
const LAPSED_AFTER_MS: u64 = 600_000;

/// Flags of `spaces`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Show those that are over, too.
    #[arg(long)]
    all: bool,
    /// Show what was noted last, without asking the nodes.
    #[arg(long)]
    offline: bool,
}

/// One space, for table and JSON.
struct Space {
    files: SaleFiles,
    record: Record,
    offer: Option<market::envelope::Signed<market::message::Offer>>,
    /// Why the node could not be asked.
    silent: Option<String>,
    /// Why nothing more was signed, where something was due.
    unpaid: Option<String>,
}

/// Asks each node, and shows.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let sales = client.store.sales()?;
    let mut spaces = Vec::new();
    for (files, record) in sales {
        if record.is_over() && !arguments.all {
            continue;
        }
        let offer = files.message("offer")?;
        spaces.push(Space {
            files,
            record,
            offer,
            silent: None,
            unpaid: None,
        });
    }
    if !arguments.offline {
        spaces.iter_mut().for_each(give_up_lapsed);
        spaces = ask_all(&mut client, spaces).await?;
    }
    client.leave().await;
    let json: Vec<Value> = spaces.iter().map(space_json).collect();
    let damaged = client.store.damaged()?;
    let mut text = text(&spaces);
    for files in &damaged {
        text.push_str(&format!(
            "\nsale {}: {} is damaged; `steading wallet recall` brings it back from its node while money is in escrow",
            files.id.short(),
            files.path("record.json").display()
        ));
    }
    let damaged: Vec<_> = damaged.iter().map(|files| files.id).collect();
    screen.result(&json!({"spaces": json, "damaged": damaged}), &text)
}

/// An agreement that the node never signed is over once its offer has long ended: no money was locked for it.
fn give_up_lapsed(space: &mut Space) {
    let until = space.offer.as_ref().map(|offer| offer.message.valid_until.0);
    let is_past = until.is_some_and(|until| until.saturating_add(LAPSED_AFTER_MS) < now_ms());
    if space.record.step != Step::Agreeing || !is_past {
        return;
    }
    let Ok(Some(_held)) = space.files.try_lock() else {
        return;
    };
    if let Ok(Some(mut record)) = space.files.record()
        && record.step == Step::Agreeing
    {
        record.reach(Step::Ended, "lapsed", now_ms());
        if space.files.keep_record(&record).is_ok() {
            space.record = record;
        }
    }
}

/// Asks all nodes at once: a silent one makes nobody wait for another.
async fn ask_all(client: &mut Client, spaces: Vec<Space>) -> Outcome<Vec<Space>> {
    let is_asked = |space: &Space| space.record.step > Step::Agreeing && !space.record.is_over();
    let number = spaces.iter().filter(|space| is_asked(space)).count();
    let mut steps = Steps::new();
    if let Some(first) = spaces.iter().find(|space| is_asked(space)) {
        steps.begin("asking", format!("how {} stand", count(number, "space")));
        // One place on the grid for all; a space of another grid gets its own.
        let ticket = match client.settings.ticket() {
            Ok(ticket) => ticket,
            Err(_) => ticket_of(&first.record)?,
        };
        client.grid(&ticket).await?;
    }
    let mut asking = JoinSet::new();
    let mut asked = Vec::new();
    for (at, mut space) in spaces.into_iter().enumerate() {
        if !is_asked(&space) {
            asked.push((at, space));
            continue;
        }
        let mut beside = client.beside()?;
        asking.spawn(async move {
            ask(&mut beside, &mut space).await;
            beside.leave().await;
            (at, space)
        });
    }
    let mut done = 0;
    while let Some(joined) = asking.join_next().await {
        asked.push(joined.map_err(|error| anyhow::anyhow!("asking a node stopped: {error}"))?);
        done += 1;
        steps.doing(format!("{done} of {} answered for", count(number, "space")));
    }
    let silent = asked.iter().filter(|(_, space)| space.silent.is_some()).count();
    if silent > 0 {
        let words = format!("{done} spaces; the nodes of {silent} are silent");
        steps.done("asked", words);
    }
    asked.sort_by_key(|(at, _)| *at);
    Ok(asked.into_iter().map(|(_, space)| space).collect())
}

async fn ask(client: &mut Client, space: &mut Space) {
    // Beside another command that works on this sale, what was noted last is shown, and nothing is written.
    let Ok(Some(held)) = space.files.try_lock() else {
        return;
    };
    if let Ok(Some(record)) = space.files.record() {
        space.record = record;
    }
    let walk = Walk::resume(client, space.files.clone(), space.record.clone()).await;
    let mut walk = match walk {
        Ok(walk) => walk,
        Err(failure) => {
            space.silent = Some(failure.what);
            return;
        }
    };
    let status = timeout(ANSWER_WITHIN, walk.status(ANSWER_WITHIN)).await;
    let status = status.map_err(|_| format!("the node does not answer within {} s", ANSWER_WITHIN.as_secs()));
    match status.and_then(|status| status.map_err(|error| error.to_string())) {
        Ok(_) => {
            // A later verb begins with what is known now; what is due is paid on the way.
            if walk.is_due()
                && walk.record.step == Step::Active
                && let Err(failure) = pay(&mut walk).await
            {
                space.unpaid = Some(
                    std::iter::once(failure.what.as_str())
                        .chain(failure.why.iter().map(String::as_str))
                        .collect::<Vec<_>>()
                        .join(": "),
                );
            }
            if let Err(failure) = walk.keep() {
                tracing::warn!(%failure, "the record was not written");
            }
        }
        Err(why) => space.silent = Some(why),
    }
    space.record = walk.record;
    drop(held);
}

async fn pay(walk: &mut Walk<'_>) -> Outcome<u32> {
    let silent = || Failure::new(Code::StillGoing, "what is due was not handed over in time");
    timeout(PAY_WITHIN, walk.top_up())
        .await
        .unwrap_or_else(|_| Err(silent()))
}

fn state(space: &Space) -> String {
    let words = space.record.state_words();
    match (&space.silent, &space.record.heard) {
        (None, _) => words,
        (Some(_), _) => format!("{words} (node silent)"),
    }
}

/// What it gets now; none where its files do not say it.
fn gives(space: &Space) -> Option<Gives> {
    let offer = space.offer.as_ref()?;
    gives_now(&space.files, &space.record, &offer.message).ok()
}

fn space_json(space: &Space) -> Value {
    let (record, heard) = (&space.record, space.record.heard.as_ref());
    let gives = gives(space);
    json!({
        "name": record.name,
        "sale": space.files.id,
        "state": record.state_words(),
        "silent": space.silent,
        "unpaid": space.unpaid,
        "why": heard.and_then(|heard| heard.why.clone()),
        "proven": record.is_proven(),
        "paid_until": heard.and_then(|heard| heard.paid_until_ms),
        "paid": heard.map(|heard| heard.paid),
        "periods": record.periods,
        "periods_paid": heard.map(|heard| heard.periods_paid),
        "node": space.offer.as_ref().map(|offer| market::id::NodeId(offer.signer)),
        "cpu_milli": gives.map(|gives| gives.cpu.0),
        "memory_bytes": gives.map(|gives| gives.memory.0),
        "disk_bytes": gives.map(|gives| gives.disk.0),
        "snapshot_bytes": gives.map(|gives| gives.snapshot.0),
        "snapshot_at": heard.and_then(|heard| heard.snapshot_ms),
        "folder": space.files.folder,
    })
}

fn text(spaces: &[Space]) -> String {
    if spaces.is_empty() {
        return "you have no spaces; `steading request` asks for offers".to_owned();
    }
    let rows: Vec<SpaceRow> = spaces
        .iter()
        .map(|space| {
            let until = space.record.heard.as_ref().and_then(|heard| heard.paid_until_ms);
            let gives = gives(space);
            SpaceRow {
                name: space.record.name.clone(),
                state: state(space),
                paid_until: until.map_or("–".to_owned(), moment),
                size: gives.map_or("–".to_owned(), |gives| size_words(&gives)),
                node: space
                    .offer
                    .as_ref()
                    .map_or_else(String::new, |offer| market::id::NodeId(offer.signer).to_string()),
            }
        })
        .collect();
    let mut text = tables::spaces(&rows);
    for space in spaces {
        let why = space.record.heard.as_ref().and_then(|heard| heard.why.as_ref());
        if let Some(why) = why {
            text.push_str(&format!(" {}: {why}\n", space.record.name));
        }
        if let Some(taken) = space.record.heard.as_ref().and_then(|heard| heard.snapshot_ms) {
            text.push_str(&format!(
                " {}: snapshot of {}\n",
                space.record.name,
                moment(taken)
            ));
        }
        if let Some(unpaid) = &space.unpaid {
            text.push_str(&format!(" {}: {unpaid}\n", space.record.name));
        }
        if let Some(silent) = &space.silent {
            text.push_str(&format!(
                " {}: {silent}; shown is what it said last\n",
                space.record.name
            ));
        }
        if let Some(hint) = hint(&space.record) {
            text.push_str(&format!(" {}: {hint}\n", space.record.name));
        }
    }
    text
}

fn hint(record: &Record) -> Option<String> {
    let name = &record.name;
    let heard = record.heard.as_ref().map(|heard| heard.state.as_str());
    match (record.step, heard) {
        (Step::Ended, None) if record.times.contains_key("lapsed") => {
            Some("the node never signed, and its offer ended; no money moved".to_owned())
        }
        (Step::Ended, _) => None,
        (Step::Agreeing, _) => Some(format!(
            "nothing is locked for it; `steading unlock {name}` asks the node to sign, `steading cancel {name}` forgets it"
        )),
        (Step::Ending, _) => Some(format!("`steading cancel {name}` settles the money")),
        (_, Some("locked")) => Some(format!(
            "the node was off, or its snapshot was put back; `steading unlock {name}` hands the key over again"
        )),
        (_, Some("ended" | "refunded" | "lapsed" | "quarantined")) => {
            Some(format!("`steading cancel {name}` settles the money"))
        }
        (Step::Active, _) => None,
        (Step::Agreed | Step::Funded | Step::Keyed | Step::Ready | Step::Proven, _) => Some(format!(
            "`steading unlock {name}` goes on from here, `steading cancel {name}` undoes it"
        )),
    }
}
