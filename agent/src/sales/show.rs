//! What the farmer sees of a sale: one line a space, one line an event.

use market::message::{Candidate, SaleState};
use market::price;
use market::quantity::{Bytes, Seconds};
use market::sale::Say;

use super::boot_ms;
use super::keeper::Task;
use crate::console;

impl Task {
    /// Ways into the space, the best first.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let straight = match (&self.shared.public_address, self.record.spec.public_port) {
            (Some(host), Some(port)) => Some(Candidate::Tcp {
                host: host.clone(),
                port,
            }),
            _ => None,
        };
        straight.into_iter().chain([Candidate::Grid]).collect()
    }

    pub(super) fn say_sold(&self) {
        let deal = &self.record.sale.deal;
        let whole = Seconds(deal.period.0.saturating_mul(u64::from(deal.periods)));
        let hour = price::per_hour(deal.prices.price, deal.period).unwrap_or(deal.prices.price);
        let (name, hour) = (&self.record.spec.name, self.shared.decimal(hour));
        self.shared
            .board
            .event(format!("sold {name}: {} at {hour} an hour", whole.human()));
    }

    pub(super) fn say(&self, say: Say) {
        let name = &self.record.spec.name;
        let text = match say {
            Say::Ready => {
                let took_ms = boot_ms().saturating_sub(self.began_ms);
                format!("{name} ready in {}.{} s", took_ms / 1000, took_ms % 1000 / 100)
            }
            Say::Active => format!("{name} active"),
            Say::Locked => format!("{name} locked: waits for its user's key"),
            Say::Down => {
                format!("{name} is down: it is started again, for 10 minutes at most; no time is counted")
            }
            Say::GaveUp => {
                format!(
                    "{name} does not start again: locked, its user's key starts it anew; no time is counted"
                )
            }
            Say::Up => format!("{name} runs again"),
            Say::Ended => format!("{name} ended: {}", self.record.sale.words()),
        };
        self.shared.board.event(text);
    }

    /// The lines of the screen that this sale touches.
    pub(super) fn show(&self) {
        let sale = &self.record.sale;
        let spec = &self.record.spec;
        self.shared.earned(sale.deal.id, sale.lock.paid);
        let line = console::Space {
            sale: sale.deal.id.0,
            name: spec.name.clone(),
            size: format!(
                "{:<8}  {:<7}  {}",
                spec.cpu.human(),
                spec.memory.human(),
                spec.disk.human()
                    + if spec.snapshot > Bytes::ZERO {
                        " + snapshot"
                    } else {
                        ""
                    }
            ),
            state: self.state_words(),
        };
        let gone =
            sale.state.is_final() && sale.state != SaleState::Quarantined || sale.state == SaleState::Agreed;
        self.shared.board.update(|status| {
            status.spaces.retain(|space| space.sale != line.sale);
            if !gone {
                status.spaces.push(line);
                status
                    .spaces
                    .sort_by(|one, other| (&one.name, one.sale).cmp(&(&other.name, other.sale)));
            }
        });
    }

    /// What there is to say about how it stands.
    pub(super) fn words(&self) -> String {
        let failed = self
            .not_unlocked
            .as_ref()
            .filter(|_| self.record.sale.state == SaleState::Locked);
        if let (true, Some(words)) = (failed.is_none(), self.down_words()) {
            return words.to_owned();
        }
        if let Some(words) = self.restoring_words() {
            return words;
        }
        match (failed, &self.not_resized) {
            (Some(why), _) => format!("not unlocked: {why}"),
            (None, Some(why)) if self.record.sale.resizing.is_some() => format!("not resized: {why}"),
            (None, _) => self.record.sale.words(),
        }
    }

    /// What there is to say of a space that is down, or did not come back from it.
    fn down_words(&self) -> Option<&'static str> {
        match self.record.sale.state {
            _ if !self.record.sale.down => None,
            SaleState::Ready | SaleState::Active => Some(
                "the space is down and is started again, for 10 minutes at most: then its unlock key is asked for; no time is counted",
            ),
            SaleState::Locked => Some(
                "the space did not start again and is locked: its unlock key starts it anew; no time is counted",
            ),
            _ => None,
        }
    }

    fn state_words(&self) -> String {
        let sale = &self.record.sale;
        match (sale.state, sale.paid_until(self.now())) {
            (SaleState::Ready | SaleState::Active, _) if sale.down => "down, is started again".to_owned(),
            (SaleState::Active, Some(until)) => {
                let (seconds, day) = (until.0 / 1000, 86_400);
                format!(
                    "active, paid until {:02}:{:02} UTC",
                    seconds % day / 3600,
                    seconds % 3600 / 60
                )
            }
            (SaleState::Locked, _) if self.is_being_restored() => "its snapshot is put back".to_owned(),
            (SaleState::Locked, _) => "locked, waits for its key".to_owned(),
            (SaleState::Quarantined, _) => "quarantined: see the events".to_owned(),
            (state, _) => state.word().to_owned(),
        }
    }
}
