//! Names on a rail: the rail itself, its assets, the accounts on it.
//!
//! Invariant: an [`Account`] that exists is a well-formed CAIP-10 id, and where its namespace is `steading` its check
//! digits are right: a mistyped address cannot be made into one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is no name of a rail, an asset or an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not of the shape namespace:reference:address.
    #[error("\"{0}\" is not an address; it should look like steading:3f1c…:9ab0…")]
    Shape(String),
    /// The check digits do not match: something was mistyped or cut.
    #[error("the address ends in the wrong check digits: copy it again, whole")]
    CheckDigits,
    /// Not the name of a rail.
    #[error("\"{0}\" is not a rail; it should look like ledger:<64 hex digits>")]
    Rail(String),
    /// Not the name of an asset.
    #[error("\"{0}\" is not an asset; 1 to 64 printable characters, as in play")]
    Asset(String),
}

macro_rules! text_type {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text, whole.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = AccountError;

            fn try_from(text: String) -> Result<Self, AccountError> {
                text.parse()
            }
        }
    };
}

text_type!(
    RailName,
    "Which rail: `ledger:<64 hex digits of the ledger's key>` or `evm:<chain>:<contract>`."
);
text_type!(
    Asset,
    "Which money on a rail, as the rail names it: 1 to 64 printable ASCII characters without spaces."
);
text_type!(
    Account,
    "Who pays or is paid: a CAIP-10 account id, at most 170 bytes."
);

impl RailName {
    /// The name of the ledger with this public key.
    pub fn ledger(key: &[u8; 32]) -> RailName {
        RailName(format!("ledger:{}", lower_hex(key)))
    }

    /// The ledger's public key, where this is a ledger.
    pub fn ledger_key(&self) -> Option<[u8; 32]> {
        self.0.strip_prefix("ledger:").and_then(hex_32)
    }
}

impl FromStr for RailName {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let refuse = || AccountError::Rail(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
        let good = match kind {
            "ledger" => hex_32(rest).is_some(),
            "evm" => rest.split_once(':').is_some_and(|(chain, contract)| {
                is_made_of(chain, 1, 20, |byte| byte.is_ascii_digit())
                    && contract.len() == 42
                    && is_made_of(contract, 42, 42, |byte| byte.is_ascii_alphanumeric())
            }),
            _ => false,
        };
        if good {
            Ok(RailName(text.to_owned()))
        } else {
            Err(refuse())
        }
    }
}

impl FromStr for Asset {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        if is_made_of(text, 1, 64, |byte| byte.is_ascii_graphic()) {
            Ok(Asset(text.to_owned()))
        } else {
            Err(AccountError::Asset(text.to_owned()))
        }
    }
}

impl Account {
    /// The account of an ed25519 key on the ledger with the given key, check digits included.
    pub fn on_ledger(ledger_key: &[u8; 32], account_key: &[u8; 32]) -> Account {
        let reference = ledger_reference(ledger_key);
        let check = check_digits(&reference, account_key);
        Account(format!("steading:{reference}:{}{check}", lower_hex(account_key)))
    }

    /// The account's public key, where it stands on a ledger.
    pub fn ledger_account_key(&self) -> Option<[u8; 32]> {
        let (namespace, rest) = self.0.split_once(':')?;
        let (_, address) = rest.split_once(':')?;
        (namespace == "steading").then(|| address.get(..64).and_then(hex_32))?
    }

    /// Whether this account stands on that rail.
    pub fn is_on(&self, rail: &RailName) -> bool {
        match rail.ledger_key() {
            Some(key) => self
                .0
                .starts_with(&format!("steading:{}:", ledger_reference(&key))),
            None => rail
                .as_str()
                .strip_prefix("evm:")
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(chain, _)| self.0.starts_with(&format!("eip155:{chain}:"))),
        }
    }

    /// Shortened in the middle, for a table: `steading:3f1c…:9ab0…c1`.
    pub fn short(&self) -> String {
        let mut parts = self.0.splitn(3, ':');
        let (namespace, reference, address) = (
            parts.next().unwrap_or(""),
            parts.next().unwrap_or(""),
            parts.next().unwrap_or(""),
        );
        let head = |text: &str| text.chars().take(4).collect::<String>();
        let tail = &address[address.len().saturating_sub(2)..];
        format!("{namespace}:{}…:{}…{tail}", head(reference), head(address))
    }
}

impl FromStr for Account {
    type Err = AccountError;

    /// CAIP-10: `[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}:[-.%a-zA-Z0-9]{1,128}`, and for `steading` the check digits.
    fn from_str(text: &str) -> Result<Self, AccountError> {
        let refuse = || AccountError::Shape(text.chars().take(40).collect());
        let mut parts = text.splitn(3, ':');
        let (Some(namespace), Some(reference), Some(address)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        let shaped = is_made_of(namespace, 3, 8, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
        }) && is_made_of(reference, 1, 32, |byte| {
            byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
        }) && is_made_of(address, 1, 128, |byte| {
            byte.is_ascii_alphanumeric() || b"-.%".contains(&byte)
        });
        if !shaped {
            return Err(refuse());
        }
        if namespace == "steading" {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if !is_made_of(reference, 32, 32, is_hex) || !is_made_of(address, 72, 72, is_hex) {
                return Err(refuse());
            }
            let key = address.get(..64).and_then(hex_32).ok_or_else(refuse)?;
            if address[64..] != check_digits(reference, &key) {
                return Err(AccountError::CheckDigits);
            }
        }
        Ok(Account(text.to_owned()))
    }
}

/// The first 32 hex digits of the SHA-256 of the ledger's key.
fn ledger_reference(ledger_key: &[u8; 32]) -> String {
    lower_hex(&Sha256::digest(ledger_key)[..16])
}

/// The first 8 hex digits of SHA-256("steading/account/1\0" ‖ reference ‖ "\0" ‖ the 32 bytes of the key).
fn check_digits(reference: &str, key: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"steading/account/1\0");
    hash.update(reference.as_bytes());
    hash.update(b"\0");
    hash.update(key);
    lower_hex(&hash.finalize()[..4])
}

fn is_made_of(text: &str, least: usize, most: usize, good: impl Fn(u8) -> bool) -> bool {
    (least..=most).contains(&text.len()) && text.bytes().all(good)
}

/// Lower-case hex of any bytes.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// 32 bytes from exactly 64 lower-case hex digits.
pub(crate) fn hex_32(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: [u8; 32] = [7; 32];

    #[test]
    fn an_account_reads_back() {
        let account = Account::on_ledger(&LEDGER, &[9; 32]);
        assert_eq!(account.as_str().parse::<Account>().unwrap(), account);
        assert_eq!(account.ledger_account_key(), Some([9; 32]));
        assert!(account.is_on(&RailName::ledger(&LEDGER)));
        assert!(!account.is_on(&RailName::ledger(&[8; 32])));
    }

    #[test]
    fn any_one_digit_changed_is_refused() {
        let text = Account::on_ledger(&LEDGER, &[9; 32]).to_string();
        for at in "steading:".len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == b':' {
                continue;
            }
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            assert!(
                String::from_utf8(bytes).unwrap().parse::<Account>().is_err(),
                "digit {at}"
            );
        }
    }

    #[test]
    fn other_namespaces_fit_and_nonsense_does_not() {
        assert!(
            "eip155:31337:0xab16a96D359eC26a11e2C2b3d8f8B8942d5Bfcdb"
                .parse::<Account>()
                .is_ok()
        );
        for text in [
            "",
            "steading",
            "steading:aa:bb",
            "a:b:c",
            "eip155::0x0",
            "eip155:1:",
            "EIP155:1:0x0",
            "eip155:1:a b",
        ] {
            assert!(text.parse::<Account>().is_err(), "{text}");
        }
        assert!("ledger:00".parse::<RailName>().is_err());
        assert!(
            "evm:1:0xab16a96D359eC26a11e2C2b3d8f8B8942d5Bfcdb"
                .parse::<RailName>()
                .is_ok()
        );
    }
}
