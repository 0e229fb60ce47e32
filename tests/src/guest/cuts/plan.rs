//! The points that are still to come, and those of the last cut: text on a disk of its own, durable before any of them.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use market::id::SaleId;
use provision::step::fault::{self, Side, Way, What};

const DISK: &str = "/dev/vdc";
const BYTES: usize = 64 << 10;
const MARK: &str = "cuts 1";

/// How many points of a verb share one power cut.
const SHARE: [(Verb, usize); 5] = [
    (Verb::Build, 2),
    (Verb::End, 2),
    (Verb::Unlock, 2),
    (Verb::Grow, 1),
    (Verb::Claim, 1),
];

/// What is done when power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A space is built.
    Build,
    /// It ends.
    End,
    /// It is opened again.
    Unlock,
    /// Its volume grows.
    Grow,
    /// A disk is claimed.
    Claim,
}

/// One point of one verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// What is done.
    pub verb: Verb,
    /// Which of those of this verb that share a cut.
    pub place: usize,
    /// Do or undo, which step, on which side of it.
    pub passed: (Way, String, Side),
}

/// What a verb passed, in order.
pub type Passed = (Verb, Vec<(Way, String, Side)>);

/// All of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// Cuts so far.
    pub boots: u32,
    /// Points so far.
    pub points: usize,
    /// Seconds from power-on to the cuts, together.
    pub seconds: f64,
    /// Bytes that no volume has, between cuts.
    pub free: u64,
    /// Bytes of the volume that grows.
    pub grown: u64,
    /// What the last cut stopped.
    pub batch: Vec<Point>,
    left: Vec<Point>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, step, side) = &self.passed;
        write!(f, "{:?} {} {way:?} {step} {side:?}", self.verb, self.place)
    }
}

impl Point {
    /// The space in which it happens.
    pub fn sale(&self) -> SaleId {
        let verb = match self.verb {
            Verb::Build => 0xb0,
            Verb::End => 0xe0,
            Verb::Unlock => 0xa0,
            Verb::Grow | Verb::Claim => 0xd0,
        };
        SaleId([verb + self.place as u8; 32])
    }

    /// To be armed; of this space alone where the point knows spaces.
    pub fn armed(&self) -> fault::Point {
        let (way, step, side) = self.passed.clone();
        let of_one = !matches!(self.verb, Verb::Grow | Verb::Claim);
        fault::Point {
            way,
            step,
            side,
            what: What::Park,
            sale: of_one.then(|| self.sale()),
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [verb, place, passed] = words[..] else {
            anyhow::bail!("{line:?} is no point");
        };
        let named = |(verb_of, _): &(Verb, usize)| format!("{verb_of:?}") == verb;
        let (verb, _) = SHARE.into_iter().find(named).context("no such verb")?;
        let point: fault::Point = format!("{passed} Park").parse()?;
        Ok(Self {
            verb,
            place: place.parse()?,
            passed: (point.way, point.step, point.side),
        })
    }
}

impl Plan {
    /// The points that a verb passed: of each step, its intent is written, and it is done.
    pub fn new(passed: Vec<Passed>, free: u64) -> Self {
        let mut left: Vec<Point> = Vec::new();
        for (verb, points) in passed {
            // Where a step is recorded, the next one's intent is not yet: that is told from it only after the last step.
            // A claim, and a volume that grows, write nothing between two steps.
            let last = points.len().saturating_sub(1);
            let kept = points
                .into_iter()
                .enumerate()
                .filter(|(at, (_, _, side))| match verb {
                    Verb::Claim | Verb::Grow => *side == Side::Done,
                    _ => matches!(side, Side::Intended | Side::Done) || *at == last,
                });
            left.extend(kept.map(|(_, passed)| Point {
                verb,
                place: 0,
                passed,
            }));
        }
        Self {
            free,
            left,
            ..Self::default()
        }
    }

    /// The next points, none when all have been.
    pub fn next(&mut self) -> Option<Vec<Point>> {
        self.batch.clear();
        for (verb, most) in SHARE {
            for place in 0..most {
                if let Some(at) = self.left.iter().position(|point| point.verb == verb) {
                    let point = self.left.remove(at);
                    self.batch.push(Point { place, ..point });
                }
            }
        }
        if self.batch.is_empty() {
            return None;
        }
        self.boots += 1;
        self.points += self.batch.len();
        Some(self.batch.clone())
    }

    /// What is on the disk; `None`: nothing yet.
    pub fn read() -> Result<Option<Self>> {
        let mut bytes = vec![0; BYTES];
        File::open(DISK)?.read_exact(&mut bytes)?;
        let text = String::from_utf8(bytes)?;
        let mut lines = text.trim_end_matches('\0').lines();
        if lines.next() != Some(MARK) {
            return Ok(None);
        }
        let numbers = lines.next().context("no numbers")?;
        let words: Vec<&str> = numbers.split(' ').collect();
        let [boots, points, seconds, free, grown, batch] = words[..] else {
            anyhow::bail!("{numbers:?} are not the plan's numbers");
        };
        let mut all = lines.map(Point::parse).collect::<Result<Vec<_>>>()?;
        let left = all.split_off(batch.parse()?);
        Ok(Some(Self {
            boots: boots.parse()?,
            points: points.parse()?,
            seconds: seconds.parse()?,
            free: free.parse()?,
            grown: grown.parse()?,
            batch: all,
            left,
        }))
    }

    /// Writes it; durable on return.
    pub fn write(&self) -> Result<()> {
        let (boots, points, seconds, free) = (self.boots, self.points, self.seconds, self.free);
        let mut text = format!(
            "{MARK}\n{boots} {points} {seconds} {free} {} {}\n",
            self.grown,
            self.batch.len()
        );
        for point in self.batch.iter().chain(&self.left) {
            text.push_str(&format!("{point}\n"));
        }
        let mut bytes = text.into_bytes();
        ensure!(bytes.len() < BYTES, "the plan is too long");
        bytes.resize(BYTES, 0);
        let mut disk = File::options().write(true).open(DISK)?;
        disk.write_all(&bytes)?;
        Ok(disk.sync_all()?)
    }
}
