//! `steading nodes`: who is on the grid, and what each says to a small request that only looks: no node holds
//! anything for it.

use std::time::Duration;

use clap::Args;
use market::id::NodeId;
use market::message::{Filters, Offer};
use market::quantity::{Bytes, Seconds};
use serde_json::{Value, json};

use super::request::offer_json;
use crate::client::Client;
use crate::client::asking::{Answers, Patience, Wanted};
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::tables::{self, NodeRow, declared_text};
use crate::show::text::money;

/// Flags of `nodes`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How long to wait for answers.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "10s")]
    wait: Seconds,
}

/// Asks and shows.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let wanted = Wanted::a_look(Filters::default());
    let patience = Patience {
        offers: None,
        within: Duration::from_secs(arguments.wait.0),
    };
    let mut steps = Steps::new();
    let answers = client.ask(&wanted, patience, &mut steps).await;
    client.leave().await;
    let answers = answers?;
    drop(steps);
    if answers.asked.offers.is_empty() && answers.declines.is_empty() {
        let what = format!("no node answered within {}", arguments.wait);
        return Err(Failure::new(Code::NoOffer, what)
            .next("check that nodes are on this grid; a node that has just started needs a minute"));
    }
    screen.result(&nodes_json(&answers), &text(&answers))
}

fn nodes_json(answers: &Answers) -> Value {
    let offers = answers.asked.offers.iter().zip(1..).map(|(offer, number)| {
        json!({"node": NodeId(offer.signer), "sells": true, "offer": offer_json(offer, 1, number)})
    });
    let declines = answers.declines.iter().map(|(node, decline)| {
        let reasons: Vec<String> = decline.reasons.iter().map(tables::reason_words).collect();
        json!({"node": node, "sells": false, "reasons": reasons})
    });
    json!({"nodes": offers.chain(declines).collect::<Vec<Value>>()})
}

fn machine(offer: &Offer) -> String {
    let facts = &offer.facts;
    let memory = facts.memory.map(Bytes::human);
    let cores = facts.cores.map(|cores| format!("{cores} cores"));
    let disk = facts
        .disk_kind
        .as_deref()
        .map(|kind| declared_text(Some(kind), 6));
    let parts: Vec<String> = [cores, memory, disk].into_iter().flatten().collect();
    parts.join(" · ")
}

fn text(answers: &Answers) -> String {
    let offers = answers.asked.offers.iter().map(|offer| {
        let hour = market::price::per_hour(offer.message.price, offer.message.period);
        NodeRow {
            node: NodeId(offer.signer).to_string(),
            name: declared_text(offer.message.facts.name.as_deref(), 14),
            place: declared_text(offer.message.facts.country.as_deref(), 2),
            says: hour.map_or("sells".to_owned(), |price| {
                format!("sells, from {} an hour", money(price))
            }),
            machine: machine(&offer.message),
        }
    });
    let declines = answers.declines.iter().map(|(node, decline)| NodeRow {
        node: node.to_string(),
        name: "–".to_owned(),
        place: "–".to_owned(),
        says: decline
            .reasons
            .first()
            .map(tables::reason_words)
            .unwrap_or_default(),
        machine: String::new(),
    });
    let mut text = tables::nodes(&offers.chain(declines).collect::<Vec<NodeRow>>());
    if !answers.asked.offers.is_empty() {
        let least = &answers.asked.request.message.needs;
        text.push_str(&format!(
            "\nprices are for a small space ({}, {}, {}): `steading request` asks for yours\n",
            least.cpu.human(),
            least.memory.human(),
            least.disk.human()
        ));
    }
    text
}
