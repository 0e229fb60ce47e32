//! `steading flash`: an image onto a stick or into a file, with the farmer's settings on it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use farmer::Reading;
use market::quantity::Bytes;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::exit::{Code, Failure, Outcome};
use crate::flash::disks::{self, Found};
use crate::flash::medium::{Medium, Opened};
use crate::flash::source::{Signed, Source};
use crate::flash::write::{self, FlashError};
use crate::flash::{Progress, settings::SettingsError};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::count;

mod list;
mod told;

/// The line that moves says so often how far it is.
const SHOWN_EVERY: Duration = Duration::from_millis(250);
/// More files at once are a slip of the keyboard.
const MOST_FILES: u32 = 1000;

/// Flags of `flash`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  steading flash                                       which sticks there are
  steading flash steading.img.zst --to sdb --wallet steading:… --price 0.40
  steading flash --to sdb --set name=barn-2            change one that is there
  steading flash steading.img --file farm.img --wallet steading:…
                            one image for many sticks, by any flashing program
  steading flash steading.img --file farm.img --count 5 --name 'barn-%n'
                                      farm-1.img to farm-5.img, a name for each
Each node makes its own identity when it first starts: an image holds none, so
one may be written to as many sticks as you like. Everything is read back from
the stick to its end; one that claims more than it has is found out. The first
block comes last: what was stopped halfway starts no machine.")]
pub struct Arguments {
    /// The image: .img or .img.zst. Without it a stick that is there is changed, and without a stick all are listed.
    #[arg(value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// The disk to write, as listed; may be repeated. All that is on it is lost.
    #[arg(long, value_name = "DISK")]
    to: Vec<String>,
    /// A file to write in a disk's stead.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    file: Option<PathBuf>,
    /// So many files, FILE-1 to FILE-N, with %n in --name and --set counting.
    #[arg(long, value_name = "N", requires = "file", requires = "image")]
    count: Option<u32>,
    /// Where earnings go: an address as `steading wallet new` shows it.
    #[arg(long, value_name = "ADDRESS")]
    wallet: Option<String>,
    /// What an hour of one unit costs, as in 0.40.
    #[arg(long, value_name = "PRICE")]
    price: Option<String>,
    /// Where the machine stands: two letters, as in BE.
    #[arg(long, value_name = "CC", visible_alias = "place")]
    country: Option<String>,
    /// What people call the node; %n counts.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Any other key of farmer.toml; an empty value puts a key to sleep. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The minisign key that must have signed the image: the key, or its file. Else `image.pub` beside config.toml.
    #[arg(long, value_name = "KEY", requires = "image")]
    key: Option<String>,
    /// Allow disks that are built in. What they hold has to be typed away by name.
    #[arg(long)]
    any_disk: bool,
    /// Do not ask before a stick that holds something is written.
    #[arg(long)]
    yes: bool,
}

/// What is written, and what for.
#[derive(Clone, Debug)]
struct Target {
    /// As a person calls it.
    name: String,
    path: PathBuf,
    /// None for a file.
    disk: Option<Found>,
    keys: Vec<(String, String)>,
}

/// What was done to one target.
struct Done {
    target: Target,
    reading: Reading,
    image_bytes: Option<u64>,
    took: Duration,
}

/// Lists, flashes or changes.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let keys = keys(&arguments, &settings)?;
    let targets = targets(&arguments, &keys)?;
    if targets.is_empty() {
        if arguments.image.is_some() || has_keys(&arguments) {
            return Err(
                Failure::new(Code::Usage, "it is not said what to write; nothing was written")
                    .next("give --to DISK (`steading flash` lists them) or --file FILE"),
            );
        }
        return list::show(screen);
    }
    for target in &targets {
        write::would_take(&target.keys).map_err(|error| {
            Failure::new(
                Code::Usage,
                format!("the settings will not do; {} was not touched", target.name),
            )
            .because(error)
        })?;
    }
    confirm(&arguments, &targets)?;
    let progress = Arc::new(Progress::default());
    let mut steps = Steps::new();
    let source = match &arguments.image {
        Some(image) => Some(Arc::new(
            check(image, &arguments, &settings, &progress, &mut steps).await?,
        )),
        None => None,
    };
    let mut done = Vec::new();
    for target in targets {
        let progress = Arc::new(Progress::default());
        let since = Instant::now();
        let (job, shared, from) = (target.clone(), progress.clone(), source.clone());
        let work = spawn_blocking(move || one(&job, from.as_deref(), &shared));
        let outcome = watched(work, &progress, &mut steps).await?;
        let (reading, image_bytes) = outcome.map_err(|error| told::failure(&target, &error, &progress))?;
        let doing = if image_bytes.is_none() && target.keys.is_empty() {
            "read"
        } else {
            "written"
        };
        steps.done_in(
            doing,
            &format!(
                "{}{}",
                target.name,
                if doing == "read" { "" } else { ", and read back" }
            ),
            since.elapsed().as_secs_f64(),
        );
        done.push(Done {
            target,
            reading,
            image_bytes,
            took: since.elapsed(),
        });
    }
    drop(steps);
    screen.result_and_told(
        &told::json(&done, source.as_deref()),
        &told::text(&done, source.as_deref()),
    )
}

/// One target, from its opening to its last block.
fn one(
    target: &Target,
    source: Option<&Source>,
    progress: &Progress,
) -> Result<(Reading, Option<u64>), FlashError> {
    let opening = |source| FlashError::Medium {
        doing: "opened",
        source,
    };
    let Some(source) = source else {
        let mut medium = match &target.disk {
            Some(disk) => Opened::disk(&target.path, disk.bytes),
            None => Opened::old_file(&target.path),
        }
        .map_err(opening)?;
        return Ok((write::change(&mut medium, &target.keys)?, None));
    };
    let length = source.length().map_err(FlashError::Image)?;
    let mut image = source.open().map_err(FlashError::Image)?;
    let mut medium = match &target.disk {
        Some(disk) => Opened::disk(&target.path, disk.bytes).map_err(opening)?,
        None => Opened::new_file(&target.path, length).map_err(opening)?,
    };
    debug_assert_eq!(medium.may_lie(), target.disk.is_some());
    let flashed = write::flash(&mut medium, &mut image, Some(length), &target.keys, progress)?;
    Ok((flashed.reading, Some(flashed.image_bytes)))
}

/// Waits for the work and shows how far it is; Ctrl-C asks it to stop at the next block.
async fn watched<T>(
    mut work: tokio::task::JoinHandle<T>,
    progress: &Progress,
    steps: &mut Steps,
) -> Outcome<T> {
    let mut shown = ("", String::new());
    let mut pressed = false;
    let heard = tokio::signal::ctrl_c();
    tokio::pin!(heard);
    loop {
        tokio::select! {
            done = &mut work => {
                steps.quiet();
                return done.map_err(|error| Failure::new(Code::Unexpected, "the writing broke off").because(error));
            }
            heard = &mut heard, if !pressed => {
                heard.map_err(|error| Failure::new(Code::Unexpected, "Ctrl-C cannot be heard").because(error))?;
                pressed = true;
                progress.stop();
            }
            () = tokio::time::sleep(SHOWN_EVERY) => {
                let now = progress.doing();
                if now.0 == shown.0 {
                    steps.doing(now.1.clone());
                } else {
                    steps.begin(now.0, now.1.clone());
                }
                shown = now;
            }
        }
    }
}

/// Holds the image against its checksum and its signature.
async fn check(
    image: &Path,
    arguments: &Arguments,
    settings: &Settings,
    progress: &Arc<Progress>,
    steps: &mut Steps,
) -> Outcome<Source> {
    let pinned = settings.folders.config.join("image.pub");
    let key = arguments
        .key
        .clone()
        .or_else(|| pinned.exists().then(|| pinned.display().to_string()));
    let (path, shared) = (image.to_owned(), progress.clone());
    let work = spawn_blocking(move || Source::check(&path, key.as_deref(), &shared));
    let source = watched(work, progress, steps)
        .await?
        .map_err(|error| told::bad_image(&error))?;
    let words = match (source.has_sum, source.signed) {
        (_, Signed::Good) => "the image's signature is good",
        (true, Signed::Unchecked) => "the image's checksum is right; it is signed, and no --key was given",
        (true, Signed::No) => "the image's checksum is right",
        (false, Signed::Unchecked) => "no checksum beside the image; it is signed, and no --key was given",
        (false, Signed::No) => "no checksum beside the image: nothing says whether it is whole",
    };
    steps.done("image", words);
    Ok(source)
}

fn has_keys(arguments: &Arguments) -> bool {
    let flags = [
        &arguments.wallet,
        &arguments.price,
        &arguments.country,
        &arguments.name,
    ];
    !arguments.set.is_empty() || flags.iter().any(|flag| flag.is_some())
}

/// What is to be set. A new stick gets the grid and the ledger that this client knows.
fn keys(arguments: &Arguments, settings: &Settings) -> Outcome<Vec<(String, String)>> {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: String| {
        keys.retain(|(known, _)| known != key);
        keys.push((key.to_owned(), value));
    };
    if arguments.image.is_some() {
        if let Ok(ticket) = settings.ticket() {
            put("grid", ticket.to_string());
        }
        if let Ok(rail) = settings.rail() {
            put("ledger", rail.to_string());
        }
    }
    for (key, value) in [
        ("wallet", &arguments.wallet),
        ("price", &arguments.price),
        ("country", &arguments.country),
        ("name", &arguments.name),
    ] {
        if let Some(value) = value {
            put(key, value.clone());
        }
    }
    for pair in &arguments.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("--set {pair:?} has no =; nothing was written"),
            )
            .next("write it like --set name=barn-2")
        })?;
        put(key.trim(), value.to_owned());
    }
    Ok(keys)
}

/// What is to be written, each checked as far as it can be without opening it.
fn targets(arguments: &Arguments, keys: &[(String, String)]) -> Outcome<Vec<Target>> {
    let numbered = |number: usize| -> Vec<(String, String)> {
        let number = number.to_string();
        keys.iter()
            .map(|(key, value)| (key.clone(), value.replace("%n", &number)))
            .collect()
    };
    if let Some(file) = &arguments.file {
        let Some(files) = arguments.count else {
            return Ok(vec![Target {
                name: file.display().to_string(),
                path: file.clone(),
                disk: None,
                keys: numbered(1),
            }]);
        };
        if !(1..=MOST_FILES).contains(&files) {
            return Err(
                Failure::new(Code::Usage, format!("--count {files}; nothing was written"))
                    .next(format!("write a number from 1 to {MOST_FILES}")),
            );
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let ending = file
            .extension()
            .map(|ending| format!(".{}", ending.to_string_lossy()));
        let of = |number: usize| {
            file.with_file_name(format!("{stem}-{number}{}", ending.clone().unwrap_or_default()))
        };
        return Ok((1..=files as usize)
            .map(|number| Target {
                name: of(number).display().to_string(),
                path: of(number),
                disk: None,
                keys: numbered(number),
            })
            .collect());
    }
    let root = Path::new("/");
    let all = if arguments.to.is_empty() {
        Vec::new()
    } else {
        disks::find(root)
    };
    let mut targets: Vec<Target> = Vec::new();
    for (number, given) in (1..).zip(&arguments.to) {
        let disk = list::choose(root, &all, given, arguments.any_disk)?;
        if targets.iter().any(|target| target.name == disk.name) {
            return Err(Failure::new(
                Code::Usage,
                format!("--to {given} is there twice; nothing was written"),
            ));
        }
        targets.push(Target {
            name: disk.name.clone(),
            path: disk.path.clone(),
            disk: Some(disk),
            keys: numbered(number),
        });
    }
    Ok(targets)
}

/// Asks before anything is lost: the name for a stick that holds something, `erase NAME` for a disk that is built in.
fn confirm(arguments: &Arguments, targets: &[Target]) -> Outcome {
    if arguments.image.is_none() {
        return Ok(());
    }
    for target in targets {
        let Some(disk) = &target.disk else { continue };
        let (built_in, holds) = (!disk.removable, disk.holds.as_deref());
        if !built_in && (arguments.yes || holds.is_none()) {
            continue;
        }
        let wanted = if built_in {
            format!("erase {}", disk.name)
        } else {
            disk.name.clone()
        };
        let holds = holds.map_or_else(
            || "what it holds is not known".to_owned(),
            |holds| format!("it holds {holds}"),
        );
        let stdin = std::io::stdin();
        if !built_in && !stdin.is_terminal() {
            return Err(Failure::new(
                Code::Usage,
                format!("{} is not empty; nothing was written", disk.name),
            )
            .because(format!("{holds}, and nobody is there to be asked"))
            .next("look with `steading flash`, then give --yes"));
        }
        eprint!(
            "{} ({}): {holds}. All of it will be lost.\nType \"{wanted}\" to go on: ",
            disk.name,
            disk.words()
        );
        let _ = std::io::stderr().flush();
        let mut typed = String::new();
        let read = stdin.lock().read_line(&mut typed);
        if read.is_err() || typed.trim() != wanted {
            return Err(
                Failure::new(Code::DiskRefused, format!("{} was not touched", disk.name))
                    .because(format!("\"{wanted}\" was not typed")),
            );
        }
    }
    Ok(())
}
