//! From bytes of a terminal to keys: the one decoder of what comes in over a console.
//!
//! A serial line may send noise, the answers of a terminal to questions that nobody asked, or megabytes that somebody
//! pasted. Invariant: whatever comes, one byte gives one key at most, and no more than [`LONGEST`] bytes of an unfinished
//! sequence are kept; what is no key is nothing.
//!
//! ```text
//!            ESC               [ O
//!   Ground ───────► Escape ──────────► Sequence ── final byte ──► key, or nothing
//!     │  ▲            │ other byte         │ too long: the rest is swallowed to its final byte
//!     │  └────────────┴────────────────────┘
//!     ├─ 0x20..0x7e ──► Char        a pause in Escape ──► Escape, the key
//!     └─ 0xc2..0xf4 ──► Utf8, 1 to 3 more ──► nothing: no name has such a letter
//! ```

/// Bytes of a sequence that are kept: the longest that means something is a report of `ESC [ 999 ; 999 R`.
pub const LONGEST: usize = 16;

/// What was pressed, or what the terminal answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable letter of ASCII.
    Char(char),
    /// Return, or Enter.
    Enter,
    /// Escape alone, or Ctrl-C, or Ctrl-G.
    Escape,
    /// Backspace or delete.
    Backspace,
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// Ctrl-L: draw again.
    Redraw,
    /// The terminal says where its cursor stands: rows and columns, counted from 1.
    Report(u16, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Sequence,
    /// The three letters after `ESC O` or the Linux console's `ESC [ [`: one more byte.
    OneMore,
    /// So many bytes of a letter beyond ASCII are still to come.
    Utf8(u8),
}

/// Bytes in, keys out.
#[derive(Debug, Clone, Default)]
pub struct Parser {
    state: State,
    kept: Vec<u8>,
    /// The sequence is longer than any that means something.
    too_long: bool,
    /// The byte before was CR: the LF after it is the same key.
    after_return: bool,
}

impl Parser {
    /// The next byte.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        let after_return = std::mem::take(&mut self.after_return);
        match (self.state, byte) {
            // Whatever was begun, this begins anew. Twice is Escape pressed twice.
            (State::Escape, 0x1b) => Some(Key::Escape),
            (_, 0x1b) => {
                self.begin(State::Escape);
                None
            }
            (State::Ground, _) => self.ground(byte, after_return),
            (State::Escape, b'[') => {
                self.begin(State::Sequence);
                None
            }
            (State::Escape, b'O') => {
                self.begin(State::OneMore);
                None
            }
            // Alt with a letter: no key of ours.
            (State::Escape, _) => {
                self.begin(State::Ground);
                None
            }
            (State::OneMore, _) => {
                self.begin(State::Ground);
                final_key(byte, &[])
            }
            (State::Sequence, b'[') if self.kept.is_empty() && !self.too_long => {
                self.begin(State::OneMore);
                None
            }
            (State::Sequence, 0x40..=0x7e) => {
                let key = (!self.too_long).then(|| final_key(byte, &self.kept)).flatten();
                self.begin(State::Ground);
                key
            }
            (State::Sequence, 0x20..=0x3f) => {
                if self.kept.len() < LONGEST {
                    self.kept.push(byte);
                } else {
                    self.too_long = true;
                }
                None
            }
            // No sequence has such a byte: noise.
            (State::Sequence, _) => {
                self.begin(State::Ground);
                None
            }
            (State::Utf8(left), 0x80..=0xbf) => {
                self.state = match left {
                    0 | 1 => State::Ground,
                    left => State::Utf8(left - 1),
                };
                None
            }
            (State::Utf8(_), _) => {
                self.begin(State::Ground);
                self.ground(byte, false)
            }
        }
    }

    /// Nothing came for a moment: an Escape that stands alone was the key.
    pub fn pause(&mut self) -> Option<Key> {
        let was = self.state;
        self.begin(State::Ground);
        (was == State::Escape).then_some(Key::Escape)
    }

    /// Whether a sequence has begun and not ended, so that a pause means something.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.state != State::Ground
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.kept.clear();
        self.too_long = false;
    }

    fn ground(&mut self, byte: u8, after_return: bool) -> Option<Key> {
        match byte {
            b'\r' => {
                self.after_return = true;
                Some(Key::Enter)
            }
            b'\n' => (!after_return).then_some(Key::Enter),
            0x08 | 0x7f => Some(Key::Backspace),
            0x03 | 0x07 => Some(Key::Escape),
            0x0c => Some(Key::Redraw),
            0x20..=0x7e => Some(Key::Char(char::from(byte))),
            0xc2..=0xdf => self.utf8(1),
            0xe0..=0xef => self.utf8(2),
            0xf0..=0xf4 => self.utf8(3),
            _ => None,
        }
    }

    fn utf8(&mut self, more: u8) -> Option<Key> {
        self.state = State::Utf8(more);
        None
    }
}

/// What a sequence means by its last byte and what stands before it.
fn final_key(last: u8, before: &[u8]) -> Option<Key> {
    match (last, before) {
        (b'A', []) => Some(Key::Up),
        (b'B', []) => Some(Key::Down),
        (b'H', []) | (b'~', b"1" | b"7") => Some(Key::Home),
        (b'F', []) | (b'~', b"4" | b"8") => Some(Key::End),
        (b'~', b"5") => Some(Key::PageUp),
        (b'~', b"6") => Some(Key::PageDown),
        (b'~', b"3") => Some(Key::Backspace),
        (b'R', report) => {
            let (rows, columns) = std::str::from_utf8(report).ok()?.split_once(';')?;
            let number = |text: &str| {
                let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse::<u16>().ok()).flatten()
            };
            Some(Key::Report(number(rows)?, number(columns)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut parser = Parser::default();
        let mut keys: Vec<Key> = bytes.iter().filter_map(|byte| parser.feed(*byte)).collect();
        keys.extend(parser.pause());
        keys
    }

    #[test]
    fn keys_of_terminals_are_known() {
        use Key::*;
        assert_eq!(keys(b"w?\r"), [Char('w'), Char('?'), Enter]);
        assert_eq!(keys(b"\r\n\n\r"), [Enter, Enter, Enter], "CR LF is one key");
        assert_eq!(keys(b"\x1b[A\x1b[B\x1bOA\x1bOB"), [Up, Down, Up, Down]);
        assert_eq!(
            keys(b"\x1b[5~\x1b[6~\x1b[1~\x1b[4~\x1b[H\x1bOF"),
            [PageUp, PageDown, Home, End, Home, End]
        );
        assert_eq!(keys(b"\x7f\x08\x1b[3~"), [Backspace; 3]);
        assert_eq!(keys(b"\x1b"), [Escape]);
        assert_eq!(keys(b"\x1b\x1b"), [Escape, Escape]);
        assert_eq!(keys(b"\x03"), [Escape]);
        assert_eq!(keys(b"\x1b[24;80R"), [Report(24, 80)]);
    }

    #[test]
    fn what_is_no_key_is_nothing() {
        for noise in [
            &b"\x1b[[A"[..1],
            b"\x1b[15~",
            b"\x1b[?62;22c",
            b"\x1b[200~",
            b"\x1bx",
            b"\x00\x01\x02\xff\xfe",
            "é€😀".as_bytes(),
            b"\x1b[99999;1R",
            b"\x1b[;R",
            b"\x1b[1;2;3R",
        ] {
            let found: Vec<Key> = keys(noise)
                .into_iter()
                .filter(|key| *key != Key::Escape)
                .collect();
            assert_eq!(found, [], "{noise:?}");
        }
        let long = [b"\x1b[".as_slice(), &[b'1'; 5000], b"Aw"].concat();
        assert_eq!(
            keys(&long),
            [Key::Char('w')],
            "a sequence without end is swallowed to its end"
        );
        assert_eq!(keys(b"\xe2w"), [Key::Char('w')], "half a letter hides no key");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(bytes: Vec<u8>) {
            let mut parser = Parser::default();
            let mut count = 0;
            for byte in &bytes {
                count += usize::from(parser.feed(*byte).is_some());
                prop_assert!(parser.kept.len() <= LONGEST);
            }
            prop_assert!(count <= bytes.len());
            parser.pause();
            prop_assert_eq!(parser.feed(b'w'), Some(Key::Char('w')), "after a pause a key is a key");
        }
    }
}
