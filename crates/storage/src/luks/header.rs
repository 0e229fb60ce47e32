//! What a LUKS2 header must say before it is opened: what we formatted, and nothing else.
//!
//! A header on a disk is hostile. It could name `cipher_null`, so that the user's data lands in the
//! clear; a second key slot; a segment that is not encrypted; a KDF that takes a year or all
//! memory. So its JSON is compared with what [`super::format`] writes before any key touches it,
//! in the very copy that is then used for opening.

use serde_json::Value;

/// aes-xts-plain64 with a 512-bit key: AES-256 twice.
pub(super) const CIPHER: &str = "aes";
pub(super) const CIPHER_MODE: &str = "xts-plain64";
pub(super) const KEY_BYTES: usize = 64;
/// One sector is one page: the fewest calls into the cipher.
pub(super) const SECTOR_BYTES: u32 = 4096;
/// The header and the data's start: 2048 sectors of 512 bytes.
pub(super) const DATA_OFFSET_BYTES: u64 = 1 << 20;
/// Iterations of PBKDF2: the least that libcryptsetup takes. A KDF makes a *guessable* passphrase
/// costly to guess. The unlock key is 64 random bytes; no search gets anywhere near it at any
/// number of iterations, so every one above the least would only delay the user.
pub(super) const KDF_ITERATIONS: u32 = 1000;
pub(super) const KDF_HASH: &str = "sha256";

/// Checks the JSON of a header. The error names the first thing that differs.
pub(super) fn check(json: &Value) -> Result<(), String> {
    let segment = only(json, "segments")?;
    let encryption = format!("{CIPHER}-{CIPHER_MODE}");
    expect(segment, "/type", "crypt")?;
    expect(segment, "/encryption", &encryption)?;
    expect(segment, "/offset", &DATA_OFFSET_BYTES.to_string())?;
    expect(segment, "/size", "dynamic")?;
    expect(segment, "/iv_tweak", "0")?;
    expect_number(segment, "/sector_size", SECTOR_BYTES.into())?;
    absent(segment, "/integrity")?;
    absent(segment, "/flags")?;

    let slot = only(json, "keyslots")?;
    expect(slot, "/type", "luks2")?;
    expect_number(slot, "/key_size", KEY_BYTES as u64)?;
    expect(slot, "/area/type", "raw")?;
    expect(slot, "/area/encryption", &encryption)?;
    expect_number(slot, "/area/key_size", KEY_BYTES as u64)?;
    expect(slot, "/kdf/type", "pbkdf2")?;
    expect(slot, "/kdf/hash", KDF_HASH)?;
    expect_number(slot, "/kdf/iterations", KDF_ITERATIONS.into())?;

    // The digest is what says that an unlocked volume key is the right one: another PBKDF2.
    let digest = only(json, "digests")?;
    expect(digest, "/type", "pbkdf2")?;
    let iterations = digest.pointer("/iterations").and_then(Value::as_u64);
    if iterations.is_none_or(|n| n > 1_000_000) {
        return Err("digest iterations are missing or too many".to_owned());
    }
    for (what, pointer) in [("tokens", "/tokens"), ("requirements", "/config/requirements")] {
        let there = match json.pointer(pointer) {
            None => false,
            Some(Value::Object(map)) => !map.is_empty(),
            Some(_) => true,
        };
        if there {
            return Err(format!("it has {what}"));
        }
    }
    match json.pointer("/config/flags") {
        None => Ok(()),
        Some(Value::Array(flags)) if flags.is_empty() => Ok(()),
        Some(flags) => Err(format!("it has flags {flags}")),
    }
}

/// The only entry of a map, whose key must be "0".
fn only<'a>(json: &'a Value, key: &str) -> Result<&'a Value, String> {
    let map = json
        .get(key)
        .and_then(Value::as_object)
        .ok_or(format!("it has no {key}"))?;
    match (map.len(), map.get("0")) {
        (1, Some(value)) => Ok(value),
        (n, _) => Err(format!("it has {n} {key}, not the one that was made")),
    }
}

fn expect(value: &Value, pointer: &str, right: &str) -> Result<(), String> {
    match value.pointer(pointer).and_then(Value::as_str) {
        Some(found) if found == right => Ok(()),
        found => Err(differs(pointer, found.map(str::to_owned), right)),
    }
}

fn expect_number(value: &Value, pointer: &str, right: u64) -> Result<(), String> {
    match value.pointer(pointer).and_then(Value::as_u64) {
        Some(found) if found == right => Ok(()),
        found => Err(differs(pointer, found.map(|n| n.to_string()), &right.to_string())),
    }
}

fn absent(value: &Value, pointer: &str) -> Result<(), String> {
    match value.pointer(pointer) {
        None => Ok(()),
        Some(found) => Err(differs(pointer, Some(found.to_string()), "absent")),
    }
}

fn differs(pointer: &str, found: Option<String>, right: &str) -> String {
    let found = found.map_or("absent".to_owned(), |text| text.chars().take(60).collect());
    format!(
        "{} is {found}, not {right}",
        pointer.trim_start_matches('/').replace('/', " ")
    )
}

/// The JSON of a header, for the fuzz target: whether it would be opened.
#[cfg(fuzzing)]
pub fn fuzz_header(text: &[u8]) -> bool {
    serde_json::from_slice(text).is_ok_and(|json| check(&json).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        serde_json::from_str(include_str!("header.json")).unwrap()
    }

    #[test]
    fn what_we_format_passes() {
        check(&good()).unwrap();
    }

    #[test]
    fn anything_else_is_refused() {
        let changes = [
            ("/segments/0/encryption", Value::from("cipher_null-ecb")),
            ("/segments/0/type", Value::from("linear")),
            ("/segments/0/offset", Value::from("0")),
            ("/segments/0/size", Value::from("4096")),
            ("/segments/0/sector_size", Value::from(512)),
            ("/keyslots/0/area/encryption", Value::from("cipher_null-ecb")),
            ("/keyslots/0/key_size", Value::from(16)),
            ("/keyslots/0/kdf/type", Value::from("argon2id")),
            ("/keyslots/0/kdf/iterations", Value::from(4_000_000_000_u64)),
            ("/digests/0/iterations", Value::from(4_000_000_000_u64)),
        ];
        for (pointer, value) in changes {
            let mut json = good();
            *json.pointer_mut(pointer).unwrap() = value;
            assert!(check(&json).is_err(), "{pointer}");
        }
        for (map, key) in [
            ("segments", "1"),
            ("keyslots", "1"),
            ("digests", "1"),
            ("tokens", "0"),
        ] {
            let mut json = good();
            let copy = json[map]["0"].clone();
            json[map].as_object_mut().unwrap().insert(key.into(), copy);
            assert!(check(&json).is_err(), "a second of {map}");
        }
        let mut json = good();
        json["segments"]["0"]["integrity"] = serde_json::json!({"type": "none"});
        assert!(check(&json).is_err());
        let mut json = good();
        json["config"]["requirements"] = serde_json::json!({"mandatory": ["online-reencrypt"]});
        assert!(check(&json).is_err());
        assert!(check(&Value::Null).is_err());
    }
}
