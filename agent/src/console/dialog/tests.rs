use proptest::prelude::*;

use super::super::keys::Parser;
use super::super::status::Space;
use super::*;

fn disk(name: &str) -> Disk {
    Disk {
        name: name.into(),
        size: "20 GiB".into(),
        holds: "ext4 \"backup\"".into(),
        line: Some(format!("/dev/{name}, 20 GiB, ext4 backup")),
        ..Disk::default()
    }
}

fn status(disks: &[&str], spaces: &[&str]) -> Status {
    let mut all: Vec<Disk> = disks.iter().map(|name| disk(name)).collect();
    // claimed already: nothing to allow
    all.push(Disk {
        name: "vda".into(),
        ..Disk::default()
    });
    Status {
        disks: Some(all),
        spaces: spaces
            .iter()
            .enumerate()
            .map(|(index, name)| Space {
                sale: [index as u8; 32],
                name: (*name).into(),
                ..Space::default()
            })
            .collect(),
        ..Status::default()
    }
}

/// What all of these bytes come to.
fn typed(dialog: &mut Dialog, bytes: &[u8], status: &Status) -> Vec<Act> {
    let mut parser = Parser::default();
    let mut keys: Vec<Key> = bytes.iter().filter_map(|byte| parser.feed(*byte)).collect();
    keys.extend(parser.pause());
    let acts = keys
        .into_iter()
        .filter_map(|key| match dialog.press(key, status, 50, 20) {
            Outcome::Act(act) => Some(act),
            _ => None,
        });
    acts.collect()
}

#[test]
fn a_disk_is_claimed_by_its_name_and_by_nothing_else() {
    let one = status(&["vdb"], &[]);
    let mut dialog = Dialog::default();
    for wrong in [
        "wvda\r",
        "w\r",
        "wVDB\r",
        "wvdb",
        " vdb\r",
        "wvdb \r",
        "wy\r",
        "wyes\r",
        "wvdb\x7f\r",
        "wvdb\x1b\r",
    ] {
        assert_eq!(typed(&mut dialog, wrong.as_bytes(), &one), [], "{wrong:?}");
        dialog.end();
    }
    let claim = Act::Claim {
        disk: "vdb".into(),
        holds: "ext4 \"backup\"".into(),
        line: "/dev/vdb, 20 GiB, ext4 backup".into(),
    };
    assert_eq!(
        typed(&mut dialog, b"wvdc\x7fb\r", &one),
        std::slice::from_ref(&claim)
    );
    assert!(matches!(dialog.view(), View::Said(_)));
    let two = status(&["vdb", "vdc"], &[]);
    dialog.end();
    assert_eq!(
        typed(&mut dialog, b"w1\rvdb\r", &two),
        std::slice::from_ref(&claim),
        "picked by number"
    );
    assert_eq!(
        typed(&mut dialog, b"wvdb\rvdb\r", &two),
        [claim],
        "picked by name"
    );
    assert_eq!(
        typed(&mut dialog, b"w1\rvdc\r", &two),
        [],
        "picked one, named the other"
    );
    assert_eq!(typed(&mut dialog, b"w0\rw3\rw99999999999999999999\r", &two), []);
    assert_eq!(
        typed(&mut Dialog::default(), b"wvdb\r", &status(&[], &[])),
        [],
        "no disk waits"
    );
}

#[test]
fn what_has_changed_since_it_was_shown_is_not_touched() {
    let mut now = status(&["vdb"], &["calm-otter"]);
    let mut dialog = Dialog::default();
    assert_eq!(typed(&mut dialog, b"wvdb", &now), []);
    if let Some(disk) = now.disks.as_mut().and_then(|disks| disks.first_mut()) {
        disk.line = Some("/dev/vdb, 20 GiB, ext4 other".into());
    }
    assert_eq!(dialog.press(Key::Enter, &now, 0, 20), Outcome::Shown);
    assert!(dialog.words(&now)[0].contains("not what it was"));
    assert_eq!(typed(&mut dialog, b"scalm-otter", &now), []);
    now.spaces.clear();
    assert_eq!(dialog.press(Key::Enter, &now, 0, 20), Outcome::Shown);
}

#[test]
fn spaces_and_the_machine_end_by_their_words() {
    let now = status(&[], &["calm-otter", "quiet-quail"]);
    let mut dialog = Dialog::default();
    let stop = Act::Stop {
        sale: [1; 32],
        name: "quiet-quail".into(),
    };
    assert_eq!(typed(&mut dialog, b"s2\rquiet-quail\r", &now), [stop]);
    assert_eq!(
        typed(&mut dialog, b"rreboot\rpoff\r", &now),
        [Act::Reboot, Act::PowerOff]
    );
    assert_eq!(typed(&mut dialog, b"roff\rpreboot\rry\r\rpy\r", &now), []);
    typed(&mut dialog, b"p", &now);
    assert!(
        dialog.words(&now)[0].contains("2 spaces run here"),
        "{:?}",
        dialog.words(&now)
    );
}

#[test]
fn two_spaces_of_one_name_are_picked_by_number() {
    let now = status(&[], &["calm-otter", "calm-otter"]);
    assert_eq!(
        typed(&mut Dialog::default(), b"scalm-otter\rcalm-otter\r", &now),
        []
    );
    assert_eq!(typed(&mut Dialog::default(), b"s2\rcalm-otter\r", &now).len(), 1);
}

#[test]
fn the_log_scrolls_within_its_bounds() {
    let now = status(&[], &[]);
    let mut dialog = Dialog::default();
    typed(&mut dialog, b"l", &now);
    for (bytes, back) in [
        ("\x1b[A", 1),
        ("\x1b[5~", 21),
        ("\x1b[5~", 30),
        ("\x1b[A", 30),
        ("\x1b[6~", 10),
        ("\x1b[1~", 30),
        ("\x1b[4~", 0),
        ("\x1b[B", 0),
    ] {
        typed(&mut dialog, bytes.as_bytes(), &now);
        assert_eq!(dialog.view(), &View::Log(back), "{bytes:?}");
    }
    typed(&mut dialog, b"\x1b", &now);
    assert_eq!(dialog.view(), &View::Page);
}

#[test]
fn two_consoles_have_a_dialog_each() {
    let now = status(&["vdb"], &[]);
    let (mut one, mut other) = (Dialog::default(), Dialog::default());
    assert_eq!(typed(&mut one, b"w", &now), []);
    assert_eq!(
        typed(&mut other, b"vdb\r", &now),
        [],
        "the word alone, at another console"
    );
    assert_eq!(typed(&mut one, b"vdb\r", &now).len(), 1);
}

/// A serial line with a plug that sends back what it is sent, or a modem that echoes.
#[test]
fn a_line_that_echoes_does_nothing() {
    let now = status(&["vdb", "vdc", "sda"], &["calm-otter", "quiet-quail"]);
    let one = status(&["vdb"], &["calm-otter"]);
    for (start, status) in [
        ("w", &now),
        ("w", &one),
        ("s", &now),
        ("s", &one),
        ("r", &now),
        ("p", &now),
        ("w1\r", &now),
        ("s2\r", &now),
        ("?", &one),
    ] {
        let mut dialog = Dialog::default();
        typed(&mut dialog, start.as_bytes(), status);
        for _ in 0..20 {
            let mut shown = dialog.words(status).join("\r\n ");
            shown.push_str("\r\n");
            if let Some((prompt, typed)) = dialog.prompt() {
                shown.push_str(&format!(" {prompt}{typed}"));
            }
            shown.push_str("\r\n");
            assert_eq!(
                typed(&mut dialog, shown.as_bytes(), status),
                [],
                "{start}: {shown}"
            );
        }
    }
}

proptest! {
    /// Noise of letters that mean something, but without the words.
    #[test]
    fn noise_does_nothing(bytes in proptest::collection::vec(proptest::sample::select(&b"wWsSrRpPlLqQ?hH\r\n\x1b[A~0123456789vdx \x7f"[..]), 0..400)) {
        let now = status(&["vdb", "sda"], &["calm-otter"]);
        let mut dialog = Dialog::default();
        prop_assert_eq!(typed(&mut dialog, &bytes, &now), []);
        if let Some((_, line)) = dialog.prompt() {
            prop_assert!(line.len() <= MOST_TYPED);
        }
    }
}
