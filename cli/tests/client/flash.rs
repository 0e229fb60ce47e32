//! `steading flash` as a person types it: what it will not write, and with which exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn steading(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steading"));
    command.args(arguments).env_clear().env("STEADING_HOME", home);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn it_says_what_it_will_not_write() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("none.img");
    let file = file.to_str().unwrap();
    let listed = steading(home.path(), &["flash", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    for disk in listed["disks"].as_array().unwrap() {
        assert_eq!(disk["flashable"], disk["why_not"].is_null());
    }
    for (arguments, wanted, words) in [
        (vec!["flash", file], 2, "what to write"),
        (
            vec!["flash", file, "--to", "no-such-disk"],
            7,
            "no disk no-such-disk",
        ),
        (
            vec!["flash", "--file", file, "--set", "walet=x"],
            2,
            "did you mean \"wallet\"?",
        ),
        (vec!["flash", "--file", file, "--price", "0,40"], 2, "not a price"),
        (vec!["flash", "--file", file, "--set", "name"], 2, "has no ="),
        (
            vec!["flash", "--file", file, "--name", "a"],
            7,
            "nothing was written",
        ),
        (vec!["flash", file, "--file", file], 1, "cannot be read"),
    ] {
        let output = steading(home.path(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
