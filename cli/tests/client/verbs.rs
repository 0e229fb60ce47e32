//! The binary as a person runs it: exit codes, JSON, wallets, the ledger's and the grid's verbs.
//! No node is needed here; whole sales are told in the scenarios.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use ed25519_dalek::SigningKey;
use market::envelope;
use market::id::GridId;
use market::message::{CapacityRequest, Filters, Needs, RailAsset};
use market::quantity::{Bytes, MilliCpus, Seconds, UnixMillis};
use serde_json::Value;

/// Someone with a home folder.
struct Person {
    home: tempfile::TempDir,
    ledger: Option<String>,
    grid: Option<String>,
}

impl Person {
    fn new(ledger: Option<&Service>, grid: Option<&Service>) -> Person {
        Person {
            home: tempfile::tempdir().unwrap(),
            ledger: ledger.map(|service| service.line.clone()),
            grid: grid.map(|service| service.line.clone()),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steading"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("STEADING_HOME", self.home.path())
            .stdin(Stdio::null());
        for (name, value) in [("STEADING_LEDGER", &self.ledger), ("STEADING_GRID", &self.grid)] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.output().unwrap()
    }

    /// Runs with `--json`, expects success, and that standard output is JSON alone.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output.stdout)))
    }

    fn code(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A service that runs until it is dropped.
struct Service {
    child: Child,
    line: String,
}

impl Service {
    fn start(arguments: &[&str]) -> Service {
        let mut child = Command::new(env!("CARGO_BIN_EXE_steading"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Service {
            child,
            line: line.trim().to_owned(),
        }
    }

    fn ledger(dir: &Path, listen: &str) -> Service {
        Service::start(&[
            "ledger",
            "serve",
            "--listen",
            listen,
            "--dir",
            dir.to_str().unwrap(),
        ])
    }

    fn grid(dir: &Path) -> Service {
        let dir = dir.to_str().unwrap();
        Service::start(&[
            "grid",
            "serve",
            "--name",
            "test",
            "--listen",
            "127.0.0.1:0",
            "--dir",
            dir,
        ])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_wallet_is_made_once_and_its_secrets_are_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Service::ledger(dir.path(), "127.0.0.1:0");
    let person = Person::new(Some(&ledger), None);
    assert_eq!(person.code(&["wallet", "address"]).0, 8, "no wallet yet");
    let made = person.json(&["wallet", "new"]);
    let address = made["address"].as_str().unwrap();
    assert!(address.starts_with("steading:"), "{address}");
    assert_eq!(person.json(&["wallet", "address"])["address"], made["address"]);
    let (code, why) = person.code(&["wallet", "new"]);
    assert_eq!(code, 8, "{why}");
    assert_eq!(
        person.json(&["wallet", "address"])["address"],
        made["address"],
        "unchanged"
    );
    for entry in walk(person.home.path()) {
        let mode = std::fs::metadata(&entry).unwrap().permissions().mode() & 0o777;
        let limit = if entry.is_dir() { 0o700 } else { 0o600 };
        if entry != person.home.path() {
            assert_eq!(mode & !limit, 0, "{} has mode {mode:o}", entry.display());
        }
    }
    // The address of the ledger was kept, so that the next command needs no flag.
    let alone = Person {
        ledger: None,
        ..person
    };
    assert_eq!(alone.json(&["wallet", "address"])["address"], made["address"]);
    let seed = alone.home.path().join("data/seed");
    std::fs::set_permissions(&seed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, why) = alone.code(&["wallet", "address"]);
    assert_eq!(code, 8);
    assert!(why.contains("chmod 600"), "{why}");
}

fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            all.extend(walk(&entry.unwrap().path()));
        }
    }
    all
}

#[test]
fn play_money_arrives_once_it_is_issued_and_survives_the_ledgers_end() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Service::ledger(dir.path(), "127.0.0.1:0");
    let person = Person::new(Some(&ledger), None);
    let address = person.json(&["wallet", "new"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let folder = dir.path().to_str().unwrap();
    let fund = |amount: &[&str]| {
        [&["ledger", "fund", "--to", &address, "--dir", folder], amount]
            .concat()
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<_>>()
    };
    let by_units = fund(&["--amount", "2500000"]);
    let funded = person.json(&by_units.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(funded["balance"], "2500000");
    let whole = fund(&["--whole", "1.50"]);
    assert_eq!(
        person.json(&whole.iter().map(String::as_str).collect::<Vec<_>>())["balance"],
        "4000000"
    );
    let balance = person.json(&["wallet", "balance"]);
    assert_eq!(
        (&balance["balance"], &balance["escrow"]),
        (&Value::from("4000000"), &Value::from("0"))
    );
    let shown = person.run(&["wallet", "balance"]);
    assert_eq!(
        text(&shown.stdout),
        "free                  4.00\nin escrow             0.00\n"
    );

    let listen = ledger.line.rsplit_once("http://").unwrap().1.to_owned();
    let name = ledger.line.clone();
    drop(ledger); // SIGKILL
    let (code, why) = person.code(&["wallet", "balance"]);
    assert_eq!(code, 5, "{why}");
    assert!(why.contains("to do:"), "{why}");
    let again = Service::ledger(dir.path(), &listen);
    assert_eq!(again.line, name, "the address stays");
    assert_eq!(person.json(&["wallet", "balance"])["balance"], "4000000");

    let other = tempfile::tempdir().unwrap();
    let (code, _) = person.code(&[
        "ledger",
        "fund",
        "--to",
        &address,
        "--amount",
        "1",
        "--dir",
        other.path().to_str().unwrap(),
    ]);
    assert_eq!(code, 7, "without the operator's key there is no money");
    let wrong = address.replace("steading:", "steading:0");
    assert_eq!(
        person
            .code(&["ledger", "fund", "--to", &wrong, "--amount", "1", "--dir", folder])
            .0,
        2
    );
}

#[test]
fn a_backup_brings_the_same_wallet_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Service::ledger(dir.path(), "127.0.0.1:0");
    let person = Person::new(Some(&ledger), None);
    let made = person.json(&["wallet", "new"]);
    let file = dir.path().join("backup.json");
    let file_text = file.to_str().unwrap();
    person.json(&["wallet", "backup", file_text]);
    // A file that is there is written over only where that is said.
    std::fs::write(&file, "older").unwrap();
    let (code, why) = person.code(&["wallet", "backup", file_text]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("--force"), "{why}");
    assert_eq!(std::fs::read(&file).unwrap(), b"older");
    person.json(&["wallet", "backup", file_text, "--force"]);
    assert_ne!(std::fs::read(&file).unwrap(), b"older");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let new_home = Person::new(None, None);
    let restored = new_home.json(&["wallet", "restore", file_text]);
    assert_eq!(
        restored["address"], made["address"],
        "the ledger's address came along"
    );
    assert_eq!(new_home.json(&["wallet", "show"])["ssh_key"], made["ssh_key"]);
    assert_eq!(
        new_home.code(&["wallet", "restore", file_text]).0,
        8,
        "never over another wallet"
    );

    // The seed's one line alone brings the same keys.
    let backup: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let line = backup["seed"].as_str().unwrap().to_owned();
    let seed_file = dir.path().join("seed.txt");
    std::fs::write(&seed_file, &line).unwrap();
    let by_line = Person::new(Some(&ledger), None);
    by_line.json(&["wallet", "restore", seed_file.to_str().unwrap()]);
    assert_eq!(by_line.json(&["wallet", "address"])["address"], made["address"]);

    let at = line.len() - 12;
    let wrong = format!(
        "{}{}{}",
        &line[..at],
        if &line[at..=at] == "0" { "1" } else { "0" },
        &line[at + 1..]
    );
    std::fs::write(&seed_file, wrong).unwrap();
    let refused = Person::new(Some(&ledger), None);
    let (code, why) = refused.code(&["wallet", "restore", seed_file.to_str().unwrap()]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("because:") && why.contains("to do:"), "{why}");
    assert_eq!(refused.code(&["wallet", "address"]).0, 8, "nothing was kept");
}

fn signed_request() -> Vec<u8> {
    let request = CapacityRequest {
        needs: Needs {
            cpu: MilliCpus(500),
            memory: Bytes(512 << 20),
            disk: Bytes(2 << 30),
            rate: None,
        },
        duration: Seconds(3600),
        period: Seconds(3600),
        max_price_per_hour: None,
        rails: vec![RailAsset {
            rail: escrow::RailName::ledger(&[1; 32]),
            asset: "play".parse().unwrap(),
        }],
        filters: Filters::default(),
        expires: UnixMillis(1),
        nonce: [2; 16],
        answer_to: vec![1, 2, 3],
        only_looks: false,
    };
    let key = SigningKey::from_bytes(&[5; 32]);
    envelope::sign(&key, GridId([6; 32]), request).unwrap().bytes
}

#[test]
fn verify_says_who_signed_and_any_flipped_bit_ends_in_13() {
    let dir = tempfile::tempdir().unwrap();
    let person = Person::new(None, None);
    let path = dir.path().join("request");
    let bytes = signed_request();
    std::fs::write(&path, &bytes).unwrap();
    let file = path.to_str().unwrap();
    let verified = person.json(&["verify", file]);
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["kind"], "request");
    let signer = SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes();
    assert_eq!(verified["signer"], data_encoding::HEXLOWER.encode(&signer));
    // All bits are flipped by the envelope's own tests; here every 40th, by the binary.
    for bit in (0..bytes.len() * 8).step_by(40) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).unwrap();
        let output = person.run(&["verify", file, "--json"]);
        assert_eq!(output.status.code(), Some(13), "bit {bit}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["valid"], false, "bit {bit}");
    }
    assert_eq!(person.code(&["verify", "/nonexistent"]).0, 7);
}

#[test]
fn wrong_quantities_are_refused_before_anything_is_sent_and_say_what_is_right() {
    // No ledger, no grid, no wallet: whatever is asked first would fail otherwise.
    let person = Person::new(None, None);
    for (arguments, words) in [
        (&["request", "--memory", "512"][..], "512MiB"),
        (&["request", "--memory", "1GB"], "GiB"),
        (&["request", "--cpu", "0"], "more than zero"),
        (&["request", "--disk", "99999999999TiB"], "16777215TiB or less"),
        (&["request", "--memory", "-1MiB"], "512MiB"),
        (&["request", "--duration", "2"], "2h"),
        (&["request", "--rate", "10"], "10Mbit"),
        (&["request", "--max-price", "0.0000001"], "digits after the point"),
        (
            &["request", "--duration", "150min"],
            "--duration 2h or --duration 3h",
        ),
        (
            &["request", "--duration", "90min", "--period", "1h"],
            "--duration 1h or --duration 2h",
        ),
        (
            &["request", "--duration", "1h", "--period", "2h"],
            "--duration 2h",
        ),
        (&["request", "--country", "Belgium"], "two capital letters"),
        (&["request", "--feature", "GPU!"], "a-z"),
        (&["request", "--farmer", "steading:x:y"], "address"),
        (&["request", "--node", "abc"], "64 lower-case hex digits"),
        (&["request", "--offers", "0"], "0"),
        (&["buy", "--cpu", "none"], "0.5"),
        (&["buy", "1", "--ahead", "48"], "--yes"),
        (&["extend", "x"], "--duration"),
        (&["no-such-verb"], "no-such-verb"),
    ] {
        let (code, why) = person.code(arguments);
        assert_eq!(code, 2, "{arguments:?}: {why}");
        assert!(why.contains(words), "{arguments:?}: {why}");
    }
}

#[test]
fn a_command_line_that_cannot_be_read_ends_as_every_failure_does() {
    let person = Person::new(None, None);
    for arguments in [
        &["wallet", "backup"][..],
        &["request", "--memory", "512"],
        &["request", "--memry", "1GiB"],
        &["buy", "1", "--memory"],
        &["extend", "calm-otter"],
        &["no-such-verb"],
        &["wallet"],
        &["ssh", "calm-otter"],
        &["connect", "calm-otter"],
    ] {
        let output = person.run(&[&["--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let json: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output.stdout)));
        let error = &json["error"];
        assert_eq!(error["code"], 2, "{arguments:?}");
        let why = error["why"].as_array().unwrap();
        assert!(
            error["what"].is_string() && !why.is_empty() && error["next"].is_string(),
            "{json}"
        );
        let told = text(&output.stderr);
        assert!(
            told.contains("because: ") && told.contains("to do:   "),
            "{arguments:?}: {told}"
        );
    }
    // What comes after -- is the space's, and without --json nothing is on standard output.
    let output = person.run(&["ssh", "calm-otter", "--", "ls", "--json"]);
    assert_eq!(
        output.status.code(),
        Some(8),
        "no wallet: {}",
        text(&output.stderr)
    );
    let output = person.run(&["wallet"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(2), String::new())
    );
    assert!(text(&output.stderr).contains("balance"), "the verbs are shown");
    for asked in ["--help", "--version"] {
        assert_eq!(person.code(&[asked]), (0, String::new()));
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Service::ledger(dir.path(), "127.0.0.1:0");
    let person = Person::new(Some(&ledger), None);
    person.json(&["wallet", "new"]);
    let (code, why) = person.code(&["request"]);
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("STEADING_GRID"), "{why}");
    for verb in [
        &["ssh", "calm-otter"][..],
        &["cancel", "calm-otter"],
        &["connect", "calm-otter"],
        &["unlock", "calm-otter"],
    ] {
        let (code, why) = person.code(verb);
        assert_eq!(code, 7, "{verb:?}: {why}");
        assert!(why.contains("calm-otter") && why.contains("to do:"), "{why}");
    }
    assert_eq!(person.code(&["buy", "1"]).0, 7, "no offers yet");
    assert_eq!(person.code(&["offers"]).0, 7);
    assert_eq!(person.json(&["spaces"])["spaces"], Value::Array(Vec::new()));
    let output = person.run(&["offers", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["code"], 7, "an error is JSON too");
}

#[test]
fn a_grid_without_nodes_is_joined_and_nobody_answers() {
    let (at_ledger, at_grid) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Service::ledger(at_ledger.path(), "127.0.0.1:0");
    let grid = Service::grid(at_grid.path());
    let person = Person::new(Some(&ledger), Some(&grid));
    person.json(&["wallet", "new"]);
    let (code, why) = person.code(&["nodes", "--wait", "2s"]);
    assert_eq!(code, 3, "{why}");
    assert!(why.contains("no node answered"), "{why}");
    let ticket = grid.line.clone();
    drop(grid);
    let again = Service::grid(at_grid.path());
    assert_eq!(again.line, ticket, "the ticket stays");
}

#[test]
fn every_verb_has_help_that_fits_the_screen() {
    let person = Person::new(None, None);
    for verb in [
        "wallet", "request", "offers", "buy", "spaces", "ssh", "connect", "unlock", "extend", "resize",
        "export", "import", "snapshot", "restore", "cancel", "nodes", "verify", "ledger", "grid", "node",
        "flash",
    ] {
        let output = person.run(&[verb, "--help"]);
        assert!(output.status.success(), "{verb}");
        let help = text(&output.stdout);
        assert!(help.contains("--json"), "{verb}");
        let long = help.lines().find(|line| line.chars().count() > 80);
        assert!(long.is_none(), "{verb}: {long:?}");
    }
}
