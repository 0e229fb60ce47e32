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

mod hardware;
mod index;
mod pattern;

pub use hardware::{Aliases, Uevents, announce_hardware, load_for_hardware, wait_for_hardware};
pub use index::Index;

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

/// When a module counts as loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When its devices have been looked at. The kernel waits for those of every driver then (`do_init_module` of
    /// `kernel/module/main.c`): an empty SATA port takes half a second.
    Probed,
    /// When it has started: right for what drives no device, such as a file system or a cipher.
    Started,
}

/// Loads a module, or all that answer to an alias, with what they need; gives how many were new.
pub fn load(index: &Index, name: &str, until: Until) -> Result<usize, ModuleError> {
    load_some(index, name, |_| until, |_| true)
}

/// Of those that answer, the `wanted`.
fn load_some(
    index: &Index,
    name: &str,
    until: impl Fn(&str) -> Until,
    wanted: impl Fn(&str) -> bool,
) -> Result<usize, ModuleError> {
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
        match load_plan(&index.plan(module), &until) {
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
fn load_plan(plan: &[index::Step<'_>], until: impl Fn(&str) -> Until) -> Result<usize, ModuleError> {
    let mut loaded = 0;
    for step in plan {
        match insert(&step.path, &parameters(step.module, until(step.module))) {
            Ok(true) => loaded += 1,
            Ok(false) => {}
            Err(_) if step.soft => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Gives one file to the kernel; false where the module is there already.
fn insert(path: &Path, parameters: &str) -> Result<bool, ModuleError> {
    const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;
    let refused = |source| ModuleError::Refused {
        path: path.to_owned(),
        source,
    };
    if is_loaded(&index::module_name(path)) {
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

/// What the kernel's command line says for a module: `nvme.io_timeout=60` gives `io_timeout=60`; and whom it waits for.
fn parameters(module: &str, until: Until) -> String {
    let said = parameters_in(&fs::read_to_string("/proc/cmdline").unwrap_or_default(), module);
    match until {
        Until::Probed => said,
        Until::Started => format!("async_probe {said}"),
    }
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
