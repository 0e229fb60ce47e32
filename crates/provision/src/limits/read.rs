//! What a space uses, read from its cgroup; changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use market::quantity::Bytes;

/// What a space used when it was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// CPU time since the start, in microseconds.
    pub cpu_us: u64,
    /// Microseconds in which it would have run and the limit said no.
    pub throttled_us: u64,
    /// Periods in which that happened.
    pub throttled_periods: u64,
    /// Memory charged to it now.
    pub memory: Bytes,
    /// The most memory that was charged to it.
    pub memory_peak: Bytes,
    /// Processes and threads now.
    pub pids: u64,
    /// Processes and threads that were refused because there were enough.
    pub pids_refused: u64,
    /// Processes that the kernel ended because the memory limit was reached.
    pub oom_kills: u64,
    /// Whether any process lives in it.
    pub populated: bool,
}

/// Why a space's use could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLimitsError {
    /// The file could not be read.
    #[error("{path} could not be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file holds no such figure.
    #[error("{path} holds no figure named {name:?}")]
    Figure {
        /// The file.
        path: PathBuf,
        /// The figure's name; empty where the file is one figure.
        name: &'static str,
    },
}

/// Reads what the space in the cgroup at `path` uses.
pub fn observe(path: &Path) -> Result<Observed, ReadLimitsError> {
    let cpu = Figures::read(path, "cpu.stat")?;
    let memory_events = Figures::read(path, "memory.events")?;
    Ok(Observed {
        cpu_us: cpu.named("usage_usec")?,
        throttled_us: cpu.named("throttled_usec")?,
        throttled_periods: cpu.named("nr_throttled")?,
        memory: Bytes(Figures::read(path, "memory.current")?.only()?),
        memory_peak: Bytes(Figures::read(path, "memory.peak")?.only()?),
        pids: Figures::read(path, "pids.current")?.only()?,
        pids_refused: Figures::read(path, "pids.events")?.named("max")?,
        oom_kills: memory_events.named("oom_kill")?,
        populated: Figures::read(path, "cgroup.events")?.named("populated")? != 0,
    })
}

/// CPU time that the space in the cgroup at `path` has used since its start.
pub fn cpu_used(path: &Path) -> Result<Duration, ReadLimitsError> {
    Ok(Duration::from_micros(
        Figures::read(path, "cpu.stat")?.named("usage_usec")?,
    ))
}

/// Memory that the space in the cgroup at `path` could not give back now: without file pages and what else the kernel
/// may reclaim.
pub fn in_use(path: &Path) -> Result<Bytes, ReadLimitsError> {
    let all = Figures::read(path, "memory.current")?.only()?;
    let stat = Figures::read(path, "memory.stat")?;
    let mut spare = 0_u64;
    for name in ["active_file", "inactive_file", "slab_reclaimable"] {
        spare = spare.saturating_add(stat.named(name)?);
    }
    Ok(Bytes(all.saturating_sub(spare)))
}

/// The line that `io.max` has for the device of such a line; empty when it has none.
pub(super) fn line_of_device(text: &str, like: &str) -> String {
    let number = like.split_whitespace().next();
    text.lines()
        .find(|line| line.split_whitespace().next() == number)
        .map(|line| line.trim().to_owned())
        .unwrap_or_default()
}

/// A file of the kernel: either one figure, or a name and a figure in each line.
struct Figures {
    path: PathBuf,
    text: String,
}

impl Figures {
    fn read(cgroup: &Path, file: &str) -> Result<Self, ReadLimitsError> {
        let path = cgroup.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ReadLimitsError::Read { path, source }),
        }
    }

    fn named(&self, name: &'static str) -> Result<u64, ReadLimitsError> {
        named(&self.text, name).ok_or_else(|| ReadLimitsError::Figure {
            path: self.path.clone(),
            name,
        })
    }

    fn only(&self) -> Result<u64, ReadLimitsError> {
        self.text.trim().parse().map_err(|_| ReadLimitsError::Figure {
            path: self.path.clone(),
            name: "",
        })
    }
}

fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.split_once(' ')
            .filter(|(key, _)| *key == name)?
            .1
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_figure_is_found_by_its_whole_name() {
        let text = "nr_throttled 7\nthrottled_usec 12345\nusage_usec 99\n";
        assert_eq!(named(text, "throttled_usec"), Some(12345));
        assert_eq!(named(text, "throttled"), None);
    }

    #[test]
    fn a_device_is_not_taken_for_another_that_starts_alike() {
        let text = "254:160 rbps=1 wbps=max riops=max wiops=max\n254:16 rbps=2 wbps=2 riops=3 wiops=3\n";
        let line = line_of_device(text, "254:16 rbps=9");
        assert_eq!(line, "254:16 rbps=2 wbps=2 riops=3 wiops=3");
        assert_eq!(line_of_device("", "1:2 rbps=1"), "");
    }
}
