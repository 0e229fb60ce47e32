//! How warm it is: what the kernel's sensors say (`/sys/class/hwmon`), of processors, boards and disks.
//!
//! ```text
//!   hwmon3/name          nvme                 which driver
//!   hwmon3/device        ─► …/nvme/nvme0      what it is a part of
//!   hwmon3/temp1_input   41850                thousandths of a degree Celsius
//!   hwmon3/temp1_label   Composite            which of several, where there are several
//!   hwmon3/temp1_crit    84850                from here on the maker fears for it
//! ```

use std::path::Path;

use crate::tree::Tree;

/// Sensors that are told at most.
const MOST: usize = 64;
/// Readings of one sensor chip that are looked for.
const MOST_OF_A_CHIP: usize = 32;
/// What is outside is no temperature of a machine but a sensor that is not there, in thousandths of a degree.
const BELIEVED: std::ops::RangeInclusive<i32> = -60_000..=200_000;

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temperature {
    /// Of what: a disk by its kernel's name (`sda`, `nvme0n1`), `cpu`, or the driver's own word.
    pub of: String,
    /// Degrees Celsius, rounded down.
    pub celsius: i32,
    /// Whether it is what the chip calls critical, or more.
    pub critical: bool,
}

/// The warmest reading of each part of the machine whose `/sys` stands below `root`, sorted by part.
#[must_use]
pub fn temperatures(root: &Path) -> Vec<Temperature> {
    let tree = Tree::new(root);
    let mut found: Vec<Temperature> = Vec::new();
    for chip in tree.names("sys/class/hwmon").unwrap_or_default() {
        for reading in chip_readings(&tree, &format!("sys/class/hwmon/{chip}")) {
            if let Some(known) = found.iter_mut().find(|known| known.of == reading.of) {
                known.celsius = known.celsius.max(reading.celsius);
                known.critical |= reading.critical;
            } else if found.len() < MOST {
                found.push(reading);
            }
        }
    }
    found.sort_by(|a, b| a.of.cmp(&b.of));
    found
}

fn chip_readings(tree: &Tree, chip: &str) -> Vec<Temperature> {
    let Some(name) = tree.text(&format!("{chip}/name")) else {
        return Vec::new();
    };
    let of = part(tree, chip, &name);
    let reading = |index: usize| {
        let value = |what: &str| tree.number::<i32>(&format!("{chip}/temp{index}_{what}"));
        let input = value("input").filter(|input| BELIEVED.contains(input))?;
        let critical = value("crit").is_some_and(|crit| crit > 0 && input >= crit);
        Some(Temperature {
            of: of.clone(),
            celsius: input.div_euclid(1000),
            critical,
        })
    };
    (1..=MOST_OF_A_CHIP).filter_map(reading).collect()
}

/// What a chip is a part of.
fn part(tree: &Tree, chip: &str, name: &str) -> String {
    match name {
        "coretemp" | "k10temp" | "zenpower" | "cpu_thermal" => "cpu".to_owned(),
        // The controller's first namespace is the disk; its folder is below the controller's.
        "nvme" => {
            let controller = tree.leads_to(&format!("{chip}/device")).unwrap_or_default();
            let inside = tree.names(&format!("{chip}/device")).unwrap_or_default();
            let disk = inside
                .into_iter()
                .find(|entry| entry.starts_with(&format!("{controller}n")) || is_namespace(entry));
            disk.unwrap_or(if controller.is_empty() {
                name.to_owned()
            } else {
                controller
            })
        }
        "drivetemp" => {
            let disks = tree.names(&format!("{chip}/device/block")).unwrap_or_default();
            disks.into_iter().next().unwrap_or_else(|| name.to_owned())
        }
        other => other.to_owned(),
    }
}

/// `nvme0n1`.
fn is_namespace(entry: &str) -> bool {
    let mut parts = entry.strip_prefix("nvme").unwrap_or_default().split('n');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn each_part_is_told_once_by_its_warmest_reading() {
        let root = std::env::temp_dir().join(format!("inventory-health-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let chips = "sys/class/hwmon";
        for (path, text) in [
            ("hwmon0/name", "coretemp"),
            ("hwmon0/temp1_input", "52000"),
            ("hwmon0/temp2_input", "49500"),
            ("hwmon0/temp2_crit", "100000"),
            ("hwmon1/name", "nvme"),
            ("hwmon1/temp1_input", "84999"),
            ("hwmon1/temp1_crit", "84850"),
            ("hwmon2/name", "drivetemp"),
            ("hwmon2/temp1_input", "-1500"),
            ("hwmon3/name", "acpitz"),
            ("hwmon3/temp1_input", "-273200"),
            ("hwmon4/temp1_input", "1000"),
        ] {
            write(&root, &format!("{chips}/{path}"), text);
        }
        fs::create_dir_all(root.join("sys/devices/nvme0/nvme0n1")).unwrap();
        symlink("../../../devices/nvme0", root.join(chips).join("hwmon1/device")).unwrap();
        fs::create_dir_all(root.join("sys/devices/2:0:0:0/block/sdb")).unwrap();
        symlink("../../../devices/2:0:0:0", root.join(chips).join("hwmon2/device")).unwrap();
        let told: Vec<(String, i32, bool)> = temperatures(&root)
            .into_iter()
            .map(|t| (t.of, t.celsius, t.critical))
            .collect();
        let of = |name: &str, celsius, critical| (name.to_owned(), celsius, critical);
        assert_eq!(
            told,
            [
                of("cpu", 52, false),
                of("nvme0n1", 84, true),
                of("sdb", -2, false)
            ]
        );
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(temperatures(&root), []);
    }
}
