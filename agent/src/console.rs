//! What the farmer sees: one screen of plain words, on every console there is.
//!
//! Invariant: nobody waits for a console. Who has something to say writes it on
//! the [`Board`] and goes on; each console has a thread of its own that reads the
//! board and its keys, so a serial line that is stuck stops nobody but itself.
//!
//! ```text
//!  run, net, desk, sales ──update──►          ┌─► tty0    a screen           ─┐ keys ─► Dialog ─► Act
//!                        ──event───►  Board ──┼─► ttyS0   lines, or a screen ─┤ keys ─► Dialog ─► Act ─► run::acts
//!                                             └─► ttyS1   lines, or a screen ─┘ keys ─► Dialog ─► Act
//! ```

mod board;
mod cells;
mod code;
mod dialog;
mod keys;
mod lines;
mod output;
mod render;
mod screen;
mod status;

pub use board::{Board, Event};
pub use dialog::Act;
pub use output::{Acted, start};
pub(crate) use render::lasting;
pub use render::{Now, render};
pub use status::{Disk, Failure, Figures, Health, Selling, Space, Status, Verdict};

/// Doors for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::dialog::{Dialog, Outcome};
    pub use super::keys::{Key, LONGEST, Parser};
}
