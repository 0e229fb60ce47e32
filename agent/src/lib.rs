//! The node: what `agent run` is made of.

pub mod console;
pub mod farmer;
pub mod net;
