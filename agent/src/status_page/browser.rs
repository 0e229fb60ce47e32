//! The status page in a real browser: Debian's chromium, at a telephone's width and a desk's.

use std::path::Path;
use std::process::Command;

use super::{listen, serve};
use crate::console::{Board, Disk, Health, Selling, Space};

const HOSTILE: &str = "</p><script>document.title='taken over'</script>";

fn board() -> Board {
    let board = Board::new("0.1.0");
    board.update(|status| {
        status.node = Some("7e2a…091c".into());
        status.node_id = Some("7e2a091c".repeat(8));
        status.selling = Selling::Yes;
        status.grid = "joined \"demo\", 4 neighbours".into();
        status.clock = "right (ledger)".into();
        status.clock_is_right = true;
        status.wallet = "steading:3f1c…:9ab0…c1".into();
        status.farmer_file = "read, 5e2d91".into();
        status.machine = "q35 · 2 cores · 2 GiB · UEFI, Secure Boot on · no TPM".into();
        status.network = vec!["52:54:00:12:34:56  10.0.2.15/24  fec0::5054:ff:fe12:3456/64".into()];
        let disk = |name: &str, size: &str, state: &str, line: Option<&str>| Disk {
            name: name.into(),
            size: size.into(),
            state: state.into(),
            holds: String::new(),
            line: line.map(Into::into),
            ..Disk::default()
        };
        status.disks = Some(vec![
            disk("nvme0n1", "1 TiB", "claimed, 930 GiB free", None),
            disk(
                "sda",
                "20 GiB",
                "not touched: ext4 \"backup\"",
                Some("naa.50014ee2b1234567, 20 GiB, ext4 backup 0d7c1d1e-64c5-4a1b-9d6e-7f1b6a1f2a3b"),
            ),
        ]);
        status.spaces = vec![
            Space {
                name: "calm-otter".into(),
                size: "0.5 cpu   512 MiB  2 GiB".into(),
                state: "active, paid until 14:05 UTC".into(),
                ..Space::default()
            },
            Space {
                name: HOSTILE.into(),
                size: "1 cpu".into(),
                state: "x".repeat(300),
                ..Space::default()
            },
        ];
        status.earned = Some("12.40 today · 87.10 in all".into());
        status.traffic = Some("41.2 GiB of 500 GiB in 2026-11".into());
        status.health = vec![Health {
            part: "nvme0n1".into(),
            celsius: Some(41),
            used_percent: Some(3),
            warning: None,
        }];
    });
    board.event(HOSTILE);
    board.event("sold calm-otter: 3 h at 0.40 an hour");
    board.event("calm-otter ready in 1.9 s");
    board
}

/// What the browser has made of an address: the document as it stands, and what it complained about.
fn browse(folder: &Path, address: &str, width: u32) -> (String, String) {
    let run = |what: &str| {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--hide-scrollbars", "--enable-logging=stderr", "--v=0"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg(format!("--window-size={width},1200"))
            .args([what, address])
            .output()
            .expect("chromium is there: ./x test installs it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "chromium {what}: {}\n{said}",
            output.status
        );
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let picture = folder.join(format!("status-{width}.png"));
    let (_, mut complaints) = run(&format!("--screenshot={}", picture.display()));
    let (document, more) = run("--dump-dom");
    complaints.push_str(&more);
    let bytes = std::fs::read(&picture).expect("a picture");
    // PNG: width and height stand at 16 and 20, big-endian.
    assert_eq!(&bytes[1..4], b"PNG");
    let of = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((of(16), of(20)), (width, 1200));
    (document, complaints)
}

#[test]
fn a_browser_shows_it_and_runs_nothing_of_it() {
    // STEADING_PICTURES=FOLDER keeps what was seen, for a person to look at.
    let scratch = tempfile::tempdir().expect("a folder");
    let kept = std::env::var_os("STEADING_PICTURES");
    let folder = kept.as_deref().map_or(scratch.path(), Path::new);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(async { listen(0) }).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    runtime.spawn(serve(board(), listener, |_| true));
    let address = format!("http://127.0.0.1:{port}/");
    for width in [390, 1280] {
        let (document, complaints) = browse(folder, &address, width);
        for words in [
            "7e2a…091c selling",
            "calm-otter",
            "930 GiB free",
            "press W at the node",
        ] {
            assert!(document.contains(words), "{words} is not in {document}");
        }
        assert!(document.contains("&lt;script&gt;document.title"), "{document}");
        assert!(!document.contains("<script") && document.contains("<title>7e2a…091c selling</title>"));
        assert!(!complains(&complaints), "{complaints}");
    }
    // The same style under another digest: so that it is known what a complaint looks like.
    let control = folder.join("control.html");
    let text = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-AAAA'\">\
                <style>body{color:red}</style><p>control</p>";
    std::fs::write(&control, text).expect("written");
    let (document, complaints) = browse(folder, &format!("file://{}", control.display()), 800);
    assert!(
        document.contains("control") && complains(&complaints),
        "{complaints}"
    );
}

fn complains(said: &str) -> bool {
    said.contains("Content Security Policy")
}
