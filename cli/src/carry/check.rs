//! Whether an export is whole: offline, with nothing but the folder and the wallet.

use std::path::Path;

use super::age::Identity;
use super::manifest::Manifest;
use super::piece::{self, PieceError};
use super::take::{read, read_listing};
use crate::exit::{Code, Failure, Outcome};
use crate::keys::Seed;
use crate::show::steps::Steps;

/// Problems that are named one by one.
const MOST_NAMED: usize = 20;

/// The manifest of a folder that must hold an export.
pub fn manifest(folder: &Path, seed: &Seed) -> Outcome<Manifest> {
    read(folder, seed)?.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("{} holds no export", folder.display()))
            .next("`steading export NAME DIR` makes one")
    })
}

/// Looks at every file of it.
pub fn check(folder: &Path, seed: &Seed, steps: &mut Steps) -> Outcome<Manifest> {
    let manifest = manifest(folder, seed)?;
    let identity = Identity::new(&seed.export_key(&manifest.sale));
    steps.begin("checking", "");
    let mut problems = Vec::new();
    for (number, part) in manifest.parts.iter().enumerate() {
        steps.doing(format!("part {} of {}", number + 1, manifest.parts.len()));
        if let Err(error) = piece::check(folder, &part.piece, &identity) {
            problems.push(named(&manifest, &part.piece.file, &error));
        }
    }
    match piece::check(folder, &manifest.listing, &identity) {
        Ok(()) => drop(read_listing(folder, &manifest, &identity)?),
        Err(error) => problems.push(named(&manifest, &manifest.listing.file, &error)),
    }
    steps.quiet();
    if !problems.is_empty() {
        return Err(not_whole(folder, problems));
    }
    if !manifest.done {
        let (group, _) = manifest.next_group();
        return Err(unfinished(folder, group - 1, manifest.groups));
    }
    Ok(manifest)
}

fn named(manifest: &Manifest, file: &str, error: &PieceError) -> String {
    if let PieceError::Other(digest) = error {
        let is_it = |part: &&super::manifest::Part| part.piece.file_sha256 == *digest;
        if let Some(other) = manifest.parts.iter().find(is_it) {
            return format!("{file} is in truth {}", other.piece.file);
        }
        return format!("{file} was changed since it was written");
    }
    let mut words = format!("{file} {error}");
    if let Some(cause) = std::error::Error::source(error) {
        words.push_str(&format!(": {cause}"));
    }
    words
}

/// What was named, as a failure.
pub fn not_whole(folder: &Path, problems: Vec<String>) -> Failure {
    let failure = Failure::new(
        Code::NotWhole,
        format!("the export in {} is not whole", folder.display()),
    );
    let more = problems.len().saturating_sub(MOST_NAMED);
    let mut failure = problems
        .into_iter()
        .take(MOST_NAMED)
        .fold(failure, Failure::because);
    if more > 0 {
        failure = failure.because(format!("and {more} more"));
    }
    failure.next("bring the files back from a copy; while the space is there, delete them and export again: the rest is kept")
}

/// It never came to its end.
pub fn unfinished(folder: &Path, have: usize, all: usize) -> Failure {
    Failure::new(Code::NotWhole, format!("the export in {} is not finished", folder.display()))
        .because(format!("{have} of {all} groups are there, and whole"))
        .next("`steading export NAME DIR` goes on; where the space is gone, `steading import --unfinished` takes what there is")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carry::manifest::{self, Part, part_name};
    use crate::carry::piece::Draft;
    use market::id::SaleId;

    const SALE: SaleId = SaleId([1; 32]);

    fn identity(seed: &Seed) -> Identity {
        Identity::new(&seed.export_key(&SALE))
    }

    fn write(folder: &Path, name: &str, bytes: &[u8], seed: &Seed) -> manifest::Piece {
        let mut draft = Draft::begin(folder, name, &identity(seed)).unwrap();
        draft.write(bytes).unwrap();
        draft.finish().unwrap()
    }

    /// An export of one file in three parts.
    fn export(folder: &Path, seed: &Seed) -> Manifest {
        let listing = b"1 f 3 1 1.0000000000 1.0000000000 1:1 1 /x\0";
        let part = |number: usize| Part {
            group: 1,
            ends_group: number == 3,
            piece: write(
                folder,
                &part_name(number),
                format!("part {number}").as_bytes(),
                seed,
            ),
        };
        let manifest = Manifest {
            sale: SALE,
            groups: 1,
            again: 0,
            listing: write(folder, manifest::LISTING, listing, seed),
            parts: (1..=3).map(part).collect(),
            ..manifest::tests::manifest()
        };
        manifest.write(folder, seed).unwrap();
        manifest
    }

    fn says(folder: &Path, seed: &Seed) -> Result<Manifest, (Code, String)> {
        check(folder, seed, &mut Steps::new()).map_err(|failure| (failure.code, failure.to_string()))
    }

    /// Whether a part opens as stock age would open it, with nothing to hold it against.
    fn opens(folder: &Path, number: usize, manifest: &Manifest, seed: &Seed) -> bool {
        let piece = &manifest.parts[number - 1].piece;
        let any_length = manifest::Piece {
            file_bytes: u64::MAX,
            ..piece.clone()
        };
        let Ok(mut opener) = piece::open(folder, &any_length, &identity(seed)) else {
            return false;
        };
        while let Ok(more) = opener.next() {
            if more.is_none() {
                return true;
            }
        }
        false
    }

    #[test]
    fn whatever_was_done_to_the_files_is_named() {
        type Change = fn(&Path, &Seed);
        fn path(folder: &Path, number: usize) -> std::path::PathBuf {
            folder.join(part_name(number))
        }
        // What was done, what is said, and whether the part would open without the digests: the control.
        let cases: [(Change, &str, bool); 7] = [
            (
                |folder, _| {
                    let mut bytes = std::fs::read(path(folder, 2)).unwrap();
                    let at = bytes.len() - 20;
                    bytes[at] ^= 1;
                    std::fs::write(path(folder, 2), bytes).unwrap();
                },
                "part-00002.age was changed since it was written",
                false,
            ),
            (
                |folder, _| {
                    std::fs::rename(path(folder, 2), folder.join("x")).unwrap();
                    std::fs::rename(path(folder, 3), path(folder, 2)).unwrap();
                    std::fs::rename(folder.join("x"), path(folder, 3)).unwrap();
                },
                "part-00002.age is in truth part-00003.age\n  because: part-00003.age is in truth part-00002.age",
                true,
            ),
            (
                |folder, seed| drop(write(folder, &part_name(2), b"part Z", seed)),
                "part-00002.age was changed since it was written",
                true,
            ),
            (
                |folder, _| std::fs::remove_file(path(folder, 2)).unwrap(),
                "part-00002.age is missing",
                false,
            ),
            (
                |folder, _| {
                    let file = std::fs::File::options()
                        .write(true)
                        .open(path(folder, 2))
                        .unwrap();
                    file.set_len(100).unwrap();
                },
                "part-00002.age has 100 bytes, ",
                false,
            ),
            (
                |folder, _| std::fs::write(folder.join(manifest::LISTING), "x").unwrap(),
                "listing.age has 1 bytes",
                true,
            ),
            (
                |folder, seed| drop(write(folder, manifest::LISTING, b"", seed)),
                "listing.age has ",
                true,
            ),
        ];
        for (change, words, opens_all_the_same) in cases {
            let dir = tempfile::tempdir().unwrap();
            let seed = Seed::fresh().unwrap();
            let manifest = export(dir.path(), &seed);
            assert_eq!(
                says(dir.path(), &seed).unwrap(),
                manifest,
                "as it was written it is whole"
            );
            change(dir.path(), &seed);
            let (code, said) = says(dir.path(), &seed).unwrap_err();
            assert_eq!(code, Code::NotWhole);
            assert!(said.contains(words), "{said}, not {words}");
            assert_eq!(
                opens(dir.path(), 2, &manifest, &seed),
                opens_all_the_same,
                "{words}"
            );
        }
    }

    #[test]
    fn an_export_that_is_not_finished_another_wallets_or_none_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::fresh().unwrap();
        assert_eq!(says(dir.path(), &seed).unwrap_err().0, Code::NotFound);
        let mut manifest = export(dir.path(), &seed);
        let (code, said) = says(dir.path(), &Seed::fresh().unwrap()).unwrap_err();
        assert!(
            code == Code::NotWhole && said.contains("another wallet made it"),
            "{said}"
        );
        manifest.parts.pop();
        manifest.done = false;
        manifest.write(dir.path(), &seed).unwrap();
        let (code, said) = says(dir.path(), &seed).unwrap_err();
        assert!(code == Code::NotWhole && said.contains("0 of 1 groups"), "{said}");
    }
}
