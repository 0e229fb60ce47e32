//! From the bytes that some editor wrote to text with `\n` at the end of lines.
//!
//! Windows' Notepad writes UTF-8 with a mark, or UTF-16; old Macs end lines with
//! CR. All of it is read, and line numbers are what the farmer's editor shows.
//!
//! Invariant: text that comes out has no carriage return, no zero and no mark at its beginning.

use super::MOST_BYTES;
use super::fault::Fault;

const AS_UTF8: &str = "save the file as UTF-8 (in Notepad: Save as, Encoding: UTF-8)";
const ANEW: &str =
    "the file was damaged on its way: copy it onto the stick anew, and eject the stick before pulling it out";

/// The text of a file, or the one fault that explains why there is none.
pub(super) fn text(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.len() > MOST_BYTES {
        return Err(Fault::whole(
            format!("the file is larger than {} KiB", MOST_BYTES >> 10),
            "start again from the file as it came on the stick",
        ));
    }
    let text = match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
            return Err(Fault::whole("the file is UTF-32 text".into(), AS_UTF8));
        }
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest)?,
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        // Without a mark, ASCII in UTF-16 shows itself by its zeros.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes)?,
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes)?,
        _ => utf8(bytes)?,
    };
    let text = ended_by_newlines(&text);
    // Ctrl-Z is how DOS ended a text; zeros are what a bad copy leaves.
    let text = text.trim_start_matches('\u{feff}');
    let kept = text.trim_end_matches(['\u{1a}', '\0']);
    if kept.is_empty() && text.contains('\0') {
        return Err(Fault::whole("the file holds nothing but zeros".into(), ANEW));
    }
    match kept.find('\0') {
        Some(at) => Err(Fault::at_end_of(
            &kept[..at],
            "a zero, which no text has".into(),
            ANEW.into(),
        )),
        None => Ok(kept.to_owned()),
    }
}

/// CR LF and CR alone become LF.
fn ended_by_newlines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn utf8(bytes: &[u8]) -> Result<String, Fault> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let text = ended_by_newlines(&String::from_utf8_lossy(before));
        Fault::at_end_of(&text, "a character that is not UTF-8 text".into(), AS_UTF8.into())
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Fault> {
    let pairs = bytes.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    let mut text = String::new();
    for read in char::decode_utf16(pairs.map(|pair| unit([pair[0], pair[1]]))) {
        match read {
            Ok(c) => text.push(c),
            Err(_) => return Err(half(&text, "half a character of UTF-16 text")),
        }
    }
    if whole {
        Ok(text)
    } else {
        Err(half(&text, "the end of UTF-16 text, one byte short"))
    }
}

fn half(before: &str, found: &str) -> Fault {
    Fault::at_end_of(&ended_by_newlines(before), found.into(), AS_UTF8.into())
}
