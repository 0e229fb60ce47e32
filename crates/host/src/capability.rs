//! The capabilities that root inside a space has, over its own user namespace.
//!
//! All but those that no user namespace should reach for: they are either void there or the doors
//! through which kernels were broken into. Source: space.md's measured set; numbers from
//! linux/capability.h.

use std::io;

use nix::errno::Errno;

/// A capability by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(pub u8);

/// What is taken from a space: SYS_MODULE SYS_RAWIO SYS_PACCT SYS_BOOT SYS_TIME AUDIT_CONTROL
/// MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
/// CHECKPOINT_RESTORE.
pub const DENIED: [Capability; 15] = [
    Capability(16),
    Capability(17),
    Capability(20),
    Capability(22),
    Capability(25),
    Capability(30),
    Capability(32),
    Capability(33),
    Capability(34),
    Capability(35),
    Capability(36),
    Capability(37),
    Capability(38),
    Capability(39),
    Capability(40),
];

/// The set that is left, as bits, of the capabilities that this kernel knows (`last` is the
/// number of its last one).
fn kept(last: u8) -> u64 {
    (0..=last.min(63))
        .filter(|n| !DENIED.contains(&Capability(*n)))
        .fold(0, |bits, n| bits | 1 << n)
}

/// Takes the denied ones from the calling thread for good: from its bounding set, so that no
/// set-user-id program brings them back, and from its other sets.
pub fn drop_denied() -> io::Result<()> {
    restrict(kept(last_capability()?.min(40)))
}

/// Leaves the calling thread these alone, for good; a program that it becomes has them as well.
pub fn keep_only(capabilities: &[Capability]) -> io::Result<()> {
    restrict(
        capabilities
            .iter()
            .fold(0, |bits, Capability(number)| bits | 1 << number),
    )
}

fn restrict(bits: u64) -> io::Result<()> {
    for number in (0..=last_capability()?).filter(|number| bits & 1 << number == 0) {
        // SAFETY: prctl with integers.
        Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) })?;
    }
    // SAFETY: prctl with integers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    set(bits)
}

/// The number of the last capability that the kernel knows: the bounding set answers EINVAL after it.
fn last_capability() -> io::Result<u8> {
    for number in 0..64u8 {
        // SAFETY: prctl with integers.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
        if known < 0 {
            return number.checked_sub(1).ok_or_else(io::Error::last_os_error);
        }
    }
    Ok(63)
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets effective and permitted to `bits`, inheritable to nothing.
fn set(bits: u64) -> io::Result<()> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: LINUX_CAPABILITY_VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Sets {
        effective: (bits >> shift) as u32,
        permitted: (bits >> shift) as u32,
        inheritable: 0,
    };
    let sets = [half(0), half(32)];
    // SAFETY: the kernel reads one header and two sets, as version 3 has them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
    Errno::result(done).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_set_is_what_sudo_ping_and_podman_need_and_no_more() {
        let bits = kept(40);
        assert_eq!(bits.count_ones(), 41 - 15);
        // CHOWN, DAC_OVERRIDE, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_CHROOT,
        // SYS_ADMIN, MKNOD, SETFCAP
        for needed in [0, 1, 6, 7, 10, 12, 13, 18, 21, 27, 31] {
            assert_ne!(bits & 1 << needed, 0, "{needed}");
        }
        for denied in DENIED {
            assert_eq!(bits & 1 << denied.0, 0, "{denied:?}");
        }
    }

    #[test]
    fn the_kernel_knows_at_least_the_capabilities_of_6_12() {
        assert!(last_capability().unwrap() >= 40);
    }
}
