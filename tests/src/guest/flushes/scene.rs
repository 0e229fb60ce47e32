//! What is recorded, and what must be there after each of its marks.
//!
//! ```text
//!   first disk claimed ─► second disk claimed ─► rows in the journal ─► a volume is made, written, ended
//!      node id               two groups             never fewer            its file          no volume, no key
//! ```
//!
//! The volume lies on the second disk, the record of its steps on the first: no flush of the one covers the other.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use host::block::Device;
use host::names;
use market::id::{NodeId, SaleId};
use provision::files::{FilesContext, FilesStep, SpaceFiles};
use provision::journal::{Journal, JournalError};
use provision::state::State;
use provision::step::fault::{skip_flush, watch};
use provision::step::{Step, StepLog, StepState, Table};
use provision::volume::{KeyStep, MountStep, VolumeContext, VolumeStep, mount_point};
use storage::Storage;
use storage::luks::UnlockKey;

use zeroize::Zeroizing;

use super::log;
use crate::claims;

const SALE: SaleId = SaleId([0xf1; 32]);
const SPACE_BYTES: u64 = 48 << 20;
const LOGIN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAJrgNR4BsboY4aZyk7ASEU06dHBpGti11RrqnIToQ/7 trial";
const HOST_KEY: &str = "upper/etc/ssh/ssh_host_ed25519_key";
const ROOM: &str = "trial";
const ROWS: u8 = 3;
/// What a row says that no flush followed.
const UNFLUSHED: u8 = 100;
/// How every LUKS2 header begins, and its twin.
const LUKS: [&[u8]; 2] = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"];
/// The volume lies within this much of the second disk's start.
const LOOKED_AT: u64 = 400 << 20;

const CLAIMED_ONE: &str = "acknowledged: the first disk";
const CLAIMED_TWO: &str = "acknowledged: the second disk";
const ROW: &str = "acknowledged: row ";
const STEPS: &str = "acknowledged: a journal for the volume";
const BUILT: &str = "acknowledged: the volume";
const WRITTEN: &str = "acknowledged: the user's file";
const ENDED: &str = "acknowledged: the end";
const CONTROL_ROW: &str = "control: a row";
const CONTROL_END: &str = "control: an end";
/// What the marks between are called while flushes are left away: nothing can be asked of them.
const UNFLUSHED_MARK: &str = "without flushes: ";
const UNDOING: &str = "Undo ";
const BEGUN: &str = "Do volume Intended";

/// What was recorded.
pub struct Scene {
    /// The names of the marks, by number.
    pub marks: Vec<String>,
    node: NodeId,
    groups: Vec<String>,
    free: u64,
    host_key: String,
}

/// What the table of a volume hands to its steps.
struct Context1 {
    storage: Storage,
    group: String,
    key: Option<UnlockKey>,
    files: Option<SpaceFiles>,
}

impl FilesContext for Context1 {
    fn files(&self) -> Option<&SpaceFiles> {
        self.files.as_ref()
    }
}

impl VolumeContext for Context1 {
    fn storage(&self) -> &Storage {
        &self.storage
    }
    fn group(&self) -> &str {
        &self.group
    }
    fn bytes(&self) -> u64 {
        SPACE_BYTES
    }
    fn snapshot_bytes(&self) -> u64 {
        0
    }

    fn unlock_key(&self) -> Option<&UnlockKey> {
        self.key.as_ref()
    }
}

/// What the user sends when the volume is made.
const SEED: [u8; 32] = [7; 32];

/// What a run may have: nothing to take down, the key to open, the seed of a host key too to make.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    None,
    Key,
    Seed,
}

fn context(group: &str, access: Access) -> Result<Context1> {
    let files = SpaceFiles {
        host_key_seed: (access == Access::Seed).then(|| Zeroizing::new(SEED)),
        authorized_keys: vec![LOGIN.to_owned()],
        hostname: "calm-otter".to_owned(),
        resolvers: Vec::new(),
        machine_id: [3; 16],
    };
    let may = access != Access::None;
    Ok(Context1 {
        storage: Storage::start()?,
        group: group.to_owned(),
        key: may.then(|| UnlockKey::take(&mut [0x42; 64])),
        files: may.then_some(files),
    })
}

fn table() -> Result<Table<Context1>> {
    let steps: Vec<Box<dyn Step<Context1>>> = vec![
        Box::new(VolumeStep),
        Box::new(KeyStep),
        Box::new(MountStep),
        Box::new(FilesStep),
    ];
    Ok(Table::new(steps)?)
}

fn journal(state: &State) -> Result<Journal> {
    Ok(state
        .journal()
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .clone())
}

/// Where the steps of the volume are recorded: on the first disk alone. The node's own journal is on the second too, and
/// its flushes there would cover for what the volume leaves out; a node's fourth disk has no copy of it.
fn steps(group: &str) -> std::path::PathBuf {
    names::state_mount(group).join("steps.sqlite")
}

fn free(group: &str) -> Result<u64> {
    let groups = Storage::start()?.lvm().vgs()?;
    let found = groups.iter().find(|found| found.name == group);
    Ok(found.context("no group")?.free_bytes)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

impl Scene {
    /// Does all of it on these two disks, which are blank; afterwards nobody sees what is on them.
    pub fn record(disks: [&'static str; 2]) -> Result<Self> {
        let names = Arc::new(Mutex::new(Vec::new()));
        let size = Device::open(Path::new(disks[0]))?.size()?;
        let unflushed = Arc::new(AtomicBool::new(false));
        let mark = {
            let names = Arc::clone(&names);
            let both = Arc::new(AtomicBool::new(false));
            move |name: &str| -> Result<()> {
                let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                // A mark on a blank disk would be found by who looks whether it is blank.
                let second_is_taken = name.contains("claim-") && names.iter().any(|name| name == CLAIMED_ONE);
                let both = both.fetch_or(second_is_taken, Ordering::Relaxed) || second_is_taken;
                for disk in &disks[..1 + usize::from(both)] {
                    log::mark(Path::new(disk), size, names.len() as u64)?;
                }
                names.push(name.to_owned());
                Ok(())
            }
        };
        let (at_points, without) = (mark.clone(), Arc::clone(&unflushed));
        watch(Some(Box::new(move |name| {
            let begins = if without.load(Ordering::Relaxed) {
                UNFLUSHED_MARK
            } else {
                ""
            };
            if let Err(error) = at_points(&format!("{begins}{name}")) {
                println!("guest cuts: no mark at {name}: {error:#}");
            }
        })));
        let (state, node) = claims::complete(&disks[..1])?;
        mark(CLAIMED_ONE)?;
        claims::close(Some(state))?;
        let (state, _) = claims::complete(&disks)?;
        mark(CLAIMED_TWO)?;
        let groups = state.groups().to_vec();
        let (rows, group) = (journal(&state)?, &groups[1]);
        for number in 0..ROWS {
            rows.write_blocking(move |entry| entry.put_row(ROOM, b"n", &[number]))?;
            mark(&format!("{ROW}{number}"))?;
        }
        let free = free(group)?;
        let log = Journal::create(&steps(&groups[0]))?;
        mark(STEPS)?;
        let (runtime, table) = (runtime()?, table()?);
        runtime.block_on(table.run(&log, &SALE, &context(group, Access::Seed)?))?;
        mark(BUILT)?;
        let host_key = fs::read_to_string(mount_point(&SALE).join(HOST_KEY))?;
        write_file()?;
        mark(WRITTEN)?;
        runtime.block_on(table.tear_down(&log, &SALE, &context(group, Access::None)?))?;
        mark(ENDED)?;

        // The same without a flush: what is acknowledged then is lost, or the checks check nothing.
        unflushed.store(true, Ordering::Relaxed);
        skip_flush(Some("journal"));
        rows.write_blocking(|entry| entry.put_row(ROOM, b"n", &[UNFLUSHED]))?;
        mark(CONTROL_ROW)?;
        skip_flush(None);
        unflushed.store(false, Ordering::Relaxed);
        runtime.block_on(table.run(&log, &SALE, &context(group, Access::Seed)?))?;
        unflushed.store(true, Ordering::Relaxed);
        skip_flush(Some("group"));
        runtime.block_on(table.tear_down(&log, &SALE, &context(group, Access::None)?))?;
        mark(CONTROL_END)?;
        skip_flush(None);
        watch(None);
        log.close();
        drop(rows);
        claims::close(Some(state))?;
        for disk in disks {
            Device::open(Path::new(disk))?.forget_partition(1)?;
        }
        let marks = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Self {
            marks,
            node,
            groups,
            free,
            host_key,
        })
    }

    /// Whether a mark follows an acknowledgement.
    pub fn is_acknowledged(&self, mark: u64) -> bool {
        self.marks[mark as usize].starts_with("acknowledged: ")
    }

    /// Whether a flush was left away before it, on purpose.
    pub fn is_control(&self, mark: u64) -> bool {
        [CONTROL_ROW, CONTROL_END].contains(&&*self.marks[mark as usize])
    }

    /// Whether a flush is being left away, and the control that shows it comes only later.
    pub fn is_unflushed(&self, mark: u64) -> bool {
        self.marks[mark as usize].starts_with(UNFLUSHED_MARK)
    }

    fn was(&self, name: &str, mark: u64) -> bool {
        self.marks[..=mark as usize]
            .iter()
            .any(|passed| passed.starts_with(name))
    }

    /// Starts a node over disks that hold what a cut at `mark` left, and looks for what was acknowledged before.
    pub fn check(&self, disks: [&str; 2], mark: u64) -> Result<()> {
        let (state, node) = claims::complete(&disks).context("the node does not start")?;
        let result = self.look(&state, node, disks[1], mark);
        let closed = claims::close(Some(state));
        result.and(closed)
    }

    fn look(&self, state: &State, node: NodeId, second: &str, mark: u64) -> Result<()> {
        if self.was(CLAIMED_ONE, mark) {
            ensure!(node == self.node, "another node");
        }
        let has_two = self.was(CLAIMED_TWO, mark);
        if !has_two {
            return Ok(());
        }
        ensure!(
            state.groups().iter().all(|group| self.groups.contains(group)),
            "groups {:?}, {:?} before",
            state.groups(),
            self.groups
        );
        self.check_rows(&journal(state)?, mark)?;
        let (runtime, group) = (runtime()?, &self.groups[1]);
        let log = match Journal::open(&steps(&self.groups[0])) {
            Err(JournalError::Absent(_)) if !self.was(STEPS, mark) => return Ok(()),
            opened => opened?,
        };
        let kept = self.check_kept(&runtime, &log, second, mark);
        // What is left goes, whatever it was: a start of the agent does no less.
        let gone = runtime.block_on(table()?.tear_down(&log, &SALE, &context(group, Access::None)?));
        log.close();
        kept?;
        gone.context("what was left cannot be taken down")?;
        nothing_of_it(group, second)?;
        let now = free(group)?;
        ensure!(now == self.free, "{now} bytes free, {} before", self.free);
        Ok(())
    }

    fn check_kept(
        &self,
        runtime: &tokio::runtime::Runtime,
        log: &Journal,
        second: &str,
        mark: u64,
    ) -> Result<()> {
        if self.was(BUILT, mark) && !self.was(UNDOING, mark) {
            self.check_file(runtime, log, mark)?;
        }
        if self.is_over(mark) {
            let records = runtime.block_on(log.records(&SALE));
            let records = records.map_err(|error| anyhow::anyhow!("{error}"))?;
            let undone = records.iter().all(|record| record.state == StepState::Undone);
            ensure!(undone, "the end is not in the journal: {records:?}");
            nothing_of_it(&self.groups[1], second)?;
        }
        Ok(())
    }

    /// Whether the end was acknowledged and nothing was begun since.
    fn is_over(&self, mark: u64) -> bool {
        let passed = &self.marks[..=mark as usize];
        let end = passed
            .iter()
            .rposition(|name| [ENDED, CONTROL_END].contains(&&**name));
        end.is_some_and(|end| !passed[end..].iter().any(|name| name == BEGUN))
    }

    fn check_rows(&self, log: &Journal, mark: u64) -> Result<()> {
        let acknowledged = |number: &u8| self.was(&format!("{ROW}{number}"), mark);
        let least = if self.marks[mark as usize] == CONTROL_ROW {
            Some(UNFLUSHED)
        } else {
            (0..ROWS).rev().find(acknowledged)
        };
        let row = log.write_blocking(|entry| entry.row(ROOM, b"n"))?;
        let there = row.and_then(|row| row.first().copied());
        ensure!(there >= least, "row {there:?}, and {least:?} was acknowledged");
        Ok(())
    }

    fn check_file(&self, runtime: &tokio::runtime::Runtime, log: &Journal, mark: u64) -> Result<()> {
        let context = context(&self.groups[1], Access::Key)?;
        runtime
            .block_on(table()?.run_from(log, &SALE, &context, "mount"))
            .context("the volume does not open")?;
        // Without a seed the files say only what they kept.
        let kept = fs::read_to_string(mount_point(&SALE).join(HOST_KEY))?;
        ensure!(kept == self.host_key, "the host key is another");
        if self.was(WRITTEN, mark) {
            let text = fs::read_to_string(file())?;
            ensure!(text == "the user's", "the user's file says {text:?}");
        }
        Ok(())
    }
}

fn file() -> std::path::PathBuf {
    mount_point(&SALE).join("mark")
}

fn write_file() -> Result<()> {
    let mut made = File::create(file())?;
    made.write_all(b"the user's")?;
    made.sync_all()?;
    Ok(File::open(mount_point(&SALE))?.sync_all()?)
}

/// No volume of the sale in its group, and no header of one where volumes lie.
fn nothing_of_it(group: &str, disk: &str) -> Result<()> {
    let volumes = Storage::start()?.lvm().lvs(Some(group))?;
    let name = names::space_volume(SALE.as_bytes());
    ensure!(
        volumes.iter().all(|volume| volume.name != name),
        "the volume is back: {volumes:?}"
    );
    let mut looked_at = Vec::new();
    File::open(disk)?.take(LOOKED_AT).read_to_end(&mut looked_at)?;
    let begins = |sector: &[u8]| LUKS.iter().any(|magic| sector.starts_with(magic));
    ensure!(
        !looked_at.chunks(512).any(begins),
        "a key slot's header is on the disk"
    );
    Ok(())
}
