//! liblvm2cmd by hand: five functions, as `lvm2cmd.h` of lvm2 2.03 declares them.
//!
//! The threaded initialiser is used, as dmeventd does: the plain one replaces the process's
//! standard streams by buffers of its own, sets signal handlers and locks the memory of the whole
//! process around every activation. Each is right for a program that is LVM, and wrong in ours.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::LvmError;

const LOG_ERROR: c_int = 3;
const LOG_PRINT: c_int = 4;
const SUCCEEDED: c_int = 1;

/// Lines kept of one command: a report of a full disk has a few hundred.
const MAX_LINES: usize = 20_000;
/// Lines of errors told to the caller.
const MAX_ERROR_LINES: usize = 8;

type LogFunction =
    extern "C" fn(level: c_int, file: *const c_char, line: c_int, errno: c_int, message: *const c_char);

unsafe extern "C" {
    fn lvm2_log_fn(function: Option<LogFunction>);
    fn lvm2_init_threaded() -> *mut c_void;
    fn lvm2_log_level(handle: *mut c_void, level: c_int);
    fn lvm2_run(handle: *mut c_void, command: *const c_char) -> c_int;
    fn lvm2_exit(handle: *mut c_void);
}

/// What one command printed.
#[derive(Default)]
struct Output {
    lines: Vec<String>,
    errors: Vec<String>,
}

thread_local! {
    static OUTPUT: RefCell<Output> = RefCell::default();
}

/// LVM's log function. It must not unwind: it is called by C.
extern "C" fn collect(level: c_int, _: *const c_char, _: c_int, _: c_int, message: *const c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: LVM passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    #[cfg(feature = "fault-points")]
    super::cut::told(&text);
    OUTPUT.with_borrow_mut(|output| {
        for line in text.lines() {
            let line = line.trim_end();
            if level <= LOG_ERROR {
                if output.errors.len() == MAX_ERROR_LINES {
                    output.errors.remove(0);
                }
                output.errors.push(line.trim_start().chars().take(400).collect());
            } else if level == LOG_PRINT && output.lines.len() < MAX_LINES {
                output.lines.push(line.to_owned());
            }
        }
    });
}

/// A handle of liblvm2cmd. Neither `Send` nor `Sync`: it stays on the thread that made it.
pub(crate) struct LvmSession {
    /// Null between an end and the next start.
    handle: *mut c_void,
    /// What LVM knows: it reads the kernel's list once.
    kinds: Vec<String>,
}

impl LvmSession {
    /// Starts LVM on this thread. The configuration must already be in place.
    pub(crate) fn start() -> Result<Self, LvmError> {
        OUTPUT.take();
        let kinds = kinds_of_devices();
        // SAFETY: the function is `extern "C"`, does not unwind and lives for ever. The handle is
        // checked for null, and used by this thread alone until `lvm2_exit`.
        let handle = unsafe {
            lvm2_log_fn(Some(collect));
            lvm2_init_threaded()
        };
        if handle.is_null() {
            return Err(LvmError::Start(OUTPUT.take().errors.join(" / ")));
        }
        // SAFETY: the handle is valid.
        unsafe { lvm2_log_level(handle, LOG_PRINT) };
        Ok(Self { handle, kinds })
    }

    /// Runs one command line; returns what it printed.
    pub(crate) fn run(&mut self, line: &str) -> Result<Vec<String>, LvmError> {
        let command = || line.split(" --").next().unwrap_or(line).to_owned();
        let c_line = CString::new(line).map_err(|_| LvmError::Word {
            what: "command line",
            word: line.to_owned(),
        })?;
        self.keep_up()?;
        OUTPUT.take();
        let start = std::time::Instant::now();
        #[cfg(feature = "fault-points")]
        if super::cut::is_armed() {
            // SAFETY: the handle is valid.
            unsafe { lvm2_log_level(self.handle, super::cut::LOG_DEBUG) };
        }
        // SAFETY: the handle is valid and the line is NUL-terminated; LVM copies the line before it
        // splits it.
        let code = unsafe { lvm2_run(self.handle, c_line.as_ptr()) };
        let output = OUTPUT.take();
        tracing::debug!(line, code, took_ms = start.elapsed().as_millis() as u64, "lvm");
        if code == SUCCEEDED {
            return Ok(output.lines);
        }
        let mut lines = output.errors;
        if lines.is_empty() {
            let from = output.lines.len().saturating_sub(MAX_ERROR_LINES);
            lines = output.lines[from..].iter().map(|l| l.trim().to_owned()).collect();
        }
        Err(LvmError::Failed {
            command: command(),
            code,
            lines,
        })
    }

    /// A disk whose driver came after the start is none to LVM ("device type is unknown"): then it is started anew.
    fn keep_up(&mut self) -> Result<(), LvmError> {
        if self.handle.is_null() || self.kinds != kinds_of_devices() {
            self.end();
            *self = Self::start()?;
        }
        Ok(())
    }

    fn end(&mut self) {
        let handle = std::mem::replace(&mut self.handle, std::ptr::null_mut());
        if !handle.is_null() {
            // SAFETY: the handle is valid and is not used again.
            unsafe { lvm2_exit(handle) };
        }
    }
}

impl Drop for LvmSession {
    fn drop(&mut self) {
        self.end();
    }
}

/// The kinds of block devices that the kernel has drivers for (proc_devices(5)), but its mappings: no disk is one.
fn kinds_of_devices() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let block = text.lines().skip_while(|line| *line != "Block devices:").skip(1);
    block
        .filter(|line| !line.ends_with(" device-mapper"))
        .map(str::to_owned)
        .collect()
}
