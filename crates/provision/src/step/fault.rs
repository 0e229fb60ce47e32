//! Points at which a build for tests goes wrong: beside every step and every undo of every table. Not in the product.
//!
//! ```text
//!   BeforeIntent ─ Intended is written ─ Intended ─ the step ─ Done ─ Applied is written ─ Recorded
//!                  Undoing is written  ─ Intended ─ the undo ─ Done ─ Undone is written  ─ Recorded
//! ```
//!
//! What is no step of a table (a claim, a volume that grows) passes [`Side::Intended`] and [`Side::Done`] of its names.
//!
//! A point fires once. Nobody keeps a list of points: they are made from the names of a table, or from what a run
//! without a fault passed ([`trace`]).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use market::id::SaleId;

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
    /// Whoever comes here stays here; a test takes the machine's power when all have come ([`wait_parked`]).
    Park,
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
    /// Of this sale alone; `None`: of whichever comes first.
    pub sale: Option<SaleId>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {:?} {:?}", self.way, self.step, self.side, self.what)?;
        self.sale.map_or(Ok(()), |sale| write!(f, " {sale}"))
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
        let (&[way, step, side, what], rest) = words.split_first_chunk().ok_or_else(no_point)?;
        let sale = match rest {
            [] => None,
            [sale] => Some(sale.parse().map_err(|_| no_point())?),
            _ => return Err(no_point()),
        };
        let named = |name: &str, all: &dyn fmt::Debug| format!("{all:?}") == name;
        let way = [Way::Do, Way::Undo].into_iter().find(|all| named(way, all));
        let side = Side::ALL.into_iter().find(|all| named(side, all));
        let what = [What::Fail, What::Repeat, What::Die, What::Park]
            .into_iter()
            .find(|all| named(what, all));
        Ok(Self {
            way: way.ok_or_else(no_point)?,
            step: step.to_owned(),
            side: side.ok_or_else(no_point)?,
            what: what.ok_or_else(no_point)?,
            sale,
        })
    }
}

static ARMED: Mutex<Vec<Point>> = Mutex::new(Vec::new());
static TRACE: Mutex<Option<Vec<(Way, String, Side)>>> = Mutex::new(None);
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
static SKIPPED: Mutex<Option<&'static str>> = Mutex::new(None);
static PARKED: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

type Watch = Box<dyn Fn(&str) + Send>;

/// From now on these go wrong, each once.
pub fn arm(points: &[Point]) {
    *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = points.to_vec();
}

/// Nothing goes wrong any more. Returns the points that were never reached.
pub fn disarm() -> Vec<Point> {
    std::mem::take(&mut *ARMED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Every point that is passed from now on is kept, until [`traced`].
pub fn trace() {
    *TRACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// The points that were passed since [`trace`], in order.
pub fn traced() -> Vec<(Way, String, Side)> {
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    trace.take().unwrap_or_default()
}

/// `watch` is called with the name of every point as it is passed; `None`: no more.
pub fn watch(watch: Option<Watch>) {
    *WATCH.lock().unwrap_or_else(PoisonError::into_inner) = watch;
}

/// What flushes and has this name does not; `None`: all flush again.
pub fn skip_flush(name: Option<&'static str>) {
    *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner) = name;
    storage::lvm::SKIP_FLUSHES.store(name == Some("group"), Ordering::Relaxed);
}

/// Whether what flushes and has this name is to leave it.
pub(crate) fn skips(name: &str) -> bool {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.is_some_and(|skipped| skipped == name)
}

/// Waits until so many stay at points of [`What::Park`]; whether they came in time.
pub fn wait_parked(many: usize, within: Duration) -> bool {
    let (count, came) = (&PARKED.0, &PARKED.1);
    let count = count.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = came.wait_timeout_while(count, within, |parked| *parked < many);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

fn arrived() {
    *PARKED.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    PARKED.1.notify_all();
}

/// What a step does at a point.
pub(super) enum Pass {
    /// Goes on.
    On,
    /// Does it again.
    Again,
}

/// Called at every point of every step. Who stays here is not waited for by the steps beside it: they hold locks.
pub(super) async fn pass(way: Way, step: &str, side: Side, sale: &SaleId) -> Result<Pass, Cause> {
    match reach(way, step, side, Some(sale))? {
        Some(What::Park) => {
            arrived();
            std::future::pending().await
        }
        Some(What::Repeat) => Ok(Pass::Again),
        _ => Ok(Pass::On),
    }
}

/// What is to be done at a point, where it is armed and not a failure or an end.
fn reach(way: Way, step: &str, side: Side, sale: Option<&SaleId>) -> Result<Option<What>, Stopped> {
    if let Some(watch) = &*WATCH.lock().unwrap_or_else(PoisonError::into_inner) {
        watch(&format!("{way:?} {step} {side:?}"));
    }
    if let Some(trace) = &mut *TRACE.lock().unwrap_or_else(PoisonError::into_inner) {
        trace.push((way, step.to_owned(), side));
    }
    let fired = {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let at = armed.iter().position(|point| {
            point.way == way
                && point.step == step
                && point.side == side
                && (point.sale.is_none() || point.sale.as_ref() == sale)
        });
        at.map(|at| armed.remove(at))
    };
    let Some(point) = fired else {
        return Ok(None);
    };
    // The first words are what a test looks for in the product, and must not find.
    eprintln!("steading fault point: {point}");
    match point.what {
        What::Fail => Err(Stopped(point)),
        What::Die => std::process::abort(),
        What::Repeat | What::Park => Ok(Some(point.what)),
    }
}

/// A test stopped it.
#[derive(Debug, thiserror::Error)]
#[error("a test made it fail: {0}")]
pub struct Stopped(Point);

/// One named piece of work outside a table, between its two points.
pub(crate) fn named<T, E: From<Stopped>>(
    name: &'static str,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    reach_named(name, Side::Intended)?;
    let done = work()?;
    if let Some(What::Repeat) = reach_named(name, Side::Done)? {
        drop(done);
        return work();
    }
    Ok(done)
}

fn reach_named(name: &str, side: Side) -> Result<Option<What>, Stopped> {
    let what = reach(Way::Do, name, side, None)?;
    if what == Some(What::Park) {
        arrived();
        loop {
            std::thread::park();
        }
    }
    Ok(what)
}
