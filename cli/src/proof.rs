//! Is the space what was sold? Asked from inside, over real SSH, with the host key that the node
//! signed.
//!
//! | check | holds when |
//! |---|---|
//! | host key | OpenSSH accepts the pinned one, and no other |
//! | nonce | what was written and synced is read back |
//! | volume | the file system is at least the sale's disk less [`least_volume`]'s overhead |
//! | cpu.max, memory.max, pids.max | they are the sale's figures; "max" is not |
//! | uid_map | root inside is at least [`LEAST_OUTSIDE`] outside |
//! | base | the digest is the sale's |
//!
//! The network rate is not looked at: it shows only under load, and then the user's own line and a relay are measured with
//! it, so a low figure would accuse a node that may be honest.
//!
//! Invariant: what the space prints is hostile: bounded, then parsed, then compared. What this
//! does not prove (a node that lies with all of its kernel) is in the threat model.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use market::id::Digest;
use market::message::Gives;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, random};
use crate::exit::{Code, Failure};
use crate::ssh;
use crate::store::record::Inside;

/// How long one login with its checks may take.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// More than the checks print.
const MOST_OUTPUT: u64 = 16 * 1024;
/// LUKS2's header in front of the file system.
const LUKS_BYTES: u64 = 16 << 20;
/// Ids of spaces begin here; below are those of the node itself and of people's accounts.
const LEAST_OUTSIDE: u32 = 100_000;
/// The kernel rounds memory.max down to pages.
const PAGE_BYTES: u64 = 4096;

/// What the sale says.
#[derive(Clone, Copy, Debug)]
pub struct Sold {
    /// The space's figures.
    pub gives: Gives,
    /// The base.
    pub base: Digest,
}

/// Why the proof does not hold.
#[derive(Debug)]
pub enum ProofError {
    /// Not logged in yet; worth another try.
    NotIn(String),
    /// A check failed, and which.
    Failed(String),
    /// Something on this machine.
    Broken(Failure),
}

/// The file system may be smaller than the disk that was sold by the LUKS header (16 MiB) and an
/// eighth for journal, inodes and group tables.
pub fn least_volume(disk: u64) -> u64 {
    disk.saturating_sub(LUKS_BYTES).saturating_sub(disk / 8)
}

/// The checks, as one script: it prints one "name value" a line and changes nothing but one file
/// that it removes.
fn script(nonce: &str) -> String {
    format!(
        r#"export LC_ALL=C
echo "uid $(id -u)"
echo "uid_map $(tr -s ' \n' ' ;' < /proc/self/uid_map)"
for file in cpu.max memory.max pids.max; do echo "$file $(cat /sys/fs/cgroup/$file)"; done
echo "volume $(stat -f -c '%S %b' /)"
for file in /run/steading/base-digest /etc/steading/base-digest; do
    if [ -r "$file" ]; then echo "base $(head -c 100 "$file")"; break; fi
done
file=/root/.steading-proof-$$
printf %s '{nonce}' > "$file" && sync "$file" && echo "nonce $(cat "$file")"
rm -f "$file"
echo "end end"
"#
    )
}

/// Logs in to the space called `name` and checks it.
pub async fn prove(client: &Client, name: &str, sold: &Sold) -> Result<Inside, ProofError> {
    let broken = |error: anyhow::Error| ProofError::Broken(error.into());
    let nonce = ledger::hex::encode(&random::<16>().map_err(broken)?);
    let folders = client.store.folders();
    let mut command = tokio::process::Command::from(ssh::command(folders));
    command
        .arg("-o")
        .arg(ssh::unproven_proxy(folders, name).map_err(broken)?)
        .args([
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=30",
            "-T",
            name,
            "--",
            "sh",
            "-s",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let run = run(&mut command, script(&nonce));
    let (code, out, err) = match tokio::time::timeout(LOGIN_WITHIN, run).await {
        Err(_) => return Err(ProofError::NotIn(format!("no answer within {LOGIN_WITHIN:?}"))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let failure = Failure::new(Code::Unexpected, "OpenSSH is not on this machine")
                .next("install it (Debian: apt install openssh-client), then `steading unlock` goes on");
            return Err(ProofError::Broken(failure));
        }
        Ok(Err(error)) => {
            let failure = Failure::new(Code::Unexpected, "OpenSSH was not run").because(error);
            return Err(ProofError::Broken(failure));
        }
        Ok(Ok(done)) => done,
    };
    if code != 0 {
        if err.contains("Host key verification failed") || err.contains("REMOTE HOST IDENTIFICATION") {
            return Err(ProofError::Failed(
                "the host key is not the one that the node signed in its grant".to_owned(),
            ));
        }
        let last = err.lines().map(str::trim).rfind(|line| !line.is_empty());
        let words = last
            .unwrap_or("ssh ended without a word")
            .chars()
            .filter(|letter| market::is_plain(*letter));
        return Err(ProofError::NotIn(words.take(160).collect()));
    }
    check(&out, sold, &nonce).map_err(ProofError::Failed)
}

async fn run(command: &mut tokio::process::Command, input: String) -> std::io::Result<(i32, String, String)> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read its input has failed otherwise, and says so.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::join!(read_bounded(stdout), read_bounded(stderr));
    let status = child.wait().await?;
    Ok((status.code().unwrap_or(255), out, err))
}

async fn read_bounded<R: tokio::io::AsyncRead + Unpin>(from: Option<R>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut from = from.take(MOST_OUTPUT);
        let _ = from.read_to_end(&mut bytes).await;
        // What is more is read and thrown away, so that the other end does not block.
        let mut rest = from.into_inner();
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Compares what the space printed with what was sold; the first check that fails is named.
pub fn check(output: &str, sold: &Sold, nonce: &str) -> Result<Inside, String> {
    let seen: BTreeMap<&str, &str> = output
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .collect();
    let value = |name: &str| {
        let found = seen
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty());
        found.ok_or_else(|| format!("{name} cannot be read inside"))
    };
    if seen.get("end") != Some(&"end") {
        return Err("the checks did not run to their end".to_owned());
    }
    if value("nonce")? != nonce {
        return Err("a nonce that was written and synced does not read back".to_owned());
    }
    let volume_bytes = volume(value("volume")?)?;
    check_volume(volume_bytes, sold)?;
    check_cpu(value("cpu.max")?, sold)?;
    check_memory(value("memory.max")?, sold)?;
    check_pids(value("pids.max")?, sold)?;
    let uid = value("uid")?
        .parse::<u32>()
        .map_err(|_| "the uid inside is no number".to_owned())?;
    let outside_uid = outside(value("uid_map")?, uid)?;
    let base_digest = value("base")?;
    if base_digest != sold.base.to_string() {
        return Err(format!(
            "the base is {}, the sale says {}",
            shown(base_digest),
            sold.base
        ));
    }
    Ok(Inside {
        uid,
        outside_uid,
        cpu_max: shown(value("cpu.max")?),
        memory_max: shown(value("memory.max")?),
        pids_max: shown(value("pids.max")?),
        volume_bytes,
        base_digest: base_digest.to_owned(),
    })
}

/// What a stranger printed, fit for a screen.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|letter| market::is_plain(*letter))
        .take(80)
        .collect()
}

fn volume(value: &str) -> Result<u64, String> {
    let unreadable = || format!("the volume's size is unreadable: \"{}\"", shown(value));
    let (size, blocks) = value.split_once(' ').ok_or_else(unreadable)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| unreadable());
    number(size)?.checked_mul(number(blocks)?).ok_or_else(unreadable)
}

fn check_volume(bytes: u64, sold: &Sold) -> Result<(), String> {
    let disk = sold.gives.disk;
    if bytes < least_volume(disk.0) {
        let seen = market::quantity::Bytes(bytes).human();
        return Err(format!(
            "the file system has {seen}, the sale says {}",
            disk.human()
        ));
    }
    Ok(())
}

fn check_cpu(value: &str, sold: &Sold) -> Result<(), String> {
    let says = format!("the sale says {}", sold.gives.cpu.human());
    let wrong = || format!("cpu.max is \"{}\", {says}", shown(value));
    let (quota, period) = value.split_once(' ').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (quota, period) = (number(quota)?, number(period)?);
    // quota / period in thousandths, without losing one to rounding.
    let given = quota
        .saturating_mul(1000)
        .saturating_add(period / 2)
        .checked_div(period);
    if given == Some(u64::from(sold.gives.cpu.0)) {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn check_memory(value: &str, sold: &Sold) -> Result<(), String> {
    let memory = sold.gives.memory;
    let right = memory.0 / PAGE_BYTES * PAGE_BYTES;
    if value.parse::<u64>() == Ok(right) {
        return Ok(());
    }
    Err(format!(
        "memory.max is \"{}\", the sale says {}",
        shown(value),
        memory.human()
    ))
}

fn check_pids(value: &str, sold: &Sold) -> Result<(), String> {
    if value.parse::<u32>() == Ok(sold.gives.pids) {
        return Ok(());
    }
    Err(format!(
        "pids.max is \"{}\", the sale says {}",
        shown(value),
        sold.gives.pids
    ))
}

/// Who `uid` is outside: "inside outside count;…", as /proc/self/uid_map has it.
fn outside(map: &str, uid: u32) -> Result<u32, String> {
    for range in map.split(';') {
        let numbers: Vec<u64> = range
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if let [inside, outside, count] = numbers[..]
            && (inside..inside.saturating_add(count)).contains(&u64::from(uid))
        {
            let mapped = outside.saturating_add(u64::from(uid) - inside);
            if mapped == u64::from(uid) {
                return Err(format!(
                    "uid_map: {uid} inside is {uid} outside, nothing is mapped"
                ));
            }
            let mapped = u32::try_from(mapped).map_err(|_| "uid_map is unreadable".to_owned())?;
            if mapped < LEAST_OUTSIDE {
                return Err(format!(
                    "uid_map: {uid} inside is {mapped} outside, an id of the node's own"
                ));
            }
            return Ok(mapped);
        }
    }
    Err(format!("uid_map does not map {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use market::quantity::{BitsPerSecond, Bytes, MilliCpus};

    fn sold() -> Sold {
        Sold {
            gives: Gives {
                cpu: MilliCpus(500),
                memory: Bytes(512 << 20),
                disk: Bytes(2 << 30),
                rate: BitsPerSecond(10_000_000),
                pids: 512,
                snapshot: Bytes::ZERO,
            },
            base: Digest([0xab; 32]),
        }
    }

    fn good() -> String {
        format!(
            "uid 0\nuid_map  0 1000000 65536;\ncpu.max 50000 100000\nmemory.max 536870912\npids.max 512\n\
             volume 4096 496000\nbase {}\nnonce n0\nend end\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn what_was_sold_passes() {
        let inside = check(&good(), &sold(), "n0").unwrap();
        assert_eq!((inside.uid, inside.outside_uid), (0, 1_000_000));
        assert_eq!(inside.volume_bytes, 4096 * 496_000);
        assert_eq!(inside.cpu_max, "50000 100000");
    }

    #[test]
    fn each_check_fails_by_its_name() {
        for (from, to, word) in [
            (
                "cpu.max 50000 100000",
                "cpu.max max 100000",
                "cpu.max is \"max 100000\", the sale says 0.5 cpu",
            ),
            ("cpu.max 50000", "cpu.max 49000", "cpu.max"),
            ("cpu.max 50000 100000", "cpu.max 50000 0", "cpu.max"),
            (
                "memory.max 536870912",
                "memory.max max",
                "memory.max is \"max\", the sale says 512 MiB",
            ),
            ("memory.max 536870912", "memory.max 536866816", "memory.max"),
            ("pids.max 512", "pids.max max", "pids.max"),
            (
                "volume 4096 496000",
                "volume 4096 400000",
                "the file system has 1.5 GiB, the sale says 2 GiB",
            ),
            ("volume 4096 496000", "volume 4096 x", "unreadable"),
            (
                "volume 4096 496000",
                "volume 18446744073709551615 2",
                "unreadable",
            ),
            (
                "uid_map  0 1000000 65536;",
                "uid_map 0 0 4294967295;",
                "nothing is mapped",
            ),
            (
                "uid_map  0 1000000 65536;",
                "uid_map 5 1000000 65536;",
                "does not map 0",
            ),
            (
                "uid_map  0 1000000 65536;",
                "uid_map 0 99999 65536;",
                "an id of the node's own",
            ),
            ("base ab", "base ac", "the base is ac"),
            ("nonce n0", "nonce n1", "nonce"),
            ("nonce n0", "nonce", "nonce"),
            ("pids.max 512\n", "", "pids.max cannot be read"),
            ("end end", "", "did not run to their end"),
        ] {
            let output = good().replace(from, to);
            assert_ne!(output, good(), "{from}");
            let failed = check(&output, &sold(), "n0").unwrap_err();
            assert!(failed.contains(word), "{to}: {failed}");
        }
    }

    #[test]
    fn a_hostile_screen_is_cleaned() {
        let output = good().replace("memory.max 536870912", "memory.max \u{1b}[2Jmax");
        let failed = check(&output, &sold(), "n0").unwrap_err();
        assert!(!failed.contains('\u{1b}'), "{failed:?}");
    }

    /// The script itself, by the shell of this machine: every check prints its line.
    #[test]
    fn the_script_prints_every_line_that_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proof");
        let text = script("n0").replace("/root/.steading-proof-$$", &file.display().to_string());
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(text)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        for name in ["uid ", "uid_map ", "volume ", "nonce n0", "end end"] {
            assert!(out.lines().any(|line| line.starts_with(name)), "{name}: {out}");
        }
        assert!(!file.exists());
    }
}
