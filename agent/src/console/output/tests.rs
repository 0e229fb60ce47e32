use std::fs::{self, File};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use nix::pty::openpty;

use super::*;
use crate::console::status::{Disk, Space};

/// A console on a terminal of the kernel's, and who sits at its other end.
struct Person {
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    acts: mpsc::Receiver<Acted>,
    board: Board,
}

/// However busy the machine is.
const WITHIN: Duration = Duration::from_secs(90);

impl Person {
    fn at(kind: Kind) -> Self {
        let pty = openpty(None, None).expect("a pty");
        let (slave, master) = (File::from(pty.slave), File::from(pty.master));
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&slave, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("does not block");
        let board = Board::new("0.1.0");
        board.update(|status| {
            status.disks = Some(vec![Disk {
                name: "vdb".into(),
                size: "8 GiB".into(),
                state: "not touched: ext4 \"backup\"".into(),
                holds: "ext4 \"backup\"".into(),
                line: Some("/dev/vdb, 8 GiB, ext4 backup".into()),
                ..Disk::default()
            }]);
            status.spaces = vec![Space {
                sale: [7; 32],
                name: "calm-otter".into(),
                ..Space::default()
            }];
        });
        let (confirmed, acts) = mpsc::channel(4);
        let mut console = Console::new(board.clone(), confirmed, "ttyS0", kind);
        thread::spawn(move || console.talk(&mut Terminal::from_file(slave)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, sees) = (master.try_clone().expect("a handle"), Arc::clone(&seen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                sees.lock().expect("seen").extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            keyboard: master,
            seen,
            acts,
            board,
        }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits until it stands there, and forgets all up to it.
    fn sees(&mut self, text: &str) {
        let end = Instant::now() + WITHIN;
        loop {
            {
                let mut seen = self.seen.lock().expect("seen");
                let found = seen
                    .windows(text.len())
                    .position(|window| window == text.as_bytes());
                if let Some(at) = found {
                    seen.drain(..at + text.len());
                    return;
                }
                let so_far = String::from_utf8_lossy(&seen).into_owned();
                assert!(Instant::now() < end, "{text:?} is not in {so_far}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn acted(&mut self) -> Act {
        self.acts.blocking_recv().expect("an act").1
    }

    fn has_seen(&self, text: &str) -> bool {
        let seen = self.seen.lock().expect("seen");
        seen.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

#[test]
fn a_line_that_knows_no_cursor_gets_words_and_obeys_the_right_one_alone() {
    let mut person = Person::at(Kind::Line);
    person.sees("press W to claim and erase it");
    person.types("w");
    // No answer to the question for its size.
    person.sees("\x1b[6n");
    person.sees("Erase vdb and sell it");
    person.sees("type the word \"vdb\" and Enter; Esc goes back: ");
    person.board.event("something happens meanwhile");
    person.types("vdc\r");
    person.sees("nothing was done");
    assert!(!person.has_seen("Erase"), "asked once");
    person.types("w");
    person.sees("Esc goes back: ");
    person.types("vdx\x7fb\r");
    assert!(matches!(person.acted(), Act::Claim { disk, .. } if disk == "vdb"));
    assert!(person.acts.try_recv().is_err(), "and once");
    person.types("scalm-otter\r");
    assert!(matches!(person.acted(), Act::Stop { sale, .. } if sale == [7; 32]));
    person.types("l");
    person.sees("something happens meanwhile");
}

#[test]
fn a_terminal_that_says_its_size_gets_a_screen_and_leaves_it() {
    let mut person = Person::at(Kind::Line);
    person.sees("Steading 0.1.0");
    person.types("?");
    person.sees("\x1b[6n");
    person.types("\x1b[40;120R");
    person.sees(ENTER);
    person.sees("stop a space: it ends");
    person.types("\x1b");
    person.sees("claim");
    person.types("\x1b");
    person.sees("\x1b[?1049l");
    person.sees("Steading 0.1.0");
    // An answer to a question that nobody asked.
    person.types("\x1b[40;120R");
    person.board.event("a line again");
    person.sees("a line again\r");
}

#[test]
fn a_screen_shows_all_at_once() {
    let mut person = Person::at(Kind::Terminal);
    person.sees("Steading 0.1.0");
    person.types("p");
    person.sees("Switch the machine off");
    person.types("off\r");
    assert_eq!(person.acted(), Act::PowerOff);
}

/// What a person types in bursts passes; what no person types does not, and what it was about to confirm ends.
#[test]
fn a_flood_is_no_person() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    assert_eq!(
        (0..10_000).filter(|_| pace.takes(now)).count(),
        KEYS_AT_ONCE as usize
    );
    let later = now + Duration::from_secs(2);
    let taken = (0..10_000).filter(|_| pace.takes(later)).count();
    assert_eq!(taken, 2 * KEYS_A_SECOND as usize);

    let mut person = Person::at(Kind::Line);
    person.sees("Steading");
    let before = person.board.events().len();
    let flood = "wvd\x1b[A??lq\r".repeat(20_000);
    let mut keyboard = person.keyboard.try_clone().expect("a handle");
    let typist = thread::spawn(move || {
        // Chunks: the kernel drops what nobody reads, and a full line is no error.
        for chunk in flood.as_bytes().chunks(512) {
            if keyboard.write_all(chunk).is_err() {
                return;
            }
        }
    });
    person.board.event("others go on");
    let used = |from: Duration| cpu_time().saturating_sub(from);
    let (began, from) = (Instant::now(), cpu_time());
    typist.join().expect("typed");
    let (lasted, spent) = (began.elapsed(), used(from));
    assert!(person.acts.try_recv().is_err(), "nothing was confirmed");
    assert_eq!(
        person.board.events().len(),
        before + 1,
        "nothing was written down"
    );
    // Half a processor would be one that is busy. Other tests of this process may run beside.
    println!("a flood of {lasted:?} took {spent:?} of this process");
    let mut person = person;
    thread::sleep(Duration::from_secs(1));
    person.types("\x1b\x1b\x1b");
    thread::sleep(Duration::from_secs(5));
    person.types("?");
    person.sees("stop a space: it ends");
}

fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Into::into)
}

/// Nobody reads at the other end of one line; the other one goes on.
#[test]
fn a_line_that_is_stuck_stops_nobody_else() {
    let mut person = Person::at(Kind::Line);
    let pty = openpty(None, None).expect("a pty");
    let slave = File::from(pty.slave);
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&slave, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("does not block");
    let (confirmed, _acts) = mpsc::channel(1);
    let mut stuck = Console::new(person.board.clone(), confirmed, "ttyS1", Kind::Line);
    let thread = thread::spawn(move || stuck.talk(&mut Terminal::from_file(slave)));
    for index in 0..2_000 {
        person.board.event(format!("event {index} {}", "x".repeat(200)));
        if index % 100 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    person.sees("event 1999");
    assert!(!thread.is_finished());
    // Its cable is pulled: it ends, and would be opened again.
    drop(pty.master);
    let end = Instant::now() + WITHIN;
    while !thread.is_finished() {
        assert!(Instant::now() < end, "it still waits");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(thread.join().expect("joined").is_err());
}

#[test]
fn every_console_of_the_machine_is_found() {
    let root = tempfile::tempdir().expect("a scratch folder");
    let class = root.path().join("class/tty");
    for (name, kind) in [
        ("console", ""),
        ("tty0", ""),
        ("tty1", ""),
        ("ttyS0", "4"),
        ("ttyS1", "4"),
        ("ttyS2", "0"),
    ] {
        fs::create_dir_all(class.join(name)).expect("made");
        fs::write(class.join(name).join("type"), format!("{kind}\n")).expect("written");
    }
    fs::write(class.join("console/active"), "ttyS0\n").expect("written");
    let mut found = consoles(root.path());
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        found,
        vec![
            ("tty0".into(), Kind::Terminal),
            ("ttyS0".into(), Kind::Line),
            ("ttyS1".into(), Kind::Line),
        ]
    );
    assert_eq!(consoles(Path::new("/nowhere")), vec![]);
}
