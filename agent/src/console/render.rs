//! From status to lines of 80 columns: a pure function, so that the screen is a golden text.

use super::board::Event;
use super::status::{Selling, Space, Status};

/// Columns that any console has.
pub const COLUMNS: usize = 80;
/// Where a line's second field begins.
const SECOND: usize = 50;
/// Between the parts of a line.
const SEPARATOR: &str = " · ";
/// A space at which no line ends.
const UNBROKEN: &str = "\u{a0}";
/// Width of the names at the left.
pub(super) const NAME: usize = 10;
/// What the keys do, in one line.
pub(super) const KEYS: &str = "W claim a disk  S stop a space  L log  Q code  R reboot  P power off  ? help";

/// What changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Seconds since the kernel started.
    pub uptime_seconds: u64,
    /// Memory of the agent that is in use, in bytes.
    pub resident_bytes: Option<u64>,
}

impl Now {
    /// As it is now.
    #[must_use]
    pub fn read() -> Self {
        Self {
            uptime_seconds: host::boot::moment().as_secs(),
            resident_bytes: resident_bytes(),
        }
    }
}

/// `VmRSS` of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The screen without its events: at most `COLUMNS` columns, any number of lines.
#[must_use]
pub fn render(status: &Status, now: Now) -> Vec<String> {
    let mut page = Page::default();
    page.head(status, now);
    page.rule();
    page.pair(("grid", &status.grid), ("clock", &status.clock));
    page.pair(("wallet", &status.wallet), ("farmer.toml", &status.farmer_file));
    if let Some(cure) = &status.wallet_cure {
        page.wrapped("", cure);
    }
    for fault in &status.farmer_faults {
        page.wrapped("", &format!("farmer.toml {fault}"));
    }
    page.parts("machine", said(&status.machine));
    let no_card = if status.machine.is_empty() {
        "looking"
    } else {
        "no network card found"
    };
    page.list("network", &status.network, no_card);
    page.disks(status);
    page.spaces(&status.spaces);
    if let Some(earned) = &status.earned {
        page.parts("earned", earned);
    }
    if let Some(traffic) = &status.traffic {
        page.field("traffic", traffic);
    }
    if !status.health.is_empty() {
        let parts: Vec<String> = status.health.iter().map(ToString::to_string).collect();
        page.parts("health", &parts.join(SEPARATOR));
    }
    if let Some(address) = &status.page {
        page.field("page", address);
    }
    if let Some(resident) = now.resident_bytes {
        page.field("agent", &format!("{} resident", mebibytes(resident)));
    }
    for failure in &status.failures {
        page.wrapped(&failure.part, &failure.why);
        if let Some(cure) = &failure.cure {
            page.wrapped("", cure);
        }
    }
    page.rule();
    page.lines
}

/// The screen with as many of the newest events as fit below it.
#[must_use]
pub fn full_screen(status: &Status, now: Now, events: &[Event], rows: usize) -> Vec<String> {
    let mut lines = render(status, now);
    let room = rows.saturating_sub(lines.len());
    for event in events.iter().skip(events.len().saturating_sub(room)) {
        lines.push(cut(&format!(" {event}"), COLUMNS));
    }
    lines.truncate(rows);
    lines
}

#[derive(Default)]
struct Page {
    lines: Vec<String>,
}

impl Page {
    fn head(&mut self, status: &Status, now: Now) {
        let mut left = format!(" Steading {}", status.version);
        if let Some(node) = &status.node {
            left.push_str(&format!(" · node {node}"));
        }
        left.push_str(&format!(" · up {}", lasting(now.uptime_seconds)));
        let right = match &status.selling {
            Selling::Starting => "starting".to_owned(),
            Selling::Yes => "selling".to_owned(),
            Selling::No(why) => format!("not selling: {why}"),
        };
        let used = left.chars().count() + 2 + right.chars().count();
        if used <= COLUMNS {
            let gap = COLUMNS - left.chars().count() - right.chars().count();
            self.lines.push(format!("{left}{}{right}", " ".repeat(gap)));
        } else {
            self.lines.push(cut(&left, COLUMNS));
            self.lines.extend(
                wrap(&right, COLUMNS - 1)
                    .into_iter()
                    .map(|line| format!(" {line}")),
            );
        }
    }

    fn rule(&mut self) {
        self.lines.push(format!(" {}", "─".repeat(COLUMNS - 1)));
    }

    fn field(&mut self, name: &str, text: &str) {
        self.lines
            .push(cut(&format!(" {name:<NAME$}{}", said(text)), COLUMNS));
    }

    /// Two short fields on one line, or one below the other.
    fn pair(&mut self, left: (&str, &str), right: (&str, &str)) {
        let (left, right) = ((left.0, said(left.1)), (right.0, said(right.1)));
        let first = format!(" {:<NAME$}{}", left.0, left.1);
        let second = format!("{:<7}  {}", right.0, right.1);
        if first.chars().count() < SECOND && SECOND + second.chars().count() <= COLUMNS {
            self.lines.push(format!("{first:<SECOND$}{second}"));
        } else {
            self.wrapped(left.0, left.1);
            self.lines
                .push(cut(&format!(" {:<NAME$} {}", right.0, right.1), COLUMNS));
        }
    }

    /// Parts of which each stands whole: a line ends between two of them, where one fits on a line.
    fn parts(&mut self, name: &str, text: &str) {
        let whole = |part: &str| match part.chars().count() < COLUMNS - NAME - 2 {
            true => part.replace(' ', UNBROKEN),
            false => part.to_owned(),
        };
        let parts: Vec<String> = text.split(SEPARATOR).map(whole).collect();
        self.wrapped(name, &parts.join(&format!("{UNBROKEN}· ")));
    }

    /// A text that is shown whole, over several lines if need be.
    fn wrapped(&mut self, name: &str, text: &str) {
        let name = if name.chars().count() < NAME {
            name.to_owned()
        } else {
            format!("{name} ")
        };
        let first = name.chars().count().max(NAME);
        for (index, line) in wrap(text, COLUMNS - 1 - first).into_iter().enumerate() {
            let name = if index == 0 { name.as_str() } else { "" };
            self.lines
                .push(format!(" {name:<first$}{line}").replace(UNBROKEN, " "));
        }
    }

    fn list(&mut self, name: &str, entries: &[String], none: &str) {
        if entries.is_empty() {
            self.field(name, none);
        }
        for (index, entry) in entries.iter().enumerate() {
            self.wrapped(if index == 0 { name } else { "" }, entry);
        }
    }

    fn spaces(&mut self, spaces: &[Space]) {
        let widest = |text: fn(&Space) -> &str| {
            let widths = spaces.iter().map(|space| text(space).chars().count());
            widths.max().unwrap_or(0)
        };
        let (name, size) = (widest(|space| &space.name), widest(|space| &space.size));
        for (index, space) in spaces.iter().enumerate() {
            let head = if index == 0 { "spaces" } else { "" };
            let line = format!("{:<name$}  {:<size$}  {}", space.name, space.size, space.state);
            self.wrapped(head, &line);
        }
    }

    fn disks(&mut self, status: &Status) {
        let Some(disks) = &status.disks else {
            return self.field("disks", "looking");
        };
        if disks.is_empty() {
            return self.field("disks", "none found: a disk of 4 GiB or more is needed to sell");
        }
        let widest = disks
            .iter()
            .map(|disk| disk.name.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        for (index, disk) in disks.iter().enumerate() {
            let name = if index == 0 { "disks" } else { "" };
            let line = format!("{:<widest$} {:>8}   {}", disk.name, disk.size, disk.state);
            self.wrapped(name, &line);
            if let Some(erase) = disk.erase() {
                self.wrapped(
                    "",
                    "press W to claim and erase it, or add to farmer.toml this line:",
                );
                // Column 1 and unbroken: it is made to be copied.
                for piece in wrap(&erase, COLUMNS - 2) {
                    self.lines.push(format!("  {piece}"));
                }
            }
        }
    }
}

fn said(text: &str) -> &str {
    if text.is_empty() { "not known yet" } else { text }
}

/// Cuts what is too long, and says so by its last character.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.trim_end().to_owned();
    }
    let mut cut: String = text.chars().take(columns - 1).collect();
    cut.push('…');
    cut
}

/// Breaks at spaces, a word that is too long is broken where the line ends.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.trim_end().chars().collect();
    while rest.len() > columns {
        let at = rest[..=columns]
            .iter()
            .rposition(|c| *c == ' ')
            .filter(|at| *at > columns / 3);
        let (line, next) = match at {
            Some(at) => (rest[..at].iter().collect::<String>(), rest[at + 1..].to_vec()),
            None => (rest[..columns].iter().collect(), rest[columns..].to_vec()),
        };
        lines.push(line.trim_end().to_owned());
        rest = next;
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// `20 s`, `3 min`, `5 h 10 min`, `12 days`.
pub(crate) fn lasting(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
