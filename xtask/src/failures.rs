//! Why tests failed, taken from among all that their programs say, to be said again where a run ends.
//!
//! ```text
//!   … all lines …  "failures:"  ─► kept: "---- NAME ----" and its reason ─► "test result:"  … all other lines …
//! ```
//!
//! So the last page of a long run tells what went wrong, whoever kept no more of it.

/// Lines that are kept of one program: a reason that is longer is in the run's own output.
const MOST: usize = 80;

/// Reads the lines of one program, and keeps what libtest and libtest-mimic say of tests that failed.
#[derive(Debug, Default)]
pub struct Failures {
    within: bool,
    kept: Vec<String>,
}

impl Failures {
    /// The next line.
    pub fn read(&mut self, line: &str) {
        let line = line.trim_end();
        match line {
            // Said twice: before the reasons, and before the bare names.
            "failures:" => self.within = true,
            _ if line.starts_with("test result:") => self.within = false,
            _ if self.within && !line.is_empty() && self.kept.len() < MOST => self.kept.push(line.to_owned()),
            _ => {}
        }
    }

    /// All lines at once.
    pub fn of(text: &str) -> Self {
        let mut failures = Self::default();
        text.lines().for_each(|line| failures.read(line));
        failures
    }

    /// To stand behind "NAME ended with …": nothing, or the reasons, each line indented.
    pub fn text(&self) -> String {
        self.kept.iter().map(|line| format!("\n    {line}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_kept_and_nothing_else() {
        let said = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b ----\nwaited 60 s\n\n\n\
                    failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\nthe end\n";
        assert_eq!(
            Failures::of(said).text(),
            "\n    ---- b ----\n    waited 60 s\n        b"
        );
    }

    #[test]
    fn what_passed_leaves_nothing() {
        assert_eq!(
            Failures::of("running 1 test\ntest result: ok. 1 passed\n").text(),
            ""
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let said = format!("failures:\n{}", "x\n".repeat(10_000));
        assert_eq!(Failures::of(&said).text().lines().count(), MOST + 1);
    }
}
