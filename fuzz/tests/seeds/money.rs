//! Seeds of what ledger and client say to each other, and of the names that people write.

use escrow::{Account, Amount, LeaseId, LockView, RailKey, RailName, RailTime, Terms, Voucher};
use ledger::wire::{Answer, Ask, Head, OpenLease, Reply, Request};
use ledger::{RailAddress, signing};

use super::{Seed, key, public};

fn terms() -> Terms {
    Terms {
        asset: "play".parse().unwrap(),
        payer: Account::on_ledger(&public(2), &public(3)),
        payee: Account::on_ledger(&public(2), &public(8)),
        voucher_key: RailKey::ed25519(&public(6)),
        give_back_key: RailKey::ed25519(&public(7)),
        sale: [5; 32],
        accept_window_ms: 1_800_000,
        notice_ms: 86_400_000,
    }
}

fn voucher(lease: LeaseId) -> Voucher {
    let (cumulative, not_before) = (Amount(400_000), RailTime(1_764_000_000_000));
    let signature = signing::sign(&key(6), &signing::voucher(&lease, cumulative, not_before));
    Voucher {
        lease,
        cumulative,
        not_before,
        signature: signature.to_vec(),
    }
}

fn asks() -> Vec<(&'static str, Ask)> {
    let (terms, rail) = (terms(), RailName::ledger(&public(2)));
    let (lease, total, expiry) = (terms.lease(&rail), Amount(1_200_000), RailTime(1_764_100_000_000));
    let sign = |seed: u8, message: Vec<u8>| signing::sign(&key(seed), &message);
    let paid = Amount(400_000);
    vec![
        ("now", Ask::Now),
        (
            "balance",
            Ask::Balance {
                account: terms.payer.clone(),
            },
        ),
        ("view", Ask::View { terms: terms.clone() }),
        (
            "open",
            Ask::Open {
                payer: terms.payer.clone(),
                after: Some(lease),
            },
        ),
        (
            "lock",
            Ask::Lock {
                terms: terms.clone(),
                total,
                expiry,
                signature: sign(3, signing::lock(&lease, total, expiry)),
            },
        ),
        (
            "redeem",
            Ask::Redeem {
                terms: terms.clone(),
                voucher: voucher(lease),
            },
        ),
        (
            "close",
            Ask::Close {
                terms: terms.clone(),
                signature: sign(3, signing::close(&lease)),
            },
        ),
        ("refund", Ask::Refund { terms: terms.clone() }),
        (
            "give-back",
            Ask::GiveBack {
                terms: terms.clone(),
                paid,
                signature: sign(7, signing::give_back(&lease, paid)),
            },
        ),
        (
            "fund",
            Ask::Fund {
                to: terms.payer.clone(),
                amount: total,
                id: [1; 32],
                signature: sign(2, signing::fund(&rail, &terms.payer, total, &[1; 32])),
            },
        ),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let refusal = escrow::Refusal::AcceptPast(RailTime(5));
    let leases = vec![OpenLease {
        terms: terms(),
        view: LockView::NONE,
    }];
    vec![
        ("lease", Answer::Lease { view: LockView::NONE }),
        ("leases", Answer::Leases { leases }),
        ("refused", Answer::Refused { refusal }),
        (
            "balance",
            Answer::Balance {
                free: Amount(1),
                locked: Amount(2),
            },
        ),
    ]
}

pub fn all() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, ask) in asks() {
        let request = serde_json::to_vec(&Request { nonce: [9; 32], ask }).unwrap();
        seeds.push(("ledger_request", name.to_owned(), request));
    }
    for (name, answer) in answers() {
        let (time, journal) = (
            RailTime(1_764_000_000_000),
            Head {
                sequence: 7,
                hash: [3; 32],
            },
        );
        let reply = Reply {
            time,
            journal,
            answer,
        };
        seeds.push((
            "ledger_answer",
            name.to_owned(),
            serde_json::to_vec(&reply).unwrap(),
        ));
    }
    let (terms, rail) = (terms(), RailName::ledger(&public(2)));
    let voucher = voucher(terms.lease(&rail));
    seeds.push(("voucher", "bytes".into(), voucher.to_bytes()));
    seeds.push(("voucher", "json".into(), serde_json::to_vec(&voucher).unwrap()));
    let address: RailAddress = format!("{rail}@http://127.0.0.1:7070").parse().unwrap();
    let names = [
        ("account", terms.payer.to_string()),
        ("rail", rail.to_string()),
        ("address", address.to_string()),
        ("amount", "0.5".to_owned()),
        ("bytes", "512MiB".to_owned()),
        ("cpu", "500m".to_owned()),
        ("rate", "100Mbit/s".to_owned()),
        ("duration", "3h".to_owned()),
        ("terms", serde_json::to_string(&terms).unwrap()),
    ];
    seeds.extend(names.map(|(name, text)| ("names", name.to_owned(), text.into_bytes())));
    seeds
}
