//! A space that changes its size while somebody is logged in: `df`, `nproc` and `free` of that very login say so.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stage::Person;

use crate::world::World;

/// What it becomes: three times the CPUs, twice the memory and the disk.
const SIZE: [&str; 6] = ["--cpu", "1.5", "--memory", "512MiB", "--disk", "2GiB"];
/// Processors, MiB of memory, MiB of the root file system.
const LOOK: &str = "echo $(nproc) $(free -m | awk '/^Mem/{print $2}') $(df -m --output=size / | tail -1)";
/// Holds 200 MiB until the login ends.
const HOLD: &str = "python3 -c 'x = bytearray(b\"x\") * (200 << 20); print(\"held\", flush=True); input()'";
/// How long a login that was cut may keep its memory.
const FREED_WITHIN: Duration = Duration::from_secs(30);

/// One login that stays.
struct Login {
    ssh: Child,
    to: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Login {
    fn open(world: &World) -> Result<Self> {
        let mut ssh = Command::new("ssh")
            .arg("-F")
            .arg(world.ssh_config()?)
            .args([&world.space()?, "exec bash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting ssh")?;
        let (to, said) = (ssh.stdin.take().context("its input")?, ssh.stdout.take());
        Ok(Self {
            ssh,
            to,
            said: BufReader::new(said.context("its output")?).lines(),
        })
    }

    /// The first line that a command prints.
    fn asks(&mut self, command: &str) -> Result<String> {
        writeln!(self.to, "{command}")?;
        self.said.next().transpose()?.context("the login ended")
    }

    fn size(&mut self) -> Result<Vec<u64>> {
        let said = self.asks(LOOK)?;
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        numbers.with_context(|| format!("it says {said:?}"))
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// The scenario.
pub fn grows(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, user) = (world.space()?, world.user()?.clone());
    let mut login = Login::open(world)?;
    let hash = login.asks("head -c 3000000 /dev/urandom >/root/kept && sync && sha256sum /root/kept")?;
    let before = login.size()?;
    ensure!(
        before[..2] == [1, 256] && before[2] < 1024,
        "before it has {before:?}"
    );
    too_much(&user, &name)?;

    let answer = resize(&user, &name, &SIZE)?.expect_success("resizing")?;
    let after = login.size()?;
    ensure!(
        after[..2] == [2, 512] && (1900..=2048).contains(&after[2]),
        "the login that went on sees {after:?}, before it saw {before:?}"
    );
    ensure!(
        login.asks("cat /sys/fs/cgroup/cpu.max")? == "150000 100000",
        "the limit"
    );
    ensure!(
        login.asks("sha256sum /root/kept")? == hash,
        "the file is another one"
    );

    // One period at the first price, two that were bought and one more at the new one.
    let price = answer.amount("/price_of_period")?;
    ensure!(price > world.price_of_period, "it costs {price} a period");
    let answer = user.run(&["extend", &name, "--duration", "1h", "--json"])?;
    let total = answer.expect_success("extending")?.amount("/total")?;
    ensure!(
        total == world.price_of_period + 3 * price,
        "{total} in escrow and paid; a period was {}, is {price}",
        world.price_of_period
    );
    less_than_is_used(&user, &name, login)?;
    comes_back_from_the_seed(world, &user, &name)
}

fn resize(user: &Person, name: &str, size: &[&str]) -> Result<stage::Answer> {
    user.run(&[&["resize", name], size, &["--yes", "--json"]].concat())
}

fn too_much(user: &Person, name: &str) -> Result<()> {
    let answer = resize(user, name, &["--memory", "64GiB"])?;
    ensure!(
        answer.code == 3,
        "64 GiB: exit code {}: {}",
        answer.code,
        answer.err
    );
    ensure!(
        answer.err.contains("64 GiB asked") && answer.err.contains("it would cost"),
        "the user was told: {}",
        answer.err
    );
    let answer = resize(user, name, &["--disk", "512MiB"])?;
    ensure!(
        answer.code == 2 && answer.err.contains("never shrinks"),
        "a smaller disk: exit code {}: {}",
        answer.code,
        answer.err
    );
    Ok(())
}

/// Refused while it is in use, with the figure; granted as soon as it is not.
fn less_than_is_used(user: &Person, name: &str, mut login: Login) -> Result<()> {
    ensure!(login.asks(HOLD)? == "held", "the memory is not held");
    let refused = resize(user, name, &["--memory", "192MiB"])?;
    ensure!(
        refused.code != 0 && refused.err.contains("is in use"),
        "less than is used: exit code {}: {}{}",
        refused.code,
        refused.out,
        refused.err
    );
    ensure!(login.ssh.try_wait()?.is_none(), "the login ended");
    drop(login);
    // The control: granted once its memory is back with the kernel.
    let ended = Instant::now();
    loop {
        let answer = resize(user, name, &["--memory", "192MiB"])?;
        if answer.code == 0 {
            break;
        }
        ensure!(
            answer.err.contains("is in use") && ended.elapsed() < FREED_WITHIN,
            "nothing holds it now: {}",
            answer.err
        );
    }
    resize(user, name, &["--memory", "512MiB"])?.expect_success("growing again")?;
    Ok(())
}

/// Another computer with the seed alone: the node gives back what both signed last.
fn comes_back_from_the_seed(world: &World, user: &Person, name: &str) -> Result<()> {
    let shown = user
        .run(&["wallet", "show", "--json"])?
        .expect_success("the wallet")?;
    let seed = std::path::Path::new(shown.text("/data")?).join("seed");
    let home = world.scratch()?.join("restored");
    let there = |arguments: &[&str]| -> Result<serde_json::Value> {
        let output = user.command(arguments).env("STEADING_HOME", &home).output()?;
        let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{arguments:?}: {err}");
        Ok(serde_json::from_slice(out)?)
    };
    let seed = seed.display().to_string();
    let restored = there(&["wallet", "restore", &seed, "--json"])?;
    ensure!(
        restored["recalled"] == serde_json::json!([name]),
        "came back: {restored}"
    );
    let spaces = there(&["spaces", "--json"])?;
    let space = &spaces["spaces"][0];
    let figures = ["cpu_milli", "memory_bytes", "disk_bytes", "periods"].map(|figure| space[figure].as_u64());
    ensure!(
        figures == [Some(1500), Some(512 << 20), Some(2 << 30), Some(4)],
        "it says {spaces}"
    );
    Ok(())
}
