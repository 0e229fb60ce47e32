//! Modules for the hardware that is there: once over `/sys`, then by what the kernel announces.
//!
//! ```text
//!   /sys, once ──► Aliases ──► load, a few at once ──► uevents that came meanwhile ─┐
//!                     ▲                                                            │ nothing new: done
//!                     └────────────────────────────────────────────────────────────┘
//! ```
//!
//! A bus driver brings devices to light, which want modules in turn (PCI, then virtio, then the
//! disk). Each is announced before the driver's loading returns; what appears later (USB takes seconds) is announced, too.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

use super::index::Index;
use super::{ModuleError, load_some};
use crate::names;

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
    waiting: Vec<String>,
}

impl Aliases {
    /// Those of every device of `/sys`.
    pub fn of_sys() -> Self {
        let mut aliases = Self::default();
        aliases.look_again();
        aliases
    }

    /// Where announcements were lost: every device is asked once more.
    pub fn look_again(&mut self) {
        for alias in modaliases(Path::new("/sys")) {
            self.add(alias);
        }
    }

    /// Adds what an announcement speaks of, where it is a device that came.
    pub fn add_announced(&mut self, event: &HashMap<String, String>) {
        if event.get("ACTION").is_some_and(|action| action == "add")
            && let Some(alias) = event.get("MODALIAS")
        {
            self.add(alias.clone());
        }
    }

    fn add(&mut self, alias: String) {
        if self.seen.insert(alias.clone()) {
            self.waiting.push(alias);
        }
    }

    /// Takes those out that are looked for now, the most urgent first.
    fn take(&mut self, needed: bool) -> Vec<String> {
        let is_now = |alias: &mut String| !needed || urgency(alias) < LATER;
        let mut now: Vec<String> = self.waiting.extract_if(.., is_now).collect();
        now.sort_by_key(|alias| (urgency(alias), alias.clone()));
        now
    }
}

/// Loads what devices want, until nothing new is announced; disks and network first. Gives how many modules were new, and
/// what failed: one driver that fails is no reason to stop.
///
/// A few threads load at once, for a driver that waits for its device holds up only itself. With `needed` alone, what
/// leads to no disk and no network stays among the aliases. `idle` is called once, when all drivers that are known of were
/// begun: they wait for their devices, and the processors for them.
///
/// # Errors
/// When announcements cannot be received.
pub fn load_for_hardware(
    index: &Index,
    aliases: &mut Aliases,
    events: &Uevents,
    needed: bool,
    idle: impl FnOnce() + Send,
) -> io::Result<(usize, Vec<ModuleError>)> {
    let idle = Mutex::new(Some(idle));
    let be_idle = || {
        let idle = idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        idle.map_or((), |idle| idle())
    };
    let (loaded, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    loop {
        while events.wait(Duration::ZERO)? {
            match events.receive()? {
                Some(event) => aliases.add_announced(&event),
                None => aliases.look_again(),
            }
        }
        let now = aliases.take(needed);
        if now.is_empty() {
            be_idle();
            let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
            return Ok((loaded.into_inner(), failed));
        }
        let queue = Mutex::new(now.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get().min(4)) {
                scope.spawn(|| {
                    while let Some(alias) = next() {
                        match load_some(index, alias, |module| !ON_REQUEST.contains(&module)) {
                            Ok(count) => _ = loaded.fetch_add(count, Ordering::Relaxed),
                            // Most devices (bridges, buttons) want no module that the image has.
                            Err(ModuleError::Unknown(_)) => {}
                            Err(error) => failed.lock().unwrap_or_else(PoisonError::into_inner).push(error),
                        }
                    }
                    be_idle();
                });
            }
        });
    }
}

/// What the processor could compute faster, and a node computes seldom or never: loaded when the kernel looks for its name.
const ON_REQUEST: [&str; 6] = [
    "crc32_pclmul",
    "crct10dif_pclmul",
    "ghash_clmulni_intel",
    "polyval_clmulni",
    "sha1_ssse3",
    "sha512_ssse3",
];

/// What no disk and no network hangs on.
const LATER: u8 = 3;

/// 0 for what a node waits for: PCI storage and network controllers, virtio; then USB; then what may lead to either (a
/// bridge, a bus of a maker's own); [`LATER`] for what leads nowhere: the processor's ciphers, random numbers, memory
/// that is given back, screens, sound, keyboards, buttons, and the slow bus of sensors.
fn urgency(alias: &str) -> u8 {
    const NOWHERE: [&str; 8] = [
        "cpu:",
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
        a if a.starts_with("virtio:") => 0,
        a if a.starts_with("pci:") && (a.contains("bc01") || a.contains("bc02")) => 0,
        a if a.starts_with("pci:") && a.contains("bc0Csc03") => 1,
        a if a.starts_with("usb:") || a.starts_with("scsi:") => 1,
        _ => 2,
    }
}

/// What the kernel announces about devices.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listens from now on: open it before the walk, and nothing falls between.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // A burst at power-on must fit: the walk of /sys is going on meanwhile.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &(4 << 20));
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    /// Waits for the next announcement of a device: its properties. `None` when some were lost,
    /// and `/sys` has to be walked again.
    pub fn receive(&self) -> io::Result<Option<HashMap<String, String>>> {
        let mut buffer = [0u8; 8192];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                // Only the kernel has the number 0; another sender is not listened to.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    return Ok(Some(properties(&buffer[..length])));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether one is waiting, within `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        crate::process::wait_readable(self.0.as_fd(), limit)
    }

    /// Takes what is waiting without looking at it.
    pub fn drain(&self) {
        let mut buffer = [0u8; 8192];
        while nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// `add@/devices/…\0ACTION=add\0MODALIAS=…\0`
fn properties(message: &[u8]) -> HashMap<String, String> {
    message
        .split(|&byte| byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Says that the hardware of power-on has been looked at.
pub fn announce_hardware() -> io::Result<()> {
    File::create(names::HARDWARE_READY).map(drop)
}

/// Waits until the modules for the hardware of power-on are loaded, for at most `limit`; says
/// whether they are. Slow buses may show their disks later still.
pub fn wait_for_hardware(limit: Duration) -> io::Result<bool> {
    let ready = Path::new(names::HARDWARE_READY);
    // SAFETY: flags alone; a new descriptor or -1.
    let watch =
        crate::process::owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into())?;
    let folder = std::ffi::CString::new(names::RUN)?;
    // SAFETY: an open descriptor and a C string that lives for the call.
    Errno::result(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), folder.as_ptr(), libc::IN_CREATE) })?;
    let end = std::time::Instant::now() + limit;
    while !ready.exists() {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() || !crate::process::wait_readable(watch.as_fd(), left)? {
            return Ok(ready.exists());
        }
        let _ = nix::unistd::read(&watch, &mut [0u8; 4096]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_read() {
        let message =
            b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=pci:v00001AF4d00001042\0\xff=bad\0";
        let found = properties(message);
        assert_eq!(found["ACTION"], "add");
        assert_eq!(found["MODALIAS"], "pci:v00001AF4d00001042");
        assert_eq!(found.len(), 3);
    }

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
        assert_eq!(aliases.take(true), ["virtio:d00000002v00001AF4"]);
        assert!(aliases.take(true).is_empty());
        aliases.add_announced(&announced("add", "virtio:d00000002v00001AF4"));
        assert_eq!(aliases.take(false), ["acpi:PNP0C0C:"], "asked once");
    }

    #[test]
    fn disks_and_networks_come_first() {
        let nvme = "pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02";
        assert!(urgency(nvme) < urgency("usb:v0BDAp8152d2000dc00dsc00dp00icFFiscFFip00in02"));
        assert_eq!(urgency("virtio:d00000002v00001AF4"), urgency(nvme));
        assert!(urgency("acpi:PNP0C0C:") > urgency("scsi:t-0x00"));
        assert!(urgency("acpi:PNP0C0C:") == LATER && urgency("cpu:type:x86,ven0000fam0006mod0006:") == LATER);
        // The bus of Hyper-V, on which its disks hang; an ISA bridge; a PCI bridge.
        for bus in [
            "acpi:VMBUS:",
            "pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00",
            "pci:v00001B36d0000000Csv00000000sd00000000bc06sc04i00",
        ] {
            assert!(urgency(bus) < LATER, "{bus}");
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
