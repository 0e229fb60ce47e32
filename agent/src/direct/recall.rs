//! A user who lost all but the keys gets the signed messages of the sales back: of his own, a few at a time.

use market::envelope::{Signed, sign};
use market::id::{EndpointId, SaleId};
use market::message::{MOST_RECALLED, Recall, Recalled, RefusalCode};

use super::ends_in_time;
use crate::desk::Counter;
use crate::sales::{No, recalled};
use crate::words::chain;

/// The sales of the key that signed it, from the one it names on.
pub(super) async fn answer(
    counter: &Counter,
    recall: Signed<Recall>,
    peer: EndpointId,
) -> Result<Vec<u8>, No> {
    let shared = &counter.shared;
    if recall.message.endpoint != peer {
        return Err(No {
            code: RefusalCode::NotAllowed,
            words: "the recall names another endpoint".to_owned(),
        });
    }
    ends_in_time(counter, "recall", recall.message.expires)?;
    let mut own: Vec<SaleId> = shared
        .keepers()
        .into_iter()
        .filter(|keeper| keeper.user().0 == recall.signer)
        .map(|keeper| keeper.sale())
        .filter(|sale| recall.message.after.is_none_or(|after| *sale > after))
        .collect();
    own.sort_unstable();
    let more = own.len() > MOST_RECALLED;
    own.truncate(MOST_RECALLED);
    let busy = |words: String| No {
        code: RefusalCode::Busy,
        words,
    };
    let mut sales = Vec::new();
    for sale in own {
        let kept = recalled(&shared.journal, sale).await;
        sales.extend(kept.map_err(|error| busy(chain(&error)))?);
    }
    let answer = Recalled {
        recall: recall.hash(),
        sales,
        more,
    };
    let signed = sign(&shared.node_key, shared.grid_id, answer);
    signed
        .map(|signed| signed.bytes)
        .map_err(|error| busy(chain(&error)))
}
