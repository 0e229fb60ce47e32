//! Members that run another program: the plain engine, which believes what it is told.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use grid::{BROADCAST_ALPN, PeerId, serve::Serve};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMap, RelayUrl, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{RelayMode, presets},
    protocol::Router,
};
use iroh_gossip::{Gossip, TopicId, api::GossipSender};
use iroh_relay::server::{Access, AccessControl, ClientRequest, RelayConfig, Server, ServerConfig};
use sha2::{Digest, Sha256};

use crate::{fresh_secret, joined, serve, within};

/// A member of the grid without any of our rules.
pub(crate) struct Stranger {
    pub(crate) id: EndpointId,
    _router: Router,
    _sender: GossipSender,
}

impl Stranger {
    /// Comes with its home at this relay, and asks the bootstrap peer to be let in.
    pub(crate) async fn come(serve: &Serve, secret: [u8; 32], home: RelayUrl) -> Stranger {
        let peer: EndpointId = EndpointId::from_bytes(serve.ticket().bootstrap().as_bytes()).unwrap();
        // Through the grid's relay, where it can be met from then on.
        let relay = format!("http://127.0.0.1:{}", serve.ticket().relay_port());
        let lookup = MemoryLookup::new();
        lookup.add_endpoint_info(EndpointAddr::new(peer).with_relay_url(relay.parse().unwrap()));
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&secret))
            .relay_mode(RelayMode::Custom(RelayMap::from(home)))
            .address_lookup(lookup)
            .bind()
            .await
            .unwrap();
        // From now on its address names that relay, and so does what it says of itself.
        within("the relay takes it", endpoint.online()).await;
        let gossip = Gossip::builder().alpn(BROADCAST_ALPN).spawn(endpoint.clone());
        let router = Router::builder(endpoint.clone())
            .accept(BROADCAST_ALPN, gossip.clone())
            .spawn();
        let mut hash = Sha256::new();
        hash.update(b"steading/broadcast/1\0");
        hash.update(serve.ticket().grid_id());
        let topic: [u8; 32] = hash.finalize().into();
        let topic = gossip
            .subscribe(TopicId::from_bytes(topic), vec![peer])
            .await
            .unwrap();
        let (sender, mut events) = topic.split();
        tokio::spawn(async move {
            // The engine stays as long as its events are read.
            let _gossip = gossip;
            while let Some(Ok(_)) = events.next().await {}
        });
        Stranger {
            id: endpoint.id(),
            _router: router,
            _sender: sender,
        }
    }
}

/// Who came to a relay.
#[derive(Debug, Clone, Default)]
struct Guests(Arc<Mutex<BTreeSet<EndpointId>>>);

impl AccessControl for Guests {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        self.0.lock().unwrap().insert(request.endpoint_id());
        Access::Allow
    }
}

impl Guests {
    fn have(&self, id: EndpointId) -> bool {
        self.0.lock().unwrap().contains(&id)
    }
}

async fn relay() -> (Server, RelayUrl, Guests) {
    let guests = Guests::default();
    let mut relay = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
    relay.access = Arc::new(guests.clone());
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    let server = Server::spawn(config).await.unwrap();
    let url = format!("http://{}", server.http_addr().unwrap()).parse().unwrap();
    (server, url, guests)
}

/// A stranger says that he is at a relay of his own. The only member beside the first peer is told, and links him: a
/// plain engine goes to his relay for it, which is the control. Ours meets him too, and goes nowhere but to the grid's.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_strangers_relay() {
    let (_foreign, foreign, guests) = relay().await;
    let (_other, other, _) = relay().await;
    let theirs = serve().await;
    let plain = Stranger::come(&theirs, fresh_secret().unwrap(), other).await;
    within("the plain one is in", linked(&theirs, plain.id)).await;
    let _stranger = Stranger::come(&theirs, fresh_secret().unwrap(), foreign.clone()).await;
    within("the plain one goes where it is sent", async {
        while !guests.have(plain.id) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let serve = serve().await;
    let ours = joined(&serve).await;
    let stranger = Stranger::come(&serve, fresh_secret().unwrap(), foreign).await;
    within("ours has met the stranger", async {
        while !ours.neighbours().contains(&PeerId::from(stranger.id)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("the first peer has met him", linked(&serve, stranger.id)).await;
    assert!(guests.have(stranger.id), "he was there himself");
    for (who, id) in [("a member", ours.id()), ("the first peer", serve.grid().id())] {
        let id = EndpointId::from_bytes(id.as_bytes()).unwrap();
        assert!(!guests.have(id), "{who} went to a stranger's relay");
    }
}

/// Until the first peer is linked to this one.
async fn linked(serve: &Serve, id: EndpointId) {
    while !serve.grid().neighbours().contains(&PeerId::from(id)) {
        tokio::task::yield_now().await;
    }
}
