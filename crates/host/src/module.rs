//! Kernel modules: found by name, by alias, or by the hardware that is there; loaded with what they
//! need, compressed as they lie (`.ko.xz`; the kernel unpacks them, and checks their signatures).
//!
//! ```text
//!  /lib/modules/VERSION/modules.{dep,alias,softdep,builtin} ──► Index (pure)
//!                                                                │ plan(name): files in order
//!  kernel ── /sbin/modprobe -q -- NAME ──► load ◄────────────────┤
//!  /sys/**/modalias, uevents ──► hardware ───────────────────────┘
//! ```
//!
//! A module that is there already is a success. A name that no module answers to is an error that
//! says so: the caller knows whether it matters.

mod aliases;
mod hardware;
mod index;
mod pattern;
mod uevents;

pub use aliases::Aliases;
pub use hardware::{announce_hardware, load_for_hardware, wait_for_hardware};
pub use index::Index;
pub use uevents::Uevents;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Why a module was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The image has no lists of modules for this kernel.
    #[error("the list of modules {path:?} cannot be read")]
    Lists {
        /// Which list.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No module of this name, and no alias.
    #[error("no module answers to {0:?}")]
    Unknown(String),
    /// The kernel refused it.
    #[error("the kernel refuses the module {path:?}")]
    Refused {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The lists of the kernel that runs.
pub fn of_running_kernel() -> Result<Index, ModuleError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|source| ModuleError::Lists {
        path: "/proc/sys/kernel/osrelease".into(),
        source,
    })?;
    Index::read(&Path::new("/lib/modules").join(release.trim()))
}

/// Loads a module, or all that answer to an alias, with what they need; gives how many were new. It has looked at its devices
/// then; what drives none has only started.
pub fn load(index: &Index, name: &str) -> Result<usize, ModuleError> {
    load_some(index, name, |_| true)
}

/// Of those that answer, the `wanted`.
fn load_some(index: &Index, name: &str, wanted: impl Fn(&str) -> bool) -> Result<usize, ModuleError> {
    let modules = index.resolve(name);
    if modules.is_empty() {
        return if index.is_builtin(name) {
            Ok(0)
        } else {
            Err(ModuleError::Unknown(name.to_owned()))
        };
    }
    let mut loaded = 0;
    let (mut first_error, mut any) = (None, false);
    for module in modules.into_iter().filter(|module| wanted(module)) {
        match load_plan(index, &index.plan(module)) {
            Ok(count) => (loaded += count, any = true).0,
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if !any => Err(error),
        _ => Ok(loaded),
    }
}

/// Loads files in their order. A soft dependency that fails is left behind.
fn load_plan(index: &Index, plan: &[index::Step<'_>]) -> Result<usize, ModuleError> {
    let mut loaded = 0;
    for step in plan {
        match insert(index, step) {
            Ok(true) => loaded += 1,
            Ok(false) => {}
            Err(_) if step.soft => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Gives one file to the kernel; false where the module is there already.
///
/// The kernel ends each loading by waiting for the devices of all drivers, other modules' too (`do_init_module` of
/// `kernel/module/main.c`): half a second for an empty SATA port. What drives no device asks it not to.
fn insert(index: &Index, step: &index::Step<'_>) -> Result<bool, ModuleError> {
    const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;
    let path = &step.path;
    let refused = |source| ModuleError::Refused {
        path: path.to_owned(),
        source,
    };
    if is_loaded(step.module) {
        return Ok(false);
    }
    let file = File::open(path).map_err(refused)?;
    let compressed = path
        .extension()
        .is_some_and(|e| e == "xz" || e == "zst" || e == "gz");
    let flags = if compressed {
        MODULE_INIT_COMPRESSED_FILE
    } else {
        0
    };
    let mut parameters = parameters(step.module);
    if !index.is_driver(step.module) {
        parameters.push_str(" async_probe");
    }
    let parameters = CString::new(parameters).map_err(|e| refused(e.into()))?;
    // SAFETY: an open file, a C string that lives for the call, and flags.
    let done = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            flags,
        )
    };
    match Errno::result(done) {
        Ok(_) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(e) => Err(refused(e.into())),
    }
}

/// Whether the kernel has it, whole.
pub fn is_loaded(module: &str) -> bool {
    let state = Path::new("/sys/module").join(module).join("initstate");
    fs::read_to_string(state).is_ok_and(|state| state.trim() == "live")
}

/// What the kernel's command line says for a module: `nvme.io_timeout=60` gives `io_timeout=60`.
fn parameters(module: &str) -> String {
    parameters_in(&fs::read_to_string("/proc/cmdline").unwrap_or_default(), module)
}

fn parameters_in(line: &str, module: &str) -> String {
    let of_module = |word: &str| {
        let (name, rest) = word.split_once('.')?;
        (index::normal(name) == module).then(|| rest.to_owned())
    };
    line.split_whitespace()
        .filter_map(of_module)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_from_the_command_line() {
        let line = "quiet nvme-core.io_timeout=60 nvme_core.multipath=N other.x=1 nvme_core=3";
        assert_eq!(parameters_in(line, "nvme_core"), "io_timeout=60 multipath=N");
        assert_eq!(parameters_in(line, "nvme"), "");
    }

    #[test]
    fn a_kernel_without_lists_is_an_error_that_names_the_list() {
        let error = Index::read(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("modules.dep"), "{error}");
    }
}
