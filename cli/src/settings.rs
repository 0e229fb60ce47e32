//! Where things are: folders, the grid's ticket, the ledger's address.
//!
//! | what | with `STEADING_HOME` | else |
//! |---|---|---|
//! | `config.toml` | `$STEADING_HOME` | `$XDG_CONFIG_HOME/steading`, or `~/.config/steading` |
//! | seed, sales | `$STEADING_HOME/data` | `$XDG_DATA_HOME/steading`, or `~/.local/share/steading` |
//! | ssh files, last offers | `$STEADING_HOME/state` | `$XDG_STATE_HOME/steading`, or `~/.local/state/steading` |
//!
//! A flag goes before the variable (`STEADING_GRID`, `STEADING_LEDGER`), the variable before the file.

use std::path::{Path, PathBuf};

use grid::GridTicket;
use ledger::RailAddress;
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, Outcome};

/// The three folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// `config.toml`.
    pub config: PathBuf,
    /// What must not be lost.
    pub data: PathBuf,
    /// What can be made again.
    pub state: PathBuf,
    /// Set if `STEADING_HOME` moved them: others must be told.
    pub home: Option<PathBuf>,
}

impl Folders {
    /// From the environment.
    pub fn find() -> Outcome<Folders> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        if let Some(home) = std::env::var_os("STEADING_HOME").filter(|home| !home.is_empty()) {
            let home = std::path::absolute(PathBuf::from(home)).map_err(|error| {
                Failure::new(Code::Unexpected, "STEADING_HOME is no folder").because(error)
            })?;
            return Ok(Folders::under(&home));
        }
        let below = |name: &str, fallback: &str| {
            variable(name)
                .or_else(|| variable("HOME").map(|home| home.join(fallback)))
                .map(|base| base.join("steading"))
                .ok_or_else(|| {
                    Failure::new(Code::Unexpected, "there is no home folder")
                        .because("neither HOME nor STEADING_HOME is set")
                        .next("set STEADING_HOME to the folder to use")
                })
        };
        Ok(Folders {
            config: below("XDG_CONFIG_HOME", ".config")?,
            data: below("XDG_DATA_HOME", ".local/share")?,
            state: below("XDG_STATE_HOME", ".local/state")?,
            home: None,
        })
    }

    /// All under one folder.
    pub fn under(home: &Path) -> Folders {
        Folders {
            config: home.to_owned(),
            data: home.join("data"),
            state: home.join("state"),
            home: Some(home.to_owned()),
        }
    }
}

/// `config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    grid: Option<String>,
    ledger: Option<String>,
}

/// What was configured, by flag, variable or file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folders.
    pub folders: Folders,
    grid: Option<String>,
    ledger: Option<String>,
    file: File,
}

impl Settings {
    /// Reads file and variables; the flags go before both.
    pub fn read(grid: Option<String>, ledger: Option<String>) -> Outcome<Settings> {
        let folders = Folders::find()?;
        let path = folders.config.join("config.toml");
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Failure::new(Code::Usage, format!("{} cannot be read", path.display()))
                    .because(error.to_string().trim())
                    .next("it has two keys: grid = \"…\" and ledger = \"…\"")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => {
                let what = format!("{} cannot be read", path.display());
                return Err(Failure::new(Code::Unexpected, what).because(error));
            }
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Ok(Settings {
            folders,
            grid: grid.or_else(|| variable("STEADING_GRID")),
            ledger: ledger.or_else(|| variable("STEADING_LEDGER")),
            file,
        })
    }

    /// The grid's ticket.
    pub fn ticket(&self) -> Outcome<GridTicket> {
        let text = self.grid.as_ref().or(self.file.grid.as_ref()).ok_or_else(|| {
            Failure::new(Code::Grid, "no grid is configured")
                .next("give --grid TICKET (the line that `steading grid serve` prints), or set STEADING_GRID, or write grid = \"…\" into config.toml")
        })?;
        text.parse().map_err(|error: grid::TicketError| {
            Failure::new(Code::Usage, "the grid's ticket is not valid").caused_by(&error)
        })
    }

    /// The ledger's address.
    pub fn rail(&self) -> Outcome<RailAddress> {
        let text = self.ledger.as_ref().or(self.file.ledger.as_ref()).ok_or_else(|| {
            Failure::new(Code::Rail, "no ledger is configured")
                .next("give --ledger ADDRESS (the line that `steading ledger serve` prints), or set STEADING_LEDGER, or write ledger = \"…\" into config.toml")
        })?;
        text.parse().map_err(|error: ledger::address::AddressError| {
            Failure::new(Code::Usage, "the ledger's address is not valid").caused_by(&error)
        })
    }

    /// Writes grid and ledger into the file where it has none yet, so that the next command needs
    /// no flag. Returns whether it did.
    pub fn keep(&self) -> anyhow::Result<bool> {
        let mut file = self.file.clone();
        if file.grid.is_none() && self.ticket().is_ok() {
            file.grid.clone_from(&self.grid);
        }
        if file.ledger.is_none() && self.rail().is_ok() {
            file.ledger.clone_from(&self.ledger);
        }
        if file == self.file {
            return Ok(false);
        }
        crate::files::make_folder(&self.folders.config)?;
        let text = toml::to_string(&file)?;
        crate::files::write_whole(&self.folders.config.join("config.toml"), text.as_bytes())?;
        Ok(true)
    }
}

/// `config.toml`, for its fuzz target.
#[cfg(fuzzing)]
pub fn is_file(text: &str) -> bool {
    toml::from_str::<File>(text).is_ok()
}
