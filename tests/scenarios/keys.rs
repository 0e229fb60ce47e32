//! Every type of key that OpenSSH has: those that a space takes let in, the others are refused before money moves.
//!
//! Security keys are played by an agent of this test: it signs as a token does (PROTOCOL.u2f of OpenSSH) with keys that
//! the program openssl holds, so that sshd checks real signatures.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use crate::world::World;

/// Ordinary keys: file, type for ssh-keygen, its bits, type on the wire.
const ORDINARY: [(&str, &str, &str, &str); 5] = [
    ("ed25519", "ed25519", "256", "ssh-ed25519"),
    ("ecdsa256", "ecdsa", "256", "ecdsa-sha2-nistp256"),
    ("ecdsa384", "ecdsa", "384", "ecdsa-sha2-nistp384"),
    ("ecdsa521", "ecdsa", "521", "ecdsa-sha2-nistp521"),
    ("rsa", "rsa", "2048", "ssh-rsa"),
];
/// Security keys: file, type on the wire.
const SECURITY: [(&str, &str); 2] = [
    ("sk-ed25519", "sk-ssh-ed25519@openssh.com"),
    ("sk-ecdsa", "sk-ecdsa-sha2-nistp256@openssh.com"),
];
const APPLICATION: &[u8] = b"ssh:";

/// Makes all keys in `folder`, and the file that a buyer hands in: as an editor on another system saved it.
pub fn make(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let mut lines = Vec::new();
    for (file, kind, bits, _) in ORDINARY {
        lines.push(generate(folder, file, kind, bits)?);
    }
    for (file, kind) in SECURITY {
        lines.push(security_key(folder, file, kind)?);
    }
    let forced = generate(folder, "forced", "ed25519", "256")?;
    lines.push(format!(
        "restrict,pty,command=\"echo forced, as it says\" {forced}"
    ));
    let authority = generate(folder, "authority", "ed25519", "256")?;
    lines.push(format!("cert-authority,principals=\"root\" {authority}"));
    generate(folder, "certified", "ed25519", "256")?;
    run(Command::new("ssh-keygen")
        .args(["-q", "-I", "test", "-n", "root", "-s"])
        .arg(folder.join("authority"))
        .arg(folder.join("certified.pub")))?;
    generate(folder, "stranger", "ed25519", "256")?;
    let text = format!("\u{feff}# mine\r\n{}", lines.join("\r\n"));
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let all = folder.join("all.pub");
    std::fs::write(&all, bytes)?;
    Ok(all)
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// A key by ssh-keygen; its public line.
fn generate(folder: &Path, file: &str, kind: &str, bits: &str) -> Result<String> {
    let path = folder.join(file);
    run(Command::new("ssh-keygen")
        .args([
            "-q",
            "-N",
            "",
            "-C",
            "somebody@somewhere, in words",
            "-t",
            kind,
            "-b",
            bits,
            "-f",
        ])
        .arg(&path))?;
    Ok(std::fs::read_to_string(path.with_extension("pub"))?
        .trim()
        .to_owned())
}

/// A key whose private half openssl holds; its public line.
fn security_key(folder: &Path, file: &str, kind: &str) -> Result<String> {
    let secret = secret(folder, file);
    let ed25519 = file == "sk-ed25519";
    let mut make = Command::new("openssl");
    make.args(["genpkey", "-out"]).arg(&secret);
    if ed25519 {
        make.args(["-algorithm", "ed25519"]);
    } else {
        make.args(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    }
    run(&mut make)?;
    let public = run(Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&secret))?;
    // The key itself stands at the end of its DER form: 32 bytes, or an uncompressed point.
    let length = if ed25519 { 32 } else { 65 };
    let point = public
        .get(public.len().saturating_sub(length)..)
        .context("a short public key")?;
    let mut blob = string(kind.as_bytes());
    if !ed25519 {
        blob.extend(string(b"nistp256"));
    }
    blob.extend(string(point));
    blob.extend(string(APPLICATION));
    let line = format!("{kind} {} a token", BASE64.encode(&blob));
    std::fs::write(folder.join(file).with_extension("pub"), format!("{line}\n"))?;
    Ok(line)
}

fn secret(folder: &Path, file: &str) -> PathBuf {
    folder.join(file).with_extension("pem")
}

/// A string with its length before it (RFC 4251, section 5).
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// Takes such a string off the front.
fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>().context("no length")?;
    let length = usize::try_from(u32::from_be_bytes(*length))?;
    let (string, rest) = rest.split_at_checked(length).context("a string is cut off")?;
    *bytes = rest;
    Ok(string)
}

/// An agent that holds both security keys, on a socket in `folder`. Lives as long as the test.
fn agent(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("agent");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let folder: Arc<Path> = folder.into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = Arc::clone(&folder);
            std::thread::spawn(move || while answer(&stream, &folder).is_ok() {});
        }
    });
    Ok(path)
}

/// One question of draft-ietf-sshm-ssh-agent, and its answer.
fn answer(mut stream: &UnixStream, folder: &Path) -> Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut question)?;
    let answer = match question.split_first() {
        // REQUEST_IDENTITIES, IDENTITIES_ANSWER
        Some((11, _)) => {
            let mut answer = vec![12, 0, 0, 0, 2];
            for (file, _) in SECURITY {
                answer.extend(string(&blob(folder, file)?));
                answer.extend(string(file.as_bytes()));
            }
            answer
        }
        // SIGN_REQUEST, SIGN_RESPONSE
        Some((13, mut rest)) => {
            let (wanted, data) = (take(&mut rest)?, take(&mut rest)?);
            let mut answer = vec![14];
            answer.extend(string(&touch(folder, wanted, data)?));
            answer
        }
        _ => vec![5],
    };
    stream.write_all(&string(&answer))?;
    Ok(())
}

fn blob(folder: &Path, file: &str) -> Result<Vec<u8>> {
    let line = std::fs::read_to_string(folder.join(file).with_extension("pub"))?;
    let text = line.split_whitespace().nth(1).context("no key in the line")?;
    Ok(BASE64.decode(text.as_bytes())?)
}

/// The signature of a token that was touched.
fn touch(folder: &Path, wanted: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    const PRESENT: u8 = 1;
    const COUNTER: [u8; 4] = [0, 0, 0, 7];
    for (file, kind) in SECURITY {
        if blob(folder, file)? != wanted {
            continue;
        }
        let message = [
            &Sha256::digest(APPLICATION)[..],
            &[PRESENT],
            &COUNTER,
            &Sha256::digest(data)[..],
        ]
        .concat();
        let path = folder.join(file).with_extension("message");
        std::fs::write(&path, message)?;
        let raw = if file == "sk-ed25519" {
            run(Command::new("openssl")
                .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
                .arg(secret(folder, file))
                .arg("-in")
                .arg(&path))?
        } else {
            numbers(&run(Command::new("openssl")
                .args(["dgst", "-sha256", "-sign"])
                .arg(secret(folder, file))
                .arg(&path))?)?
        };
        let mut signature = string(kind.as_bytes());
        signature.extend(string(&raw));
        signature.push(PRESENT);
        signature.extend(COUNTER);
        return Ok(signature);
    }
    bail!("a key that this agent has not")
}

/// A DER pair of integers as two of SSH's: both write them big-endian with a zero before a high bit.
fn numbers(der: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = der.get(2..).context("a short signature")?;
    while let [2, length, tail @ ..] = rest {
        let (number, tail) = tail
            .split_at_checked(usize::from(*length))
            .context("a short number")?;
        out.extend(string(number));
        rest = tail;
    }
    Ok(out)
}

/// The scenario: all at once, each with its own key alone.
pub fn every_type_lets_in(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, folder) = (world.space()?, world.keys()?);
    let agent = agent(&folder)?;
    // The client's own key would let in as well.
    let config = folder.join("config");
    let text = std::fs::read_to_string(world.ssh_config()?)?;
    let without: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("IdentityFile"))
        .collect();
    std::fs::write(&config, without.join("\n"))?;
    let login = |file: &str| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).arg("-i");
        if file.starts_with("sk-") {
            ssh.arg(folder.join(file).with_extension("pub"))
                .env("SSH_AUTH_SOCK", &agent);
        } else {
            ssh.arg(folder.join(file)).env_remove("SSH_AUTH_SOCK");
        }
        ssh.args([name.as_str(), "echo in"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        ssh.spawn()
    };
    let wanted = ORDINARY
        .iter()
        .map(|(file, ..)| (*file, "in\n"))
        .chain(SECURITY.iter().map(|(file, _)| (*file, "in\n")))
        // Its options hold; a certificate of the authority is as good as a key; nobody else comes in.
        .chain([
            ("forced", "forced, as it says\n"),
            ("certified", "in\n"),
            ("stranger", ""),
        ]);
    let tried: Vec<_> = wanted
        .map(|(file, wanted)| Ok((file, wanted, login(file)?)))
        .collect::<Result<_>>()?;
    let mut wrong = Vec::new();
    for (file, wanted, ssh) in tried {
        let output = ssh.wait_with_output()?;
        let (said, why) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        if said != wanted || (wanted.is_empty() && !why.contains("Permission denied")) {
            wrong.push(format!("{file}: {} said {said:?}\n{why}", output.status));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    all_are_known(world)
}

/// Whatever this machine's OpenSSH lists was let in above, or is refused with a reason.
fn all_are_known(world: &mut World) -> Result<()> {
    let folder = world.keys()?;
    let listed = String::from_utf8(run(Command::new("ssh").args(["-Q", "key"]))?)?;
    let lets_in = |kind: &str| {
        ORDINARY.iter().any(|known| known.3 == kind) || SECURITY.iter().any(|known| known.1 == kind)
    };
    let before = world.user()?.balance()?;
    for kind in listed.lines().filter(|kind| !lets_in(kind)) {
        let path = folder.join("refused.pub");
        let mut blob = string(kind.as_bytes());
        blob.extend(string(&[1; 32]));
        std::fs::write(&path, format!("{kind} {}\n", BASE64.encode(&blob)))?;
        let answer = world.try_to_buy(&path)?;
        let reason = if kind.contains("-cert-") {
            "is a certificate"
        } else {
            "is not supported by OpenSSH"
        };
        ensure!(
            answer.code == 2 && format!("{}{}", answer.out, answer.err).contains(reason),
            "{kind}: exit code {}, {}{}",
            answer.code,
            answer.out,
            answer.err
        );
    }
    ensure!(world.user()?.balance()? == before, "a refused key cost money");
    Ok(())
}
