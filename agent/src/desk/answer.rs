//! From a request to an offer, or to the reasons why not.

use escrow::{Account, Amount, RailKey};
use grid::EndpointAddress;
use market::book::{Asker, HOLD_MS};
use market::envelope::{Signed, sign};
use market::id::{EndpointId, UserId};
use market::message::{CapacityRequest, Decline, DeclineCode, Facts, Gives, Offer, Reason};
use market::{price, quantity::UnixMillis};

use super::check::judge;
use super::{Counter, Made, policy};
use crate::sales::boot_ms;

impl Counter {
    /// The answer to a request, and where it goes. None: not a request, or meant for another node.
    pub(super) fn answer(&self, bytes: &[u8], neighbour: EndpointId) -> Option<(EndpointAddress, Vec<u8>)> {
        let to = judge(bytes, self.shared.grid_id, self.time()).ok()?;
        let address = EndpointAddress::from_bytes(&to.message.answer_to).ok()?;
        Some((address, self.answer_to(bytes, neighbour)?))
    }

    /// The answer to a request that came over a stream: when its turn has come.
    pub(crate) async fn answer_on_stream(&self, bytes: &[u8], peer: EndpointId) -> Option<Vec<u8>> {
        self.turns.take(|| self.answer_to(bytes, peer)).await
    }

    fn answer_to(&self, bytes: &[u8], neighbour: EndpointId) -> Option<Vec<u8>> {
        let request = judge(bytes, self.shared.grid_id, self.time()).ok()?;
        if request
            .message
            .filters
            .node
            .is_some_and(|node| node != self.node())
        {
            return None;
        }
        let hash = request.request_hash();
        if let Some(made) = self.made().get(&hash) {
            return Some(made.offer.bytes.clone());
        }
        match self.offer(&request, neighbour) {
            Ok(offer) => Some(offer),
            Err(reasons) => {
                let decline = Decline {
                    request: hash,
                    reasons,
                };
                sign(&self.shared.node_key, self.shared.grid_id, decline)
                    .ok()
                    .map(|signed| signed.bytes)
            }
        }
    }

    fn time(&self) -> Option<UnixMillis> {
        self.shared.clock.rail().map(UnixMillis::from)
    }

    fn offer(
        &self,
        request: &Signed<CapacityRequest>,
        neighbour: EndpointId,
    ) -> Result<Vec<u8>, Vec<Reason>> {
        let not_selling = || vec![Reason::plain(DeclineCode::NotSelling)];
        if !*self.selling.borrow() {
            return Err(not_selling());
        }
        let wallet = self.farmer.wallet.clone().ok_or_else(not_selling)?;
        let unit = self.farmer.price.ok_or_else(not_selling)?;
        let now = self.time().ok_or_else(not_selling)?;
        let asked = &request.message;
        let unmet = self.filtered_out(asked, &wallet);
        if !unmet.is_empty() {
            return Err(unmet);
        }
        let gives = policy::gives(&asked.needs, self.farmer.rate);
        let price = self.price(unit, asked, &gives)?;
        let asker = Asker {
            user: UserId(request.signer),
            neighbour,
        };
        let (held, left_ms) = if asked.only_looks {
            self.shared.book().look(&gives, boot_ms())?;
            (false, 0)
        } else {
            let hash = request.request_hash();
            let placed = self.shared.book().offer(hash, asker, gives, boot_ms())?;
            if let Some(older) = placed.instead_of {
                self.made().remove(&older);
            }
            let left_ms = placed.until_ms.saturating_sub(boot_ms()).min(HOLD_MS);
            (placed.held, left_ms)
        };
        let offer = Offer {
            request: request.request_hash(),
            gives,
            price,
            period: asked.period,
            accept_window: policy::accept_window(asked.period),
            notice: policy::notice(asked.period),
            rail: self.shared.rail.name(),
            asset: self.shared.asset.clone(),
            payee: wallet,
            give_back_key: RailKey::ed25519(&self.shared.give_back_key.verifying_key().to_bytes()),
            base: self.base,
            facts: self.said(),
            valid_until: now.plus_ms(left_ms),
            held,
            address: self.shared.grid.address().to_bytes(),
        };
        let signed = sign(&self.shared.node_key, self.shared.grid_id, offer);
        let offer = signed.map_err(|error| {
            tracing::error!(
                error = crate::words::chain(&error),
                "an offer could not be signed"
            );
            not_selling()
        })?;
        let bytes = offer.bytes.clone();
        if asked.only_looks {
            return Ok(bytes); // kept nowhere: there is nothing to agree to
        }
        let made = Made {
            request: request.clone(),
            offer,
            gives,
        };
        self.made().insert(request.request_hash(), made);
        Ok(bytes)
    }

    /// What the farmer declared, and what the machine is.
    fn said(&self) -> Facts {
        let Facts {
            country,
            name,
            features,
            ..
        } = self.facts.clone();
        Facts {
            country: country.or_else(|| self.farmer.country.clone()),
            name: name.or_else(|| self.farmer.name.clone()),
            features: if features.is_empty() {
                self.farmer.features.clone()
            } else {
                features
            },
            notes: self.facts.notes.iter().cloned().chain(self.line()).collect(),
            ..self.facts.clone()
        }
        .cut_to_bounds()
    }

    /// What the farmer lets the line carry in a month: who buys knows it before, for it stands in what the node signs.
    fn line(&self) -> Option<String> {
        self.farmer.traffic?;
        let used = self.shared.board.status().traffic?;
        Some(format!(
            "line: {used}, used by all spaces; beyond it 64 kbit/s each until the month ends, periods are still paid"
        ))
    }

    /// The reasons that no free capacity could cure.
    fn filtered_out(&self, asked: &CapacityRequest, wallet: &Account) -> Vec<Reason> {
        let (filters, said) = (&asked.filters, self.said());
        let (rail, asset) = (self.shared.rail.name(), &self.shared.asset);
        let paid_here = asked
            .rails
            .iter()
            .any(|pair| pair.rail == rail && pair.asset == *asset);
        let missing = filters
            .features
            .iter()
            .find(|feature| !said.features.contains(feature));
        let words = |code, words: &str| Reason {
            words: Some(words.to_owned()),
            ..Reason::plain(code)
        };
        let least = |code, asked: u64, least: u64, what: &str| {
            (asked < least).then(|| Reason {
                words: Some(format!("at least {what}")),
                ..Reason::plain(code)
            })
        };
        [
            filters
                .country
                .as_ref()
                .filter(|country| said.country.as_ref() != Some(country))
                .map(|_| {
                    words(
                        DeclineCode::Country,
                        said.country.as_deref().unwrap_or("none is declared"),
                    )
                }),
            filters
                .farmer
                .as_ref()
                .filter(|farmer| *farmer != wallet)
                .map(|_| Reason::plain(DeclineCode::Farmer)),
            missing.map(|feature| words(DeclineCode::Feature, feature)),
            (!paid_here).then(|| words(DeclineCode::Rail, rail.as_str())),
            least(
                DeclineCode::Cpu,
                asked.needs.cpu.0.into(),
                policy::LEAST_CPU.0.into(),
                "0.01 CPU",
            ),
            asked
                .needs
                .rate
                .and_then(|rate| least(DeclineCode::Rate, rate.0, policy::LEAST_RATE.0, "64 kbit/s")),
            least(
                DeclineCode::Memory,
                asked.needs.memory.0,
                policy::LEAST_MEMORY.0,
                "64 MiB",
            ),
            least(
                DeclineCode::Disk,
                asked.needs.disk.0,
                policy::LEAST_DISK.0,
                "128 MiB",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn price(&self, unit: Amount, asked: &CapacityRequest, gives: &Gives) -> Result<Amount, Vec<Reason>> {
        let too_large = || vec![Reason::plain(DeclineCode::Duration)];
        let price = price::of_period(unit, gives.cpu, gives.memory, gives.disk, asked.period)
            .ok_or_else(too_large)?;
        price
            .checked_mul(u64::from(asked.periods()))
            .ok_or_else(too_large)?;
        let hour = price::per_hour(price, asked.period).ok_or_else(too_large)?;
        match asked.max_price_per_hour {
            Some(most) if hour > most => Err(vec![Reason::numbers(DeclineCode::Price, most.0, hour.0)]),
            Some(_) | None => Ok(price),
        }
    }
}
