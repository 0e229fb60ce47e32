//! Who sits: the rule as one pure machine. No clock, no connection: times and streams come in as numbers.
//!
//! ```text
//!                 ┌────────── left: its stream has ended ─────────────┐
//!                 ▼                                                   │
//!   asks ─► free ─► granted ─────────────────────────────────► taken by (instance, since, stream)
//!   asks ─► taken ─┬─ the same instance ─► granted; its older stream is closed
//!                  ├─ sat before it ─────► granted; the other is refused, for good
//!                  └─ else ──────────────► the holder is called ─┬─ answers ─► refused
//!                                                                └─ silent ──► granted; the other's stream is closed
//! ```
//!
//! Invariants: one stream sits for a node at a time; who sat first and is alive keeps the seat, or gets it back, whatever
//! was forgotten here; nobody is refused but for one that answered or that sat before; seats are bounded, and beyond
//! the bound everybody is granted one that is not remembered: a flood makes copies unseen, and keeps no node from selling.

use std::collections::HashMap;

/// Calls of one holder at a time: beyond, who asks is refused without one.
const MOST_CALLS: usize = 2;

/// A stream's number.
pub(crate) type Stream = u64;

/// Who would sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) instance: [u8; 16],
    /// Since when it has had the seat, on the clock of whoever keeps the rule: before its start, even.
    pub(crate) since_ms: i64,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It sits.
    Granted(Granted),
    /// Whether the holder is there has to be found out; then [`Seats::judge`].
    Call(Stream),
    /// Another sits, since then.
    Refused { since_ms: i64 },
}

/// A granted seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    /// Nobody sat.
    Free,
    /// There is no room to remember it.
    Unkept,
    /// It sits in place of this stream, which is closed: its own older one, or that of one who is silent.
    InPlaceOf(Stream),
    /// It sits in place of this stream, whose end is alive and came later: it is told that it is refused.
    Before(Stream),
}

#[derive(Debug, Clone)]
struct Seat {
    holder: Claim,
    stream: Stream,
    calls: usize,
}

/// All seats.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: HashMap<[u8; 32], Seat>,
    most: usize,
}

impl Seats {
    /// So many are remembered at most.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            taken: HashMap::new(),
            most,
        }
    }

    /// Somebody asks for a node's seat, over a stream.
    pub(crate) fn ask(&mut self, node: [u8; 32], claim: Claim, stream: Stream) -> Step {
        let room = self.taken.len() < self.most;
        let Some(seat) = self.taken.get_mut(&node) else {
            if room {
                self.sit(node, claim, stream);
            }
            return Step::Granted(if room { Granted::Free } else { Granted::Unkept });
        };
        let since_ms = seat.holder.since_ms;
        if seat.holder.instance == claim.instance {
            let since_ms = since_ms.min(claim.since_ms);
            let older = seat.stream;
            self.sit(node, Claim { since_ms, ..claim }, stream);
            return Step::Granted(Granted::InPlaceOf(older));
        }
        if claim.since_ms < since_ms {
            let other = seat.stream;
            self.sit(node, claim, stream);
            return Step::Granted(Granted::Before(other));
        }
        if seat.calls >= MOST_CALLS {
            return Step::Refused { since_ms };
        }
        seat.calls += 1;
        Step::Call(seat.stream)
    }

    /// The stream that was called has answered, or it has not.
    pub(crate) fn judge(
        &mut self,
        node: [u8; 32],
        claim: Claim,
        stream: Stream,
        called: Stream,
        answered: bool,
    ) -> Step {
        match self.taken.get_mut(&node) {
            Some(seat) if seat.stream == called => {
                seat.calls = seat.calls.saturating_sub(1);
                if answered {
                    let since_ms = seat.holder.since_ms;
                    return Step::Refused { since_ms };
                }
                self.sit(node, claim, stream);
                Step::Granted(Granted::InPlaceOf(called))
            }
            // Somebody else sits by now, or nobody.
            _ => self.ask(node, claim, stream),
        }
    }

    /// A stream has ended.
    pub(crate) fn left(&mut self, node: [u8; 32], stream: Stream) {
        if self.taken.get(&node).is_some_and(|seat| seat.stream == stream) {
            self.taken.remove(&node);
        }
    }

    fn sit(&mut self, node: [u8; 32], holder: Claim, stream: Stream) {
        let seat = Seat {
            holder,
            stream,
            calls: 0,
        };
        self.taken.insert(node, seat);
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    const NODE: [u8; 32] = [4; 32];

    fn claim(instance: u8, since_ms: i64) -> Claim {
        Claim {
            instance: [instance; 16],
            since_ms,
        }
    }

    #[test]
    fn a_copy_is_refused_while_the_other_answers_and_sits_when_it_does_not() {
        let mut seats = Seats::new(9);
        assert_eq!(seats.ask(NODE, claim(1, 100), 1), Step::Granted(Granted::Free));
        assert_eq!(seats.ask(NODE, claim(2, 200), 2), Step::Call(1));
        let refused = seats.judge(NODE, claim(2, 200), 2, 1, true);
        assert_eq!(refused, Step::Refused { since_ms: 100 });
        assert_eq!(seats.ask(NODE, claim(2, 300), 3), Step::Call(1));
        let granted = seats.judge(NODE, claim(2, 300), 3, 1, false);
        assert_eq!(granted, Step::Granted(Granted::InPlaceOf(1)));
        // it was only off the network: it was there before, so it sits again
        assert_eq!(
            seats.ask(NODE, claim(1, 100), 4),
            Step::Granted(Granted::Before(3))
        );
        // and the end of streams that sit no more frees nothing
        seats.left(NODE, 3);
        assert_eq!(seats.taken(), 1);
        seats.left(NODE, 4);
        assert_eq!(seats.taken(), 0);
    }

    #[test]
    fn beyond_the_bound_nobody_is_refused_and_nothing_grows() {
        let mut seats = Seats::new(3);
        for number in 0..1000u64 {
            let mut node = [0; 32];
            node[..8].copy_from_slice(&number.to_be_bytes());
            let step = seats.ask(node, claim(1, 0), number);
            assert!(matches!(step, Step::Granted(_)), "{step:?}");
        }
        assert_eq!(seats.taken(), 3);
        // who sat before the flood is protected still
        assert_eq!(seats.ask([0; 32], claim(99, 9), 9999), Step::Call(0));
    }

    #[test]
    fn calls_of_one_holder_are_bounded() {
        let mut seats = Seats::new(9);
        seats.ask(NODE, claim(1, 0), 1);
        let asked: Vec<Step> = (2..6).map(|n| seats.ask(NODE, claim(n, 9), n.into())).collect();
        let no = Step::Refused { since_ms: 0 };
        assert_eq!(asked, [Step::Call(1), Step::Call(1), no, no]);
        seats.judge(NODE, claim(2, 9), 2, 1, true);
        assert_eq!(
            seats.ask(NODE, claim(6, 9), 6),
            Step::Call(1),
            "there is room again"
        );
    }

    /// What happens to machines that have one key.
    #[derive(Debug, Clone)]
    enum Act {
        /// A machine asks, at a later time.
        Asks(u8),
        /// Its power is cut; it comes back as another instance.
        Dies(u8),
        /// Its connection ends; it lives.
        Drops(u8),
        /// The rule is forgotten.
        Restart,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0u8..4).prop_map(Act::Asks),
            2 => (0u8..4).prop_map(Act::Dies),
            2 => (0u8..4).prop_map(Act::Drops),
            1 => Just(Act::Restart),
        ]
    }

    /// A machine as it knows itself.
    #[derive(Debug, Clone, Default)]
    struct Machine {
        life: u8,
        since: Option<i64>,
        /// The stream over which it was granted, while it has not ended.
        stream: Option<Stream>,
        refused: bool,
    }

    proptest! {
        /// Whatever order: at most one sits, the eldest that is alive and connected keeps the seat, a refusal names one
        /// that is alive, and who asks alone sits.
        #[test]
        fn one_sits_and_it_is_the_eldest(acts in proptest::collection::vec(act(), 1..60)) {
            let mut seats = Seats::new(9);
            let mut machines: BTreeMap<u8, Machine> = (0..4).map(|n| (n, Machine::default())).collect();
            let (mut now, mut streams) = (0i64, 0u64);
            // streams that nobody is at the end of, of machines whose power was cut
            let mut dead: BTreeSet<Stream> = BTreeSet::new();
            for act in acts {
                now += 10;
                match act {
                    Act::Asks(n) => {
                        let machine = machines[&n].clone();
                        if machine.refused { continue }
                        streams += 1;
                        let stream = streams;
                        let claim = Claim {
                            instance: [n * 64 + machine.life; 16],
                            since_ms: machine.since.unwrap_or(now),
                        };
                        let holders: Vec<u8> = machines.iter()
                            .filter(|(m, other)| **m != n && other.stream.is_some())
                            .map(|(m, _)| *m).collect();
                        let mut step = seats.ask(NODE, claim, stream);
                        while let Step::Call(called) = step {
                            let alive = machines.values().any(|other| other.stream == Some(called));
                            prop_assert!(alive || dead.contains(&called));
                            step = seats.judge(NODE, claim, stream, called, alive);
                        }
                        match step {
                            Step::Granted(how) => {
                                let others = holders.iter().filter(|m| machines[m].since < Some(claim.since_ms));
                                prop_assert_eq!(others.count(), 0, "an elder one that is alive lost it");
                                if let Granted::Before(other) = how {
                                    for machine in machines.values_mut().filter(|m| m.stream == Some(other)) {
                                        prop_assert!(machine.since > Some(claim.since_ms));
                                        (machine.stream, machine.refused) = (None, true);
                                    }
                                }
                                let machine = machines.get_mut(&n).unwrap();
                                machine.since.get_or_insert(now);
                                machine.stream = Some(stream);
                            }
                            Step::Refused { since_ms } => {
                                let who = holders.iter().find(|m| machines[m].since == Some(since_ms));
                                prop_assert!(who.is_some(), "refused for nobody");
                                machines.get_mut(&n).unwrap().refused = true;
                            }
                            Step::Call(_) => unreachable!(),
                        }
                    }
                    Act::Dies(n) => {
                        let machine = machines.get_mut(&n).unwrap();
                        dead.extend(machine.stream);
                        *machine = Machine { life: (machine.life + 1) % 64, ..Machine::default() };
                    }
                    Act::Drops(n) => {
                        if let Some(stream) = machines.get_mut(&n).unwrap().stream.take() {
                            seats.left(NODE, stream);
                        }
                    }
                    Act::Restart => {
                        seats = Seats::new(9);
                        machines.values_mut().for_each(|machine| machine.stream = None);
                        dead.clear();
                    }
                }
                prop_assert!(machines.values().filter(|machine| machine.stream.is_some()).count() <= 1);
                prop_assert!(seats.taken() <= 1);
            }
        }
    }
}
