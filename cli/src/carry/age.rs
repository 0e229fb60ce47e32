//! age, version 1, for one X25519 recipient (<https://c2sp.org/age>): what `age -d -i key` opens.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 <ephemeral share>
//! <file key, sealed for the recipient>
//! --- <HMAC of all above>
//! <16 random bytes> <64 KiB, sealed> … <the last, sealed as the last>
//! ```
//! The crate `age` brings 180 others, two more sets of the same ciphers and a translation engine; this is the half of the
//! format that an export needs, over the ciphers that the sealed unlock key uses. `tests` opens what stock age wrote, and
//! hands stock age what this wrote.
//!
//! Invariant: what is opened is authentic, chunk by chunk, and a stream that was cut off is an error.

use std::io::{ErrorKind, Read, Write};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use data_encoding::BASE64_NOPAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

const VERSION: &str = "age-encryption.org/v1\n";
const STANZA: &str = "-> X25519 ";
const MAC_LINE: &str = "---";
/// Base64 of 32 bytes without padding.
const BASE64_LEN: usize = 43;
const HEADER_LEN: usize =
    VERSION.len() + STANZA.len() + BASE64_LEN + 1 + BASE64_LEN + 1 + MAC_LINE.len() + 1 + BASE64_LEN + 1;
const WRAP_LABEL: &[u8] = b"age-encryption.org/v1/X25519";
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// Why bytes are not a file of this identity's.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    /// The disk.
    #[error("it cannot be read or written")]
    Io(#[from] std::io::Error),
    /// Another format, or another recipient's kind.
    #[error("it does not begin as an age file of one X25519 recipient")]
    Header,
    /// Another identity's, or changed.
    #[error("it was encrypted for another key, or its header was changed")]
    NotOurs,
    /// A chunk does not authenticate, or the end is missing.
    #[error("its contents were changed, or cut off")]
    Damaged,
}

/// Opens what was sealed for its recipient. Wiped when dropped, never shown by `Debug`.
pub struct Identity(StaticSecret);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(secret)")
    }
}

impl Identity {
    /// From 32 secret bytes.
    pub fn new(bytes: &Zeroizing<[u8; 32]>) -> Identity {
        Identity(StaticSecret::from(**bytes))
    }

    /// As `age -i` reads it.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = bech32("age-secret-key-", self.0.as_bytes());
        line.make_ascii_uppercase();
        line
    }

    fn recipient(&self) -> PublicKey {
        PublicKey::from(&self.0)
    }
}

/// The random bytes of one file; each set is used once.
#[derive(Zeroize)]
#[zeroize(drop)]
pub struct Fresh {
    file_key: [u8; 16],
    ephemeral: [u8; 32],
    nonce: [u8; 16],
}

impl Fresh {
    /// From the kernel.
    pub fn from_kernel() -> anyhow::Result<Fresh> {
        Ok(Fresh {
            file_key: crate::client::random()?,
            ephemeral: crate::client::random()?,
            nonce: crate::client::random()?,
        })
    }

    /// Known ones, so that a test has the same bytes each time.
    #[cfg(test)]
    fn known(byte: u8) -> Fresh {
        Fresh {
            file_key: [byte; 16],
            ephemeral: [byte; 32],
            nonce: [byte; 16],
        }
    }
}

/// Encrypts a stream.
pub struct Sealer<W> {
    out: W,
    chunks: Chunks,
    plain: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header.
    pub fn new(mut out: W, identity: &Identity, fresh: &Fresh) -> Result<Sealer<W>, AgeError> {
        let recipient = identity.recipient();
        let ephemeral = StaticSecret::from(fresh.ephemeral);
        let share = PublicKey::from(&ephemeral);
        let wrap = wrap_cipher(&ephemeral.diffie_hellman(&recipient), &share, &recipient)?;
        let mut body = [0u8; 16 + TAG];
        let (key, tag) = body.split_at_mut(16);
        key.copy_from_slice(&fresh.file_key);
        let made = wrap
            .encrypt_inout_detached(&Nonce::default(), b"", key.into())
            .map_err(|_| AgeError::Header)?;
        tag.copy_from_slice(&made);
        let mut header = format!(
            "{VERSION}{STANZA}{}\n{}\n{MAC_LINE}",
            BASE64_NOPAD.encode(share.as_bytes()),
            BASE64_NOPAD.encode(&body)
        );
        let mac = header_mac(&fresh.file_key, header.as_bytes())?
            .finalize()
            .into_bytes();
        header.push_str(&format!(" {}\n", BASE64_NOPAD.encode(&mac)));
        out.write_all(header.as_bytes())?;
        out.write_all(&fresh.nonce)?;
        Ok(Sealer {
            out,
            chunks: Chunks::new(&fresh.file_key, &fresh.nonce)?,
            plain: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)),
        })
    }

    /// Takes more of the stream.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), AgeError> {
        while !bytes.is_empty() {
            if self.plain.len() == CHUNK {
                self.put(false)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Seals the last chunk.
    pub fn finish(mut self) -> Result<W, AgeError> {
        self.put(true)?;
        Ok(self.out)
    }

    fn put(&mut self, is_last: bool) -> Result<(), AgeError> {
        let nonce = self.chunks.next(is_last)?;
        let sealed = self
            .chunks
            .cipher
            .encrypt_inout_detached(&nonce, b"", self.plain.as_mut_slice().into());
        self.out.write_all(&self.plain)?;
        self.out.write_all(&sealed.map_err(|_| AgeError::Damaged)?)?;
        self.plain.clear();
        Ok(())
    }
}

/// Decrypts a stream, a chunk at a time.
pub struct Opener<R> {
    from: R,
    chunks: Chunks,
    /// A chunk, and the first byte of the next, so that the last is known as such.
    sealed: Zeroizing<Vec<u8>>,
    is_over: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header.
    pub fn new(mut from: R, identity: &Identity) -> Result<Opener<R>, AgeError> {
        let mut header = [0u8; HEADER_LEN];
        read_whole(&mut from, &mut header)?.ok_or(AgeError::Header)?;
        let text = std::str::from_utf8(&header).map_err(|_| AgeError::Header)?;
        let rest = text
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix(STANZA));
        let mut lines = rest.ok_or(AgeError::Header)?.split('\n');
        let mut line = || lines.next().ok_or(AgeError::Header);
        let (share, body) = (decoded(line()?)?, decoded(line()?)?);
        let mac = line()?.strip_prefix("--- ").ok_or(AgeError::Header)?;
        let share = PublicKey::from(share);
        let shared = identity.0.diffie_hellman(&share);
        // A share of low order would make a key that everybody knows.
        if !shared.was_contributory() {
            return Err(AgeError::NotOurs);
        }
        let wrap = wrap_cipher(&shared, &share, &identity.recipient())?;
        let mut file_key = Zeroizing::new([0u8; 16]);
        let (key, tag) = body.split_at(16);
        file_key.copy_from_slice(key);
        let tag = Tag::try_from(tag).map_err(|_| AgeError::Header)?;
        wrap.decrypt_inout_detached(&Nonce::default(), b"", file_key.as_mut_slice().into(), &tag)
            .map_err(|_| AgeError::NotOurs)?;
        let signed = &header[..HEADER_LEN - BASE64_LEN - 2];
        header_mac(&file_key, signed)?
            .verify_slice(&decoded(mac)?)
            .map_err(|_| AgeError::NotOurs)?;
        let mut nonce = [0u8; 16];
        read_whole(&mut from, &mut nonce)?.ok_or(AgeError::Damaged)?;
        Ok(Opener {
            from,
            chunks: Chunks::new(&file_key, &nonce)?,
            sealed: Zeroizing::new(Vec::with_capacity(CHUNK + TAG + 1)),
            is_over: false,
        })
    }

    /// The next piece of the stream, none after its end.
    pub fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, AgeError> {
        const WHOLE: usize = CHUNK + TAG;
        if self.is_over {
            return Ok(None);
        }
        let wanted = WHOLE + 1 - self.sealed.len();
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        self.from.by_ref().take(wanted).read_to_end(&mut self.sealed)?;
        let ahead = (self.sealed.len() > WHOLE).then(|| self.sealed.pop()).flatten();
        self.is_over = ahead.is_none();
        let at = self.sealed.len().checked_sub(TAG).ok_or(AgeError::Damaged)?;
        let tag = Tag::try_from(&self.sealed[at..]).map_err(|_| AgeError::Damaged)?;
        let mut plain = std::mem::replace(&mut self.sealed, Zeroizing::new(Vec::with_capacity(WHOLE + 1)));
        self.sealed.extend(ahead);
        plain.truncate(at);
        // Only a whole stream that is empty ends in an empty chunk.
        if plain.is_empty() && self.chunks.count > 0 {
            return Err(AgeError::Damaged);
        }
        let nonce = self.chunks.next(self.is_over)?;
        self.chunks
            .cipher
            .decrypt_inout_detached(&nonce, b"", plain.as_mut_slice().into(), &tag)
            .map_err(|_| AgeError::Damaged)?;
        Ok(Some(plain))
    }
}

/// The cipher of the payload, and how many chunks it has done.
struct Chunks {
    cipher: ChaCha20Poly1305,
    count: u64,
}

impl Chunks {
    fn new(file_key: &[u8; 16], nonce: &[u8; 16]) -> Result<Chunks, AgeError> {
        Ok(Chunks {
            cipher: cipher(file_key, nonce, b"payload")?,
            count: 0,
        })
    }

    /// Eleven bytes that count, and one that says whether it is the last.
    fn next(&mut self, is_last: bool) -> Result<Nonce, AgeError> {
        let mut nonce = [0u8; 12];
        nonce[3..11].copy_from_slice(&self.count.to_be_bytes());
        nonce[11] = u8::from(is_last);
        self.count = self.count.checked_add(1).ok_or(AgeError::Damaged)?;
        Ok(Nonce::from(nonce))
    }
}

fn derive(secret: &[u8], salt: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let mut key = Zeroizing::new([0u8; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(label, key.as_mut_slice())
        .map_err(|_| AgeError::Header)?;
    Ok(key)
}

fn cipher(secret: &[u8], salt: &[u8], label: &[u8]) -> Result<ChaCha20Poly1305, AgeError> {
    let key = derive(secret, salt, label)?;
    ChaCha20Poly1305::new_from_slice(key.as_slice()).map_err(|_| AgeError::Header)
}

fn wrap_cipher(
    shared: &x25519_dalek::SharedSecret,
    share: &PublicKey,
    recipient: &PublicKey,
) -> Result<ChaCha20Poly1305, AgeError> {
    let salt = [share.as_bytes().as_slice(), recipient.as_bytes()].concat();
    cipher(shared.as_bytes(), &salt, WRAP_LABEL)
}

fn header_mac(file_key: &[u8; 16], header: &[u8]) -> Result<Hmac<Sha256>, AgeError> {
    let key = derive(file_key, b"", b"header")?;
    let mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).map_err(|_| AgeError::Header)?;
    Ok(mac.chain_update(header))
}

fn decoded(line: &str) -> Result<[u8; 32], AgeError> {
    let bytes = BASE64_NOPAD
        .decode(line.as_bytes())
        .map_err(|_| AgeError::Header)?;
    bytes.try_into().map_err(|_| AgeError::Header)
}

/// Nothing where the stream ended before.
fn read_whole(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<Option<()>> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// BIP 173, which age's keys are written in.
fn bech32(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let mut fives = Zeroizing::new(Vec::with_capacity(bytes.len() * 2));
    let (mut held, mut bits) = (0u32, 0u32);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            fives.push((held >> bits & 31) as u8);
        }
    }
    if bits > 0 {
        fives.push((held << (5 - bits) & 31) as u8);
    }
    let high = prefix.bytes().map(|letter| letter >> 5);
    let low = prefix.bytes().map(|letter| letter & 31);
    let sum = high
        .chain([0])
        .chain(low)
        .chain(fives.iter().copied())
        .chain([0; 6])
        .fold(1u32, polymod)
        ^ 1;
    let check = (0..6).map(|at| (sum >> (5 * (5 - at)) & 31) as u8);
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 80));
    text.push_str(prefix);
    text.push('1');
    for five in fives.iter().copied().chain(check) {
        text.push(char::from(LETTERS[usize::from(five & 31)]));
    }
    text
}

fn polymod(sum: u32, five: u8) -> u32 {
    const MODULI: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let sum = (sum & 0x1ff_ffff) << 5 ^ u32::from(five);
    let chosen = (0..5).filter(|bit| top >> bit & 1 == 1);
    chosen.fold(sum, |sum, bit| sum ^ MODULI[bit])
}

#[cfg(test)]
mod tests;
