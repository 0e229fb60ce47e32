//! From the bytes that some editor wrote to text with `\n` at the end of lines.
//!
//! Windows' Notepad writes UTF-8 with a mark, or UTF-16; old Macs end lines with
//! CR. All of it is read, and line numbers are what the farmer's editor shows.

use super::MOST_BYTES;
use super::fault::Fault;

/// The text of a file, or the one fault that explains why there is none.
pub(super) fn text(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.len() > MOST_BYTES {
        return Err(Fault::whole(
            format!("the file is larger than {} KiB", MOST_BYTES >> 10),
            "start again from the file as it came on the stick",
        ));
    }
    let text = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest)?,
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        // Without a mark, ASCII in UTF-16 shows itself by its zeros.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes)?,
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes)?,
        _ => utf8(bytes)?,
    };
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    // Ctrl-Z is how DOS ended a text; zeros are what a bad copy leaves.
    Ok(text.trim_end_matches(['\u{1a}', '\0']).to_owned())
}

fn utf8(bytes: &[u8]) -> Result<String, Fault> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let text = String::from_utf8_lossy(before);
        Fault::at_end_of(
            &text,
            "a character that is not UTF-8 text".into(),
            "save the file as UTF-8 (in Notepad: Save as, Encoding: UTF-8)".into(),
        )
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Fault> {
    let pairs = bytes.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    let units: Vec<u16> = pairs.map(|pair| unit([pair[0], pair[1]])).collect();
    match String::from_utf16(&units) {
        Ok(text) if whole => Ok(text),
        _ => Err(Fault::whole(
            "the file is UTF-16 text, but a broken one".into(),
            "save the file as UTF-8 (in Notepad: Save as, Encoding: UTF-8)",
        )),
    }
}
