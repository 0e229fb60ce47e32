//! Whether the node sells, and if not, the first reason: one pure function.
//!
//! The order is the order in which a farmer can do something about it: what stands in
//! the file first, then the disks, then the network and those at its other end.

use inventory::boot;

use crate::console::Selling;

/// Seconds after the agent's start in which what comes by itself is no reason yet.
const PATIENCE_SECONDS: u64 = 25;
/// Seconds after the agent's start in which what is being worked on is no reason yet: within a
/// minute a person reads a sentence.
const WORK_SECONDS: u64 = 50;

/// Something that may still come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Part {
    /// Being looked for; what a person reads meanwhile.
    #[default]
    Waiting,
    /// There.
    Good,
    /// Not there, and it will not come without a person; why.
    Bad(String),
    /// Not there; it may come by itself; why not yet.
    Absent(String),
}

/// Everything that selling needs, in the order in which it is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// The medium and `farmer.toml`.
    pub farmer_file: Part,
    /// A wallet.
    pub wallet: Part,
    /// A price.
    pub price: Part,
    /// A disk that is ours.
    pub disks: Part,
    /// That no other machine acts for this node.
    pub seat: Part,
    /// Journal, identity and the machinery of spaces.
    pub state: Part,
    /// The base file system on a disk of ours.
    pub base: Part,
    /// A way out.
    pub network: Part,
    /// Others.
    pub grid: Part,
    /// The rail.
    pub ledger: Part,
    /// The time.
    pub clock: Part,
    /// The desk that answers requests.
    pub desk: Part,
    /// The month's traffic: good until all that the farmer allows is used.
    pub traffic: Part,
}

impl Readiness {
    fn parts(&self) -> [(&'static str, &Part); 13] {
        [
            ("reading farmer.toml", &self.farmer_file),
            ("reading farmer.toml", &self.wallet),
            ("reading farmer.toml", &self.price),
            ("looking at the disks", &self.disks),
            // Before what asks over it: else who has no address is told that the grid does not answer.
            ("waiting for the network", &self.network),
            ("asking the grid for this node's seat", &self.seat),
            ("opening the journal", &self.state),
            ("copying the base", &self.base),
            ("joining the grid", &self.grid),
            ("asking the ledger", &self.ledger),
            ("asking for the time", &self.clock),
            ("opening the desk", &self.desk),
            ("counting the month's traffic", &self.traffic),
        ]
    }

    /// The parts of the way that are gone.
    pub(super) fn gone(&self) -> impl Iterator<Item = boot::Part> {
        [
            (&self.farmer_file, boot::Part::Medium),
            (&self.disks, boot::Part::Disks),
            (&self.seat, boot::Part::Seat),
            (&self.state, boot::Part::Journal),
            (&self.base, boot::Part::Base),
            (&self.network, boot::Part::Network),
            (&self.grid, boot::Part::Grid),
            (&self.ledger, boot::Part::Ledger),
            (&self.clock, boot::Part::Clock),
            (&self.desk, boot::Part::Desk),
            (&self.traffic, boot::Part::Traffic),
        ]
        .into_iter()
        .filter(|(part, _)| **part == Part::Good)
        .map(|(_, gone)| gone)
    }

    /// The verdict at so many seconds after the agent's start.
    #[must_use]
    pub fn verdict(&self, seconds: u64) -> Selling {
        let impatient = seconds >= PATIENCE_SECONDS;
        let mut starting = false;
        for (doing, part) in self.parts() {
            match part {
                Part::Good => {}
                Part::Bad(why) => return Selling::No(why.clone()),
                Part::Absent(why) if impatient => return Selling::No(why.clone()),
                Part::Waiting if seconds >= WORK_SECONDS => {
                    return Selling::No(format!("still {doing}"));
                }
                Part::Absent(_) | Part::Waiting => starting = true,
            }
        }
        if starting { Selling::Starting } else { Selling::Yes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_good() -> Readiness {
        let good = || Part::Good;
        Readiness {
            farmer_file: good(),
            wallet: good(),
            price: good(),
            disks: good(),
            seat: good(),
            state: good(),
            base: good(),
            network: good(),
            grid: good(),
            ledger: good(),
            clock: good(),
            desk: good(),
            traffic: good(),
        }
    }

    #[test]
    fn everything_good_sells_and_nothing_less() {
        assert_eq!(all_good().verdict(3), Selling::Yes);
        let spoil: [fn(&mut Readiness) -> &mut Part; 13] = [
            |r| &mut r.farmer_file,
            |r| &mut r.wallet,
            |r| &mut r.price,
            |r| &mut r.disks,
            |r| &mut r.seat,
            |r| &mut r.state,
            |r| &mut r.base,
            |r| &mut r.network,
            |r| &mut r.grid,
            |r| &mut r.ledger,
            |r| &mut r.clock,
            |r| &mut r.desk,
            |r| &mut r.traffic,
        ];
        for pick in spoil {
            for part in [Part::Waiting, Part::Absent("x".into()), Part::Bad("x".into())] {
                let mut readiness = all_good();
                *pick(&mut readiness) = part;
                assert_ne!(readiness.verdict(3), Selling::Yes);
                assert!(
                    matches!(readiness.verdict(100), Selling::No(_)),
                    "a sentence within the minute"
                );
            }
        }
    }

    #[test]
    fn the_first_reason_that_a_person_can_mend_wins() {
        let mut readiness = all_good();
        readiness.clock = Part::Absent("clock unknown".into());
        assert_eq!(readiness.verdict(3), Selling::Starting);
        assert_eq!(readiness.verdict(30), Selling::No("clock unknown".into()));
        readiness.wallet = Part::Bad("no wallet".into());
        assert_eq!(readiness.verdict(3), Selling::No("no wallet".into()));
        assert_eq!(Readiness::default().verdict(30), Selling::Starting);
        assert_eq!(
            Readiness::default().verdict(50),
            Selling::No("still reading farmer.toml".into())
        );
    }

    #[test]
    fn without_a_network_nobody_is_told_that_the_grid_does_not_answer() {
        let mut lacks = all_good();
        lacks.seat = Part::Absent("grid: its first peer does not answer".into());
        lacks.network = Part::Absent("no address from the network".into());
        let said = lacks.verdict(PATIENCE_SECONDS);
        assert_eq!(said, Selling::No("no address from the network".into()));
        lacks.network = Part::Good;
        assert!(matches!(lacks.verdict(PATIENCE_SECONDS), Selling::No(why) if why.starts_with("grid: ")));
    }
}
