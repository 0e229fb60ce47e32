//! What the farmer's owner key tells this node. Each counter counts once, rising, over restarts too.

use market::envelope::{Signed, sign};
use market::id::{NodeId, SaleId};
use market::message::{Act, Answer, Command, RefusalCode, space_line};
use market::quantity::UnixMillis;

use crate::desk::Counter;
use crate::sales::No;

const ROOM: &str = "owner";
const COUNTER: &[u8] = b"counter";
/// What a line of an answer may hold.
const MOST_LINE_BYTES: usize = 200;
/// Events a boot report shows.
const MOST_EVENTS: usize = 200;

/// Does it, or says why not.
pub(super) async fn answer(counter: &Counter, command: Signed<Command>) -> Result<Vec<u8>, No> {
    let no = |words: &str| No {
        code: RefusalCode::NotAllowed,
        words: words.to_owned(),
    };
    let shared = &counter.shared;
    if counter.farmer.owner != Some(command.signer) {
        return Err(no("farmer.toml names another owner key, or none"));
    }
    if command.message.node != NodeId(shared.node_key.verifying_key().to_bytes()) {
        return Err(no("this is a command for another node"));
    }
    let now = shared
        .clock
        .rail()
        .map(UnixMillis::from)
        .ok_or_else(|| no("the time is not known yet"))?;
    if command.message.expires <= now {
        return Err(no("the command has expired"));
    }
    let number = command.message.counter;
    let newer = shared.journal.write(move |entry| {
        let known = entry
            .row(ROOM, COUNTER)?
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        if number > known {
            entry.put_row(ROOM, COUNTER, &number.to_be_bytes())?;
        }
        Ok(number > known)
    });
    if !newer.await.map_err(|error| no(&error.to_string()))? {
        return Err(no("this command, or a later one, was done already"));
    }
    let (done, lines) = act(counter, &command.message.act).await;
    let lines = lines.into_iter().map(|line| {
        line.chars()
            .filter(|letter| market::is_plain(*letter))
            .scan(0, |bytes, letter| {
                *bytes += letter.len_utf8();
                (*bytes <= MOST_LINE_BYTES).then_some(letter)
            })
            .collect()
    });
    let answer = Answer {
        command: command.hash(),
        done,
        lines: lines.take(256).collect(),
    };
    let signed = sign(&shared.node_key, shared.grid_id, answer);
    signed
        .map(|signed| signed.bytes)
        .map_err(|error| no(&error.to_string()))
}

async fn act(counter: &Counter, act: &Act) -> (bool, Vec<String>) {
    let board = &counter.shared.board;
    match act {
        Act::StopSpace(sale) => match counter.stop(*sale).await {
            Ok(()) => (true, vec![format!("{} stopped, the rest went back", sale.name())]),
            Err(refusal) => (false, vec![refusal.words]),
        },
        Act::ListDisks => {
            let disks = board.status().disks.unwrap_or_default();
            let line = |disk: crate::console::Disk| format!("{}  {}  {}", disk.name, disk.size, disk.state);
            (true, disks.into_iter().map(line).collect())
        }
        Act::ListSpaces => {
            let spaces = board.status().spaces;
            let line = |space: crate::console::Space| space_line(&SaleId(space.sale), &space.state);
            (true, spaces.into_iter().map(line).collect())
        }
        Act::BootReport => {
            let (report, events) = (board.way().report(), board.events());
            let newest = events.len().saturating_sub(MOST_EVENTS);
            let phases = report.phases().iter().map(ToString::to_string);
            let said = events.iter().skip(newest).map(ToString::to_string);
            (true, phases.chain(said).collect())
        }
    }
}
