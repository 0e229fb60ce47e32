//! The seeds, in git: every target has some, made here from golden bytes and the repository's own samples.
//!
//! `STEADING_WRITE_SEEDS=1` writes them anew. Libraries and formats move, so what stands there is compared with what
//! would be written, and a decoder that gets a new field shows here that its seeds are stale.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod seeds;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What git carries for it.
const MOST_BYTES: u64 = 200 << 10;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path, cut: &str) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(cut).map(str::to_owned).unwrap_or(name))
        .collect()
}

#[test]
fn the_seeds_are_those_that_are_written_now() {
    let rewrite = std::env::var_os("STEADING_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds::all() {
        let path = here("corpus").join(target).join(&name);
        if rewrite {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // SQLite's file holds its version, so it is a seed, not a sample.
        assert!(
            stored == bytes || target == "journal_file",
            "{} is stale",
            path.display()
        );
    }
}

#[test]
fn folder_manifest_and_corpus_name_the_same_targets() {
    let targets = names(&here("fuzz_targets"), ".rs");
    assert!(targets.len() >= 30, "{targets:?}");
    assert_eq!(names(&here("corpus"), ""), targets);
    let manifest = std::fs::read_to_string(here("Cargo.toml")).unwrap();
    for target in &targets {
        let path = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&path), "Cargo.toml lacks {path}");
    }
}

#[test]
fn the_corpus_is_small() {
    let mut bytes = 0;
    for target in names(&here("corpus"), "") {
        for seed in names(&here("corpus").join(&target), "") {
            bytes += here("corpus").join(&target).join(seed).metadata().unwrap().len();
        }
    }
    assert!((10_000..MOST_BYTES).contains(&bytes), "{bytes} bytes");
}
