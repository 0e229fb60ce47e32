//! libblkid and the samples over files that stand for disks. The signatures are made by hand, so
//! that the build machine needs no mkfs.

use std::fs::File;

use super::*;

const DISK: u64 = 64 << 20;

fn disk(writes: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(DISK).unwrap();
    for (offset, bytes) in writes {
        file.as_file().write_all_at(bytes, *offset).unwrap();
    }
    file
}

/// Enough of an ext4 superblock for libblkid: magic, features, UUID, label.
fn ext4(label: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 1024];
    block[0x04..0x08].copy_from_slice(&16384_u32.to_le_bytes());
    block[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
    block[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
    block[0x4c..0x50].copy_from_slice(&1_u32.to_le_bytes());
    block[0x5c..0x60].copy_from_slice(&0x0004_u32.to_le_bytes());
    block[0x60..0x64].copy_from_slice(&0x0042_u32.to_le_bytes());
    block[0x68..0x78].copy_from_slice(&[0xab; 16]);
    block[0x78..0x78 + label.len()].copy_from_slice(label);
    block
}

fn swap() -> (u64, Vec<u8>) {
    let mut page = vec![0; 4096];
    page[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&1023_u32.to_le_bytes());
    page[4086..].copy_from_slice(b"SWAPSPACE2");
    (0, page)
}

#[test]
fn zeros_are_empty() {
    assert_eq!(probe(disk(&[]).path()).unwrap(), Content::Empty);
    assert_eq!(Content::Empty.fingerprint(), None);
}

#[test]
fn one_byte_anywhere_that_is_read_is_not_empty() {
    for offset in [0, EDGE_BYTES - 1, DISK - EDGE_BYTES, DISK - 1] {
        let content = probe(disk(&[(offset, b"x")]).path()).unwrap();
        assert!(
            matches!(content, Content::NotZero { offset: at, .. } if at == offset),
            "{content:?}"
        );
        assert!(content.words().contains(&format!("first at {offset}")));
        assert!(content.fingerprint().unwrap().starts_with("data "));
    }
    let whole = vec![1; (DISK - 3 * EDGE_BYTES) as usize];
    let content = probe(disk(&[(EDGE_BYTES + 4096, &whole)]).path()).unwrap();
    assert!(
        matches!(content, Content::NotZero { .. }),
        "the samples see what fills the middle"
    );
}

#[test]
fn a_file_system_is_named_with_its_label_and_uuid() {
    let content = probe(disk(&[(1024, &ext4(b"backup"))]).path()).unwrap();
    assert_eq!(content.words(), "ext4 \"backup\"");
    assert_eq!(
        content.fingerprint().unwrap(),
        "ext4 abababab-abab-abab-abab-abababababab"
    );
}

#[test]
fn all_signatures_are_told() {
    let (at, page) = swap();
    let content = probe(disk(&[(at, &page), (1024 + 64 * 1024, b"_BHRfS_M")]).path()).unwrap();
    let Content::Found { signatures, .. } = &content else {
        panic!("{content:?}")
    };
    assert!(signatures.iter().any(|s| s.kind == "swap"), "{signatures:?}");
    let fingerprint = content.fingerprint().unwrap();
    assert!(
        fingerprint.starts_with("swap ") && !fingerprint.contains(','),
        "{fingerprint}"
    );
}

#[test]
fn a_partition_table_is_counted() {
    let mut mbr = [0; 512];
    mbr[440..444].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
    for (index, start) in [(0_usize, 2048_u32), (1, 20480)] {
        let entry = &mut mbr[446 + 16 * index..462 + 16 * index];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&8192_u32.to_le_bytes());
    }
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let content = probe(disk(&[(0, &mbr)]).path()).unwrap();
    assert_eq!(content.words(), "a partition table (dos) with 2 partitions");
    assert_eq!(content.fingerprint().unwrap(), "dos 12345678");
}

#[test]
fn what_is_left_of_a_table_is_named() {
    for sector in [512, 4096] {
        let content = probe(disk(&[(DISK - sector, b"EFI PART\0\0\x01\0")]).path()).unwrap();
        assert_eq!(content.words(), "the copy of a partition table (gpt) at its end");
        assert!(content.fingerprint().unwrap().starts_with("data "));
    }
    let mut mbr = [0; 512];
    mbr[450] = 0xee;
    mbr[454] = 1;
    mbr[458..462].copy_from_slice(&[0xff; 4]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let content = probe(disk(&[(0, &mbr)]).path()).unwrap();
    assert_eq!(
        content.words(),
        "the protective entry of a partition table (gpt) that is gone"
    );
}

#[test]
fn a_label_cannot_draw_on_the_console() {
    let content = probe(disk(&[(1024, &ext4(b"\x1b[2Jgone"))]).path()).unwrap();
    assert!(!content.words().contains('\x1b'), "{:?}", content.words());
}

#[test]
fn two_contents_have_two_fingerprints() {
    let one = probe(disk(&[(5, b"one")]).path()).unwrap();
    let two = probe(disk(&[(5, b"two")]).path()).unwrap();
    assert_ne!(one.fingerprint(), two.fingerprint());
}

#[test]
fn what_ends_too_early_is_unreadable_not_empty() {
    let file = disk(&[]);
    let opened = File::open(file.path()).unwrap();
    file.as_file().set_len(DISK / 2).unwrap();
    assert!(samples::hash(&opened, DISK).is_err());
}
