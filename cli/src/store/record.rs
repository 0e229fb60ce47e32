//! How far the client got with a sale: written after every step, so that the next command can
//! finish the sale or undo it.

use std::collections::BTreeMap;

use escrow::Amount;
use market::message::SaleState;
use serde::{Deserialize, Serialize};

/// The last step that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The user signed; whether the node did is not known here.
    Agreeing,
    /// Both signed.
    Agreed,
    /// The money is locked.
    Funded,
    /// The grant is here and its host key pinned; the unlock key went out.
    Keyed,
    /// The node says that the space is ready.
    Ready,
    /// The proof held.
    Proven,
    /// The first voucher was accepted.
    Active,
    /// A cancel was asked for; the money is not back yet.
    Ending,
    /// Over.
    Ended,
}

impl Step {
    /// As `spaces` says it, where the node could not be asked.
    pub fn words(self) -> &'static str {
        match self {
            Step::Agreeing => "agreeing",
            Step::Agreed => "agreed, not locked",
            Step::Funded => "funded",
            Step::Keyed => "building",
            Step::Ready => "ready, not proven",
            Step::Proven => "proven, not paid",
            Step::Active => "active",
            Step::Ending => "ending",
            Step::Ended => "ended",
        }
    }
}

/// What the client saw from inside the space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Who one is inside: 0.
    pub uid: u32,
    /// Who that is on the node.
    pub outside_uid: u32,
    /// `cpu.max`, as the kernel writes it.
    pub cpu_max: String,
    /// `memory.max`, in bytes.
    pub memory_max: String,
    /// `pids.max`.
    pub pids_max: String,
    /// Size of the file system at `/`.
    pub volume_bytes: u64,
    /// SHA-256 of the base, hex.
    pub base_digest: String,
}

/// The record of one sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What people call the space.
    pub name: String,
    /// The last step that is done.
    pub step: Step,
    /// When it began, unix milliseconds of this machine.
    pub begun_ms: u64,
    /// The grid's ticket, as this machine reaches it.
    pub grid: String,
    /// The ledger's address, as this machine reaches it.
    pub ledger: String,
    /// Where the node was last reached: its endpoint address, hex.
    pub node_address: String,
    /// How many periods are signed ahead.
    pub ahead: u32,
    /// Periods for which vouchers were signed, from the first on.
    pub vouchers_signed: u32,
    /// Of those, how many the node has acknowledged, from the first on.
    #[serde(default)]
    pub vouchers_sent: u32,
    /// It came back from a backup: the node may have what both signed since.
    #[serde(default)]
    pub from_backup: bool,
    /// When the first voucher was accepted, by the rail's clock.
    pub active_since_ms: Option<u64>,
    /// All periods, extensions included.
    pub periods: u32,
    /// Changes that both signed.
    pub amendments: u32,
    /// The epoch of the newest grant that was answered.
    pub epoch: u64,
    /// The space's SSH host key, as known_hosts writes it; after the first good proof it never
    /// changes.
    pub host_key: Option<String>,
    /// Lines of authorized_keys beside the client's own.
    pub ssh_keys: Vec<String>,
    /// A TCP address at which SSH is reached without the grid.
    pub tcp: Option<String>,
    /// What the proof saw.
    pub inside: Option<Inside>,
    /// What the node said last, and when (this machine's clock).
    pub heard: Option<Heard>,
    /// The restore that was asked of the node and is not seen through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<[u8; 16]>,
    /// Unix milliseconds of this machine at each step.
    pub times: BTreeMap<String, u64>,
}

/// The node's last word on the sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its state, in the design's word.
    pub state: String,
    /// Why, in its words.
    pub why: Option<String>,
    /// Until when it is paid, unix milliseconds.
    pub paid_until_ms: Option<u64>,
    /// Paid in all.
    pub paid: Amount,
    /// Periods paid.
    pub periods_paid: u32,
    /// When the snapshot of its volume was taken, where there is one.
    #[serde(default)]
    pub snapshot_ms: Option<u64>,
}

impl Record {
    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.step == Step::Ended
    }

    /// Whether the proof has held once.
    pub fn is_proven(&self) -> bool {
        self.inside.is_some()
    }

    /// Moves on to `step` (never back from the end) and notes when.
    pub fn reach(&mut self, step: Step, moment: &str, now_ms: u64) {
        self.step = step;
        self.times.entry(moment.to_owned()).or_insert(now_ms);
    }

    /// What to show as the state.
    pub fn state_words(&self) -> String {
        let heard = self.heard.as_ref().map(|heard| heard.state.as_str());
        if heard == Some(SaleState::Ready.word()) && !self.is_proven() {
            return Step::Ready.words().to_owned();
        }
        match (self.step, heard) {
            (over @ (Step::Ending | Step::Ended), _) => over.words().to_owned(),
            (step, None) => step.words().to_owned(),
            (_, Some(heard)) => heard.to_owned(),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A sale that is under way, for tests of whatever shows or keeps one.
    pub fn record(name: &str) -> Record {
        Record {
            name: name.to_owned(),
            step: Step::Active,
            begun_ms: 1,
            grid: String::new(),
            ledger: String::new(),
            node_address: String::new(),
            ahead: 3,
            vouchers_signed: 3,
            vouchers_sent: 3,
            from_backup: false,
            active_since_ms: Some(1),
            periods: 3,
            amendments: 0,
            epoch: 1,
            host_key: None,
            ssh_keys: Vec::new(),
            tcp: None,
            inside: None,
            heard: None,
            restoring: None,
            times: BTreeMap::new(),
        }
    }

    fn heard(state: SaleState) -> Heard {
        Heard {
            state: state.word().to_owned(),
            why: None,
            paid_until_ms: None,
            paid: Amount(0),
            periods_paid: 0,
            snapshot_ms: None,
        }
    }

    #[test]
    fn ready_is_not_proven_until_the_proof_held() {
        let mut record = record("calm-otter");
        record.step = Step::Keyed;
        assert_eq!(record.state_words(), "building");
        record.heard = Some(heard(SaleState::Ready));
        assert_eq!(record.state_words(), "ready, not proven");
        record.inside = Some(Inside {
            uid: 0,
            outside_uid: 1_000_000,
            cpu_max: String::new(),
            memory_max: String::new(),
            pids_max: String::new(),
            volume_bytes: 1,
            base_digest: String::new(),
        });
        record.heard = Some(heard(SaleState::Active));
        assert_eq!(record.state_words(), "active");
        record.step = Step::Ended;
        assert_eq!(record.state_words(), "ended");
    }

    #[test]
    fn a_step_keeps_its_first_moment() {
        let mut record = record("calm-otter");
        record.reach(Step::Funded, "funded", 5);
        record.reach(Step::Funded, "funded", 9);
        assert_eq!(record.times.get("funded"), Some(&5));
    }
}
