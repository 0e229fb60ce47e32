//! Where a person at the machine reads: every console that exists.
//!
//! The kernel writes its messages to the consoles named on its command line; a farmer may sit at
//! another one. So lines go to all: those that the kernel has active, the screen, and the first
//! two serial ports that have a chip behind them. A console that does not take what is written
//! (flow control, no listener) loses it after a moment and holds up nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::PollFlags;

/// How long a full console is waited for, each time that it is full.
const PATIENCE: Duration = Duration::from_millis(500);

/// The names of the consoles of the machine whose `/sys` is at `sys`, each once.
pub fn names(sys: &Path) -> Vec<String> {
    let active = fs::read_to_string(sys.join("class/tty/console/active")).unwrap_or_default();
    let mut names: Vec<String> = active.split_whitespace().map(String::from).collect();
    // A screen: any virtual terminal. A serial port without a chip has type 0.
    if sys.join("class/tty/tty0").exists() {
        names.push("tty0".into());
    }
    for port in ["ttyS0", "ttyS1"] {
        let kind = fs::read_to_string(sys.join("class/tty").join(port).join("type")).unwrap_or_default();
        if !matches!(kind.trim(), "" | "0") {
            names.push(port.into());
        }
    }
    let mut seen = Vec::new();
    names.retain(|name| !seen.contains(name) && (seen.push(name.clone()), true).1);
    names
}

/// All consoles, open.
#[derive(Debug)]
pub struct Consoles(Vec<(PathBuf, File)>);

impl Consoles {
    /// Opens every console of this machine that lets itself be opened.
    pub fn open() -> Self {
        let open = |name: String| {
            let path = Path::new("/dev").join(name);
            let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&path)
                .ok()?;
            Some((path, file))
        };
        Self(names(Path::new("/sys")).into_iter().filter_map(open).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The devices.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Writes to all of them.
    pub fn write(&mut self, text: &[u8]) {
        for (_, file) in &mut self.0 {
            let _ = write_patiently(file, text);
        }
    }

    /// Writes one line to all of them.
    pub fn line(&mut self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Writes to those whose path fulfils `which`: a screen can be redrawn, a serial line not.
    pub fn write_where(&mut self, text: &[u8], which: impl Fn(&Path) -> bool) {
        for (_, file) in self.0.iter_mut().filter(|(path, _)| which(path)) {
            let _ = write_patiently(file, text);
        }
    }
}

fn write_patiently(file: &mut File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Ok(()),
            Ok(n) => text = &text[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !crate::process::wait_events(file.as_fd(), PollFlags::POLLOUT, PATIENCE)? {
                    return Ok(());
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (PathBuf, impl Drop) {
        struct Remove(PathBuf);
        impl Drop for Remove {
            fn drop(&mut self) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
        let root = std::env::temp_dir().join(format!("host-console-{}-{}", std::process::id(), files.len()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (root.clone(), Remove(root))
    }

    #[test]
    fn every_console_is_named_once() {
        let (root, _keep) = machine(&[
            ("class/tty/console/active", "tty0 ttyS0\n"),
            ("class/tty/tty0/dev", "4:0\n"),
            ("class/tty/ttyS0/type", "4\n"),
            ("class/tty/ttyS1/type", "4\n"),
            ("class/tty/ttyS2/type", "4\n"),
        ]);
        assert_eq!(names(&root), ["tty0", "ttyS0", "ttyS1"]);
    }

    #[test]
    fn a_port_without_a_chip_is_no_console() {
        let (root, _keep) = machine(&[
            ("class/tty/console/active", "ttyS0\n"),
            ("class/tty/ttyS1/type", "0\n"),
        ]);
        assert_eq!(names(&root), ["ttyS0"]);
    }

    #[test]
    fn a_machine_without_any_has_none() {
        assert_eq!(names(Path::new("/nonexistent")), Vec::<String>::new());
    }
}
