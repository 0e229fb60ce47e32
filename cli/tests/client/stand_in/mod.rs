//! A node that speaks the whole protocol and has no machine behind it: what a client meets when a
//! node lies, changes its mind, or falls silent. Grid, ledger and signatures are real.

mod changing;
mod remembering;
mod snapshots;
pub mod ssh;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use escrow::{Account, Amount, Rail, RailKey, Sure, Voucher};
use grid::{DirectStream, EndpointAddress, Grid, GridTicket, IncomingTunnel, JoinConfig, PeerId, Verdict};
use ledger::{LedgerRail, RailAddress};
use market::envelope::{self, Signed, peek_kind, sign};
use market::id::{Digest, GridId, NodeId};
use market::message::{
    Agree, Candidate, CapacityRequest, Delegate, Facts, Gives, KeyGrant, Kind, Message, Offer, Receipt,
    Refusal, RefusalCode, Sale, SaleState, SealedKey, Status, StatusQuery, TunnelAnswer, TunnelOpening,
    VoucherMessage,
};
use market::quantity::{BitsPerSecond, Bytes, Seconds, UnixMillis};
use market::seal::SealSecret;
use tokio::io::AsyncWriteExt;

/// What the space's base is said to be.
pub const BASE: Digest = Digest([0xba; 32]);
/// The price of the first offer's period.
pub const PRICE: u128 = 400_000;

/// How the node behaves; a test turns the knobs while it runs.
pub struct Knobs {
    /// The state that it says; it moves on by itself as real nodes do.
    pub state: Mutex<SaleState>,
    /// Added to the price of each further offer.
    pub dearer: AtomicU32,
    /// The next Agree is refused as lapsed.
    pub lapsed: AtomicBool,
    /// No Agree is answered.
    pub mute: AtomicBool,
    /// The last byte of the host key.
    pub host_key: AtomicU32,
    /// Its disk is one of before its grants: it counts them from the beginning.
    pub older_disk: AtomicBool,
    /// What stands behind the tunnel: nothing here, and it says again whatever is said; nothing there, and it ends at
    /// once; or an SSH server. The grant names the host key of `granted` where there is one.
    pub inside: Mutex<Option<Option<ssh::Inside>>>,
    pub granted: Mutex<Option<[u8; 32]>>,
    /// Agree, sealed keys and vouchers that came.
    pub agreed: AtomicU32,
    pub keys: AtomicU32,
    pub vouchers: AtomicU32,
    /// The next change is signed, and its answer is lost.
    pub lost: AtomicBool,
    /// The next vouchers are refused as too many messages.
    pub busy: AtomicBool,
    /// Requests that asked for a hold, and that only looked.
    pub holds: AtomicU32,
    pub looks: AtomicU32,
    pub changes: Mutex<Vec<Vec<u8>>>,
    /// It gives back what both signed.
    pub remembers: AtomicBool,
    /// Its receipt says that nothing was paid.
    pub hides_payment: AtomicBool,
    /// What the vouchers said that it took.
    pub sums: Mutex<Vec<u128>>,
    /// The restores that came; and whether it stays at one.
    pub restores: Mutex<Vec<[u8; 16]>>,
    pub stays_at_it: AtomicBool,
    offers: AtomicU32,
}

pub struct Node {
    pub knobs: Arc<Knobs>,
    pub grid: Grid,
}

struct Inner {
    key: SigningKey,
    give_back: SigningKey,
    grid: Grid,
    grid_id: GridId,
    rail: LedgerRail,
    payee: Account,
    knobs: Arc<Knobs>,
    request: Mutex<Vec<u8>>,
    offer: Mutex<Option<Signed<Offer>>>,
    sale: Mutex<Option<Signed<Sale>>>,
    resized: Mutex<Option<Gives>>,
    /// When the snapshot was taken.
    snapshot: Mutex<Option<UnixMillis>>,
    seal: Mutex<Option<(u64, SealSecret)>>,
}

impl Node {
    /// Joins and answers until it is dropped.
    pub async fn start(ticket: &str, ledger: &str, payee: &str) -> Node {
        let ticket: GridTicket = ticket.parse().unwrap();
        let key = SigningKey::from_bytes(&grid::fresh_secret().unwrap());
        let config = JoinConfig::new(ticket.clone(), key.to_bytes());
        let check = |_: &[u8], _: PeerId| Verdict::Accept;
        let grid = Grid::join(config, Arc::new(check)).await.unwrap();
        grid.joined(Duration::from_secs(30)).await.unwrap();
        let knobs = Arc::new(Knobs {
            state: Mutex::new(SaleState::Offered),
            dearer: AtomicU32::new(0),
            lapsed: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            host_key: AtomicU32::new(1),
            older_disk: AtomicBool::new(false),
            inside: Mutex::new(None),
            granted: Mutex::new(None),
            agreed: AtomicU32::new(0),
            keys: AtomicU32::new(0),
            vouchers: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            holds: AtomicU32::new(0),
            looks: AtomicU32::new(0),
            changes: Mutex::default(),
            remembers: AtomicBool::new(false),
            hides_payment: AtomicBool::new(false),
            sums: Mutex::default(),
            restores: Mutex::default(),
            stays_at_it: AtomicBool::new(false),
            offers: AtomicU32::new(0),
        });
        let inner = Arc::new(Inner {
            key,
            give_back: SigningKey::from_bytes(&[77; 32]),
            grid: grid.clone(),
            grid_id: GridId(ticket.grid_id()),
            rail: LedgerRail::new(ledger.parse::<RailAddress>().unwrap()).unwrap(),
            payee: payee.parse().unwrap(),
            knobs: knobs.clone(),
            request: Mutex::default(),
            offer: Mutex::new(None),
            sale: Mutex::new(None),
            resized: Mutex::new(None),
            snapshot: Mutex::new(None),
            seal: Mutex::new(None),
        });
        let hearing = inner.clone();
        let mut broadcasts = grid.broadcasts();
        tokio::spawn(async move {
            while let Some(heard) = broadcasts.next().await {
                hearing.clone().offer(&heard.bytes).await;
            }
        });
        let tunnels = inner.clone();
        tokio::spawn(async move {
            while let Some(tunnel) = tunnels.grid.accept_tunnel().await {
                tokio::spawn(tunnels.clone().echo(tunnel));
            }
        });
        tokio::spawn(async move {
            while let Some((_, stream)) = inner.grid.accept().await {
                tokio::spawn(inner.clone().serve(stream));
            }
        });
        Node { knobs, grid }
    }
}

impl Inner {
    async fn offer(self: Arc<Inner>, bytes: &[u8]) {
        let Ok(request) = envelope::open::<CapacityRequest>(bytes, Some(self.grid_id)) else {
            return;
        };
        let asked = &request.message;
        let counted = if asked.only_looks {
            &self.knobs.looks
        } else {
            &self.knobs.holds
        };
        counted.fetch_add(1, Ordering::SeqCst);
        let earlier = self.knobs.offers.fetch_add(1, Ordering::SeqCst);
        let dearer = self.knobs.dearer.load(Ordering::SeqCst) * earlier;
        let now = self.rail.now().await.unwrap();
        let offer = Offer {
            request: request.request_hash(),
            gives: Gives {
                cpu: asked.needs.cpu,
                memory: asked.needs.memory,
                disk: asked.needs.disk,
                rate: BitsPerSecond(10_000_000),
                pids: 512,
                snapshot: Bytes::ZERO,
            },
            price: Amount(PRICE + u128::from(dearer)),
            period: asked.period,
            accept_window: Seconds(1800),
            notice: Seconds(86_400),
            rail: self.rail.name(),
            asset: ledger::ASSET.parse().unwrap(),
            payee: self.payee.clone(),
            give_back_key: RailKey::ed25519(self.give_back.verifying_key().as_bytes()),
            base: BASE,
            facts: Facts {
                country: Some("BE".to_owned()),
                ..Facts::default()
            },
            valid_until: UnixMillis::from(now).plus_ms(30_000),
            held: !asked.only_looks,
            address: self.grid.address().to_bytes(),
        };
        let offer = sign(&self.key, self.grid_id, offer).unwrap();
        *self.offer.lock().unwrap() = Some(offer.clone());
        *self.request.lock().unwrap() = bytes.to_vec();
        let to = EndpointAddress::from_bytes(&asked.answer_to).unwrap();
        let mut stream = self.grid.dial(&to, Duration::from_secs(10)).await.unwrap();
        stream.send(&offer.bytes).await.unwrap();
        stream.finish().await;
    }

    /// Whoever shows a delegation for the sale and this very endpoint gets its bytes back.
    async fn echo(self: Arc<Inner>, tunnel: IncomingTunnel) {
        let opening = TunnelOpening::from_bytes(tunnel.opening()).unwrap();
        let delegate = envelope::open::<Delegate>(&opening.delegate, Some(self.grid_id)).unwrap();
        assert_eq!(delegate.message.sale, self.sale().id());
        assert_eq!(delegate.message.endpoint.0, tunnel.peer().0);
        assert_eq!(delegate.signer, self.sale().body().user.0);
        assert_eq!(opening.port, 22);
        let inside = self.knobs.inside.lock().unwrap().clone();
        if let Some(inside) = inside {
            let stream = tunnel.accept(&TunnelAnswer::Open.to_bytes()).await.unwrap();
            if let Some(inside) = inside {
                let _ = ssh::serve(stream, inside).await; // a client that trusts nobody hangs up
            }
            return;
        }
        if *self.knobs.state.lock().unwrap() != SaleState::Active {
            let words = "the space is locked".to_owned();
            let answer = TunnelAnswer::Refused {
                code: RefusalCode::State,
                words,
            };
            let _ = tunnel.refuse(&answer.to_bytes()).await;
            return;
        }
        let stream = tunnel.accept(&TunnelAnswer::Open.to_bytes()).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }

    async fn serve(self: Arc<Inner>, mut stream: DirectStream) {
        while let Ok(frame) = stream.receive().await {
            if let Some(answer) = self.answer(&frame).await
                && stream.send(&answer).await.is_err()
            {
                return;
            }
        }
    }

    async fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        match peek_kind(frame).unwrap() {
            Kind::Delegate => None,
            Kind::Agree if self.knobs.mute.load(Ordering::SeqCst) => None,
            Kind::Agree => Some(self.agree(frame)),
            Kind::Funded if *self.knobs.state.lock().unwrap() == SaleState::Active => {
                Some(self.refuse(frame, RefusalCode::State, "no key is needed"))
            }
            Kind::Funded => Some(self.grant().await),
            Kind::SealedKey => Some(self.take_key(frame)),
            Kind::StatusQuery => {
                let query = envelope::open::<StatusQuery>(frame, Some(self.grid_id)).unwrap();
                Some(self.status(query.message.nonce))
            }
            Kind::Voucher => Some(self.redeem(frame).await),
            Kind::Amend => self.amend(frame).await,
            Kind::Resize => Some(self.quote(frame).await),
            Kind::Restore => Some(self.restore(frame)),
            Kind::Cancel => Some(self.end().await),
            Kind::Recall if self.knobs.remembers.load(Ordering::SeqCst) => Some(self.recall(frame)),
            Kind::Recall => Some(self.refuse(frame, RefusalCode::NotExpected, "it remembers nothing")),
            other => panic!("a {} came", other.name()),
        }
    }

    fn sign<M: Message>(&self, message: M) -> Vec<u8> {
        sign(&self.key, self.grid_id, message).unwrap().bytes
    }

    fn refuse(&self, frame: &[u8], code: RefusalCode, words: &str) -> Vec<u8> {
        self.sign(Refusal {
            about: Digest::of(frame),
            code,
            words: words.to_owned(),
        })
    }

    fn agree(&self, frame: &[u8]) -> Vec<u8> {
        self.knobs.agreed.fetch_add(1, Ordering::SeqCst);
        if self.knobs.lapsed.swap(false, Ordering::SeqCst) {
            return self.refuse(frame, RefusalCode::OfferGone, "the hold lapsed");
        }
        let agree = envelope::open::<Agree>(frame, Some(self.grid_id)).unwrap();
        let offer = self.offer.lock().unwrap().clone().unwrap();
        assert_eq!(
            agree.message.body.offer,
            offer.offer_hash(),
            "the newest offer is taken"
        );
        let sale = sign(&self.key, self.grid_id, Sale { agree }).unwrap();
        *self.sale.lock().unwrap() = Some(sale.clone());
        *self.knobs.state.lock().unwrap() = SaleState::Agreed;
        sale.bytes
    }

    fn sale(&self) -> Sale {
        self.sale.lock().unwrap().clone().unwrap().message
    }

    async fn grant(&self) -> Vec<u8> {
        let sale = self.sale();
        let view = self.rail.view(&sale.body().terms(), Sure::Final).await.unwrap();
        let total = self.prices().owed(u64::from(sale.body().periods)).unwrap();
        assert_eq!(view.funded, total, "all periods are locked before Funded is said");
        let secret = SealSecret::from_randomness([9; 32]);
        if self.knobs.older_disk.swap(false, Ordering::SeqCst) {
            *self.seal.lock().unwrap() = None;
        }
        let epoch = self
            .seal
            .lock()
            .unwrap()
            .as_ref()
            .map_or(1, |(epoch, _)| epoch + 1);
        let mut host_key = [5; 32];
        host_key[31] = u8::try_from(self.knobs.host_key.load(Ordering::SeqCst)).unwrap();
        let host_key = self.knobs.granted.lock().unwrap().unwrap_or(host_key);
        let grant = KeyGrant {
            sale: sale.id(),
            epoch,
            boot: [1; 16],
            image_version: "0.1.0".to_owned(),
            seal_key: secret.public(),
            host_key,
        };
        *self.seal.lock().unwrap() = Some((epoch, secret));
        self.sign(grant)
    }

    fn take_key(&self, frame: &[u8]) -> Vec<u8> {
        let sealed = envelope::open::<SealedKey>(frame, Some(self.grid_id))
            .unwrap()
            .message;
        let guard = self.seal.lock().unwrap();
        let (epoch, secret) = guard.as_ref().unwrap();
        let sale = self.sale().id();
        let key = secret
            .open(sale, *epoch, &sealed.encapsulated, &sealed.ciphertext)
            .unwrap();
        assert_ne!(*key, [0; 64]);
        assert!(sealed.authorized_keys[0].starts_with("ssh-ed25519 "));
        drop(guard);
        self.knobs.keys.fetch_add(1, Ordering::SeqCst);
        *self.knobs.state.lock().unwrap() = SaleState::Ready;
        self.status([0; 16])
    }

    fn status(&self, nonce: [u8; 16]) -> Vec<u8> {
        let state = *self.knobs.state.lock().unwrap();
        let active = state == SaleState::Active;
        self.sign(Status {
            sale: self.sale().id(),
            nonce,
            state,
            since: UnixMillis(1),
            why: None,
            candidates: vec![Candidate::Grid],
            address: self.grid.address().to_bytes(),
            boot: [1; 16],
            epoch: 1,
            periods_paid: u32::from(active),
            paid: Amount(0),
            paid_until: active.then_some(UnixMillis(4_000_000_000_000)),
            receipt: None,
            snapshot: *self.snapshot.lock().unwrap(),
        })
    }

    async fn redeem(&self, frame: &[u8]) -> Vec<u8> {
        if self.knobs.busy.swap(false, Ordering::SeqCst) {
            return self.refuse(frame, RefusalCode::Busy, "later");
        }
        let message = envelope::open::<VoucherMessage>(frame, Some(self.grid_id))
            .unwrap()
            .message;
        let terms = self.sale().body().terms();
        for bytes in &message.vouchers {
            let voucher = Voucher::from_bytes(bytes).unwrap();
            self.rail.check(&terms, &voucher).unwrap();
            if !self.prices().is_whole(voucher.cumulative, 10_000) {
                return self.refuse(frame, RefusalCode::Voucher, "part of a period");
            }
            self.knobs.sums.lock().unwrap().push(voucher.cumulative.0);
            // Those signed ahead are void until their time; the first one pays.
            let _ = self.rail.redeem(&terms, &voucher).await;
            self.knobs.vouchers.fetch_add(1, Ordering::SeqCst);
        }
        *self.knobs.state.lock().unwrap() = SaleState::Active;
        self.status([0; 16])
    }

    async fn end(&self) -> Vec<u8> {
        let sale = self.sale();
        let terms = sale.body().terms();
        let view = self.rail.view(&terms, Sure::Final).await.unwrap();
        let signature = self.give_back.sign(&self.rail.give_back_bytes(&terms, view.paid));
        let view = self
            .rail
            .give_back(&terms, view.paid, &signature.to_bytes())
            .await
            .unwrap();
        *self.knobs.state.lock().unwrap() = SaleState::Ended;
        let hides = self.knobs.hides_payment.load(Ordering::SeqCst);
        assert_eq!(NodeId(self.key.verifying_key().to_bytes()), sale.body().node);
        self.sign(Receipt {
            sale: sale.id(),
            state: SaleState::Ended,
            why: "cancelled".to_owned(),
            ready_at: Some(UnixMillis(1)),
            ended_at: UnixMillis(2),
            key_slot_destroyed: true,
            volume_destroyed: true,
            periods_served: 1,
            paid: if hides { Amount(0) } else { view.paid },
            returned: view.funded.saturating_sub(view.paid),
        })
    }
}
