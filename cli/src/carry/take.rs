//! An export: what lies in the space, part by part, into a folder here.
//!
//! ```text
//! no export.json ─► list, plan, write listing.age ─┐
//! export.json    ─► read listing.age, drop parts   ├─► group by group: stream ─► parts ─► export.json ─► list again: done
//!                   from the first missing one on ─┘
//! ```

use std::path::{Path, PathBuf};

use market::id::{Digest, NodeId, SaleId};

use super::age::Identity;
use super::listing::{self, Entry, Found};
use super::manifest::{self, MOST_PARTS, Manifest, Part};
use super::piece::{self, Draft};
use super::space::{LIST, Space, TAKE, too_much};
use crate::client::now_ms;
use crate::exit::{Code, Failure, Outcome};
use crate::files::make_folder;
use crate::keys::Seed;
use crate::show::steps::Steps;
use crate::show::text::{count, plain};

/// tar fills its last record with zeros, this many at least.
const LAST_ZEROS: usize = 1024;
/// tar's own codes: well, files changed, some could not be read.
const TAR_DONE: std::ops::RangeInclusive<i32> = 0..=2;
const LOCK: &str = "export.lock";
const PIECE: usize = 64 << 10;
/// Between the client's clock and the node's; a base is older than this, or its files are taken as well.
const CLOCKS_DIFFER_BY_S: u64 = 3600;

/// What is taken, from where, to where.
pub struct Wish {
    /// The sale of the space.
    pub sale: SaleId,
    /// Its node.
    pub node: NodeId,
    /// The base below it.
    pub base: Digest,
    /// Bytes that the space has.
    pub disk_bytes: u64,
    /// When the sale began, unix milliseconds: older files are the base's.
    pub begun_ms: u64,
    /// Paths; none for all that is not the base's.
    pub paths: Vec<Vec<u8>>,
    /// Where to.
    pub folder: PathBuf,
    /// Bytes of a part.
    pub part_bytes: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Taken {
    /// What the folder holds.
    pub manifest: Manifest,
    /// Entries in it.
    pub entries: usize,
    /// Parts that were there before.
    pub parts_before: usize,
    /// Paths that changed, came or went while it ran; fit for a screen.
    pub changed: Vec<String>,
    /// Sockets and devices.
    pub left_out: usize,
    /// Whether some could not be read.
    pub is_partial: bool,
}

/// An export under way.
struct Export<'a> {
    space: &'a Space,
    seed: &'a Seed,
    identity: Identity,
    wish: &'a Wish,
    manifest: Manifest,
    groups: Vec<Vec<Entry>>,
    changed: Vec<Vec<u8>>,
}

/// Begins, or goes on.
pub async fn take(space: &Space, seed: &Seed, wish: &Wish, steps: &mut Steps) -> Outcome<Taken> {
    make_folder(&wish.folder)?;
    let held = lock(&wish.folder)?;
    let mut export = match read(&wish.folder, seed)? {
        Some(manifest) => resume(space, seed, wish, manifest)?,
        None => begin(space, seed, wish, steps).await?,
    };
    let parts_before = export.manifest.parts.len();
    let mut found = Found::default();
    if !export.manifest.done {
        export.take_all(steps).await?;
        found = export.list(steps).await?;
        let last = export
            .groups
            .get(export.manifest.again..)
            .unwrap_or_default()
            .concat();
        let differing = listing::differing(last.iter(), &found.entries);
        export.changed.extend(differing.into_iter().map(<[u8]>::to_vec));
        export.manifest.done = true;
        export.keep()?;
    }
    drop(held);
    export.changed.sort_unstable();
    export.changed.dedup();
    let shown = |path: &Vec<u8>| plain(&String::from_utf8_lossy(path)).chars().take(200).collect();
    let again = export
        .groups
        .iter()
        .take(export.manifest.again)
        .map(Vec::len)
        .sum::<usize>();
    Ok(Taken {
        entries: export.groups.iter().map(Vec::len).sum::<usize>() - again,
        changed: export.changed.iter().map(shown).collect(),
        left_out: found.left_out,
        is_partial: found.is_partial,
        parts_before,
        manifest: export.manifest,
    })
}

fn lock(folder: &Path) -> Outcome<std::fs::File> {
    let path = folder.join(LOCK);
    let file = std::fs::File::create(&path).map_err(|error| {
        Failure::new(Code::Unexpected, format!("{} cannot be made", path.display())).because(error)
    })?;
    file.try_lock().map_err(|error| {
        Failure::new(
            Code::StillGoing,
            format!("another export into {} is going on", folder.display()),
        )
        .because(error)
        .next("wait for it, or choose another folder")
    })?;
    Ok(file)
}

/// The manifest in a folder, in words where it is none.
pub fn read(folder: &Path, seed: &Seed) -> Outcome<Option<Manifest>> {
    Manifest::read(folder, seed).map_err(|error| {
        let path = folder.join(manifest::FILE);
        Failure::new(
            Code::NotWhole,
            format!("{} says nothing about an export", path.display()),
        )
        .caused_by(&error)
        .next(
            "restore the wallet that made it (`steading wallet restore`), or bring the file back from a copy",
        )
    })
}

/// The listing of an export, held against its digests.
pub fn read_listing(folder: &Path, manifest: &Manifest, identity: &Identity) -> Outcome<Vec<Vec<Entry>>> {
    let piece = &manifest.listing;
    let wrong = || {
        Failure::new(
            Code::NotWhole,
            format!("{} is damaged", folder.join(&piece.file).display()),
        )
    };
    let next = "bring the folder back from a copy, or export into another one";
    let checked = piece::check(folder, piece, identity);
    checked.map_err(|error| wrong().caused_by(&error).next(next))?;
    let mut bytes = Vec::new();
    let mut opener = piece::open(folder, piece, identity).map_err(|error| wrong().caused_by(&error))?;
    while let Some(more) = opener.next().map_err(|error| wrong().caused_by(&error))? {
        if bytes.len() + more.len() > listing::MOST_BYTES * 2 {
            return Err(wrong());
        }
        bytes.extend_from_slice(&more);
    }
    let groups = listing::read_kept(&bytes).map_err(|error| wrong().caused_by(&error).next(next))?;
    if groups.len() == manifest.groups && manifest.again <= groups.len() {
        Ok(groups)
    } else {
        Err(wrong().because("it has another number of groups"))
    }
}

fn resume<'a>(
    space: &'a Space,
    seed: &'a Seed,
    wish: &'a Wish,
    mut manifest: Manifest,
) -> Outcome<Export<'a>> {
    let here = wish.folder.display();
    if manifest.sale != wish.sale {
        return Err(Failure::new(
            Code::Usage,
            format!("{here} holds an export of {}", plain(&manifest.space)),
        )
        .because("it is of another sale")
        .next("choose another folder"));
    }
    if manifest.paths != words(&wish.paths) {
        return Err(Failure::new(
            Code::Usage,
            format!("{here} holds an export of {}", manifest.paths.join(", ")),
        )
        .next("repeat that --path, or choose another folder"));
    }
    let identity = Identity::new(&seed.export_key(&wish.sale));
    let groups = read_listing(&wish.folder, &manifest, &identity)?;
    let whole = manifest
        .parts
        .iter()
        .take_while(|part| piece::is_there(&wish.folder, &part.piece))
        .count();
    if whole < manifest.parts.len() {
        manifest.parts.truncate(whole);
        manifest.done = false;
    }
    Ok(Export {
        space,
        seed,
        identity,
        wish,
        manifest,
        groups,
        changed: Vec::new(),
    })
}

/// Lists, plans, and writes both down.
async fn begin<'a>(
    space: &'a Space,
    seed: &'a Seed,
    wish: &'a Wish,
    steps: &mut Steps,
) -> Outcome<Export<'a>> {
    let is_ours = |name: &str| {
        name == LOCK || name == manifest::LISTING || name.ends_with(".new") || name.starts_with("export.new-")
    };
    let others = std::fs::read_dir(&wish.folder)
        .map_err(|error| {
            Failure::new(
                Code::Unexpected,
                format!("{} cannot be read", wish.folder.display()),
            )
            .because(error)
        })?
        .flatten()
        .any(|entry| !entry.file_name().to_str().is_some_and(is_ours));
    if others {
        let what = format!("{} is not empty, and holds no export", wish.folder.display());
        return Err(
            Failure::new(Code::Usage, what).next("choose another folder; it is made where there is none")
        );
    }
    let found = list(space, wish, steps).await?;
    let total = found
        .entries
        .iter()
        .map(Entry::weight)
        .fold(0, u64::saturating_add);
    if found.entries.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!("{} has nothing there to export", space.name),
        )
        .next("`steading ssh` shows what there is; --path names one folder"));
    }
    // Twice: what was deleted while it was listed, and what a file system may know better.
    if total / 2 > wish.disk_bytes {
        return Err(
            too_much(&space.name).because(format!("it lists {total} bytes and has {}", wish.disk_bytes))
        );
    }
    let part_bytes = wish.part_bytes.max(total / (MOST_PARTS / 4));
    let plan = listing::plan(found.entries, part_bytes);
    let identity = Identity::new(&seed.export_key(&wish.sale));
    let mut draft = Draft::begin(&wish.folder, manifest::LISTING, &identity)?;
    draft.write(&listing::kept(&plan)).map_err(anyhow::Error::from)?;
    let listing = draft.finish()?;
    let export = Export {
        space,
        seed,
        identity,
        wish,
        manifest: Manifest {
            steading_export: 1,
            space: space.name.clone(),
            sale: wish.sale,
            node: wish.node,
            base: wish.base,
            began_ms: now_ms(),
            paths: words(&wish.paths),
            part_bytes,
            groups: plan.groups.len(),
            again: plan.again,
            listing,
            parts: Vec::new(),
            done: false,
        },
        groups: plan.groups,
        changed: Vec::new(),
    };
    export.keep()?;
    let files = export.groups.iter().skip(plan.again).map(Vec::len).sum::<usize>();
    steps.done("listed", format!("{}, {}", count(files, "name"), human(total)));
    Ok(export)
}

/// Bytes as a person reads them.
pub fn human(bytes: u64) -> String {
    market::quantity::Bytes(bytes).human()
}

fn words(paths: &[Vec<u8>]) -> Vec<String> {
    paths
        .iter()
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect()
}

async fn list(space: &Space, wish: &Wish, steps: &mut Steps) -> Outcome<Found> {
    steps.begin("listing", "what there is to take");
    let (paths, newer) = if wish.paths.is_empty() {
        let begun_s = (wish.begun_ms / 1000).saturating_sub(CLOCKS_DIFFER_BY_S);
        (
            vec![b"/".to_vec()],
            vec!["-newerct".to_owned(), format!("@{begun_s}")],
        )
    } else {
        (wish.paths.clone(), Vec::new())
    };
    let found = ask_list(space, &paths, &newer).await?;
    steps.quiet();
    Ok(found)
}

async fn ask_list(space: &Space, asked: &[Vec<u8>], newer: &[String]) -> Outcome<Found> {
    // A file system of its own, on the volume.
    const CONTAINERS: &[u8] = b"/var/lib/containers";
    let mut paths = asked.to_vec();
    paths.extend(
        asked
            .iter()
            .any(|path| CONTAINERS.starts_with(path))
            .then(|| CONTAINERS.to_vec()),
    );
    let input = paths
        .iter()
        .flat_map(|path| path.iter().copied().chain([0]))
        .collect();
    let answer = space.ask(LIST, newer, input, listing::MOST_BYTES).await?;
    listing::read(&answer.printed, asked).map_err(|error| {
        Failure::new(
            Code::ProofFailed,
            format!("{} does not say well what it holds", space.name),
        )
        .caused_by(&error)
        .because(answer.ended.words)
        .next("look inside with `steading ssh`: its find is not what it seems; --path takes one folder alone")
    })
}

impl Export<'_> {
    fn keep(&self) -> Outcome {
        Ok(self.manifest.write(&self.wish.folder, self.seed)?)
    }

    async fn list(&self, steps: &mut Steps) -> Outcome<Found> {
        list(self.space, self.wish, steps).await
    }

    async fn take_all(&mut self, steps: &mut Steps) -> Outcome {
        let total: u64 = self
            .groups
            .iter()
            .flatten()
            .map(Entry::weight)
            .fold(0, u64::saturating_add);
        steps.begin("taking", "");
        loop {
            let (number, before) = self.manifest.next_group();
            let Some(group) = self.groups.get(number - 1).cloned() else {
                break;
            };
            if !before.is_empty() && !self.is_as_it_was(&group).await? {
                // Its stream would not go on where it stopped.
                self.changed.extend(group.into_iter().map(|entry| entry.path));
                self.manifest.parts.retain(|part| part.group < number);
                self.keep()?;
                continue;
            }
            self.take_group(number, &group, total, steps).await?;
        }
        let taken = self.manifest.plain_bytes();
        steps.done(
            "taken",
            format!("{}, {}", human(taken), count(self.manifest.parts.len(), "part")),
        );
        Ok(())
    }

    /// Whether nothing of a group changed since it was listed.
    async fn is_as_it_was(&self, group: &[Entry]) -> Outcome<bool> {
        let paths: Vec<Vec<u8>> = group.iter().map(|entry| entry.path.clone()).collect();
        let input = paths
            .iter()
            .flat_map(|path| path.iter().copied().chain([0]))
            .collect();
        let depth = ["-maxdepth".to_owned(), "0".to_owned()];
        let answer = self.space.ask(LIST, &depth, input, listing::MOST_BYTES).await?;
        Ok(listing::read(&answer.printed, &paths)
            .is_ok_and(|found| listing::differing(group.iter(), &found.entries).is_empty()))
    }

    /// Takes a group's stream from where it stopped, and cuts it into parts.
    async fn take_group(&mut self, number: usize, group: &[Entry], total: u64, steps: &mut Steps) -> Outcome {
        let from: u64 = self
            .manifest
            .next_group()
            .1
            .iter()
            .map(|part| part.piece.plain_bytes)
            .sum();
        let mut left = listing::most_bytes(group).saturating_sub(from);
        let mut talk = self.space.start(TAKE, &[(from + 1).to_string()])?;
        talk.feed(listing::names(group));
        let mut buffer = vec![0; PIECE];
        let mut tail = Vec::new();
        let mut draft = self.draft()?;
        loop {
            let mut bytes = talk.read(&mut buffer).await?;
            if bytes.is_empty() {
                break;
            }
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            left = left
                .checked_sub(length)
                .ok_or_else(|| too_much(&self.space.name))?;
            tail.extend_from_slice(bytes);
            tail.drain(..tail.len().saturating_sub(LAST_ZEROS));
            while !bytes.is_empty() {
                let room = self.manifest.part_bytes - draft.plain_bytes();
                if room == 0 {
                    self.keep_part(number, false, draft)?;
                    draft = self.draft()?;
                    continue;
                }
                let (now, rest) =
                    bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                draft.write(now).map_err(|error| self.disk(&error))?;
                bytes = rest;
            }
            let taken = self.manifest.plain_bytes().saturating_add(draft.plain_bytes());
            steps.doing(format!("{} of about {}", human(taken), human(total.max(taken))));
        }
        let ended = talk.end().await?;
        let is_ended = !tail.is_empty() && tail.iter().all(|byte| *byte == 0);
        if !TAR_DONE.contains(&ended.code) || !is_ended {
            return Err(Failure::new(
                Code::Unexpected,
                format!("tar in {} ended too early", self.space.name),
            )
            .because(format!("code {}: {}", ended.code, ended.words))
            .next("the same command goes on where this one stopped; see what is wrong with `steading ssh`"));
        }
        self.keep_part(number, true, draft)
    }

    fn draft(&self) -> Outcome<Draft> {
        let name = manifest::part_name(self.manifest.parts.len() + 1);
        Draft::begin(&self.wish.folder, &name, &self.identity).map_err(|error| self.disk(&*error))
    }

    fn keep_part(&mut self, group: usize, ends_group: bool, draft: Draft) -> Outcome {
        let piece = draft.finish().map_err(|error| self.disk(&*error))?;
        self.manifest.parts.push(Part {
            group,
            ends_group,
            piece,
        });
        self.keep()
    }

    fn disk(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::new(
            Code::Unexpected,
            format!("{} cannot be written to", self.wish.folder.display()),
        )
        .caused_by(error)
        .next("make room; the same command goes on where this one stopped")
    }
}
