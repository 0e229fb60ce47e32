//! The plan of the house, held against the code: which room knows which, and where `unsafe` lives.
//! The plan is the picture in ARCHITECTURE.md, read from there; a new arrow is a decision, drawn first.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may stop loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What the pure rooms never link: they know no clock, no file, no runtime.
const NOT_IN_PURE_ROOMS: [&str; 6] = ["tokio", "reqwest", "rusqlite", "iroh", "nix", "getrandom"];

/// Longer than this, a file outside tests is two things.
const LINES_AT_MOST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Every package of the workspace with its dependencies that are not for tests only.
fn rooms() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let names = dependencies
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .filter_map(|dependency| dependency["name"].as_str().map(String::from));
            (
                package["name"].as_str().expect("a name").to_string(),
                names.collect(),
            )
        })
        .collect()
}

/// The picture: lines of `room --> room & room`.
fn plan() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let (_, picture) = text
        .split_once("```mermaid\nflowchart")
        .expect("it has a picture");
    let (picture, _) = picture.split_once("```").expect("the picture ends");
    let arrows = picture.lines().filter_map(|line| line.split_once(" --> "));
    let words = |rooms: &str| rooms.split('&').map(|room| room.trim().to_owned()).collect();
    arrows
        .map(|(room, uses)| (room.trim().to_owned(), words(uses)))
        .collect()
}

#[test]
fn the_plan_has_no_circle() {
    let mut left = plan();
    assert!(
        left.len() > 8,
        "only {} rooms are drawn with an arrow",
        left.len()
    );
    while !left.is_empty() {
        let drawn: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, uses| !uses.is_disjoint(&drawn));
        assert!(left.len() < drawn.len(), "a circle: {:?}", left.keys());
    }
}

#[test]
fn every_arrow_is_drawn_and_every_drawn_arrow_is_used() {
    let (plan, rooms) = (plan(), rooms());
    let none = BTreeSet::new();
    for (room, dependencies) in &rooms {
        let used: BTreeSet<String> = dependencies
            .iter()
            .filter(|name| rooms.contains_key(*name))
            .cloned()
            .collect();
        assert_eq!(
            &used,
            plan.get(room).unwrap_or(&none),
            "what {room} uses, and what is drawn"
        );
    }
    for room in plan.keys() {
        assert!(
            rooms.contains_key(room),
            "{room} is drawn and not in the workspace"
        );
    }
}

/// Neither by themselves nor through another crate.
#[test]
fn pure_rooms_stay_pure() {
    for room in ["escrow", "market", "inventory"] {
        let linked = tree(&["--package", room, "--edges", "normal", "--format", "{p}"]);
        for name in NOT_IN_PURE_ROOMS {
            let is_it = |line: &&str| line.split(' ').next() == Some(name);
            assert_eq!(linked.lines().find(is_it), None, "{room} links it");
        }
    }
    let control = tree(&["--package", "grid", "--edges", "normal", "--format", "{p}"]);
    assert!(control.lines().any(|line| line.starts_with("tokio ")));
}

/// What `cargo tree` says, one crate a line.
fn tree(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--prefix",
            "none",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo tree is UTF-8")
}

/// Every crate that the programs link, with its features, when the dependencies of these kinds count.
fn features(kinds: &str) -> BTreeMap<String, String> {
    let mut arguments = vec!["--workspace", "--edges", kinds, "--format", "{p}|{f}"];
    for of_the_build_machine in ["xtask", "packages", "initramfs", "image", "qemu", "stage"] {
        arguments.extend(["--exclude", of_the_build_machine]);
    }
    tree(&arguments)
        .lines()
        .filter_map(|line| line.trim_end_matches(" (*)").split_once('|'))
        .map(|(name, features)| (name.to_owned(), features.to_owned()))
        .collect()
}

/// Else `./x demo` and `./x test` would each compile those crates, and all above them, for themselves.
#[test]
fn tests_switch_on_no_feature_in_what_programs_link() {
    let with_tests = features("normal,build,dev");
    let programs = features("normal,build");
    assert!(programs.len() > 300, "only {} crates were found", programs.len());
    for (name, features) in programs {
        assert_eq!(
            with_tests.get(&name),
            Some(&features),
            "{name}: name its further features in tests/Cargo.toml"
        );
    }
}

/// The agent looks for the kinds of partition that the makers of media write.
#[test]
fn the_agent_and_the_layout_of_media_name_the_same_kinds() {
    let layout = std::fs::read_to_string(root().join("image/layout.toml")).expect("the layout is there");
    for (key, kind) in [
        ("base_type", host::names::BASE_TYPE),
        ("claim_type", host::names::CLAIM_TYPE),
    ] {
        let line = format!("{key} = \"{}\"", kind.to_uppercase());
        assert!(
            layout.lines().any(|have| have == line),
            "image/layout.toml: {line}"
        );
    }
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder)
        .expect("a folder of the workspace")
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn unsafe_has_two_homes_and_no_file_is_two_things() {
    let root = root();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "only {} source files were found", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file is UTF-8");
        let place = file.strip_prefix(&root).expect("below the root");
        let at_home = place.starts_with("crates/host") || place.starts_with("crates/storage");
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word));
            // This file names the words it looks for.
            if is_unsafe && !at_home && !place.ends_with("house/main.rs") {
                panic!(
                    "{}:{}: unsafe outside crates/host and crates/storage",
                    place.display(),
                    index + 1
                );
            }
        }
        let is_test =
            place.components().any(|part| part.as_os_str() == "tests") || place.ends_with("tests.rs");
        let lines = text.lines().count();
        assert!(
            is_test || lines <= LINES_AT_MOST,
            "{} has {lines} lines, more than {LINES_AT_MOST}",
            place.display()
        );
    }
}
