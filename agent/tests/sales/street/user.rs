//! The user of the street: a wallet, an endpoint, and everything that he says to a node.

use super::*;

/// A user with a wallet, on the grid with an endpoint of its own.
pub struct User {
    pub key: SigningKey,
    account: u8,
    pub grid: Grid,
    grid_id: GridId,
    rail: LedgerRail,
}

/// A sale as the user sees it.
pub struct Bought {
    pub body: SaleBody,
    pub id: SaleId,
    pub agree: Signed<Agree>,
    pub node: EndpointAddress,
    pub terms: Terms,
}

impl User {
    pub async fn new(street: &Street, seed: u8) -> User {
        let nobody = Arc::new(|_: &[u8], _: grid::PeerId| grid::Verdict::Accept);
        let config = JoinConfig::new(street.ticket(), grid::fresh_secret().unwrap());
        let grid = Grid::join(config, nobody).await.unwrap();
        grid.joined(SOON).await.unwrap();
        User {
            key: key(seed),
            account: seed,
            grid,
            grid_id: street.grid(),
            rail: street.rail(),
        }
    }

    pub fn wallet(&self) -> LedgerWallet {
        LedgerWallet::new(self.rail.clone(), key(self.account)).with_voucher_key(key(60))
    }

    pub fn sign<M: Message>(&self, message: M) -> Signed<M> {
        sign(&self.key, self.grid_id, message).unwrap()
    }

    pub fn open<M: Message>(&self, bytes: &[u8]) -> Signed<M> {
        match open::<M>(bytes, Some(self.grid_id)) {
            Ok(message) => message,
            Err(error) => match open::<Refusal>(bytes, Some(self.grid_id)) {
                Ok(refusal) => panic!("refused: {:?}", refusal.message),
                Err(_) => panic!("{error}"),
            },
        }
    }

    pub async fn request(&self, nonce: u16, memory: u64) -> Signed<CapacityRequest> {
        let now = self.rail.now().await.unwrap();
        let rails = vec![RailAsset {
            rail: self.rail.name(),
            asset: ASSET.parse().unwrap(),
        }];
        let (cpu, memory, disk) = (MilliCpus(500), quantity::Bytes(memory), quantity::Bytes(2 << 30));
        self.sign(CapacityRequest {
            needs: Needs {
                cpu,
                memory,
                disk,
                rate: None,
            },
            duration: Seconds(3 * 3600),
            period: Seconds(3600),
            max_price_per_hour: None,
            rails,
            filters: Filters::default(),
            expires: UnixMillis(now.0 + 60_000),
            nonce: twice(nonce),
            answer_to: self.grid.address().to_bytes(),
            only_looks: false,
        })
    }

    /// The usual request by one who only looks.
    pub async fn look(&self, nonce: u16) -> Signed<CapacityRequest> {
        self.sign(CapacityRequest {
            only_looks: true,
            ..self.request(nonce, 512 << 20).await.message
        })
    }

    /// Broadcasts and takes the first answer that comes to it.
    pub async fn ask(&self, request: &Signed<CapacityRequest>) -> Vec<u8> {
        self.grid.broadcast(request.bytes.clone().into()).await.unwrap();
        let (_, mut stream) = tokio::time::timeout(SOON, self.grid.accept())
            .await
            .unwrap()
            .unwrap();
        stream.receive().await.unwrap().to_vec()
    }

    /// Asks, agrees, and has the sale.
    pub async fn buy(&self, nonce: u16) -> Bought {
        let bought = self.offered(nonce).await;
        self.agree(&bought).await;
        bought
    }

    pub async fn agree(&self, bought: &Bought) {
        let mut stream = self.dial(&bought.node).await;
        let sale = self.open::<Sale>(&say(&mut stream, &bought.agree.bytes).await);
        assert_eq!(sale.message.id(), bought.id);
    }

    /// Asks, and signs the best offer; the node has not heard of it yet.
    pub async fn offered(&self, nonce: u16) -> Bought {
        let request = self.request(nonce, 512 << 20).await;
        let offer = self.open::<Offer>(&self.ask(&request).await);
        self.accept(&request, &offer)
    }

    /// The same for a space with so much memory.
    pub async fn offered_of(&self, nonce: u16, memory: u64) -> Bought {
        let request = self.request(nonce, memory).await;
        let offer = self.open::<Offer>(&self.ask(&request).await);
        self.accept(&request, &offer)
    }

    /// The same from one node that is known, over a direct stream.
    pub async fn offered_by(&self, node: &EndpointAddress, nonce: u16) -> Bought {
        let request = self.request(nonce, 512 << 20).await;
        let mut stream = self.dial(node).await;
        let offer = self.open::<Offer>(&say(&mut stream, &request.bytes).await);
        self.accept(&request, &offer)
    }

    fn accept(&self, request: &Signed<CapacityRequest>, offer: &Signed<Offer>) -> Bought {
        let node = EndpointAddress::from_bytes(&offer.message.address).unwrap();
        let voucher_key = RailKey::ed25519(&public(&key(60)));
        let payer = self.wallet().account();
        let nonce = twice(u16::from_be_bytes([
            request.message.nonce[0],
            request.message.nonce[1],
        ]));
        let body = SaleBody::accepting(request, offer, payer, voucher_key, nonce).unwrap();
        let agree = self.sign(Agree::new(body.clone()));
        Bought {
            id: body.id(),
            terms: body.terms(),
            body,
            agree,
            node,
        }
    }

    pub async fn dial(&self, node: &EndpointAddress) -> DirectStream {
        self.grid.dial(node, SOON).await.unwrap()
    }

    pub async fn delegate(&self, sale: SaleId) -> Signed<Delegate> {
        let now = self.rail.now().await.unwrap();
        let endpoint = EndpointId(*self.grid.id().as_bytes());
        self.sign(Delegate {
            sale,
            endpoint,
            expires: UnixMillis(now.0 + 3_600_000),
        })
    }

    /// Asks for this user's sales, until so long from now.
    pub async fn recall(&self, after: Option<SaleId>, ahead_ms: i64) -> Signed<Recall> {
        let now = self.rail.now().await.unwrap();
        self.sign(Recall {
            endpoint: EndpointId(*self.grid.id().as_bytes()),
            expires: UnixMillis(now.0.saturating_add_signed(ahead_ms)),
            after,
        })
    }

    /// A stream that speaks for the sale.
    pub async fn speak(&self, bought: &Bought) -> DirectStream {
        let mut stream = self.dial(&bought.node).await;
        stream.send(&self.delegate(bought.id).await.bytes).await.unwrap();
        stream
    }

    /// Buys and sends the key: a space that is ready, and the stream on which to speak of it.
    pub async fn ready(&self, nonce: u16) -> (Bought, DirectStream) {
        let bought = self.buy(nonce).await;
        self.lock(&bought).await;
        let mut stream = self.speak(&bought).await;
        let grant = self.grant(&mut stream, bought.id).await;
        self.open::<Status>(&self.seal(&mut stream, &grant).await);
        self.wait_for(&mut stream, bought.id, SaleState::Ready).await;
        (bought, stream)
    }

    pub async fn lock(&self, bought: &Bought) {
        let expiry = self.rail.now().await.unwrap().plus_ms(4 * 3_600_000);
        let view = self
            .wallet()
            .lock(&bought.terms, bought.body.total(), expiry)
            .await
            .unwrap();
        assert_eq!(view.state, LockState::Locked);
    }

    pub async fn grant(&self, stream: &mut DirectStream, sale: SaleId) -> KeyGrant {
        let funded = self.sign(Funded { sale });
        self.open::<KeyGrant>(&say(stream, &funded.bytes).await).message
    }

    pub async fn seal(&self, stream: &mut DirectStream, grant: &KeyGrant) -> Vec<u8> {
        let sealed = seal::seal(&grant.seal_key, grant.sale, grant.epoch, &[9; 64], [8; 32]).unwrap();
        let authorized_keys = vec![openssh_ed25519(&[1; 32])];
        let (encapsulated, ciphertext) = sealed;
        let message = SealedKey {
            sale: grant.sale,
            epoch: grant.epoch,
            encapsulated,
            ciphertext,
            authorized_keys,
        };
        say(stream, &self.sign(message).bytes).await
    }

    /// Asks until the sale stands so; at a pace, for a node ends a stream after some thousand frames.
    pub async fn wait_for(&self, stream: &mut DirectStream, sale: SaleId, state: SaleState) -> Status {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let asked = async {
            loop {
                pace.tick().await;
                let query = self.sign(StatusQuery { sale, nonce: [3; 16] });
                let status = self.open::<Status>(&say(stream, &query.bytes).await).message;
                assert_eq!(status.nonce, [3; 16]);
                if status.state == state {
                    return status;
                }
            }
        };
        tokio::time::timeout(SOON, asked)
            .await
            .unwrap_or_else(|_| panic!("never {state}"))
    }

    pub async fn pay(&self, stream: &mut DirectStream, bought: &Bought, periods: u32) -> Status {
        let sum = bought.body.owed_after(periods);
        self.open::<Status>(&self.pay_sum(stream, bought, sum).await)
            .message
    }

    /// The node's answer to a voucher over this sum.
    pub async fn pay_sum(&self, stream: &mut DirectStream, bought: &Bought, sum: Amount) -> Vec<u8> {
        let voucher = self.wallet().voucher(&bought.terms, sum, RailTime(0)).unwrap();
        let message = self.sign(VoucherMessage {
            sale: bought.id,
            vouchers: vec![voucher.to_bytes()],
        });
        say(stream, &message.bytes).await
    }

    /// What another size would cost.
    pub async fn quote(&self, stream: &mut DirectStream, resize: Resize) -> Quote {
        let resize = self.sign(resize);
        self.open::<Quote>(&say(stream, &resize.bytes).await).message
    }

    pub async fn cancel(&self, stream: &mut DirectStream, sale: SaleId) -> Receipt {
        let cancel = self.sign(Cancel { sale, why: None });
        self.open::<Receipt>(&say(stream, &cancel.bytes).await).message
    }

    pub async fn lock_state(&self, bought: &Bought) -> LockState {
        self.rail.view(&bought.terms, Sure::Seen).await.unwrap().state
    }
}

/// Waits for what comes by itself, looking whenever other tasks had their turn.
pub async fn eventually(is_so: impl Fn() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, looks)
        .await
        .expect("it comes by itself");
}

/// One frame there, one back.
pub async fn say(stream: &mut DirectStream, frame: &[u8]) -> Vec<u8> {
    stream.send(frame).await.unwrap();
    stream.receive_within(SOON).await.unwrap().to_vec()
}
