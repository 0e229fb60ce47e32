//! A person's `ssh`, on the node's side: the base's own program, started in the base, with a key and a `/dev`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::mount;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use provision::network::inside;

use crate::spaces::HOST_KEY;

const ROOM: &str = "/run/ssh-room";
const BASE: &str = "/dev/vdd2";
/// The public half of the key that it logs in with.
pub const LOGIN: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDxKLa6aDSuVCfLziG7grOvK/d7z5CuIwuYhE5SPmocw guest-test";

/// Where `ssh` runs, and whom it calls.
pub struct Client {
    namespace: PathBuf,
    address: Ipv4Addr,
    port: u16,
}

/// A login that stays: a line for each line.
pub struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<Vec<u8>>,
}

impl Client {
    /// Calls port 22 of this address from this namespace.
    pub fn new(namespace: PathBuf, address: Ipv4Addr) -> Result<Self> {
        Self::with_port(namespace, address, 22)
    }

    /// Likewise, another port.
    pub fn with_port(namespace: PathBuf, address: Ipv4Addr, port: u16) -> Result<Self> {
        let room = Path::new(ROOM);
        fs::create_dir_all(room)?;
        let within = |name: &str| room.join(name);
        mount::ensure_mounted(Path::new(BASE), room, "erofs", MsFlags::MS_RDONLY, "")?;
        mount::ensure_mounted(
            Path::new("none"),
            &within("dev"),
            "devtmpfs",
            MsFlags::empty(),
            "",
        )?;
        mount::ensure_mounted(Path::new("none"), &within("run"), "tmpfs", MsFlags::empty(), "")?;
        let key = within("run/key");
        fs::write(&key, HOST_KEY)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            namespace,
            address,
            port,
        })
    }

    /// The same person, who calls somebody else.
    pub fn calling(&self, namespace: PathBuf, address: Ipv4Addr) -> Self {
        Self {
            namespace,
            address,
            port: 22,
        }
    }

    async fn start(&self, order: &str) -> Result<Child> {
        let (address, port, order) = (self.address, self.port, order.to_owned());
        // The thread ends with this: that it lives elsewhere from here on is felt by what it starts alone.
        let start = move || -> Result<Child> {
            nix::sched::unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chroot(ROOM)?;
            nix::unistd::chdir("/")?;
            let child = Command::new("/usr/bin/ssh")
                .args(["-F", "none", "-i", "/run/key", "-p", &port.to_string()])
                .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
                .args(["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=20"])
                .args([&format!("root@{address}"), &order])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            Ok(child)
        };
        inside::run(Some(&self.namespace), start)
            .await?
            .context("starting ssh")
    }

    /// A whole login and its end.
    pub async fn login(&self) -> Result<Duration> {
        let began = Instant::now();
        let said = self.run("echo in", "").await?;
        ensure!(said == "in\n", "the login says {said:?}");
        Ok(began.elapsed())
    }

    /// What an order says that is given this text.
    pub async fn run(&self, order: &str, text: &str) -> Result<String> {
        let mut child = self.start(order).await?;
        let mut input = child.stdin.take().context("no input")?;
        // Who ended before it read all says why below.
        let written = input.write_all(text.as_bytes());
        drop(input);
        let output = child.wait_with_output()?;
        // 255 is ssh's own word; every other is the order's.
        ensure!(
            output.status.code() != Some(255) && written.is_ok(),
            "ssh ended with {}, {written:?}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts something that answers each line with one.
    pub async fn session(&self, order: &str) -> Result<Session> {
        let mut child = self.start(order).await?;
        let input = child.stdin.take().context("no input")?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut errors = child.stderr.take().context("no errors")?;
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0)
                && tell.send(std::mem::take(&mut line)).is_ok()
            {}
            // No more lines: what ssh said of it is told as the last.
            let _ = errors.read_to_end(&mut line);
            let _ = tell.send(line);
        });
        Ok(Session { child, input, lines })
    }

    pub fn remove() -> Result<()> {
        for name in ["run", "dev", ""] {
            mount::ensure_unmounted(&Path::new(ROOM).join(name))?;
        }
        Ok(())
    }
}

impl Session {
    /// How long the answer to an order took, which is so many bytes and the end of a line.
    pub fn ask(&mut self, order: &str, bytes: usize, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        writeln!(self.input, "{order}").with_context(|| format!("asking for {order}"))?;
        let line = self
            .lines
            .recv_timeout(within)
            .with_context(|| format!("no answer to {order} within {within:?}"))?;
        ensure!(
            line.len() == bytes + 1,
            "the answer to {order} is {:?}",
            String::from_utf8_lossy(&line)
        );
        Ok(began.elapsed())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
