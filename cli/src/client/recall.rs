//! The sales of a wallet that came back from its seed alone: the ledger knows what is locked, the nodes have what was
//! signed.
//!
//! ```text
//! open locks at the ledger ─► farmers they pay ─► look (nothing held) ─► nodes that answer
//!                                                                          │ recall, signed by the user's key
//!                              files of the sale ◄── opened, compared ◄────┘ request, offer, sale, grant, change
//! ```
//! Invariant: a node's answer is believed only where both signed it, its terms are those of an open lock, and the
//! voucher key in it is one that this seed makes. Unlock key and voucher key follow from the seed; no node has them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use escrow::{LockState, Rail};
use grid::{EndpointAddress, PeerId};
use ledger::wire::OpenLease;
use market::envelope::{self, Signed};
use market::id::{EndpointId, GridId, NodeId, SaleId};
use market::message::{
    Amended, CapacityRequest, DeclineCode, Filters, KeyGrant, Offer, Recall, Recalled, RecalledSale, Sale,
};
use market::quantity::UnixMillis;

use super::asking::{Answers, Patience, Wanted};
use super::selling::Walk;
use super::talk::{Talk, TalkError};
use super::{Client, now_ms};
use crate::exit::{Failure, Outcome};
use crate::show::steps::Steps;
use crate::store::record::{Record, Step};

/// How long nodes have to show themselves.
const LOOK_WITHIN: Duration = Duration::from_secs(8);
/// How long one answer of a node may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a recall holds.
pub(super) const RECALL_MS: u64 = 600_000;
/// Answers of one node that are read: three sales each.
const MOST_PAGES: usize = 400;
/// Periods signed ahead from now on, where nobody said otherwise.
const AHEAD: u32 = 3;

/// One sale as both signed it, opened and compared with the lock.
pub(super) struct Opened {
    request: Signed<CapacityRequest>,
    offer: Signed<Offer>,
    pub(super) sale: Signed<Sale>,
    grant: Option<Signed<KeyGrant>>,
    pub(super) amended: Option<Signed<Amended>>,
}

impl Client {
    /// This wallet's locks that are not closed and whose sales have no record here, or a damaged one.
    pub async fn unknown_locks(&self) -> Outcome<Vec<OpenLease>> {
        let address = self.settings.rail()?;
        let locks = self.rail(&address)?.open_locks(&self.account(&address)).await;
        let locks =
            locks.map_err(|error| Failure::of_rail("the ledger does not say what is locked", &error))?;
        Ok(locks
            .into_iter()
            .filter(|lock| lock.view.state != LockState::Closed)
            .filter(|lock| !matches!(self.store.sale(SaleId(lock.terms.sale)).record(), Ok(Some(_))))
            .collect())
    }

    /// Fetches the sales of these locks from the nodes that have them, and keeps their files. Returns the names of
    /// what came back; what did not stays in `locks`.
    pub async fn recall(&mut self, locks: &mut Vec<OpenLease>, steps: &mut Steps) -> Outcome<Vec<String>> {
        let payees: BTreeSet<String> = locks.iter().map(|lock| lock.terms.payee.to_string()).collect();
        let (mut names, mut asked) = (Vec::new(), BTreeSet::new());
        for payee in payees {
            let payee = payee.parse().map_err(anyhow::Error::from)?;
            let patience = Patience {
                offers: None,
                within: LOOK_WITHIN,
            };
            let of_payee = Filters {
                farmer: Some(payee),
                ..Filters::default()
            };
            let answers = self.ask(&Wanted::a_look(of_payee), patience, steps).await?;
            for address in whom_to_ask(&answers) {
                if locks.is_empty() {
                    break;
                }
                if asked.insert(address.id()) {
                    names.extend(self.recall_from(address, locks, steps).await?);
                }
            }
        }
        steps.quiet();
        Ok(names)
    }

    /// Asks the nodes of the sales that are known here whether both signed more than their records say. Returns the
    /// names of those whose record was older. A node that is silent is asked once.
    pub async fn catch_up(&mut self, steps: &mut Steps) -> Outcome<Vec<String>> {
        let (mut names, mut silent) = (Vec::new(), BTreeSet::new());
        for (files, record) in self.store.sales()? {
            if !(Step::Funded..=Step::Active).contains(&record.step) {
                continue;
            }
            let Some(held) = files.try_lock()? else {
                continue; // a command is at it
            };
            let record = files.record()?.unwrap_or(record);
            let name = record.name.clone();
            let mut walk = Walk::resume(self, files, record).await?;
            let node = walk.body.node;
            if silent.contains(&node) {
                continue;
            }
            steps.begin("recall", format!("asking {}", node.short()));
            match tokio::time::timeout(ANSWER_WITHIN, walk.catch_up()).await {
                Ok(Ok(true)) => names.push(name),
                Ok(Ok(false)) => {}
                Ok(Err(_)) | Err(_) => {
                    silent.insert(node);
                }
            }
            drop(held);
        }
        steps.quiet();
        Ok(names)
    }

    async fn recall_from(
        &mut self,
        address: EndpointAddress,
        locks: &mut Vec<OpenLease>,
        steps: &mut Steps,
    ) -> Outcome<Vec<String>> {
        let ticket = self.settings.ticket()?;
        let (grid, grid_id, node) = (
            self.joined(&ticket).await?,
            GridId(ticket.grid_id()),
            NodeId(address.id().0),
        );
        steps.begin("recall", format!("asking {}", node.short()));
        let rail = self.rail(&self.settings.rail()?)?;
        let now = rail
            .now()
            .await
            .map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let (endpoint, user) = (EndpointId(grid.id().0), self.seed.user_key());
        let mut talk = Talk::with(grid, grid_id, node, address.clone(), user);
        let (mut names, mut after) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let recall = Recall {
                endpoint,
                expires: UnixMillis::from(now).plus_ms(RECALL_MS),
                after,
            };
            let page = match page(&mut talk, recall, ANSWER_WITHIN).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "a node gives no sales back");
                    break;
                }
            };
            let last = page.sales.last().and_then(|sale| id_of(sale, grid_id));
            for recalled in &page.sales {
                match open(recalled, grid_id, node) {
                    Ok(opened) => names.extend(self.keep_recalled(&opened, &address, locks).await?),
                    Err(why) => tracing::warn!(%node, why, "a sale that a node gave back is not taken"),
                }
            }
            // Pages rise, or the node would be asked for ever.
            if !page.more || last <= after {
                break;
            }
            after = last;
        }
        Ok(names)
    }

    /// Writes the files of a sale whose lock is open, and asks the node how it stands.
    async fn keep_recalled(
        &mut self,
        opened: &Opened,
        address: &EndpointAddress,
        locks: &mut Vec<OpenLease>,
    ) -> Outcome<Option<String>> {
        let body = opened.sale.message.body();
        let Some(at) = locks.iter().position(|lock| lock.terms == body.terms()) else {
            return Ok(None); // never locked, or over
        };
        if body.user != self.seed.user_id() || body.voucher_key != self.seed.voucher_public_key(&body.nonce) {
            tracing::warn!("a sale that a node gave back is not this wallet's");
            return Ok(None);
        }
        let lock = locks.swap_remove(at);
        let files = self.store.sale(opened.sale.message.id());
        let agree = &opened.sale.message.agree;
        files.keep("request", &opened.request.bytes)?;
        files.keep("offer", &opened.offer.bytes)?;
        files.keep("agree", &agree.bytes)?;
        files.keep("sale", &opened.sale.bytes)?;
        if let Some(grant) = &opened.grant {
            files.keep("grant", &grant.bytes)?;
        }
        let change = opened
            .amended
            .as_ref()
            .map(|amended| &amended.message.amend.message);
        if let (Some(amended), Some(change)) = (&opened.amended, change) {
            files.keep(&format!("amended-{}", change.number), &amended.bytes)?;
        }
        let step = match (lock.view.close_asked, lock.view.state) {
            (Some(_), _) => Step::Ending,
            (None, LockState::Active) => Step::Active,
            (None, LockState::None | LockState::Locked | LockState::Closed) => Step::Funded,
        };
        let record = Record {
            name: self.store.free_name(files.id)?,
            step,
            begun_ms: now_ms(),
            grid: self.settings.ticket()?.to_string(),
            ledger: self.settings.rail()?.to_string(),
            node_address: data_encoding::HEXLOWER.encode(&address.to_bytes()),
            ahead: AHEAD,
            vouchers_signed: 0,
            vouchers_sent: 0,
            from_backup: false,
            active_since_ms: None,
            periods: change.map_or(body.periods, |change| change.periods),
            amendments: change.map_or(0, |change| change.number),
            epoch: opened.grant.as_ref().map_or(0, |grant| grant.message.epoch),
            host_key: opened.grant.as_ref().map(|grant| grant.message.host_key_line()),
            ssh_keys: Vec::new(),
            tcp: None,
            inside: None,
            heard: None,
            restoring: None,
            times: BTreeMap::new(),
        };
        files.keep_record(&record)?;
        let name = record.name.clone();
        let mut walk = Walk::resume(self, files, record).await?;
        if let Err(error) = walk.status(ANSWER_WITHIN).await {
            tracing::warn!(%error, "the node gave a sale back and not its status");
        }
        walk.keep()?;
        Ok(Some(name))
    }
}

pub(super) async fn page(talk: &mut Talk, recall: Recall, within: Duration) -> Result<Recalled, TalkError> {
    let (question, answer) = talk.ask::<_, Recalled>(recall, within).await?;
    if answer.message.recall == question.hash() {
        Ok(answer.message)
    } else {
        Err(TalkError::Nonsense(
            NodeId(answer.signer),
            "it answers another recall".to_owned(),
        ))
    }
}

/// Those who offer, then those who decline: first the farmer's own, then the others, for a farmer may have another
/// account by now.
fn whom_to_ask(answers: &Answers) -> Vec<EndpointAddress> {
    let offers = answers.asked.offers.iter();
    let mut all: Vec<EndpointAddress> = offers
        .filter_map(|offer| EndpointAddress::from_bytes(&offer.message.address).ok())
        .collect();
    let is_others = |codes: &[DeclineCode]| codes.contains(&DeclineCode::Farmer);
    let mut declines: Vec<(bool, NodeId)> = answers
        .declines
        .iter()
        .map(|(node, decline)| {
            let codes: Vec<DeclineCode> = decline.reasons.iter().map(|reason| reason.code).collect();
            (is_others(&codes), *node)
        })
        .collect();
    declines.sort_unstable();
    all.extend(
        declines
            .into_iter()
            .filter_map(|(_, node)| EndpointAddress::by_relay(PeerId(node.0)).ok()),
    );
    all
}

fn id_of(recalled: &RecalledSale, grid: GridId) -> Option<SaleId> {
    let sale = envelope::open::<Sale>(&recalled.sale, Some(grid)).ok()?;
    Some(sale.message.id())
}

/// Every signature, and that all of it is about one sale with this node.
pub(super) fn open(recalled: &RecalledSale, grid: GridId, node: NodeId) -> Result<Opened, String> {
    let words = |error: envelope::EnvelopeError| error.to_string();
    let request = envelope::open::<CapacityRequest>(&recalled.request, Some(grid)).map_err(words)?;
    let offer = envelope::open::<Offer>(&recalled.offer, Some(grid)).map_err(words)?;
    let sale = envelope::open::<Sale>(&recalled.sale, Some(grid)).map_err(words)?;
    let (body, id) = (sale.message.body().clone(), sale.message.id());
    if body.node != node {
        return Err("it is another node's".to_owned());
    }
    body.matches(&request, &offer)
        .map_err(|error| error.to_string())?;
    let grant = recalled.grant.as_ref();
    let grant = grant
        .map(|bytes| envelope::open::<KeyGrant>(bytes, Some(grid)))
        .transpose()
        .map_err(words)?;
    if let Some(grant) = &grant
        && (grant.signer != node.0 || grant.message.sale != id)
    {
        return Err("its grant is of another node or sale".to_owned());
    }
    let amended = recalled.amended.as_ref();
    let amended = amended
        .map(|bytes| envelope::open::<Amended>(bytes, Some(grid)))
        .transpose()
        .map_err(words)?;
    if let Some(amended) = &amended {
        let change = &amended.message.amend;
        let is_ours = amended.signer == node.0 && change.signer == body.user.0;
        if !is_ours || change.message.sale != id || change.message.prices.at(1) != body.price {
            return Err("its change is not one that both signed".to_owned());
        }
    }
    Ok(Opened {
        request,
        offer,
        sale,
        grant,
        amended,
    })
}
