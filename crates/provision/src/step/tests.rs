//! The engine against a machine in memory, with steps that fail at every point.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use market::id::SaleId;
use proptest::prelude::*;

use super::*;

/// What one step does at its next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// `ensure` fails before it changed anything.
    Early,
    /// `ensure` fails when half of it is there.
    Half,
    /// `ensure` fails when all of it is there.
    Late,
}

/// The machine: how much of each step is there (0 none, 1 half, 2 all), and all calls in order.
#[derive(Default)]
struct Machine {
    there: Mutex<BTreeMap<&'static str, u8>>,
    calls: Mutex<Vec<String>>,
}

impl Machine {
    fn set(&self, name: &'static str, much: u8) {
        self.there.lock().unwrap().insert(name, much);
    }
    fn get(&self, name: &'static str) -> u8 {
        self.there.lock().unwrap().get(name).copied().unwrap_or(0)
    }
    fn call(&self, what: &str, name: &str) {
        self.calls.lock().unwrap().push(format!("{what} {name}"));
    }
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

struct Fake {
    name: &'static str,
    fault: Fault,
    undo_fails: bool,
}

#[async_trait]
impl Step<Machine> for Fake {
    fn name(&self) -> &'static str {
        self.name
    }
    async fn ensure(&self, _: &SaleId, machine: &Machine) -> Result<(), Cause> {
        machine.call("ensure", self.name);
        match self.fault {
            Fault::Early => return Err("early".into()),
            Fault::Half => {
                machine.set(self.name, 1);
                return Err("half".into());
            }
            Fault::Late => {
                machine.set(self.name, 2);
                return Err("late".into());
            }
            Fault::None => machine.set(self.name, 2),
        }
        Ok(())
    }
    async fn ensure_absent(&self, _: &SaleId, machine: &Machine) -> Result<(), Cause> {
        machine.call("absent", self.name);
        if self.undo_fails {
            return Err("stuck".into());
        }
        machine.set(self.name, 0);
        Ok(())
    }
}

/// Records in memory; from write number `dies_at` on, every write fails, as a full disk does.
#[derive(Default)]
struct Memory {
    records: Mutex<Vec<(&'static str, StepState)>>,
    writes: Mutex<usize>,
    dies_at: Option<usize>,
}

#[async_trait]
impl StepLog for Memory {
    async fn record(&self, _: &SaleId, step: &'static str, state: StepState) -> Result<(), Cause> {
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        if self.dies_at.is_some_and(|at| *writes >= at) {
            return Err("log is full".into());
        }
        let mut records = self.records.lock().unwrap();
        records.retain(|(name, _)| *name != step);
        records.push((step, state));
        Ok(())
    }
    async fn records(&self, _: &SaleId) -> Result<Vec<StepRecord>, Cause> {
        let records = self.records.lock().unwrap();
        Ok(records
            .iter()
            .map(|(s, state)| StepRecord {
                step: (*s).into(),
                state: state.clone(),
            })
            .collect())
    }
}

impl Memory {
    fn state(&self, step: &str) -> Option<StepState> {
        self.records
            .lock()
            .unwrap()
            .iter()
            .find(|(name, _)| *name == step)
            .map(|(_, s)| s.clone())
    }
}

const NAMES: [&str; 5] = ["volume", "mount", "files", "network", "process"];

fn table(faults: &[(Fault, bool)]) -> Table<Machine> {
    let steps = NAMES.iter().zip(faults);
    Table::new(
        steps
            .map(|(name, (fault, undo_fails))| {
                Box::new(Fake {
                    name,
                    fault: *fault,
                    undo_fails: *undo_fails,
                }) as Box<dyn Step<Machine>>
            })
            .collect(),
    )
    .unwrap()
}

fn good() -> Table<Machine> {
    table(&[(Fault::None, false); 5])
}

fn sale() -> SaleId {
    SaleId::from([7; 32])
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn runs_in_order_and_tears_down_in_reverse() {
    let (machine, log) = (Machine::default(), Memory::default());
    block(good().run(&log, &sale(), &machine)).unwrap();
    assert!(NAMES.iter().all(|n| machine.get(n) == 2));
    assert!(NAMES.iter().all(|n| log.state(n) == Some(StepState::Applied)));
    block(good().tear_down(&log, &sale(), &machine)).unwrap();
    let calls = machine.calls();
    assert_eq!(
        calls[5..],
        [
            "absent process",
            "absent network",
            "absent files",
            "absent mount",
            "absent volume"
        ]
    );
    assert!(NAMES.iter().all(|n| machine.get(n) == 0));
    block(good().tear_down(&log, &sale(), &machine)).unwrap();
    assert_eq!(machine.calls().len(), 10, "a second teardown finds nothing to do");
}

#[test]
fn a_failed_undo_is_told_and_the_undo_goes_on() {
    let (machine, log) = (Machine::default(), Memory::default());
    let faults = [
        (Fault::None, false),
        (Fault::None, true),
        (Fault::None, false),
        (Fault::Half, true),
        (Fault::None, false),
    ];
    let error = block(table(&faults).run(&log, &sale(), &machine)).unwrap_err();
    let RunError::Quarantined { step, cause, undo } = &error else {
        panic!("{error}")
    };
    assert_eq!((*step, cause.to_string().as_str()), ("network", "half"));
    assert_eq!(
        undo.iter().map(|u| u.step).collect::<Vec<_>>(),
        ["network", "mount"]
    );
    assert_eq!(machine.get("volume"), 0, "what could be undone is undone");
    assert_eq!(
        log.state("mount"),
        Some(StepState::UndoFailed {
            cause: "stuck".into()
        })
    );
    assert!(error.to_string().contains("mount: stuck"), "{error}");
    // Later it can be tried again, by the record alone.
    block(good().tear_down(&log, &sale(), &machine)).unwrap();
    assert!(NAMES.iter().all(|n| machine.get(n) == 0));
}

#[test]
fn a_run_from_the_middle_leaves_what_is_below() {
    let (machine, log) = (Machine::default(), Memory::default());
    let error = block(good().run_from(&log, &sale(), &machine, "mount")).unwrap_err();
    assert!(
        matches!(error, RunError::NotApplied { step: "volume", .. }),
        "{error}"
    );
    assert!(machine.calls().is_empty());

    block(good().run(&log, &sale(), &machine)).unwrap();
    block(good().tear_down_to(&log, &sale(), &machine, "mount")).unwrap();
    assert_eq!((machine.get("volume"), machine.get("mount")), (2, 0));
    let mut faults = [(Fault::None, false); 5];
    faults[3].0 = Fault::Half;
    let error = block(table(&faults).run_from(&log, &sale(), &machine, "mount")).unwrap_err();
    assert!(
        matches!(error, RunError::Undone { step: "network", .. }),
        "{error}"
    );
    assert_eq!(
        machine.get("volume"),
        2,
        "a user's volume outlives a network that failed"
    );
    assert!(NAMES[1..].iter().all(|n| machine.get(n) == 0));
    block(good().run_from(&log, &sale(), &machine, "mount")).unwrap();
    assert!(NAMES.iter().all(|n| machine.get(n) == 2));
}

#[test]
fn two_steps_of_one_name_are_refused() {
    let step = || {
        Box::new(Fake {
            name: "volume",
            fault: Fault::None,
            undo_fails: false,
        }) as Box<dyn Step<Machine>>
    };
    let refused = Table::new(vec![step(), step()]).unwrap_err();
    assert!(matches!(refused, TableError::Name("volume")), "{refused}");
}

/// A step that waits for these alone, and notes when it begins and ends; `network` and `mount` meet in the middle.
struct Beside {
    name: &'static str,
    after: &'static [&'static str],
    key: bool,
    meets: Option<Arc<tokio::sync::Barrier>>,
}

#[async_trait]
impl Step<Machine> for Beside {
    fn name(&self) -> &'static str {
        self.name
    }
    fn after(&self) -> Option<&'static [&'static str]> {
        Some(self.after)
    }
    fn needs_key(&self) -> bool {
        self.key
    }
    async fn ensure(&self, _: &SaleId, machine: &Machine) -> Result<(), Cause> {
        machine.call("ensure", self.name);
        if let Some(meets) = &self.meets {
            meets.wait().await;
        }
        machine.set(self.name, 2);
        Ok(())
    }
    async fn ensure_absent(&self, _: &SaleId, machine: &Machine) -> Result<(), Cause> {
        machine.call("absent", self.name);
        machine.set(self.name, 0);
        Ok(())
    }
}

fn beside() -> Table<Machine> {
    let meets = Arc::new(tokio::sync::Barrier::new(2));
    let step = |name, after, key, meets| {
        Box::new(Beside {
            name,
            after,
            key,
            meets,
        }) as Box<dyn Step<Machine>>
    };
    Table::new(vec![
        step("volume", &[], false, None),
        step("mount", &["volume"], false, Some(meets.clone())),
        step("files", &["mount"], true, None),
        step("network", &[], false, Some(meets)),
        step("process", &["files", "network"], false, None),
    ])
    .unwrap()
}

#[test]
fn steps_that_wait_for_nothing_of_each_other_run_at_the_same_time() {
    let (machine, log) = (Machine::default(), Memory::default());
    // Were they one after the other, the first would wait for the second for ever.
    block(beside().run(&log, &sale(), &machine)).unwrap();
    assert!(NAMES.iter().all(|n| machine.get(n) == 2));
    assert_eq!(machine.calls().last().unwrap(), "ensure process");
}

#[test]
fn what_needs_no_key_is_made_ahead_once_and_undone_with_the_rest() {
    let (machine, log, table) = (Machine::default(), Memory::default(), beside());
    let made = block(table.prepare(&log, &sale(), &machine)).unwrap();
    let there: Vec<_> = NAMES.iter().filter(|n| machine.get(n) == 2).collect();
    assert_eq!(
        there,
        [&"volume", &"mount", &"network"],
        "process waits for what needs the key"
    );
    let times = block(table.run_after(&log, &sale(), &machine, &made)).unwrap();
    assert_eq!(
        (machine.calls().len(), times.len()),
        (5, 5),
        "nothing is made twice"
    );
    block(table.tear_down(&log, &sale(), &machine)).unwrap();
    assert!(NAMES.iter().all(|n| machine.get(n) == 0));

    let made = block(table.prepare(&log, &sale(), &machine)).unwrap();
    let full = Memory {
        records: Mutex::new(log.records.lock().unwrap().clone()),
        dies_at: Some(1),
        ..Memory::default()
    };
    block(table.run_after(&full, &sale(), &machine, &made)).unwrap_err();
    assert!(
        NAMES.iter().all(|n| machine.get(n) == 0),
        "what was made ahead stays"
    );
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![3 => Just(Fault::None), 1 => Just(Fault::Early), 1 => Just(Fault::Half), 1 => Just(Fault::Late)]
}

proptest! {
    /// Whatever fails, what is on the machine is what the log says, and a later teardown with
    /// steps that work leaves nothing.
    #[test]
    fn nothing_leaks(
        faults in proptest::collection::vec((fault(), proptest::bool::weighted(0.2)), 5),
        dies_at in proptest::option::of(1_usize..20),
    ) {
        let machine = Machine::default();
        let log = Memory { dies_at, ..Memory::default() };
        let result = block(table(&faults).run(&log, &sale(), &machine));
        for name in NAMES {
            let may_be_there = log.state(name).is_some_and(|s| s.may_be_there());
            prop_assert!(machine.get(name) == 0 || may_be_there, "{name} is there and the log does not know");
        }
        match &result {
            Ok(_) => prop_assert!(NAMES.iter().all(|n| machine.get(n) == 2)),
            Err(RunError::Undone { .. }) => prop_assert!(NAMES.iter().all(|n| machine.get(n) == 0)),
            Err(RunError::Quarantined { undo, .. }) => {
                prop_assert!(!undo.is_empty());
                for name in NAMES {
                    prop_assert!(machine.get(name) == 0 || undo.iter().any(|u| u.step == name));
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        // The disk has room again, the steps work: by the log alone, nothing stays.
        let log = Memory { records: Mutex::new(log.records.into_inner().unwrap()), ..Memory::default() };
        block(good().tear_down(&log, &sale(), &machine)).unwrap();
        prop_assert!(NAMES.iter().all(|n| machine.get(n) == 0));
    }

    /// A power cut is a future that is dropped at any await, here at any write of the log.
    #[test]
    fn a_power_cut_anywhere_is_undone_or_gone_on_from(cut_at in 1_usize..11, go_on in any::<bool>()) {
        let machine = Machine::default();
        let log = Cut { inner: Memory::default(), cut_at };
        let cut = block(async {
            tokio::select! {
                biased;
                result = async { let table = good(); table.run(&log, &sale(), &machine).await } => Some(result),
                () = std::future::ready(()) => None,
            }
        });
        prop_assert!(cut.is_none(), "the cut comes before the end");
        if go_on {
            block(good().run(&log.inner, &sale(), &machine)).unwrap();
            prop_assert!(NAMES.iter().all(|n| machine.get(n) == 2));
        } else {
            block(good().tear_down(&log.inner, &sale(), &machine)).unwrap();
            prop_assert!(NAMES.iter().all(|n| machine.get(n) == 0));
        }
    }
}

/// A log that never answers its write number `cut_at`: after it, in odd numbers, before it, in even.
struct Cut {
    inner: Memory,
    cut_at: usize,
}

#[async_trait]
impl StepLog for Cut {
    async fn record(&self, sale: &SaleId, step: &'static str, state: StepState) -> Result<(), Cause> {
        let number = *self.inner.writes.lock().unwrap() + 1;
        if number == self.cut_at && number.is_multiple_of(2) {
            std::future::pending::<()>().await;
        }
        self.inner.record(sale, step, state).await?;
        if number == self.cut_at {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn records(&self, sale: &SaleId) -> Result<Vec<StepRecord>, Cause> {
        self.inner.records(sale).await
    }
}
