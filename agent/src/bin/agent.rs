//! `agent`: everything of a node that is not PID 1.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

const HELP: &str = "\
agent: what a Steading node runs

  agent run                           the node itself; PID 1 starts it
  agent close                         lets go of all volumes; PID 1 calls it at halt
  agent inventory [--json]            what this machine is made of
        [--root DIR]                  the same of a captured /sys and /proc below DIR
        [--capture]                   writes down what was read, for a bug report
  agent --version
";

fn main() -> ExitCode {
    match dispatch(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// A call that nobody can understand.
#[derive(Debug, thiserror::Error)]
#[error("{0}\n\n{HELP}")]
struct Usage(String);

fn dispatch(arguments: Vec<String>) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run"] => run(),
        ["close"] => agent::close::close(),
        ["inventory", options @ ..] => inventory(options),
        ["--version" | "-V"] => {
            println!("agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["--help" | "-h" | "help"] => {
            print!("{HELP}");
            Ok(())
        }
        [] => bail!(Usage("a verb is missing".into())),
        [verb, ..] => bail!(Usage(format!("\"{verb}\" cannot be done like this"))),
    }
}

fn run() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "error,agent=warn,console=off".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(agent::run::run());
    // It is started again at once: what still waits for a disk that does not answer is not waited for.
    runtime.shutdown_background();
    match ended? {}
}

fn inventory(options: &[&str]) -> anyhow::Result<()> {
    let mut root = PathBuf::from("/");
    let (mut json, mut capture) = (false, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--json" => json = true,
            "--capture" => capture = true,
            "--root" => {
                let folder = options
                    .next()
                    .ok_or_else(|| Usage("--root wants a folder".into()))?;
                root = PathBuf::from(folder);
            }
            other => bail!(Usage(format!("\"{other}\" is not an option of inventory"))),
        }
    }
    if !root.is_dir() {
        let root = root.display();
        bail!(Usage(format!(
            "--root {root}: there is no such folder; it wants one that holds sys and proc of a machine"
        )));
    }
    let mut out = std::io::stdout().lock();
    if capture {
        write!(out, "{}", ::inventory::capture::capture(&root))?;
        return Ok(());
    }
    let inventory = ::inventory::read(&root);
    let contents: Vec<(String, Option<String>)> = inventory
        .disks
        .iter()
        .flatten()
        .map(|disk| (disk.name.clone(), content(&root, &disk.name)))
        .collect();
    if json {
        let mut value = serde_json::to_value(&inventory)?;
        for (index, (_, content)) in contents.into_iter().enumerate() {
            value["disks"][index]["content"] = content.into();
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    write!(out, "{inventory}")?;
    for (name, content) in contents {
        if let Some(content) = content {
            writeln!(out, "           {name} holds {content}")?;
        }
    }
    Ok(())
}

/// What is on a disk of this machine; unknown of a captured one, or without the right to read it.
fn content(root: &Path, disk: &str) -> Option<String> {
    if root != Path::new("/") {
        return None;
    }
    let content = storage::probe::probe(&Path::new("/dev").join(disk)).ok()?;
    Some(content.words())
}
