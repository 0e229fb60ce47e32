//! The status page, kept up, and its address on the console.

use std::net::IpAddr;
use std::time::Duration;

use provision::network::address::is_private;
use tokio::time::sleep;

use crate::console::Board;
use crate::net::{NetState, NetWatch};
use crate::status_page::{PORT, is_neighbour, listen, serve};

/// A port that could not be had is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// For ever: who may see it is looked up anew for each connection.
pub(super) async fn serve_for_ever(board: Board, network: NetWatch) {
    crate::task::spawn(show_address(board.clone(), network.clone()));
    let listener = loop {
        match listen(PORT) {
            Ok(listener) => break listener,
            Err(error) => {
                let why = format!("it cannot be served: {error}");
                super::part_failed(
                    &board,
                    "page",
                    &why,
                    "it is tried again; if it stays, report this line",
                );
                sleep(AGAIN_AFTER).await;
            }
        }
    };
    board.update(|status| status.failures.retain(|failure| failure.part != "page"));
    let admits = move |from| is_neighbour(from, &network.borrow());
    match serve(board, listener, admits).await {}
}

async fn show_address(board: Board, mut network: NetWatch) {
    loop {
        let address = address(&network.borrow_and_update());
        board.update(|status| {
            status.page = Some(match address {
                Some(address) => format!("http://{address}/ for browsers on that network"),
                None => "for browsers on a private network, and this machine is on none".to_owned(),
            });
        });
        if network.changed().await.is_err() {
            return;
        }
    }
}

/// Where a browser finds it.
fn address(network: &NetState) -> Option<IpAddr> {
    let all = network.links.iter().flat_map(|link| &link.addresses);
    all.map(|(address, _)| *address)
        .find(|address| address.is_ipv4() && is_private(*address))
}
