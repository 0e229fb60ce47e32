//! Whether the machine has what a node needs at the least: one sentence where it has not.
//!
//! ```text
//!  memory enough? ─no─► "this machine has … MiB of memory"    ─► off
//!       │ yes
//!  all unpacked?  ─no─► "cannot be read whole: write it anew" ─► starts again
//!       │ yes
//!     goes on
//! ```
//!
//! A loader that has no room for the initramfs, or cannot read it, starts PID 1 alone; the kernel goes on with what it has
//! unpacked of a damaged one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use host::power::End;

/// A machine of 1 GiB tells the kernel of less: firmware and graphics take their part, and so does the kernel itself.
const LEAST_KIB: u64 = 720 << 10;
/// What the kernel unpacks last of an initramfs.
const WHOLE: &str = "/whole";
/// So long the sentence stands on the screen before the machine is off.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Where the machine cannot be a node: says what is missing, waits until a person may have read it, and tells how it ends.
pub fn missing() -> Option<End> {
    let (sentence, end) = match too_little(&fs::read_to_string("/proc/meminfo").unwrap_or_default()) {
        Some(sentence) => (sentence, End::PowerOff),
        None if Path::new(WHOLE).exists() => return None,
        None => (not_whole(), End::Reboot),
    };
    crate::console::say(&sentence);
    std::thread::sleep(READ_WITHIN);
    Some(end)
}

/// The sentence for an initramfs that did not come whole.
fn not_whole() -> String {
    format!(
        "steading: what is on the medium that this machine started from cannot be read whole: write it anew. \
         It starts again in {} s.",
        READ_WITHIN.as_secs()
    )
}

/// The sentence for a `/proc/meminfo` that tells of too little; one that tells nothing is taken as enough.
fn too_little(meminfo: &str) -> Option<String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    (kib < LEAST_KIB).then(|| {
        format!(
            "steading: this machine has {} MiB of memory, and a node needs 1 GiB: add memory or use another machine. \
             It switches itself off in {} s.",
            kib >> 10,
            READ_WITHIN.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::too_little;

    #[test]
    fn what_is_too_little_is_said_with_what_it_has_and_needs() {
        let said = too_little("MemTotal:         108644 kB\nMemFree: 1 kB\n").unwrap_or_default();
        assert!(
            said.contains("has 106 MiB of memory, and a node needs 1 GiB"),
            "{said}"
        );
        assert_eq!(
            too_little("MemTotal:        1004460 kB\n"),
            None,
            "1 GiB under QEMU"
        );
        assert_eq!(too_little(""), None);
        assert_eq!(too_little("MemTotal: much\n"), None);
    }
}
