//! What a stranger would send that is right: the fuzzer begins there.

mod disks;
mod flash;
mod money;

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use market::message::{Kind, RefusalCode, TunnelAnswer, TunnelOpening};

/// Target, name of the seed, bytes.
pub type Seed = (&'static str, String, Vec<u8>);

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub fn public(seed: u8) -> [u8; 32] {
    key(seed).verifying_key().to_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn file(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn all() -> Vec<Seed> {
    let mut seeds = messages();
    seeds.extend(grid());
    seeds.extend(network());
    seeds.extend(client());
    seeds.extend(money::all());
    seeds.extend(disks::all());
    seeds.extend(flash::all());
    seeds
}

fn golden(kind: Kind) -> Vec<u8> {
    file(&format!("crates/market/golden/{}.cbor", kind.name()))
}

/// The byte string at `at`, and where it ends.
fn byte_string(bytes: &[u8], at: usize) -> (Vec<u8>, usize) {
    let (length, start) = match bytes[at] {
        head @ 0x40..=0x57 => (usize::from(head - 0x40), at + 1),
        0x58 => (usize::from(bytes[at + 1]), at + 2),
        0x59 => (
            usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]])),
            at + 3,
        ),
        other => panic!("{other:#x} begins no byte string"),
    };
    (bytes[start..start + length].to_vec(), start + length)
}

fn messages() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (kind, number) in Kind::ALL.into_iter().zip(0u8..) {
        let signed = golden(kind);
        let (_, after_header) = byte_string(&signed, 2);
        let (payload, _) = byte_string(&signed, after_header + 1);
        seeds.push((
            "message",
            kind.name().to_owned(),
            [&[number][..], &payload].concat(),
        ));
        seeds.push(("envelope", kind.name().to_owned(), signed));
    }
    let resized = file("crates/market/golden/amend-resized.cbor");
    seeds.push(("envelope", "amend-resized".into(), resized));
    let opening = TunnelOpening {
        delegate: golden(Kind::Delegate),
        port: 22,
    };
    seeds.push(("tunnel_opening", "opening".into(), opening.to_bytes()));
    seeds.push(("tunnel_opening", "open".into(), TunnelAnswer::Open.to_bytes()));
    let refused = TunnelAnswer::Refused {
        code: RefusalCode::NotFunded,
        words: "there is no lock".into(),
    };
    seeds.push(("tunnel_opening", "refused".into(), refused.to_bytes()));
    let seal_key = market::seal::SealSecret::from_randomness([0x5e; 32]).public();
    let sale = market::id::SaleId([7; 32]);
    let (encapsulated, ciphertext) = market::seal::seal(&seal_key, sale, 1, &[0x99; 64], [0x77; 32]).unwrap();
    let sealed = [&encapsulated[..], &ciphertext, &[1]].concat();
    seeds.push(("seal", "sealed".into(), sealed));
    seeds
}

fn grid() -> Vec<Seed> {
    let mut address = vec![1];
    address.extend(public(4));
    address.extend([1, 2, 4, 203, 0, 113, 7, 0x11, 0x94, 6]);
    address.extend([
        0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x11, 0x94,
    ]);
    let ticket = format!(
        "steading:demo@127.0.0.1:7071?grid={}&peer={}&udp=7072&qad=7073&cert=MIIB",
        hex(&public(1)),
        hex(&public(4))
    );
    let frames = b"\0\0\0\x05hello\0\0\0\0\0\0\0\x01x\0\0\x10\0cut";
    let broadcast = b"\x07\x01\0hello\x07\x01\x01hello\x09\0\0\0\0\0\0\0\0\x01\x04\x01\0hi";
    vec![
        ("grid_address", "two".into(), address),
        ("grid_ticket", "with-discovery".into(), ticket.into_bytes()),
        ("grid_seat", "ask".into(), file("crates/grid/golden/seat-ask.bin")),
        (
            "grid_seat",
            "here".into(),
            b"\x02\x07\x07\x07\x07\x07\x07\x07\x07".to_vec(),
        ),
        ("grid_seat", "granted".into(), vec![3, 1]),
        (
            "grid_seat",
            "refused".into(),
            b"\x04\0\0\0\0\0\0\x03\xe8".to_vec(),
        ),
        ("grid_frames", "some".into(), frames.to_vec()),
        ("grid_broadcast", "some".into(), broadcast.to_vec()),
    ]
}

fn network() -> Vec<Seed> {
    let dhcp = |kind: u8| {
        let mut bytes = vec![2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 2, 15];
        bytes.resize(28, 0);
        bytes.extend([2, 0, 0, 0, 0, 1]);
        bytes.resize(236, 0);
        bytes.extend([
            99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 0, 2, 2, 1, 4, 255, 255, 255, 0,
        ]);
        bytes.extend([
            3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 51, 4, 0, 1, 0x51, 0x80, 26, 2, 5, 0xdc,
        ]);
        bytes.extend([121, 8, 24, 192, 0, 2, 10, 0, 2, 2, 42, 4, 10, 0, 2, 2, 255]);
        bytes
    };
    let mut sntp = vec![0x24, 2, 0, 0xec];
    sntp.resize(24, 0);
    sntp.extend(b"nonce---");
    sntp.extend([0; 8]);
    sntp.extend([0xec, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    let utf16: Vec<u8> = "\u{feff}name = \"attic\"\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let filled = format!(
        "wallet = \"steading:{}:{}00000000\"\nprice = \"0.5\"\nname = \"attic\"\nerase = [\"/dev/vdb, 8GiB, ext4 0a0b\"]\n",
        &hex(&public(2))[..32],
        hex(&public(3))
    );
    vec![
        ("dhcp", "offer".into(), dhcp(2)),
        ("dhcp", "acknowledged".into(), dhcp(5)),
        ("sntp", "answer".into(), sntp),
        ("console_keys", "claim".into(), b"w\x1b[24;80Rvdc\x7fb\r".to_vec()),
        (
            "console_keys",
            "others".into(),
            b"?\x1b[A\x1bOB\x1b[5~l\x1b\x1b scalm-otter\rq\x0crreboot\n\xe2\x82\xac\x1b[?62c".to_vec(),
        ),
        ("farmer_toml", "as-shipped".into(), file("image/farmer.toml")),
        ("farmer_toml", "utf-16".into(), utf16),
        ("farmer_toml", "filled".into(), filled.into_bytes()),
        (
            "farmer_folder",
            "two".into(),
            b"FARMER.TOML\0name = \"a\"\r\n\0farmer.toml.txt\0attic".to_vec(),
        ),
        (
            "farmer_folder",
            "near".into(),
            b"farmer.rtf\0{\\rtf1\0readme\0ssd,gpu".to_vec(),
        ),
    ]
}

fn client() -> Vec<Seed> {
    let record = r#"{"name":"calm-otter","step":"active","begun_ms":1,"grid":"","ledger":"","node_address":"","ahead":3,"vouchers_signed":3,"active_since_ms":1,"periods":3,"amendments":0,"epoch":1,"host_key":null,"ssh_keys":[],"tcp":null,"inside":null,"heard":null,"times":{"agreed":1}}"#;
    let proof = format!(
        "uid 0\nuid_map  0 1000000 65536;\ncpu.max 50000 100000\nmemory.max 536870912\npids.max 1024\n\
         volume 4096 496000\nbase {}\nnonce nonce\nend end\n",
        "ba".repeat(32)
    );
    let backup =
        r#"{"version":1,"seed":"x","grid":null,"ledger":null,"sales":{"ab":{"record.json":"e30="}}}"#;
    let files = [
        "grid = \"steading:demo\"\nledger = \"ledger:\"\n",
        backup,
        "steading-seed-1-00-00",
    ];
    let mut seeds = vec![
        ("client_record", "active".into(), record.into()),
        ("client_proof", "good".into(), proof.into_bytes()),
    ];
    for (text, name) in files.into_iter().zip(["settings", "backup", "seed"]) {
        seeds.push(("client_files", name.to_owned(), text.into()));
    }
    let line = |kind: &str, path: &str| {
        format!("{kind} 6 8 1700000000.0000000000 1700000000.5000000000 33:7 2 {path}\0")
    };
    let listed = [line("d", "/srv"), line("f", "/srv/a\nb"), line("f", "/srv/z")].concat();
    let kept = listed.replace("d 6", "1 d 6").replace("f 6", "2 f 6");
    seeds.push((
        "client_export",
        "listing".into(),
        format!("{listed}end 0\0").into_bytes(),
    ));
    seeds.push(("client_export", "kept".into(), kept.into_bytes()));
    seeds.push(("client_export", "manifest".into(), manifest().into_bytes()));
    seeds.push((
        "client_export",
        "stock-age".into(),
        file("cli/tests/golden/stock.age"),
    ));
    seeds
}

/// An export of one part, as export.json says it.
fn manifest() -> String {
    let digest = "ab".repeat(32);
    let piece = |name: &str| {
        format!(
            r#"{{"file":"{name}","plain_bytes":10,"plain_sha256":"{digest}","file_bytes":226,"file_sha256":"{digest}"}}"#
        )
    };
    format!(
        r#"{{"steading_export":1,"space":"calm-otter","sale":"{digest}","node":"{digest}","base":"{digest}","began_ms":1,"paths":[],"part_bytes":65536,"groups":1,"again":0,"listing":{},"parts":[{{"group":1,"ends_group":true,"piece":{}}}],"done":true,
  "mac": "{digest}"
}}
"#,
        piece("listing.age"),
        piece("part-00001.age")
    )
}
