//! How this endpoint stands in the grid, in words that a console can show.

use std::fmt;

/// How this endpoint stands in the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GridState {
    /// Not yet with anybody, and still within the first seconds.
    Joining,
    /// It hears and is heard.
    Joined {
        /// How many others are linked to it directly.
        neighbours: usize,
    },
    /// With nobody, and why.
    Alone {
        /// In plain words, with what to look at.
        why: String,
    },
}

impl GridState {
    /// Whether a broadcast would be heard now.
    pub fn is_joined(&self) -> bool {
        matches!(self, Self::Joined { .. })
    }
}

impl fmt::Display for GridState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining => formatter.write_str("joining"),
            Self::Joined { neighbours: 1 } => formatter.write_str("joined, 1 neighbour"),
            Self::Joined { neighbours } => write!(formatter, "joined, {neighbours} neighbours"),
            Self::Alone { why } => write!(formatter, "alone: {why}"),
        }
    }
}
