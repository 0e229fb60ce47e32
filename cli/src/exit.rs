//! How a command ends: one table of exit codes (docs/exit-codes.md says the same), and an error
//! in three parts: what, why, what to do.
//!
//! Invariant: a number once given keeps its meaning; scripts rely on it.

use std::fmt;

use escrow::RailError;
use market::message::RefusalCode;

/// Exit codes. `ssh` alone is different: it ends with OpenSSH's own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something that should not happen: a full disk, an unreadable file, a defect.
    Unexpected = 1,
    /// A flag, a quantity or a name is wrong; nothing was sent.
    Usage = 2,
    /// No node offers what was asked.
    NoOffer = 3,
    /// The grid cannot be reached, or no ticket is configured.
    Grid = 4,
    /// The rail cannot be reached, or its answer cannot be trusted.
    Rail = 5,
    /// The rail refuses: not enough money, most often.
    Money = 6,
    /// Nothing goes by that name here.
    NotFound = 7,
    /// There is no wallet yet, or there is one already.
    Wallet = 8,
    /// The node does not answer.
    NodeSilent = 9,
    /// The node refuses, and says why.
    NodeRefuses = 10,
    /// Not finished in the time given; it goes on, nothing has failed.
    StillGoing = 11,
    /// The space is not what was sold, or its host key is another: nothing was paid.
    ProofFailed = 12,
    /// A signed message is not valid.
    NotValid = 13,
    /// The offer lapsed and the new one is worse: both are shown, nothing was signed.
    OfferWorse = 14,
    /// An export is damaged, not finished, or another wallet's; or what was imported is not what was exported.
    NotWhole = 15,
    /// A disk is not one to flash: in use, built in, too small, this machine's own.
    DiskRefused = 16,
    /// A stick does not give back what was written to it, or claims more than it has.
    StickBad = 17,
    /// An image's checksum or signature does not hold, or it is none.
    ImageBad = 18,
    /// Ctrl-C. What was begun can be gone on from or undone.
    Interrupted = 130,
}

impl Code {
    /// All of them, with what the table in the docs says.
    #[cfg(test)]
    pub const TABLE: [(Code, &'static str); 19] = [
        (
            Code::Unexpected,
            "something unexpected: a full disk, an unreadable file, a defect",
        ),
        (
            Code::Usage,
            "usage: a flag, a quantity or a name is wrong; nothing was sent",
        ),
        (Code::NoOffer, "no node offers what was asked"),
        (
            Code::Grid,
            "the grid cannot be reached, or no ticket is configured",
        ),
        (
            Code::Rail,
            "the rail cannot be reached, or its answer cannot be trusted",
        ),
        (Code::Money, "the rail refuses: not enough money, most often"),
        (Code::NotFound, "nothing goes by that name here"),
        (Code::Wallet, "there is no wallet yet, or there is one already"),
        (Code::NodeSilent, "the node does not answer"),
        (Code::NodeRefuses, "the node refuses, and says why"),
        (
            Code::StillGoing,
            "not finished in the time given; it goes on, nothing has failed",
        ),
        (
            Code::ProofFailed,
            "failed proof: the space or its host key is not what was sold",
        ),
        (Code::NotValid, "a signed message is not valid"),
        (
            Code::OfferWorse,
            "the offer lapsed and the new one is worse; nothing was signed",
        ),
        (
            Code::NotWhole,
            "an export is damaged, not finished or another wallet's, or an import differs from it",
        ),
        (
            Code::DiskRefused,
            "a disk is not one to flash: in use, built in, too small, this machine's own",
        ),
        (
            Code::StickBad,
            "a stick does not give back what was written to it, or claims more than it has",
        ),
        (
            Code::ImageBad,
            "an image's checksum or signature does not hold, or it is no image",
        ),
        (
            Code::Interrupted,
            "stopped by Ctrl-C; what was begun can be finished or undone",
        ),
    ];

    /// As the operating system gets it.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What did not work, one line.
    pub what: String,
    /// Why, the nearest cause first.
    pub why: Vec<String>,
    /// What to do next.
    pub next: Option<String>,
    /// The node's reason, where it refused.
    pub refusal: Option<RefusalCode>,
    /// Standard output has its JSON already.
    pub is_shown: bool,
}

impl Failure {
    /// A failure that says what.
    pub fn new(code: Code, what: impl Into<String>) -> Failure {
        Failure {
            code,
            what: what.into(),
            why: Vec::new(),
            next: None,
            refusal: None,
            is_shown: false,
        }
    }

    /// Adds a cause.
    pub fn because(mut self, why: impl fmt::Display) -> Failure {
        self.why.push(why.to_string());
        self
    }

    /// Adds an error and everything below it.
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Failure {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if self.why.last() != Some(&text) {
                self.why.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// Says what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    /// What a rail's error means here.
    pub fn of_rail(what: impl Into<String>, error: &RailError) -> Failure {
        let (code, next) = match error {
            RailError::Refused(_) => (Code::Money, "steading wallet balance shows what is there"),
            RailError::Unknown(_) => (
                Code::Rail,
                "check that the ledger runs and that --ledger names it, then repeat: every step can be repeated",
            ),
            RailError::NoKey | RailError::Invalid(_) => {
                (Code::Rail, "check that --ledger names the ledger of this wallet")
            }
        };
        Failure::new(code, what).because(error).next(next)
    }
}

impl fmt::Display for Failure {
    /// What, why, what to do: three parts, nothing twice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for why in &self.why {
            write!(f, "\n  because: {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  to do:   {next}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        let mut chain = error.chain().map(ToString::to_string);
        let what = chain.next().unwrap_or_default();
        Failure {
            why: chain.collect(),
            ..Failure::new(Code::Unexpected, what)
        }
    }
}

/// What a command line that cannot be read ends with, from what the parser says of it:
///
/// ```text
/// error: unexpected argument '--memry' found        why
///
///   tip: a similar argument exists: '--memory'      what to do
///
/// Usage: steading request [OPTIONS]                 how it is written
/// ```
pub fn usage(said: &str) -> Failure {
    let mut failure = Failure::new(Code::Usage, "the command line cannot be read; nothing was sent");
    let mut next = Vec::new();
    for part in said.split("\n\n") {
        let words: Vec<&str> = part.split_whitespace().collect();
        let words = words.join(" ");
        if let Some(why) = words.strip_prefix("error: ") {
            failure = failure.because(why);
        } else if let Some(tip) = words.strip_prefix("tip: ") {
            next.push(tip.to_owned());
        } else if let Some(usage) = words.strip_prefix("Usage: ") {
            next.push(format!("write it like `{usage}`"));
        }
    }
    if failure.why.is_empty() {
        failure = failure.because("a verb is missing");
    }
    next.push("--help says more".to_owned());
    failure.next(next.join("; "))
}

/// What every verb returns.
pub type Outcome<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_the_table_in_the_code() {
        let docs = include_str!("../../docs/exit-codes.md");
        for (code, words) in Code::TABLE {
            let row = format!("| {} | {words} |", code.number());
            assert!(docs.contains(&row), "docs/exit-codes.md lacks the row: {row}");
        }
        let numbers: Vec<u8> = Code::TABLE.iter().map(|(code, _)| code.number()).collect();
        assert_eq!(numbers, (1..=18).chain([130]).collect::<Vec<u8>>());
    }

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let failure = Failure::new(Code::Grid, "the grid is silent")
            .because("nobody at 127.0.0.1:1")
            .next("start it");
        assert_eq!(
            failure.to_string(),
            "the grid is silent\n  because: nobody at 127.0.0.1:1\n  to do:   start it"
        );
    }
}
