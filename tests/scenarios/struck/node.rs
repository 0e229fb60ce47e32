//! The node that is struck, the hand in it, and the space on it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use qemu::{Boot, Forward, Running};
use stage::{Node, NodeSettings, Person, Stage};

/// What does not come by then does not come.
pub const COMES_WITHIN: Duration = Duration::from_secs(120);
/// From power-on to selling, where nothing else runs.
const QUIET_BOOT: Duration = Duration::from_secs(20);
const NEEDS: [&str; 10] = [
    "--cpu",
    "1",
    "--memory",
    "128MiB",
    "--disk",
    "1GiB",
    "--duration",
    "3h",
    "--period",
    "1h",
];

/// A node that can be struck, and a space on it.
pub struct Struck {
    node: Node,
    /// The machine.
    pub running: Running,
    user: Person,
    /// The space.
    pub name: String,
    /// The same person at a computer that does not reach the declared port.
    elsewhere: PathBuf,
    /// How much slower than a machine with nothing else to do this one is now; not less than one.
    pub slower: f64,
}

impl Struck {
    /// The product's image with the hand in it, selling; a space is bought, with a file in it that says "kept".
    pub fn begin(stage: &Stage, user: &Person, farmer: &Person) -> Result<Struck> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut settings = NodeSettings::new("struck", farmer.address());
        settings.disks.truncate(1);
        settings.more = format!("public_address = \"127.0.0.1\"\nports = \"{port}-{port}\"");
        let mut node = Node::prepare(stage, settings)?;
        let machine = node.machine();
        machine.forwards.push(Forward {
            host: port,
            guest: port,
        });
        if let Boot::Direct {
            initrd, command_line, ..
        } = &mut machine.boot
        {
            *initrd = stage.artefacts().initramfs.with_file_name("struck.cpio");
            command_line.push_str(" rdinit=/usr/sbin/strike");
        }
        let mut running = node.power_on()?;
        let begun = Instant::now();
        stage::wait_until_selling(&mut running)?;
        let slower = begun.elapsed().as_secs_f64() / QUIET_BOOT.as_secs_f64();
        let bought = user.run(&[&["buy"], &NEEDS[..], &["--json"]].concat())?;
        let name = bought.expect_success("buying")?.text("/name")?.to_owned();
        let elsewhere = user.home().with_file_name("elsewhere");
        copy_without_port(user.home(), &elsewhere, port)?;
        let struck = Struck {
            node,
            running,
            user: user.clone(),
            name,
            elsewhere,
            slower: slower.max(1.0),
        };
        struck.inside(true, "echo kept >/root/kept")?;
        Ok(struck)
    }

    /// Powers it on again, once it has ended; where the guest resets it, it starts again by itself.
    pub fn power_on(&mut self) -> Result<()> {
        self.node.machine().resets = true;
        self.running = self.node.power_on()?;
        Ok(())
    }

    /// The image of its one disk.
    pub fn disk(&self) -> PathBuf {
        self.node.dir().join("disk0.img")
    }

    /// Gives an order to the hand in the node, and waits until it is done.
    pub fn strike(&mut self, order: &str) -> Result<String> {
        self.running.forget();
        self.running.type_text(&format!("{order}\n"))?;
        let line = self.running.wait_for("strike: ", Duration::from_secs(60))?;
        match line.text.split_once("strike: done: ") {
            Some((_, said)) => Ok(said.to_owned()),
            None => bail!("{order}: {}", line.text),
        }
    }

    /// A line of the console since the last order.
    pub fn wait_for(&mut self, words: &str, limit: Duration) -> Result<String> {
        let line = match self.running.seen(words) {
            Some(line) => line,
            None => self.running.wait_for(words, limit)?,
        };
        Ok(line.text)
    }

    /// The agent ended by a signal; what is waited for from here on came after.
    pub fn agent_ended(&mut self) -> Result<()> {
        self.wait_for("init: agent ended (killed by SIG", COMES_WITHIN)?;
        self.running.forget();
        Ok(())
    }

    /// The agent is back: it has the space, and sells.
    pub fn offers(&mut self) -> Result<()> {
        let adopted = format!("{} goes on", self.name);
        self.wait_for(&adopted, COMES_WITHIN)?;
        self.wait_for("  selling", COMES_WITHIN).map(drop)
    }

    /// A login over the declared port (`straight`) or through the grid, which runs `command`.
    pub fn login(&self, straight: bool, command: &str) -> Command {
        let mut login = self.user.command(&["ssh", &self.name, "--", command]);
        if !straight {
            login.env("STEADING_HOME", &self.elsewhere);
        }
        login
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        login
    }

    /// What `command` prints inside; an error where it fails.
    pub fn inside(&self, straight: bool, command: &str) -> Result<String> {
        let output = self.login(straight, command).output()?;
        ensure!(
            output.status.success(),
            "{command}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A new login works, and finds the file of the beginning; says after how long. Tries until it does.
    pub fn a_login_works(&self, straight: bool) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            match self.inside(straight, "cat /root/kept") {
                Ok(kept) if kept == "kept\n" => return Ok(begun.elapsed()),
                Ok(other) => bail!("the file inside says {other:?}"),
                Err(error) if begun.elapsed() > COMES_WITHIN => return Err(error.context("no login")),
                Err(_) => {}
            }
        }
    }

    /// Nobody offers a space: the client says so.
    pub fn nobody_sells(&self) -> Result<()> {
        let answer = self
            .user
            .run(&["request", "--memory", "128MiB", "--duration", "1h"])?;
        ensure!(answer.code != 0, "somebody offers: {}", answer.out);
        Ok(())
    }
}

/// The same home at a computer whose network lets no such port through.
fn copy_without_port(from: &Path, to: &Path, port: u16) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_without_port(&path, &target, port)?;
            continue;
        }
        std::fs::copy(&path, &target)?;
        if let Ok(text) = std::fs::read_to_string(&path) {
            let shut = text.replace(&format!("127.0.0.1:{port}\""), "127.0.0.1:1\"");
            if shut != text {
                std::fs::write(&target, shut)?;
            }
        }
    }
    Ok(())
}
