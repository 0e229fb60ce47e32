//! The ledger: whether it answers, and what time it says.

use std::sync::Arc;
use std::time::Duration;

use escrow::Rail;
use ledger::{LedgerRail, RailAddress};
use tokio::time::{sleep, timeout};

use super::ready::Ready;
use super::verdict::Part;
use crate::console::Board;
use crate::net::NetWatch;

/// One that answers is asked so often.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// One that does not answer is asked again sooner.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// Silences in a row after which the node says so: one lost packet is no reason.
const SILENCES: u32 = 2;

/// Makes the rail of the address and follows it for ever in the background.
pub(super) fn start(
    board: &Board,
    ready: &Ready,
    network: &NetWatch,
    address: &RailAddress,
) -> Option<Arc<LedgerRail>> {
    let rail = match LedgerRail::new(address.clone()) {
        Ok(rail) => Arc::new(rail),
        Err(error) => {
            let why = crate::words::chain(&error);
            ready.set(|ready| ready.ledger = Part::Bad(why));
            return None;
        }
    };
    crate::task::spawn(follow(
        board.clone(),
        ready.clone(),
        network.clone(),
        rail.clone(),
        address.authority().to_owned(),
    ));
    Some(rail)
}

async fn follow(board: Board, ready: Ready, mut network: NetWatch, rail: Arc<LedgerRail>, authority: String) {
    let mut silences = 0_u32;
    loop {
        network.borrow_and_update();
        match rail.now().await {
            Ok(now) => {
                silences = 0;
                super::clock::heard(&board, &ready, "ledger", now.0);
                ready.set(|ready| ready.ledger = Part::Good);
                sleep(ASK_EVERY).await;
            }
            Err(error) => {
                silences += 1;
                tracing::debug!(%error, "the ledger does not answer");
                if silences >= SILENCES {
                    let why = format!(
                        "the ledger at {authority} does not answer: {}",
                        crate::words::chain(&error)
                    );
                    ready.set(|ready| ready.ledger = Part::Absent(why));
                }
                // At power-on it is asked before there is a network: then the network is what is waited for.
                if let Ok(Err(_)) = timeout(AGAIN_AFTER, network.changed()).await {
                    sleep(AGAIN_AFTER).await;
                }
            }
        }
    }
}
