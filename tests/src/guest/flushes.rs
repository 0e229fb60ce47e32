//! Power is lost and the disks forget what was not flushed: the claim, the journal, the making and the end of a volume
//! are recorded once, and played again up to each point onto other disks, without what no flush had made durable.
//!
//! ```text
//!   vda, vdb   recorded: QEMU writes down what is done to them        vde, vdf   what it wrote down, read here
//!   vdc, vdd   blank ─► the log up to a point ─► the node starts over them: what was acknowledged is there
//! ```
//!
//! To leave a flush away on purpose (`fault::skip_flush`) is caught by the same checks: the last two marks of a recording.
//! What a flush covers is taken as what was done before the flush was done: a write beside it counts as flushed.

mod log;
mod scene;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::{claims, whole_boot, word};
use log::Entry;
use scene::Scene;

/// The recorded disks, the disks that are played onto, and the logs.
const RECORDED: [&str; 2] = ["/dev/vda", "/dev/vdb"];
const PLAYED: [&str; 2] = ["/dev/vdc", "/dev/vdd"];
const LOGS: [&str; 2] = ["/dev/vde", "/dev/vdf"];
/// So many states are played where the command line does not ask for all.
const FEW: usize = 8;
const COPY_BYTES: usize = 1 << 20;

/// The guest of the flushes, where the command line says that this is one.
pub fn guest() -> Option<ExitCode> {
    let many = word("guest-flushes")?;
    Some(whole_boot(|| all(many == "all")))
}

/// One state of both disks that is played.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    /// The newest mark before it.
    mark: u64,
    /// Which entries each disk holds.
    survivors: [Vec<usize>; 2],
    /// It may not be left out.
    must: bool,
}

fn all(many: bool) -> Result<String> {
    let begin = Instant::now();
    let scene = Scene::record(RECORDED)?;
    let last = scene.marks.len() as u64 - 1;
    let size = size(RECORDED[0])?;
    let logs = [
        log::read(Path::new(LOGS[0]), size, last)?,
        log::read(Path::new(LOGS[1]), size, last)?,
    ];
    let recorded = begin.elapsed().as_secs_f64();
    let flushes = logs.iter().flatten().filter(|entry| entry.flushes).count();
    let cuts = cuts(&scene, &logs);
    let (states, mut played) = (cuts.len(), 0);
    // Those that may be left out are spread evenly.
    let optional = cuts.iter().filter(|cut| !cut.must).count();
    let (each, mut passed) = (optional.div_ceil(FEW).max(1), 0);
    let mut failures = Vec::new();
    for cut in &cuts {
        passed += usize::from(!cut.must);
        if !many && !cut.must && passed % each != 0 {
            continue;
        }
        played += 1;
        let name = &scene.marks[cut.mark as usize];
        let began = Instant::now();
        play(&logs, cut)?;
        let applied = began.elapsed().as_millis();
        let result = scene.check(PLAYED, cut.mark);
        println!(
            "guest cuts: after \"{name}\": {} ({applied} + {} ms)",
            result.as_ref().map_or_else(
                |error| format!("{error:#}"),
                |()| "as it was acknowledged".to_owned()
            ),
            began.elapsed().as_millis() - applied
        );
        match (result, scene.is_control(cut.mark)) {
            (Ok(()), true) => failures.push(format!("{name}: a missing flush was not caught")),
            (Err(error), false) => failures.push(format!("{name}: {error:#}")),
            _ => {}
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(format!(
        "{played} of {states} states without what was not flushed, from {flushes} flushes and {} marks; recorded in \
         {recorded:.0} s, {:.0} s in all; two missing flushes were caught",
        scene.marks.len(),
        begin.elapsed().as_secs_f64()
    ))
}

/// Every state that a power cut at a mark, or at a flush between two of them, can leave when nothing else survives; at
/// acknowledgements also with every other write that was not flushed.
fn cuts(scene: &Scene, logs: &[Vec<Entry>; 2]) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut add = |cut: Cut| match cuts.iter_mut().find(|known| known.survivors == cut.survivors) {
        // The same disks: what was acknowledged last is what must be there.
        Some(known) if !scene.is_control(cut.mark) && !scene.is_control(known.mark) => {
            known.mark = known.mark.max(cut.mark);
            known.must |= cut.must;
        }
        _ => cuts.push(cut),
    };
    let place = |disk: usize, mark: u64| logs[disk].iter().position(|entry| entry.mark == Some(mark));
    let at = |places: [Option<usize>; 2], kept: fn(usize) -> bool| {
        [0, 1].map(|disk| places[disk].map_or(Vec::new(), |at| log::survivors(&logs[disk], at, kept)))
    };
    for mark in (0..scene.marks.len() as u64).filter(|mark| !scene.is_unflushed(*mark)) {
        // A disk that is not marked yet is blank.
        let places = [0, 1].map(|disk| place(disk, mark));
        let must = scene.is_acknowledged(mark) || scene.is_control(mark);
        add(Cut {
            mark,
            survivors: at(places, |_| false),
            must,
        });
        if scene.is_control(mark) {
            continue;
        }
        if must {
            add(Cut {
                mark,
                survivors: at(places, |entry| entry % 2 == 0),
                must: false,
            });
        }
        let until = [0, 1].map(|disk| place(disk, mark + 1).unwrap_or(logs[disk].len()));
        let from = places.map(|place| place.map_or(0, |at| at + 1));
        for disk in [0, 1] {
            // Between two marks the order of two disks is not known: only where one of them rests.
            let other = 1 - disk;
            let rests = places[other].is_none() || from[other] >= until[other];
            let flush = |at: &usize| logs[disk][*at].flushes;
            if !rests || places[disk].is_none() {
                continue;
            }
            for flush in (from[disk]..until[disk]).filter(flush) {
                let mut places = places;
                places[disk] = Some(flush);
                add(Cut {
                    mark,
                    survivors: at(places, |_| false),
                    must: false,
                });
            }
        }
    }
    cuts
}

/// Makes the played disks hold exactly these entries.
fn play(logs: &[Vec<Entry>; 2], cut: &Cut) -> Result<()> {
    for disk in 0..2 {
        claims::blank(PLAYED[disk])?;
        let log = File::open(LOGS[disk])?;
        let to = File::options().write(true).open(PLAYED[disk])?;
        let mut buffer = vec![0; COPY_BYTES];
        for entry in cut.survivors[disk].iter().map(|at| &logs[disk][*at]) {
            let mut done = 0;
            while done < entry.bytes {
                let length = (entry.bytes - done).min(COPY_BYTES as u64) as usize;
                match entry.data {
                    Some(data) => log.read_exact_at(&mut buffer[..length], data + done)?,
                    None => buffer[..length].fill(0),
                }
                to.write_all_at(&buffer[..length], entry.at + done)?;
                done += length as u64;
            }
        }
        to.sync_all()?;
        drop(to);
        let device = host::block::Device::open(Path::new(PLAYED[disk]))?;
        device.reread_partitions()?;
    }
    Ok(())
}

fn size(disk: &str) -> Result<u64> {
    Ok(host::block::Device::open(Path::new(disk))?.size()?)
}
