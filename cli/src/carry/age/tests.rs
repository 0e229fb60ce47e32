use super::*;

fn identity() -> Identity {
    Identity::new(&Zeroizing::new([7; 32]))
}

fn sealed(bytes: &[u8], fresh: &Fresh) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), &identity(), fresh).unwrap();
    sealer.write(bytes).unwrap();
    sealer.finish().unwrap()
}

fn opened(bytes: &[u8], identity: &Identity) -> Result<Vec<u8>, AgeError> {
    let mut opener = Opener::new(bytes, identity)?;
    let mut all = Vec::new();
    while let Some(piece) = opener.next()? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Written once by `age-keygen`'s own rules: another line would make every printed key worthless.
#[test]
fn the_identity_is_written_as_age_reads_it() {
    let line = "AGE-SECRET-KEY-1QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSKMP32K";
    assert_eq!(*identity().to_line(), line);
    assert_eq!(format!("{:?}", identity()), "Identity(secret)");
}

/// age 1.1.1 of Debian wrote the one, and has opened the other.
#[test]
fn stock_age_and_this_open_each_others_files() {
    let stock = include_bytes!("../../../tests/golden/stock.age");
    assert_eq!(opened(stock, &identity()).unwrap(), b"stock age wrote this\n");
    let ours = include_bytes!("../../../tests/golden/ours.age");
    assert_eq!(sealed(b"ours, opened by stock age\n", &Fresh::known(3)), ours);
}

/// The same for every size around a chunk, wherever age is installed; without it the two files above speak for it.
#[test]
fn stock_age_opens_streams_of_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = (dir.path().join("key"), dir.path().join("file.age"));
    std::fs::write(&key, format!("{}\n", *identity().to_line())).unwrap();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let bytes = sealed(&plain, &Fresh::from_kernel().unwrap());
        assert_eq!(opened(&bytes, &identity()).unwrap(), plain, "{length}");
        std::fs::write(&file, &bytes).unwrap();
        let age = std::process::Command::new("age")
            .arg("-d")
            .arg("-i")
            .args([&key, &file])
            .output();
        match age {
            Ok(output) => assert_eq!(output.stdout, plain, "{length}: {output:?}"),
            Err(_) => println!("age is not installed here"),
        }
    }
}

#[test]
fn what_was_changed_cut_off_or_made_for_another_does_not_open() {
    let plain: Vec<u8> = (0..CHUNK + 100).map(|at| (at % 251) as u8).collect();
    let good = sealed(&plain, &Fresh::known(9));
    for at in (0..HEADER_LEN + 40).chain([HEADER_LEN + CHUNK, good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(opened(&bad, &identity()).is_err(), "bit 0 of byte {at}");
    }
    let whole = HEADER_LEN + 16 + CHUNK + TAG;
    for length in [
        0,
        1,
        HEADER_LEN,
        HEADER_LEN + 16,
        whole - 1,
        whole,
        whole + TAG,
        good.len() - 1,
    ] {
        assert!(opened(&good[..length], &identity()).is_err(), "cut to {length}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(opened(&longer, &identity()).is_err());
    let other = Identity::new(&Zeroizing::new([8; 32]));
    assert!(matches!(opened(&good, &other), Err(AgeError::NotOurs)));
    // The control: as it was written it opens.
    assert_eq!(opened(&good, &identity()).unwrap(), plain);
}
