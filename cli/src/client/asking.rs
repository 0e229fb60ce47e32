//! Asking for capacity: one signed broadcast, and what nodes answer to it.
//!
//! Invariant: an offer counts only if the node that opened the stream signed it, it answers this
//! request, gives what was asked, on a rail and in a money that was asked for, and names itself as
//! the place to agree. Others are dropped, with a line in the log.

use std::time::Duration;

use bytes::Bytes;
use escrow::{Amount, Rail, RailName};
use grid::{DirectStream, EndpointAddress, PeerId};
use market::envelope::{self, Signed};
use market::id::{GridId, NodeId};
use market::message::{CapacityRequest, Decline, Filters, Kind, Needs, Offer, RailAsset};
use market::quantity::{self, Seconds, UnixMillis};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::ears::Ears;
use super::{Client, now_ms, random};
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::count;
use crate::store::asked::Asked;

/// How long a request may travel and be answered.
const FRESH_MS: u64 = 60_000;
/// How long one answer may take to arrive once its stream is open.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// After the last answer, without a count to wait for.
const QUIET: Duration = Duration::from_millis(1500);
/// An offer that stands longer after its request is a mistake or a trap.
const LONGEST_OFFER_MS: u64 = 3_600_000;
/// What is wanted, as the flags say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How much.
    pub needs: Needs,
    /// How long.
    pub duration: Seconds,
    /// What is paid for at a time.
    pub period: Seconds,
    /// The highest price an hour.
    pub max_price_per_hour: Option<Amount>,
    /// Who may answer.
    pub filters: Filters,
    /// Nothing is to be held: the offers are shown, and none is taken.
    pub only_looks: bool,
}

impl Wanted {
    /// What a request asked, to ask it again.
    pub fn of(request: &CapacityRequest) -> Wanted {
        Wanted {
            needs: request.needs,
            duration: request.duration,
            period: request.period,
            max_price_per_hour: request.max_price_per_hour,
            filters: request.filters.clone(),
            only_looks: false,
        }
    }

    /// The smallest request there is, by one who only looks: nothing is held for it.
    pub fn a_look(filters: Filters) -> Wanted {
        Wanted {
            needs: Needs {
                cpu: quantity::MilliCpus(100),
                memory: quantity::Bytes(128 << 20),
                disk: quantity::Bytes(1 << 30),
                rate: None,
            },
            duration: Seconds(3600),
            period: Seconds(3600),
            max_price_per_hour: None,
            filters,
            only_looks: true,
        }
    }
}

/// How long to wait for answers.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// So many offers are enough.
    pub offers: Option<usize>,
    /// No longer than this.
    pub within: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Request and offers, the best first.
    pub asked: Asked,
    /// Who said why not.
    pub declines: Vec<(NodeId, Decline)>,
    /// Unix milliseconds of this machine.
    pub request_sent_ms: u64,
    /// When the first offer came.
    pub first_offer_ms: Option<u64>,
    /// When the last answer came, or the wait ended.
    pub ended_ms: u64,
}

enum Answer {
    Offer(Box<Signed<Offer>>, u64),
    Decline(NodeId, Decline),
}

impl Client {
    /// Broadcasts what is wanted and gathers answers.
    pub async fn ask(&mut self, wanted: &Wanted, patience: Patience, steps: &mut Steps) -> Outcome<Answers> {
        let (ticket, address) = (self.settings.ticket()?, self.settings.rail()?);
        steps.begin("asking", format!("joining the grid \"{}\"", ticket.name()));
        let rail = self.rail(&address)?;
        let now = rail
            .now()
            .await
            .map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let grid = self.joined(&ticket).await?;
        let grid_id = GridId(ticket.grid_id());
        let request = CapacityRequest {
            needs: wanted.needs,
            duration: wanted.duration,
            period: wanted.period,
            max_price_per_hour: wanted.max_price_per_hour,
            rails: vec![RailAsset {
                rail: rail.name(),
                asset: own_asset()?,
            }],
            filters: wanted.filters.clone(),
            expires: UnixMillis::from(now).plus_ms(FRESH_MS),
            nonce: random()?,
            answer_to: grid.address().to_bytes(),
            only_looks: wanted.only_looks,
        };
        let request = envelope::sign(&self.seed.user_key(), grid_id, request)
            .map_err(|error| Failure::new(Code::Usage, "such a request cannot be made").caused_by(&error))?;
        steps.doing("waiting for nodes to answer");
        let request_sent_ms = now_ms();
        grid.broadcast(Bytes::from(request.bytes.clone()))
            .await
            .map_err(|error| Failure::new(Code::Grid, "the request was not sent").caused_by(&error))?;
        let gathered = gather(&grid, &request, &rail.name(), patience, steps).await;
        let mut answers = Answers {
            request_sent_ms,
            ..gathered
        };
        answers
            .asked
            .offers
            .sort_by_key(|offer| (offer.message.price, !offer.message.held));
        Ok(answers)
    }
}

/// The money that this client pays with.
pub fn own_asset() -> anyhow::Result<escrow::Asset> {
    Ok(ledger::ASSET.parse()?)
}

async fn gather(
    grid: &grid::Grid,
    request: &Signed<CapacityRequest>,
    rail: &RailName,
    patience: Patience,
    steps: &mut Steps,
) -> Answers {
    let deadline = Instant::now() + patience.within;
    let (sender, mut receiver) = mpsc::channel(64);
    let listening = tokio::spawn(listen(grid.clone(), request.clone(), rail.clone(), sender));
    let mut answers = Answers {
        asked: Asked {
            request: request.clone(),
            offers: Vec::new(),
        },
        declines: Vec::new(),
        request_sent_ms: 0,
        first_offer_ms: None,
        ended_ms: 0,
    };
    loop {
        let offers = answers.asked.offers.len();
        if patience.offers.is_some_and(|wanted| offers >= wanted) {
            break;
        }
        let until = match (patience.offers, offers) {
            (None, 1..) => deadline.min(Instant::now() + QUIET),
            (None, 0) | (Some(_), _) => deadline,
        };
        match timeout_at(until, receiver.recv()).await {
            Ok(Some(Answer::Offer(offer, at_ms))) => {
                let known = answers
                    .asked
                    .offers
                    .iter()
                    .any(|known| known.signer == offer.signer);
                if !known {
                    answers.first_offer_ms.get_or_insert(at_ms);
                    answers.asked.offers.push(*offer);
                }
            }
            Ok(Some(Answer::Decline(node, decline))) => {
                if !answers.declines.iter().any(|(known, _)| *known == node) {
                    answers.declines.push((node, decline));
                }
            }
            Ok(None) | Err(_) => break,
        }
        steps.doing(format!(
            "{}, {} so far",
            count(answers.asked.offers.len(), "offer"),
            count(answers.declines.len(), "decline")
        ));
    }
    listening.abort();
    answers.ended_ms = now_ms();
    answers
}

/// Takes streams and hands on what is a valid answer to this request.
async fn listen(
    grid: grid::Grid,
    request: Signed<CapacityRequest>,
    rail: RailName,
    answers: mpsc::Sender<Answer>,
) {
    let mut ears = Ears::default();
    let mut reading = JoinSet::new(); // ends with this task
    while let Some((peer, stream)) = grid.accept().await {
        while reading.try_join_next().is_some() {}
        if !ears.listen_to(peer) {
            continue;
        }
        let (request, rail, answers) = (request.clone(), rail.clone(), answers.clone());
        reading.spawn(async move {
            match read_answer(peer, stream, &request, &rail).await {
                Ok(answer) => {
                    let _ = answers.send(answer).await;
                }
                Err(why) => tracing::warn!(%peer, why, "an answer was dropped"),
            }
        });
    }
}

async fn read_answer(
    peer: PeerId,
    mut stream: DirectStream,
    request: &Signed<CapacityRequest>,
    rail: &RailName,
) -> Result<Answer, String> {
    let frame = timeout(FRAME_WITHIN, stream.receive())
        .await
        .map_err(|_| "it did not arrive in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let at_ms = now_ms();
    let words = |error: envelope::EnvelopeError| error.to_string();
    let signed_by_peer = |signer: [u8; 32]| {
        let own = signer == peer.0;
        own.then_some(())
            .ok_or_else(|| "it is signed by another than its sender".to_owned())
    };
    match envelope::peek_kind(&frame).map_err(words)? {
        Kind::Offer => {
            let offer = envelope::open::<Offer>(&frame, Some(request.grid)).map_err(words)?;
            signed_by_peer(offer.signer)?;
            check_offer(&offer, request, rail)?;
            Ok(Answer::Offer(Box::new(offer), at_ms))
        }
        Kind::Decline => {
            let decline = envelope::open::<Decline>(&frame, Some(request.grid)).map_err(words)?;
            signed_by_peer(decline.signer)?;
            if decline.message.request != request.request_hash() {
                return Err("it answers another request".to_owned());
            }
            Ok(Answer::Decline(NodeId(decline.signer), decline.message))
        }
        other => Err(format!("a {} is no answer to a request", other.name())),
    }
}

fn check_offer(
    offer: &Signed<Offer>,
    request: &Signed<CapacityRequest>,
    rail: &RailName,
) -> Result<(), String> {
    let (asked, given) = (&request.message, &offer.message);
    let address = EndpointAddress::from_bytes(&given.address).map_err(|error| error.to_string())?;
    let per_hour = market::price::per_hour(given.price, given.period);
    let dear = asked
        .max_price_per_hour
        .is_some_and(|most| per_hour.is_none_or(|price| price > most));
    let (filters, facts) = (&asked.filters, &given.facts);
    let has_features = filters
        .features
        .iter()
        .all(|feature| facts.features.contains(feature));
    let rules = [
        (
            "it is by another node than asked for",
            filters.node.is_none_or(|node| node.0 == offer.signer),
        ),
        (
            "it pays another farmer",
            filters
                .farmer
                .as_ref()
                .is_none_or(|farmer| *farmer == given.payee),
        ),
        (
            "it is in another country",
            filters.country.is_none() || filters.country == facts.country,
        ),
        ("it lacks a feature that was asked for", has_features),
        (
            "it answers another request",
            given.request == request.request_hash(),
        ),
        (
            "it gives less than was asked",
            asked.needs.are_met_by(&given.gives),
        ),
        (
            "it stands for more than an hour",
            given.valid_until <= asked.expires.plus_ms(LONGEST_OFFER_MS),
        ),
        ("it has another period", given.period == asked.period),
        ("it is dearer than allowed", !dear),
        ("it names another rail", given.rail == *rail),
        (
            "it names another money",
            asked.rails.iter().any(|pair| pair.asset == given.asset),
        ),
        ("its payee is not on the rail", given.payee.is_on(rail)),
        (
            "it names another endpoint than its sender's",
            address.id().0 == offer.signer,
        ),
    ];
    let broken = rules.into_iter().find(|(_, holds)| !holds);
    broken.map_or(Ok(()), |(why, _)| Err(why.to_owned()))
}
