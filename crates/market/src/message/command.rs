//! What a farmer's owner key may tell a node, and the answer.

use super::{Kind, Message, MessageError, ensure, of};
use crate::cbor::{CborError, Fields, Item, MapWriter};
use crate::id::{Digest, NodeId, SaleId};
use crate::quantity::UnixMillis;

const MOST_LINES: usize = 256;
const MOST_LINE_BYTES: usize = 200;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// End a sale; the rest goes back to the user.
    StopSpace(SaleId),
    /// List the disks, and what each holds.
    ListDisks,
    /// How the last boot went.
    BootReport,
    /// List the spaces: a line for each, [`space_line`].
    ListSpaces,
}

/// Signed by the owner key of `farmer.toml`; each counter is accepted once, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// For which node.
    pub node: NodeId,
    /// Rises with each command.
    pub counter: u64,
    /// Void after this.
    pub expires: UnixMillis,
    /// What to do.
    pub act: Act,
}

impl Message for Command {
    const KIND: Kind = Kind::Command;

    fn to_payload(&self) -> Vec<u8> {
        let act = match &self.act {
            Act::StopSpace(sale) => MapWriter::new().uint(1, 1).bytes(2, sale.as_bytes()),
            Act::ListDisks => MapWriter::new().uint(1, 2),
            Act::BootReport => MapWriter::new().uint(1, 3),
            Act::ListSpaces => MapWriter::new().uint(1, 4),
        };
        MapWriter::new()
            .bytes(1, self.node.as_bytes())
            .uint(2, self.counter)
            .uint(3, self.expires.0)
            .map(4, act)
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read_act = |mut fields: Fields<'_>| -> Result<Act, CborError> {
            let act = match fields.uint(1)? {
                1 => Act::StopSpace(SaleId(fields.array(2)?)),
                2 => Act::ListDisks,
                3 => Act::BootReport,
                4 => Act::ListSpaces,
                _ => {
                    return Err(CborError::Value {
                        key: 1,
                        expected: "a command",
                    });
                }
            };
            fields.finish()?;
            Ok(act)
        };
        let read = || -> Result<Command, CborError> {
            let mut fields = Fields::read(payload)?;
            let command = Command {
                node: NodeId(fields.array(1)?),
                counter: fields.uint(2)?,
                expires: UnixMillis(fields.uint(3)?),
                act: read_act(fields.map(4)?)?,
            };
            fields.finish()?;
            Ok(command)
        };
        read().map_err(of(Self::KIND))
    }
}

/// One line of the answer to [`Act::ListSpaces`]: the sale's whole id, its name, how it stands.
pub fn space_line(sale: &SaleId, state: &str) -> String {
    format!("{sale} {} {state}", sale.name())
}

/// Reads such a line: the sale and how it stands. The name is not read: it follows from the id.
pub fn read_space_line(line: &str) -> Option<(SaleId, &str)> {
    let (id, rest) = line.split_once(' ')?;
    let sale = id.parse::<SaleId>().ok()?;
    let (name, state) = rest.split_once(' ')?;
    (name == sale.name()).then_some((sale, state))
}

/// The node's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The hash of the signed command.
    pub command: Digest,
    /// Whether it was done.
    pub done: bool,
    /// What the farmer reads.
    pub lines: Vec<String>,
}

impl Message for Answer {
    const KIND: Kind = Kind::Answer;

    fn to_payload(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.command.as_bytes())
            .boolean(2, self.done)
            .list(3, self.lines.iter().map(|line| Item::text(line)))
            .finish()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, MessageError> {
        let read = || -> Result<Answer, CborError> {
            let mut fields = Fields::read(payload)?;
            let command = Digest(fields.array(1)?);
            let done = fields.boolean(2)?;
            let lines = fields.texts(3, MOST_LINES, MOST_LINE_BYTES)?;
            fields.finish()?;
            Ok(Answer { command, done, lines })
        };
        read().map_err(of(Self::KIND))
    }

    fn check(&self) -> Result<(), MessageError> {
        ensure(
            Self::KIND,
            self.lines.len() <= MOST_LINES,
            "lines",
            self.lines.len(),
            "at most 256",
        )?;
        let odd = self
            .lines
            .iter()
            .find(|line| line.len() > MOST_LINE_BYTES || !line.chars().all(crate::is_plain));
        ensure(
            Self::KIND,
            odd.is_none(),
            "line",
            odd.map_or("", |line| line),
            "at most 200 bytes, one line",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spaces_line_reads_back_and_a_name_of_another_sale_does_not() {
        let (sale, other) = (SaleId([7; 32]), SaleId([8; 32]));
        let line = space_line(&sale, "active, paid until 14:05 UTC");
        assert_eq!(
            read_space_line(&line),
            Some((sale, "active, paid until 14:05 UTC"))
        );
        let wrong = line.replace(&sale.name(), &other.name());
        assert_ne!(wrong, line);
        assert_eq!(read_space_line(&wrong), None);
        for bad in ["", "calm-otter active", &sale.to_string()] {
            assert_eq!(read_space_line(bad), None, "{bad}");
        }
    }
}
