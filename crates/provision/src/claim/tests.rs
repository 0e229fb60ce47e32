//! Which disks may be taken: the decision, without a disk.

use proptest::prelude::*;
use storage::probe::{SampleHash, Signature, Usage};

use super::*;
use storage::probe::Content;

const GIB: u64 = 1 << 30;

fn seen(name: &str, look: Look) -> Seen {
    Seen {
        name: name.into(),
        path: format!("/dev/{name}").into(),
        size_bytes: 8 * GIB,
        model: None,
        wwn: Some("naa.5000c500a1b2c3d4".into()),
        serial: None,
        look,
        group: None,
    }
}

fn ext4(uuid: &str) -> Look {
    Look::Holds {
        content: Content::Found {
            signatures: vec![Signature {
                kind: "ext4".into(),
                label: Some("backup".into()),
                uuid: Some(uuid.into()),
                usage: Usage::FileSystem,
            }],
            samples: SampleHash([1; 32]),
        },
    }
}

fn verdicts(seen: &[Seen], lines: &[&str], used: &[&str]) -> Vec<Verdict> {
    let consents: Vec<Consent> = lines.iter().map(|line| line.parse().unwrap()).collect();
    let used = used
        .iter()
        .map(|line| line.parse::<Consent>().unwrap().hash())
        .collect();
    let rules = Rules {
        node: NodeId::from([0xab; 32]),
        consents: &consents,
        used: &used,
        boot_medium: &[],
        unborn: &BTreeSet::new(),
        silent: &BTreeSet::new(),
    };
    decide(seen, &rules)
}

fn why(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Leave { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_line_that_is_shown_gives_the_disk() {
    let disk = seen("sda", ext4("11-22"));
    let [
        Verdict::Leave {
            erase_line: Some(line),
            ..
        },
    ] = &verdicts(std::slice::from_ref(&disk), &[], &[])[..]
    else {
        panic!()
    };
    assert_eq!(line, "naa.5000c500a1b2c3d4, 8GiB, ext4 11-22");
    let verdict = &verdicts(std::slice::from_ref(&disk), &[line], &[])[0];
    assert!(
        matches!(verdict, Verdict::Take { consent: Some(_) }),
        "{verdict:?}"
    );
    let verdict = &verdicts(std::slice::from_ref(&disk), &[line], &[line])[0];
    assert!(why(verdict).contains("good once"), "{verdict:?}");
}

#[test]
fn a_line_means_its_disk_under_another_name_of_the_kernel() {
    let moved = |disk: &Seen| Seen {
        name: "sdz".into(),
        path: "/dev/sdz".into(),
        ..disk.clone()
    };
    let mut disk = seen("sda", ext4("11-22"));
    for (wwn, serial, line) in [
        (
            Some("naa.5000c500a1b2c3d4"),
            Some("S1"),
            "naa.5000c500a1b2c3d4, 8GiB, ext4 11-22",
        ),
        // As a disk of ATA without a WWN is told: with blanks.
        (
            Some("t10.ATA     QEMU"),
            Some("S1"),
            "serial S1, 8GiB, ext4 11-22",
        ),
        (None, None, "/dev/sda, 8GiB, ext4 11-22"),
    ] {
        disk.wwn = wwn.map(String::from);
        disk.serial = serial.map(String::from);
        let shown = verdicts(std::slice::from_ref(&disk), &[], &[]);
        let [Verdict::Leave { erase_line, .. }] = &shown[..] else {
            panic!("{shown:?}")
        };
        assert_eq!(erase_line.as_deref(), Some(line));
        let taken = |disk: Seen, line: &str| {
            matches!(
                verdicts(&[disk], &[line], &[])[..],
                [Verdict::Take { consent: Some(_) }]
            )
        };
        assert!(taken(moved(&disk), line), "{line}");
        let another = line.replace("S1", "S2").replace("c3d4", "c3d5");
        let is_named = another != line;
        assert_eq!(taken(moved(&disk), &another), !is_named, "{another}");
        let mut content = moved(&disk);
        content.look = ext4("11-23");
        assert!(!taken(content, line), "{line}");
    }
    // Two without a name and with one content: neither.
    disk.wwn = None;
    disk.serial = None;
    let two = [moved(&disk), disk];
    for verdict in verdicts(&two, &["/dev/sda, 8GiB, ext4 11-22"], &[]) {
        assert!(why(&verdict).contains("fits sd"), "{verdict:?}");
    }
}

#[test]
fn a_line_for_something_else_gives_nothing() {
    let disk = seen("sda", ext4("11-22"));
    for line in [
        "/dev/sdb, 8GiB, ext4 11-22",
        "/dev/sda, 9GiB, ext4 11-22",
        "/dev/sda, 8GiB, ext4 11-23",
        "/dev/sda, 8GiB, ext4",
        "/dev/sda1, 8GiB, ext4 11-22",
    ] {
        let verdict = &verdicts(std::slice::from_ref(&disk), &[line], &[])[0];
        assert!(matches!(verdict, Verdict::Leave { .. }), "{line}");
    }
    assert!(matches!(
        verdicts(&[disk], &["/dev/sda, 8GiB, ext4 11-22"], &[])[0],
        Verdict::Take { .. }
    ));
}

#[test]
fn a_line_that_fits_two_disks_gives_neither() {
    let disks = [
        seen("sda", ext4("11-22")),
        seen("sdb", ext4("11-22")),
        seen("sdc", Look::Blank),
    ];
    let verdicts = verdicts(&disks, &["naa.5000c500a1b2c3d4, 8GiB, ext4 11-22"], &[]);
    assert!(why(&verdicts[0]).contains("fits sdb too") && why(&verdicts[1]).contains("fits sda too"));
    assert!(matches!(verdicts[2], Verdict::Take { consent: None }));
}

#[test]
fn what_is_never_taken() {
    let line = "/dev/sda, 8GiB, ext4 11-22";
    for look in [
        Look::BootMedium,
        Look::ReadOnly,
        Look::InUse,
        Look::Unreadable { why: "x".into() },
        Look::Silent,
        Look::OtherNode {
            group: "steading-00000000-11111111".into(),
        },
    ] {
        let verdict = &verdicts(&[seen("sda", look.clone())], &[line], &[])[0];
        assert!(
            matches!(verdict, Verdict::Leave { erase_line: None, .. }),
            "{look:?}"
        );
    }
    for look in [Look::Blank, Look::HalfDone, ext4("11-22")] {
        let mut small = seen("sda", look);
        small.size_bytes = SIZE_FLOOR_BYTES - 1;
        assert!(why(&verdicts(&[small], &[line], &[])[0]).contains("smaller than 4 GiB"));
    }
}

#[test]
fn a_line_that_cannot_be_one_is_told() {
    for (line, part) in [
        ("", "1 parts"),
        ("/dev/sda, 8GiB", "2 parts"),
        ("/dev/sda, 8GiB, ext4 1, x", "4 parts"),
        ("/dev/sda, 8, ext4 1", "8"),
        (", 8GiB, ext4 1", "empty"),
    ] {
        let error = line.parse::<Consent>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("copy the line"), "{error}");
    }
}

#[test]
fn people_read_what_became_of_a_disk() {
    let mut state = DiskState {
        name: "sda".into(),
        path: "/dev/sda".into(),
        size: Bytes(8 * GIB),
        model: Some("ST8".into()),
        state: Holding::NotTouched {
            why: "nobody allowed it".into(),
            what: "ext4 \"backup\"".into(),
            erase_line: Some("/dev/sda, 8GiB, ext4 11-22".into()),
        },
    };
    assert_eq!(
        state.words(),
        "sda (ST8, 8 GiB) holds ext4 \"backup\": not touched, nobody allowed it; to sell it and lose what is on \
         it, add the line: erase = [\"/dev/sda, 8GiB, ext4 11-22\"]"
    );
    state.state = Holding::Claimed {
        group: "g".into(),
        free: Bytes(7 * GIB),
        new: true,
    };
    assert_eq!(state.words(), "sda (ST8, 8 GiB): claimed now, 7 GiB free");
}

#[test]
fn groups_of_nodes_are_known_by_their_names() {
    let right = "steading-00112233-aabbccdd";
    assert!(is_node_group(right) && !is_group_of(&NodeId::from([0xff; 32]), right));
    assert!(is_group_of(
        &NodeId::from([0xab; 32]),
        "steading-abababab-00000000"
    ));
    for wrong in [
        "steading-",
        "steading-0011223-aabbccdd",
        "steading-00112233-aabbccdd-x",
        "vg0",
        "steading-0011223G-aabbccdd",
    ] {
        assert!(!is_node_group(wrong), "{wrong}");
    }
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![
        Just(Look::Blank),
        Just(Look::BootMedium),
        Just(Look::InUse),
        Just(Look::OtherNode {
            group: "steading-00000000-11111111".into()
        }),
        "[0-9]{2}".prop_map(|uuid| ext4(&uuid)),
    ]
}

proptest! {
    /// No set of disks and lines takes a disk that holds something without a line that names it, and
    /// no line takes two.
    #[test]
    fn nothing_is_taken_that_was_not_given(
        looks in proptest::collection::vec((look(), 0_u64..3), 1..6),
        lines in proptest::collection::vec((0_usize..6, 0_u64..3, "[0-9]{2}"), 0..6),
    ) {
        let disks: Vec<Seen> = looks.iter().enumerate().map(|(index, (look, size))| {
            let mut disk = seen(&format!("sd{index}"), look.clone());
            disk.size_bytes = (7 + size) * GIB;
            disk
        }).collect();
        let lines: Vec<String> =
            lines.iter().map(|(disk, size, uuid)| format!("/dev/sd{disk}, {}GiB, ext4 {uuid}", 7 + size)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut taken = BTreeSet::new();
        for (disk, verdict) in disks.iter().zip(verdicts(&disks, &lines, &[])) {
            match verdict {
                Verdict::Take { consent: None } => prop_assert!(matches!(disk.look, Look::Blank)),
                Verdict::Take { consent: Some(hash) } => {
                    let Look::Holds { content } = &disk.look else { panic!("{disk:?}") };
                    let right = format!("{}, {}, {}", disk.path.display(), Bytes(disk.size_bytes), content.fingerprint().unwrap());
                    prop_assert!(lines.contains(&right.as_str()));
                    prop_assert!(taken.insert(hash), "a line took two disks");
                }
                Verdict::Keep(_) | Verdict::Leave { .. } => {}
            }
        }
    }
}
