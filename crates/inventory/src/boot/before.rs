//! What was before the kernel: the firmware's own table where it keeps one, else the processor's counter.
//!
//! ```text
//!  0 reset ──► loader is launched ──► boot services end ≈ kernel's clock 0     FPDT (ACPI 6.5, 5.2.24), nanoseconds
//!  0 reset ─────────────────────────► kernel's clock 0 ──► beat ──► beat       counter: two beats give its frequency
//! ```
//!
//! The counter begins at reset on every machine with an invariant one, and at power-on of a virtual machine. A firmware
//! or a hypervisor may have set it: what cannot be is not told.

use std::path::Path;

use super::{Part, Phase};
use crate::tree::Tree;

/// Longer than any firmware takes to start a machine.
const MOST_MS: u128 = 15 * 60 * 1000;
/// Two beats are so far apart at least, else their gap says nothing of the frequency.
const LEAST_GAP_US: u64 = 200_000;

/// The processor's counter at a moment of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// What the counter said.
    pub count: u64,
    /// When, in microseconds.
    pub at_us: u64,
}

/// What is known of the time before the kernel's clock.
pub type Before = Vec<Phase>;

/// What the firmware tells below `root`; without that, what two beats of the counter say; else nothing.
#[must_use]
pub fn before(root: &Path, beats: Option<(Beat, Beat)>) -> Before {
    told(&Tree::new(root))
        .or_else(|| counted(beats?))
        .unwrap_or_default()
}

fn told(tree: &Tree) -> Option<Before> {
    let ns = |file: &str| -> Option<i64> {
        let text = tree.text(&format!("sys/firmware/acpi/fpdt/boot/{file}"))?;
        text.trim().parse().ok().filter(|ns| *ns > 0)
    };
    let launched = ns("bootloader_launch_ns")?;
    // Zero where the loader started the kernel without leaving the boot services by itself.
    let left = ns("exitbootservice_end_ns").filter(|left| *left >= launched)?;
    if left as u128 / 1_000_000 > MOST_MS {
        return None;
    }
    let (launched, left) = (launched / 1_000_000, left / 1_000_000);
    let phase = |part, begin_ms, end_ms| Phase {
        part,
        begin_ms,
        end_ms,
    };
    Some(vec![
        phase(Part::Firmware, -left, launched - left),
        phase(Part::Loader, launched - left, 0),
    ])
}

fn counted((first, second): (Beat, Beat)) -> Option<Before> {
    let gap_us = second
        .at_us
        .checked_sub(first.at_us)
        .filter(|gap| *gap >= LEAST_GAP_US)?;
    let beats = second.count.checked_sub(first.count).filter(|beats| *beats > 0)?;
    // first.count beats took this long; what of it the kernel's clock does not have was before it.
    let since_reset_us = u128::from(first.count) * u128::from(gap_us) / u128::from(beats);
    let ms = since_reset_us.checked_sub(u128::from(first.at_us))? / 1000;
    (ms > 0 && ms <= MOST_MS).then(|| {
        vec![Phase {
            part: Part::Before,
            begin_ms: -(ms as i64),
            end_ms: 0,
        }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GHZ: u64 = 1_000;

    fn beats(before_us: u64, at_us: u64, gap_us: u64) -> Option<(Beat, Beat)> {
        let beat = |at_us| Beat {
            count: (before_us + at_us) * GHZ,
            at_us,
        };
        Some((beat(at_us), beat(at_us + gap_us)))
    }

    fn machine(launched: &str, left: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let boot = root.path().join("sys/firmware/acpi/fpdt/boot");
        std::fs::create_dir_all(&boot).expect("a folder");
        std::fs::write(boot.join("bootloader_launch_ns"), launched).expect("a file");
        std::fs::write(boot.join("exitbootservice_end_ns"), left).expect("a file");
        root
    }

    #[test]
    fn the_firmwares_table_goes_before_the_counter() {
        let root = machine("5000000000\n", "6500000000\n");
        let told = before(root.path(), beats(900_000, 3_000_000, 4_000_000));
        let spans: Vec<(Part, i64, i64)> = told.iter().map(|p| (p.part, p.begin_ms, p.end_ms)).collect();
        assert_eq!(spans, [(Part::Firmware, -6500, -1500), (Part::Loader, -1500, 0)]);
    }

    #[test]
    fn the_counter_tells_the_sum_where_the_firmware_tells_nothing() {
        for root in [machine("0", "0"), machine("7", "x"), machine("9000", "8000")] {
            let told = before(root.path(), beats(900_000, 3_000_000, 4_000_000));
            assert_eq!(told.len(), 1);
            assert_eq!(
                (told[0].part, told[0].begin_ms, told[0].end_ms),
                (Part::Before, -900, 0)
            );
        }
    }

    #[test]
    fn what_cannot_be_is_not_told() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(before(nowhere, None), []);
        assert_eq!(before(nowhere, beats(900_000, 3_000_000, 1000)), [], "too close");
        assert_eq!(
            before(nowhere, beats(3_600_000_000, 3_000_000, 4_000_000)),
            [],
            "an hour"
        );
        let (first, mut second) = beats(900_000, 3_000_000, 4_000_000).expect("two");
        second.count = first.count;
        assert_eq!(
            before(nowhere, Some((first, second))),
            [],
            "a counter that stands"
        );
        let set_to_zero = Beat { count: 10, ..first };
        assert_eq!(
            before(nowhere, Some((set_to_zero, second))),
            [],
            "less than the kernel's own time"
        );
    }
}
