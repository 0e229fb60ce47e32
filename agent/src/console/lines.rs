//! A console as plain lines: what a serial line gets that may be a log, or a terminal that knows no cursor.
//!
//! Events come as they happen, the page when it changed and some seconds have passed; what somebody at the line asked for
//! comes at once. While he types a word no event comes between its letters.

use std::time::{Duration, Instant};

use super::board::Shown;
use super::code;
use super::dialog::{Dialog, View};
use super::render::{COLUMNS, KEYS, Now, render, wrap};

/// The page comes by itself no more often.
const PAGE_EVERY: Duration = Duration::from_secs(5);
/// Lines of the log at a time.
pub(super) const LOG_LINES: usize = 20;

/// What a console has shown.
#[derive(Debug, Default)]
pub(super) struct Lines {
    event: u64,
    page: Option<(Instant, Vec<String>)>,
    /// The typed letters that stand behind the prompt.
    echoed: Option<String>,
}

impl Lines {
    /// Somebody asked to see the view, the page included.
    pub fn show(&mut self, dialog: &Dialog, shown: &Shown, now: Now, at: Instant) -> String {
        let mut text = String::new();
        if self.echoed.take().is_some() {
            text.push_str("\r\n");
        }
        match dialog.view() {
            View::Page => {
                self.page = None;
                return text + &self.news(dialog, shown, now, at);
            }
            View::Log(back) => {
                let end = shown.events.len().saturating_sub(*back);
                let from = end.saturating_sub(LOG_LINES);
                for event in shown.events.iter().take(end).skip(from) {
                    text.push_str(&format!(" {event}\r\n"));
                }
                text.push_str(&format!(
                    " events {} to {end} of {}: Page Up for older ones, Esc for the page\r\n",
                    (from + 1).min(end),
                    shown.events.len()
                ));
            }
            View::Code => match shown.status.node_id.as_deref() {
                None => text.push_str(" the node has no id yet: it is made with its first disk\r\n"),
                Some(id) => {
                    for line in code::lines(id, COLUMNS, usize::MAX).unwrap_or_else(|why| vec![why]) {
                        text.push_str(&format!("{line}\r\n"));
                    }
                    text.push_str(&format!("{id}\r\n"));
                }
            },
            _ => {
                for line in dialog.words(&shown.status) {
                    for line in wrap(&line, COLUMNS - 1) {
                        text.push_str(format!(" {line}").trim_end());
                        text.push_str("\r\n");
                    }
                }
            }
        }
        text + &self.typed(dialog)
    }

    /// What was typed since: behind the prompt, where it stands.
    pub fn typed(&mut self, dialog: &Dialog) -> String {
        let Some((prompt, typed)) = dialog.prompt() else {
            return String::new();
        };
        let text = match &self.echoed {
            None => format!(" {prompt}{typed}"),
            Some(before) => {
                let same = before
                    .bytes()
                    .zip(typed.bytes())
                    .take_while(|(a, b)| a == b)
                    .count();
                "\x08 \x08".repeat(before.len() - same) + &typed[same..]
            }
        };
        self.echoed = Some(typed.to_owned());
        text
    }

    /// What happened, and the page if it changed and some time has passed.
    pub fn news(&mut self, dialog: &Dialog, shown: &Shown, now: Now, at: Instant) -> String {
        if dialog.prompt().is_some() {
            return String::new();
        }
        let mut text = String::new();
        if self.echoed.take().is_some() {
            text.push_str("\r\n");
        }
        for event in shown.events.iter().filter(|event| event.number > self.event) {
            text.push_str(&format!("{event}\r\n"));
        }
        self.event = shown.events.back().map_or(self.event, |last| last.number);
        // Time and memory change by themselves: they are no reason to print.
        let timeless = render(&shown.status, Now::default());
        let due = match &self.page {
            None => true,
            Some((when, last)) => at.duration_since(*when) >= PAGE_EVERY && *last != timeless,
        };
        if due {
            for line in render(&shown.status, now) {
                text.push_str(&format!("{line}\r\n"));
            }
            text.push_str(&format!(" {KEYS}\r\n"));
            self.page = Some((at, timeless));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::Board;
    use super::*;

    #[test]
    fn a_serial_line_says_each_event_once_and_the_page_when_it_changed() {
        let board = Board::new("0.1.0");
        let mut lines = Lines::default();
        let start = Instant::now();
        let mut say = |board: &Board, after: u64| {
            let at = start + Duration::from_secs(after);
            lines.news(&Dialog::default(), &board.shown(), Now::default(), at)
        };
        board.event("disks claimed: vda");
        let first = say(&board, 0);
        assert!(
            first.starts_with('+') && first.contains("  disks claimed: vda\r\n"),
            "{first}"
        );
        assert!(first.contains(" Steading 0.1.0"));
        assert_eq!(say(&board, 9), "", "nothing new, nothing said");
        board.update(|status| status.grid = "joined \"demo\"".into());
        board.event("joined \"demo\"");
        let second = say(&board, 10);
        assert!(second.contains("  joined \"demo\"\r\n") && second.contains(" grid      joined"));
        assert!(!second.contains("disks claimed"), "said before");
        board.update(|status| status.grid = "alone".into());
        assert_eq!(say(&board, 12), "", "too soon for another page");
        assert!(say(&board, 15).contains("alone"), "but it comes");
    }
}
