//! One call into libcryptsetup, with the words that the library says when it fails.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::Location;
use std::time::Instant;

use libcryptsetup_rs::LibcryptErr;

use super::LuksError;

/// `crypt_activate_*` answers so when no key slot opens with the key.
const WRONG_KEY: i32 = libc::EPERM;

thread_local! {
    static WORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// libcryptsetup's log function; errors only. It must not unwind: it is called by C.
unsafe extern "C" fn collect(level: c_int, message: *const c_char, _: *mut c_void) {
    const ERROR: c_int = 1;
    if level != ERROR || message.is_null() {
        return;
    }
    // SAFETY: libcryptsetup passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    WORDS.with_borrow_mut(|words| {
        if words.len() < 4 {
            words.push(text.trim().chars().take(300).collect());
        }
    });
}

pub(super) type Failure = (LibcryptErr, Vec<String>);

/// Runs one call with the library's error lines caught, on the owner thread.
#[track_caller]
pub(super) fn call_raw<T>(function: impl FnOnce() -> Result<T, LibcryptErr>) -> Result<T, Failure> {
    libcryptsetup_rs::set_log_callback::<()>(Some(collect), None);
    WORDS.take();
    let start = Instant::now();
    let result = function();
    let (place, took_ms) = (Location::caller().line(), start.elapsed().as_millis() as u64);
    tracing::debug!(place, took_ms, "luks");
    result.map_err(|error| (error, WORDS.take()))
}

#[track_caller]
pub(crate) fn call<T>(
    what: &'static str,
    device: &str,
    function: impl FnOnce() -> Result<T, LibcryptErr>,
) -> Result<T, LuksError> {
    call_raw(function).map_err(|failure| failed(what, device, failure))
}

pub(super) fn failed(what: &'static str, device: &str, (error, mut words): Failure) -> LuksError {
    words.push(error.to_string());
    LuksError::Failed {
        what,
        device: device.to_owned(),
        why: words.join(" / "),
    }
}

pub(super) fn wrong_key<T>(device: &str, result: Result<T, Failure>) -> Result<T, LuksError> {
    match result {
        Err((LibcryptErr::IOError(error), _)) if error.raw_os_error() == Some(WRONG_KEY) => {
            Err(LuksError::WrongKey {
                device: device.to_owned(),
            })
        }
        result => result.map_err(|failure| failed("opening", device, failure)),
    }
}
