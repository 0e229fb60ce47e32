//! A failed undo: the sale is quarantined, both causes are told to farmer and user, its room is withheld, and the node
//! sells the rest.

use crate::street::{MONEY, User, opened};
use agent::sales::Failed;
use escrow::Amount;
use market::message::*;

const USER: u8 = 20;
/// What `street`'s requests ask for.
const ASKED: u128 = 512 << 20;
/// More than any node of a street has.
const TOO_MUCH: u64 = 64 << 30;
const WHY: &str = "step process failed: it does not start";
const UNDO: &str = "volume: the mapping is in use";

/// The memory that the node says it has for one who asks for too much.
async fn memory_to_sell(user: &User, nonce: u16) -> u128 {
    let request = user.request(nonce, TOO_MUCH).await;
    let decline = user.open::<Decline>(&user.ask(&request).await).message;
    let of_memory = decline
        .reasons
        .iter()
        .find(|reason| reason.code == DeclineCode::Memory);
    of_memory.and_then(|reason| reason.have).unwrap()
}

async fn fails(quarantine: Option<String>) -> (u128, u128) {
    let (street, node, user) = opened().await;
    let before = memory_to_sell(&user, 1).await;
    let failed = Failed {
        why: WHY.into(),
        quarantine: quarantine.clone(),
    };
    *node.machine.next_failure.lock().unwrap() = Some(failed);
    let bought = user.buy(2).await;
    user.lock(&bought).await;
    let mut stream = user.speak(&bought).await;
    let grant = user.grant(&mut stream, bought.id).await;
    user.seal(&mut stream, &grant).await;
    let state = match quarantine {
        Some(_) => SaleState::Quarantined,
        None => SaleState::Refunded,
    };
    let status = user.wait_for(&mut stream, bought.id, state).await;
    let why = status.why.unwrap();
    assert!(why.contains(WHY), "{why}");
    crate::street::user::eventually(|| node.said(WHY)).await;
    if quarantine.is_some() {
        assert!(why.contains(UNDO), "{why}");
        crate::street::user::eventually(|| node.said(UNDO)).await;
    }
    // The money is back, all of it; and the node sells what is not withheld.
    let receipt = user.open::<Receipt>(&status.receipt.unwrap()).message;
    assert_eq!(
        (receipt.paid, receipt.returned),
        (Amount::ZERO, bought.body.total())
    );
    assert_eq!(street.balance(USER).await, MONEY);
    let after = memory_to_sell(&user, 3).await;
    let next = user.buy(4).await;
    user.lock(&next).await;
    let mut stream = user.speak(&next).await;
    let grant = user.grant(&mut stream, next.id).await;
    user.seal(&mut stream, &grant).await;
    user.wait_for(&mut stream, next.id, SaleState::Ready).await;
    (before, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_undo_withholds_its_room_and_tells_both_causes() {
    let (before, after) = fails(Some(UNDO.into())).await;
    assert_eq!(before - after, ASKED, "its memory is sold again");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_was_undone_nothing_is_withheld() {
    let (before, after) = fails(None).await;
    assert_eq!(before, after);
}
