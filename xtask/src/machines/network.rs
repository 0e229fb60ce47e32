//! Networks as homes have them: late, of one kind, with cards that lead nowhere, with leases of another shape.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu::{Boot, Machine, Way, Wire};

use super::SELLS_WITHIN;
use super::cases::{Ended, Place, measured, said, sells};
use super::dhcp;

/// How late a cable or a lease is.
const LATE: Duration = Duration::from_secs(120);

/// The host as QEMU's user network shows it.
const HOST_V4: &str = "10.0.2.2";
const HOST_V6: &str = "[fec0::2]";

/// Pulled before the kernel runs, put in two minutes after the console has said that it is not there.
pub fn cable_late(place: &Place) -> Result<Ended> {
    let mut running = place.with_disk()?.start()?;
    let mut monitor = running.monitor()?;
    monitor.cable(false)?;
    let said = running.wait_for("not selling: ", SELLS_WITHIN)?;
    ensure!(said.text.contains("no network cable"), "it says {:?}", said.text);
    stays_silent(&mut running, LATE)?;
    monitor.cable(true)?;
    let put_in = Instant::now();
    measured("sells after the cable", sells(&mut running, put_in)?)
}

/// Nothing comes back for two minutes from the first question on.
pub fn dhcp_late(place: &Place) -> Result<Ended> {
    let (asked, first) = channel();
    let mut since: Option<Instant> = None;
    let wire = Wire::lay("", move |way, frame| {
        if way == Way::Out && since.is_none() && dhcp::is_question(&frame) {
            since = Some(Instant::now());
            let _ = asked.send(());
        }
        let is_late = since.is_some_and(|since| since.elapsed() >= LATE);
        (way == Way::Out || is_late).then_some(frame)
    })?;
    let mut machine = place.with_disk()?;
    machine.network = false;
    machine.wires.push(wire.port());
    let mut running = machine.start()?;
    first
        .recv_timeout(SELLS_WITHIN)
        .context("it never asked for an address")?;
    let answers = Instant::now() + LATE;
    let said = running.wait_for("not selling: ", SELLS_WITHIN)?;
    ensure!(
        said.text.contains("no address from the network"),
        "it says {:?}",
        said.text
    );
    stays_silent(&mut running, answers.saturating_duration_since(Instant::now()))?;
    measured("sells after the first answer", sells(&mut running, answers)?)
}

/// The control of what comes late: it does not sell before.
fn stays_silent(running: &mut qemu::Running, span: Duration) -> Result<()> {
    let end = Instant::now() + span;
    while running.next_line(end).is_some() {}
    ensure!(running.is_running(), "the machine ended while it waited");
    let early = running.seen("  selling");
    ensure!(early.is_none(), "it sells without a network: {early:?}");
    Ok(())
}

/// No router advertises anything.
pub fn ipv4_only(place: &Place) -> Result<Ended> {
    let mut machine = place.with_disk()?;
    machine.user_network = "ipv6=off".into();
    let begun = Instant::now();
    let mut running = machine.start()?;
    let took = sells(&mut running, begun)?;
    ensure!(
        running.seen("fec0:").is_none(),
        "it has an address of IPv6 all the same"
    );
    measured("sells after", took)
}

/// Nobody answers DHCP; the address comes from a router's advertisement. The grid and the ledger stand on this machine's ::1.
pub fn ipv6_only(place: &Place) -> Result<Ended> {
    let text = place.ground.text.replace(HOST_V4, HOST_V6);
    for address in [place.ground.stage.ledger_address(), place.ground.stage.ticket()] {
        for port in ports(address) {
            if let Err(error) = forward(port) {
                return Ok(Ended::NotRun(format!("this machine has no ::1: {error}")));
            }
        }
    }
    let mut machine = place.machine_from(&place.stick(&text)?);
    machine.disks.push(place.blank()?);
    machine.user_network = "ipv4=off".into();
    let begun = Instant::now();
    let mut running = machine.start()?;
    let took = sells(&mut running, begun)?;
    ensure!(
        running.seen("10.0.2.15").is_none(),
        "it has an address of IPv4 all the same"
    );
    measured("sells after", took)
}

/// The ports of this machine's loopback that a text names.
fn ports(text: &str) -> Vec<u16> {
    text.split("127.0.0.1:")
        .skip(1)
        .filter_map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

/// From ::1 to 127.0.0.1, for as long as the process lives.
fn forward(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, port))?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || -> io::Result<()> {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    to.shutdown(std::net::Shutdown::Write)
                });
                let (mut from, mut to) = (far, near);
                io::copy(&mut from, &mut to)?;
                to.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    Ok(())
}

/// In the kernel's order: a card that nobody answers, one with a lease and a router behind which nothing is, and the one that
/// leads to the grid.
pub fn three_cards(place: &Place) -> Result<Ended> {
    let dead_end = Wire::lay("net=192.168.77.0/24,ipv6=off", |_, frame| {
        dhcp::is_local(&frame).then_some(frame)
    })?;
    let good = Wire::lay("ipv6=off", |_, frame| Some(frame))?;
    let mut machine = place.with_disk()?;
    machine.network = false;
    machine.dead_cards = 1;
    machine.wires.extend([dead_end.port(), good.port()]);
    let begun = Instant::now();
    let mut running = machine.start()?;
    let took = sells(&mut running, begun)?;
    // The page is drawn anew now and then: it may sell before that.
    for words in ["192.168.77.15/24  does not lead to the grid", "10.0.2.15/24"] {
        said(&mut running, words)?;
    }
    measured("sells after", took)
}

/// Nothing but a card, and an answer by DHCP that names a file on an HTTP server: GRUB itself, with Secure Boot off. The
/// firmware fetches that, and GRUB by the firmware's HTTP the kernel, the initramfs and the settings.
pub fn uefi_http(place: &Place) -> Result<Ended> {
    let firmware = super::firmware(super::table::Firmware::Uefi, &place.dir)?;
    let mut machine = Machine::new("uefi-http", Boot::Disk(firmware));
    machine.memory_mib = 2048;
    machine.console_log = Some(place.dir.join("console.log"));
    machine.network = false;
    machine.boots_from_network = true;
    // Without the card's own ROM, which is iPXE and would do it in the firmware's place.
    machine.card = "virtio-net-pci,romfile=".into();
    machine.disks.push(place.blank()?);
    let told = super::http_boot_file(&place.ground.folder, "grubx64.efi")?;
    let wire = Wire::lay(&format!("{told},ipv6=off"), |way, frame| match way {
        Way::Out => Some(frame),
        Way::In => Some(dhcp::with_http_class(frame)),
    })?;
    machine.wires.push(wire.port());
    let begun = Instant::now();
    let mut running = machine.start()?;
    measured("sells after", sells(&mut running, begun)?)
}

/// As some providers hand them out: one address alone, a route to the router on the cable, and one through it.
pub fn classless(place: &Place) -> Result<Ended> {
    let wire = Wire::lay("ipv6=off", |way, frame| match way {
        Way::Out => Some(frame),
        Way::In => Some(dhcp::with_classless_routes(frame)),
    })?;
    let mut machine = place.with_disk()?;
    machine.network = false;
    machine.wires.push(wire.port());
    let begun = Instant::now();
    let mut running = machine.start()?;
    let took = sells(&mut running, begun)?;
    ensure!(
        running.seen("10.0.2.15/32").is_some(),
        "its address is not the one that was handed out"
    );
    measured("sells after", took)
}
