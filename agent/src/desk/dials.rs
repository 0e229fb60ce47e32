//! Askers that are being dialled: so many at a time, and the newest is among them.
//!
//! Who asks says where he is, and it may be nowhere: such a dial lasts until it is given up, an honest one a moment.
//! Invariant: where all places are taken, the oldest dial gives way, so a flood of requests from nowhere delays nobody.

use std::collections::VecDeque;

use tokio::task::{AbortHandle, JoinSet};

/// Dials at a time.
const MOST: usize = 64;

/// The dials that are under way; they end with this.
pub(super) struct Dials {
    gives_way: bool,
    tasks: JoinSet<()>,
    order: VecDeque<AbortHandle>,
}

impl Dials {
    /// None yet. Without `gives_way` a new dial is dropped where all places are taken.
    pub(super) fn new(gives_way: bool) -> Self {
        Dials {
            gives_way,
            tasks: JoinSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Begins one, in the place of the oldest if need be.
    pub(super) fn begin(&mut self, dial: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|dial| !dial.is_finished());
        if self.order.len() >= MOST {
            match self.order.pop_front().filter(|_| self.gives_way) {
                Some(oldest) => oldest.abort(),
                None => return,
            }
        }
        self.order.push_back(self.tasks.spawn(dial));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// Dials that never end take all places; then one more begins, and says so when it is done.
    async fn one_more_is_done(gives_way: bool) -> bool {
        let mut dials = Dials::new(gives_way);
        for _ in 0..3 * MOST {
            dials.begin(std::future::pending());
        }
        assert_eq!(dials.order.len(), MOST);
        let (tell, mut told) = mpsc::channel(1);
        dials.begin(async move {
            let _ = tell.send(()).await;
        });
        told.recv().await.is_some()
    }

    #[tokio::test]
    async fn the_oldest_gives_way() {
        assert!(one_more_is_done(true).await);
        assert!(
            !one_more_is_done(false).await,
            "the control: all places stay taken"
        );
    }
}
