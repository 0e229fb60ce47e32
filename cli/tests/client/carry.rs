//! What a space holds, out of it and into another: killed at one byte after another, gone on with, compared with what was
//! there. Ledger, grid, client, the node's desk, find and tar are the real ones; the space is this machine, below a folder
//! of the test's own, and `ssh` is a script that runs what it is told here. Real SSH into a real space is a scenario's.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::person::{Person, facts};
use crate::street::{Machine, Node, Street};
use market::id::Digest;

/// `ssh`, as far as the client uses it. A line of the file `cuts` is for one call: `-`, or after how many bytes (out of the
/// space; with `<`, into it) the client is killed. Where there is a program `hostile`, that is the space.
const SSH: &str = r#"#!/bin/sh
dir=$(dirname "$(dirname "$0")")
while [ "$1" != -- ]; do shift; done; shift
case $1 in
sh) nonce=$(sed -n "s/^printf %s '\([0-9a-f]*\)'.*/\1/p")
    cat "$dir/facts"; echo "nonce $nonce"; echo "end end"; exit;;
esac
[ -x "$dir/hostile" ] && exec "$dir/hostile" "$*"
cut=-
if [ -s "$dir/cuts" ]; then cut=$(head -n 1 "$dir/cuts"); sed -i 1d "$dir/cuts"; fi
case $cut in
-) exec sh -c "$*";;
'<'*) head -c "${cut#<}" | sh -c "$*" >/dev/null; kill -KILL $PPID;;
*) sh -c "$*" | head -c "$cut"; kill -KILL $PPID;;
esac
"#;

/// A street, somebody with a space on it, and the folder that is the space.
struct Scene {
    street: Street,
    _node: Node,
    person: Person,
    name: String,
}

impl Scene {
    async fn new() -> Scene {
        let street = Street::new().await;
        let node = Node::start(&street, Arc::new(Machine::default()), Vec::new()).await;
        let dir = street.folder.path().to_owned();
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        write_program(&bin.join("ssh"), SSH);
        std::fs::write(dir.join("facts"), facts(1024, &Digest([7; 32]).to_string())).unwrap();
        let person = Person {
            home: dir.join("user"),
            dir,
            ledger: street.address().to_string(),
            grid: street.ticket().to_string(),
        };
        let address = person.json(&["wallet", "new"])["address"]
            .as_str()
            .unwrap()
            .to_owned();
        street.fund_account(&address.parse().unwrap()).await;
        let name = buy(&person);
        Scene {
            street,
            _node: node,
            person,
            name,
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.street.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.folder(name).display().to_string()
    }

    /// What the next calls of `ssh` do.
    fn cuts(&self, cuts: &[String]) {
        std::fs::write(self.folder("cuts"), cuts.concat()).unwrap();
    }

    /// Runs it again and again, killed at ever another byte, until nothing cuts it any more. How often it was killed.
    fn until_done(&self, arguments: &[&str], into: &str) -> usize {
        for round in 0..200_usize {
            // Odd steps, so that cuts fall anywhere: into a listing, a header, the middle of a file.
            let bytes = 1 + round * 7919 * 13 % 500_001;
            let calls = usize::from(round % 3 == 2);
            let mut cuts = vec!["-\n".to_owned(); calls];
            if round < 24 {
                cuts.push(format!("{into}{bytes}\n"));
            }
            self.cuts(&cuts);
            let output = self.person.run(arguments);
            if output.status.success() {
                self.cuts(&[]);
                return round;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), None, "round {round}: {said}");
        }
        panic!("it never comes to its end");
    }
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn buy(person: &Person) -> String {
    person.json(&["buy", "--duration", "1h"])["name"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Everything that an export should bring: odd names, links, holes, modes, times, files larger than a part.
fn fill(root: &Path) {
    let make = |name: &[u8], bytes: &[u8], mode: u32| {
        let path = root.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    };
    let noise = |length: u32| -> Vec<u8> {
        (0..length)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    };
    make(b"plain", b"plain\n", 0o600);
    make(b"empty", b"", 0o644);
    make(b"-rf", b"a leading dash\n", 0o644);
    make(b"--checkpoint-action=exec=false", b"an option of tar\n", 0o644);
    make(b"two\nlines", b"a newline\n", 0o644);
    make(b"\x1b[2J\xff\xfe not UTF-8 $(false) 'quote\" \\", b"odd\n", 0o644);
    make(b"setuid", b"#!/bin/true\n", 0o4755);
    for number in 0..40 {
        make(format!("many/{number}").as_bytes(), &noise(number * 997), 0o640);
    }
    make(b"deep/in/a/folder/large", &noise(900_000), 0o644);
    std::fs::hard_link(
        root.join("deep/in/a/folder/large"),
        root.join("another name of large"),
    )
    .unwrap();
    std::fs::hard_link(root.join("plain"), root.join("many/plain too")).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    std::fs::create_dir(root.join("empty folder")).unwrap();
    std::fs::set_permissions(root.join("empty folder"), std::fs::Permissions::from_mode(0o1700)).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(root.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let holes = std::fs::File::create(root.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    holes.write_all_at(&noise(100_000), 20 << 20).unwrap();
}

/// Kind, mode, owner, length, time, names, target and path of everything, and a digest of each file.
fn seen(root: &Path) -> Vec<u8> {
    let program = r#"cd "$1" && find . -type d -printf '%y %m %U %G - %T@ - - %p\0' -o -printf '%y %m %U %G %s %T@ %n %l %p\0' | sort -z
        find . -type f -print0 | sort -z | xargs -0 sha256sum -z"#;
    let output = Command::new("sh")
        .args(["-c", program, "sh"])
        .arg(root)
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stdout.len() > 1000,
        "{output:?}"
    );
    output.stdout
}

fn assert_same(now: &[u8], then: &[u8]) {
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\n");
    let (now, then) = (lines(now), lines(then));
    let differing: Vec<_> = now
        .lines()
        .zip(then.lines())
        .filter(|(now, then)| now != then)
        .collect();
    assert!(now == then, "{differing:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_killed_at_any_byte_goes_on_and_everything_comes_back() {
    let scene = Scene::new().await;
    let (tree, export) = (scene.text("tree"), scene.text("export"));
    fill(&scene.folder("tree"));
    let then = seen(&scene.folder("tree"));
    let path = [
        "export",
        &scene.name,
        &export,
        "--path",
        &tree,
        "--part",
        "256KiB",
        "--json",
    ];
    let killed = scene.until_done(&path, "");
    println!("killed {killed} times");
    assert!(killed >= 5, "killed {killed} times");
    let again = scene.person.json(&path[..7]);
    assert_eq!(
        again["parts_before"], again["parts"],
        "what is whole is not taken again"
    );
    assert!(again["parts"].as_u64().unwrap() > 5, "{again}");
    assert_eq!(scene.person.json(&["export", "--check", &export])["done"], true);

    // What stock programs make of it.
    let key = scene.person.json(&["export", "--key", &scene.name])["identity"]
        .as_str()
        .unwrap()
        .to_owned();
    std::fs::write(scene.folder("key"), format!("{key}\n")).unwrap();
    let program = r#"set -e; mkdir stock; for part in export/part-*.age; do age -d -i key $part; done | tar -xpi -C stock"#;
    if Command::new("age")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
    {
        let opened = Command::new("sh")
            .args(["-c", program])
            .current_dir(scene.street.folder.path())
            .status();
        assert!(opened.unwrap().success());
        assert_same(
            &seen(&scene.folder("stock").join(tree.strip_prefix('/').unwrap())),
            &then,
        );
    } else {
        println!("age is not installed here: the crate's own files of it were opened instead");
    }

    // The space ends, another takes its place.
    scene.person.json(&["cancel", &scene.name]);
    std::fs::rename(scene.folder("tree"), scene.folder("before")).unwrap();
    let name = buy(&scene.person);
    let killed = scene.until_done(&["import", &export, &name, "--json"], "<");
    println!("killed {killed} times");
    assert!(killed >= 5, "killed {killed} times");
    assert_same(&seen(&scene.folder("tree")), &then);

    // The control: a file that is not as it was is seen, by the test and by an import that finds it changing.
    std::fs::write(scene.folder("tree").join("plain"), "other\n").unwrap();
    assert_ne!(seen(&scene.folder("tree")), then);
    let other = scene.text("other-tree");
    std::fs::create_dir_all(scene.folder("other-tree")).unwrap();
    std::fs::write(scene.folder("other-tree/one"), "one\n").unwrap();
    std::fs::write(scene.folder("other-tree/two"), "two\n").unwrap();
    let small = scene.text("small");
    scene.person.json(&["export", &name, &small, "--path", &other]);
    let spoil = format!(
        "#!/bin/sh\ncase $* in *--create*) echo spoilt >'{other}/two';; esac\nPATH=${{PATH#*:}} exec tar \"$@\"\n"
    );
    std::fs::create_dir(scene.folder("spoilt")).unwrap();
    write_program(&scene.folder("spoilt/tar"), &spoil);
    let spoilt = format!(
        "#!/bin/sh\nPATH='{}':$PATH exec sh -c \"$1\"\n",
        scene.text("spoilt")
    );
    write_program(&scene.folder("hostile"), &spoilt);
    let (code, said) = scene.person.code(&["import", &small, &name]);
    assert_eq!(code, 15, "{said}");
    assert!(
        said.contains("other-tree/two") && !said.contains("other-tree/one"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_meanwhile_is_named_and_another_folder_is_refused() {
    let scene = Scene::new().await;
    let (tree, export) = (scene.text("tree"), scene.text("export"));
    fill(&scene.folder("tree"));
    // It grows whenever it is read.
    write_program(
        &scene.folder("hostile"),
        &format!("#!/bin/sh\ncase $1 in *--create*) echo more >>'{tree}/many/7';; esac\nexec sh -c \"$1\"\n"),
    );
    let taken = scene
        .person
        .json(&["export", &scene.name, &export, "--path", &tree]);
    assert_eq!(taken["changed"], serde_json::json!([format!("{tree}/many/7")]));
    std::fs::remove_file(scene.folder("hostile")).unwrap();
    // The control: where nothing writes, nothing is named.
    let quiet = scene
        .person
        .json(&["export", &scene.name, &scene.text("quiet"), "--path", &tree]);
    assert_eq!(quiet["changed"], serde_json::json!([]));

    for (arguments, code) in [
        (vec!["export", &scene.name, &export], 2),
        (vec!["export", &scene.name, &tree, "--path", &tree], 2),
        (vec!["export", &scene.name, &export, "--path", "relative"], 2),
        (vec!["export", &scene.name, &export, "--path", "/a/../b"], 2),
        (vec!["export", &scene.name, &export, "--path", "/tmp/"], 2),
        (vec!["export", "nobody", &export], 7),
        (vec!["export", "--check", &tree], 7),
        (vec!["import", &tree, &scene.name], 7),
        (vec!["export", "--key", "nobody"], 7),
        (vec!["export", &scene.name], 2),
    ] {
        let (ended, said) = scene.person.code(&arguments);
        assert_eq!(ended, code, "{arguments:?}: {said}");
    }
    // Another wallet neither checks it nor imports it.
    let other = Person {
        home: scene.folder("other"),
        ..scene.person.clone()
    };
    other.json(&["wallet", "new"]);
    let (code, said) = other.code(&["export", "--check", &export]);
    assert!(
        code == 15 && said.contains("another wallet made it"),
        "{code}: {said}"
    );
}

/// Each line is a space that lies; the words are what its user is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_that_lies_writes_no_file_of_its_choice_and_no_letter_on_the_screen() {
    let scene = Scene::new().await;
    let line = |kind: &str, path: &str| {
        format!("{kind} 6 8 1700000000.0000000000 1700000000.0000000000 33:7 1 {path}\\0")
    };
    let lists = |lines: &str| {
        format!("case $1 in *files0-from*) cat >/dev/null; printf '{lines}end 0\\0'; exit;; esac\n")
    };
    let good = lists(&line("f", "/srv/a"));
    let cases = [
        (
            lists(&line("f", "/srv/../etc/passwd")),
            12,
            "entry 1 of its list is none",
        ),
        (
            lists(&line("f", "/etc/passwd")),
            12,
            "lies where nothing was asked for",
        ),
        (
            lists(&line("f", "part-00001.age")),
            12,
            "entry 1 of its list is none",
        ),
        (
            "case $1 in *files0-from*) yes;; esac\n".to_owned(),
            12,
            "sends more than it said",
        ),
        (
            lists(
                &line("f", "/srv/a")
                    .replace(" 6 8 ", " 6 99999999999 ")
                    .replace("f 6", "f 9999999999999"),
            ),
            12,
            "more than it said",
        ),
        (format!("{good}cat /dev/zero\n"), 12, "sends more than it said"),
        (format!("{good}echo short; exit 0\n"), 1, "ended too early"),
        (
            format!("{good}head -c 4096 /dev/zero; exit 137\n"),
            1,
            "ended too early",
        ),
        (
            format!("{good}printf '\\033[2J\\033]0;owned\\007' >&2; exit 3\n"),
            1,
            "ended too early",
        ),
        ("exit 255\n".to_owned(), 9, "was cut"),
        (lists(""), 7, "nothing there"),
    ];
    for (number, (does, code, words)) in cases.iter().enumerate() {
        write_program(&scene.folder("hostile"), &format!("#!/bin/sh\n{does}"));
        let to = format!("out-{number}");
        let (ended, said) = scene
            .person
            .code(&["export", &scene.name, &scene.text(&to), "--path", "/srv"]);
        assert_eq!(ended, *code, "{does}: {said}");
        assert!(said.contains(words), "{does}: {said}");
        assert!(
            !said.contains('\u{1b}') && !said.contains('\u{7}'),
            "{does}: {said:?}"
        );
        let bytes: u64 = std::fs::read_dir(scene.folder(&to))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 8 << 20, "{does}: {bytes} bytes are kept");
    }
    // Names that would turn a screen around are shown without.
    let odd = "/srv/\\033[31m\\342\\200\\256red\\nline";
    let names = lists(&line("f", odd));
    let twice = format!(
        "n=$(cat '{0}' 2>/dev/null || echo 5); echo $((n + 1)) >'{0}'\n{1}head -c 10240 /dev/zero; exit 0\n",
        scene.text("looked"),
        names
            .replace("33:7", "33:%s")
            .replace("end 0\\0'", "end 0\\0' $n"),
    );
    write_program(&scene.folder("hostile"), &format!("#!/bin/sh\n{twice}"));
    let output = scene
        .person
        .run(&["export", &scene.name, &scene.text("odd"), "--path", "/srv"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("/srv/[31mredline"), "{said:?}");
    // Nothing but the folders that were named was made.
    let made = std::fs::read_dir(scene.street.folder.path()).unwrap();
    let expected = [
        "bin",
        "facts",
        "hostile",
        "journal.sqlite",
        "ledger",
        "looked",
        "odd",
        "user",
    ];
    let other: Vec<_> = made
        .map(|entry| entry.unwrap().file_name().into_vec())
        .map(|name| String::from_utf8(name).unwrap())
        .filter(|name| {
            !name.starts_with("out-") && !name.starts_with("journal.") && !expected.contains(&&name[..])
        })
        .collect();
    assert_eq!(other, Vec::<String>::new());
}
