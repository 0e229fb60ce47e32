//! What the scenarios share: the stage, the node that is switched off and on, the space that was bought.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::keys;
use crate::line::Line;
use anyhow::{Context, Result, ensure};
use qemu::{Disk, Forward, Running};
use stage::{Answer, Artefacts, Node, NodeSettings, Person, Stage};

/// Starts empty; scenarios fill it in their order.
#[derive(Default)]
pub struct World {
    /// The name of its stage.
    name: &'static str,
    stage: Option<Stage>,
    people: Option<(Person, Person)>,
    node: Option<Node>,
    running: Option<Running>,
    copy: Option<Node>,
    space: Option<String>,
    line: Option<Line>,
    /// What the user was given, smallest units.
    pub funded: u128,
    /// What a period of the bought space costs.
    pub price_of_period: u128,
}

const NEEDS: [&str; 10] = [
    "--cpu",
    "0.5",
    "--memory",
    "256MiB",
    "--disk",
    "1GiB",
    "--duration",
    "3h",
    "--period",
    "1h",
];

impl World {
    /// The world of a stage, where nothing has happened yet.
    pub fn on(name: &'static str) -> World {
        World {
            name,
            ..World::default()
        }
    }

    /// The market; opened by who asks first.
    pub fn stage(&mut self) -> Result<&Stage> {
        if self.stage.is_none() {
            let folder = PathBuf::from(
                std::env::var("STEADING_ARTEFACTS")
                    .context("STEADING_ARTEFACTS is not set: run these tests by ./x test --scenarios")?,
            );
            let artefacts = Artefacts {
                kernel: folder.join("vmlinux"),
                initramfs: folder.join("initramfs.cpio"),
                base: folder.join("base.erofs"),
                client: std::env::var("STEADING_CLIENT")
                    .context("STEADING_CLIENT is not set")?
                    .into(),
            };
            let dir = folder.with_file_name(format!("scenarios-{}", self.name));
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            let stage = Stage::open(&dir, artefacts, "scenarios")?;
            let (user, farmer) = (stage.person("user")?, stage.person("farmer")?);
            self.funded = 100_000_000;
            stage.fund(user.address(), self.funded as u64)?;
            self.people = Some((user, farmer));
            self.stage = Some(stage);
        }
        self.stage.as_ref().context("no stage")
    }

    /// The one who buys.
    pub fn user(&self) -> Result<&Person> {
        Ok(&self
            .people
            .as_ref()
            .context("no stage yet: an earlier scenario failed")?
            .0)
    }

    /// The one who sells.
    pub fn farmer(&self) -> Result<&Person> {
        Ok(&self
            .people
            .as_ref()
            .context("no stage yet: an earlier scenario failed")?
            .1)
    }

    /// A node whose farmer left the wallet out.
    pub fn start_node_without_wallet(&mut self) -> Result<Running> {
        let stage = self.stage()?;
        let mut settings = NodeSettings::new("walletless", "");
        settings.wallet = None;
        settings.disks = vec![8 << 30];
        Node::prepare(stage, settings)?.power_on()
    }

    /// The node that sells.
    pub fn start_node(&mut self) -> Result<()> {
        self.stage()?;
        let settings = NodeSettings::new("seller", self.farmer()?.address());
        let stage = self.stage.as_ref().context("no stage")?;
        let mut node = Node::prepare(stage, settings)?;
        if self.name == "cut" {
            // A third disk, which holds something: not touched until somebody says so.
            let path = node.dir().join("letters.img");
            Disk::ensure_blank(&path, 8 << 30)?;
            let mut disk = std::fs::OpenOptions::new().write(true).open(&path)?;
            std::io::Write::write_all(&mut disk, "dear aunt\n".repeat(1000).as_bytes())?;
            node.machine().disks.push(Disk::new(&path, "SELLER-LETTERS"));
        }
        self.node = Some(node);
        self.power_on()
    }

    /// Powers it on and waits until it sells.
    pub fn power_on(&mut self) -> Result<()> {
        let mut running = self.node.as_ref().context("no node")?.power_on()?;
        stage::wait_until_selling(&mut running)?;
        self.running = Some(running);
        Ok(())
    }

    /// One on a line of its own, with these lines of `farmer.toml`, in the place of the one before.
    pub fn start_node_on(&mut self, line: Line, more: &str) -> Result<()> {
        self.stage()?;
        let mut settings = NodeSettings::new("lined", self.farmer()?.address());
        settings.more = more.into();
        let stage = self.stage.as_ref().context("no stage")?;
        let mut node = Node::prepare(stage, settings)?;
        let machine = node.machine();
        machine.cable = Some(line.cable());
        machine.forwards.push(Forward {
            host: line.port(),
            guest: line.port(),
        });
        if let Some(before) = self.running.take() {
            before.cut_power();
        }
        (self.node, self.line) = (Some(node), Some(line));
        self.power_on()
    }

    /// The line that the node is on.
    pub fn line(&self) -> Result<&Line> {
        self.line.as_ref().context("no line yet")
    }

    /// The farmer writes these lines while the node, whose plug is pulled, is off.
    pub fn farmer_writes(&mut self, lines: &str) -> Result<()> {
        let stage = self.stage.as_ref().context("no stage")?;
        self.node.as_mut().context("no node")?.rewrite(stage, lines)
    }

    /// Powers it on and waits for words on its console.
    pub fn power_on_until(&mut self, words: &str) -> Result<()> {
        let mut running = self.node.as_ref().context("no node")?.power_on()?;
        running.wait_for(words, stage::BOOT_WITHIN)?;
        self.running = Some(running);
        Ok(())
    }

    /// Types at the node's console; what it says is waited for from here on.
    pub fn types(&mut self, text: &str) -> Result<()> {
        let running = self.running.as_mut().context("no node runs")?;
        running.forget();
        running.type_text(text).context("typing at the console")
    }

    /// Waits for words on the console that came after the last that were waited for.
    pub fn hears(&mut self, words: &str) -> Result<String> {
        let running = self.running.as_mut().context("no node runs")?;
        Ok(running.wait_for(words, stage::BOOT_WITHIN)?.text)
    }

    /// Waits until the node has switched itself off.
    pub fn ends(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        let mut running = self.running.take().context("no node runs")?;
        Ok(running.wait_exit(within))
    }

    /// Pulls the plug.
    pub fn cut_power(&mut self) -> Result<()> {
        self.running.take().context("no node runs")?.cut_power();
        Ok(())
    }

    /// The process that is the node.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("no node runs")?.process_id())
    }

    /// Copies the disks of the node, which is switched off or stopped, and prepares a second machine with the copies.
    pub fn copy_node(&mut self) -> Result<()> {
        let stage = self.stage.as_ref().context("no stage")?;
        let mut settings = NodeSettings::new("copy", self.farmer()?.address());
        settings.disks = Vec::new();
        let mut copy = Node::prepare(stage, settings)?;
        let node = self.node.as_mut().context("no node")?;
        for disk in node.machine().disks.iter().skip(1) {
            let file = disk.path.file_name().context("a disk without a name")?;
            let to = copy.dir().join(file);
            let done = Command::new("cp")
                .arg("--sparse=always")
                .args([&disk.path, &to])
                .status()
                .context("starting cp")?;
            ensure!(done.success(), "cp of {}: {done}", disk.path.display());
            copy.machine().disks.push(Disk::new(&to, &disk.serial));
        }
        self.copy = Some(copy);
        Ok(())
    }

    /// Makes one, where none was made yet: the power is cut for it.
    pub fn ensure_copied(&mut self) -> Result<()> {
        if self.copy.is_some() {
            return Ok(());
        }
        self.ensure_bought()?;
        self.cut_power()?;
        self.copy_node()?;
        self.power_on()?;
        let name = self.space()?;
        self.wait_for("locked")?;
        let unlocked = self.user()?.run(&["unlock", &name, "--json"])?;
        unlocked.expect_success("unlocking").map(drop)
    }

    /// The second machine, once.
    pub fn power_on_copy(&mut self) -> Result<Running> {
        self.copy.take().context("no copy was made")?.power_on()
    }

    /// Waits for words on the node's console, those already seen in this boot included.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        let running = self.running.as_mut().context("no node runs")?;
        if running.seen(words).is_none() {
            running.wait_for(words, Duration::from_secs(120))?;
        }
        Ok(())
    }

    /// The same, of words that come from now on.
    pub fn wait_for_again(&mut self, words: &str) -> Result<()> {
        let running = self.running.as_mut().context("no node runs")?;
        let _ = running.seen(words); // what came until now is history
        running.wait_for(words, Duration::from_secs(180))?;
        Ok(())
    }

    /// The id of the node, as the user's client sees it.
    pub fn node_id(&self) -> Result<String> {
        let nodes = self
            .user()?
            .run(&["nodes", "--json"])?
            .expect_success("listing nodes")?;
        Ok(nodes.text("/nodes/0/node")?.to_string())
    }

    /// Buys a small space, for all keys of [`keys`].
    pub fn buy(&mut self) -> Result<Answer> {
        let folder = self.keys()?;
        let keys = match folder.join("all.pub") {
            made if made.exists() => made,
            _ => keys::make(&folder)?,
        };
        let answer = self.try_to_buy(&keys)?.expect_success("buying")?;
        self.space = Some(answer.text("/name")?.to_string());
        self.price_of_period = answer.amount("/price_of_period")?;
        Ok(answer)
    }

    /// Tries to buy, with a file of keys.
    pub fn try_to_buy(&self, keys: &Path) -> Result<Answer> {
        let keys = keys.display().to_string();
        self.user()?
            .run(&[&["buy"], &NEEDS[..], &["--json", "--ssh-key", &keys]].concat())
    }

    /// The folder of the user's further keys.
    pub fn keys(&self) -> Result<PathBuf> {
        Ok(self.scratch()?.join("keys"))
    }

    /// Starts and buys, unless an earlier scenario has.
    pub fn ensure_bought(&mut self) -> Result<()> {
        if self.space.is_none() {
            self.start_node()?;
            self.buy()?;
        }
        Ok(())
    }

    /// Begins to buy, and returns while the client works.
    pub fn start_buying(&mut self) -> Result<Child> {
        self.start(&[&["buy"], &NEEDS[..], &["--json"]].concat())
    }

    /// Starts the user's client and returns while it works; what the console says is waited for from here on.
    pub fn start(&mut self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.user()?.command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A line of the boot or of an earlier sale must not be taken for this one's.
        if let Some(running) = self.running.as_mut() {
            running.forget();
        }
        command.spawn().context("starting the client")
    }

    /// The name of the bought space.
    pub fn space(&self) -> Result<String> {
        self.space
            .clone()
            .context("nothing was bought: an earlier scenario failed")
    }

    /// The name of the one space that `spaces --json` shows as open.
    pub fn open_space(&self, listed: &Answer) -> Result<String> {
        let spaces = listed.json["spaces"].as_array().context("no list of spaces")?;
        let open: Vec<&str> = spaces
            .iter()
            .filter(|space| space["state"] != "ended")
            .filter_map(|space| space["name"].as_str())
            .collect();
        ensure!(open.len() == 1, "open spaces: {open:?} in {}", listed.out);
        Ok(open[0].to_string())
    }

    /// The ssh_config that the client wrote.
    pub fn ssh_config(&self) -> Result<PathBuf> {
        let path = self.user()?.ssh_config().to_path_buf();
        ensure!(path.exists(), "{} is not there", path.display());
        Ok(path)
    }

    /// Plain ssh, as strict as it can be, prints this and not a word more.
    pub fn says_nothing_but(&self, name: &str, wanted: &str) -> Result<()> {
        let output = Command::new("ssh")
            .arg("-F")
            .arg(self.ssh_config()?)
            .args([
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "BatchMode=yes",
                name,
                "id -u",
            ])
            .stdin(Stdio::null())
            .output()
            .context("starting ssh")?;
        let said = (output.stdout.as_slice(), output.stderr.as_slice());
        ensure!(
            output.status.success() && said == (wanted.as_bytes(), b""),
            "{}: {:?} {:?}",
            output.status,
            String::from_utf8_lossy(said.0),
            String::from_utf8_lossy(said.1)
        );
        Ok(())
    }

    /// A folder for files of a scenario.
    pub fn scratch(&self) -> Result<PathBuf> {
        let dir = self.stage.as_ref().context("no stage")?.dir().join("scratch");
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// The last lines of the node's console: what a failed scenario shows.
    pub fn tail(&mut self) -> String {
        let Some(running) = self.running.as_mut() else {
            return String::new();
        };
        let lines = running.history();
        let from = lines.len().saturating_sub(40);
        lines[from..]
            .iter()
            .map(|line| format!("  node | {}\n", line.text))
            .collect()
    }
}
