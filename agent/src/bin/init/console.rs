//! What `init` says, on every console that exists.

use host::console::Consoles;

/// One line. Consoles are opened anew each time: they come and go, and PID 1 lives long.
pub fn say(line: &str) {
    Consoles::open().line(line);
}

/// An error with all its causes, once, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
