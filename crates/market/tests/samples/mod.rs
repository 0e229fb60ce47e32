//! One message of every kind, always the same, signed by keys that everybody may know.

use ed25519_dalek::SigningKey;
use escrow::{Account, Amount, LeaseId, RailKey, RailName, RailTime, Voucher};
use market::envelope::{Signed, sign};
use market::id::{Digest, EndpointId, GridId, NodeId};
use market::message::*;
use market::prices::{Earlier, Prices};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds, UnixMillis};
use market::seal;

/// The seeds of the test keys, as golden/keys.txt names them.
pub const SEEDS: [(&str, u8); 7] = [
    ("grid", 1),
    ("ledger", 2),
    ("user", 3),
    ("node", 4),
    ("owner", 5),
    ("voucher", 6),
    ("give-back", 7),
];

pub fn key(name: &str) -> SigningKey {
    let seed = SEEDS.iter().find(|(known, _)| *known == name).unwrap().1;
    SigningKey::from_bytes(&[seed; 32])
}

pub fn public(name: &str) -> [u8; 32] {
    key(name).verifying_key().to_bytes()
}

pub fn grid() -> GridId {
    GridId(public("grid"))
}

fn rail() -> RailName {
    RailName::ledger(&public("ledger"))
}

fn gives() -> Gives {
    Gives {
        cpu: MilliCpus(500),
        memory: Bytes(512 << 20),
        disk: Bytes(2 << 30),
        rate: BitsPerSecond(100_000_000),
        pids: 1024,
        snapshot: Bytes::ZERO,
    }
}

pub fn request() -> Signed<CapacityRequest> {
    let filters = Filters {
        country: Some("BE".into()),
        farmer: Some(Account::on_ledger(&public("ledger"), &[8; 32])),
        node: Some(NodeId(public("node"))),
        features: vec!["ssd".into(), "ipv6".into()],
    };
    let request = CapacityRequest {
        needs: Needs {
            cpu: MilliCpus(500),
            memory: Bytes(512 << 20),
            disk: Bytes(2 << 30),
            rate: Some(BitsPerSecond(10_000_000)),
        },
        duration: Seconds(10_800),
        period: Seconds(3600),
        max_price_per_hour: Some(Amount(500_000)),
        rails: vec![RailAsset {
            rail: rail(),
            asset: "play".parse().unwrap(),
        }],
        filters,
        expires: UnixMillis(1_764_100_000_000),
        nonce: [0x11; 16],
        answer_to: b"an endpoint's address, opaque here".to_vec(),
        only_looks: false,
    };
    sign(&key("user"), grid(), request).unwrap()
}

/// The same by one who only looks.
#[allow(dead_code)] // not every test that has samples looks
pub fn look() -> Signed<CapacityRequest> {
    let request = CapacityRequest {
        only_looks: true,
        ..request().message
    };
    sign(&key("user"), grid(), request).unwrap()
}

pub fn offer() -> Signed<Offer> {
    let facts = Facts {
        country: Some("BE".into()),
        name: Some("attic".into()),
        features: vec!["ssd".into(), "ipv6".into()],
        cpu_model: Some("QEMU TCG CPU version 2.5+".into()),
        cores: Some(2),
        memory: Some(Bytes(2 << 30)),
        disk_kind: Some("ssd".into()),
        link: Some(BitsPerSecond(1_000_000_000)),
        image_version: Some("0.1.0".into()),
        kernel: Some("6.12.90".into()),
        firmware: Some("uefi, secure boot".into()),
        tpm: Some(false),
        notes: vec!["vdb not touched: ext4 \"backup\"".into()],
    };
    let offer = Offer {
        request: request().request_hash(),
        gives: gives(),
        price: Amount(400_000),
        period: Seconds(3600),
        accept_window: Seconds(1800),
        notice: Seconds(86_400),
        rail: rail(),
        asset: "play".parse().unwrap(),
        payee: Account::on_ledger(&public("ledger"), &[8; 32]),
        give_back_key: RailKey::ed25519(&public("give-back")),
        base: Digest([0xba; 32]),
        facts,
        valid_until: UnixMillis(1_764_100_000_000),
        held: true,
        address: b"the node's address, opaque here".to_vec(),
    };
    sign(&key("node"), grid(), offer).unwrap()
}

pub fn agree() -> Signed<Agree> {
    let payer = Account::on_ledger(&public("ledger"), &[9; 32]);
    let voucher_key = RailKey::ed25519(&public("voucher"));
    let body = SaleBody::accepting(&request(), &offer(), payer, voucher_key, [0x22; 32]).unwrap();
    sign(&key("user"), grid(), Agree::new(body)).unwrap()
}

fn voucher() -> Voucher {
    let (lease, signature) = (LeaseId([0x1e; 32]), vec![0x55; 64]);
    Voucher {
        lease,
        cumulative: Amount(400_000),
        not_before: RailTime(1_764_000_000_000),
        signature,
    }
}

/// A change of size, after an earlier one.
pub fn resized() -> Signed<Amend> {
    let earlier = [(2, 400_000), (3, 800_000)].map(|(until, price)| Earlier {
        until,
        price: Amount(price),
    });
    let amend = Amend {
        sale: agree().message.sale,
        number: 2,
        periods: 5,
        gives: Some(gives()),
        prices: Prices {
            price: Amount(600_000),
            earlier: earlier.to_vec(),
        },
        voucher: Some(vec![0x76; 121]),
    };
    sign(&key("user"), grid(), amend).unwrap()
}

/// Every kind by its name: the bytes.
pub fn all() -> Vec<(Kind, Vec<u8>)> {
    let (agree, sale) = (agree(), agree().message.sale);
    let by_user = key("user");
    let by_node = key("node");
    fn bytes<M: Message>(key: &SigningKey, message: M) -> (Kind, Vec<u8>) {
        (M::KIND, sign(key, grid(), message).unwrap().bytes)
    }
    let (encapsulated, ciphertext) = {
        let secret = seal::SealSecret::from_randomness([0x5e; 32]);
        seal::seal(&secret.public(), sale, 1, &[0x99; 64], [0x77; 32]).unwrap()
    };
    let amend = Amend {
        sale,
        number: 1,
        periods: 5,
        gives: Some(gives()),
        prices: Prices::of(Amount(400_000)),
        voucher: None,
    };
    let amend = sign(&by_user, grid(), amend).unwrap();
    let receipt = Receipt {
        sale,
        state: SaleState::Ended,
        why: "the user cancelled".into(),
        ready_at: Some(UnixMillis(1_764_000_000_000)),
        ended_at: UnixMillis(1_764_000_360_000),
        key_slot_destroyed: true,
        volume_destroyed: true,
        periods_served: 1,
        paid: Amount(400_000),
        returned: Amount(800_000),
    };
    let receipt_bytes = sign(&by_node, grid(), receipt.clone()).unwrap().bytes;
    let status = Status {
        sale,
        nonce: [0x33; 16],
        state: SaleState::Active,
        since: UnixMillis(1_764_000_000_000),
        why: Some("all is well".into()),
        candidates: vec![
            Candidate::Tcp {
                host: "node.example".into(),
                port: 4022,
            },
            Candidate::Grid,
        ],
        address: b"the node's address, opaque here".to_vec(),
        boot: [0xb0; 16],
        epoch: 1,
        periods_paid: 1,
        paid: Amount(400_000),
        paid_until: Some(UnixMillis(1_764_003_600_000)),
        receipt: Some(receipt_bytes.clone()),
        snapshot: None,
    };
    let grant = KeyGrant {
        sale,
        epoch: 1,
        boot: [0xb0; 16],
        image_version: "0.1.0".into(),
        seal_key: seal::SealSecret::from_randomness([0x5e; 32]).public(),
        host_key: SigningKey::from_bytes(&[0x40; 32]).verifying_key().to_bytes(),
    };
    let authorized_keys = vec![format!("{} user@example", openssh_ed25519(&[0x44; 32]))];
    let sealed = SealedKey {
        sale,
        epoch: 1,
        encapsulated,
        ciphertext,
        authorized_keys,
    };
    let reasons = vec![
        Reason::numbers(DeclineCode::Memory, 4 << 30, 3 << 30),
        Reason {
            words: Some("gpu".into()),
            ..Reason::plain(DeclineCode::Feature)
        },
    ];
    let delegate = Delegate {
        sale,
        endpoint: EndpointId([0xe9; 32]),
        expires: UnixMillis(1_764_010_000_000),
    };
    let command = Command {
        node: NodeId(public("node")),
        counter: 7,
        expires: UnixMillis(1_764_010_000_000),
        act: Act::StopSpace(sale),
    };
    let answer = Answer {
        command: Digest([0xc0; 32]),
        done: true,
        lines: vec!["calm-otter stopped".into()],
    };
    let recall = Recall {
        endpoint: EndpointId([0xe9; 32]),
        expires: UnixMillis(1_764_010_000_000),
        after: Some(market::id::SaleId([0x0a; 32])),
    };
    let recall = sign(&by_user, grid(), recall).unwrap();
    let recalled = Recalled {
        recall: recall.hash(),
        sales: vec![RecalledSale {
            request: request().bytes,
            offer: offer().bytes,
            sale: bytes(&by_node, Sale { agree: agree.clone() }).1,
            grant: Some(bytes(&by_node, grant.clone()).1),
            amended: Some(bytes(&by_node, Amended { amend: amend.clone() }).1),
            receipt: Some(receipt_bytes.clone()),
        }],
        more: false,
    };
    let refusal = Refusal {
        about: Digest([0xab; 32]),
        code: RefusalCode::NotFunded,
        words: "there is no lock".into(),
    };
    vec![
        (Kind::Request, request().bytes),
        (Kind::Offer, offer().bytes),
        bytes(
            &by_node,
            Decline {
                request: request().request_hash(),
                reasons,
            },
        ),
        (Kind::Agree, agree.bytes.clone()),
        bytes(&by_node, Sale { agree }),
        bytes(&by_user, Funded { sale }),
        bytes(&by_node, grant),
        bytes(&by_user, sealed),
        bytes(
            &by_user,
            StatusQuery {
                sale,
                nonce: [0x33; 16],
            },
        ),
        bytes(&by_node, status),
        bytes(
            &by_user,
            VoucherMessage {
                sale,
                vouchers: vec![voucher().to_bytes()],
            },
        ),
        bytes(
            &by_user,
            Cancel {
                sale,
                why: Some("done".into()),
            },
        ),
        (Kind::Amend, amend.bytes.clone()),
        bytes(&by_node, Amended { amend }),
        bytes(&by_user, delegate),
        bytes(&key("owner"), command),
        bytes(&by_node, answer),
        bytes(&by_node, receipt),
        bytes(&by_node, refusal),
        (Kind::Recall, recall.bytes),
        bytes(&by_node, recalled),
        bytes(
            &by_user,
            Resize {
                sale,
                nonce: [0x33; 16],
                cpu: None,
                memory: Some(Bytes(4 << 30)),
                disk: Some(Bytes(20 << 30)),
                snapshot: None,
            },
        ),
        bytes(
            &by_node,
            Quote {
                sale,
                nonce: [0x33; 16],
                gives: gives(),
                price: Amount(800_000),
                begun: 2,
                lacks: vec![Reason::numbers(DeclineCode::Memory, 4 << 30, 3 << 30)],
            },
        ),
        bytes(
            &by_user,
            Restore {
                sale,
                nonce: [0x44; 16],
                taken: UnixMillis(1_764_000_000_000),
            },
        ),
    ]
}
