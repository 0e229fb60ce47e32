//! The system calls that a space may not make: compiled here to the kernel's filter form.
//!
//! ```text
//!  another architecture, x32 ──► ENOSYS        (32-bit programs do not run in a space)
//!  a number after LAST_KNOWN ──► ENOSYS        (what later kernels add, nobody here has judged)
//!  DENIED                    ──► its errno
//!  socket(family)            ──► VSOCK and ALG: EAFNOSUPPORT
//!  personality(other)        ──► EPERM
//!  advice to forget pages    ──► "done", and nothing is
//!  everything else           ──► allowed
//! ```
//!
//! The list is what containers-common 0.62 (`/usr/share/containers/seccomp.json`, the profile of
//! podman) denies for the capabilities that a space keeps ([`crate::capability`]), turned around:
//! that profile names what is allowed. Stricter in three points: no 32-bit calls, no vsock (it leads
//! to the hypervisor of a node that is a virtual machine), no ALG (kernel crypto, an open door often).
//! Advice to forget what was read (`fadvise`, `madvise`) is advice about pages that all spaces share: the base's. One space
//! would make the others read it from the disk, and unpack it, again and again; who gives it in good faith loses nothing.
//! The kernel remembers which numbers are always allowed, so those do not run the filter at all.

use std::io;
use std::path::Path;

use nix::errno::Errno;

/// One instruction of a filter: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

/// A filter in the kernel's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<Instruction>);

/// Most instructions that the kernel takes: `BPF_MAXINSNS`.
const LIMIT: usize = 4096;
/// `mseal`, the last system call of Linux 6.10 to 6.12.
const LAST_KNOWN: u32 = 462;

/// What nobody in a space may call, and what it is told: EPERM for what root would be refused,
/// ENOSYS where programs know another way.
const DENIED: [(libc::c_long, Errno); 43] = [
    // Keys of the kernel are not in a namespace.
    (libc::SYS_add_key, Errno::ENOSYS),
    (libc::SYS_request_key, Errno::ENOSYS),
    // Doors through which kernels were broken into.
    (libc::SYS_io_uring_setup, Errno::ENOSYS),
    (libc::SYS_io_uring_enter, Errno::ENOSYS),
    (libc::SYS_io_uring_register, Errno::ENOSYS),
    (libc::SYS_userfaultfd, Errno::EPERM),
    (libc::SYS_perf_event_open, Errno::EPERM),
    (libc::SYS_vmsplice, Errno::EPERM),
    // The node itself.
    (libc::SYS_init_module, Errno::EPERM),
    (libc::SYS_finit_module, Errno::EPERM),
    (libc::SYS_delete_module, Errno::EPERM),
    (libc::SYS_kexec_load, Errno::EPERM),
    (libc::SYS_kexec_file_load, Errno::EPERM),
    (libc::SYS_swapon, Errno::EPERM),
    (libc::SYS_swapoff, Errno::EPERM),
    (libc::SYS_acct, Errno::EPERM),
    (libc::SYS_settimeofday, Errno::EPERM),
    (libc::SYS_clock_settime, Errno::EPERM),
    (libc::SYS_iopl, Errno::EPERM),
    (libc::SYS_ioperm, Errno::EPERM),
    (libc::SYS_migrate_pages, Errno::EPERM),
    (libc::SYS_move_pages, Errno::EPERM),
    // Advice to forget pages, in a form whose advice this filter could not see in all its ways.
    (libc::SYS_process_madvise, Errno::ENOSYS),
    // Old, and without a user.
    (libc::SYS_uselib, Errno::ENOSYS),
    (libc::SYS_ustat, Errno::ENOSYS),
    (libc::SYS_sysfs, Errno::ENOSYS),
    (libc::SYS__sysctl, Errno::ENOSYS),
    (libc::SYS_nfsservctl, Errno::ENOSYS),
    // New, and not judged yet.
    (333, Errno::ENOSYS), // io_pgetevents
    (335, Errno::ENOSYS), // uretprobe
    (libc::SYS_futex_waitv, Errno::ENOSYS),
    (libc::SYS_set_mempolicy_home_node, Errno::ENOSYS),
    (451, Errno::ENOSYS), // cachestat
    (453, Errno::ENOSYS), // map_shadow_stack
    (454, Errno::ENOSYS), // futex_wake
    (455, Errno::ENOSYS), // futex_wait
    (456, Errno::ENOSYS), // futex_requeue
    (457, Errno::ENOSYS), // statmount
    (458, Errno::ENOSYS), // listmount
    (459, Errno::ENOSYS), // lsm_get_self_attr
    (460, Errno::ENOSYS), // lsm_set_self_attr
    (461, Errno::ENOSYS), // lsm_list_modules
    (462, Errno::ENOSYS), // mseal
];

/// Families of sockets that no space gets.
const FAMILIES: [u32; 2] = [libc::AF_VSOCK as u32, libc::AF_ALG as u32];
/// Personalities that are allowed: Linux, the same with 16-bit addresses, UNAME26, both, and "ask".
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// System calls that give advice, where their advice stands, and the advice that is taken and not followed: POSIX_FADV_DONTNEED,
/// MADV_COLD and MADV_PAGEOUT.
const FORGETTING: [(libc::c_long, u32, &[u32]); 2] = [
    (libc::SYS_fadvise64, FOURTH_ARGUMENT, &[4]),
    (libc::SYS_madvise, THIRD_ARGUMENT, &[20, 21]),
];

// `struct seccomp_data`: number, architecture, instruction pointer, arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const THIRD_ARGUMENT: u32 = 32;
const FOURTH_ARGUMENT: u32 = 40;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
/// The call is not made and returns 0.
const PRETEND: u32 = libc::SECCOMP_RET_ERRNO;

const fn refuse(errno: Errno) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

impl Filter {
    /// The filter that every space gets unless another one is named.
    pub fn built_in() -> Self {
        let mut program = Vec::new();
        let mut put = |code, jump_true, jump_false, k| {
            program.push(Instruction {
                code,
                jump_true,
                jump_false,
                k,
            })
        };
        put(LOAD, 0, 0, ARCHITECTURE);
        put(IF_EQUAL, 1, 0, AUDIT_ARCH_X86_64);
        put(RETURN, 0, 0, refuse(Errno::ENOSYS));
        put(LOAD, 0, 0, NUMBER);
        // The numbers of x32 have a high bit, so they are among these.
        put(IF_GREATER, 0, 1, LAST_KNOWN);
        put(RETURN, 0, 0, refuse(Errno::ENOSYS));
        for (number, errno) in DENIED {
            put(IF_EQUAL, 0, 1, number as u32);
            put(RETURN, 0, 0, refuse(errno));
        }
        // Advice is an int, as a family is: its low half is all that the kernel looks at.
        for (number, place, advices) in FORGETTING {
            put(IF_EQUAL, 0, 2 * advices.len() as u8 + 2, number as u32);
            put(LOAD, 0, 0, place);
            for advice in advices {
                put(IF_EQUAL, 0, 1, *advice);
                put(RETURN, 0, 0, PRETEND);
            }
            put(RETURN, 0, 0, ALLOW);
        }
        put(IF_EQUAL, 0, 2 * FAMILIES.len() as u8 + 2, libc::SYS_socket as u32);
        put(LOAD, 0, 0, FIRST_ARGUMENT);
        for family in FAMILIES {
            put(IF_EQUAL, 0, 1, family);
            put(RETURN, 0, 0, refuse(Errno::EAFNOSUPPORT));
        }
        put(RETURN, 0, 0, ALLOW);
        put(
            IF_EQUAL,
            0,
            2 * PERSONALITIES.len() as u8 + 2,
            libc::SYS_personality as u32,
        );
        put(LOAD, 0, 0, FIRST_ARGUMENT);
        for personality in PERSONALITIES {
            put(IF_EQUAL, 0, 1, personality);
            put(RETURN, 0, 0, ALLOW);
        }
        put(RETURN, 0, 0, refuse(Errno::EPERM));
        put(RETURN, 0, 0, ALLOW);
        Self(program)
    }

    /// Reads a filter from a file: instructions of 8 bytes each, as the kernel has them in memory.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::from_bytes(&std::fs::read(path)?)
    }

    fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(8) || bytes.len() > LIMIT * 8 {
            let why = "a filter is 1 to 4096 instructions of 8 bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let instruction = |b: &[u8]| Instruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jump_true: b[2],
            jump_false: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Ok(Self(bytes.chunks_exact(8).map(instruction).collect()))
    }

    /// Puts the calling thread, and all that it starts, under the filter, for good. Without
    /// no_new_privs (sudo must work), so it takes CAP_SYS_ADMIN in the user namespace.
    pub fn load(&self) -> io::Result<()> {
        #[repr(C)]
        struct Program {
            length: u16,
            instructions: *const Instruction,
        }
        const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
        let program = Program {
            length: self.0.len() as u16,
            instructions: self.0.as_ptr(),
        };
        // SAFETY: `struct sock_fprog` with its array, both alive for the call; the kernel checks the program.
        let done =
            unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        Errno::result(done).map(drop).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does; a jump out of it or an unknown instruction fails the test.
    fn answer(filter: &Filter, architecture: u32, number: u32, argument: u64) -> u32 {
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let i = filter.0[at];
            at += 1;
            match i.code {
                LOAD => {
                    accumulator = match i.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT | THIRD_ARGUMENT | FOURTH_ARGUMENT => argument as u32,
                        other => panic!("loads {other}"),
                    }
                }
                IF_EQUAL | IF_GREATER => {
                    let holds = if i.code == IF_EQUAL {
                        accumulator == i.k
                    } else {
                        accumulator > i.k
                    };
                    at += usize::from(if holds { i.jump_true } else { i.jump_false });
                }
                RETURN => return i.k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    fn native(number: libc::c_long, argument: u64) -> u32 {
        answer(&Filter::built_in(), AUDIT_ARCH_X86_64, number as u32, argument)
    }

    #[test]
    fn every_number_gets_the_answer_of_its_list() {
        for number in 0..=LAST_KNOWN + 100 {
            let listed = DENIED.iter().find(|(denied, _)| *denied as u32 == number);
            let wanted = match listed {
                Some((_, errno)) => refuse(*errno),
                None if number > LAST_KNOWN => refuse(Errno::ENOSYS),
                None => ALLOW,
            };
            assert_eq!(native(number.into(), 0), wanted, "system call {number}");
        }
    }

    #[test]
    fn what_programs_live_on_is_allowed() {
        for number in [
            libc::SYS_clone3,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_keyctl,
            libc::SYS_seccomp,
            libc::SYS_execveat,
            libc::SYS_openat2,
            libc::SYS_pidfd_open,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
        ] {
            assert_eq!(native(number, 0), ALLOW, "{number}");
        }
    }

    #[test]
    fn families_and_personalities_are_told_apart() {
        let socket = |family: i32| native(libc::SYS_socket, family as u64);
        for family in [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
            libc::AF_PACKET,
        ] {
            assert_eq!(socket(family), ALLOW);
        }
        assert_eq!(socket(libc::AF_VSOCK), refuse(Errno::EAFNOSUPPORT));
        assert_eq!(socket(libc::AF_ALG), refuse(Errno::EAFNOSUPPORT));
        // The kernel takes an int: bits above it change nothing.
        assert_eq!(
            native(libc::SYS_socket, 1 << 32 | libc::AF_VSOCK as u64),
            refuse(Errno::EAFNOSUPPORT)
        );
        assert_eq!(native(libc::SYS_personality, 0xffff_ffff), ALLOW);
        assert_eq!(native(libc::SYS_personality, 0x0040_0000), refuse(Errno::EPERM));
    }

    #[test]
    fn advice_to_forget_is_taken_and_not_followed() {
        for advice in [libc::MADV_COLD, libc::MADV_PAGEOUT] {
            assert_eq!(native(libc::SYS_madvise, advice as u64), PRETEND);
        }
        assert_eq!(
            native(libc::SYS_fadvise64, libc::POSIX_FADV_DONTNEED as u64),
            PRETEND
        );
        assert_eq!(native(libc::SYS_fadvise64, 1 << 32 | 4), PRETEND);
        // MADV_DONTNEED is no advice: what it forgets is zero afterwards, and programs rely on it.
        assert_eq!(native(libc::SYS_madvise, libc::MADV_DONTNEED as u64), ALLOW);
        assert_eq!(
            native(libc::SYS_fadvise64, libc::POSIX_FADV_WILLNEED as u64),
            ALLOW
        );
    }

    #[test]
    fn other_architectures_find_no_system_calls() {
        let filter = Filter::built_in();
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        for number in [1, 11, 425] {
            assert_eq!(answer(&filter, AUDIT_ARCH_I386, number, 0), refuse(Errno::ENOSYS));
            assert_eq!(
                answer(&filter, AUDIT_ARCH_X86_64, 0x4000_0000 | number, 0),
                refuse(Errno::ENOSYS)
            );
        }
    }

    #[test]
    fn a_file_must_hold_whole_instructions() {
        assert!(Filter::from_bytes(b"").is_err());
        assert!(Filter::from_bytes(&[0; 12]).is_err());
        assert!(Filter::from_bytes(&vec![0; 8 * 4097]).is_err());
        let bytes = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];
        let allow_all = Filter::from_bytes(&bytes).unwrap();
        assert_eq!(answer(&allow_all, 0, 0, 0), ALLOW);
    }
}
