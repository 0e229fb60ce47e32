//! An import: an export's groups, one after another, into a space; each is compared there before the next.
//!
//! ```text
//! group of one part    ─► tar -x ─► tar -c | sha256 ─► the same digests as the parts'
//! group of many parts  ─► staged part by part in /var/tmp (so that a cut costs one part) ─► the same
//!                         where there is no room for it twice: straight into tar
//! ```
//! Invariant: a part is held against its digests before a byte of it is sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use market::id::SaleId;
use serde::{Deserialize, Serialize};

use super::age::Identity;
use super::check::not_whole;
use super::listing::{self, Entry};
use super::manifest::{Manifest, Part};
use super::piece;
use super::space::{COMPARE, ROOM, STAGE, Space, Talk, UNPACK};
use super::take::{human, read_listing};
use crate::exit::{Code, Failure, Outcome};
use crate::files::{make_folder, read_if_there, write_whole};
use crate::keys::Seed;
use crate::show::steps::Steps;
use crate::show::text::plain;

/// Of what a script prints here.
const MOST_PRINTED: usize = 4 << 20;
/// Of what differs.
const MOST_NAMED: usize = 20;

/// How far an import got; made anew where it cannot be read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Groups that are in the space.
    groups: usize,
    /// Parts of the next that are staged there.
    staged: usize,
    /// What differed so far.
    differing: BTreeSet<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Given {
    /// Groups that the space has now.
    pub groups: usize,
    /// Groups that it had before.
    pub groups_before: usize,
    /// Bytes of all parts.
    pub bytes: u64,
    /// Paths that are otherwise in the space; fit for a screen.
    pub differing: Vec<String>,
}

struct Import<'a> {
    space: &'a Space,
    folder: &'a Path,
    identity: Identity,
    manifest: Manifest,
    groups: Vec<Vec<Entry>>,
    kept: PathBuf,
    progress: Progress,
}

/// Begins, or goes on. `into` is the sale of the space.
pub async fn give(
    space: &Space,
    seed: &Seed,
    folder: &Path,
    manifest: Manifest,
    into: SaleId,
    steps: &mut Steps,
) -> Outcome<Given> {
    let identity = Identity::new(&seed.export_key(&manifest.sale));
    let groups = read_listing(folder, &manifest, &identity)?;
    let imports = space.folders.state.join("imports");
    make_folder(&imports)?;
    let kept = imports.join(format!("{into}-{}-{}.json", manifest.sale, manifest.began_ms));
    let progress: Progress = read_if_there(&kept)?
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut import = Import {
        space,
        folder,
        identity,
        manifest,
        groups,
        kept,
        progress,
    };
    let groups_before = import.progress.groups;
    steps.begin("importing", "");
    // The group whose staged parts were gone.
    let mut lost = 0;
    while let Some(group) = import.groups.get(import.progress.groups).cloned() {
        let number = import.progress.groups + 1;
        let parts = import.manifest.parts_of(number).to_vec();
        if parts.is_empty() {
            break;
        }
        let sent: u64 = import
            .manifest
            .parts
            .iter()
            .filter(|part| part.group < number)
            .map(|part| part.piece.plain_bytes)
            .sum();
        steps.doing(format!(
            "{} of {}",
            human(sent),
            human(import.manifest.plain_bytes())
        ));
        if import.give_group(number, &group, &parts).await? {
            import.progress.groups = number;
        } else if std::mem::replace(&mut lost, number) == number {
            return Err(
                Failure::new(Code::NodeRefuses, format!("{} keeps no part of it", space.name))
                    .because("what was staged in /var/tmp/steading-import was gone, twice")
                    .next("see what empties that folder (`steading ssh`); the same command goes on where this one stopped"),
            );
        }
        import.progress.staged = 0;
        import.keep()?;
    }
    steps.quiet();
    // An import that is done once may be done again, over what was changed since.
    if import.progress.groups == import.manifest.groups {
        let _ = std::fs::remove_file(&import.kept);
    }
    Ok(Given {
        groups: import.progress.groups,
        groups_before,
        bytes: import.manifest.plain_bytes(),
        differing: import.progress.differing.into_iter().collect(),
    })
}

impl Import<'_> {
    fn keep(&self) -> Outcome {
        let json = serde_json::to_vec(&self.progress).map_err(anyhow::Error::from)?;
        Ok(write_whole(&self.kept, &json)?)
    }

    /// False: what was staged is gone, and must be staged again.
    async fn give_group(&mut self, number: usize, group: &[Entry], parts: &[Part]) -> Outcome<bool> {
        let names = listing::names(group);
        // Folders that come again are compared then.
        let lengths: Vec<String> = if number > self.manifest.again {
            parts
                .iter()
                .map(|part| part.piece.plain_bytes.to_string())
                .collect()
        } else {
            Vec::new()
        };
        let is_staged = parts.len() > 1 && self.has_room_for(parts).await?;
        let staged = self.staged_name(number);
        let archive = if is_staged { &staged } else { "-" };
        if is_staged {
            self.stage(&staged, parts).await?;
        }
        let words = [vec![archive.to_owned(), names.len().to_string()], lengths].concat();
        let mut talk = self.space.start(UNPACK, &words)?;
        let mut takes = talk.write(&names).await?;
        if !is_staged {
            for part in parts {
                takes = takes && self.send(part, &mut talk).await?;
            }
        }
        talk.shut();
        let printed = talk.read_all(MOST_PRINTED).await?;
        let ended = talk.end().await?;
        let said = said(&printed);
        if said.is_gone {
            return Ok(false);
        }
        if said.tar != Some(0) {
            // What was staged may be what is wrong: from its beginning, next time.
            self.progress.staged = 0;
            self.keep()?;
            return Err(Failure::new(Code::NodeRefuses, format!("{} did not unpack a part of it", self.space.name))
                .because(format!("tar ended with {:?}: {}", said.tar.unwrap_or(ended.code), ended.words))
                .next("see whether its disk is full (`steading ssh`, df); the same command goes on where this one stopped"));
        }
        let wanted: Vec<String> = parts
            .iter()
            .map(|part| part.piece.plain_sha256.to_string())
            .collect();
        if number > self.manifest.again && said.sums != wanted {
            let differing = self.compare(group, parts).await?;
            self.progress.differing.extend(differing);
        }
        Ok(true)
    }

    /// Held against its digests first; then sent. False: the space takes no more.
    async fn send(&self, part: &Part, talk: &mut Talk) -> Outcome<bool> {
        let wrong = |error: &dyn std::error::Error| {
            not_whole(self.folder, vec![format!("{} {error}", part.piece.file)])
        };
        piece::check(self.folder, &part.piece, &self.identity).map_err(|error| wrong(&error))?;
        let mut opener =
            piece::open(self.folder, &part.piece, &self.identity).map_err(|error| wrong(&error))?;
        while let Some(bytes) = opener.next().map_err(|error| wrong(&error))? {
            if !talk.write(&bytes).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn staged_name(&self, number: usize) -> String {
        format!("{}-{}-{number}.tar", self.manifest.sale, self.manifest.began_ms)
    }

    /// Room for the stream beside what comes out of it.
    async fn has_room_for(&self, parts: &[Part]) -> Outcome<bool> {
        if self.progress.staged > 0 {
            return Ok(true);
        }
        let answer = self.space.ask(ROOM, &[], Vec::new(), 256).await?;
        let free: Option<u64> = String::from_utf8_lossy(&answer.printed).trim().parse().ok();
        let needed: u64 = parts.iter().map(|part| part.piece.plain_bytes).sum();
        Ok(free.is_some_and(|free| free / 2 > needed))
    }

    /// Puts the parts one behind another into a file in the space, from the first that is not there.
    async fn stage(&mut self, name: &str, parts: &[Part]) -> Outcome {
        while let Some(part) = parts.get(self.progress.staged) {
            let before: u64 = parts
                .iter()
                .take(self.progress.staged)
                .map(|part| part.piece.plain_bytes)
                .sum();
            let mut talk = self.space.start(STAGE, &[name.to_owned(), before.to_string()])?;
            self.send(part, &mut talk).await?;
            talk.shut();
            let printed = talk.read_all(MOST_PRINTED).await?;
            let ended = talk.end().await?;
            if String::from_utf8_lossy(&printed).trim() == format!("has {}", before + part.piece.plain_bytes)
            {
                self.progress.staged += 1;
                self.keep()?;
            } else if self.progress.staged > 0 {
                // It is gone, with the space's power perhaps: from its beginning.
                self.progress.staged = 0;
                self.keep()?;
            } else {
                return Err(Failure::new(Code::NodeRefuses, format!("{} takes no part of it", self.space.name))
                    .because(ended.words)
                    .next("see whether its disk is full (`steading ssh`, df); the same command goes on where this one stopped"));
            }
        }
        Ok(())
    }

    /// Names what differs, by sending the group once more to be compared.
    async fn compare(&self, group: &[Entry], parts: &[Part]) -> Outcome<Vec<String>> {
        let mut talk = self.space.start(COMPARE, &[])?;
        for part in parts {
            if !self.send(part, &mut talk).await? {
                break;
            }
        }
        talk.shut();
        let printed = talk.read_all(MOST_PRINTED).await?;
        talk.end().await?;
        let text = String::from_utf8_lossy(&printed);
        let lines = text
            .lines()
            .map(|line| plain(line).chars().take(200).collect::<String>());
        let mut named: Vec<String> = lines.filter(|line| !line.is_empty()).take(MOST_NAMED).collect();
        if named.is_empty() {
            let first = group
                .first()
                .map(|entry| plain(&String::from_utf8_lossy(&entry.path)));
            named.push(format!(
                "{}, or one of {} taken with it: its attributes",
                first.unwrap_or_default(),
                group.len()
            ));
        }
        Ok(named)
    }
}

/// What UNPACK prints: `gone`, or `tar 0`, then `sum <64 hex digits>  -` a part.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// An import that was killed had unpacked it, or the space lost it.
    is_gone: bool,
    tar: Option<i32>,
    sums: Vec<String>,
}

fn said(printed: &[u8]) -> Said {
    let mut said = Said::default();
    for line in String::from_utf8_lossy(printed).lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["gone"] => said.is_gone = true,
            ["tar", code] => said.tar = code.parse().ok(),
            ["sum", digest, ..] => said.sums.push(digest.to_owned()),
            _ => {}
        }
    }
    said
}
