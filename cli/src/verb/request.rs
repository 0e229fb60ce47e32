//! `steading request`: ask all nodes, show their offers.

use std::time::Duration;

use clap::Args;
use escrow::{Account, Amount, LEDGER_DECIMALS};
use market::id::NodeId;
use market::message::{Filters, Needs};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds};
use serde_json::{Value, json};

use crate::client::asking::{Answers, Patience, Wanted};
use crate::client::{Client, now_ms};
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::tables::{self, OfferRow};
use crate::show::text::{count, seconds};
use crate::store::asked::Asked;

/// How long nodes have to answer.
const WAIT_S: u64 = 15;

/// What is wanted; the same for `request` and `buy`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is wanted")]
pub struct WantedFlags {
    /// CPUs, in thousandths if need be: 0.5, 2.
    #[arg(long, value_name = "CPUS", allow_hyphen_values = true, default_value = "0.5")]
    cpu: MilliCpus,
    /// Memory: 512MiB, 4GiB.
    #[arg(
        long,
        value_name = "SIZE",
        allow_hyphen_values = true,
        default_value = "512MiB"
    )]
    memory: Bytes,
    /// The encrypted volume: 2GiB, 1TiB.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, default_value = "2GiB")]
    disk: Bytes,
    /// Network rate at least: 10Mbit. Without it, whatever the node gives.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<BitsPerSecond>,
    /// How long: 90min, 3h, 30d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "1h")]
    duration: Seconds,
    /// What is paid for at a time; the duration is a whole number of it. An hour, or the whole
    /// duration where that is shorter.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    period: Option<Seconds>,
    /// The highest price an hour: 0.50.
    #[arg(long, value_name = "PRICE", allow_hyphen_values = true, value_parser = price)]
    max_price: Option<Amount>,
    /// Stop waiting after so many offers.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    offers: Option<u16>,
    /// Only nodes in this country, as their farmers declare it: BE.
    #[arg(long, value_name = "COUNTRY")]
    country: Option<String>,
    /// Only nodes of this farmer: the address that is paid.
    #[arg(long, value_name = "ADDRESS")]
    farmer: Option<Account>,
    /// Only this node: its id, 64 hex digits.
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,
    /// Only nodes whose farmer declares this feature; may be repeated.
    #[arg(long, value_name = "FEATURE")]
    feature: Vec<String>,
}

fn price(text: &str) -> Result<Amount, String> {
    let amount = Amount::from_decimal(text, LEDGER_DECIMALS).map_err(|error| error.to_string())?;
    if amount.is_zero() {
        Err("a price is more than zero, as in 0.50".to_owned())
    } else {
        Ok(amount)
    }
}

impl WantedFlags {
    /// The flags as one checked wish; nothing was sent if it fails.
    pub fn wanted(&self) -> Outcome<Wanted> {
        let usual = Seconds(3600.min(self.duration.0));
        let period = self.period.unwrap_or(usual);
        if period.periods_in(self.duration).is_none() {
            return Err(remainder(self.duration, period));
        }
        let wanted = Wanted {
            needs: Needs {
                cpu: self.cpu,
                memory: self.memory,
                disk: self.disk,
                rate: self.rate,
            },
            duration: self.duration,
            period,
            max_price_per_hour: self.max_price,
            filters: Filters {
                country: self.country.as_ref().map(|country| country.to_uppercase()),
                farmer: self.farmer.clone(),
                node: self.node,
                features: self.feature.clone(),
            },
            only_looks: false,
        };
        check(&wanted)?;
        Ok(wanted)
    }

    /// How long to wait.
    pub fn patience(&self) -> Patience {
        // One node answers once: with --node the first offer is all there will be.
        let one = self.node.map(|_| 1);
        Patience {
            offers: self.offers.map(usize::from).or(one),
            within: Duration::from_secs(WAIT_S),
        }
    }
}

/// The message's own rules, before anything is sent: a stand-in takes the place of what is only
/// known later.
fn check(wanted: &Wanted) -> Outcome {
    let stand_in = market::message::CapacityRequest {
        needs: wanted.needs,
        duration: wanted.duration,
        period: wanted.period,
        max_price_per_hour: wanted.max_price_per_hour,
        rails: vec![market::message::RailAsset {
            rail: escrow::RailName::ledger(&[0; 32]),
            asset: crate::client::asking::own_asset()?,
        }],
        filters: wanted.filters.clone(),
        expires: market::quantity::UnixMillis(0),
        nonce: [0; 16],
        answer_to: vec![0],
        only_looks: wanted.only_looks,
    };
    stand_in.checked().map(|_| ()).map_err(|error| {
        Failure::new(Code::Usage, "such a request cannot be made; nothing was sent").caused_by(&error)
    })
}

fn remainder(duration: Seconds, period: Seconds) -> Failure {
    let whole = duration.0 / period.0.max(1);
    let below = Seconds(whole.max(1).saturating_mul(period.0));
    let above = Seconds(whole.saturating_add(1).saturating_mul(period.0));
    let right = if whole == 0 {
        format!("write --duration {below}, or a --period that divides {duration}")
    } else {
        format!("write --duration {below} or --duration {above}, or another --period")
    };
    Failure::new(
        Code::Usage,
        format!("--duration {duration} is not a whole number of periods of {period}; nothing was sent"),
    )
    .next(right)
}

/// Flags of `request`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading request --cpu 0.5 --memory 512MiB --disk 2GiB --duration 3h
  steading request --memory 4GiB --max-price 0.50 --country BE
  steading request --duration 30d --period 1d --offers 3
Then: steading buy 1")]
pub struct Arguments {
    #[command(flatten)]
    wanted: WantedFlags,
}

/// Asks and shows.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let (wanted, patience) = (arguments.wanted.wanted()?, arguments.wanted.patience());
    let mut client = Client::open(settings)?;
    let mut steps = Steps::new();
    let answers = client.ask(&wanted, patience, &mut steps).await;
    client.leave().await;
    let answers = answers?;
    steps.quiet();
    drop(steps);
    if answers.asked.offers.is_empty() {
        return Err(no_offers(&answers, screen));
    }
    client.store.keep_asked(&answers.asked)?;
    screen.result_and_told(&answers_json(&answers), &answers_text(&answers))
}

/// Nobody offers: why, grouped (with --json each node for itself), and what to try.
pub fn no_offers(answers: &Answers, screen: Screen) -> Failure {
    let failure = Failure::new(Code::NoOffer, "no node offers");
    if answers.declines.is_empty() {
        return failure
            .because(format!("no node answered within {WAIT_S} s"))
            .next("check that nodes are on this grid and sell: `steading nodes`; or try again in a while");
    }
    let (groups, next) = tables::declines(&answers.declines);
    let why = if screen.json {
        let of_each = answers.declines.iter().flat_map(|(node, decline)| {
            let words = decline.reasons.iter().map(tables::reason_words);
            words.map(move |words| format!("{node}: {words}"))
        });
        of_each.collect()
    } else {
        groups
    };
    why.into_iter().fold(failure, Failure::because).next(next)
}

fn answers_text(answers: &Answers) -> String {
    let asked = &answers.asked;
    let took = answers.ended_ms.min(answers.first_offer_ms.unwrap_or(u64::MAX));
    let mut text = format!(
        "{} answered · {}, the first in {}\n\n",
        count(asked.offers.len() + answers.declines.len(), "node"),
        count(asked.offers.len(), "offer"),
        seconds(took.saturating_sub(answers.request_sent_ms)),
    );
    text.push_str(&offers_text(asked));
    text
}

/// The table, and what to do next.
pub fn offers_text(asked: &Asked) -> String {
    let periods = asked.request.message.periods();
    let rows: Vec<OfferRow<'_>> = asked
        .offers
        .iter()
        .map(|offer| OfferRow {
            node: NodeId(offer.signer),
            offer: &offer.message,
            periods,
        })
        .collect();
    format!("{}\ntake one: steading buy 1\n", tables::offers(&rows, now_ms()))
}

fn answers_json(answers: &Answers) -> Value {
    let mut json = asked_json(&answers.asked);
    json["times"] = json!({
        "request_sent": answers.request_sent_ms,
        "first_offer": answers.first_offer_ms,
    });
    json["declines"] = answers
        .declines
        .iter()
        .map(|(node, decline)| {
            let reasons: Vec<String> = decline.reasons.iter().map(tables::reason_words).collect();
            json!({"node": node, "reasons": reasons})
        })
        .collect();
    json
}

/// Request and offers as JSON.
pub fn asked_json(asked: &Asked) -> Value {
    let periods = asked.request.message.periods();
    let offers: Vec<Value> = asked
        .offers
        .iter()
        .zip(1..)
        .map(|(offer, number)| offer_json(offer, periods, number))
        .collect();
    json!({"request": asked.request.request_hash(), "periods": periods, "offers": offers})
}

/// One offer as JSON.
pub fn offer_json(
    offer: &market::envelope::Signed<market::message::Offer>,
    periods: u32,
    number: usize,
) -> Value {
    let terms = &offer.message;
    json!({
        "number": number,
        "id": offer.offer_hash(),
        "node": NodeId(offer.signer),
        "payee": terms.payee,
        "price_per_hour": market::price::per_hour(terms.price, terms.period),
        "price_of_period": terms.price,
        "price_in_all": terms.price.checked_mul(u64::from(periods)),
        "period_s": terms.period.0,
        "gives": {
            "cpu_milli": terms.gives.cpu.0,
            "memory_bytes": terms.gives.memory.0,
            "disk_bytes": terms.gives.disk.0,
            "rate_bits_per_second": terms.gives.rate.0,
            "pids": terms.gives.pids,
        },
        "base": terms.base,
        "held": terms.held,
        "valid_until": terms.valid_until.0,
        "country": terms.facts.country,
        "name": terms.facts.name,
        "features": terms.facts.features,
        "disk_kind": terms.facts.disk_kind,
        "image_version": terms.facts.image_version,
        "notes": terms.facts.notes,
    })
}
