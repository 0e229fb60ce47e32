//! From the offer to a space that is ready: agree, lock, keys, wait.

use std::time::Duration;

use escrow::{Amount, Rail, RailError, Wallet};
use market::envelope::{self, Signed};
use market::id::SaleId;
use market::message::{
    Agree, CapacityRequest, Funded, KeyGrant, Offer, RefusalCode, Sale, SaleBody, SaleState, SealedKey,
    Status,
};
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Walk};
use crate::client::talk::TalkError;
use crate::client::{Client, now_ms, random};
use crate::exit::{Code, Failure, Outcome};
use crate::show::steps::Steps;
use crate::show::text::{money, short};
use crate::ssh;
use crate::store::record::{Record, Step};

/// Between two looks at a node that builds.
const POLL: Duration = Duration::from_millis(300);
/// Between two tries of what the node is not ready for.
const REPEAT: Duration = Duration::from_millis(500);
/// How long a lock outlives what was bought, so that dark time and a lazy client cost nothing.
const SPARE_MS: u64 = 24 * 3_600_000;

/// What a buyer chooses beside the offer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Periods signed ahead.
    pub ahead: u32,
    /// Further keys that may log in.
    pub ssh_keys: Vec<String>,
}

impl<'c> Walk<'c> {
    /// Makes the sale's body, writes it down, and has it signed by both.
    pub async fn begin(
        client: &'c mut Client,
        request: &Signed<CapacityRequest>,
        offer: &Signed<Offer>,
        choice: Choice,
        steps: &mut Steps,
    ) -> Outcome<Walk<'c>> {
        steps.begin("sale", "signing");
        let (ticket, address) = (client.settings.ticket()?, client.settings.rail()?);
        let nonce = random::<32>()?;
        let payer = client.account(&address);
        let voucher_key = client.seed.voucher_public_key(&nonce);
        let body = SaleBody::accepting(request, offer, payer, voucher_key, nonce).map_err(|error| {
            Failure::new(Code::NodeRefuses, "this offer does not fit the request").caused_by(&error)
        })?;
        let agree = Agree::new(body.clone());
        let id = agree.sale;
        let agree = envelope::sign(&client.seed.user_key(), body.grid, agree)
            .map_err(|error| Failure::new(Code::Unexpected, "the sale cannot be signed").caused_by(&error))?;
        let files = client.store.sale(id);
        files.keep("request", &request.bytes)?;
        files.keep("offer", &offer.bytes)?;
        files.keep("agree", &agree.bytes)?;
        let record = Record {
            name: client.store.free_name(id)?,
            step: Step::Agreeing,
            begun_ms: now_ms(),
            grid: ticket.to_string(),
            ledger: address.to_string(),
            node_address: data_encoding::HEXLOWER.encode(&offer.message.address),
            ahead: choice.ahead,
            vouchers_signed: 0,
            vouchers_sent: 0,
            from_backup: false,
            active_since_ms: None,
            periods: body.periods,
            amendments: 0,
            epoch: 0,
            host_key: None,
            ssh_keys: choice.ssh_keys,
            tcp: None,
            inside: None,
            heard: None,
            restoring: None,
            times: std::collections::BTreeMap::new(),
        };
        files.keep_record(&record)?;
        let mut walk = Walk::new(client, files, record, body, offer.clone()).await?;
        walk.agree(steps).await?;
        Ok(walk)
    }

    /// Has the node sign.
    pub(super) async fn agree(&mut self, steps: &mut Steps) -> Outcome {
        let agree = self.files.need::<Agree>("agree")?;
        let answer = self.talk.ask_signed::<Sale>(&agree.bytes, ANSWER_WITHIN).await;
        let sale = match answer {
            Ok(sale) => sale,
            Err(error) => {
                // Nothing is locked, so there is nothing to settle.
                if error.refusal().is_some() {
                    self.reach(Step::Ended, "refused")?;
                }
                return Err(error.failure("the sale was not agreed; no money moved").next(
                    "nothing is in escrow for it and nothing is owed: `steading buy` takes another offer",
                ));
            }
        };
        if sale.message.agree.bytes != agree.bytes {
            let failure = Failure::new(Code::NodeRefuses, "the node signed another sale than this one");
            return Err(failure.next("nothing was locked; take another offer"));
        }
        self.files.keep("sale", &sale.bytes)?;
        let id: SaleId = self.files.id;
        self.talk.about(id);
        self.reach(Step::Agreed, "agreed")?;
        steps.done("sale", format!("{} signed by both", short(&id.to_string())));
        Ok(())
    }

    /// Locks the whole sum under the sale's id.
    pub async fn lock(&mut self, steps: &mut Steps) -> Outcome {
        steps.begin("locked", "asking the ledger");
        self.fund().await.map_err(|failure| match failure.code {
            Code::Money => failure.because("a sale that is not funded lapses by itself; nothing is owed"),
            _ => failure,
        })?;
        self.reach(Step::Funded, "funded")?;
        let (total, ahead) = (self.total(), self.vouchers_ahead());
        let risk = self.body.owed_after(ahead);
        let periods = if ahead == 1 { "period" } else { "periods" };
        steps.done(
            "locked",
            format!(
                "{} in escrow · at risk {} ({ahead} {periods} signed ahead)",
                money(total),
                money(risk)
            ),
        );
        Ok(())
    }

    /// Locks, or tops up: afterwards all periods are funded, for as long as they last.
    pub(super) async fn fund(&self) -> Outcome {
        self.fund_with(self.total()).await
    }

    /// The same, with so much in all.
    pub(super) async fn fund_with(&self, total: Amount) -> Outcome {
        let terms = self.terms();
        let duration_ms = self
            .body
            .period
            .as_ms()
            .saturating_mul(u64::from(self.record.periods));
        let tries = async {
            let expiry = self
                .wallet
                .now()
                .await?
                .plus_ms(duration_ms)
                .plus_ms(terms.accept_window_ms)
                .plus_ms(SPARE_MS);
            self.wallet.lock(&terms, total, expiry).await
        };
        match tries.await {
            Ok(_) => Ok(()),
            Err(error @ RailError::Refused(_)) => Err(Failure::of_rail("the money was not locked", &error)),
            Err(error) => {
                let name = &self.record.name;
                Err(
                    Failure::of_rail("whether the money is locked is not known", &error).next(format!(
                        "`steading unlock {name}` looks and goes on; `steading cancel {name}` undoes it"
                    )),
                )
            }
        }
    }

    /// All periods, extensions included.
    pub fn total(&self) -> Amount {
        self.owed_after(self.record.periods)
    }

    /// How many periods are signed for at most at a time.
    pub fn vouchers_ahead(&self) -> u32 {
        self.record.ahead.clamp(1, self.record.periods.max(1))
    }

    /// Tells the node that the lock is there, takes its grant, pins the host key, and hands the
    /// unlock key over, sealed.
    pub async fn hand_over_key(&mut self, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("keys", "the node looks at the lock");
        let Some(grant) = self.grant(deadline, steps).await? else {
            // It has the key already, from an earlier command: its status says how far it is.
            return Ok(());
        };
        self.pin(&grant)?;
        self.files.keep("grant", &grant.bytes)?;
        self.record.epoch = grant.message.epoch;
        let host_key = grant.message.host_key_line();
        self.record.host_key = Some(host_key.clone());
        self.keep()?;
        ssh::write_files(&self.client.store, &self.client.seed)?;

        let id = self.files.id;
        let unlock_key = self.client.seed.unlock_key(&id);
        let (seal_key, epoch) = (&grant.message.seal_key, grant.message.epoch);
        let (encapsulated, ciphertext) = market::seal::seal(seal_key, id, epoch, &unlock_key, random()?)
            .map_err(|error| {
                Failure::new(Code::NodeRefuses, "the node's grant is of no use").caused_by(&error)
            })?;
        let mut authorized_keys = vec![ssh::public_line(&self.client.seed.ssh_key())];
        authorized_keys.extend(self.record.ssh_keys.iter().cloned());
        let sealed = SealedKey {
            sale: id,
            epoch,
            encapsulated,
            ciphertext,
            authorized_keys,
        };
        let answer = self.talk.ask::<_, Status>(sealed, ANSWER_WITHIN).await;
        match answer {
            Ok((_, status)) => self.heard(&status.message),
            Err(error) if is_already_done(&error) => {}
            Err(error) => return Err(error.failure("the unlock key was not accepted")),
        }
        self.proof_is_due = true;
        self.answered = Some((grant.message.boot, epoch));
        if self.record.step < Step::Active {
            self.reach(Step::Keyed, "keyed")?;
        } else {
            self.keep()?;
        }
        steps.done(
            "keys",
            format!(
                "host key {} pinned · unlock key sent, sealed",
                ssh::fingerprint(&host_key)
            ),
        );
        Ok(())
    }

    async fn grant(&mut self, deadline: Instant, steps: &mut Steps) -> Outcome<Option<Signed<KeyGrant>>> {
        loop {
            let funded = Funded { sale: self.files.id };
            let error = match self.talk.ask::<_, KeyGrant>(funded, ANSWER_WITHIN).await {
                Ok((_, grant)) if grant.message.sale == self.files.id => return Ok(Some(grant)),
                Ok(_) => {
                    let words = "its grant is for another sale".to_owned();
                    TalkError::Nonsense(self.body.node, words)
                }
                Err(error) if is_already_done(&error) => return Ok(None),
                Err(error) => error,
            };
            let again = match &error {
                TalkError::Refused(_, refusal) => refusal.code.is_worth_repeating(),
                TalkError::Silent(..) => true,
                TalkError::Nonsense(..) | TalkError::Unsigned(_) => false,
            };
            if !again {
                return Err(error.failure("the node gives no keys"));
            }
            if Instant::now() + REPEAT >= deadline {
                return Err(self.still_going(&error.to_string()));
            }
            steps.doing(format!("{error}; again"));
            tokio::time::sleep(REPEAT).await;
        }
    }

    /// After the first good proof, another host key is somebody else. A node counts its grants on its disk: a number that
    /// was seen comes from an older disk, or from another machine with a copy of it.
    fn pin(&self, grant: &Signed<KeyGrant>) -> Outcome {
        let (epoch, seen) = (grant.message.epoch, self.record.epoch);
        if epoch <= seen {
            let name = &self.record.name;
            return Err(Failure::new(
                Code::ProofFailed,
                format!("{name} is not what it was: its node has gone back to an older state"),
            )
            .because(format!(
                "its grant has number {epoch}, and number {seen} was seen already"
            ))
            .next(
                "the unlock key was not handed over; ask the farmer whether a copy of the node's disks runs",
            ));
        }
        let (new, known) = (grant.message.host_key_line(), self.record.host_key.as_deref());
        match known.filter(|known| self.record.is_proven() && *known != new) {
            None => Ok(()),
            Some(known) => Err(Failure::new(
                Code::ProofFailed,
                format!(
                    "{} has another host key than the one that was proven",
                    self.record.name
                ),
            )
            .because(format!(
                "pinned {}, the node now says {}",
                ssh::fingerprint(known),
                ssh::fingerprint(&new)
            ))
            .next(format!(
                "the unlock key was not handed over; `steading cancel {}` ends the sale",
                self.record.name
            ))),
        }
    }

    /// Asks until the space is ready; a node that lost power meanwhile gets the key again.
    pub async fn until_ready(&mut self, deadline: Instant, steps: &mut Steps) -> Outcome {
        steps.begin("building", "volume · network · limits · ssh");
        let begun = Instant::now();
        loop {
            match self.status(ANSWER_WITHIN).await {
                Ok(status) => match status.state {
                    SaleState::Ready | SaleState::Active => break,
                    SaleState::Funded | SaleState::Agreed | SaleState::Locked
                        if self.answered == Some((status.boot, status.epoch)) =>
                    {
                        let why = status.why.unwrap_or_else(|| "opening the volume".to_owned());
                        if why.starts_with("not unlocked") {
                            return Err(self.not_unlocked(why));
                        }
                        steps.doing(why);
                    }
                    SaleState::Funded | SaleState::Agreed | SaleState::Locked => {
                        if status.state == SaleState::Locked {
                            self.was_dark().await;
                        }
                        self.keep()?;
                        self.hand_over_key(deadline, steps).await?;
                        steps.begin("building", "opening the volume again");
                    }
                    SaleState::Offered | SaleState::Keyed | SaleState::Building => {
                        if let Some(why) = status.why {
                            steps.doing(why);
                        }
                    }
                    SaleState::Ending
                    | SaleState::Ended
                    | SaleState::Quarantined
                    | SaleState::Lapsed
                    | SaleState::Refunded => {
                        self.keep()?;
                        return Err(self.over(&status).await);
                    }
                },
                Err(error @ TalkError::Refused(..)) => match error.refusal().map(|refusal| refusal.code) {
                    Some(RefusalCode::Busy | RefusalCode::RailSilent) => steps.doing(error.to_string()),
                    _ => return Err(error.failure("the node does not say how the sale stands")),
                },
                Err(error) => steps.doing(format!("{error}; again")),
            }
            if Instant::now() + POLL >= deadline {
                return Err(self.still_going("the node has not said that the space is ready"));
            }
            tokio::time::sleep(POLL).await;
        }
        if self.record.step < Step::Ready {
            self.reach(Step::Ready, "ready")?;
            let seconds = begun.elapsed().as_secs_f64();
            steps.done_in("building", "volume · network · limits · ssh", seconds);
        } else if self.proof_is_due {
            self.keep()?;
            steps.done_in(
                "opened",
                "the volume is open again",
                begun.elapsed().as_secs_f64(),
            );
        } else {
            self.keep()?;
            steps.quiet();
        }
        ssh::write_files(&self.client.store, &self.client.seed)
    }

    /// The node had the key and could not open the volume.
    fn not_unlocked(&self, why: String) -> Failure {
        let name = &self.record.name;
        Failure::new(Code::NodeRefuses, format!("{name} was not opened"))
            .because(why)
            .next(format!(
                "`steading unlock {name}` tries again; `steading cancel {name}` ends it"
            ))
    }

    /// The time is up, and nothing has failed.
    pub(super) fn still_going(&self, what: &str) -> Failure {
        let name = &self.record.name;
        Failure::new(Code::StillGoing, format!("{name} is not ready yet; it goes on without you watching"))
            .because(what)
            .next(format!(
                "`steading spaces` shows how it stands, `steading unlock {name}` goes on, `steading cancel {name}` undoes it"
            ))
    }
}

/// The node is past this step: an earlier try of it arrived.
fn is_already_done(error: &TalkError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.code == RefusalCode::State)
}
