//! What the farmer sees: one screen of plain words, on every console there is.
//!
//! Invariant: nobody waits for a console. Who has something to say writes it on
//! the [`Board`] and goes on; each console has a thread of its own that reads the
//! board, so a serial line that is stuck stops nobody but itself.
//!
//! ```text
//!  run, net, desk, sales ──update──►          ┌─► tty0    the screen, drawn again
//!                        ──event───►  Board ──┼─► ttyS0   events as lines, and the
//!                                             └─► ttyS1   screen when it changed
//! ```

mod board;
mod output;
mod render;
mod status;

pub use board::{Board, Event};
pub use output::start;
pub use render::{Now, render};
pub use status::{Disk, Failure, Selling, Space, Status, Verdict};
