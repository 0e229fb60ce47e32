//! The SSH host key in OpenSSH's format, without ssh-keygen.
//!
//! ```text
//!   "openssh-key-v1\0" "none" "none" "" 1 string(public) string(private, padded to 8)
//!   public   "ssh-ed25519" pub32          private  check check "ssh-ed25519" pub32 seed32‖pub32 comment 1 2 3 …
//! ```
//!
//! Source: PROTOCOL.key of OpenSSH. All strings have a length of four bytes, big endian, before them.

use std::io;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

const KIND: &[u8] = b"ssh-ed25519";
const COMMENT: &[u8] = b"steading";
/// OpenSSH breaks its base64 at this column.
const COLUMN: usize = 70;

/// The public half of the key with this seed.
pub fn host_public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// The private key file. The same seed gives another text each time, as from ssh-keygen.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn openssh_private_key(seed: &[u8; 32]) -> io::Result<Zeroizing<String>> {
    let mut check = [0; 4];
    getrandom::fill(&mut check).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(armor(seed, check))
}

fn armor(seed: &[u8; 32], check: [u8; 4]) -> Zeroizing<String> {
    let public = host_public_key(seed);
    // Sized ahead, so that no half-filled copy of the secret is left behind by a growing vector.
    let mut private = Zeroizing::new(Vec::with_capacity(256));
    private.extend_from_slice(&check);
    private.extend_from_slice(&check);
    string(&mut private, KIND);
    string(&mut private, &public);
    private.extend_from_slice(&64_u32.to_be_bytes());
    private.extend_from_slice(seed);
    private.extend_from_slice(&public);
    string(&mut private, COMMENT);
    let padding = private.len().next_multiple_of(8) - private.len();
    private.extend((1..=padding).map(|byte| byte as u8));

    let mut blob = Zeroizing::new(Vec::with_capacity(512));
    blob.extend_from_slice(b"openssh-key-v1\0");
    string(&mut blob, b"none");
    string(&mut blob, b"none");
    string(&mut blob, b"");
    blob.extend_from_slice(&1_u32.to_be_bytes());
    let mut public_blob = Vec::new();
    string(&mut public_blob, KIND);
    string(&mut public_blob, &public);
    string(&mut blob, &public_blob);
    string(&mut blob, &private);

    let base64 = Zeroizing::new(BASE64.encode(&blob));
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(COLUMN.min(rest.len()));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    text
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    // All strings here are shorter than 500 bytes.
    to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// OpenSSH itself is the oracle: it must read the key, and find the public half that we pin.
    #[test]
    fn openssh_reads_the_key() {
        let folder = tempfile::tempdir().unwrap();
        for seed in [[0; 32], [7; 32], [0xff; 32]] {
            let path = folder.path().join("key");
            fs::write(&path, openssh_private_key(&seed).unwrap().as_bytes()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let output = Command::new("ssh-keygen")
                .arg("-y")
                .arg("-f")
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let line = String::from_utf8(output.stdout).unwrap();
            let mut words = line.split_whitespace();
            assert_eq!(words.next(), Some("ssh-ed25519"));
            let blob = BASE64.decode(words.next().unwrap().as_bytes()).unwrap();
            assert_eq!(blob[blob.len() - 32..], host_public_key(&seed));
            assert_eq!(words.next(), Some("steading"));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn the_file_is_shaped_as_openssh_s_own() {
        let text = armor(&[1; 32], [9; 4]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "-----BEGIN OPENSSH PRIVATE KEY-----");
        assert!(lines[1..lines.len() - 2].iter().all(|line| line.len() == COLUMN));
        assert!(text.ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
    }
}
