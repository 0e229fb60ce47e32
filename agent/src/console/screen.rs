//! A console as a full screen: cells, of which only those that changed are written.
//!
//! ```text
//!  page, log, code, dialog ──► cells ──────┐
//!                           cells of before ─┴─► moves, colours, letters
//! ```
//!
//! One accent colour, and dim. Now and then all of it is written anew: the kernel writes over a screen, and a serial line
//! loses bytes.

use super::board::{Event, Shown};
use super::cells::{Cells, Style};
use super::code;
use super::dialog::{Dialog, View};
use super::render::{COLUMNS, KEYS, NAME, Now, cut, full_screen, render, wrap};

/// A screen is never taken to be larger: its answer is a stranger's word.
const MOST: (u16, u16) = (100, 200);
/// A smaller one gets plain lines.
pub(super) const LEAST: (u16, u16) = (20, 80);

/// The keys of the log.
const LOG_KEYS: &str = "Esc back  Up Down a line  PgUp PgDn a page  Home End the oldest, the newest";

/// Whether a word of the bar is a key: those alone begin with a capital letter, what they do does not.
fn is_key(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase() || c == '?')
}

/// What a screen shows now.
#[derive(Debug)]
pub(super) struct Screen {
    before: Cells,
    /// Whether the font has all letters: the kernel's own has no ellipsis.
    has_ellipsis: bool,
}

impl Screen {
    /// A screen of so many rows and columns, on which anything may stand.
    pub fn new((rows, columns): (u16, u16), has_ellipsis: bool) -> Self {
        let rows = usize::from(rows.clamp(1, MOST.0));
        let columns = usize::from(columns.clamp(1, MOST.1));
        Self {
            before: Cells::unknown(rows, columns),
            has_ellipsis,
        }
    }

    /// Whether it is one of so many rows and columns.
    pub fn is_of(&self, (rows, columns): (u16, u16)) -> bool {
        let wanted = (rows.clamp(1, MOST.0), columns.clamp(1, MOST.1));
        self.before.size() == (usize::from(wanted.0), usize::from(wanted.1))
    }

    /// What stands there is not known: all of it is written next time.
    pub fn forget(&mut self) {
        let (rows, columns) = self.before.size();
        self.before = Cells::unknown(rows, columns);
    }

    /// Lines of a page of events.
    pub fn page_rows(&self) -> usize {
        self.before.size().0.saturating_sub(3).max(1)
    }

    /// What is to be written for the screen to show this.
    pub fn draw(&mut self, dialog: &Dialog, shown: &Shown, now: Now) -> String {
        let (rows, columns) = self.before.size();
        let mut next = Cells::blank(rows, columns);
        let cursor = self.compose(&mut next, dialog, shown, now);
        let mut text = next.after(&self.before);
        self.before = next;
        match cursor {
            Some((row, column)) => text.push_str(&format!("\x1b[{};{}H\x1b[?25h", row + 1, column + 1)),
            None if text.is_empty() => {}
            None => text.push_str("\x1b[?25l"),
        }
        text
    }

    /// Fills the cells; where the cursor stands, if somebody types.
    fn compose(&self, cells: &mut Cells, dialog: &Dialog, shown: &Shown, now: Now) -> Option<(usize, usize)> {
        let (rows, columns) = cells.size();
        let body = rows.saturating_sub(1);
        let mut cursor = None;
        match dialog.view() {
            View::Page => {
                let events: Vec<Event> = shown.events.iter().cloned().collect();
                let page = render(&shown.status, now);
                let top = dialog.top().min(page.len().saturating_sub(body));
                let lines = if top == 0 {
                    full_screen(&shown.status, now, &events, body)
                } else {
                    page.into_iter().skip(top).take(body).collect()
                };
                for (row, line) in lines.iter().enumerate() {
                    self.line(cells, row, line, top == 0 && row == 0);
                }
            }
            View::Log(back) => {
                let room = self.page_rows();
                let end = shown.events.len().saturating_sub(*back);
                let from = end.saturating_sub(room);
                let title = format!(
                    " What happened: {} to {end} of {}",
                    (from + 1).min(end),
                    shown.events.len()
                );
                self.put(cells, 0, 0, &title, Style::BoldAccent);
                for (row, event) in shown.events.iter().take(end).skip(from).enumerate() {
                    let line = cut(&format!(" {event}"), columns);
                    self.put(cells, row + 2, 0, line.get(..9).unwrap_or(&line), Style::Dim);
                    self.put(cells, row + 2, 9, line.get(9..).unwrap_or_default(), Style::Plain);
                }
            }
            View::Code => self.code(cells, shown, body),
            _ => {
                let width = columns.min(COLUMNS).saturating_sub(2).max(1);
                self.put(cells, 0, 0, &render(&shown.status, now)[0], Style::BoldAccent);
                let mut row = 2;
                for line in dialog
                    .words(&shown.status)
                    .iter()
                    .flat_map(|line| wrap(line, width))
                {
                    if row + 2 < body {
                        self.put(cells, row, 1, &line, Style::Plain);
                    }
                    row += 1;
                }
                if let Some((prompt, typed)) = dialog.prompt() {
                    let row = (row + 1).min(body.saturating_sub(1));
                    self.put(cells, row, 1, &prompt, Style::Accent);
                    let from = 1 + prompt.chars().count();
                    self.put(cells, row, from, typed, Style::Bold);
                    let column = (from + typed.len()).min(columns - 1);
                    cursor = Some((row, column));
                }
            }
        }
        self.bar(cells, body, dialog);
        cursor
    }

    fn code(&self, cells: &mut Cells, shown: &Shown, body: usize) {
        let Some(id) = shown.status.node_id.as_deref() else {
            let none = "the node has no id yet: it is made with its first disk";
            return self.put(cells, 1, 1, none, Style::Plain);
        };
        self.put(cells, 0, 1, id, Style::Accent);
        let (_, columns) = cells.size();
        match code::lines(id, columns, body.saturating_sub(1)) {
            Ok(lines) => {
                for (row, line) in lines.iter().enumerate() {
                    self.put(cells, row + 1, 0, line, Style::Light);
                }
            }
            Err(why) => {
                for (row, line) in wrap(&why, columns.min(COLUMNS).saturating_sub(2).max(1))
                    .iter()
                    .enumerate()
                {
                    self.put(cells, row + 2, 1, line, Style::Plain);
                }
            }
        }
    }

    /// A line of the page: its name dim, the head in the accent.
    fn line(&self, cells: &mut Cells, row: usize, line: &str, head: bool) {
        if head {
            return self.put(cells, row, 0, line, Style::BoldAccent);
        }
        let name: String = line.chars().take(1 + NAME).collect();
        let is_name = name.starts_with(' ') && name.ends_with(' ') && !name.starts_with("  ");
        if line.starts_with(" ─") {
            self.put(cells, row, 0, line, Style::Dim);
        } else if is_name {
            self.put(cells, row, 0, &name, Style::Dim);
            let rest: String = line.chars().skip(1 + NAME).collect();
            self.put(cells, row, 1 + NAME, &rest, Style::Plain);
        } else {
            self.put(cells, row, 0, line, Style::Plain);
        }
    }

    /// The keys, at the bottom.
    fn bar(&self, cells: &mut Cells, row: usize, dialog: &Dialog) {
        let keys = match dialog.view() {
            View::Page => KEYS,
            View::Log(_) => LOG_KEYS,
            _ => "Esc back",
        };
        let mut column = 1;
        for word in keys.split(' ') {
            let style = if is_key(word) {
                Style::BoldAccent
            } else {
                Style::Dim
            };
            self.put(cells, row, column, word, style);
            column += word.chars().count() + 1;
        }
    }

    fn put(&self, cells: &mut Cells, row: usize, column: usize, text: &str, style: Style) {
        if self.has_ellipsis {
            cells.put(row, column, text, style);
        } else {
            cells.put(row, column, &text.replace('…', "~"), style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::Board;
    use super::super::keys::Key;
    use super::*;

    fn shown() -> Shown {
        let board = Board::new("0.1.0");
        board.update(|status| status.node_id = Some("7e2a091c".repeat(8)));
        for index in 0..60 {
            board.event(format!("event {index}"));
        }
        board.shown()
    }

    fn letters(screen: &Screen) -> Vec<String> {
        screen.before.lines()
    }

    fn after(keys: &[Key], size: (u16, u16)) -> (Screen, String) {
        let (mut dialog, shown) = (Dialog::default(), shown());
        let mut screen = Screen::new(size, true);
        for key in keys {
            dialog.press(*key, &shown.status, shown.events.len(), screen.page_rows());
        }
        let text = screen.draw(&dialog, &shown, Now::default());
        (screen, text)
    }

    #[test]
    fn only_what_changed_is_written() {
        let (dialog, mut shown) = (Dialog::default(), shown());
        let mut screen = Screen::new((25, 80), true);
        let all = screen.draw(&dialog, &shown, Now::default());
        assert!(all.contains("Steading 0.1.0") && all.len() > 500, "{all:?}");
        assert_eq!(screen.draw(&dialog, &shown, Now::default()), "");
        shown.status.grid = "joined \"demo\"".into();
        let some = screen.draw(&dialog, &shown, Now::default());
        assert!(some.contains("ined \"demo\"") && some.len() < 120, "{some:?}");
        screen.forget();
        let again = screen.draw(&dialog, &shown, Now::default());
        assert!(again.len() > 500, "all of it again");
    }

    #[test]
    fn each_view_fits_an_old_screen() {
        let page = letters(&after(&[], (25, 80)).0);
        assert!(page[0].starts_with(" Steading 0.1.0"), "{page:#?}");
        assert_eq!(page[24], format!(" {KEYS}"));
        assert!(page[23].ends_with("event 59"), "{page:#?}");
        let log = letters(&after(&[Key::Char('l'), Key::Up], (25, 80)).0);
        assert_eq!(log[0], " What happened: 38 to 59 of 60");
        assert!(
            log[2].ends_with("event 37") && log[23].ends_with("event 58"),
            "{log:#?}"
        );
        let code = letters(&after(&[Key::Char('q')], (25, 80)).0);
        assert!(code[0].contains("7e2a091c7e2a091c"));
        assert!(
            code[21].starts_with("▀") && code[22].is_empty() && code[24].contains("Esc"),
            "{code:#?}"
        );
        let small = letters(&after(&[Key::Char('q')], (20, 80)).0);
        assert!(small[2].contains("too small"), "{small:#?}");
        let (asks, text) = after(&[Key::Char('p'), Key::Char('o')], (25, 80));
        let asks = letters(&asks);
        assert!(
            asks.iter()
                .any(|line| line.contains("type the word \"off\"") && line.ends_with(": o")),
            "{asks:#?}"
        );
        assert!(text.ends_with("H\x1b[?25h"), "the cursor stands where is typed");
    }

    #[test]
    fn keys_are_told_from_what_they_do() {
        let keys = |bar: &str| {
            bar.split(' ')
                .filter(|word| is_key(word))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(KEYS), ["W", "S", "L", "Q", "R", "P", "?"]);
        assert_eq!(
            keys(LOG_KEYS),
            ["Esc", "Up", "Down", "PgUp", "PgDn", "Home", "End"]
        );
        assert!(LOG_KEYS.len() < COLUMNS);
    }

    #[test]
    fn a_size_that_is_a_lie_takes_no_memory() {
        assert!(Screen::new((9999, 9999), true).is_of(MOST));
        let (tiny, _) = after(&[Key::Char('w')], (1, 1));
        assert!(tiny.is_of((1, 1)));
    }
}
