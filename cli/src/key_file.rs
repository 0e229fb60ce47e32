//! A file of public SSH keys, as people have them: read to the last line, or refused with the reason, before any money
//! moves. sshd passes over a line that it cannot use without a word, and its user would stand before a closed door.
//!
//! ```text
//!  bytes ─► UTF-8, BOM, UTF-16, CRLF, no last newline ─► lines ─► [options] type base64 [comment]
//!                                                                     │       └─ the blob says the same type
//!                                                                     └─ what `ssh -Q key` lists, or why not
//! ```

/// The shortest RSA modulus that OpenSSH takes (`RequiredRSASize`).
const LEAST_RSA_BITS: usize = 1024;
/// Types that the sshd of a space takes; sshd_config(5), `PubkeyAcceptedAlgorithms`.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];
/// Options of a line; sshd(8), "AUTHORIZED_KEYS FILE FORMAT". One that it does not know makes sshd ignore the line.
const OPTIONS: [&str; 24] = [
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "expiry-time",
    "from",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-x11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "touch-required",
    "tunnel",
    "user-rc",
    "verify-required",
    "no-verify-required",
    "x11-forwarding",
];

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyFileError {
    /// It is not text.
    #[error("it is no text: neither UTF-8 nor UTF-16")]
    NoText,
    /// It holds a private key.
    #[error("it holds a private key")]
    Private,
    /// No line of it is a key.
    #[error("it is empty")]
    Empty,
    /// A line is no key that a space takes.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        why: String,
    },
}

/// The keys in the bytes of a file, each as a line for `authorized_keys`.
pub fn read(bytes: &[u8]) -> Result<Vec<String>, KeyFileError> {
    let text = text(bytes)?;
    if text.contains("PRIVATE KEY") {
        return Err(KeyFileError::Private);
    }
    let mut keys = Vec::new();
    // A file of an old Macintosh ends its lines with CR alone.
    for (index, line) in text.replace("\r\n", "\n").split(['\n', '\r']).enumerate() {
        let line = line.replace('\t', " ");
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        check(line).map_err(|why| KeyFileError::Line { line: index + 1, why })?;
        keys.push(line.to_owned());
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty);
    }
    Ok(keys)
}

fn text(bytes: &[u8]) -> Result<String, KeyFileError> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten();
        text.ok_or(KeyFileError::NoText)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(|_| KeyFileError::NoText),
        // Every key begins with ASCII: a zero beside it is UTF-16 without its mark.
        [_, 0, ..] => wide(bytes, u16::from_le_bytes),
        [0, _, ..] => wide(bytes, u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).map_err(|_| KeyFileError::NoText),
    }
}

/// Whether sshd takes the line.
fn check(line: &str) -> Result<(), String> {
    let first = word(line);
    let is_type =
        |word: &str| word.starts_with("ssh-") || word.starts_with("sk-") || word.starts_with("ecdsa-");
    let rest = if is_type(first) {
        line
    } else {
        options(first)?;
        line.get(first.len()..).unwrap_or("").trim_start()
    };
    let mut words = rest.split_whitespace();
    let (kind, blob) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if kind.contains("-cert-v01@") {
        return Err(format!(
            "{kind} is a certificate, which names a key and cannot log in by itself; give the key, or the authority's \
             key with `cert-authority` before it"
        ));
    }
    if kind == "ssh-dss" {
        return Err(
            "ssh-dss is not supported by OpenSSH any more; make another key by ssh-keygen -t ed25519".into(),
        );
    }
    if !TYPES.contains(&kind) {
        return Err(match kind {
            "" => "no key follows the options".into(),
            other => format!("{other:?} is no type of key that OpenSSH knows"),
        });
    }
    let broken = || "the key is cut off or damaged".to_owned();
    let bytes = data_encoding::BASE64
        .decode(blob.as_bytes())
        .map_err(|_| broken())?;
    let mut fields = Fields(&bytes);
    if fields.next() != Some(kind.as_bytes()) {
        return Err(broken());
    }
    let parts: Vec<&[u8]> = fields.by_ref().collect();
    if !fields.0.is_empty() || parts.len() != count(kind) || parts.iter().any(|part| part.is_empty()) {
        return Err(broken());
    }
    match (kind, parts.as_slice()) {
        ("ssh-rsa", [_, modulus]) => {
            let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
            let top = modulus.get(zeros).map_or(8, |byte| byte.leading_zeros() as usize);
            let bits = (modulus.len() - zeros) * 8 - top.min((modulus.len() - zeros) * 8);
            if bits < LEAST_RSA_BITS {
                return Err(format!(
                    "an RSA key of {bits} bits; OpenSSH takes {LEAST_RSA_BITS} and more"
                ));
            }
        }
        ("ssh-ed25519" | "sk-ssh-ed25519@openssh.com", [key, ..]) if key.len() != 32 => return Err(broken()),
        _ => {}
    }
    Ok(())
}

/// Fields after the type, in the blob of each (RFC 4253, 5656, 8709; PROTOCOL.u2f).
fn count(kind: &str) -> usize {
    match kind {
        "ssh-ed25519" => 1,
        "sk-ecdsa-sha2-nistp256@openssh.com" => 3,
        // RSA: exponent and modulus. ECDSA: curve and point. Security keys: key and application.
        _ => 2,
    }
}

/// The first word of a line; spaces between quotation marks belong to it.
fn word(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        if *c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = *c == '\\' && !escaped;
        c.is_whitespace() && !quoted
    });
    end.map_or(line, |(end, _)| line.get(..end).unwrap_or(line))
}

/// Whether all options are known.
fn options(word: &str) -> Result<(), String> {
    let mut quoted = false;
    let options = word.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    for option in options {
        let name = option.split('=').next().unwrap_or("");
        if !OPTIONS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "{name:?} is neither a type of key nor an option that sshd knows"
            ));
        }
    }
    Ok(())
}

/// Strings with their lengths before them (RFC 4251, section 5).
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests;
