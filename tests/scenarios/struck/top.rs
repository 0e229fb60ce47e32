//! A person who looks on: `top` in a login, which says each second that it goes on.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A picture comes each second; who shows none for so long stands still.
const STILL: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A login in which `top` runs; it ends with this.
pub struct Top {
    login: Child,
    pictures: Arc<AtomicU32>,
}

impl Top {
    /// What is to be run inside.
    pub const COMMAND: &str = "top -b -d 1";

    /// Logs in, by a command that runs [`Top::COMMAND`] with its output on pipes, and waits for pictures.
    pub fn start(mut command: Command) -> Result<Top> {
        let mut login = command.spawn().context("starting the client")?;
        let out = login.stdout.take().context("its output")?;
        let pictures = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&pictures);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.starts_with("top - ") {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut top = Top { login, pictures };
        top.goes_on()?;
        Ok(top)
    }

    /// Two pictures more than now.
    pub fn goes_on(&mut self) -> Result<()> {
        let (before, end) = (self.pictures.load(Ordering::Relaxed), Instant::now() + STILL);
        while self.pictures.load(Ordering::Relaxed) < before + 2 {
            if let Some(status) = self.login.try_wait()? {
                bail!("top ended with {status}: {}", self.said());
            }
            ensure!(Instant::now() < end, "top stands still after {before} pictures");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What the client says at its end.
    pub fn ends(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        while self.login.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "it did not end within {limit:?}");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(self.said())
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(err) = &mut self.login.stderr {
            let _ = err.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.login.kill();
        let _ = self.login.wait();
    }
}
