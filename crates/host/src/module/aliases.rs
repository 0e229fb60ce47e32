//! What devices want to be driven by, the most urgent first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::uevents::Uevents;

/// Every modalias below `/sys/devices`, each once.
pub fn modaliases(sys: &Path) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut folders: Vec<PathBuf> = vec![sys.join("devices")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Symlinks lead back to devices that are found by themselves.
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_name() == "modalias" {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                found.extend(Some(text.trim().to_owned()).filter(|t| !t.is_empty()));
            }
        }
    }
    found
}

/// What devices want to be driven by, and nobody has looked for yet.
#[derive(Debug, Default)]
pub struct Aliases {
    seen: HashSet<String>,
    /// With their urgency, the most urgent first.
    waiting: BTreeSet<(u8, String)>,
}

impl Aliases {
    /// Those of every device of `/sys`.
    pub fn of_sys() -> Self {
        let mut aliases = Self::default();
        aliases.look_again();
        aliases
    }

    /// Modules that no device wants and somebody will ask for soon, in this order.
    pub fn also(&mut self, names: &[&str]) {
        let names = (AHEAD..BESIDE).zip(names.iter().map(|name| (*name).to_owned()));
        self.waiting.extend(names);
    }

    /// Where announcements were lost: every device is asked once more.
    fn look_again(&mut self) {
        for alias in modaliases(Path::new("/sys")) {
            self.add(alias);
        }
    }

    /// Adds what an announcement speaks of, where it is a device that came.
    fn add_announced(&mut self, event: &HashMap<String, String>) {
        if event.get("ACTION").is_some_and(|action| action == "add")
            && let Some(alias) = event.get("MODALIAS")
        {
            self.add(alias.clone());
        }
    }

    pub(super) fn add(&mut self, alias: String) {
        if self.seen.insert(alias.clone()) {
            self.waiting.insert((urgency(&alias), alias));
        }
    }

    /// Takes in what was announced since.
    pub(super) fn listen(&mut self, events: &Uevents) -> io::Result<()> {
        while events.wait(Duration::ZERO)? {
            match events.receive()? {
                Some(event) => self.add_announced(&event),
                None => self.look_again(),
            }
        }
        Ok(())
    }

    /// Takes the most urgent of a share out. What nothing hangs on comes after all that is urgent: the kernel would have disks
    /// wait for its devices.
    pub(super) fn take(&mut self, share: Share, is_ready: bool) -> Option<(u8, String)> {
        let fits = |urgency: u8| match share {
            Share::Urgent => is_urgent(urgency),
            Share::Rest => !is_urgent(urgency) && (urgency < LATER || is_ready),
        };
        let found = self.waiting.iter().find(|(urgency, _)| fits(*urgency))?.clone();
        self.waiting.take(&found)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_urgent(&self) -> bool {
        self.waiting
            .first()
            .is_some_and(|(urgency, _)| is_urgent(*urgency))
    }
}

/// Who takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// What a node waits for, before whatever else wants the processor: the sooner a driver waits for its disks, the better.
    Urgent,
    /// The others, while few others want the processor.
    Rest,
}

/// What somebody asks for first; then the second, and so on.
const AHEAD: u8 = 4;
/// What drives no device, and nobody waits for: the processor's ciphers.
const BESIDE: u8 = LATER - 1;
/// What no disk and no network hangs on.
const LATER: u8 = u8::MAX;

/// Whether a node waits for it.
pub(super) fn is_urgent(urgency: u8) -> bool {
    urgency < AHEAD
}

/// 0 for the controllers whose links take longest (SATA, SAS, SCSI); 1 for what else a node waits for (NVMe, networks,
/// virtio); 2 for USB and what was found on such a link; 3 for what may lead to either (a bridge, a bus of a maker's own);
/// [`LATER`] for what leads nowhere: random numbers, memory that is given back, screens, sound, keyboards, buttons, and the
/// slow bus of sensors.
fn urgency(alias: &str) -> u8 {
    const NOWHERE: [&str; 7] = [
        "dmi:",
        "input:",
        "serio:",
        "virtio:d00000003", // a console
        "virtio:d00000004", // random numbers
        "virtio:d00000005", // a balloon
        "acpi:PNP0C0",      // batteries, fans, lids, buttons
    ];
    const CLASSES: [&str; 3] = ["bc03", "bc04", "bc0Csc05"];
    match alias {
        a if NOWHERE.iter().any(|kind| a.starts_with(kind)) => LATER,
        a if a.starts_with("pci:") && CLASSES.iter().any(|class| a.contains(class)) => LATER,
        a if a.starts_with("cpu:") => BESIDE,
        a if a.starts_with("virtio:") => 1,
        a if a.starts_with("pci:") && (a.contains("bc01sc08") || a.contains("bc02")) => 1,
        a if a.starts_with("pci:") && a.contains("bc01") => 0,
        a if a.starts_with("pci:") && a.contains("bc0Csc03") => 2,
        a if a.starts_with("usb:") || a.starts_with("scsi:") => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_answered_once_and_what_leads_nowhere_waits() {
        let mut aliases = Aliases::default();
        let announced = |action: &str, alias: &str| {
            HashMap::from(
                [("ACTION", action), ("MODALIAS", alias)].map(|(k, v)| (k.to_owned(), v.to_owned())),
            )
        };
        for (action, alias) in [
            ("add", "acpi:PNP0C0C:"),
            ("add", "virtio:d00000002v00001AF4"),
            ("add", "virtio:d00000002v00001AF4"),
            ("remove", "virtio:d00000001v00001AF4"),
        ] {
            aliases.add_announced(&announced(action, alias));
        }
        aliases.also(&["vfat", "ext4"]);
        assert!(aliases.has_urgent());
        let waiting: Vec<_> = aliases.waiting.iter().map(|(_, alias)| alias.as_str()).collect();
        assert_eq!(
            waiting,
            ["virtio:d00000002v00001AF4", "vfat", "ext4", "acpi:PNP0C0C:"]
        );
        let mut taken = |share, is_ready| aliases.take(share, is_ready).map(|(_, alias)| alias);
        assert_eq!(taken(Share::Rest, false).as_deref(), Some("vfat"));
        assert_eq!(taken(Share::Rest, false).as_deref(), Some("ext4"));
        assert_eq!(taken(Share::Rest, false), None, "a button waits for the disks");
        assert_eq!(
            taken(Share::Urgent, false).as_deref(),
            Some("virtio:d00000002v00001AF4")
        );
        assert_eq!(taken(Share::Rest, true).as_deref(), Some("acpi:PNP0C0C:"));
        aliases.add_announced(&announced("add", "virtio:d00000002v00001AF4"));
        assert!(!aliases.has_urgent(), "asked once");
    }

    #[test]
    fn disks_and_networks_come_first() {
        let nvme = "pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02";
        let sata = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        assert!(urgency(sata) < urgency(nvme), "its ports take half a second");
        assert!(urgency(nvme) < urgency("usb:v0BDAp8152d2000dc00dsc00dp00icFFiscFFip00in02"));
        assert_eq!(urgency("virtio:d00000002v00001AF4"), urgency(nvme));
        assert!(urgency("acpi:PNP0C0C:") > urgency("scsi:t-0x00"));
        assert!(urgency("acpi:PNP0C0C:") == LATER);
        assert!(!is_urgent(urgency("cpu:type:x86,ven0000fam0006mod0006:")));
        // The bus of Hyper-V, on which its disks hang; an ISA bridge; a PCI bridge.
        for bus in [
            "acpi:VMBUS:",
            "pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00",
            "pci:v00001B36d0000000Csv00000000sd00000000bc06sc04i00",
        ] {
            assert!(is_urgent(urgency(bus)), "{bus}");
        }
    }

    #[test]
    fn a_machine_says_what_it_is_made_of() {
        // Any machine that has /sys has a device with an alias, and none of them is empty.
        let found = modaliases(Path::new("/sys"));
        assert!(
            found
                .iter()
                .all(|alias| !alias.is_empty() && !alias.contains('\n'))
        );
        assert!(modaliases(Path::new("/nonexistent")).is_empty());
    }
}
