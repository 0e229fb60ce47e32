//! What keys do on one console: a pure machine, each console has its own.
//!
//! ```text
//!            ? L Q            Esc
//!   Page ◄──────────► Help, Log, Code
//!    │ ▲
//!    │ └────────────── Esc, or two minutes without a key ───────────────┐
//!    │ W S, several              number or name            the word     │
//!    ├──────────────► Pick ────────────────────► Confirm ──────────► Act, Said
//!    │ W S, one; R; P                               ▲  └─ another word ──► Said
//!    └──────────────────────────────────────────────┘
//! ```
//!
//! Invariants: an act needs a key, and then a whole line that is a word and nothing else; so noise does nothing, nor does
//! a line that sends back what it is sent, for no line of ours is such a word alone. What is confirmed is what was shown:
//! a disk whose content is another one by then is not touched. Nothing here runs a program or looks into a space.

use super::keys::Key;
use super::status::{Disk, Status};

/// Letters of a line that is typed: longer than any name.
const MOST_TYPED: usize = 64;
/// Lines that a page is scrolled down at most.
const MOST_DOWN: usize = 200;
/// A dialog that nobody goes on with ends after so many seconds.
pub const ENDS_AFTER_SECONDS: u64 = 120;

/// What a person had done at a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Erase a disk and claim it.
    Claim {
        /// The kernel's name of it.
        disk: String,
        /// What it holds, in words.
        holds: String,
        /// The line that allows it, as `erase` in `farmer.toml` has it.
        line: String,
    },
    /// End a space.
    Stop {
        /// Its sale.
        sale: [u8; 32],
        /// Its name.
        name: String,
    },
    /// Start the machine again.
    Reboot,
    /// Switch the machine off.
    PowerOff,
}

impl Act {
    /// What must be typed.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Act::Claim { disk, .. } => disk,
            Act::Stop { name, .. } => name,
            Act::Reboot => "reboot",
            Act::PowerOff => "off",
        }
    }

    /// What it does, and what is lost.
    fn means(&self, spaces: usize) -> String {
        let running = match spaces {
            0 => String::new(),
            1 => " 1 space runs here: it is away until its user unlocks it again.".to_owned(),
            n => format!(" {n} spaces run here: they are away until their users unlock them again."),
        };
        match self {
            Act::Claim { disk, holds, .. } => format!(
                "Erase {disk} and sell it: what it holds ({holds}) is lost for good. Spaces run on; logins through the \
                 grid are cut for some seconds, while the agent starts again."
            ),
            Act::Stop { name, .. } => {
                format!(
                    "End {name}: what is in it is lost for good, and the rest of the money returns to its user."
                )
            }
            Act::Reboot => format!("Start the machine again.{running}"),
            Act::PowerOff => {
                format!("Switch the machine off: it earns nothing until it is switched on.{running}")
            }
        }
    }

    /// What is said when it was begun.
    fn begun(&self) -> String {
        match self {
            Act::Claim { disk, .. } => {
                format!("{disk} is erased and claimed now: see the page in some seconds")
            }
            Act::Stop { name, .. } => format!("{name} is stopped: see the page"),
            Act::Reboot => "the machine starts again".to_owned(),
            Act::PowerOff => "the machine switches itself off".to_owned(),
        }
    }

    /// Whether what was shown is still so.
    fn still_holds(&self, status: &Status) -> bool {
        match self {
            Act::Claim { .. } => claims(status).contains(self),
            Act::Stop { sale, .. } => status.spaces.iter().any(|space| space.sale == *sale),
            Act::Reboot | Act::PowerOff => true,
        }
    }
}

/// What a console shows in the place of its page, or the page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum View {
    /// The page, so many lines down.
    #[default]
    Page,
    /// Which keys there are.
    Help,
    /// The node's id as a QR code.
    Code,
    /// The last events, so many lines up from the newest.
    Log(usize),
    /// Which of these.
    Pick {
        /// What it is about.
        title: &'static str,
        /// What there is.
        acts: Vec<Act>,
        /// What was typed.
        typed: String,
    },
    /// The word, if it is meant.
    Confirm {
        /// What is to be done.
        act: Act,
        /// What was typed.
        typed: String,
    },
    /// One sentence.
    Said(String),
}

/// The dialog of one console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialog {
    view: View,
    /// How far down the page is.
    top: usize,
}

/// What a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing else is shown than before.
    Nothing,
    /// The view is another one.
    Shown,
    /// The view is the same, and its typed line another one.
    Typed,
    /// Escape on the page: who has another way to show things takes it.
    Left,
    /// It was confirmed.
    Act(Act),
}

impl Dialog {
    /// What is to be shown.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How many lines of the page are above what is shown; no more than a page can have.
    #[must_use]
    pub fn top(&self) -> usize {
        self.top
    }

    /// Nobody went on with it, or too much came at once.
    pub fn end(&mut self) -> bool {
        std::mem::take(&mut self.view) != View::Page
    }

    /// One sentence, in the place of what was shown.
    pub fn say(&mut self, text: impl Into<String>) {
        self.view = View::Said(text.into());
    }

    /// A key. `events`: how many there are to scroll through; `rows`: how many a page of them has.
    pub fn press(&mut self, key: Key, status: &Status, events: usize, rows: usize) -> Outcome {
        let before = self.view.clone();
        let act = match &mut self.view {
            View::Page | View::Said(_) | View::Help | View::Code => {
                if key == Key::Escape && before == View::Page {
                    return Outcome::Left;
                }
                if before == View::Page && self.scroll(key, rows) {
                    return Outcome::Shown;
                }
                self.view = from_page(key, &before, status);
                None
            }
            View::Log(back) => {
                let most = events.saturating_sub(rows);
                let to = match key {
                    Key::Up => back.saturating_add(1),
                    Key::Down => back.saturating_sub(1),
                    Key::PageUp => back.saturating_add(rows),
                    Key::PageDown | Key::Char(' ') => back.saturating_sub(rows),
                    Key::Home => most,
                    Key::End => 0,
                    _ => *back,
                };
                *back = to.min(most);
                if !scrolls(key) {
                    self.view = from_page(key, &before, status);
                }
                None
            }
            View::Pick { acts, typed, .. } => match line(typed, key) {
                Line::More => None,
                Line::Whole => {
                    let picked = pick(acts, typed);
                    self.view = match picked {
                        Some(act) => confirm(act),
                        None => View::Said("no such one: nothing was done".to_owned()),
                    };
                    None
                }
                Line::Left(to) => {
                    self.view = to;
                    None
                }
            },
            View::Confirm { act, typed } => match line(typed, key) {
                Line::More => None,
                Line::Whole if typed != act.word() => {
                    let said = format!("that was not the word \"{}\": nothing was done", act.word());
                    self.view = View::Said(said);
                    None
                }
                Line::Whole if !act.still_holds(status) => {
                    let said = format!("{} is not what it was: nothing was done", act.word());
                    self.view = View::Said(said);
                    None
                }
                Line::Whole => {
                    let act = act.clone();
                    self.view = View::Said(act.begun());
                    Some(act)
                }
                Line::Left(to) => {
                    self.view = to;
                    None
                }
            },
        };
        match act {
            Some(act) => Outcome::Act(act),
            None if self.view == before && !matches!(key, Key::Redraw | Key::Enter) => Outcome::Nothing,
            None if same_form(&self.view, &before) => Outcome::Typed,
            None => Outcome::Shown,
        }
    }

    /// Moves the page; whether the key was for that.
    fn scroll(&mut self, key: Key, rows: usize) -> bool {
        let to = match key {
            Key::Up => self.top.saturating_sub(1),
            Key::Down => self.top + 1,
            Key::PageUp => self.top.saturating_sub(rows),
            Key::PageDown => self.top + rows,
            Key::Home => 0,
            _ => return false,
        };
        self.top = to.min(MOST_DOWN);
        true
    }

    /// The lines of the view, but for the page, which is drawn by others.
    #[must_use]
    pub fn words(&self, status: &Status) -> Vec<String> {
        let running = status.spaces.len();
        match &self.view {
            View::Page | View::Log(_) | View::Code => Vec::new(),
            View::Help => HELP.iter().map(|line| (*line).to_owned()).collect(),
            View::Said(text) => vec![text.clone()],
            View::Pick { title, acts, .. } => {
                let mut lines = vec![(*title).to_owned()];
                lines.extend(acts.iter().enumerate().map(|(index, act)| {
                    let holds = match act {
                        Act::Claim { holds, .. } => holds.as_str(),
                        _ => "",
                    };
                    format!("{:>3}  {}  {holds}", index + 1, act.word())
                        .trim_end()
                        .to_owned()
                }));
                lines
            }
            View::Confirm { act, .. } => vec![act.means(running)],
        }
    }

    /// What stands before a line that is being typed, and the line.
    #[must_use]
    pub fn prompt(&self) -> Option<(String, &str)> {
        match &self.view {
            View::Pick { typed, .. } => {
                Some(("number or name, then Enter; Esc goes back: ".to_owned(), typed))
            }
            View::Confirm { act, typed } => Some((
                format!("type the word \"{}\" and Enter; Esc goes back: ", act.word()),
                typed,
            )),
            _ => None,
        }
    }
}

/// The keys, a line each.
const HELP: [&str; 9] = [
    "W  claim a disk that holds something: it is erased and sold",
    "S  stop a space: it ends, the rest of its money returns to its user",
    "L  the log: what happened last; arrows and Page Up scroll",
    "Q  the node's id as a QR code",
    "R  start the machine again",
    "P  switch the machine off",
    "?  this page      Esc  back",
    "",
    "All else is said in farmer.toml on the stick. Nobody logs in here: there is no shell, and no way into a space.",
];

fn scrolls(key: Key) -> bool {
    matches!(
        key,
        Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Char(' ')
            | Key::Redraw
    )
}

/// Where a key leads that begins something; any other one leads back to the page, or nowhere.
fn from_page(key: Key, now: &View, status: &Status) -> View {
    let Key::Char(letter) = key else {
        return match key {
            Key::Escape | Key::Enter => View::Page,
            _ => now.clone(),
        };
    };
    match letter.to_ascii_lowercase() {
        'w' => one_of("Which disk is to be erased and sold?", claims(status), || {
            "no disk waits for that: those that hold nothing are claimed by themselves".to_owned()
        }),
        's' => one_of("Which space is to end?", stops(status), || {
            "no space is here".to_owned()
        }),
        'l' => View::Log(0),
        'q' => View::Code,
        'r' => confirm(Act::Reboot),
        'p' => confirm(Act::PowerOff),
        '?' | 'h' => View::Help,
        _ => now.clone(),
    }
}

fn one_of(title: &'static str, mut acts: Vec<Act>, none: impl Fn() -> String) -> View {
    match acts.len() {
        0 => View::Said(none()),
        1 => confirm(acts.remove(0)),
        _ => View::Pick {
            title,
            acts,
            typed: String::new(),
        },
    }
}

fn confirm(act: Act) -> View {
    View::Confirm {
        act,
        typed: String::new(),
    }
}

/// What each disk that waits for the farmer's word would be asked.
fn claims(status: &Status) -> Vec<Act> {
    let claim = |disk: &Disk| {
        Some(Act::Claim {
            disk: disk.name.clone(),
            holds: disk.holds.clone(),
            line: disk.line.clone()?,
        })
    };
    status.disks.iter().flatten().filter_map(claim).collect()
}

fn stops(status: &Status) -> Vec<Act> {
    let stop = |space: &super::status::Space| Act::Stop {
        sale: space.sale,
        name: space.name.clone(),
    };
    status.spaces.iter().map(stop).collect()
}

/// By its number in the list, or by its name where one alone has it.
fn pick(acts: &[Act], typed: &str) -> Option<Act> {
    if let Ok(number) = typed.parse::<usize>() {
        return acts.get(number.checked_sub(1)?).cloned();
    }
    let mut named = acts.iter().filter(|act| act.word() == typed);
    let first = named.next()?;
    named.next().is_none().then(|| first.clone())
}

/// What a key makes of a typed line.
enum Line {
    More,
    Whole,
    /// Given up, for this view.
    Left(View),
}

fn line(typed: &mut String, key: Key) -> Line {
    match key {
        Key::Char(_) if typed.len() >= MOST_TYPED => {
            return Line::Left(View::Said(
                "that is too long for a name: nothing was done".to_owned(),
            ));
        }
        Key::Char(letter) => typed.push(letter),
        Key::Backspace => drop(typed.pop()),
        Key::Enter if typed.is_empty() => {}
        Key::Enter => return Line::Whole,
        Key::Escape => return Line::Left(View::Page),
        _ => {}
    }
    Line::More
}

/// Whether two views differ in what was typed alone.
fn same_form(now: &View, before: &View) -> bool {
    match (now, before) {
        (View::Pick { acts, .. }, View::Pick { acts: before, .. }) => acts == before,
        (View::Confirm { act, .. }, View::Confirm { act: before, .. }) => act == before,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
