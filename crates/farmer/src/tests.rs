use proptest::prelude::*;

use super::{KEYS, MOST_BYTES, read};

const GOOD: &str = "name = \"barn-1\"\nprice = 0.40\ncountry = \"be\"\n";

#[test]
fn every_key_of_the_template_is_asleep_and_known() {
    let template = include_str!("../../../image/farmer.toml");
    let asleep = read(template.as_bytes());
    assert_eq!(asleep.faults, vec![]);
    assert_eq!(asleep.farmer, super::Farmer::default());
    assert!(template.lines().all(|line| line.chars().count() <= 80));
    let keys: Vec<&str> = template
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| !key.contains(' '))
        .collect();
    assert_eq!(keys.len(), KEYS.len());
    assert!(KEYS.iter().all(|key| keys.contains(key)), "{keys:?}");
    for key in [
        "price",
        "country",
        "name",
        "erase",
        "owner",
        "public_address",
        "ports",
        "features",
        "time_servers",
        "open",
        "mail",
        "rate",
        "traffic",
        "status_page",
    ] {
        let line = template
            .lines()
            .find(|line| line.starts_with(&format!("# {key} =")))
            .expect("the key's line");
        assert_eq!(read(&line.as_bytes()[2..]).faults, vec![], "{line}");
    }
    let line = asleep.wallet_line.expect("the wallet's line");
    assert!(
        template
            .lines()
            .nth(line - 1)
            .expect("a line")
            .contains("wallet =")
    );
}

#[test]
fn windows_and_old_macs_are_read_all_the_same() {
    let crlf = GOOD.replace('\n', "\r\n");
    let utf16 =
        |text: &str, unit: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(unit).collect() };
    let expected = read(GOOD.as_bytes()).farmer;
    assert_eq!(expected.name.as_deref(), Some("barn-1"));
    assert_eq!(expected.country.as_deref(), Some("BE"));
    assert_eq!(expected.price.map(|price| price.0), Some(400_000));
    let marked = format!("\u{feff}{crlf}");
    for (how, bytes) in [
        ("CRLF", crlf.clone().into_bytes()),
        ("CR", GOOD.replace('\n', "\r").into_bytes()),
        ("UTF-8 with a mark", marked.clone().into_bytes()),
        ("UTF-16 LE", utf16(&marked, u16::to_le_bytes)),
        ("UTF-16 BE", utf16(&marked, u16::to_be_bytes)),
        ("UTF-16 LE, no mark", utf16(&crlf, u16::to_le_bytes)),
        ("UTF-16 BE, no mark", utf16(&crlf, u16::to_be_bytes)),
        ("Ctrl-Z", format!("{crlf}\u{1a}").into_bytes()),
    ] {
        let reading = read(&bytes);
        assert_eq!(reading.faults, vec![], "{how}");
        assert_eq!(reading.farmer, expected, "{how}");
    }
}

#[test]
fn each_fault_says_where_and_what_would_be_right() {
    for (text, expected) in [
        (
            "\nwalet = \"x\"\n",
            "line 2, column 1: \"walet\" is not a key; did you mean \"wallet\"?",
        ),
        (
            "Price = \"1\"",
            "line 1, column 1: \"Price\" is not a key; did you mean \"price\"?",
        ),
        (
            "public-address = \"a.b\"",
            "line 1, column 1: \"public-address\" is not a key; did you mean \"public_address\"?",
        ),
        (
            "xyzzy = 1",
            "line 1, column 1: \"xyzzy\" is not a key; the keys are wallet, price, grid, ledger, country, name, erase, owner, public_address, ports, features, time_servers, open, mail, rate, traffic, status_page",
        ),
        (
            "open = [\"192.168.7.0/24\", \"0.0.0.0/0\"]",
            "line 1, column 8: open: \"0.0.0.0/0\" is no network; an IPv4 address and a length from 8 to 32, as in \"192.168.7.0/24\"",
        ),
        (
            "mail = \"yes\"",
            "line 1, column 8: mail: this is text; write true or false, without quotes",
        ),
        (
            "rate = 50",
            "line 1, column 8: rate: this is a number, not text in quotes; write it like \"50Mbit\"",
        ),
        (
            "rate = \"50 MB/s\"",
            "line 1, column 8: rate: \"50 MB/s\" is no rate; a number and kbit, Mbit or Gbit, as in \"50Mbit\"",
        ),
        (
            "rate = \"64kbit\"",
            "line 1, column 8: rate: \"64kbit\" is too little to sell; the least is \"1Mbit\"",
        ),
        (
            "traffic = \"500\"",
            "line 1, column 11: traffic: \"500\" is no amount of traffic; a number and MiB, GiB or TiB, as in \"500GiB\"",
        ),
        (
            "traffic = \"1MiB\"",
            "line 1, column 11: traffic: \"1MiB\" is used up by the node alone; the least is \"1GiB\"",
        ),
        (
            "[wallet]\nx = 1",
            "line 1, column 1: wallet: this is a section, not text in quotes; write it like \"steading:…\"",
        ),
        (
            "country = \"Belgium\"",
            "line 1, column 11: country: \"Belgium\" is not a country's two letters; write it like \"BE\" or \"DE\"",
        ),
        (
            "price = \"0,40\"",
            "line 1, column 9: price: \"0,40\" is not a price; write it like \"0.40\", with at most 6 digits after the point",
        ),
        (
            "price = 0",
            "line 1, column 9: price: the price is zero; the least is \"0.000001\"",
        ),
        (
            "price = -1.0",
            "line 1, column 9: price: \"-1.0\" is not a price; write it like \"0.40\", with at most 6 digits after the point",
        ),
        (
            "ports = 8080",
            "line 1, column 9: ports: this is a number, not text in quotes; write it like \"30000-30063\"",
        ),
        (
            "ports = \"30063-30000\"",
            "line 1, column 9: ports: \"30063-30000\" is not a range of ports; write it like \"30000-30063\", between 1024 and 65535",
        ),
        (
            "erase = [\"sda\"]",
            "line 1, column 9: erase: \"sda\" names no disk with its size and content; copy the whole line that the screen shows for the disk",
        ),
        (
            "ledger = \"http://10.0.2.2:1\"",
            "line 1, column 10: ledger: \"http://10.0.2.2:1\" is not a ledger's address; copy the whole line that \"steading ledger serve\" prints",
        ),
        (
            "time_servers = [\"a b\"]",
            "line 1, column 16: time_servers: \"a b\" is neither an address nor a name; write it like \"203.0.113.7\" or \"node.example.org\", without a port",
        ),
        (
            "wallet = \"hello\"",
            "line 1, column 10: wallet: \"hello\" is not an address; it looks like \"steading:3f1c…:9ab0…\"",
        ),
        ("name = “barn”", "line 1, column 8: name: "),
        (
            "name = \"a\"\nname = \"b\"",
            "line 2, column 1: name: duplicate key; keep one of the two lines, delete the other",
        ),
        ("name = \"barn\nprice = \"1\"\n", "line 1, column "),
        ("wallet", "line 1, column "),
    ] {
        let faults = read(text.as_bytes()).faults;
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        if expected.ends_with(' ') {
            assert!(first.starts_with(expected), "{text:?} gave {first:?}");
        } else {
            assert_eq!(first, expected, "{text:?}");
        }
    }
}

#[test]
fn curly_quotes_are_named() {
    let faults = read("name = “barn”".as_bytes()).faults;
    assert!(faults[0].right.contains("plain quotes"), "{faults:?}");
}

#[test]
fn what_nobody_sees_is_shown_by_its_place() {
    let utf16 = |units: &[u16]| -> Vec<u8> { units.iter().flat_map(|unit| unit.to_le_bytes()).collect() };
    let half: Vec<u16> = "\u{feff}name = \"a\"\r\n# x"
        .encode_utf16()
        .chain([0xd800, 0x20])
        .collect();
    let mut short = utf16(&"\u{feff}#\r\n#".encode_utf16().collect::<Vec<u16>>());
    short.push(b' ');
    for (bytes, expected) in [
        (
            b"# a\r\nna\0me = 1".to_vec(),
            "line 2, column 3: a zero, which no text has; the file was damaged",
        ),
        (
            vec![0; 512],
            "line 1, column 1: the file holds nothing but zeros; the file was damaged",
        ),
        (
            utf16(&half),
            "line 2, column 4: half a character of UTF-16 text; save the file as UTF-8",
        ),
        (
            short,
            "line 2, column 2: the end of UTF-16 text, one byte short; save the file as UTF-8",
        ),
        (
            b"\xff\xfe\0\0#\0\0\0".to_vec(),
            "line 1, column 1: the file is UTF-32 text; save the file as UTF-8",
        ),
        (
            b"# a\r# Z\xfcrich\r".to_vec(),
            "line 2, column 4: a character that is not UTF-8 text; save the file as UTF-8",
        ),
        (
            "name\u{a0}= \"a\"".into(),
            "line 1, column 5: a character that nobody sees (U+00A0); delete it",
        ),
        (
            "a = 1\n\u{200b}name = \"a\"".into(),
            "line 2, column 1: a character that nobody sees (U+200B); delete it",
        ),
    ] {
        let faults = read(&bytes).faults;
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(
            all.iter().any(|fault| fault.starts_with(expected)),
            "{expected}: {all:?}"
        );
    }
    // A mark twice over, as two editors leave it, and zeros behind the end do no harm.
    let reading = read("\u{feff}\u{feff}name = \"a\"\n\0\0\0".as_bytes());
    assert_eq!(
        (reading.faults.len(), reading.farmer.name.as_deref()),
        (0, Some("a"))
    );
}

#[test]
fn one_bad_line_leaves_the_others_good() {
    let reading = read(b"name = \"barn-1\"\ncountry = 5\nprice = \"1.5\"\nwhat = 1\n");
    assert_eq!(reading.faults.len(), 2);
    assert_eq!(reading.faults[0].line, 2);
    assert_eq!(reading.faults[1].line, 4);
    assert_eq!(reading.farmer.name.as_deref(), Some("barn-1"));
    assert_eq!(reading.farmer.price.map(|price| price.0), Some(1_500_000));
}

#[test]
fn a_wrong_digit_of_the_wallet_is_noticed() {
    let good = escrow::Account::on_ledger(&[7; 32], &[9; 32]).to_string();
    let reading = read(format!("wallet = \"{good}\"").as_bytes());
    assert_eq!(reading.faults, vec![]);
    assert_eq!(
        reading.farmer.wallet.map(|wallet| wallet.to_string()),
        Some(good.clone())
    );
    let last = if good.ends_with('0') { "1" } else { "0" };
    let bad = format!("{}{last}", &good[..good.len() - 1]);
    let faults = read(format!("wallet = \"{bad}\"").as_bytes()).faults;
    assert!(faults[0].found.contains("wrong digit"), "{faults:?}");
}

#[test]
fn hostile_bytes_are_one_fault() {
    for bytes in [
        vec![b'#'; MOST_BYTES + 1],
        vec![0xff, 0xfe, 0x00, 0xd8],
        vec![0xff, 0xfe, 0x41],
        b"name = \"\xff\"".to_vec(),
        b"\x00\x00\x00\x00".to_vec(),
    ] {
        let reading = read(&bytes);
        assert!(reading.faults.len() <= 1, "{:?}", reading.faults);
        assert_eq!(reading.farmer, super::Farmer::default());
    }
    let deep = format!("erase = {}", "[".repeat(30_000));
    assert!(!read(deep.as_bytes()).faults.is_empty());
    let many: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
    assert!(read(many.as_bytes()).faults.len() <= 16);
}

proptest! {
    /// Whatever is there is read to the end, and every fault lies in the file.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let reading = read(&bytes);
        prop_assert!(reading.faults.len() <= 16);
        for fault in &reading.faults {
            prop_assert!((1..=bytes.len() + 1).contains(&fault.line));
            prop_assert!((1..=bytes.len() + 1).contains(&fault.column));
            prop_assert!(!fault.found.is_empty() && !fault.right.is_empty());
        }
    }

    /// An editor's way of writing a text changes neither what it says nor where its faults are.
    #[test]
    fn every_editor_writes_the_same(
        lines in prop::collection::vec(
            prop_oneof![
                Just("name = \"barn\"".to_owned()),
                Just("price = \"0.40\"".to_owned()),
                Just("walet = 1".to_owned()),
                Just("country = \"Belgium\"".to_owned()),
                "# [a-zé€ ]{0,12}",
                "[a-z]{1,6} = [\"a-z0-9]{1,6}",
            ],
            1..8,
        ),
        mark in any::<bool>(),
    ) {
        let plain = format!("#\n{}\n", lines.join("\n"));
        let expected = read(plain.as_bytes());
        for ends in ["\n", "\r\n", "\r"] {
            let text = plain.replace('\n', ends);
            let text = if mark { format!("\u{feff}{text}") } else { text };
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [text.into_bytes(), little, big] {
                let reading = read(&bytes);
                prop_assert_eq!(&reading.faults, &expected.faults);
                prop_assert_eq!(&reading.farmer, &expected.farmer);
                prop_assert_eq!(reading.wallet_line, expected.wallet_line);
            }
        }
    }
}
