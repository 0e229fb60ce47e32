//! A user, a node, the network between node and ledger, and a ledger, in one world whose time is an argument.
//!
//! ```text
//!   user ── vouchers, hints ──► node: market::sale, kept as JSON as the journal does
//!    │                            │ calls, one flight each: lost, done twice, answered late or not at all
//!    └─ lock, close, refund ─► ledger: escrow::lock, and two accounts
//! ```
//!
//! Node and ledger are the real rules. [`Fault`] breaks one of them, or what carries them, so that each property can be
//! seen to fail.

use std::collections::VecDeque;

use escrow::lock::{Act, Postings, Windows, apply};
use escrow::{Amount, LeaseId, LockState, LockView, RailTime, Refusal, Voucher};
use market::id::SaleId;
use market::message::SaleState;
use market::prices::Prices;
use market::quantity::{Bytes, Seconds};
use market::sale::{Change, Deal, Effect, Event, Made, Now, Resizing, Sale, TornDown, Why, step};

pub use crate::trouble::{Fate, Fault, Mode};

pub const PRICE: u128 = 100;
pub const PERIODS: u32 = 8;
pub const PERIOD_MS: u64 = 60_000;
pub const NOTICE_MS: u64 = 24 * 3_600_000;
pub const ACCEPT_MS: u64 = 1_800_000;
/// From the lock to its expiry: the periods, and three hours for what goes wrong.
const LASTS_MS: u64 = PERIODS as u64 * PERIOD_MS + 3 * 3_600_000;
/// What user and farmer have together, always.
pub const ALL_MONEY: u128 = 10_000;
const TICK_MS: u64 = 1_000;
/// The same where nothing happens any more but the end of deadlines.
pub const SLOW_TICK_MS: u64 = 20_000;
/// A slow ledger's answer.
const SLOW_MS: u64 = 30_000;

/// What a call asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Look,
    Redeem(Voucher),
    GiveBack(Amount),
}

/// A call that the ledger has done, or will never do, and its answer on the way.
struct Flight {
    call: Call,
    answer: Option<Result<LockView, Refusal>>,
    lands_ms: u64,
}

pub struct World {
    pub fault: Fault,
    pub rail_ms: u64,
    boot_ms: u64,
    pub tick_ms: u64,
    // the ledger
    pub view: LockView,
    pub payer: u128,
    pub payee: u128,
    pub mode: Mode,
    pub fates: VecDeque<Fate>,
    pub refunded: bool,
    // the node
    pub sale: Sale,
    pub on: bool,
    flights: Vec<Flight>,
    building: bool,
    pub tearing: bool,
    /// What each period costs, as both last agreed; the world's own list, first period first.
    pub each: Vec<u128>,
    resizing: bool,
    pub restoring: bool,
    /// The machine has a snapshot.
    snapshot: bool,
    pub restores: u8,
    /// Periods that the user has signed for at the prices of now.
    pub signed: u32,
    /// Vouchers that the node took.
    pub taken: Vec<Voucher>,
    /// Time in service, as nobody but the world can measure it.
    pub served_ms: u64,
    pub ever_ready: bool,
    /// Since when it last waited for its key.
    pub locked_at_ms: Option<u64>,
}

impl World {
    pub fn new(fault: Fault) -> World {
        let deal = Deal {
            id: SaleId([1; 32]),
            prices: Prices::of(Amount(PRICE)),
            period: Seconds(PERIOD_MS / 1000),
            periods: PERIODS,
            notice: Seconds(NOTICE_MS / 1000),
        };
        let now = Now {
            rail: RailTime(1_000_000_000),
            boot_ms: 77,
        };
        World {
            fault,
            rail_ms: now.rail.0,
            boot_ms: now.boot_ms,
            tick_ms: TICK_MS,
            view: LockView::NONE,
            payer: ALL_MONEY,
            payee: 0,
            mode: Mode::Up,
            fates: VecDeque::new(),
            refunded: false,
            sale: Sale::agreed(deal, now),
            on: true,
            flights: Vec::new(),
            building: false,
            tearing: false,
            each: vec![PRICE; PERIODS as usize + 2],
            resizing: false,
            restoring: false,
            snapshot: false,
            restores: 0,
            signed: 0,
            taken: Vec::new(),
            served_ms: 0,
            ever_ready: false,
            locked_at_ms: None,
        }
    }

    fn now(&self) -> Now {
        Now {
            rail: RailTime(self.rail_ms),
            boot_ms: self.boot_ms,
        }
    }

    // ---- the ledger

    /// The real rule and the two accounts.
    pub fn act(&mut self, act: Act) -> Result<LockView, Refusal> {
        let windows = Windows {
            accept_window_ms: ACCEPT_MS,
            notice_ms: NOTICE_MS,
        };
        let act = match (self.fault, act) {
            (Fault::KeepsTheRest, Act::Refund) => {
                return Err(Refusal::Other("not without the farmer".into()));
            }
            (Fault::PaysEarly, Act::Redeem { cumulative, .. }) => Act::Redeem {
                cumulative,
                not_before: RailTime(0),
            },
            (_, act) => act,
        };
        let (view, moved) = apply(&self.view, windows, act, RailTime(self.rail_ms))?;
        let Postings { hold, pay, release } = moved;
        self.payer = (self.payer + release.0)
            .checked_sub(hold.0)
            .ok_or(Refusal::Balance {
                needed: hold,
                free: Amount(self.payer),
            })?;
        self.payee += pay.0;
        self.refunded |= matches!(act, Act::Refund) && self.view.state != LockState::Closed;
        self.view = view;
        Ok(view)
    }

    pub fn money(&self) -> u128 {
        self.payer + self.payee + self.view.held().0
    }

    // ---- the network

    fn call(&mut self, call: Call) {
        if self.flights.iter().any(|flight| flight.call == call) {
            return; // the keeper asks again by the next tick, not twice at once
        }
        let fate = self.fates.pop_front().unwrap_or(Fate::Good);
        let mut times = match fate {
            Fate::RequestLost => 0,
            Fate::Twice => 2,
            Fate::Good | Fate::ReplyLost | Fate::Late(_) => 1,
        };
        let mut answer = None;
        match self.mode {
            Mode::Silent | Mode::Errors => times = 0,
            Mode::Empty => {
                let nothing = match call {
                    Call::Look => Ok(LockView::NONE),
                    Call::Redeem(_) | Call::GiveBack(_) => Err(Refusal::NoLock),
                };
                answer = (times > 0).then_some(nothing);
                times = 0;
            }
            Mode::Up | Mode::Slow => {}
        }
        for time in 0..times {
            let before = self.payee;
            answer = Some(match &call {
                Call::Look => Ok(self.view),
                Call::Redeem(voucher) => self.act(Act::Redeem {
                    cumulative: voucher.cumulative,
                    not_before: voucher.not_before,
                }),
                Call::GiveBack(paid) => self.act(Act::GiveBack { paid: *paid }),
            });
            if self.fault == Fault::BooksTwice && time == 1 && matches!(call, Call::Redeem(_)) {
                self.payee = before + PRICE;
            }
        }
        if fate == Fate::ReplyLost {
            answer = None;
        }
        let takes_ms = match (fate, self.mode) {
            (Fate::Late(ms), _) => ms,
            (_, Mode::Slow) => SLOW_MS,
            (_, Mode::Silent) => 15_000, // until the client gives up
            (_, Mode::Up | Mode::Errors | Mode::Empty) => 1,
        };
        self.flights.push(Flight {
            call,
            answer,
            lands_ms: self.rail_ms + takes_ms,
        });
    }

    fn land(&mut self) {
        let due = |flight: &mut Flight| flight.lands_ms <= self.rail_ms;
        let landed: Vec<Flight> = self.flights.extract_if(.., due).collect();
        for Flight { call, answer, .. } in landed {
            // as the agent's keeper turns answers into events
            let event = match (call, answer) {
                (_, None) if self.fault == Fault::StopsOnSilence => {
                    let view = LockView {
                        state: LockState::Closed,
                        ..self.sale.lock
                    };
                    Some(Event::LockSeen { view, admitted: true })
                }
                (_, None) | (Call::Redeem(_), Some(Err(Refusal::NotYet(_)))) => None,
                (Call::Look, Some(Ok(view))) => Some(Event::LockSeen { view, admitted: true }),
                (Call::Redeem(_), Some(Ok(view))) => Some(Event::Redeemed(view)),
                (Call::Redeem(_), Some(Err(Refusal::NoLock))) if self.fault != Fault::BelievesTheEmpty => {
                    None
                }
                (Call::Redeem(voucher), Some(Err(why))) => Some(Event::RedeemRefused {
                    cumulative: voucher.cumulative,
                    why,
                }),
                (Call::GiveBack(_), Some(Ok(view))) => Some(Event::GaveBack(view)),
                (Call::Look | Call::GiveBack(_), Some(Err(_))) => {
                    self.call(Call::Look);
                    None
                }
            };
            if let Some(event) = event {
                self.happen(event);
            }
        }
    }

    // ---- the node

    /// One event to the machine; what it says is done. False where it was rejected.
    pub fn happen(&mut self, event: Event) -> bool {
        let vouchers = match &event {
            Event::Vouchers(vouchers) => vouchers.clone(),
            _ => Vec::new(),
        };
        let ticks = event == Event::Tick;
        if self.sale.state == SaleState::Locked {
            self.locked_at_ms = Some(self.sale.since.0);
        }
        let Ok((mut sale, mut effects)) = step(&self.sale, event, self.now()) else {
            return false;
        };
        match self.fault {
            Fault::ServesUnpaid if sale.why == Some(Why::NotPaid) && self.sale.why.is_none() => return true,
            Fault::RedeemsEarly => {
                let due = |voucher: &&Voucher| voucher.not_before.0 <= self.rail_ms;
                effects.extend(self.taken.iter().rfind(due).cloned().map(Effect::Redeem));
            }
            Fault::ForgetsVouchers if sale.state == SaleState::Ending => sale.vouchers.clear(),
            _ => {}
        }
        self.taken.extend(vouchers);
        // the journal: what is not in it is forgotten
        if !ticks || sale.state != self.sale.state {
            let text = serde_json::to_string(&sale).unwrap();
            sale = serde_json::from_str(&text).unwrap();
        }
        self.sale = sale;
        self.ever_ready |= self.sale.ready_at.is_some();
        for effect in effects {
            match effect {
                Effect::CheckLock => self.call(Call::Look),
                Effect::Redeem(voucher) => self.call(Call::Redeem(voucher)),
                Effect::GiveBack { paid } => self.call(Call::GiveBack(paid)),
                Effect::BuildSpace | Effect::UnlockSpace => self.building = true,
                Effect::TearDown => self.tearing = true,
                Effect::ResizeSpace => self.resizing = true,
                Effect::RestoreSpace => self.restoring = true,
                _ => {}
            }
        }
        true
    }

    pub fn built(&mut self, good: bool) {
        if std::mem::take(&mut self.building) {
            let event = if good {
                Event::Built
            } else {
                Event::BuildFailed {
                    why: "no".to_owned(),
                    quarantine: None,
                }
            };
            self.happen(event);
        }
    }

    /// Both sign another price, as a resize does: for what has begun by the node's clock nothing changes, and more begins
    /// the next period, which is paid with it.
    pub fn resize(&mut self, price: u128, grows: bool) {
        let begun = usize::try_from(self.sale.periods_begun()).unwrap();
        let Some(prices) = self.sale.deal.prices.changed(begun as u32, Amount(price)) else {
            return;
        };
        let (number, deal) = (self.sale.amendments + 1, self.sale.deal.clone());
        let total = prices.owed(u64::from(PERIODS)).unwrap();
        let disk = Bytes(if grows { 2 << 30 } else { 1 << 30 });
        let costs_more = begun > 0 && price > self.each[begun - 1];
        let voucher = costs_more.then(|| Voucher {
            lease: LeaseId([2; 32]),
            cumulative: prices.owed(begun as u64 + 1).unwrap(),
            not_before: RailTime(0),
            signature: vec![1; 64],
        });
        let amended = Event::Amended(Change {
            number,
            voucher: voucher.clone(),
            deal: Deal { prices, ..deal },
            // Each change of price takes a snapshot, or removes it.
            resizing: Some(
                Resizing::new(disk, Bytes(1 << 30)).with_snapshot(Some(self.sale.snapshot_at.is_none())),
            ),
        });
        let expiry = self.view.expiry;
        if self.view.state == LockState::None || self.act(Act::Lock { total, expiry }).is_err() {
            return;
        }
        if self.mode == Mode::Up {
            let view = self.view;
            self.happen(Event::LockSeen { view, admitted: true });
        }
        if self.happen(amended) {
            self.each[begun..].fill(price);
            if costs_more {
                self.served_ms = begun as u64 * PERIOD_MS;
            }
            if self.fault == Fault::PricesAnew {
                self.sale.deal.prices = Prices::of(Amount(price));
            }
            self.signed = self.signed.min(begun as u32) + u32::from(costs_more);
            self.taken.extend(voucher);
        }
    }

    /// The machine comes to the end of a resize.
    pub fn resized(&mut self, grown: bool) {
        if std::mem::take(&mut self.resizing) {
            let made = self.sale.resizing;
            let wanted = made.and_then(|made| made.snapshot);
            self.snapshot = wanted.unwrap_or(self.snapshot);
            self.happen(Event::Resized(Made {
                number: made.map_or(0, |made| made.number),
                grown: made.filter(|_| grown).map(|made| made.disk),
                snapshot: self.snapshot,
            }));
        }
    }

    /// What so many periods cost together.
    pub fn owed(&self, periods: u32) -> u128 {
        self.each[..periods as usize].iter().sum()
    }

    /// How many periods a sum pays for.
    pub fn covers(&self, sum: u128) -> u64 {
        (0..=PERIODS)
            .rev()
            .find(|periods| self.owed(*periods) <= sum)
            .unwrap_or(0)
            .into()
    }

    pub fn torn_down(&mut self) {
        if std::mem::take(&mut self.tearing) {
            self.happen(Event::TornDown(TornDown::CLEAN));
        }
    }

    pub fn cut(&mut self) {
        self.on = false;
        self.flights.clear();
        (self.building, self.tearing) = (false, false);
        (self.resizing, self.restoring) = (false, false);
    }

    pub fn start(&mut self) {
        if !self.on {
            (self.on, self.boot_ms) = (true, 5_000);
            self.happen(Event::Restarted { space_runs: false });
        }
    }

    pub fn agent_restarts(&mut self) {
        if self.on {
            self.flights.clear();
            (self.building, self.tearing) = (false, false);
            let space_runs = matches!(self.sale.state, SaleState::Ready | SaleState::Active);
            self.happen(Event::Restarted { space_runs });
        }
    }

    /// Time goes on; `at_each_tick` is the user's part and whoever watches.
    pub fn advance(
        &mut self,
        ms: u64,
        mut at_each_tick: impl FnMut(&mut World) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.rail_ms + ms;
        while self.rail_ms < end {
            let by = self.tick_ms.min(end - self.rail_ms);
            self.rail_ms += by;
            if self.on {
                self.boot_ms += by;
                if self.sale.state == SaleState::Active {
                    self.served_ms += by;
                }
                self.land();
                self.happen(Event::Tick);
            }
            at_each_tick(self)?;
        }
        Ok(())
    }

    // ---- the user

    pub fn lock(&mut self, periods: u32) {
        let total = Amount(self.owed(periods));
        let expiry = if self.view.state == LockState::None {
            RailTime(self.rail_ms + LASTS_MS)
        } else {
            self.view.expiry
        };
        let _ = self.act(Act::Lock { total, expiry });
    }

    /// Hands over vouchers up to period `n`, the last ones void until their time.
    pub fn pay(&mut self, due: u32, ahead: u32) {
        let made = |n: u32| Voucher {
            lease: LeaseId([2; 32]),
            cumulative: Amount(self.owed(n)),
            not_before: RailTime(if n <= due {
                0
            } else {
                self.rail_ms + u64::from(n - due) * PERIOD_MS
            }),
            signature: vec![1; 64],
        };
        let last = (due + ahead).min(PERIODS);
        let vouchers: Vec<Voucher> = (1.max(due)..=last).map(made).collect();
        if self.on && !vouchers.is_empty() {
            self.signed = last;
            self.happen(Event::Vouchers(vouchers));
        }
    }

    /// Periods that began in service, as the world measured it.
    pub fn begun(&self) -> u32 {
        if self.ever_ready {
            u32::try_from((self.served_ms / PERIOD_MS + 1).min(u64::from(PERIODS))).unwrap()
        } else {
            0
        }
    }
}
