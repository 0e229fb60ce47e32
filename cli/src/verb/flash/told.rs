//! What a person and a program are told of a stick.

use super::*;
use crate::flash::source::SourceError;

/// Why an image was not taken.
pub fn bad_image(error: &SourceError) -> Failure {
    let (code, next) = match error {
        SourceError::Read { .. } => (Code::Unexpected, "name an image that can be read"),
        SourceError::Stopped => {
            return Failure::new(Code::Interrupted, "stopped")
                .because("the image was being checked: nothing was written");
        }
        SourceError::Key(_) => (
            Code::Usage,
            "give the line of a minisign.pub, or the path of that file",
        ),
        _ => (Code::ImageBad, "get the image and what lies beside it anew"),
    };
    Failure::new(code, "the image is not flashed; nothing was written")
        .caused_by(error)
        .next(next)
}

/// Why a target was not finished, and in what state it is.
pub fn failure(target: &Target, error: &FlashError, progress: &Progress) -> Failure {
    let name = &target.name;
    let state = progress.words();
    let (code, next) = match error {
        FlashError::Stopped => (Code::Interrupted, "the same command begins anew"),
        FlashError::Image(_) | FlashError::NotOurs => (Code::ImageBad, "get the image anew"),
        FlashError::TooSmall { .. } => (Code::DiskRefused, "take a larger one"),
        FlashError::Lies { .. } => (
            Code::StickBad,
            "take another: this one would lose what is written to it, whatever it says of its size",
        ),
        FlashError::Differs { .. } => (
            Code::StickBad,
            "try another port; if it happens again, take another stick",
        ),
        FlashError::Medium { source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => (Code::Unexpected, "repeat it with sudo"),
            std::io::ErrorKind::ResourceBusy => {
                (Code::DiskRefused, "something opened it: unmount it, then repeat")
            }
            std::io::ErrorKind::NotFound => (Code::NotFound, "give --to or --file something that is there"),
            _ => (
                Code::StickBad,
                "try another port; if it happens again, take another stick",
            ),
        },
        FlashError::Settings(SettingsError::Edit(_)) => (Code::Usage, "give another value"),
        FlashError::Settings(SettingsError::NotOurs) => (Code::DiskRefused, "give an IMAGE to flash it"),
        FlashError::Settings(SettingsError::FileSystem(_)) => (Code::StickBad, "flash it anew"),
    };
    let what = match error {
        FlashError::Stopped => format!("stopped; {name}: {state}"),
        _ => format!("{name} is not done: {state}"),
    };
    let failure = Failure::new(code, what).next(next);
    match error {
        FlashError::Stopped => failure.because("Ctrl-C was pressed"),
        error => failure.caused_by(error),
    }
}

/// What was done, for a program.
pub fn json(done: &[Done], source: Option<&Source>) -> Value {
    let targets: Vec<Value> = done
        .iter()
        .map(|done| {
            json!({
                "target": done.target.path,
                "bytes": done.target.disk.as_ref().map(|disk| disk.bytes),
                "image_bytes": done.image_bytes,
                "read_back": true,
                "farmer_toml": {"file": done.reading.name, "mark": done.reading.mark, "notes": done.reading.notes, "faults": done.reading.faults.iter().map(ToString::to_string).collect::<Vec<_>>()},
                "settings": done.target.keys.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<serde_json::Map<_, _>>(),
                "missing": missing(&done.reading),
                "seconds": done.took.as_secs_f64(),
            })
        })
        .collect();
    let image = source.map(|source| {
        json!({
            "sha256": source.sha256,
            "checksum": source.has_sum,
            "signature": match source.signed { Signed::Good => "good", Signed::Unchecked => "unchecked", Signed::No => "none" },
        })
    });
    json!({"image": image, "targets": targets})
}

/// What was done, for a person.
pub fn text(done: &[Done], source: Option<&Source>) -> String {
    let mut text = String::new();
    let verb = if source.is_some() {
        "is flashed"
    } else {
        "is changed"
    };
    for Done { target, reading, .. } in done {
        let verb = if source.is_none() && target.keys.is_empty() {
            "is as it was"
        } else {
            verb
        };
        let file = reading.name.as_deref().unwrap_or("farmer.toml");
        text.push_str(&format!(
            "{} {verb}: {file} on it is {}.\n",
            target.name, reading.mark
        ));
        for fault in &reading.faults {
            text.push_str(&format!("  {file} {fault}\n"));
        }
        for note in &reading.notes {
            text.push_str(&format!("  farmer.toml {note}\n"));
        }
    }
    let Some(first) = done.first() else { return text };
    let missing = missing(&first.reading);
    if missing.is_empty() && first.reading.faults.is_empty() {
        text.push_str(
            "Its node can sell: plug it in, power on. The node's screen shows the same six digits.\n",
        );
    } else if missing.is_empty() {
        text.push_str("Its node will sell nothing until that is mended.\n");
    } else {
        text.push_str(&format!(
            "Its node will sell nothing yet, for it has no {}: add with --set, or edit the file.\n",
            missing.join(", no ")
        ));
    }
    if done.len() > 1 {
        text.push_str(&format!("All {}.\n", count(done.len(), "target")));
    } else if first.target.disk.is_none() && source.is_some() {
        let bytes = Bytes(first.image_bytes.unwrap_or(0)).human();
        text.push_str(&format!(
            "It has {bytes}; any flashing program can write it, to as many sticks as you like.\n"
        ));
    }
    text
}

/// What a node cannot sell without.
fn missing(reading: &Reading) -> Vec<&'static str> {
    let farmer = &reading.farmer;
    [
        ("wallet", farmer.wallet.is_none()),
        ("price", farmer.price.is_none()),
        ("grid", farmer.grid.is_none()),
        ("ledger", farmer.ledger.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect()
}
