//! Off, and again. Only `init` calls the kernel; everybody else asks `init` by a signal.

use std::io;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It powers off.
    PowerOff,
    /// It starts again.
    Reboot,
}

impl End {
    /// What a signal to `init` asks for.
    pub fn from_signal(signal: Signal) -> Option<Self> {
        match signal {
            Signal::SIGUSR1 | Signal::SIGPWR => Some(Self::PowerOff),
            Signal::SIGUSR2 | Signal::SIGTERM | Signal::SIGINT => Some(Self::Reboot),
            _ => None,
        }
    }
}

/// Asks `init` to end what runs, close the volumes and power off.
pub fn request_power_off() -> io::Result<()> {
    kill(Pid::from_raw(1), Signal::SIGUSR1).map_err(Into::into)
}

/// Asks `init` to end what runs, close the volumes and start the machine again.
pub fn request_reboot() -> io::Result<()> {
    kill(Pid::from_raw(1), Signal::SIGUSR2).map_err(Into::into)
}

/// Ends the machine now. Comes back only to say why not.
pub fn end_now(end: End) -> io::Error {
    let mode = match end {
        End::PowerOff => RebootMode::RB_POWER_OFF,
        End::Reboot => RebootMode::RB_AUTOBOOT,
    };
    let Err(errno) = reboot(mode);
    errno.into()
}

/// Makes Ctrl-Alt-Del a signal to `init` instead of an instant reset.
pub fn soften_ctrl_alt_del() -> io::Result<()> {
    set_cad_enabled(false).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_the_rooms_above_send() {
        assert_eq!(End::from_signal(Signal::SIGUSR1), Some(End::PowerOff));
        assert_eq!(End::from_signal(Signal::SIGUSR2), Some(End::Reboot));
        assert_eq!(End::from_signal(Signal::SIGINT), Some(End::Reboot));
        assert_eq!(End::from_signal(Signal::SIGCHLD), None);
    }
}
