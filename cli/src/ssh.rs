//! OpenSSH on this machine: a key, a config and a known_hosts of our own, so that `ssh NAME`,
//! scp, rsync and VS Code use the pinned host key and go through the grid.
//!
//! ```text
//! state/ssh/config        one Host block a space; `Include` it once, or use `ssh -F`
//! state/ssh/known_hosts   the pinned host keys, by alias steading-<sale id>
//! state/ssh/id_ed25519    the SSH user key, made from the seed (0600)
//! ```
//! Invariant: the three files are made anew from the sales, whole, each time something changes;
//! nothing is learned from the network.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use data_encoding::{BASE64, BASE64_NOPAD};
use ed25519_dalek::SigningKey;
use market::message::openssh_ed25519;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::exit::Outcome;
use crate::files::{make_folder, write_whole};
use crate::keys::Seed;
use crate::settings::Folders;
use crate::store::record::Record;
use crate::store::{SaleFiles, Store};

/// Where the files lie.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.state.join("ssh")
}

/// The config for `ssh -F` and for `Include`.
pub fn config_path(folders: &Folders) -> PathBuf {
    folder(folders).join("config")
}

/// The public half as authorized_keys writes it.
pub fn public_line(key: &SigningKey) -> String {
    format!("{} steading", openssh_ed25519(key.verifying_key().as_bytes()))
}

/// `SHA256:…`, as OpenSSH shows a key (RFC 4253 blob, base64 without padding), shortened.
pub fn fingerprint(line: &str) -> String {
    let blob = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let Some(blob) = blob else {
        return "unreadable".to_owned();
    };
    let digest = BASE64_NOPAD.encode(&Sha256::digest(&blob));
    format!("SHA256:{}…", &digest[..4])
}

/// A private key in OpenSSH's own form, not encrypted (PROTOCOL.key of OpenSSH).
fn private_key_file(key: &SigningKey) -> Zeroizing<String> {
    fn string(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    let public = key.verifying_key().to_bytes();
    let mut public_blob = Vec::new();
    string(&mut public_blob, b"ssh-ed25519");
    string(&mut public_blob, &public);

    // The same number twice: a decryption that went wrong would show here. Ours is never encrypted.
    let mut private = Zeroizing::new(vec![0u8; 8]);
    string(&mut private, b"ssh-ed25519");
    string(&mut private, &public);
    let both = Zeroizing::new([&key.to_bytes()[..], &public].concat());
    string(&mut private, &both);
    string(&mut private, b"steading");
    let padding = (1..=u8::MAX).take((8 - private.len() % 8) % 8);
    private.extend(padding);

    let mut all = Zeroizing::new(b"openssh-key-v1\0".to_vec());
    string(&mut all, b"none");
    string(&mut all, b"none");
    string(&mut all, b"");
    all.extend_from_slice(&1u32.to_be_bytes());
    string(&mut all, &public_blob);
    string(&mut all, &private);
    let base64 = Zeroizing::new(BASE64.encode(&all));
    let mut text = Zeroizing::new("-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned());
    for line in base64.as_bytes().chunks(70) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    text
}

/// Makes config, known_hosts and key anew.
pub fn write_files(store: &Store, seed: &Seed) -> Outcome {
    let folders = store.folders();
    let folder = folder(folders);
    make_folder(&folder)?;
    let key = seed.ssh_key();
    write_whole(&folder.join("id_ed25519"), private_key_file(&key).as_bytes())?;
    write_whole(
        &folder.join("id_ed25519.pub"),
        format!("{}\n", public_line(&key)).as_bytes(),
    )?;
    let sales: Vec<_> = store
        .sales()?
        .into_iter()
        .filter(|(_, record)| !record.is_over() && record.host_key.is_some())
        .collect();
    let program = std::env::current_exe().context("where this program lies is not known")?;
    write_whole(&folder.join("known_hosts"), known_hosts(&sales).as_bytes())?;
    write_whole(
        &folder.join("config"),
        config(&sales, folders, &program).as_bytes(),
    )?;
    Ok(())
}

fn alias(files: &SaleFiles) -> String {
    format!("steading-{}", files.id)
}

fn known_hosts(sales: &[(SaleFiles, Record)]) -> String {
    sales
        .iter()
        .filter_map(|(files, record)| Some(format!("{} {}\n", alias(files), record.host_key.as_ref()?)))
        .collect()
}

/// One Host block a space.
fn config(sales: &[(SaleFiles, Record)], folders: &Folders, program: &Path) -> String {
    let folder = folder(folders);
    let mut text =
        "# Written by steading; changes are overwritten. Use it by one line in ~/.ssh/config:\n".to_owned();
    let _ = writeln!(text, "#   Include {}", config_quoted(&folder.join("config")));
    for (files, record) in sales {
        let _ = write!(
            text,
            "\nHost {name}\n    HostName {name}\n    HostKeyAlias {alias}\n    User root\n    \
             ProxyCommand {proxy} connect {name}\n    IdentityFile {key}\n    IdentitiesOnly yes\n    \
             UserKnownHostsFile {known}\n    GlobalKnownHostsFile /dev/null\n    \
             StrictHostKeyChecking yes\n    UpdateHostKeys no\n    CheckHostIP no\n    \
             ServerAliveInterval 15\n    ServerAliveCountMax 4\n",
            name = record.name,
            alias = alias(files),
            proxy = proxy_command(folders, program),
            key = config_quoted(&folder.join("id_ed25519")),
            known = config_quoted(&folder.join("known_hosts")),
        );
    }
    text
}

/// The beginning of a ProxyCommand: run by a shell, after OpenSSH has replaced %-tokens.
fn proxy_command(folders: &Folders, program: &Path) -> String {
    let quoted = |path: &Path| {
        let text = path.to_string_lossy().replace('\'', "'\\''").replace('%', "%%");
        format!("'{text}'")
    };
    match &folders.home {
        Some(home) => format!("env STEADING_HOME={} {}", quoted(home), quoted(program)),
        None => quoted(program),
    }
}

/// A path as an ssh_config argument.
fn config_quoted(path: &Path) -> String {
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes()).replace('%', "%%");
    format!("\"{text}\"")
}

/// `ssh -F our-config`, nothing of the person's own configuration.
pub fn command(folders: &Folders) -> std::process::Command {
    let mut command = std::process::Command::new("ssh");
    command.arg("-F").arg(config_path(folders));
    command
}

/// A ProxyCommand for the proof itself: `connect` must not prove again.
pub fn unproven_proxy(folders: &Folders, name: &str) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("where this program lies is not known")?;
    Ok(format!(
        "ProxyCommand={} connect --unproven {name}",
        proxy_command(folders, &program)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use market::id::SaleId;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    /// OpenSSH itself is the judge of the key's form.
    #[test]
    fn openssh_reads_the_private_key_and_finds_the_public_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, private_key_file(&key()).as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = std::process::Command::new("ssh-keygen")
            .arg("-y")
            .arg("-f")
            .arg(&path)
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        assert_eq!(
            String::from_utf8(read.stdout).unwrap().trim(),
            public_line(&key())
        );
        let public = dir.path().join("key.pub");
        std::fs::write(&public, public_line(&key())).unwrap();
        let shown = std::process::Command::new("ssh-keygen")
            .arg("-l")
            .arg("-f")
            .arg(&public)
            .output()
            .unwrap();
        let short = fingerprint(&public_line(&key()));
        assert!(
            String::from_utf8(shown.stdout)
                .unwrap()
                .contains(short.trim_end_matches('…'))
        );
    }

    /// OpenSSH itself is the judge of the config's form.
    #[test]
    fn openssh_reads_the_config_of_an_odd_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("an odd 100% home's");
        let folders = Folders::under(&home);
        let store = Store::new(folders.clone());
        let mut record = crate::store::record::tests::record("calm-otter");
        record.host_key = Some(openssh_ed25519(&[4; 32]));
        store.sale(SaleId([1; 32])).keep_record(&record).unwrap();
        write_files(&store, &Seed::fresh().unwrap()).unwrap();
        let output = command(&folders).args(["-G", "calm-otter"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let expected = [
            "user root".to_owned(),
            format!("hostkeyalias steading-{}", "01".repeat(32)),
            "stricthostkeychecking true".to_owned(),
            "identitiesonly yes".to_owned(),
        ];
        for line in expected {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        let proxy = text
            .lines()
            .find_map(|line| line.strip_prefix("proxycommand "))
            .unwrap();
        assert!(proxy.ends_with("connect calm-otter"), "{proxy}");
        // What a shell makes of it, once OpenSSH has turned %% into %.
        let proxy = proxy.replace("%%", "%");
        let program = format!("set -- {proxy}; printf %s \"$2\"");
        let shell = std::process::Command::new("sh")
            .arg("-c")
            .arg(program)
            .output()
            .unwrap();
        let said = String::from_utf8(shell.stdout).unwrap();
        assert_eq!(said, format!("STEADING_HOME={}", home.display()));
        let hosts = std::fs::read_to_string(folder(&folders).join("known_hosts")).unwrap();
        assert_eq!(
            hosts,
            format!("steading-{} {}\n", "01".repeat(32), openssh_ed25519(&[4; 32]))
        );
    }
}
