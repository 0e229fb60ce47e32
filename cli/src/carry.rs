//! What a space holds, as files of its user, and back into any other space.
//!
//! ```text
//! space ── find ─► listing ── groups of about one part ─► tar ── ssh ─► part-00001.age …  export.json
//!                  (once)     (a larger file alone)       (cut into parts)       (written after each part)
//!
//! DIR/export.json      which sale, the parts with their digests, whether it is done; authenticated, written whole
//! DIR/listing.age      what was there when it began: names, sizes, times, and the group of each
//! DIR/part-NNNNN.age   a piece of a tar stream; all of them one after another are what `tar -xi` reads
//! ```
//! The client never unpacks: it encrypts, decrypts, counts and digests. What the space says is bounded before it is looked at,
//! and no name of it becomes a path or a line on this side.
//!
//! Invariant: a part that `export.json` names is whole on the disk, so the same command goes on with the first one that is
//! missing, and what was taken is never taken again unless it changed.
//!
//! A group's tar stream is the same whenever its files are: so a large file is gone on with in its middle, and after an
//! import the space makes the stream again and digests it, which compares contents, owners, modes, times, links and
//! attributes in one number.

pub mod age;
pub mod check;
pub mod give;
pub mod listing;
pub mod manifest;
pub mod piece;
pub mod space;
pub mod take;
