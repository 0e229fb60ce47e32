//! Seeds of what `steading flash` reads: images, what lies beside them, and the file system of a stick.

use super::{Seed, hex};

/// What zstd 1.5 makes of a few lines of a `farmer.toml`, written six times.
const PACKED: [u8; 46] = [
    0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68, 0x35, 0x01, 0x00, 0xd8, 0x6e, 0x61, 0x6d, 0x65, 0x20, 0x3d, 0x20,
    0x22, 0x61, 0x22, 0x0a, 0x62, 0x22, 0x0a, 0x77, 0x61, 0x6c, 0x6c, 0x65, 0x74, 0x20, 0x3d, 0x20, 0x22,
    0x22, 0x0a, 0x03, 0x00, 0x5e, 0xa8, 0x68, 0x05, 0x5b, 0x98, 0x28, 0x5e,
];
/// Of minisign's own page.
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
    trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
    wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";

/// Texts in front of an image, behind their length.
fn image(texts: &str, image: &[u8]) -> Vec<u8> {
    let length = u16::try_from(texts.len()).unwrap();
    [&length.to_le_bytes(), texts.as_bytes(), image].concat()
}

/// A FAT of 12 bits, 967 sectors long, with a `farmer.toml` under its long name.
fn fat() -> Vec<u8> {
    let mut fat = vec![0; 6 * 512];
    fat[..11].copy_from_slice(b"\xeb\x3c\x90STEADING");
    // 512 bytes a sector, 1 a cluster, 1 reserved, 1 table, 16 names.
    fat[11..19].copy_from_slice(&[0, 2, 1, 1, 0, 1, 16, 0]);
    fat[19..21].copy_from_slice(&967_u16.to_le_bytes());
    fat[21..24].copy_from_slice(&[0xf8, 3, 0]);
    fat[36..39].copy_from_slice(&[0x80, 0, 0x29]);
    fat[43..62].copy_from_slice(b"STEADING   FAT12   ");
    fat[510..512].copy_from_slice(&[0x55, 0xaa]);
    fat[512..518].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0]);
    let short = b"FARMER~1TOM";
    let sum = short
        .iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let names = &mut fat[2048..];
    (names[0], names[11], names[13]) = (0x41, 0x0f, sum);
    let letters: Vec<u8> = "farmer.toml\0\u{ffff}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (place, part) in [(1, 0..10), (14, 10..22), (28, 22..26)] {
        names[place..place + part.len()].copy_from_slice(&letters[part]);
    }
    let text = b"# a node\nprice = \"0.40\"\n#wallet = \"\"\n";
    names[32..43].copy_from_slice(short);
    (names[43], names[58]) = (0x20, 2);
    names[60..64].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    fat[2560..2560 + text.len()].copy_from_slice(text);
    fat
}

pub fn all() -> Vec<Seed> {
    let sum = format!("{}  x.img.zst\n", hex(&[0xab; 32]));
    vec![
        ("flash_image", "packed".into(), image("", &PACKED)),
        ("flash_image", "summed".into(), image(&sum, &PACKED)),
        (
            "flash_image",
            "signed".into(),
            image(&format!("{sum}\0{SIGNATURE}"), &PACKED),
        ),
        ("flash_stick", "fat".into(), fat()),
    ]
}
