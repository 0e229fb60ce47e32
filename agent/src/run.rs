//! `agent run`: the parts put together, in an order in which nothing waits for what it
//! does not need.
//!
//! ```text
//!  console ─► at once
//!  network ─► at once, for ever ──────────────┬──────────► resolvers, clock
//!  hardware ─► medium ─► farmer.toml ─┬─► ledger ─► clock │
//!                                     ├─► dials ──────────┐
//!                                     └─► disks ─► state ─┼─► seat ─► grid ─┴─► desk, sales ─► sold
//!                                                         └─► journal, walls ─┬────┘                ▲
//!                                                                             └─► base, disk by disk ┘
//!  each says how it stands to Ready, which judges: selling, or the first reason why not
//! ```
//!
//! Invariant: no part that fails stops another. What is missing is said on the console
//! in one sentence with what to do, and tried again. Two things end the agent: that another machine acts for this
//! node (its next start knows, and does nothing for it), and a disk that somebody at a console gave (its next start claims it).

mod acts;
mod base;
mod clock;
mod controllers;
mod disks;
mod grid;
mod health;
mod medium;
mod page;
mod rail;
mod ready;
mod resolver;
mod seat;
mod spaces;
mod stick;
mod traffic;
mod uplinks;
mod verdict;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::grid::{Grid, GridTicket};
use anyhow::Context;
use market::id::GridId;
use market::quantity::UnixMillis;
use provision::firewall::Openings;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::console::{self, Board, Failure};
use crate::desk;
use crate::facts::{self, Image};
use crate::net;
use crate::seat::SeatError;
use crate::status_page;
use ready::Ready;
use verdict::Part;

/// Runs the node until the process is ended from outside.
///
/// # Errors
/// When not even the console or the kernel's network socket can be had; when another machine acts for this node.
pub async fn run() -> anyhow::Result<Infallible> {
    let (lose, lost) = oneshot::channel();
    let (begin_again, again) = oneshot::channel();
    tokio::select! {
        ended = node(lose, begin_again) => ended,
        Ok(why) = lost => Err(why.into()),
        Ok(why) = again => Err(anyhow::Error::msg(why)),
    }
}

async fn node(
    lose: oneshot::Sender<SeatError>,
    begin_again: oneshot::Sender<String>,
) -> anyhow::Result<Infallible> {
    let image = Image::read();
    let version = image
        .as_ref()
        .map_or(env!("CARGO_PKG_VERSION"), |image| &image.version);
    let board = Board::new(version);
    board.way().resume();
    let (confirmed, acts) = mpsc::channel(acts::MOST_WAITING);
    console::start(&board, &confirmed).context("starting the consoles")?;
    let (open, desk_is) = watch::channel(None);
    crate::task::spawn(acts::serve(board.clone(), acts, desk_is, begin_again));
    if let Err(error) = &image {
        part_failed(
            &board,
            "image",
            &crate::words::chain(error),
            "write the stick anew",
        );
    }
    let ready = Ready::start(board.clone());
    let (network, ways) = net::start().context("watching the network")?;
    crate::task::spawn(uplinks::follow(board.clone(), ready.clone(), network.clone()));
    crate::task::spawn(show_machine(board.clone()));
    // LVM makes itself ready while drivers look for the disks; where it cannot, whoever needs it says so.
    spawn_blocking(storage::Storage::start);

    let booted = medium::find(&board, &ready).await;
    let farmer = booted.reading.farmer.clone();
    if let Some(ticket) = &farmer.grid {
        crate::task::spawn(ways.prefer(network.clone(), ticket.host().to_owned(), ticket.relay_port()));
    }
    let (tell_key, key) = oneshot::channel();
    let seat = farmer.grid.as_ref().map(|ticket| {
        let (board, ready, network) = (board.clone(), ready.clone(), network.clone());
        crate::task::spawn(seat::take(board, ready, network, ticket.clone(), key))
    });
    crate::task::spawn(clock::by_servers(
        board.clone(),
        ready.clone(),
        network.clone(),
        farmer.time_servers.clone(),
    ));
    if farmer.status_page {
        crate::task::spawn(page::serve_for_ever(board.clone(), network.clone()));
    }
    crate::task::spawn(health::watch(board.clone()));
    let rail = farmer
        .ledger
        .as_ref()
        .and_then(|address| rail::start(&board, &ready, &network, address));
    let owned = disks::open(&board, &ready, &booted).await.map(Arc::new);
    let key = owned.as_deref().and_then(|owned| owned.state.node_key().ok());
    // Without a grid nobody asks; without a key of its own it acts for nobody.
    let seat = seat.filter(|_| key.is_some());
    match key {
        Some(key) if seat.is_some() => _ = tell_key.send(key),
        _ => {
            drop(tell_key);
            ready.set(|ready| ready.seat = Part::Good);
        }
    }
    // Beside each other: neither needs the other, the desk needs both.
    let joining = async {
        let may_join = match seat {
            None => true,
            Some(seat) => {
                let taken = seat.await.context("asking for the seat")?;
                let taken = taken.map(|asked| crate::task::spawn(seat::keep(asked, network.clone(), lose)));
                taken.is_some()
            }
        };
        match &farmer.grid {
            Some(ticket) if may_join => join(&board, &ready, &network, ticket, owned.as_deref())
                .await
                .map(Some),
            Some(_) | None => Ok(None),
        }
    };
    let recovering = async {
        let (Some(owned), Ok(image)) = (&owned, &image) else {
            return None;
        };
        let started = spaces::start(&board, &ready, image, &booted, owned);
        let (machinery, inventory) = tokio::join!(started, spaces::read_inventory());
        let mut machinery = machinery?;
        let openings = Openings {
            prefixes: farmer.open.iter().map(medium::prefix).collect(),
            mail: farmer.mail,
            status_port: farmer.status_page.then_some(status_page::PORT),
        };
        crate::task::spawn(spaces::follow_uplinks(
            board.clone(),
            machinery.provisioner.clone(),
            openings,
            network.clone(),
        ));
        // While the grid is joined: this needs nothing but the disks. What takes longest first.
        let mut standing = base::begin(
            &board,
            &machinery.bases,
            owned,
            std::mem::take(&mut machinery.whole),
        );
        let counted = base::count(&mut standing, owned, &inventory, farmer.rate, &machinery.bases).await;
        spaces::count_traffic(&board, &ready, &machinery, &network, &farmer);
        Some((machinery, standing, inventory, counted))
    };
    let (grid, mut machinery) = tokio::join!(joining, recovering);
    let grid = grid?;
    if let (Some(owned), Some((machinery, standing, inventory, counted))) = (&owned, &mut machinery) {
        let mut desk = None;
        if let (Some(grid), Some(ticket), Some(rail)) = (grid, farmer.grid, rail) {
            let others = spaces::Others {
                grid,
                ticket,
                rail,
                inventory: inventory.clone(),
                counted: counted.capacity.clone(),
                version: version.to_owned(),
            };
            desk = spaces::open_desk(&board, &ready, &booted, owned, machinery, others).await;
            open.send_replace(desk.clone());
        }
        let shown = board.clone();
        let standing = standing.clone();
        base::sell(
            (standing, std::mem::take(&mut counted.whole)),
            ready,
            board,
            owned.clone(),
            desk,
            inventory.clone(),
            farmer.rate,
        )
        .await;
        if let Some(stick) = &booted.medium.disk {
            stick::watch(&shown, stick).await;
        }
    }
    std::future::pending().await
}

/// Joins with the node's own key; without a disk there is none, and one for this boot
/// alone does: the node can be seen, and sells nothing.
async fn join(
    board: &Board,
    ready: &Ready,
    network: &net::NetWatch,
    ticket: &GridTicket,
    owned: Option<&disks::Owned>,
) -> anyhow::Result<Arc<Grid>> {
    let secret = match owned.map(|owned| owned.state.node_key()) {
        Some(Ok(key)) => *key,
        Some(Err(_)) | None => ::grid::fresh_secret().context("no random numbers")?,
    };
    let known = board.clone();
    let now = move || {
        let right = known.status().clock_is_right;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        right.then_some(UnixMillis(since.as_millis() as u64))
    };
    let check = desk::check(GridId(ticket.grid_id()), now);
    Ok(grid::join(board, ready, network, ticket.clone(), secret, check).await)
}

/// The machine in one line, at once: who opens the disks tells it again, when all drivers are there.
async fn show_machine(board: Board) {
    if let Ok(inventory) = spawn_blocking(|| inventory::read(Path::new("/"))).await {
        board.update(|status| {
            if status.machine.is_empty() {
                status.machine = facts::machine_line(&inventory);
            }
        });
    }
}

/// A part failed: what, why, what to do.
fn part_failed(board: &Board, part: &str, why: &str, cure: &str) {
    let failure = Failure {
        part: part.into(),
        why: why.into(),
        cure: Some(cure.into()),
    };
    // What is tried again and fails as before has been said.
    if board.status().failures.contains(&failure) {
        return;
    }
    board.event(format!("{part}: {why}"));
    board.update(|status| {
        status.failures.retain(|known| known.part != part);
        status.failures.push(failure);
    });
}
