//! One console to write on and to read keys from.
//!
//! Invariants: nothing here waits but [`Terminal::wait`], which has a limit; what the console does not take yet is kept, up
//! to [`MOST_PENDING`], and who draws asks for that first. The terminal's settings are as they were when it is let go.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

/// Bytes that wait for a console: some screens.
pub const MOST_PENDING: usize = 256 << 10;

/// A console that is open.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    before: Option<Termios>,
    pending: Vec<u8>,
}

impl Terminal {
    /// Opens a console and takes it over: keys come at once, unseen, and none of them is a signal.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = |read: bool| {
            OpenOptions::new()
                .read(read)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open(path)
        };
        // What cannot be read is still written.
        Ok(Self::from_file(open(true).or_else(|_| open(false))?))
    }

    /// Takes over an open one, which does not block.
    #[must_use]
    pub fn from_file(file: File) -> Self {
        let before = tcgetattr(&file).ok();
        if let Some(mut settings) = before.clone() {
            settings.local_flags &= !(LocalFlags::ICANON
                | LocalFlags::ECHO
                | LocalFlags::ECHONL
                | LocalFlags::ISIG
                | LocalFlags::IEXTEN);
            // A stray XOFF would stop all that is written; a break is no key. What is written is left as it
            // was set: the kernel and PID 1 write here too.
            settings.input_flags &= !(InputFlags::IXON
                | InputFlags::IXOFF
                | InputFlags::BRKINT
                | InputFlags::PARMRK
                | InputFlags::ISTRIP
                | InputFlags::INLCR
                | InputFlags::IGNCR
                | InputFlags::ICRNL);
            settings.input_flags |= InputFlags::IGNBRK;
            settings.control_flags |= ControlFlags::CREAD | ControlFlags::CLOCAL;
            settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
            settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
            let _ = tcsetattr(&file, SetArg::TCSANOW, &settings);
        }
        Self {
            file,
            before,
            pending: Vec::new(),
        }
    }

    /// Rows and columns, where the kernel knows them: of a screen, not of a serial line.
    #[must_use]
    pub fn size(&self) -> Option<(u16, u16)> {
        let mut size = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the kernel writes one `winsize`, for which the pointer is valid.
        let told = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        (told == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }

    /// Whether something that was to be written was not taken yet.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what it takes now and keeps the rest; what does not fit is lost.
    ///
    /// # Errors
    /// When the console is gone.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let room = MOST_PENDING.saturating_sub(self.pending.len()).min(text.len());
        self.pending.extend_from_slice(&text[..room]);
        self.flush()
    }

    /// Writes more of what waits.
    ///
    /// # Errors
    /// When the console is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(0) => return Ok(()),
                Ok(n) => drop(self.pending.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What came in, as much as `into` holds; nothing is 0.
    ///
    /// # Errors
    /// When the console is gone.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.file.read(into) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(n),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until something came in here or at `other`, or what waits can be written; at most `limit`. Whether there
    /// is something to read here.
    ///
    /// # Errors
    /// When the kernel refuses, or the console was hung up.
    pub fn wait(&self, other: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, self.is_behind());
        let mut polled = [
            PollFd::new(self.file.as_fd(), events),
            PollFd::new(other, PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let came = polled[0].revents().unwrap_or(PollFlags::empty());
        if came.contains(PollFlags::POLLIN) {
            return Ok(true);
        }
        if came.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(false)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Terminal, File, Termios) {
        let pty = openpty(None, None).expect("a pty");
        let (slave, master) = (File::from(pty.slave), File::from(pty.master));
        let before = tcgetattr(&slave).expect("settings");
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&slave, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("does not block");
        (Terminal::from_file(slave), master, before)
    }

    #[test]
    fn keys_come_at_once_and_none_is_a_signal_or_stops_the_output() {
        let (mut terminal, mut master, _) = pair();
        let (wake, _keep) = UnixStream::pair().expect("a pair");
        // ^C, ^S (stop), ^D, a letter, and no Enter behind them
        master.write_all(b"\x03\x13\x04w").expect("typed");
        assert!(
            terminal
                .wait(wake.as_fd(), Duration::from_secs(60))
                .expect("waited")
        );
        let mut bytes = [0; 16];
        assert_eq!(terminal.read(&mut bytes).expect("read"), 4);
        assert_eq!(&bytes[..4], b"\x03\x13\x04w");
        terminal.write(b"page").expect("written");
        let mut seen = [0; 4];
        master
            .read_exact(&mut seen)
            .expect("not stopped, nothing echoed before it");
        assert_eq!(&seen, b"page");
    }

    #[test]
    fn one_that_takes_nothing_holds_nobody_and_memory_is_bounded() {
        let (mut terminal, mut master, _) = pair();
        for _ in 0..64 {
            terminal
                .write(&[b'x'; 16 << 10])
                .expect("nobody reads, nobody waits");
        }
        assert!(terminal.is_behind() && terminal.pending.len() <= MOST_PENDING);
        let before = terminal.pending.len();
        let mut taken = [0; 1024];
        master.read_exact(&mut taken).expect("some of it");
        let (wake, _keep) = UnixStream::pair().expect("a pair");
        assert!(
            !terminal
                .wait(wake.as_fd(), Duration::from_secs(60))
                .expect("can be written again")
        );
        terminal.flush().expect("goes on");
        assert!(terminal.pending.len() < before);
    }

    #[test]
    fn settings_are_given_back_and_a_hung_up_line_is_told() {
        let (terminal, master, before) = pair();
        let slave = terminal.file.try_clone().expect("another handle");
        assert_ne!(tcgetattr(&slave).expect("settings"), before);
        drop(terminal);
        assert_eq!(tcgetattr(&slave).expect("settings"), before);
        let terminal = Terminal::from_file(slave);
        drop(master);
        let (wake, _keep) = UnixStream::pair().expect("a pair");
        let waited = terminal.wait(wake.as_fd(), Duration::from_secs(60));
        let mut terminal = terminal;
        assert!(waited.is_err() || terminal.read(&mut [0; 8]).is_err());
    }
}
