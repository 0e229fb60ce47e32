//! Everything behind `./x VERB`: makes the artefacts, starts what runs, tests.
//!
//! Built for the host, without the sysroot, from few dependencies: it must run before anything else exists.

use anyhow::Result;
use std::process::ExitCode;

mod artefacts;
mod build;
mod options;
mod tree;

use options::Options;

/// The verbs: name, one line of help, what runs.
type Verb = (&'static str, &'static str, fn(Options) -> Result<ExitCode>);

const VERBS: &[Verb] = &[
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
        "medium",
        "write the disk that a virtual node reads: --farmer FILE --out FILE",
        artefacts::medium,
    ),
];

fn main() -> ExitCode {
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
