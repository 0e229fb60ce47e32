//! coset as the oracle: another implementation of COSE reads what we write, writes what we read, and gives us bytes
//! that no honest program would send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

#[allow(dead_code)] // each test file uses a part
mod samples;

use coset::iana::{Algorithm, EnumI64};
use coset::{CoseSign1, CoseSign1Builder, Label, RegisteredLabelWithPrivate, TaggedCborSerializable};
use ed25519_dalek::{Signature, Signer, Verifier, VerifyingKey};
use market::envelope::{EnvelopeError, inspect, open};
use market::message::{CapacityRequest, Kind};
use proptest::prelude::*;

const GRID: i64 = -65537;

fn header(content_type: &str, signer: &[u8], grid: &[u8]) -> coset::Header {
    coset::HeaderBuilder::new()
        .algorithm(Algorithm::EdDSA)
        .content_type(content_type.to_owned())
        .key_id(signer.to_vec())
        .value(GRID, coset::cbor::value::Value::Bytes(grid.to_vec()))
        .build()
}

/// Signed by coset.
fn signed(content_type: &str, payload: &[u8], unprotected: Option<coset::Header>) -> Vec<u8> {
    let key = samples::key("user");
    let protected = header(content_type, &samples::public("user"), samples::grid().as_bytes());
    let builder = CoseSign1Builder::new()
        .protected(protected)
        .payload(payload.to_vec());
    let builder = match unprotected {
        Some(unprotected) => builder.unprotected(unprotected),
        None => builder,
    };
    let message = builder
        .create_signature(b"", |bytes| key.sign(bytes).to_bytes().to_vec())
        .build();
    message.to_tagged_vec().unwrap()
}

#[test]
fn coset_reads_and_verifies_every_kind() {
    for (kind, bytes) in samples::all() {
        let message = CoseSign1::from_tagged_slice(&bytes).unwrap();
        let protected = &message.protected.header;
        assert_eq!(
            protected.alg,
            Some(RegisteredLabelWithPrivate::Assigned(Algorithm::EdDSA))
        );
        assert_eq!(Algorithm::EdDSA.to_i64(), -8);
        let grid = protected
            .rest
            .iter()
            .find(|(label, _)| *label == Label::Int(GRID))
            .unwrap();
        assert_eq!(grid.1.as_bytes().unwrap(), samples::grid().as_bytes());
        assert!(message.unprotected.is_empty());
        let key = VerifyingKey::from_bytes(&protected.key_id.clone().try_into().unwrap()).unwrap();
        let verified = message.verify_signature(b"", |signature, signed| {
            key.verify(signed, &Signature::from_slice(signature).unwrap())
        });
        assert!(verified.is_ok(), "{}", kind.name());
        assert_eq!(
            message.to_tagged_vec().unwrap(),
            bytes,
            "{}: coset writes other bytes",
            kind.name()
        );
    }
}

#[test]
fn what_coset_signs_we_open() {
    let request = samples::request();
    let payload = CoseSign1::from_tagged_slice(&request.bytes)
        .unwrap()
        .payload
        .unwrap();
    let bytes = signed(&Kind::Request.content_type(), &payload, None);
    assert_eq!(
        open::<CapacityRequest>(&bytes, Some(samples::grid())).unwrap(),
        request
    );
}

#[test]
fn anything_unprotected_is_refused() {
    let payload = CoseSign1::from_tagged_slice(&samples::request().bytes)
        .unwrap()
        .payload
        .unwrap();
    let unprotected = coset::HeaderBuilder::new().key_id(vec![1]).build();
    let bytes = signed(&Kind::Request.content_type(), &payload, Some(unprotected));
    assert!(matches!(inspect(&bytes), Err(EnvelopeError::Shape(_))));
}

#[test]
fn another_version_is_refused_by_name() {
    let payload = CoseSign1::from_tagged_slice(&samples::request().bytes)
        .unwrap()
        .payload
        .unwrap();
    let bytes = signed("application/steading.request+cbor;v=2", &payload, None);
    assert_eq!(
        inspect(&bytes),
        Err(EnvelopeError::Version {
            kind: "request",
            found: 2,
            known: 1
        })
    );
    for odd in [
        "application/steading.request+cbor;v=01",
        "application/steading.nothing+cbor;v=1",
        "text/plain",
        "",
    ] {
        assert!(inspect(&signed(odd, &payload, None)).is_err(), "{odd}");
    }
}

#[test]
fn too_large_is_refused_before_anything_else() {
    let bytes = signed(&Kind::Request.content_type(), &[0; 3000], None);
    assert!(matches!(
        open::<CapacityRequest>(&bytes, None),
        Err(EnvelopeError::TooLarge { most: 2048, .. })
    ));
    assert!(matches!(
        inspect(&vec![0xd2; 70_000]),
        Err(EnvelopeError::TooLarge { .. })
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(inspect(&bytes).is_err());
    }

    #[test]
    fn no_signed_payload_makes_it_panic(kind in prop::sample::select(&Kind::ALL[..]), payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = inspect(&signed(&kind.content_type(), &payload, None));
    }

    #[test]
    fn no_signed_change_of_a_payload_makes_it_panic(
        which in 0usize..19, at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let (kind, bytes) = samples::all().swap_remove(which);
        let mut payload = CoseSign1::from_tagged_slice(&bytes).unwrap().payload.unwrap();
        let place = at.index(payload.len());
        payload[place] = with;
        let _ = inspect(&signed(&kind.content_type(), &payload, None));
        payload.truncate(cut.index(payload.len()));
        let _ = inspect(&signed(&kind.content_type(), &payload, None));
    }
}
