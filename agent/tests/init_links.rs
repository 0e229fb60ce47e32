//! `init` is PID 1, so it stands on libc (and libgcc_s, for panics) alone: what it was linked to is read
//! from its own file.

// A test that panics has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(file: &[u8], at: usize) -> u64 {
    let bytes: [u8; N] = file[at..at + N].try_into().unwrap();
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The DT_NEEDED entries of a 64-bit ELF file (elf(5)).
fn needed(file: &[u8]) -> Vec<String> {
    assert_eq!(&file[..5], b"\x7fELF\x02");
    let (start, size, count) = (
        number::<8>(file, 32),
        number::<2>(file, 54),
        number::<2>(file, 56),
    );
    // type, offset, address, size in the file
    let headers: Vec<[u64; 4]> = (0..count)
        .map(|i| (start + i * size) as usize)
        .map(|at| {
            [
                number::<4>(file, at),
                number::<8>(file, at + 8),
                number::<8>(file, at + 16),
                number::<8>(file, at + 32),
            ]
        })
        .collect();
    let dynamic = headers
        .iter()
        .find(|header| header[0] == 2)
        .expect("no PT_DYNAMIC");
    let entries: Vec<(u64, u64)> = (0..dynamic[3] / 16)
        .map(|i| (dynamic[1] + i * 16) as usize)
        .map(|at| (number::<8>(file, at), number::<8>(file, at + 8)))
        .collect();
    let address = entries.iter().find(|(tag, _)| *tag == 5).expect("no DT_STRTAB").1;
    let load = headers
        .iter()
        .find(|h| h[0] == 1 && (h[2]..h[2] + h[3]).contains(&address))
        .expect("no PT_LOAD");
    let strings = (address - load[2] + load[1]) as usize;
    let text = |offset: u64| {
        let bytes = &file[strings + offset as usize..];
        String::from_utf8_lossy(&bytes[..bytes.iter().position(|b| *b == 0).unwrap()]).into_owned()
    };
    entries
        .iter()
        .filter(|(tag, _)| *tag == 1)
        .map(|(_, offset)| text(*offset))
        .collect()
}

#[test]
fn init_links_libc_alone() {
    let file = std::fs::read(Path::new(env!("CARGO_BIN_EXE_init"))).unwrap();
    let mut libraries = needed(&file);
    libraries.sort();
    assert!(libraries.contains(&"libc.so.6".to_owned()), "{libraries:?}");
    let allowed = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
    let other: Vec<_> = libraries
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(other.is_empty(), "init needs {other:?} too");
}
