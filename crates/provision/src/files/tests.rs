//! The files over a folder that stands for a volume, and what a hostile user makes of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn files(seed: Option<u8>) -> SpaceFiles {
    SpaceFiles {
        host_key_seed: seed.map(|byte| Zeroizing::new([byte; 32])),
        authorized_keys: vec!["ssh-ed25519 AAAA one".into()],
        hostname: "calm-otter".into(),
        resolvers: vec!["10.0.0.1".parse().unwrap()],
        machine_id: [0xab; 16],
    }
}

#[test]
fn everything_is_written_with_its_mode() {
    let volume = tempfile::tempdir().unwrap();
    files(Some(1)).write(volume.path()).unwrap();
    let read = |path: &str| fs::read_to_string(volume.path().join(path)).unwrap();
    let mode = |path: &str| {
        fs::metadata(volume.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(read(HOST_KEY), read(KEPT_KEY));
    assert!(read(HOST_KEY).starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert_eq!(read(AUTHORIZED), "ssh-ed25519 AAAA one\n");
    assert_eq!(read("upper/etc/hostname"), "calm-otter\n");
    assert!(read("upper/etc/hosts").contains("127.0.1.1\tcalm-otter"));
    assert!(read("upper/etc/resolv.conf").ends_with("nameserver 10.0.0.1\n"));
    assert_eq!(read("upper/etc/machine-id"), "ab".repeat(16) + "\n");
    for (path, right) in [
        (HOST_KEY, 0o600),
        (AUTHORIZED, 0o600),
        ("upper/root/.ssh", 0o700),
        ("upper/etc", 0o755),
        ("upper/etc/hostname", 0o644),
        ("steading", 0o700),
    ] {
        assert_eq!(mode(path), right, "{path}");
    }
}

#[test]
fn an_unlock_keeps_the_host_key_and_what_the_user_made() {
    let volume = tempfile::tempdir().unwrap();
    let path = |name: &str| volume.path().join(name);
    files(Some(1)).write(volume.path()).unwrap();
    let key = fs::read(path(HOST_KEY)).unwrap();
    fs::write(path(HOST_KEY), "mine").unwrap();
    fs::write(path(AUTHORIZED), "ssh-ed25519 BBBB mine").unwrap();
    fs::write(path("upper/etc/hostname"), "renamed\n").unwrap();
    fs::write(path("upper/etc/resolv.conf"), "nameserver 9.9.9.9\n").unwrap();
    fs::remove_file(path("upper/etc/hosts")).unwrap();
    for _ in 0..2 {
        files(None).write(volume.path()).unwrap();
        assert_eq!(
            fs::read(path(HOST_KEY)).unwrap(),
            key,
            "the client pinned this one"
        );
        let keys = fs::read_to_string(path(AUTHORIZED)).unwrap();
        assert_eq!(keys, "ssh-ed25519 BBBB mine\nssh-ed25519 AAAA one\n");
        assert_eq!(
            fs::read_to_string(path("upper/etc/hostname")).unwrap(),
            "renamed\n"
        );
        assert_eq!(
            fs::read_to_string(path("upper/etc/resolv.conf")).unwrap(),
            "nameserver 9.9.9.9\n"
        );
        assert!(path("upper/etc/hosts").exists());
    }
}

#[test]
fn an_unlock_of_a_volume_without_a_kept_key_is_refused() {
    let volume = tempfile::tempdir().unwrap();
    assert!(files(None).write(volume.path()).is_err());
}

#[test]
fn no_symlink_of_the_user_leads_into_the_node() {
    // Each place along each path, in turn a symlink to a folder or file of the node.
    for place in [
        "upper",
        "upper/etc",
        "upper/etc/ssh",
        HOST_KEY,
        "upper/root",
        "upper/root/.ssh",
        AUTHORIZED,
        "upper/etc/hostname",
        "upper/etc/hosts",
        "upper/etc/resolv.conf",
        "upper/etc/machine-id",
        "data",
    ] {
        let (volume, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        files(Some(1)).write(volume.path()).unwrap();
        let victim = node.path().join("victim");
        fs::write(&victim, "of the node").unwrap();
        let target = volume.path().join(place);
        let file = target.is_file();
        if file {
            fs::remove_file(&target).unwrap()
        } else {
            fs::remove_dir_all(&target).unwrap()
        };
        symlink(if file { victim.as_path() } else { node.path() }, &target).unwrap();
        files(None).write(volume.path()).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of the node", "{place}");
        assert_eq!(
            fs::read_dir(node.path()).unwrap().count(),
            1,
            "{place}: something was made in the node"
        );
        assert!(volume.path().join(HOST_KEY).is_file(), "{place}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let volume = tempfile::tempdir().unwrap();
    for line in ["", "a\nb", "a\0", &"x".repeat(MAX_KEY_LINE + 1)] {
        let mut files = files(Some(1));
        files.authorized_keys.push(line.to_owned());
        assert!(
            matches!(files.write(volume.path()), Err(FilesError::Key { number: 2, .. })),
            "{line:?}"
        );
    }
    for name in ["", "-a", "A", "a b", "a\nb", &"x".repeat(64)] {
        let mut files = files(Some(1));
        files.hostname = name.to_owned();
        assert!(
            matches!(files.write(volume.path()), Err(FilesError::Hostname(_))),
            "{name:?}"
        );
    }
    assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0);
}

#[test]
fn a_huge_or_strange_file_does_not_stop_the_node() {
    let volume = tempfile::tempdir().unwrap();
    files(Some(1)).write(volume.path()).unwrap();
    let keys = volume.path().join(AUTHORIZED);
    fs::remove_file(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    let error = files(None).write(volume.path()).unwrap_err();
    assert!(error.to_string().contains(AUTHORIZED), "{error}");
}
