//! Who gets a place, and who gives way.

use super::*;

const ONE: PeerId = PeerId([1; 32]);

#[test]
fn a_share_is_given_back() {
    let shares = Shares::new(9, 2);
    let (one, two) = (shares.take(ONE), shares.take(ONE));
    assert!(one.is_some() && two.is_some() && shares.take(ONE).is_none());
    assert!(shares.take(PeerId([2; 32])).is_some());
    drop(one);
    assert!(shares.take(ONE).is_some());
    drop(two);
    let taken = shares.taken.lock().unwrap();
    assert!(taken.all == 0 && taken.by_peer.is_empty());
}

#[test]
fn who_takes_all_that_he_can_leaves_room() {
    let taken_by_one = |most_a_peer| {
        let shares = Shares::new(8, most_a_peer);
        let taken: Vec<Share> = std::iter::from_fn(|| shares.take(ONE)).collect();
        (taken.len(), shares.take(PeerId([2; 32])).is_some())
    };
    assert_eq!(taken_by_one(3), (3, true));
    assert_eq!(
        taken_by_one(usize::MAX),
        (8, false),
        "the control: without a share of his own"
    );
}

/// Eight peers hold all places; another one comes. Whether he gets in, and who gives way.
async fn nine(way: fn(&Shares, PeerId) -> Option<Share>) -> (bool, usize) {
    let shares = Shares::new(32, 4);
    let held: Vec<Share> = (0..32u8)
        .map(|number| way(&shares, PeerId([number % 8; 32])).unwrap())
        .collect();
    let _kept = held[0].keep([1; 32]);
    let entered = way(&shares, PeerId([99; 32]));
    let gone = async |share: &Share| {
        tokio::time::timeout(std::time::Duration::from_millis(1), share.gives_way()).await
    };
    let mut told = Vec::new();
    for (number, share) in held.iter().enumerate() {
        if gone(share).await.is_ok() {
            told.push(number);
        }
    }
    assert!(told.len() <= 1 && !told.contains(&0), "{told:?}");
    (entered.is_some(), told.first().copied().unwrap_or(usize::MAX))
}

#[tokio::test]
async fn peers_who_take_all_keep_nobody_out() {
    assert_eq!(
        nine(Shares::enter).await,
        (true, 1),
        "the oldest that is not kept"
    );
    assert_eq!(nine(Shares::take).await, (false, usize::MAX), "the control");
}

#[test]
fn who_has_as_much_gives_no_way() {
    let shares = Shares::new(2, 2);
    let (one, two) = (shares.enter(ONE).unwrap(), shares.enter(PeerId([2; 32])).unwrap());
    assert!(shares.enter(ONE).is_none(), "the other has no more than he");
    drop((one, two));
    let taken = shares.taken.lock().unwrap();
    assert!(taken.all == 0 && taken.by_peer.is_empty());
}

/// Who gave way to the others that entered, by the order in which they came.
async fn gave_way(held: &[Share]) -> Vec<usize> {
    let mut told = Vec::new();
    for (number, share) in held.iter().enumerate() {
        let gone = tokio::time::timeout(std::time::Duration::from_millis(1), share.gives_way());
        if gone.await.is_ok() {
            told.push(number);
        }
    }
    told
}

/// One holder keeps six of eight places from six endpoints, another keeps one, a stranger has one.
#[tokio::test]
async fn kept_places_give_way_last_and_those_of_who_keeps_most() {
    let shares = Shares::new(8, 2);
    let held: Vec<Share> = (0..8u8)
        .map(|number| shares.enter(PeerId([number; 32])).unwrap())
        .collect();
    let mut kept: Vec<Kept> = held[1..7].iter().map(|share| share.keep([66; 32])).collect();
    kept.push(held[0].keep([1; 32]));
    let mut entered = Vec::new();
    for new in [100u8, 101, 102] {
        let share = shares.enter(PeerId([new; 32])).unwrap();
        kept.push(share.keep([new; 32]));
        entered.push(share);
    }
    assert_eq!(
        gave_way(&held).await,
        [1, 2, 7],
        "the one that nobody keeps, then the oldest of who keeps most; not the oldest of all"
    );
    let all_by_one = Shares::new(2, 1);
    let [one, two] = [1, 2].map(|number| all_by_one.take(PeerId([number; 32])).unwrap());
    let _kept = [one.keep([66; 32]), two.keep([66; 32])];
    assert!(all_by_one.take(PeerId([3; 32])).is_none(), "the control");
}

#[tokio::test]
async fn a_place_is_kept_as_long_as_something_on_it_is() {
    let shares = Shares::new(2, 2);
    let held = [shares.enter(ONE).unwrap(), shares.enter(ONE).unwrap()];
    let (first, second) = (held[0].keep([1; 32]), held[0].keep([2; 32]));
    drop(first);
    let entered = shares.enter(PeerId([2; 32])).unwrap();
    assert_eq!(gave_way(&held).await, [1], "the second still keeps the older");
    drop(second);
    let another = shares.enter(PeerId([3; 32])).unwrap();
    assert_eq!(gave_way(&held).await, [0]);
    drop((entered, another));
}
