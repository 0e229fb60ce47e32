//! A snapshot of a space: asked, signed by both, taken or removed; and put back.
//!
//! ```text
//! quote ─► (the person says yes) ─► lock what is missing ─► sign ─► until the node has it ─► pay
//! (the person says yes) ─► restore ─► until it is put back ─► unlock, as after a power cut of the node
//! ```
//!
//! Nothing inside a space shows that there is a snapshot of it: that there is one is the node's word, and a restore is
//! the proof of it.

use std::time::Duration;

use market::message::{Quote, RefusalCode, Restore, SaleState, Status};
use market::quantity::{Bytes, UnixMillis};
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Walk};
use crate::client::random;
use crate::client::talk::TalkError;
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::moment;

/// Between two looks at a node that is at it.
const REPEAT: Duration = Duration::from_millis(500);

impl Walk<'_> {
    /// When the snapshot was taken, as the node says; none where it has none.
    pub async fn snapshot_at(&mut self) -> Outcome<Option<UnixMillis>> {
        let status = self.status(ANSWER_WITHIN).await;
        let status = status.map_err(|error| error.failure("the node does not say how the space stands"))?;
        self.keep()?;
        Ok(status.snapshot)
    }

    /// Signs what was quoted, where it is not signed yet; waits until the node has the snapshot, or has it no more; pays
    /// what is due. When it was taken.
    pub async fn snapshot(
        &mut self,
        quote: &Quote,
        deadline: Instant,
        steps: &mut Steps,
    ) -> Outcome<Option<UnixMillis>> {
        if quote.gives != *self.gives() {
            self.sign_size(quote, deadline, steps).await?;
        } else {
            self.say_change_again().await?;
        }
        let wanted = quote.gives.snapshot > Bytes::ZERO;
        steps.begin("snapshot", "waiting for the node");
        let name = self.record.name.clone();
        loop {
            let status = self.status(ANSWER_WITHIN).await.ok();
            let snapshot = status.as_ref().map(|status| status.snapshot);
            if let Some(taken) = snapshot.filter(|snapshot| snapshot.is_some() == wanted) {
                let words = taken.map_or("gone".to_owned(), |taken| format!("taken {}", moment(taken.0)));
                steps.done("snapshot", words);
                self.keep()?;
                self.pay(steps).await?;
                return Ok(taken);
            }
            let why = status.and_then(|status| status.why);
            let refused = why.filter(|why| why.starts_with("not resized"));
            if refused.is_some() || Instant::now() + REPEAT >= deadline {
                let failure = Failure::new(
                    Code::StillGoing,
                    format!("both signed it, and the node of {name} has not done it yet"),
                );
                let why = refused.unwrap_or_else(|| "it says nothing of it".to_owned());
                return Err(failure
                    .because(why)
                    .next("the same command goes on; `--delete` takes a snapshot back, its price too"));
            }
            tokio::time::sleep(REPEAT).await;
        }
    }

    /// Has the node put the snapshot back that was taken then, and waits until it has. One that was asked before and not
    /// seen through is gone on with.
    pub async fn restore(&mut self, taken: UnixMillis, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("restored", "asking the node");
        let nonce = match self.record.restoring {
            Some(nonce) => nonce,
            None => random::<16>()?,
        };
        self.record.restoring = Some(nonce);
        self.keep()?;
        let sale = self.files.id;
        let restore = Restore { sale, nonce, taken };
        // Said again with the same nonce, it is done once.
        loop {
            match self.talk.ask::<_, Status>(restore.clone(), ANSWER_WITHIN).await {
                Ok(_) => break,
                Err(error) if may_be_asked_again(&error) && Instant::now() + REPEAT < deadline => {
                    steps.doing(error.to_string());
                    tokio::time::sleep(REPEAT).await;
                }
                Err(error) => return Err(error.failure("the node does not restore the space")),
            }
        }
        steps.doing("the node closes the space and puts the snapshot back");
        let name = self.record.name.clone();
        loop {
            let status = self.status(ANSWER_WITHIN).await.ok();
            let is_at_it = status
                .as_ref()
                .is_none_or(|status| status.state == SaleState::Building);
            let why = status.and_then(|status| status.why).unwrap_or_default();
            if why.starts_with("not restored") {
                return Err(
                    Failure::new(Code::NodeRefuses, format!("{name} was not restored"))
                        .because(why)
                        .next(format!("`steading restore {name}` tries again")),
                );
            }
            if !is_at_it {
                self.keep()?;
                steps.done("restored", format!("as of {}", moment(taken.0)));
                return Ok(());
            }
            if Instant::now() + REPEAT >= deadline {
                return Err(
                    Failure::new(Code::StillGoing, format!("{name} is still being restored"))
                        .next(format!("`steading unlock {name}` waits, and opens it")),
                );
            }
            tokio::time::sleep(REPEAT).await;
        }
    }
}

/// Nobody answered, or the node says that it is too soon.
fn may_be_asked_again(error: &TalkError) -> bool {
    error
        .refusal()
        .is_none_or(|refusal| refusal.code == RefusalCode::Busy)
}
