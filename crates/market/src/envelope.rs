//! The signature around every message: COSE_Sign1 (RFC 9052), tagged, with everything in the protected header.
//!
//! ```text
//! 18([ << {1: -8, 3: "application/steading.KIND+cbor;v=N", 4: signer (32), -65537: grid (32)} >>, {}, payload, signature ])
//!       protected, as a byte string                                            unprotected: empty   bytes    64 bytes
//! signed: ["Signature1", protected, h'', payload]
//! ```
//!
//! Invariants: the bytes that were signed are kept and travel, nothing is encoded again to check; size is bounded
//! before anything is decoded; what verifies for one kind, version or grid is refused for any other.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::Encoder;

use crate::cbor::{self, CborError, Fields, MapWriter};
use crate::id::{Digest, GridId, OfferHash, RequestHash};
use crate::message::{self, Kind, Message, MessageError};

/// No message is larger.
pub const MOST_BYTES: usize = 64 << 10;

const ALGORITHM: i64 = 1;
const CONTENT_TYPE: i64 = 3;
const KEY_ID: i64 = 4;
const GRID: i64 = -65537;
const EDDSA: i64 = -8;
const TAG_SIGN1: u8 = 0xd2;
const ARRAY_OF_4: u8 = 0x84;
const EMPTY_MAP: u8 = 0xa0;

/// Why a message was not signed or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than its kind may be.
    #[error("{bytes} bytes, at most {most} are allowed")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// How many may be.
        most: usize,
    },
    /// Not a COSE_Sign1 as this protocol writes it.
    #[error("not a signed message: {0}")]
    Shape(&'static str),
    /// Not deterministic CBOR.
    #[error("not a signed message")]
    Encoding(#[from] CborError),
    /// Another kind of message.
    #[error("a \"{found}\" where a \"{expected}\" is expected")]
    Kind {
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A version that this program does not know.
    #[error("version {found} of \"{kind}\"; this program knows version {known}")]
    Version {
        /// Of which message.
        kind: &'static str,
        /// What it is.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// For another grid.
    #[error("for the grid {}, not for {}", found.short(), expected.short())]
    Grid {
        /// For which.
        found: GridId,
        /// For which it should be.
        expected: GridId,
    },
    /// The signature does not hold.
    #[error("the signature is wrong")]
    Signature,
    /// Well signed, but no valid message.
    #[error("signed, but not valid")]
    Message(#[from] MessageError),
}

/// A message with the exact bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<M> {
    /// The whole envelope, as it travels and is kept.
    pub bytes: Vec<u8>,
    /// What it says.
    pub message: M,
    /// Whose ed25519 key signed it.
    pub signer: [u8; 32],
    /// For which grid.
    pub grid: GridId,
}

impl<M> Signed<M> {
    /// SHA-256 over the whole signed message.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

impl Signed<message::CapacityRequest> {
    /// What offers name.
    pub fn request_hash(&self) -> RequestHash {
        RequestHash(self.hash().0)
    }
}

impl Signed<message::Offer> {
    /// What sales name.
    pub fn offer_hash(&self) -> OfferHash {
        OfferHash(self.hash().0)
    }
}

/// Signs a message; refuses one that breaks its own bounds.
pub fn sign<M: Message>(key: &SigningKey, grid: GridId, message: M) -> Result<Signed<M>, EnvelopeError> {
    let signer = key.verifying_key().to_bytes();
    message.check()?;
    message.check_signer(&signer, grid)?;
    let payload = message.to_payload();
    let protected = MapWriter::new()
        .int(ALGORITHM, EDDSA)
        .text(CONTENT_TYPE, &M::KIND.content_type())
        .bytes(KEY_ID, &signer)
        .bytes(GRID, grid.as_bytes())
        .finish();
    let signature = key.sign(&to_be_signed(&protected, &payload)).to_bytes();
    let mut bytes = vec![TAG_SIGN1, ARRAY_OF_4];
    push_string(&mut bytes, &protected);
    bytes.push(EMPTY_MAP);
    push_string(&mut bytes, &payload);
    push_string(&mut bytes, &signature);
    bound(bytes.len(), M::KIND.most_bytes())?;
    Ok(Signed {
        bytes,
        message,
        signer,
        grid,
    })
}

/// Opens a message: size, form, kind, version, grid (where one is given), signature, then the message's own rules.
pub fn open<M: Message>(bytes: &[u8], grid: Option<GridId>) -> Result<Signed<M>, EnvelopeError> {
    bound(bytes.len(), M::KIND.most_bytes())?;
    let parts = split(bytes)?;
    if parts.kind != M::KIND {
        return Err(EnvelopeError::Kind {
            found: parts.kind.name().to_owned(),
            expected: M::KIND.name(),
        });
    }
    if let Some(expected) = grid.filter(|grid| *grid != parts.grid) {
        return Err(EnvelopeError::Grid {
            found: parts.grid,
            expected,
        });
    }
    parts.verify()?;
    let message = M::from_payload(parts.payload)?;
    message.check()?;
    message.check_signer(&parts.signer, parts.grid)?;
    Ok(Signed {
        bytes: bytes.to_vec(),
        message,
        signer: parts.signer,
        grid: parts.grid,
    })
}

/// Which kind the bytes say they are, to choose what to open them as. Nothing is verified.
pub fn peek_kind(bytes: &[u8]) -> Result<Kind, EnvelopeError> {
    bound(bytes.len(), MOST_BYTES)?;
    Ok(split(bytes)?.kind)
}

/// What `steading verify` shows of any stored message, after everything in it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Which message.
    pub kind: Kind,
    /// Its version.
    pub version: u32,
    /// Who signed it.
    pub signer: [u8; 32],
    /// For which grid.
    pub grid: GridId,
    /// SHA-256 over the whole.
    pub hash: Digest,
}

/// Opens whatever kind it is, for any grid.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, EnvelopeError> {
    fn look<M: Message>(bytes: &[u8]) -> Result<Inspection, EnvelopeError> {
        let signed = open::<M>(bytes, None)?;
        let (kind, hash) = (M::KIND, signed.hash());
        Ok(Inspection {
            kind,
            version: kind.version(),
            signer: signed.signer,
            grid: signed.grid,
            hash,
        })
    }
    match peek_kind(bytes)? {
        Kind::Request => look::<message::CapacityRequest>(bytes),
        Kind::Offer => look::<message::Offer>(bytes),
        Kind::Decline => look::<message::Decline>(bytes),
        Kind::Agree => look::<message::Agree>(bytes),
        Kind::Sale => look::<message::Sale>(bytes),
        Kind::Funded => look::<message::Funded>(bytes),
        Kind::Grant => look::<message::KeyGrant>(bytes),
        Kind::SealedKey => look::<message::SealedKey>(bytes),
        Kind::StatusQuery => look::<message::StatusQuery>(bytes),
        Kind::Status => look::<message::Status>(bytes),
        Kind::Voucher => look::<message::VoucherMessage>(bytes),
        Kind::Cancel => look::<message::Cancel>(bytes),
        Kind::Amend => look::<message::Amend>(bytes),
        Kind::Amended => look::<message::Amended>(bytes),
        Kind::Delegate => look::<message::Delegate>(bytes),
        Kind::Command => look::<message::Command>(bytes),
        Kind::Answer => look::<message::Answer>(bytes),
        Kind::Receipt => look::<message::Receipt>(bytes),
        Kind::Refusal => look::<message::Refusal>(bytes),
        Kind::Recall => look::<message::Recall>(bytes),
        Kind::Recalled => look::<message::Recalled>(bytes),
        Kind::Resize => look::<message::Resize>(bytes),
        Kind::Quote => look::<message::Quote>(bytes),
        Kind::Restore => look::<message::Restore>(bytes),
    }
}

fn bound(bytes: usize, most: usize) -> Result<(), EnvelopeError> {
    if bytes > most {
        Err(EnvelopeError::TooLarge { bytes, most })
    } else {
        Ok(())
    }
}

/// An envelope taken apart; nothing is verified yet.
struct Parts<'b> {
    kind: Kind,
    signer: [u8; 32],
    grid: GridId,
    protected: &'b [u8],
    payload: &'b [u8],
    signature: [u8; 64],
}

impl Parts<'_> {
    fn verify(&self) -> Result<(), EnvelopeError> {
        let key = VerifyingKey::from_bytes(&self.signer).map_err(|_| EnvelopeError::Signature)?;
        let signature = Signature::from_bytes(&self.signature);
        let signed = to_be_signed(self.protected, self.payload);
        key.verify_strict(&signed, &signature)
            .map_err(|_| EnvelopeError::Signature)
    }
}

fn split(bytes: &[u8]) -> Result<Parts<'_>, EnvelopeError> {
    let shape = EnvelopeError::Shape;
    if bytes.get(..2) != Some(&[TAG_SIGN1, ARRAY_OF_4]) {
        return Err(shape("it does not begin like a COSE_Sign1"));
    }
    let (protected, at) = byte_string(bytes, 2)?;
    if bytes.get(at) != Some(&EMPTY_MAP) {
        return Err(shape("the unprotected header is not empty"));
    }
    let (payload, at) = byte_string(bytes, at + 1)?;
    let (signature, end) = byte_string(bytes, at)?;
    let signature = signature
        .try_into()
        .map_err(|_| shape("the signature has not 64 bytes"))?;
    if end != bytes.len() {
        return Err(shape("bytes follow after the end"));
    }
    let mut header = Fields::read(protected)?;
    if header.int(ALGORITHM)? != EDDSA {
        return Err(shape("the algorithm is not EdDSA"));
    }
    let kind = read_content_type(&header.text(CONTENT_TYPE, 80)?)?;
    let (signer, grid) = (header.array(KEY_ID)?, GridId(header.array(GRID)?));
    if !header.is_empty() {
        return Err(shape("the protected header holds more than it may"));
    }
    Ok(Parts {
        kind,
        signer,
        grid,
        protected,
        payload,
        signature,
    })
}

fn byte_string(bytes: &[u8], at: usize) -> Result<(&[u8], usize), EnvelopeError> {
    let head = cbor::head(bytes, at)?;
    if head.major != 2 {
        return Err(EnvelopeError::Shape("a byte string is expected"));
    }
    Ok(cbor::string(bytes, head.next, head.argument)?)
}

/// `application/steading.KIND+cbor;v=N`, exactly as it is written.
fn read_content_type(text: &str) -> Result<Kind, EnvelopeError> {
    let shape = || EnvelopeError::Shape("the content type is not one of steading's");
    let rest = text.strip_prefix("application/steading.").ok_or_else(shape)?;
    let (name, version) = rest.split_once("+cbor;v=").ok_or_else(shape)?;
    let kind = Kind::from_name(name).ok_or_else(shape)?;
    if text == kind.content_type() {
        return Ok(kind);
    }
    let found = version.parse().map_err(|_| shape())?;
    Err(EnvelopeError::Version {
        kind: kind.name(),
        found,
        known: kind.version(),
    })
}

/// The Sig_structure of RFC 9052 section 4.4, without external data.
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![ARRAY_OF_4];
    let _ = Encoder::new(&mut bytes).str("Signature1"); // a Vec never refuses a write
    push_string(&mut bytes, protected);
    push_string(&mut bytes, b"");
    push_string(&mut bytes, payload);
    bytes
}

fn push_string(bytes: &mut Vec<u8>, string: &[u8]) {
    let _ = Encoder::new(bytes).bytes(string); // a Vec never refuses a write
}
