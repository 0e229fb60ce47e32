//! Points at which a build for tests goes wrong: beside every step and every undo of every table. Not in the product.
//!
//! ```text
//!   BeforeIntent ─ Intended is written ─ Intended ─ the step ─ Done ─ Applied is written ─ Recorded
//!                  Undoing is written  ─ Intended ─ the undo ─ Done ─ Undone is written  ─ Recorded
//! ```
//!
//! A point fires once. Nobody keeps a list of points: they are made from the names of a table.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::Cause;

/// Whether a step is made or undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Made.
    Do,
    /// Undone.
    Undo,
}

/// On which side of the step and of its two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing is written; only before a do.
    BeforeIntent,
    /// The intent is written, nothing is done.
    Intended,
    /// It is done, and not written.
    Done,
    /// It is done and written.
    Recorded,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 4] = [Side::BeforeIntent, Side::Intended, Side::Done, Side::Recorded];
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The step fails.
    Fail,
    /// The step is made twice; only where it is done.
    Repeat,
    /// The process is gone.
    Die,
}

/// One point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Do or undo.
    pub way: Way,
    /// Of which step.
    pub step: String,
    /// Where.
    pub side: Side,
    /// What.
    pub what: What,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {:?} {:?}", self.way, self.step, self.side, self.what)
    }
}

/// A text that is no point.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no point")]
pub struct NoPoint(String);

impl FromStr for Point {
    type Err = NoPoint;

    /// As [`Point`] is written.
    fn from_str(text: &str) -> Result<Self, NoPoint> {
        let no_point = || NoPoint(text.to_owned());
        let words: Vec<&str> = text.split(' ').collect();
        let [way, step, side, what] = words[..] else {
            return Err(no_point());
        };
        let named = |name: &str, all: &dyn fmt::Debug| format!("{all:?}") == name;
        let way = [Way::Do, Way::Undo].into_iter().find(|all| named(way, all));
        let side = Side::ALL.into_iter().find(|all| named(side, all));
        let what = [What::Fail, What::Repeat, What::Die]
            .into_iter()
            .find(|all| named(what, all));
        Ok(Self {
            way: way.ok_or_else(no_point)?,
            step: step.to_owned(),
            side: side.ok_or_else(no_point)?,
            what: what.ok_or_else(no_point)?,
        })
    }
}

static ARMED: Mutex<Vec<Point>> = Mutex::new(Vec::new());

/// From now on these go wrong, each once.
pub fn arm(points: &[Point]) {
    *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = points.to_vec();
}

/// Nothing goes wrong any more. Returns the points that were never reached.
pub fn disarm() -> Vec<Point> {
    std::mem::take(&mut *ARMED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What a step does at a point.
pub(super) enum Pass {
    /// Goes on.
    On,
    /// Does it again.
    Again,
}

/// Called at every point of every step.
pub(super) fn pass(way: Way, step: &str, side: Side) -> Result<Pass, Cause> {
    let fired = {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let at = armed
            .iter()
            .position(|point| point.way == way && point.step == step && point.side == side);
        at.map(|at| armed.remove(at))
    };
    let Some(point) = fired else {
        return Ok(Pass::On);
    };
    // The first words are what a test looks for in the product, and must not find.
    eprintln!("steading fault point: {point}");
    match point.what {
        What::Fail => Err(format!("a test made it fail: {point}").into()),
        What::Repeat => Ok(Pass::Again),
        What::Die => std::process::abort(),
    }
}
