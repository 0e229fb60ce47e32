use super::*;

fn line(kind: char, size: u64, inode: u64, names: u32, path: &str) -> String {
    format!(
        "{kind} {size} {} 1700000000.0000000000 1700000000.5000000000 33:{inode} {names} {path}\0",
        size.div_ceil(512)
    )
}

fn root() -> Vec<Vec<u8>> {
    vec![b"/".to_vec()]
}

fn found(lines: &[String]) -> Result<Found, ListingError> {
    read(format!("{}end 0\0", lines.concat()).as_bytes(), &root())
}

fn paths(group: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
    group.iter().map(text).collect()
}

#[test]
fn what_belongs_to_the_space_is_left_out_and_odd_names_are_kept() {
    let lines = [
        line('d', 4096, 1, 3, "/"),
        line('f', 1, 2, 1, "/etc/hostname"),
        line('f', 1, 3, 1, "/root/two\nlines and \u{1b}[2J"),
        line('s', 0, 4, 1, "/run/socket"),
        line('l', 3, 5, 1, "/root/-rf"),
    ];
    let found = found(&lines).unwrap();
    assert_eq!(
        paths(&found.entries),
        ["/root/-rf", "/root/two\nlines and \u{1b}[2J"]
    );
    assert_eq!((found.left_out, found.is_partial), (1, false));
}

#[test]
fn a_path_that_leads_elsewhere_ends_it() {
    let below = [b"/home/ann".to_vec()];
    let says = |path: &str| {
        let printed = format!("{}end 0\0", line('f', 1, 1, 1, path));
        read(printed.as_bytes(), &below).map(|found| found.entries.len())
    };
    for path in [
        "/home/ann/../bob/x",
        "/home/ann/..",
        "/home/ann//x",
        "/home/ann/./x",
        "/home/ann/",
        "home/ann/x",
        "../x",
        "",
    ] {
        assert_eq!(says(path), Err(ListingError::Entry(1)), "{path}");
    }
    for path in ["/home/bob/x", "/home/annabel", "/", "/etc/shadow"] {
        assert_eq!(says(path), Err(ListingError::Elsewhere(1)), "{path}");
    }
    assert_eq!(
        says(&format!("/home/ann/{}", "x".repeat(5000))),
        Err(ListingError::Entry(1))
    );
    // The control.
    assert_eq!(says("/home/ann/x..y/...z"), Ok(1));
    assert_eq!(says("/home/ann"), Ok(1));
}

#[test]
fn a_listing_without_its_end_or_with_odd_numbers_is_none() {
    for (printed, error) in [
        ("", ListingError::NoEnd),
        ("end 0", ListingError::NoEnd),
        ("f 1 1 1.0000000000 1.0000000000 1:1 1 /x\0", ListingError::NoEnd),
        (
            "f -1 1 1.0000000000 1.0000000000 1:1 1 /x\0end 0\0",
            ListingError::Entry(1),
        ),
        (
            "f 1 1 1.00 1.0000000000 1:1 1 /x\0end 0\0",
            ListingError::Entry(1),
        ),
        (
            "f 1 1 1.0000000000 1.0000000000 11 1 /x\0end 0\0",
            ListingError::Entry(1),
        ),
        ("f 1\0end 0\0", ListingError::Entry(1)),
    ] {
        assert_eq!(read(printed.as_bytes(), &root()), Err(error), "{printed:?}");
    }
    assert!(read(b"end 1\0", &root()).unwrap().is_partial);
}

#[test]
fn groups_are_small_keep_the_names_of_a_file_together_and_folders_come_twice() {
    let lines = [
        line('d', 4096, 1, 2, "/a"),
        line('f', 600, 2, 2, "/a/z"),
        line('f', 5000, 3, 1, "/a/big"),
        line('f', 100, 4, 1, "/a/m"),
        line('f', 600, 2, 2, "/a/b"),
        line('f', 100, 5, 1, "/a/n"),
    ];
    let plan = plan(found(&lines).unwrap().entries, 4096);
    let groups: Vec<Vec<String>> = plan.groups.iter().map(|group| paths(group)).collect();
    assert_eq!(
        groups,
        [
            vec!["/a"],
            vec!["/a/b", "/a/z"],
            vec!["/a/big"],
            vec!["/a/m", "/a/n"],
            vec!["/a"]
        ]
    );
    assert_eq!(plan.again, 1);
    let kept = kept(&plan);
    assert_eq!(read_kept(&kept).unwrap(), plan.groups);
    assert_eq!(read_kept(b""), Ok(Vec::new()));
    assert!(read_kept(&kept[..kept.len() - 1]).is_err());
    assert!(read_kept(&[b"3", &kept[1..]].concat()).is_err(), "a gap");
    assert_eq!(names(&plan.groups[3]), b"a/m\0a/n\0");
}

#[test]
fn a_file_that_changed_came_or_went_is_named() {
    let before = found(&[
        line('f', 1, 1, 1, "/same"),
        line('f', 1, 2, 1, "/longer"),
        line('f', 1, 3, 1, "/gone"),
        line('d', 1, 4, 1, "/folder"),
    ]);
    let after = found(&[
        line('f', 1, 1, 1, "/same"),
        line('f', 2, 2, 1, "/longer"),
        line('f', 2, 9, 1, "/new"),
        line('d', 7, 4, 1, "/folder"),
    ]);
    let (before, after) = (before.unwrap().entries, after.unwrap().entries);
    let differing = differing(before.iter(), &after);
    assert_eq!(differing, [&b"/gone"[..], b"/longer", b"/new"]);
}
