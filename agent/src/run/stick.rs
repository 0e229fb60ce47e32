//! The stick after all was read from it: the console says that it may go, and that it went.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::console::Board;

/// Whether it is still there is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Says that `disk`, the kernel's name of the medium, may be pulled out, waits until somebody does, and says so. Called when
/// every disk has its base: until the next start nothing is read from the medium any more.
pub(super) async fn watch(board: &Board, disk: &str) {
    board.event(format!(
        "the stick ({disk}) may be pulled out; the machine needs it when it starts again"
    ));
    mark(board, disk, "booted from, may be pulled out");
    let device: PathBuf = Path::new("/sys/block").join(disk);
    while device.exists() {
        sleep(LOOK_EVERY).await;
    }
    board.event(format!(
        "stick pulled out ({disk}): put it back before the machine starts again"
    ));
    mark(board, disk, "booted from, pulled out");
}

fn mark(board: &Board, disk: &str, state: &str) {
    board.update(|status| {
        for shown in status.disks.iter_mut().flatten() {
            if shown.name == disk {
                state.clone_into(&mut shown.state);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Disk;

    #[tokio::test]
    async fn the_console_says_that_the_stick_may_go_and_that_it_went() {
        let board = Board::new("test");
        let shown = |name: &str| Disk {
            name: name.into(),
            ..Disk::default()
        };
        board.update(|status| status.disks = Some(vec![shown("no such disk"), shown("vda")]));
        watch(&board, "no such disk").await;
        let said: Vec<String> = board.events().iter().map(|event| event.text.clone()).collect();
        assert!(said[0].contains("may be pulled out") && said[1].starts_with("stick pulled out"));
        let states: Vec<String> = board
            .status()
            .disks
            .into_iter()
            .flatten()
            .map(|disk| disk.state)
            .collect();
        assert_eq!(states, ["booted from, pulled out", ""]);
    }
}
