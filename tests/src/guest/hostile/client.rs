//! A person's `ssh`, on the node's side: the base's own program, started in the base, with a key and a `/dev`.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use host::mount;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use provision::network::inside;

use crate::spaces::HOST_KEY;

const ROOM: &str = "/run/ssh-room";
const BASE: &str = "/dev/vdd2";

/// Where `ssh` runs, and whom it calls.
pub struct Client {
    namespace: PathBuf,
    address: Ipv4Addr,
}

impl Client {
    pub fn new(namespace: PathBuf, address: Ipv4Addr) -> Result<Self> {
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
        Ok(Self { namespace, address })
    }

    async fn start(&self, order: &str) -> Result<Child> {
        let (address, order) = (self.address, order.to_owned());
        // The thread ends with this: that it lives elsewhere from here on is felt by what it starts alone.
        let start = move || -> Result<Child> {
            nix::sched::unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chroot(ROOM)?;
            nix::unistd::chdir("/")?;
            let child = Command::new("/usr/bin/ssh")
                .args(["-F", "none", "-i", "/run/key"])
                .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
                .args([&format!("root@{address}"), &order])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            Ok(child)
        };
        inside::run(Some(&self.namespace), start)
            .await?
            .context("starting ssh")
    }

    /// What an order says that is given this text.
    pub async fn run(&self, order: &str, text: &str) -> Result<String> {
        let mut child = self.start(order).await?;
        child
            .stdin
            .take()
            .context("no input")?
            .write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn remove() -> Result<()> {
        for name in ["run", "dev", ""] {
            mount::ensure_unmounted(&Path::new(ROOM).join(name))?;
        }
        Ok(())
    }
}
