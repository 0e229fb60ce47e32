//! A farmer's own node, from afar: one signed command, one signed answer.
//!
//! Invariant: the node is reached by its id alone, through the grid's relay, and its answer counts only if the node
//! signed it and it names this very command. The counter is the rail's time, so it rises on every machine that has the
//! seed, and no file is kept for it.

use std::time::Duration;

use escrow::Rail;
use grid::{EndpointAddress, PeerId};
use market::id::{GridId, NodeId};
use market::message::{Act, Answer, Command};
use market::quantity::UnixMillis;

use super::Client;
use super::talk::{Talk, TalkError};
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;

/// How long a command holds: long enough to arrive.
const FRESH_MS: u64 = 60_000;
/// How long doing it may take: stopping a space tears it down.
const ANSWER_WITHIN: Duration = Duration::from_secs(160);

impl Client {
    /// Has the node do it, and returns what it says.
    pub async fn command(&mut self, node: NodeId, act: Act, steps: &mut Steps) -> Outcome<Answer> {
        let (ticket, rail) = (self.settings.ticket()?, self.settings.rail()?);
        steps.begin("node", format!("asking {}", node.short()));
        let address = EndpointAddress::by_relay(PeerId(node.0)).map_err(|error| {
            Failure::new(Code::Usage, format!("{node} is no node's id; nothing was sent"))
                .caused_by(&error)
                .next("the node's id is on its screen, and in `steading nodes --json`")
        })?;
        let now = self
            .rail(&rail)?
            .now()
            .await
            .map_err(|error| Failure::of_rail("the ledger does not say what time it is", &error))?;
        let grid = self.joined(&ticket).await?;
        let mut talk = Talk::with(
            grid,
            GridId(ticket.grid_id()),
            node,
            address,
            self.seed.owner_key(),
        );
        let command = Command {
            node,
            counter: now.0,
            expires: UnixMillis::from(now).plus_ms(FRESH_MS),
            act,
        };
        let asked = talk.ask::<_, Answer>(command, ANSWER_WITHIN).await;
        steps.quiet();
        let (command, answer) = asked.map_err(|error| self.failed(&error))?;
        if answer.message.command != command.hash() {
            return Err(
                Failure::new(Code::NotValid, "the node's answer is to another command")
                    .because("an answer names the hash of the command it is to")
                    .next("repeat the command: each is done at most once"),
            );
        }
        Ok(answer.message)
    }

    fn failed(&self, error: &TalkError) -> Failure {
        let failure = error.failure("the command was not done");
        match error {
            TalkError::Refused(..) => failure.next(format!(
                "if it does not know your key, farmer.toml of that node lacks this line: {}",
                self.owner_line()
            )),
            TalkError::Silent(..) => failure.next(
                "check that the node is on and that its screen says it has joined this grid, then repeat",
            ),
            TalkError::Nonsense(..) | TalkError::Unsigned(_) => failure,
        }
    }

    /// The line of `farmer.toml` that lets this wallet command a node.
    pub fn owner_line(&self) -> String {
        let public = self.seed.owner_key().verifying_key().to_bytes();
        format!("owner = \"{}\"", ledger::hex::encode(&public))
    }
}
