//! Which file of the stick's first folder is the farmer's.
//!
//! Windows hides endings and adds its own, FAT forgets about case, and an editor that saves "as text" leaves its
//! file beside the one that was shipped.
//!
//! ```text
//!  names ──► those that may be it, in order ──► the first that says anything ──► Reading, and notes on the others
//! ```
//!
//! Invariant: every file that may be meant is either read or named in a note with the reason why it is not.

use crate::{Farmer, MOST_BYTES, Reading, fault, read};

/// Names under which the file is found, in the order of preference, case aside.
const FILE_NAMES: [&str; 2] = ["farmer.toml", "farmer.toml.txt"];
/// More names in one folder are not looked at: nobody keeps them beside a boot loader.
pub const MOST_NAMES: usize = 4096;
/// More files than these cannot all be meant.
const MOST_CANDIDATES: usize = 4;

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name as it stands there.
    pub name: String,
    /// Whether it is a file.
    pub is_file: bool,
}

/// Reads the farmer's file out of a folder.
///
/// `open` gives a file's bytes, at most as many as it is told: one more than is allowed, so that too much is noticed.
///
/// # Errors
/// What `open` fails with: the medium cannot be read, whatever the file says.
pub fn read_folder<E>(
    listing: &[Listed],
    mut open: impl FnMut(&str, usize) -> Result<Vec<u8>, E>,
) -> Result<Reading, E> {
    let (files, others) = candidates(listing);
    let mut empty: Option<Reading> = None;
    let mut chosen: Option<(usize, Reading)> = None;
    for (index, name) in files.iter().enumerate() {
        let mut reading = read(&open(name, MOST_BYTES + 1)?);
        reading.name = Some((*name).to_owned());
        if !reading.faults.is_empty() || reading.farmer != Farmer::default() {
            chosen = Some((index, reading));
            break;
        }
        empty.get_or_insert(reading);
    }
    let (index, mut reading) = match (chosen, empty) {
        (Some(chosen), _) => chosen,
        (None, Some(empty)) => (0, empty),
        (None, None) => {
            let mut reading = Reading::default();
            reading.notes.extend(missing(&others));
            return Ok(reading);
        }
    };
    for (other, name) in files.iter().enumerate().filter(|(other, _)| *other != index) {
        let name = fault::quote(name);
        let read = fault::quote(files[index]);
        reading.notes.push(if other < index {
            format!("is read from \"{read}\": \"{name}\" beside it sets nothing")
        } else {
            format!("is read from \"{read}\", not from \"{name}\" beside it: keep one of the two")
        });
    }
    Ok(reading)
}

/// The files that may be it, best first; and names that were perhaps meant to be.
fn candidates(listing: &[Listed]) -> (Vec<&str>, Vec<&Listed>) {
    let mut files: Vec<(usize, bool, &str)> = Vec::new();
    let mut others = Vec::new();
    for listed in listing.iter().take(MOST_NAMES) {
        let lower = listed.name.to_ascii_lowercase();
        match FILE_NAMES.iter().position(|known| *known == lower) {
            // A damaged FAT can hold two names that differ in case alone.
            Some(rank) if listed.is_file => files.push((rank, lower != listed.name, &listed.name)),
            _ if is_near(&lower) => others.push(listed),
            _ => {}
        }
    }
    files.sort_unstable();
    files.truncate(MOST_CANDIDATES);
    (files.into_iter().map(|(_, _, name)| name).collect(), others)
}

/// Whether somebody may have meant the farmer's file by this name.
fn is_near(lower: &str) -> bool {
    // What macOS lays beside a file on FAT is none.
    !lower.starts_with("._")
        && (lower.starts_with("farmer") || (lower.len() <= 24 && fault::distance(lower, FILE_NAMES[0]) <= 2))
}

/// What to do where there is no file.
fn missing(others: &[&Listed]) -> Option<String> {
    let other = others.first()?;
    let name = fault::quote(&other.name);
    Some(if !other.is_file {
        format!("cannot be read: \"{name}\" on the stick is a folder; it must be a file named farmer.toml")
    } else if other.name.to_ascii_lowercase().ends_with(".rtf") {
        format!("is missing; \"{name}\" is no plain text: save it as plain text, named farmer.toml")
    } else {
        format!("is missing; \"{name}\" is not read: rename it to farmer.toml")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> Reading {
        let listing: Vec<Listed> = files
            .iter()
            .map(|(name, _)| Listed {
                name: name.trim_end_matches('/').to_owned(),
                is_file: !name.ends_with('/'),
            })
            .collect();
        let open = |name: &str, most: usize| -> Result<Vec<u8>, String> {
            let (_, text) = files.iter().find(|(known, _)| *known == name).ok_or("gone")?;
            Ok(text.bytes().take(most).collect())
        };
        read_folder(&listing, open).expect("read")
    }

    fn name(reading: &Reading) -> Option<&str> {
        reading.farmer.name.as_deref()
    }

    #[test]
    fn it_is_found_whatever_windows_called_it() {
        let says = "name = \"a\"";
        for called in [
            "farmer.toml",
            "FARMER.TOML",
            "Farmer.toml",
            "farmer.toml.txt",
            "Farmer.Toml.TXT",
        ] {
            let reading = folder(&[("readme", "x"), ("EFI/", ""), (called, says)]);
            assert_eq!(reading.name.as_deref(), Some(called));
            assert_eq!(name(&reading), Some("a"), "{called}");
            assert_eq!(reading.notes, Vec::<String>::new());
        }
    }

    #[test]
    fn of_several_the_first_that_says_anything_is_read_and_that_is_said() {
        let both = folder(&[
            ("farmer.toml.txt", "name = \"b\""),
            ("FARMER.TOML", "name = \"a\""),
        ]);
        assert_eq!(name(&both), Some("a"));
        assert_eq!(
            both.notes,
            ["is read from \"FARMER.TOML\", not from \"farmer.toml.txt\" beside it: keep one of the two"]
        );
        // What was shipped sleeps on beside what Notepad saved.
        let saved = folder(&[
            ("farmer.toml", "# name = \"x\"\n"),
            ("farmer.toml.txt", "name = \"b\""),
        ]);
        assert_eq!(name(&saved), Some("b"));
        assert_eq!(
            saved.notes,
            ["is read from \"farmer.toml.txt\": \"farmer.toml\" beside it sets nothing"]
        );
        // A fault says something too: it is not passed over for an older file.
        let faulty = folder(&[("farmer.toml", "nam = 1"), ("farmer.toml.txt", "name = \"b\"")]);
        assert_eq!((name(&faulty), faulty.faults.len()), (None, 1));
        let none = folder(&[("farmer.toml", ""), ("farmer.toml.txt", "#")]);
        assert_eq!(none.name.as_deref(), Some("farmer.toml"));
        assert_eq!(none.notes.len(), 1);
    }

    #[test]
    fn a_missing_one_is_missed_with_what_was_perhaps_meant() {
        for (called, words) in [
            ("farmer.toml.rtf", "save it as plain text"),
            ("farmer.tml", "rename it"),
            ("farmer (1).toml", "rename it"),
            ("Farmer.toml/", "is a folder"),
            ("famer.toml", "rename it"),
        ] {
            let reading = folder(&[(called, "name = \"a\"")]);
            assert_eq!(reading.name, None);
            assert!(reading.notes[0].contains(words), "{called}: {:?}", reading.notes);
        }
        for called in ["readme.txt", "._farmer.toml", "ldlinux.sys"] {
            assert_eq!(folder(&[(called, "")]), Reading::default(), "{called}");
        }
    }

    #[test]
    fn a_file_without_end_is_read_to_its_bound() {
        let listing = [Listed {
            name: "farmer.toml".into(),
            is_file: true,
        }];
        let asked = std::cell::Cell::new(0);
        let endless = |_: &str, most: usize| -> Result<Vec<u8>, String> {
            asked.set(most);
            Ok(vec![b'#'; most])
        };
        let reading = read_folder(&listing, endless).expect("read");
        assert_eq!(asked.get(), MOST_BYTES + 1);
        assert!(
            reading.faults[0].found.contains("larger than 64 KiB"),
            "{:?}",
            reading.faults
        );
        let broken = |_: &str, _: usize| -> Result<Vec<u8>, String> { Err("the stick is gone".into()) };
        assert_eq!(read_folder(&listing, broken), Err("the stick is gone".to_owned()));
    }
}
