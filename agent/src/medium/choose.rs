//! Which medium this machine was booted from, where there are several.
//!
//! ```text
//!  loader ── steading.image=ID ──► kernel's command line ──┐
//!  each medium's steading/a/image ─────────────────────────┴─► the same ID: that one
//!                                                              none: the booted one is not here (yet)
//!                                                              several, one farmer.toml: either will do
//!                                                              several that differ: a person decides
//! ```
//!
//! An image's id says nothing of the farmer's file, so of two sticks written from one image only their difference can be
//! told, and is: guessing would earn for the wrong wallet. Kernels that were started directly know no id. The loader of a CD
//! says so (`steading.cd`) where it can tell: drives for CDs alone are looked at then.

use std::fs;

use farmer::Reading;

use super::Medium;

/// The words of the kernel's command line.
const WORD: &str = "steading.image=";
const CD_WORD: &str = "steading.cd";

/// A medium, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Which.
    pub medium: Medium,
    /// What the farmer says on it.
    pub reading: Reading,
    /// The id of the image on it, where it says one.
    pub image: Option<String>,
}

/// What there is to go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    One(Box<Said>),
    /// None; these are of other images.
    Others(Vec<String>),
    /// Any of these, and they say different things.
    Several(Vec<String>),
}

/// The id of the image that was booted, as its loader told the kernel.
#[must_use]
pub fn booted_image() -> Option<String> {
    in_line(&fs::read_to_string("/proc/cmdline").ok()?)
}

/// Whether the loader came from a CD, or from what a machine takes for one.
#[must_use]
pub fn is_cd_booted() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == CD_WORD)
}

fn in_line(line: &str) -> Option<String> {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(WORD))?;
    (!word.is_empty()).then(|| word.to_owned())
}

/// Chooses among `media`, in the order in which they were found.
#[must_use]
pub fn choose(media: Vec<Said>, booted: Option<&str>) -> Choice {
    let name = |read: &Said| read.medium.disk.clone().unwrap_or_default();
    let all: Vec<String> = media.iter().map(name).collect();
    let fits = |read: &Said| booted.is_none() || read.image.as_deref() == booted;
    let fitting: Vec<Said> = media.into_iter().filter(fits).collect();
    let names: Vec<String> = fitting.iter().map(name).collect();
    let mut fitting = fitting.into_iter();
    let Some(first) = fitting.next() else {
        return Choice::Others(all);
    };
    if fitting.all(|other| other.reading == first.reading) {
        return Choice::One(Box::new(first));
    }
    Choice::Several(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &str, image: Option<&str>, farmer_toml: &str) -> Said {
        Said {
            medium: Medium {
                disk: Some(disk.into()),
                farmer: super::super::Farmer::Nowhere,
                base: "/dev/null".into(),
            },
            reading: farmer::read(farmer_toml.as_bytes()),
            image: image.map(str::to_owned),
        }
    }

    fn disk(choice: Choice) -> String {
        match choice {
            Choice::One(read) => read.medium.disk.unwrap_or_default(),
            Choice::Others(names) => format!("others {}", names.join(" ")),
            Choice::Several(names) => format!("several {}", names.join(" ")),
        }
    }

    #[test]
    fn the_one_whose_image_was_booted_is_taken_in_whatever_order_they_come() {
        let old = read("sda", Some("0ld"), "name = \"old\"");
        let new = read("sdb", Some("new"), "name = \"new\"");
        for media in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
            assert_eq!(disk(choose(media.clone(), Some("new"))), "sdb");
            assert_eq!(disk(choose(media, Some("0ld"))), "sda");
        }
        // The booted one is not here: an old stick does not stand in for it.
        assert_eq!(disk(choose(vec![old.clone()], Some("new"))), "others sda");
        assert_eq!(
            disk(choose(vec![read("sdc", None, "")], Some("new"))),
            "others sdc"
        );
        assert_eq!(
            disk(choose(vec![old.clone()], None)),
            "sda",
            "started without a loader"
        );
        assert_eq!(disk(choose(vec![old, new], None)), "several sda sdb");
        assert_eq!(disk(choose(vec![], None)), "others ");
    }

    #[test]
    fn two_of_one_image_are_told_apart_by_what_they_say_or_not_at_all() {
        let one = read("sda", Some("a"), "name = \"one\"");
        let same = read("sdb", Some("a"), "name = \"one\"");
        let other = read("sdc", Some("a"), "name = \"two\"");
        assert_eq!(disk(choose(vec![one.clone(), same.clone()], Some("a"))), "sda");
        assert_eq!(
            disk(choose(vec![one, same, other], Some("a"))),
            "several sda sdb sdc"
        );
    }

    #[test]
    fn the_loaders_word_is_found_among_others() {
        let line = "BOOT_IMAGE=/x console=ttyS0 steading.image=5e2d91 quiet";
        assert_eq!(in_line(line).as_deref(), Some("5e2d91"));
        assert_eq!(in_line("steading.image= quiet"), None);
        assert_eq!(in_line("quiet"), None);
    }
}
