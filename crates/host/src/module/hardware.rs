//! Modules for the hardware that is there: once over `/sys`, then by what the kernel announces.
//!
//! ```text
//!   /sys, once ─┐           ┌─ urgent ─► load, four at once: some wait for their devices
//!               ├─► Aliases ┤
//!   uevents ────┘     ▲     └─ the rest ► load, two at once, while nobody else wants the processor
//!                     └────── always looked at: a driver brings new devices to light
//!   nothing urgent is left, nor being loaded ──► ready        nothing at all ──► done
//! ```
//!
//! A bus driver brings devices to light, which want modules in turn (PCI, then virtio, then the
//! disk). Each is announced before the driver's loading returns; what appears later (USB takes seconds) is announced, too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

use super::index::Index;
use super::{ModuleError, Until, load_some};
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
        let names = (AHEAD..LATER).zip(names.iter().map(|name| (*name).to_owned()));
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

    fn add(&mut self, alias: String) {
        if self.seen.insert(alias.clone()) {
            self.waiting.insert((urgency(&alias), alias));
        }
    }

    /// Takes in what was announced since.
    fn listen(&mut self, events: &Uevents) -> io::Result<()> {
        while events.wait(Duration::ZERO)? {
            match events.receive()? {
                Some(event) => self.add_announced(&event),
                None => self.look_again(),
            }
        }
        Ok(())
    }

    /// Takes the most urgent of a share out.
    fn take(&mut self, share: Share) -> Option<(u8, String)> {
        let mut waiting = self.waiting.iter();
        let found = waiting.find(|(urgency, _)| is_urgent(*urgency) == (share == Share::Urgent))?;
        let found = found.clone();
        self.waiting.take(&found)
    }

    fn has_urgent(&self) -> bool {
        self.waiting
            .first()
            .is_some_and(|(urgency, _)| is_urgent(*urgency))
    }
}

/// So many load what a node waits for, whatever processors there are: a driver that waits for its device needs none.
const URGENT: usize = 4;
/// So many load the rest meanwhile.
const REST: usize = 2;
/// Who has nothing to do looks so often whether the last of the others has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is shared by those who load.
struct Work<'a, R> {
    aliases: &'a mut Aliases,
    /// Being loaded, and those of them that a node waits for.
    busy: usize,
    urgent: usize,
    loaded: usize,
    failed: Vec<ModuleError>,
    ready: Option<R>,
}

/// What one of them takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// What a node waits for, before whatever else wants the processor: the sooner a driver waits for its disks, the better.
    Urgent,
    /// The others, while nobody else wants the processor.
    Rest,
}

/// What one of them does next.
enum Next {
    Load(u8, String),
    /// The others may bring new devices to light.
    Wait,
    End,
}

/// Loads what devices want, until nothing new is announced; disks and network first. Gives how many modules were new, and
/// what failed: one driver that fails is no reason to stop. `ready` is called once, when all disks and networks that are
/// known of have been looked for; what leads to neither may still be loading then.
///
/// # Errors
/// When announcements cannot be received.
pub fn load_for_hardware(
    index: &Index,
    aliases: &mut Aliases,
    events: &Uevents,
    ready: impl FnOnce() + Send,
) -> io::Result<(usize, Vec<ModuleError>)> {
    let work = Mutex::new(Work {
        aliases,
        busy: 0,
        urgent: 0,
        loaded: 0,
        failed: Vec::new(),
        ready: Some(ready),
    });
    std::thread::scope(|scope| {
        let shares = [Share::Urgent; URGENT].into_iter().chain([Share::Rest; REST]);
        let work = &work;
        let loaders: Vec<_> = shares
            .map(|share| scope.spawn(move || load_what_waits(index, events, work, share)))
            .collect();
        let panicked = |_| Err(io::Error::other("a loader of modules panicked"));
        loaders
            .into_iter()
            .try_for_each(|loader| loader.join().unwrap_or_else(panicked))
    })?;
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((work.loaded, work.failed))
}

fn load_what_waits<R: FnOnce()>(
    index: &Index,
    events: &Uevents,
    work: &Mutex<Work<'_, R>>,
    share: Share,
) -> io::Result<()> {
    // Refused, it is slower.
    let _ = crate::process::set_nice(if share == Share::Urgent { -10 } else { 10 });
    let lock = || -> MutexGuard<'_, Work<'_, R>> { work.lock().unwrap_or_else(PoisonError::into_inner) };
    loop {
        let next = lock().next(events, share)?;
        match next {
            Next::End => return Ok(()),
            Next::Wait => _ = events.wait(LOOK_AGAIN)?,
            Next::Load(urgency, alias) => {
                // What is no driver, and what nobody waits for, must not wait for the disks of others.
                let until = |module: &str| match is_urgent(urgency) && index.is_driver(module) {
                    true => Until::Probed,
                    false => Until::Started,
                };
                let result = load_some(index, &alias, until, |module| !ON_REQUEST.contains(&module));
                lock().done(urgency, result);
            }
        }
    }
}

impl<R: FnOnce()> Work<'_, R> {
    fn next(&mut self, events: &Uevents, share: Share) -> io::Result<Next> {
        self.aliases.listen(events)?;
        if self.urgent == 0
            && !self.aliases.has_urgent()
            && let Some(ready) = self.ready.take()
        {
            ready();
        }
        Ok(match self.aliases.take(share) {
            Some((urgency, alias)) => {
                self.busy += 1;
                self.urgent += usize::from(is_urgent(urgency));
                Next::Load(urgency, alias)
            }
            None if self.busy == 0 && self.aliases.waiting.is_empty() => Next::End,
            None => Next::Wait,
        })
    }

    fn done(&mut self, urgency: u8, result: Result<usize, ModuleError>) {
        self.busy -= 1;
        self.urgent -= usize::from(is_urgent(urgency));
        match result {
            Ok(count) => self.loaded += count,
            // Most devices (bridges, buttons) want no module that the image has.
            Err(ModuleError::Unknown(_)) => {}
            Err(error) => self.failed.push(error),
        }
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

/// What somebody asks for first; then the second, and so on.
const AHEAD: u8 = 4;
/// What no disk and no network hangs on.
const LATER: u8 = u8::MAX;

/// Whether a node waits for it.
fn is_urgent(urgency: u8) -> bool {
    urgency < AHEAD
}

/// 0 for the controllers whose links take longest (SATA, SAS, SCSI); 1 for what else a node waits for (NVMe, networks,
/// virtio); 2 for USB and what was found on such a link; 3 for what may lead to either (a bridge, a bus of a maker's own);
/// [`LATER`] for what leads nowhere: the processor's ciphers, random numbers, memory that is given back, screens, sound,
/// keyboards, buttons, and the slow bus of sensors.
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
        a if a.starts_with("virtio:") => 1,
        a if a.starts_with("pci:") && (a.contains("bc01sc08") || a.contains("bc02")) => 1,
        a if a.starts_with("pci:") && a.contains("bc01") => 0,
        a if a.starts_with("pci:") && a.contains("bc0Csc03") => 2,
        a if a.starts_with("usb:") || a.starts_with("scsi:") => 2,
        _ => 3,
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
        aliases.also(&["vfat", "ext4"]);
        assert!(aliases.has_urgent());
        let waiting: Vec<_> = aliases.waiting.iter().map(|(_, alias)| alias.as_str()).collect();
        assert_eq!(
            waiting,
            ["virtio:d00000002v00001AF4", "vfat", "ext4", "acpi:PNP0C0C:"]
        );
        assert_eq!(
            aliases.take(Share::Rest).map(|taken| taken.1).as_deref(),
            Some("vfat")
        );
        assert!(aliases.take(Share::Urgent).is_some());
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
        assert!(urgency("acpi:PNP0C0C:") == LATER && urgency("cpu:type:x86,ven0000fam0006mod0006:") == LATER);
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
