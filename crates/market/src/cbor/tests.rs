//! Only the one encoding is read, and nothing makes the reader panic.

use super::*;
use proptest::prelude::*;

#[test]
fn only_the_one_encoding_is_read() {
    let refused: [&[u8]; 14] = [
        &[0x18, 0x17],                                           // 23 in two bytes
        &[0x19, 0x00, 0xff],                                     // 255 in three
        &[0x5f, 0xff],                                           // indefinite string
        &[0xbf, 0xff],                                           // indefinite map
        &[0xa2, 2, 0, 1, 0],                                     // not sorted
        &[0xa2, 1, 0, 1, 0],                                     // doubled
        &[0xa1, 0x61, 0x61, 0],                                  // text key
        &[0xc0, 0x60],                                           // tag
        &[0xf6],                                                 // null
        &[0xf9, 0x3c, 0x00],                                     // float
        &[0x61, 0xff],                                           // not UTF-8
        &[0x00, 0x00],                                           // trailing
        &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // longer than anything
        &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80],       // too deep
    ];
    for bytes in refused {
        assert!(check(bytes).is_err(), "{bytes:02x?}");
    }
    assert!(
        check(&[0xa2, 1, 0, 0x20, 0]).is_ok(),
        "negative keys come after the others"
    );
}

#[test]
fn unknown_keys_are_refused_and_negative_ones_ignored() {
    let bytes = MapWriter::new().uint(1, 5).uint(2, 6).finish();
    let mut fields = Fields::read(&bytes).unwrap();
    assert_eq!(fields.uint(1), Ok(5));
    assert_eq!(fields.finish(), Err(CborError::Unknown(2)));
    let bytes = MapWriter::new().uint(1, 5).uint(-7, 6).finish();
    let mut fields = Fields::read(&bytes).unwrap();
    assert_eq!(fields.uint(1), Ok(5));
    assert_eq!(fields.finish(), Ok(()));
}

#[test]
fn a_huge_count_allocates_nothing() {
    assert!(check(&[0x9b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    let many = [&[0x99, 0x08, 0x01][..], &[0; 2049]].concat();
    assert!(matches!(check(&many), Err(CborError::Bound(..))));
}

proptest! {
    #[test]
    fn amounts_read_back(value: u128) {
        let bytes = MapWriter::new().amount(3, value).finish();
        prop_assert_eq!(Fields::read(&bytes).unwrap().amount(3), Ok(value));
    }

    #[test]
    fn what_is_written_is_the_one_encoding(number: i64, text in "\\PC{0,30}", bytes: Vec<u8>) {
        let inner = MapWriter::new().int(9, number).text(-1, &text);
        let map = MapWriter::new().bytes(70000, &bytes).map(2, inner).list(0, [Item::text(&text), Item::bytes(&bytes)]);
        prop_assert_eq!(check(&map.finish()), Ok(()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        if let Ok(mut fields) = Fields::read(&bytes) {
            let _ = (fields.uint(0), fields.amount(1), fields.texts(2, 9, 9), fields.map(3).is_ok());
        }
    }
}
