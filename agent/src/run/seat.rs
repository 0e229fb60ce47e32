//! The seat on the console: dialled for while the disks are opened, asked for as soon as the node's key is known, and what
//! a farmer reads meanwhile.

use std::path::PathBuf;

use ::grid::{GridTicket, JoinConfig, SeatState};
use inventory::boot;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::ready::Ready;
use super::spaces::boot_id;
use super::verdict::Part;
use crate::console::Board;
use crate::net::NetWatch;
use crate::seat::{Asked, Asker, SeatError};

/// What a farmer does about a copy.
const CURE: &str = "switch one of the two off for good: unplug the copied disks, or erase them at another computer; then \
                    switch this machine off and on";

/// Dials while the disks are opened, asks when `key` comes, and waits until the node may act for itself. Nothing where it
/// may not: the console says why; nothing where there is no key, for then it acts for nobody.
pub(super) async fn take(
    board: Board,
    ready: Ready,
    network: NetWatch,
    ticket: GridTicket,
    key: oneshot::Receiver<Zeroizing<[u8; 32]>>,
) -> Option<Asked> {
    match granted(&board, &ready, network, &ticket, key).await {
        Ok(asked) => {
            let asked = asked?;
            ready.set(|ready| ready.seat = Part::Good);
            Some(asked)
        }
        Err(why) => {
            board.update(|status| status.grid = why.clone());
            super::part_failed(&board, "seat", &why, CURE);
            ready.set(|ready| ready.seat = Part::Bad(why));
            None
        }
    }
}

async fn granted(
    board: &Board,
    ready: &Ready,
    mut network: NetWatch,
    ticket: &GridTicket,
    mut key: oneshot::Receiver<Zeroizing<[u8; 32]>>,
) -> Result<Option<Asked>, String> {
    let words = |error: SeatError| crate::words::chain(&error);
    let dialled = async {
        let asker = Asker {
            // Nobody joins by it.
            join: JoinConfig::new(ticket.clone(), [0; 32]),
            instance: boot_id()?,
            note: PathBuf::from(host::names::RUN_SEAT),
        };
        asker.dial().await.map_err(words)
    };
    let mut asked = match dialled.await {
        Ok(asked) => asked,
        // Told to who wants the seat.
        Err(why) => return key.await.map_or(Ok(None), |_| Err(why)),
    };
    let mut states = asked.seat().state();
    let mut is_asked = false;
    loop {
        // Its task has ended where this fails: it was refused.
        let state = states.borrow_and_update().clone();
        if is_asked && let SeatState::Asking(Some(why)) = state {
            board.update(|status| status.grid = format!("\"{}\": {why}", ticket.name()));
            ready.set(|ready| ready.seat = Part::Absent(format!("grid: {why}")));
        }
        tokio::select! {
            key = &mut key, if !is_asked => {
                let Ok(key) = key else { return Ok(None) };
                board.way().begin(boot::Part::Seat);
                board.update(|status| status.grid = format!("asking \"{}\" for this node's seat", ticket.name()));
                asked.ask(&key);
                is_asked = true;
            }
            granted = asked.granted(), if is_asked => return granted.map(|()| Some(asked)).map_err(words),
            _ = states.changed() => {}
            Ok(()) = network.changed() => {
                network.borrow_and_update();
                asked.seat().network_changed().await;
            }
        }
    }
}

/// Keeps what was granted. Where another machine turns out to have sat before, `lost` hears it: the agent ends, and its
/// next start finds the note. Spaces that run are left alone.
pub(super) async fn keep(asked: Asked, mut network: NetWatch, lost: oneshot::Sender<SeatError>) {
    loop {
        tokio::select! {
            error = asked.lost() => {
                let _ = lost.send(error); // nobody hears it where the agent ends anyhow
                return;
            }
            Ok(()) = network.changed() => {
                network.borrow_and_update();
                asked.seat().network_changed().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;
    use crate::net::NetState;

    #[tokio::test]
    async fn who_has_no_key_asks_nobody_and_goes_on_dialling_nobody() {
        let (grid, peer) = ("01".repeat(32), format!("58{}", "66".repeat(31)));
        let ticket = format!("steading:test@127.0.0.1:9?grid={grid}&peer={peer}&udp=9");
        let (board, (_tell, network)) = (Board::new("test"), watch::channel(NetState::default()));
        let (tell_key, key) = oneshot::channel();
        let ready = Ready::start(board.clone());
        let ticket = ticket.parse().expect("a ticket");
        let taking = crate::task::spawn(take(board.clone(), ready, network, ticket, key));
        let mut taking = std::pin::pin!(taking);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut taking).await;
        assert!(early.is_err(), "a key may come");
        drop(tell_key);
        let ended = tokio::time::timeout(Duration::from_secs(20), taking).await;
        let taken = ended.expect("it ends").expect("no panic");
        assert!(taken.is_none() && board.status().failures.is_empty());
    }
}
