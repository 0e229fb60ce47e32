//! How things look: texts, tables, and lines that move. Nothing here asks anybody anything.
//!
//! Habits: 80 columns hold everything; one accent colour and dim, neither under NO_COLOR nor off a
//! terminal; units always; ids shortened in the middle, whole with `--json`.

pub mod steps;
pub mod tables;
pub mod text;

use std::io::IsTerminal;

use crate::exit::{Code, Failure, Outcome};

/// What the person wants to read.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// JSON alone on standard output.
    pub json: bool,
}

impl Screen {
    /// Prints the result: JSON with `--json`, else the text.
    pub fn result(self, json: &serde_json::Value, text: &str) -> Outcome {
        if self.json {
            self.print(&format!("{json:#}"))
        } else {
            self.print(text.trim_end())
        }
    }

    /// The same, and with `--json` the text goes to standard error too: what a person watches
    /// while a program reads.
    pub fn result_and_told(self, json: &serde_json::Value, text: &str) -> Outcome {
        if self.json {
            eprintln!("{}", text.trim_end());
        }
        self.result(json, text)
    }

    fn print(self, text: &str) -> Outcome {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // Whoever reads has read enough, as in `steading spaces | head -1`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::new(Code::Unexpected, "the result cannot be printed").because(error)),
        }
    }

    /// Prints why a command ended: three parts on standard error; with `--json` one object on
    /// standard output too.
    pub fn failure(self, failure: &Failure) {
        let colour = Colour::of(&std::io::stderr());
        eprintln!("{}", colour.accent(&failure.to_string()));
        if self.json && !failure.is_shown {
            let object = serde_json::json!({"error": {
                "code": failure.code.number(), "what": failure.what, "why": failure.why, "next": failure.next,
            }});
            let _ = self.print(&format!("{object:#}"));
        }
    }
}

/// Whether there is colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(bool);

impl Colour {
    /// On a terminal without NO_COLOR.
    pub fn of(stream: &impl IsTerminal) -> Colour {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Colour(stream.is_terminal() && !unwanted && !dumb)
    }

    /// What the eye should find first.
    pub fn accent(self, text: &str) -> String {
        self.wrapped(text, "\u{1b}[33m")
    }

    /// What it may skip.
    pub fn dim(self, text: &str) -> String {
        self.wrapped(text, "\u{1b}[2m")
    }

    fn wrapped(self, text: &str, start: &str) -> String {
        if self.0 {
            format!("{start}{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
