//! The market: what is asked, offered, agreed and signed, and the rules by which a node sells and a sale runs.
//!
//! Purpose: everything two strangers must agree on, and every decision of a sale, in pure code. No tokio, no files, no
//! clock, no randomness: all of it comes in as an argument.
//!
//! | module | what |
//! |---|---|
//! | [`quantity`], [`id`] | newtypes of every number and name, their one text form |
//! | [`price`], [`prices`] | what a space costs, and each period of a sale |
//! | [`message`], [`envelope`], [`cbor`] | what travels: structs, their one encoding, the signature around it |
//! | [`seal`] | the unlock key, sealed to the node |
//! | [`book`] | what is free, held and sold |
//! | [`sale`] | the state machine of a sale |

pub mod book;
pub mod cbor;
pub mod envelope;
pub mod id;
pub mod message;
pub mod name;
pub mod price;
pub mod prices;
pub mod quantity;
pub mod sale;
pub mod seal;
mod text;

pub use text::is_plain;
