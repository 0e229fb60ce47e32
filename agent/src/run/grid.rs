//! The grid: joined with the node's key, told of every change of the network.

use std::sync::Arc;
use std::time::Duration;

use ::grid::{BroadcastCheck, Grid, GridState, GridTicket, JoinConfig};
use inventory::boot;
use tokio::time::sleep;

use super::ready::Ready;
use super::verdict::Part;
use crate::console::Board;
use crate::net::NetWatch;

/// Binding fails only where the machine is out of something: it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Joins, and follows state and network in the background.
pub(super) async fn join(
    board: &Board,
    ready: &Ready,
    network: &NetWatch,
    ticket: GridTicket,
    secret: [u8; 32],
    check: Arc<dyn BroadcastCheck>,
) -> Arc<Grid> {
    board.way().begin(boot::Part::Grid);
    let name = ticket.name().to_owned();
    let config = JoinConfig::new(ticket, secret);
    let grid = loop {
        match Grid::join(config.clone(), check.clone()).await {
            Ok(grid) => break Arc::new(grid),
            Err(error) => {
                let why = crate::words::chain(&error);
                board.update(|status| status.grid = why.clone());
                ready.set(|ready| ready.grid = Part::Absent(format!("grid: {why}")));
                sleep(AGAIN_AFTER).await;
            }
        }
    };
    crate::task::spawn(show(board.clone(), ready.clone(), grid.clone(), name));
    crate::task::spawn(tell_of_changes(network.clone(), grid.clone()));
    grid
}

/// Shows how it stands; says once each time that it has joined.
async fn show(board: Board, ready: Ready, grid: Arc<Grid>, name: String) {
    let mut states = grid.state();
    let mut joined = false;
    loop {
        let state = states.borrow_and_update().clone();
        board.update(|status| {
            status.grid = match &state {
                GridState::Joining => format!("joining \"{name}\""),
                GridState::Joined { neighbours: 1 } => format!("joined \"{name}\", 1 neighbour"),
                GridState::Joined { neighbours } => format!("joined \"{name}\", {neighbours} neighbours"),
                GridState::Alone { why } => format!("\"{name}\": {why}"),
            };
        });
        ready.set(|ready| {
            ready.grid = match &state {
                GridState::Joined { .. } => Part::Good,
                GridState::Joining => Part::Waiting,
                GridState::Alone { why } => Part::Absent(format!("grid: {why}")),
            };
        });
        if state.is_joined() && !joined {
            board.event(format!("joined \"{name}\""));
        }
        joined = state.is_joined();
        if states.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_of_changes(mut network: NetWatch, grid: Arc<Grid>) {
    let picture = |network: &mut NetWatch| {
        let state = network.borrow_and_update();
        let links = state.links.iter();
        links
            .map(|link| {
                (
                    link.addresses.clone(),
                    link.gateways.clone(),
                    link.carrier,
                    link.aside,
                )
            })
            .collect::<Vec<_>>()
    };
    let mut known = picture(&mut network);
    while network.changed().await.is_ok() {
        let now = picture(&mut network);
        if now != known {
            grid.network_changed().await;
            known = now;
        }
    }
}
