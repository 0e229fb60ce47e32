//! The golden bytes: they freeze every encoding. `STEADING_WRITE_GOLDEN=1` writes them anew; then the change is
//! incompatible, and the version in the content type must rise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod samples;

use std::path::PathBuf;

use escrow::Amount;
use market::envelope::{inspect, open, sign};
use market::message::{Agree, Amend, CapacityRequest, Kind, Message, Mismatch, Offer, SaleBody};
use market::prices::Prices;
use market::quantity::Seconds;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn file(kind: Kind) -> PathBuf {
    folder().join(format!("{}.cbor", kind.name()))
}

fn stored(kind: Kind) -> Vec<u8> {
    std::fs::read(file(kind)).unwrap()
}

#[test]
fn every_kind_is_written_as_the_golden_bytes() {
    let rewrite = std::env::var_os("STEADING_WRITE_GOLDEN").is_some();
    let samples = samples::all();
    assert_eq!(
        samples.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        Kind::ALL
    );
    for (kind, bytes) in samples {
        if rewrite {
            std::fs::write(file(kind), &bytes).unwrap();
        }
        assert_eq!(stored(kind), bytes, "{}", kind.name());
    }
}

#[test]
fn every_golden_file_verifies_with_nothing_but_itself() {
    for kind in Kind::ALL {
        let inspection = inspect(&stored(kind)).unwrap();
        assert_eq!(
            (inspection.kind, inspection.version, inspection.grid),
            (kind, 1, samples::grid())
        );
    }
}

/// The golden request has no key 10, as all had before there was one: it asks for a hold.
#[test]
fn a_request_holds_unless_it_says_that_it_only_looks() {
    let holds = open::<CapacityRequest>(&stored(Kind::Request), None).unwrap();
    assert!(!holds.message.only_looks);
    let looks = samples::look();
    let file = folder().join("request-look.cbor");
    if std::env::var_os("STEADING_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, &looks.bytes).unwrap();
    }
    let stored = std::fs::read(&file).unwrap();
    assert_eq!(stored, looks.bytes);
    let opened = open::<CapacityRequest>(&stored, None).unwrap();
    assert!(opened.message.only_looks);
    assert_ne!(opened.request_hash(), holds.request_hash());

    // The mark is the last entry: key 10, then true (f5). One that says false is refused.
    let payload = opened.message.to_payload();
    assert!(payload.ends_with(&[10, 0xf5]));
    let unmarked = [&payload[..payload.len() - 1], &[0xf4]].concat();
    let error = CapacityRequest::from_payload(&unmarked).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("true, or the key left out"), "{source}");
}

/// The golden amend has no key 6, as all had before there was one: one price for all periods.
#[test]
fn an_amend_has_one_price_unless_it_names_earlier_ones() {
    let one = open::<Amend>(&stored(Kind::Amend), None).unwrap();
    assert_eq!(one.message.prices, Prices::of(Amount(400_000)));
    let resized = samples::resized();
    let file = folder().join("amend-resized.cbor");
    if std::env::var_os("STEADING_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, &resized.bytes).unwrap();
    }
    assert_eq!(std::fs::read(&file).unwrap(), resized.bytes);
    let opened = open::<Amend>(&resized.bytes, None).unwrap();
    assert_eq!(opened.message, resized.message);
    // Earlier prices whose periods do not rise are refused.
    let mut unordered = resized.message;
    unordered.prices.earlier.reverse();
    assert!(unordered.check().is_err());
}

/// The user's money stands still for these windows when a node falls silent: long ones are no offers.
#[test]
fn windows_without_end_are_refused_before_anything_is_signed() {
    let offer = |accept_s: u64, notice_s: u64| Offer {
        accept_window: Seconds(accept_s),
        notice: Seconds(notice_s),
        ..samples::offer().message
    };
    let (day, week) = (86_400, 7 * 86_400);
    assert_eq!(offer(day, week).check(), Ok(()));
    for (long, field) in [
        (offer(day + 1, week), "accept window"),
        (offer(day, week + 1), "notice"),
    ] {
        let error = sign(&samples::key("node"), samples::grid(), long).unwrap_err();
        let said = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
        assert!(
            said.contains(field) || error.to_string().contains(field),
            "{error}: {said}"
        );
    }
    let body = SaleBody {
        notice: Seconds(week + 1),
        ..samples::agree().message.body
    };
    assert!(sign(&samples::key("user"), samples::grid(), Agree::new(body)).is_err());
}

#[test]
fn nobody_agrees_to_what_was_only_looked_at() {
    let (request, offer) = (samples::look(), samples::offer());
    let offer = Offer {
        request: request.request_hash(),
        ..offer.message
    };
    let offer = sign(&samples::key("node"), samples::grid(), offer).unwrap();
    let body = samples::agree().message.body;
    let accept = |request: &_| {
        SaleBody::accepting(
            request,
            &offer,
            body.payer.clone(),
            body.voucher_key.clone(),
            body.nonce,
        )
    };
    assert_eq!(accept(&request), Err(Mismatch("request (it only looks)")));
}

#[test]
fn the_keys_are_the_ones_that_the_folder_names() {
    let text = std::fs::read_to_string(folder().join("keys.txt")).unwrap();
    for (name, seed) in samples::SEEDS {
        let line = format!("{name:<10} {}", data_encoding::HEXLOWER.encode(&[seed; 32]));
        assert!(text.lines().any(|found| found == line), "keys.txt lacks: {line}");
    }
}

#[test]
fn any_one_bit_changed_is_refused() {
    for kind in Kind::ALL {
        let mut bytes = stored(kind);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                inspect(&bytes).is_err(),
                "{}: bit {bit} was changed and it verifies",
                kind.name()
            );
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(inspect(&bytes).is_ok(), "{} is whole again", kind.name());
    }
}

#[test]
fn cut_or_lengthened_is_refused() {
    for kind in Kind::ALL {
        let bytes = stored(kind);
        for end in 0..bytes.len() {
            assert!(inspect(&bytes[..end]).is_err());
        }
        assert!(inspect(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn another_grid_or_kind_is_refused_by_name() {
    let other = market::id::GridId([0xaa; 32]);
    let error = open::<CapacityRequest>(&stored(Kind::Request), Some(other)).unwrap_err();
    assert!(error.to_string().contains(&other.short()), "{error}");
    let error = open::<CapacityRequest>(&stored(Kind::Offer), None).unwrap_err();
    assert!(
        error.to_string().contains("\"offer\" where a \"request\""),
        "{error}"
    );
}
