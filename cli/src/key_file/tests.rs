//! Every type of key that `ssh -Q key` lists, as ssh-keygen writes it, and every way in which a file of it is saved.

#![allow(clippy::unwrap_used, reason = "a test may stop loudly")]

use super::{KeyFileError, read};

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICuL/CjmmLGMYuXXSR9u2Klk9eJ0xu8wvfec2pqYx1KT";
const ECDSA256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBIr8TfZCqVEqoC86Q3yW8mVcPXrR+HOlvouA9Cva8/lvZ9ImCqTMBmsds9Gyjm+rlS8Xh3aU0N6E2328DFVhTXY=";
const ECDSA384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBG1+LxOCCAAkoE9FEPf1eaWvD4now6LXmxX6JfzNrmfATeswhSonHFmD7ujL7IhsOr4yfUtcjhJnPdWrtrhHU7fthkuRyqYu6eoA4QsP48X1MREvhm1zcPTnE3ffaV2ZrA==";
const ECDSA521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBADB6nk8gljJ9mMfiywRobbjQ6KHBsESS33+2XhzPbo/JkEPfV/MKxNE6Btf6gs9rzN6X70/3/IdJ7ZAccFvYNXHcQA+/wf3/VtQSzCIGdPtDi+8APadNNUDOxvcR8OzrmL8jOOK01mt3MpIpEWNwQLxldLjGvLwx7mocfZAo1R4lHcUdw==";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDUGzAScRH/dk9DNMGjvpTNDjGjGmhzblxrZgl9E215MgDKS9qNY3CGuT5OmK06uqwlLRhC68E7vkhFzWThHWRm4WZqPMGmCWlgfbLZL2C7oP48mlxn5PGjNGQpc5d9PlbphIn6gKyxxwAV8aei9LEp68bRXpFAVGwj47n7tbtZMcqvNHc/JKmsUKx9JLK/z1pH9itMfDElhb0bhlKK0kL1srGkdt5maeozrfJvn6kplmwxQHslXM91ZMm3ZZkHYMo0MzSLBYCKKE5S7v1wKiyZKa8bvcCcJfQW74Sl5tdv93XMpLVTlUyOUziyefbfGOoPFI72vW7ManBlXVmAOPiT";
const RSA1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC1a0Ptn21dqmSROTRbpJ6CpHG+2nLb5zC2foFqgGrZSed6YWRXsjoRNSseusEnwbcQ+SIi8CH6aNKhdysezmZoa7A8Kwu7o92BTevIpVE/AwGcAwRKV2lJAzs27R0YSRa5oYM9a4gFctxNA1+unVJZC2MriMCUs6KI9HbFOjDRIQ==";
const DSA: &str = "ssh-dss AAAAB3NzaC1kc3MAAACBAJQklgp8p9q4vVZLtb/XGcIpLPPKTP3atu22SzwF35jlt54RPza0azggLkgiTHJfjaLsfU8qOpZZ8b+u1YCBnj3uDGPgsEBq5LgttSzkwlRX5E4uXSwS0SLEXlE6MtstDyVgRzjAx7S5/5Wh8vQtzGFHOb+QkIMGvAKB23KR/ZMfAAAAFQCYiG8yglw9/VJVIA8oADfMDOZDnwAAAIEAgRP3CajT1jJmlk1jb5DLdrKpaLP9N6w5fY9zXSHq+AtTkMEqZsKbxxtzG7PSmtoK57mrzSjNvyr6aD1b1EyYXuFA/2ADvdTszqAhGowV48UvW77AjZQLMGc7WIBYQ9WcRhDNHMw1zI+ve8dVRbdyMC8MGNIG7jwISpudCAvEUIsAAACASF3WmZMCUM0v0NIjam5pw5iiocjBuh1CeQ26OXJodq7y+PdvJMOsd//1BWODHuwIp9gxs91sWO6kef/my/xE8gYAQsnjsHR4JQ1+qnOJSno04vqYAkBxJmej1HCElNNWRckxd21djjiashSPDg9V980l0+BBqXxq4HvdCGldaTM=";
const CERT: &str = "ecdsa-sha2-nistp256-cert-v01@openssh.com AAAAKGVjZHNhLXNoYTItbmlzdHAyNTYtY2VydC12MDFAb3BlbnNzaC5jb20AAAAgk02CWu/2+xhsys1qJI8/AThCS63w5kVP725SLmu3y7QAAAAIbmlzdHAyNTYAAABBBIr8TfZCqVEqoC86Q3yW8mVcPXrR+HOlvouA9Cva8/lvZ9ImCqTMBmsds9Gyjm+rlS8Xh3aU0N6E2328DFVhTXYAAAAAAAAAAAAAAAEAAAACaWQAAAAIAAAABHJvb3QAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgK4v8KOaYsYxi5ddJH27YqWT14nTG7zC995zampjHUpMAAABTAAAAC3NzaC1lZDI1NTE5AAAAQJ4Ubtt/BZDuPR2u+G+3b1nuEkuBnt1yHakoOHI9+k9j11KOuPaoxD/y7huqmgfaSTvNU8JmwjGUlNmmPEKyGQc=";
const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAAABHNzaDo=";
const SK_ECDSA: &str = "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBIr8TfZCqVEqoC86Q3yW8mVcPXrR+HOlvouA9Cva8/lvZ9ImCqTMBmsds9Gyjm+rlS8Xh3aU0N6E2328DFVhTXYAAAAEc3NoOg==";
const RSA768: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAYQDFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcU=";

const TAKEN: [&str; 8] = [
    ED25519, SK_ED25519, ECDSA256, ECDSA384, ECDSA521, SK_ECDSA, RSA, RSA1024,
];

fn why(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn every_type_that_openssh_takes_is_taken_as_it_is() {
    for key in TAKEN {
        for line in [
            key.to_owned(),
            format!("{key} somebody@somewhere with words"),
            format!("from=\"10.0.0.0/8,192.0.2.1\",no-pty,command=\"echo \\\"a b\\\"\" {key} c"),
            format!("restrict,PTY {key}"),
        ] {
            assert_eq!(read(line.as_bytes()), Ok(vec![line.clone()]), "{line}");
        }
    }
}

#[test]
fn what_a_space_would_not_take_is_named() {
    assert!(why(CERT).contains("certificate"));
    assert!(why(DSA).contains("ssh-dss is not supported"));
    assert!(why(RSA768).contains("RSA key of 768 bits"));
    assert!(why("ssh-xmss@openssh.com AAAA").contains("no type of key"));
    assert!(why(&format!("no-such-option {ED25519}")).contains("\"no-such-option\" is neither"));
    assert!(why("restrict").contains("no key follows"));
    assert!(why("hello world").contains("neither a type of key nor an option"));
    assert_eq!(why("# nothing\n\n"), "it is empty");
    assert_eq!(
        why("-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        "it holds a private key"
    );
    // Half a key, and one whose inside says another type.
    let half = &RSA[..RSA.len() - 40];
    assert_eq!(why(half), "line 1: the key is cut off or damaged");
    let other = ED25519.replace("ssh-ed25519 ", "ssh-rsa ");
    assert_eq!(
        why(&format!("{ED25519}\n{other}")),
        "line 2: the key is cut off or damaged"
    );
}

#[test]
fn a_file_is_read_however_it_was_saved() {
    let text = format!("# mine\r\n{ED25519}\r\n\r\n{RSA}");
    let wide = |unit: fn(u16) -> [u8; 2], mark: bool| {
        let mark = if mark { "\u{feff}" } else { "" };
        format!("{mark}{text}")
            .encode_utf16()
            .flat_map(unit)
            .collect::<Vec<u8>>()
    };
    for bytes in [
        text.clone().into_bytes(),
        format!("\u{feff}{text}\n").into_bytes(),
        wide(u16::to_le_bytes, true),
        wide(u16::to_be_bytes, true),
        wide(u16::to_le_bytes, false),
        wide(u16::to_be_bytes, false),
        text.replace("\r\n", "\r").into_bytes(),
    ] {
        assert_eq!(read(&bytes), Ok(vec![ED25519.to_owned(), RSA.to_owned()]));
    }
    assert_eq!(read(b"\xff\xfes\0s"), Err(KeyFileError::NoText));
    assert_eq!(read(b"ssh-ed25519 \xc3\x28"), Err(KeyFileError::NoText));
}

/// The oracle: what ssh-keygen of this machine reads as a key, is one for us, and the other way round.
#[test]
fn ssh_keygen_agrees() {
    let folder = std::env::temp_dir().join(format!("steading-key-file-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (index, key) in TAKEN.iter().enumerate() {
        let path = folder.join(index.to_string());
        std::fs::write(&path, format!("{key}\n")).unwrap();
        let output = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{key}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
