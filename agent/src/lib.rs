//! The node: what `agent run` is made of.

pub mod clock;
pub mod close;
pub mod console;
pub mod desk;
pub mod direct;
pub mod facts;
pub mod medium;
pub mod month;
pub mod net;
pub mod run;
pub mod sales;
pub mod seat;
pub mod status_page;
mod task;
pub mod way;
mod words;

pub use farmer;
