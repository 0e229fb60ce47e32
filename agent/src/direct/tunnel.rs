//! Tunnels: a login into a space, for its user alone.

use std::sync::Arc;
use std::time::Duration;

use grid::{IncomingTunnel, Share};
use market::id::{EndpointId, UserId};
use market::message::{RefusalCode, TunnelAnswer, TunnelOpening};
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::read_delegate;
use crate::desk::Counter;
use crate::sales::{Bytes, No};

/// How long the way into a space may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers one opening, then carries bytes until either end is done. A login is its user's: its place gives way last, and
/// then that of the user who has most.
pub(super) async fn serve(counter: Arc<Counter>, tunnel: IncomingTunnel, share: &Share) {
    match open(&counter, &tunnel).await {
        Ok((mut space, user)) => {
            let _kept = (share.keep(user.0), tunnel.keep(user.0));
            let Ok(mut stream) = tunnel.accept(&TunnelAnswer::Open.to_bytes()).await else {
                return;
            };
            let _ = copy_bidirectional(&mut stream, &mut space).await;
        }
        Err(No { code, words }) => {
            let _ = tunnel
                .refuse(&TunnelAnswer::Refused { code, words }.to_bytes())
                .await;
        }
    }
}

async fn open(counter: &Counter, tunnel: &IncomingTunnel) -> Result<(Box<dyn Bytes>, UserId), No> {
    let no = |code, words: &str| No {
        code,
        words: words.to_owned(),
    };
    let opening = TunnelOpening::from_bytes(tunnel.opening());
    let opening = opening.map_err(|error| no(RefusalCode::NotExpected, &error.to_string()))?;
    let peer = EndpointId(*tunnel.peer().as_bytes());
    let delegate = read_delegate(counter, &opening.delegate, peer)?;
    let sale = delegate.message.sale;
    let keeper = counter
        .shared
        .keeper(sale)
        .ok_or_else(|| no(RefusalCode::NoSale, "this node knows no such sale"))?;
    if keeper.user().0 != delegate.signer {
        return Err(no(
            RefusalCode::NotAllowed,
            "the delegate is signed by another than the sale's user",
        ));
    }
    let connected = timeout(PATIENCE, counter.shared.spaces.connect(sale, opening.port)).await;
    match connected {
        Ok(Ok(space)) => Ok((space, keeper.user())),
        Ok(Err(failed)) => Err(no(
            RefusalCode::State,
            &format!("the space cannot be reached: {failed}"),
        )),
        Err(_) => Err(no(RefusalCode::State, "the space does not answer")),
    }
}
