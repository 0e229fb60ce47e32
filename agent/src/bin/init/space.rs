//! The helper that starts spaces; so far it refuses.
use std::process::ExitCode;
/// So far it refuses.
pub fn run() -> ExitCode {
    ExitCode::FAILURE
}
