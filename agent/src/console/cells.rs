//! The cells of a screen, and what is to be written for one to become another.
//!
//! A few dozen lines, so that no library of widgets is in the image for them: a page is lines of text, and what is
//! wanted of a library would be this comparison alone.

use std::fmt::Write;

/// How a letter looks: one accent, and dim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    #[default]
    Plain,
    Dim,
    Bold,
    Accent,
    /// The head, and the keys.
    BoldAccent,
    /// Light on dark whatever the terminal's colours are: a code is read by a camera.
    Light,
}

impl Style {
    /// ECMA-48, section 8.3.117 (SGR).
    fn sgr(self) -> &'static str {
        match self {
            Style::Plain => "\x1b[0m",
            Style::Dim => "\x1b[0;2m",
            Style::Bold => "\x1b[0;1m",
            Style::Accent => "\x1b[0;36m",
            Style::BoldAccent => "\x1b[0;1;36m",
            Style::Light => "\x1b[0;97;40m",
        }
    }
}

/// A grid of letters; each takes one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cells {
    rows: usize,
    columns: usize,
    cells: Vec<(char, Style)>,
}

impl Cells {
    /// Blank ones.
    pub fn blank(rows: usize, columns: usize) -> Self {
        Self::filled(rows, columns, ' ')
    }

    /// Of which nobody knows what they show: each differs from any letter.
    pub fn unknown(rows: usize, columns: usize) -> Self {
        Self::filled(rows, columns, '\0')
    }

    fn filled(rows: usize, columns: usize, letter: char) -> Self {
        Self {
            rows,
            columns,
            cells: vec![(letter, Style::Plain); rows * columns],
        }
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Writes a text; what is beyond the edge is cut.
    pub fn put(&mut self, row: usize, column: usize, text: &str, style: Style) {
        if row >= self.rows || column >= self.columns {
            return;
        }
        let start = row * self.columns;
        let room = &mut self.cells[start + column..start + self.columns];
        for (cell, letter) in room.iter_mut().zip(text.chars()) {
            *cell = (letter, style);
        }
    }

    /// What turns a terminal that shows `before` into one that shows this: both of one size.
    pub fn after(&self, before: &Cells) -> String {
        let mut text = String::new();
        let (mut at, mut looks) = (None, None);
        for (index, (cell, old)) in self.cells.iter().zip(&before.cells).enumerate() {
            if cell == old {
                continue;
            }
            if at != Some(index) || index % self.columns == 0 {
                let (row, column) = (index / self.columns, index % self.columns);
                let _ = write!(text, "\x1b[{};{}H", row + 1, column + 1);
            }
            if looks != Some(cell.1) {
                text.push_str(cell.1.sgr());
                looks = Some(cell.1);
            }
            text.push(cell.0);
            at = Some(index + 1);
        }
        if looks.is_some_and(|style| style != Style::Plain) {
            text.push_str(Style::Plain.sgr());
        }
        text
    }

    /// The letters, a line a row.
    #[cfg(test)]
    pub fn lines(&self) -> Vec<String> {
        let line = |row: &[(char, Style)]| row.iter().map(|(letter, _)| letter).collect::<String>();
        self.cells
            .chunks(self.columns)
            .map(|row| line(row).trim_end().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A terminal that knows the three things that are written.
    fn show(on: &mut Cells, text: &str) {
        let (mut row, mut column, mut style) = (0, 0, Style::Plain);
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let end = sequence.find(['H', 'm']).expect("a final byte");
                let whole = &rest[..end + 3];
                if let Some((r, c)) = sequence[..end].split_once(';').filter(|_| whole.ends_with('H')) {
                    (row, column) = (
                        r.parse::<usize>().expect("a row") - 1,
                        c.parse::<usize>().expect("a column") - 1,
                    );
                } else {
                    let all = [
                        Style::Plain,
                        Style::Dim,
                        Style::Bold,
                        Style::Accent,
                        Style::BoldAccent,
                        Style::Light,
                    ];
                    style = all
                        .into_iter()
                        .find(|style| style.sgr() == whole)
                        .expect("a style");
                }
                rest = &sequence[end + 1..];
            } else {
                on.put(row, column, &letter.to_string(), style);
                column += 1;
                rest = &rest[letter.len_utf8()..];
            }
        }
    }

    proptest! {
        #[test]
        fn a_terminal_shows_what_was_put(
            first in proptest::collection::vec((0usize..6, 0usize..12, "[a-c─█ ]{0,9}", 0usize..3), 0..9),
            second in proptest::collection::vec((0usize..6, 0usize..12, "[a-c─█ ]{0,9}", 0usize..3), 0..9),
        ) {
            let styles = [Style::Plain, Style::Dim, Style::Accent];
            let put = |all: &[(usize, usize, String, usize)]| {
                let mut cells = Cells::blank(5, 10);
                for (row, column, text, style) in all {
                    cells.put(*row, *column, text, styles[*style]);
                }
                cells
            };
            let (first, second) = (put(&first), put(&second));
            let mut terminal = Cells::blank(5, 10);
            show(&mut terminal, &first.after(&Cells::unknown(5, 10)));
            prop_assert_eq!(&terminal, &first);
            show(&mut terminal, &second.after(&first));
            prop_assert_eq!(&terminal, &second);
            prop_assert_eq!(second.after(&second), "");
        }
    }
}
