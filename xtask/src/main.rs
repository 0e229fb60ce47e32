//! Everything behind `./x VERB`: makes the artefacts, starts what runs, tests.
//!
//! Built for the host, without the sysroot, from few dependencies: it must run before anything else exists.

use anyhow::Result;
use std::process::ExitCode;

mod artefacts;
mod bench;
mod beside;
mod bill;
mod build;
mod buildroot;
mod cuts;
mod demo;
mod failures;
mod fuzz;
mod guest;
mod image_test;
mod machines;
mod network_image;
mod options;
mod shipped;
mod show;
mod stick_image;
mod test;
mod tester;
mod tree;
mod verbs;

use options::Options;

/// The verbs: name, one line of help, what runs.
type Verb = (&'static str, &'static str, fn(Options) -> Result<ExitCode>);

const VERBS: &[Verb] = &[
    (
        "demo",
        "one whole sale on a node in QEMU (--once, --nodes N, --json FILE, --kvm)",
        verbs::demo,
    ),
    (
        "test",
        "all tests, or a stage of them (--unit, --fuzz, --guest, --cuts, --demo, --scenarios, --stick, --machines, --buildroot, --lint; NAME; --long; --json FILE)",
        verbs::test,
    ),
    (
        "qemu",
        "a node whose console is this terminal (--fresh, --nodes N, --memory MIB, --set KEY=VALUE of its farmer.toml, --kvm)",
        verbs::qemu,
    ),
    (
        "bench",
        "sale: the demo several times, and where its time goes; boot: the way to PID 1 and to able to sell, beside Debian's own (--by direct,bios,uefi,secure or all); neighbour: a space beside a hostile one (--runs N, --json FILE, --kvm)",
        verbs::bench,
    ),
    ("steading", "the client, from the tree", verbs::steading),
    (
        "inventory",
        "what the agent sees of this machine (--root DIR, --json)",
        verbs::inventory,
    ),
    (
        "cargo",
        "cargo against the sysroot of the pinned packages",
        verbs::cargo,
    ),
    (
        "fetch",
        "download the pinned packages (--update: pin today's)",
        artefacts::fetch,
    ),
    (
        "sysroot",
        "unpack what everything is linked against",
        artefacts::sysroot,
    ),
    (
        "base",
        "build the Debian that every space stands on",
        artefacts::base,
    ),
    (
        "initramfs",
        "build our programs, assemble kernel and initramfs for QEMU (--no-build: from what was built)",
        artefacts::initramfs,
    ),
    (
        "image",
        "the stick image and what is handed on with it (--sign KEYFILE, --network, --farmer FILE, --out FILE, --locked, --mirror URL, --security-mirror URL)",
        stick_image::verb,
    ),
    (
        "hardware",
        "write docs/hardware.md: what the image's modules and firmware drive",
        stick_image::hardware,
    ),
    (
        "buildroot",
        "write what buildroot-config is made from elsewhere (with BUILDROOT=DIR that release's symbols too)",
        buildroot::verb,
    ),
    (
        "kernel",
        "compile the locked kernel from Debian's sources with buildroot-config's fragments and boot our initramfs with it, beside Debian's (--runs N, --jobs N, --json FILE)",
        buildroot::built::verb,
    ),
    (
        "medium",
        "write the disk that a virtual node reads: --farmer FILE --out FILE",
        artefacts::medium,
    ),
];

fn main() -> ExitCode {
    if let Some(code) = fuzz::as_compiler().or_else(shipped::as_compiler) {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let Some((_, _, run)) = VERBS.iter().find(|(name, _, _)| *name == verb) else {
        eprintln!("usage: ./x VERB [OPTIONS]\n");
        for (name, help, _) in VERBS {
            eprintln!("  {name:<10} {help}");
        }
        return ExitCode::from(2);
    };
    match run(Options::new(arguments.collect())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("x {verb}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
