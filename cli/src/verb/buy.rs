//! `steading buy`: from an offer to a space that is proven and paid for.

use std::time::Duration;

use clap::Args;
use market::envelope::Signed;
use market::message::{CapacityRequest, Filters, Offer, RefusalCode};
use market::quantity::Seconds;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::or_interrupted;
use super::request::{WantedFlags, no_offers, offer_json};
use crate::client::asking::{Patience, Wanted};
use crate::client::selling::Walk;
use crate::client::selling::paying::MOST_AHEAD;
use crate::client::selling::starting::Choice;
use crate::client::{Client, now_ms};
use crate::exit::{Code, Failure, Outcome};
use crate::key_file;
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::tables::{self, OfferRow};
use crate::show::text::{moment, money};
use crate::store::record::{Record, Step};

/// More than a day of hours is asked for twice.
const AHEAD_UNASKED: u32 = 24;
/// How long the node of a lapsed offer has to offer again.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// Flags of `buy`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading buy 1                             take the first of the last offers
  steading buy --memory 1GiB --duration 3h   ask now, take the best
  steading buy 2 --no-wait                   return once the key is handed over
A proof that fails pays nothing: the money is asked back, exit code 12.")]
pub struct Arguments {
    /// The number of an offer in `steading offers`, or its id. Without it, nodes are asked now and
    /// the best offer is taken.
    #[arg(value_name = "OFFER", conflicts_with = "WantedFlags")]
    offer: Option<String>,
    #[command(flatten)]
    wanted: WantedFlags,
    #[command(flatten)]
    how: How,
}

/// How to buy.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How to buy")]
pub struct How {
    /// Periods signed ahead, so that this machine may sleep: what you risk. More than 24 needs --yes; a node keeps
    /// no more than 64.
    #[arg(long, value_name = "PERIODS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_AHEAD)))]
    ahead: u32,
    /// Yes to signing more than 24 periods ahead.
    #[arg(long)]
    yes: bool,
    /// Another public key that may log in: a file such as ~/.ssh/id_ed25519.pub; may be repeated.
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<std::path::PathBuf>,
    /// Return once the unlock key is handed over; `ssh` and `unlock` prove first, then.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the space.
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        default_value = "10min"
    )]
    timeout: Seconds,
    /// How long a space that the node calls ready may let nobody in, before the proof has failed.
    #[arg(long, value_name = "TIME", default_value = "2min")]
    login_timeout: Seconds,
}

impl How {
    fn choice(&self) -> Outcome<Choice> {
        if self.ahead > AHEAD_UNASKED && !self.yes {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "--ahead {} puts {} periods at risk; nothing was sent",
                    self.ahead, self.ahead
                ),
            )
            .next(format!(
                "add --yes if that is meant, or write --ahead {AHEAD_UNASKED} or less"
            )));
        }
        let ssh_keys = self
            .ssh_key
            .iter()
            .map(|path| read_keys(path))
            .collect::<Outcome<Vec<_>>>()?
            .concat();
        Ok(Choice {
            ahead: self.ahead,
            ssh_keys,
        })
    }
}

/// The public keys of a file, which the space will take; refused before any money is locked.
fn read_keys(path: &std::path::Path) -> Outcome<Vec<String>> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::new(
            Code::Usage,
            format!(
                "{} is no file of public SSH keys; nothing was sent",
                path.display()
            ),
        )
        .because(why.to_string())
        .next("give the file that ends in .pub: one line such as ssh-ed25519 AAAA… name")
    };
    let bytes = std::fs::read(path).map_err(|error| refuse(&error))?;
    key_file::read(&bytes).map_err(|error| refuse(&error))
}

/// Buys.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let choice = arguments.how.choice()?;
    let mut client = Client::open(settings)?;
    let store = client.store.clone();
    let bought = or_interrupted(&store, buy(&mut client, &arguments, choice, screen)).await;
    client.leave().await;
    let (json, text) = bought?;
    screen.result_and_told(&json, &text)
}

async fn buy(
    client: &mut Client,
    arguments: &Arguments,
    choice: Choice,
    screen: Screen,
) -> Outcome<(Value, String)> {
    let mut steps = Steps::new();
    let (request, offer) = choose(client, arguments, &mut steps, screen).await?;
    has_money(client, &request, &offer).await?;
    let until = Instant::now() + Duration::from_secs(arguments.how.timeout.0);
    let begun = Walk::begin(client, &request, &offer, choice.clone(), &mut steps).await;
    let mut walk = match begun {
        Err(failure) if failure.code == Code::NodeRefuses && has_lapsed(&failure) => {
            steps.failed("lapsed", "asking that node again");
            let (request, offer) = ask_again(client, &request, &offer, &mut steps).await?;
            Walk::begin(client, &request, &offer, choice, &mut steps).await?
        }
        begun => begun?,
    };
    walk.login_within = Duration::from_secs(arguments.how.login_timeout.0);
    let held = walk.files.lock()?;
    walk.lock(&mut steps).await?;
    walk.hand_over_key(until, &mut steps).await?;
    if !arguments.how.no_wait {
        walk.finish(until, &mut steps).await?;
    }
    drop((steps, held));
    let text = last_line(&walk.record);
    Ok((bought_json(&walk), text))
}

/// The offer that is meant, and the request it answers.
async fn choose(
    client: &mut Client,
    arguments: &Arguments,
    steps: &mut Steps,
    screen: Screen,
) -> Outcome<(Signed<CapacityRequest>, Signed<Offer>)> {
    let Some(which) = &arguments.offer else {
        let wanted = arguments.wanted.wanted()?;
        let answers = client.ask(&wanted, arguments.wanted.patience(), steps).await?;
        let Some(best) = answers.asked.offers.first().cloned() else {
            return Err(no_offers(&answers, screen));
        };
        client.store.keep_asked(&answers.asked)?;
        let price = market::price::per_hour(best.message.price, best.message.period);
        let node = market::id::NodeId(best.signer).short();
        let price = price.map(money).unwrap_or_default();
        steps.done(
            "offer",
            format!(
                "{price} an hour by {node}, the best of {}",
                answers.asked.offers.len()
            ),
        );
        for note in tables::notes(&best.message) {
            steps.done("note", note);
        }
        return Ok((answers.asked.request, best));
    };
    let asked = client.store.asked()?;
    let by_number = which.parse::<usize>().ok().filter(|number| *number < 1000);
    let found = match by_number {
        Some(number) => number.checked_sub(1).and_then(|at| asked.offers.get(at)),
        None => asked
            .offers
            .iter()
            .find(|offer| offer.offer_hash().to_string() == *which),
    };
    let offer = found.cloned().ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no offer {which}")).next(format!(
            "the last request has offers 1 to {}: `steading offers`",
            asked.offers.len()
        ))
    })?;
    Ok((asked.request, offer))
}

/// Before anything is signed: is there enough?
async fn has_money(client: &Client, request: &Signed<CapacityRequest>, offer: &Signed<Offer>) -> Outcome {
    let address = client.settings.rail()?;
    let balance = client.rail(&address)?.balance_of(&client.account(&address)).await;
    let free = balance
        .map_err(|error| Failure::of_rail("the ledger does not say what you have", &error))?
        .free;
    let total = offer
        .message
        .price
        .checked_mul(u64::from(request.message.periods()));
    if total.is_some_and(|total| total <= free) {
        return Ok(());
    }
    let needed = total.map_or("more than there is".to_owned(), money);
    Err(Failure::new(
        Code::Money,
        format!("not enough money: {needed} is needed, {} is free", money(free)),
    )
    .because("the whole sum is locked at first; what is not used comes back")
    .next("nothing was signed; take a shorter --duration, or have money sent to `steading wallet address`"))
}

fn has_lapsed(failure: &Failure) -> bool {
    let words = [RefusalCode::OfferGone, RefusalCode::NoCapacity];
    failure.refusal.is_some_and(|code| words.contains(&code))
}

/// A lapsed offer is asked for again, and taken if it is no worse.
async fn ask_again(
    client: &mut Client,
    request: &Signed<CapacityRequest>,
    old: &Signed<Offer>,
    steps: &mut Steps,
) -> Outcome<(Signed<CapacityRequest>, Signed<Offer>)> {
    let before = Wanted::of(&request.message);
    let node = market::id::NodeId(old.signer);
    let wanted = Wanted {
        filters: Filters {
            node: Some(node),
            ..before.filters.clone()
        },
        // A worse price is shown rather than declined.
        max_price_per_hour: None,
        ..before
    };
    let patience = Patience {
        offers: Some(1),
        within: AGAIN_WITHIN,
    };
    let answers = client.ask(&wanted, patience, steps).await?;
    let Some(new) = answers.asked.offers.first().cloned() else {
        return Err(
            Failure::new(Code::NoOffer, "the offer lapsed, and the node offers nothing new")
                .because(match &tables::declines(&answers.declines).0[..] {
                    [] => "it does not answer".to_owned(),
                    why => why.join("; "),
                })
                .next("nothing was signed; `steading request` asks all nodes again"),
        );
    };
    let (was, is) = (&old.message, &new.message);
    let no_worse = is.price <= was.price
        && is.gives.cpu >= was.gives.cpu
        && is.gives.memory >= was.gives.memory
        && is.gives.disk >= was.gives.disk
        && is.gives.rate >= was.gives.rate
        && is.notice <= was.notice
        && is.payee == was.payee;
    if no_worse {
        steps.done("offer", format!("again by {}, no worse", node.short()));
        return Ok((answers.asked.request, new));
    }
    let periods = request.message.periods();
    let rows = [was, is].map(|offer| OfferRow { node, offer, periods });
    client.store.keep_asked(&answers.asked)?;
    Err(Failure::new(
        Code::OfferWorse,
        format!(
            "the offer lapsed, and the new one is worse; nothing was signed\n{}",
            tables::offers(&rows, now_ms()).trim_end()
        ),
    )
    .because("1 is the offer that lapsed, 2 the new one")
    .next("`steading buy 1` takes the new one; `steading request` asks all nodes"))
}

/// What a person reads at the end.
pub fn last_line(record: &Record) -> String {
    let name = &record.name;
    if record.step < Step::Active {
        return format!(
            "{name} is being built; not proven, not paid.\n`steading ssh {name}` proves it, pays the first period, and logs in."
        );
    }
    let until = record.heard.as_ref().and_then(|heard| heard.paid_until_ms);
    let until = until
        .map(|ms| format!(" until {}", moment(ms)))
        .unwrap_or_default();
    format!("\n{name} is yours{until}.   steading ssh {name}")
}

/// The sale as JSON: ids, paths, what was seen, when.
pub fn bought_json(walk: &Walk<'_>) -> Value {
    let mut offer = offer_json(&walk.offer, walk.record.periods, 1);
    if let Some(object) = offer.as_object_mut() {
        object.remove("number"); // of a list that is over
    }
    let (record, files) = (&walk.record, &walk.files);
    let path = |message: &str| {
        let path = files.path(message);
        path.exists().then(|| path.display().to_string())
    };
    json!({
        "name": record.name,
        "state": record.state_words(),
        "proven": record.is_proven(),
        "sale": {
            "id": files.id,
            "request": path("request"),
            "offer": path("offer"),
            "sale": path("sale"),
            "grant": path("grant"),
        },
        "offer": offer,
        "price_of_period": walk.body.price,
        "periods": record.periods,
        "total": walk.total(),
        "at_risk": walk.body.owed_after(walk.vouchers_ahead()),
        "inside": record.inside,
        "host_key": record.host_key,
        "paid_until": record.heard.as_ref().and_then(|heard| heard.paid_until_ms),
        "times": record.times,
    })
}
