//! What is wrong with a file, where, and what would be right.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::KEYS;
use super::value::Problem;

/// Longest piece of the farmer's own text that is shown back.
const LONGEST_QUOTE: usize = 24;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The key, where the fault has one.
    pub key: Option<String>,
    /// What was found.
    pub found: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}: ", self.line, self.column)?;
        if let Some(key) = &self.key {
            write!(out, "{key}: ")?;
        }
        write!(out, "{}; {}", self.found, self.right)
    }
}

impl Fault {
    /// A fault of the file as such.
    pub(super) fn whole(found: String, right: &str) -> Self {
        Self {
            line: 1,
            column: 1,
            key: None,
            found,
            right: right.to_owned(),
        }
    }

    /// A fault just behind the text that could be read.
    pub(super) fn at_end_of(text: &str, found: String, right: String) -> Self {
        let (line, column) = Places::new(text).of(text.len());
        Self {
            line,
            column,
            key: None,
            found,
            right,
        }
    }
}

/// Where the bytes of a text stand in it, as a person counts.
pub(super) struct Places<'t> {
    text: &'t str,
}

impl<'t> Places<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text }
    }

    /// Line and column of a byte.
    fn of(&self, byte: usize) -> (usize, usize) {
        self.text
            .char_indices()
            .take_while(|(at, _)| *at < byte)
            .fold((1, 1), |(line, column), (_, c)| match c {
                '\n' => (line + 1, 1),
                _ => (line, column + 1),
            })
    }

    fn line_of(&self, span: &Range<usize>) -> &'t str {
        let (line, _) = self.of(span.start);
        self.text.lines().nth(line - 1).unwrap_or_default()
    }

    /// A line that is no TOML.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> Fault {
        let span = error.span().unwrap_or(0..0);
        let (line, column) = self.of(span.start);
        let text = self.line_of(&span);
        let invisible = self.text.get(span.start..).and_then(|rest| rest.chars().next());
        if let Some(c) = invisible.filter(|c| is_invisible(*c)) {
            return Fault {
                line,
                column,
                key: None,
                found: format!("a character that nobody sees (U+{:04X})", u32::from(c)),
                right: "delete it; where a gap belongs, type a plain space".to_owned(),
            };
        }
        let key = text
            .split_once('=')
            .map(|(key, _)| key.trim().trim_start_matches('#').trim())
            .filter(|key| KEYS.contains(key))
            .map(str::to_owned);
        let example = key.as_deref().map_or("wallet = \"steading:…\"", example_of);
        let right = if text.contains(['“', '”', '„', '‘', '’']) {
            "use the plain quotes \" instead of the curly ones".to_owned()
        } else if error.message().contains("duplicate key") {
            "keep one of the two lines, delete the other".to_owned()
        } else {
            format!("write it like this: {example}")
        };
        Fault {
            line,
            column,
            key,
            found: one_line(error.message()),
            right,
        }
    }

    /// A key that is not one, or a value that will not do.
    pub(super) fn value(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        problem: Problem,
    ) -> Fault {
        let name = quote(key.get_ref());
        let (span, key, found, right) = match problem {
            Problem::NoSuchKey => (
                key.span(),
                None,
                format!("\"{name}\" is not a key"),
                instead_of(key.get_ref()),
            ),
            Problem::Value { found, right } => (value.span(), Some(name), found, right),
        };
        let (line, column) = self.of(span.start);
        Fault {
            line,
            column,
            key,
            found,
            right,
        }
    }
}

/// The farmer's own words, printable and short enough to show back.
pub(super) fn quote(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(LONGEST_QUOTE)
        .collect();
    if text.chars().count() > LONGEST_QUOTE {
        shown.push('…');
    }
    shown
}

/// Spaces and marks that come along when text is copied from a page, and that TOML does not take for spaces.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
        || (c.is_control() && c != '\n' && c != '\t')
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(100).collect()
}

/// How a good line looks.
fn example_of(key: &str) -> &'static str {
    match key {
        "price" => "price = \"0.40\"",
        "country" => "country = \"BE\"",
        "name" => "name = \"barn-1\"",
        "erase" => "erase = [\"the line that the screen shows\"]",
        "grid" => "grid = \"the ticket\"",
        "ledger" => "ledger = \"ledger:KEY@http://HOST:PORT\"",
        "owner" => "owner = \"64 hex digits\"",
        "public_address" => "public_address = \"node.example.org\"",
        "ports" => "ports = \"30000-30063\"",
        "features" => "features = [\"ssd\"]",
        "time_servers" => "time_servers = [\"192.168.1.1\"]",
        "open" => "open = [\"192.168.7.0/24\"]",
        "mail" => "mail = true",
        "rate" => "rate = \"50Mbit\"",
        "traffic" => "traffic = \"500GiB\"",
        "status_page" => "status_page = true",
        _ => "wallet = \"steading:…\"",
    }
}

/// What would be right in the place of a word that is no key.
pub(super) fn instead_of(word: &str) -> String {
    match nearest(word) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("the keys are {}", KEYS.join(", ")),
    }
}

/// The key that was probably meant: a few letters away, case aside.
fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    if word.chars().count() > LONGEST_QUOTE {
        return None;
    }
    KEYS.iter()
        .map(|key| (distance(&word, key), *key))
        .filter(|(distance, key)| *distance <= 1 + key.len() / 4)
        .min()
        .map(|(_, key)| key)
}

/// How many letters must be added, left out, changed or swapped with a neighbour.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
