//! Words of a command line for liblvm2cmd, checked before they are put into one.
//!
//! `lvm2_run` splits at white space, knows quotes at the start of a word only, and takes a word
//! that begins with `-` for an option. So a word here has none of these.

use std::path::Path;

use super::{EXTENT_BYTES, LvmError};

/// The longest name that LVM takes.
const MAX_NAME: usize = 127;

/// One word that is safe in a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word(String);

impl Word {
    /// A name of a volume or a group: `[A-Za-z0-9_.+][A-Za-z0-9_.+-]*`.
    pub(super) fn name(what: &'static str, name: &str) -> Result<Self, LvmError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
        let right = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with('-')
            && name != "."
            && name != ".."
            && name.chars().all(fits);
        if right {
            Ok(Self(name.to_owned()))
        } else {
            Err(wrong(what, name))
        }
    }

    /// `GROUP/NAME`.
    pub(super) fn volume(group: &str, name: &str) -> Result<Self, LvmError> {
        let group = Self::name("volume group", group)?;
        let name = Self::name("logical volume", name)?;
        Ok(Self(format!("{}/{}", group.0, name.0)))
    }

    /// A path below `/dev`.
    pub(super) fn device(path: &Path) -> Result<Self, LvmError> {
        let text = path.to_str().unwrap_or_default();
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '/' | ':' | '!');
        let right = text.starts_with("/dev/") && text.chars().all(fits);
        if right {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong("device", &path.to_string_lossy()))
        }
    }

    /// A size in bytes, rounded up to whole extents: LVM takes none that is not in whole sectors.
    pub(super) fn bytes(bytes: u64) -> Result<Self, LvmError> {
        let whole = bytes.checked_next_multiple_of(EXTENT_BYTES);
        whole
            .map(|bytes| Self(format!("{bytes}b")))
            .ok_or_else(|| wrong("size", &bytes.to_string()))
    }

    fn tag(tag: &str) -> Result<Self, LvmError> {
        Self::name("tag", tag)
    }
}

fn wrong(what: &'static str, word: &str) -> LvmError {
    LvmError::Word {
        what,
        word: word.chars().take(200).collect(),
    }
}

/// Words that stand in the source.
pub(super) fn fixed(words: &[&'static str]) -> Vec<Word> {
    words.iter().map(|word| Word((*word).to_owned())).collect()
}

/// Adds `--addtag TAG` for each.
pub(super) fn add_tags(line: &mut Vec<Word>, tags: &[&str]) -> Result<(), LvmError> {
    for tag in tags {
        line.extend(fixed(&["--addtag"]));
        line.push(Word::tag(tag)?);
    }
    Ok(())
}

/// The command line.
pub(super) fn line(words: &[Word]) -> String {
    words
        .iter()
        .map(|word| word.0.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_an_option_or_two_words() {
        for bad in [
            "",
            "-f",
            "a b",
            "a'b",
            "a\"b",
            "a/b",
            "..",
            "a\n",
            "ä",
            &"x".repeat(128),
        ] {
            assert!(Word::name("volume group", bad).is_err(), "{bad:?}");
        }
        for good in ["steading-0011aabb-ccddeeff", "space-0123", "a+b_c.d"] {
            assert!(Word::name("volume group", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_device_is_below_dev() {
        for bad in ["sda", "/etc/passwd", "/dev/sd a", "/dev/'x", "-f"] {
            assert!(Word::device(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert!(Word::device(Path::new("/dev/vda1")).is_ok());
    }

    #[test]
    fn a_line_is_its_words() {
        let mut words = fixed(&["lvcreate", "-L"]);
        words.push(Word::bytes(4096).unwrap());
        assert!(Word::bytes(u64::MAX).is_err());
        add_tags(&mut words, &["sale-ab"]).unwrap();
        words.push(Word::volume("g", "v").unwrap());
        assert_eq!(line(&words), "lvcreate -L 4194304b --addtag sale-ab g/v");
    }
}
