//! What people confirm at the consoles, done: by the same ways as by `farmer.toml` and by the farmer's commands.
//!
//! ```text
//!  claim ─► the disk's line, kept in memory ─► the agent ends and is started again ─► disks: as `erase` of farmer.toml
//!  stop ──► the sale's keeper, as `steading node stop`
//!  reboot, off ─► a signal to PID 1
//! ```
//!
//! Disks are claimed when the agent starts, before anything stands on them, and nowhere else. It may start again at any
//! time: spaces run on. A line is taken once: it is gone from memory before a disk is looked at, and with a power cut.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use host::{names, power};
use market::id::SaleId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::console::{Act, Acted, Board};
use crate::desk::Desk;

/// Acts that may wait.
pub(super) const MOST_WAITING: usize = 8;
/// What the consoles have to show a last line.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines that are kept: as many as a machine has disks, and more.
const MOST_LINES: usize = 256;

/// Does what is confirmed, until the consoles are gone. `again` ends the agent, with the reason.
pub(super) async fn serve(
    board: Board,
    mut acts: mpsc::Receiver<Acted>,
    desk: watch::Receiver<Option<Desk>>,
    again: oneshot::Sender<String>,
) {
    let mut again = Some(again);
    while let Some((console, act)) = acts.recv().await {
        match act {
            Act::Claim { disk, holds, line } => {
                board.event(format!(
                    "{disk} ({holds}): erased and claimed as confirmed at {console}"
                ));
                match leave(Path::new(names::RUN_CONSENTS), &line) {
                    Ok(()) => {
                        sleep(LAST_WORDS).await;
                        if let Some(again) = again.take() {
                            let _ = again
                                .send(format!("starts again to claim {disk}, as confirmed at {console}"));
                        }
                    }
                    Err(error) => board.event(format!("{disk}: not erased: its line is not kept: {error}")),
                }
            }
            Act::Stop { sale, name } => {
                board.event(format!("{name}: stopped, as confirmed at {console}"));
                let (board, desk) = (board.clone(), desk.borrow().clone());
                // The rail may be silent for long: the next act does not wait for it.
                crate::task::spawn(async move {
                    let Some(desk) = desk else {
                        let why = "the node has not opened its desk (no grid, no ledger?)";
                        return board.event(format!("{name} cannot be stopped now: {why}"));
                    };
                    match desk.stop(SaleId(sale)).await {
                        Ok(()) => board.event(format!("{name} stopped, the rest went back")),
                        Err(refusal) => board.event(format!("{name} was not stopped: {}", refusal.words)),
                    }
                });
            }
            Act::Reboot => {
                board.event(format!("starts again, as confirmed at {console}"));
                told(&board, power::request_reboot());
            }
            Act::PowerOff => {
                board.event(format!("switches itself off, as confirmed at {console}"));
                told(&board, power::request_power_off());
            }
        }
    }
}

fn told(board: &Board, asked: io::Result<()>) {
    if let Err(error) = asked {
        board.event(format!("PID 1 was not told: {error}"));
    }
}

/// Keeps a line for the agent's next start.
fn leave(path: &Path, line: &str) -> io::Result<()> {
    let mut lines = read(path)?;
    lines.push(line.to_owned());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, lines.join("\n"))
}

/// The lines that were left, once. A file that cannot be taken away gives none: it would be good twice.
pub(super) fn take_lines() -> Vec<String> {
    take(Path::new(names::RUN_CONSENTS))
}

fn take(path: &Path) -> Vec<String> {
    let lines = read(path).unwrap_or_default();
    match fs::remove_file(path) {
        Ok(()) => lines,
        Err(_) => Vec::new(),
    }
}

fn read(path: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().take(MOST_LINES).map(String::from).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_good_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/consents");
        assert_eq!(take(&path), Vec::<String>::new());
        leave(&path, "/dev/vdb, 8 GiB, ext4 backup").expect("kept");
        leave(&path, "/dev/vdc, 8 GiB, swap").expect("kept");
        assert_eq!(
            take(&path),
            ["/dev/vdb, 8 GiB, ext4 backup", "/dev/vdc, 8 GiB, swap"]
        );
        assert_eq!(take(&path), Vec::<String>::new());
    }
}
