//! How the machine feels: what its sensors and its disks say, on the board, and a word when one begins to warn.
//!
//! Invariant: a disk that does not answer delays nobody. Each is asked on a thread of its own, which is waited for no
//! longer than a moment; while one hangs it is not asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{ata, nvme};
use inventory::Bus;
use inventory::health::{Temperature, temperatures};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::console::{Board, Health};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A disk answers within this, or is told at the next look.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Looks for ever.
pub(super) async fn watch(board: Board) {
    let hanging: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    loop {
        let readings = spawn_blocking(|| temperatures(Path::new("/")));
        let readings = timeout(ANSWERS_WITHIN, readings).await;
        let disks = ask_disks(&board, &hanging).await;
        let health = together(readings.ok().and_then(Result::ok).unwrap_or_default(), disks);
        tell(&board, health);
        sleep(LOOK_EVERY).await;
    }
}

/// What a disk says of itself, by its kind.
enum Says {
    Nvme(nvme::Health),
    Sata(ata::Health),
}

/// Asks a disk; nothing where it is of a kind that says nothing, or does not answer.
fn ask(name: &str) -> Option<Says> {
    let device = Path::new("/dev").join(name);
    match inventory::bus_of(Path::new("/"), name)? {
        Bus::Nvme => nvme::health(&device).ok().map(Says::Nvme),
        Bus::Sata => ata::health(&device).ok().map(Says::Sata),
        // A bridge between USB and a disk may hang on such questions, and a RAID controller hides the disks.
        Bus::Usb | Bus::Sas | Bus::Scsi | Bus::Mmc | Bus::Virtio | Bus::Xen => None,
    }
}

/// What every NVMe and SATA disk says.
async fn ask_disks(board: &Board, hanging: &Arc<Mutex<BTreeSet<String>>>) -> BTreeMap<String, Says> {
    let names = board
        .status()
        .disks
        .unwrap_or_default()
        .into_iter()
        .map(|disk| disk.name);
    let mut asked = Vec::new();
    for name in names {
        if !lock(hanging).insert(name.clone()) {
            continue;
        }
        let (hanging, of) = (hanging.clone(), name.clone());
        let answer = spawn_blocking(move || {
            let answer = ask(&of);
            lock(&hanging).remove(&of);
            answer
        });
        asked.push((name, answer));
    }
    let mut told = BTreeMap::new();
    for (name, answer) in asked {
        if let Ok(Ok(Some(says))) = timeout(ANSWERS_WITHIN, answer).await {
            told.insert(name, says);
        }
    }
    told
}

fn lock(hanging: &Mutex<BTreeSet<String>>) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
    hanging.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line a part, whoever spoke of it.
fn together(readings: Vec<Temperature>, disks: BTreeMap<String, Says>) -> Vec<Health> {
    let mut parts: BTreeMap<String, Health> = BTreeMap::new();
    for reading in readings {
        let hot = reading
            .critical
            .then(|| "hotter than its maker allows".to_owned());
        parts.insert(
            reading.of.clone(),
            Health {
                part: reading.of,
                celsius: Some(reading.celsius),
                warning: hot,
                ..Health::default()
            },
        );
    }
    for (name, says) in disks {
        let part = parts.entry(name.clone()).or_insert_with(|| Health {
            part: name,
            ..Health::default()
        });
        match says {
            Says::Nvme(says) => {
                part.celsius = Some(says.celsius);
                part.used_percent = Some(says.used_percent);
                part.warning = nvme_warning(&says).or(part.warning.take());
            }
            Says::Sata(says) => {
                part.celsius = says.celsius.or(part.celsius);
                part.warning = sata_warning(&says).or(part.warning.take());
            }
        }
    }
    parts.into_values().collect()
}

/// What a disk warns of, the worst first.
fn sata_warning(says: &ata::Health) -> Option<String> {
    let figures: Vec<String> = says
        .failing
        .iter()
        .map(|failing| {
            format!(
                "{} at {}, its limit is {}",
                failing.words(),
                failing.value,
                failing.limit
            )
        })
        .collect();
    let sectors = |count: u64, words: &str| format!("{count} sectors {words}: replace it");
    match (figures.is_empty(), says.fails_soon) {
        (false, _) => Some(format!(
            "it expects to fail ({}): replace it now",
            figures.join("; ")
        )),
        (true, true) => Some("it expects to fail: replace it now".to_owned()),
        (true, false) if says.unreadable > 0 => Some(sectors(says.unreadable, "cannot be read")),
        (true, false) if says.uncorrectable > 0 => {
            Some(sectors(says.uncorrectable, "could not be corrected"))
        }
        (true, false) => None,
    }
}

/// The same of an NVMe disk.
fn nvme_warning(says: &nvme::Health) -> Option<String> {
    const BITS: [(u8, &str); 5] = [
        (3, "it takes no more writes"),
        (2, "it makes errors"),
        (0, "its spare blocks run out"),
        (4, "its memory's battery is empty"),
        (1, "it is too hot or too cold"),
    ];
    let bit = BITS.iter().find(|(bit, _)| says.warning & (1 << bit) != 0);
    match bit {
        Some((_, words)) => Some(format!("{words}: replace it")),
        None if says.used_percent >= 100 => Some("its life as its maker expects it is over".to_owned()),
        None if says.media_errors > 0 => {
            Some(format!("{} reads or writes failed for good", says.media_errors))
        }
        None => None,
    }
}

/// On the board; an event where a part begins to warn, or says another thing.
fn tell(board: &Board, health: Vec<Health>) {
    let before = board.status().health;
    for part in &health {
        let known = before.iter().find(|known| known.part == part.part);
        if let Some(warning) = &part.warning
            && known.and_then(|known| known.warning.as_ref()).is_none()
        {
            board.event(format!("{}: {warning}", part.part));
        }
    }
    board.update(|status| status.health = health);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(warning: u8, used_percent: u8) -> nvme::Health {
        nvme::Health {
            warning,
            celsius: 41,
            spare_percent: 90,
            used_percent,
            media_errors: 0,
        }
    }

    #[test]
    fn a_part_that_begins_to_warn_is_said_once() {
        let board = Board::new("test");
        let look = |warning| {
            let disks = BTreeMap::from([("nvme0n1".to_owned(), Says::Nvme(disk(warning, 3)))]);
            let cpu = Temperature {
                of: "cpu".into(),
                celsius: 52,
                critical: false,
            };
            tell(&board, together(vec![cpu], disks));
            board.events().len()
        };
        assert_eq!(
            (look(0), look(0b100), look(0b101), look(0), look(0b10)),
            (0, 1, 1, 1, 2)
        );
        let words: Vec<String> = board.status().health.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "cpu 52 °C",
                "nvme0n1 41 °C, 3% of its life used: it is too hot or too cold: replace it"
            ]
        );
    }

    #[test]
    fn a_worn_disk_says_so_and_a_new_one_says_nothing() {
        assert_eq!(nvme_warning(&disk(0, 99)), None);
        assert!(nvme_warning(&disk(0, 100)).is_some());
        assert!(nvme_warning(&disk(0b1000, 0)).is_some_and(|words| words.contains("no more writes")));
    }

    #[test]
    fn a_sata_disk_that_fails_says_which_figure_and_what_to_do() {
        let well = ata::Health {
            celsius: Some(31),
            ..ata::Health::default()
        };
        assert_eq!(sata_warning(&well), None);
        let failing = ata::Failing {
            id: 5,
            value: 30,
            limit: 36,
        };
        let sick = ata::Health {
            failing: vec![failing],
            unreadable: 8,
            ..well.clone()
        };
        let disks = BTreeMap::from([("sda".to_owned(), Says::Sata(sick))]);
        let words = together(vec![], disks).pop().map(|part| part.to_string());
        let right =
            "sda 31 °C: it expects to fail (sectors that it replaced at 30, its limit is 36): replace it now";
        assert_eq!(words.as_deref(), Some(right));
        for (says, right) in [
            (
                ata::Health {
                    fails_soon: true,
                    ..well.clone()
                },
                "it expects to fail: replace it now",
            ),
            (
                ata::Health {
                    unreadable: 8,
                    uncorrectable: 2,
                    ..well.clone()
                },
                "8 sectors cannot be read: replace it",
            ),
            (
                ata::Health {
                    uncorrectable: 2,
                    ..well
                },
                "2 sectors could not be corrected: replace it",
            ),
        ] {
            assert_eq!(sata_warning(&says).as_deref(), Some(right));
        }
    }
}
