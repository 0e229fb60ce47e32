//! `steading verify`: who signed what; offline, with nothing but the file.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use market::envelope::{self, EnvelopeError, Inspection};
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
use crate::show::Screen;

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Signed messages of your sales lie in the folder that `steading spaces --all --json` names: request, offer, agree, sale, grant, receipt. Exit code 13 where one is not valid.")]
pub struct Arguments {
    /// The file; - is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Verifies.
pub fn run(arguments: Arguments, screen: Screen) -> Outcome {
    let bytes = read(&arguments.file)?;
    match envelope::inspect(&bytes) {
        Ok(inspection) => screen.result(&valid_json(&inspection), &valid_text(&inspection)),
        Err(error) => Err(not_valid(&arguments, &error, screen)),
    }
}

fn read(file: &std::path::Path) -> Outcome<Vec<u8>> {
    let most = u64::try_from(envelope::MOST_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    let read = if file == std::path::Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::new(Code::NotFound, format!("{} cannot be read", file.display()))
            .because(error)
            .next(
                "give a file that holds one signed message; `steading spaces --all --json` names the folders",
            )
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn valid_json(inspection: &Inspection) -> serde_json::Value {
    json!({
        "valid": true,
        "kind": inspection.kind.name(),
        "version": inspection.version,
        "signer": hex(&inspection.signer),
        "grid": inspection.grid,
        "hash": inspection.hash,
    })
}

fn valid_text(inspection: &Inspection) -> String {
    format!(
        "valid     {}, version {}\nsigner    {}\ngrid      {}\nhash      {}\n",
        inspection.kind.name(),
        inspection.version,
        hex(&inspection.signer),
        inspection.grid,
        inspection.hash,
    )
}

fn not_valid(arguments: &Arguments, error: &EnvelopeError, screen: Screen) -> Failure {
    let failure = Failure::new(
        Code::NotValid,
        format!("{} is not valid", arguments.file.display()),
    )
    .caused_by(error)
    .next("believe nothing that it says: it is no signed message, or it was changed since it was signed");
    if screen.json {
        let why = failure.why.join(": ");
        // One object on standard output, of this verb's own shape.
        let _ = screen.result(&json!({"valid": false, "why": why, "next": failure.next}), "");
        return Failure {
            is_shown: true,
            ..failure
        };
    }
    failure
}
