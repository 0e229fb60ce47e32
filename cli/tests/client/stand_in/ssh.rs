//! An SSH server small enough to read, for a node that lies: OpenSSH's own client logs in to it through the tunnel,
//! checks the host key for itself, and runs the proof's script, which is answered by whatever the node wants believed.
//!
//! ```text
//! version ─► KEXINIT ─► curve25519-sha256, signed by an ed25519 host key ─► aes128-gcm ─► "none" lets anybody in
//!            ─► session ─► exec ─► stdin to its end ─► facts, the script's nonce, exit status 0
//! ```
//! RFC 4253, 4252, 4254, 8731; RFC 5647 as OpenSSH does it. Whatever else comes is passed over.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce, Tag};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: &str = "SSH-2.0-stand-in";

/// What a login finds.
#[derive(Clone)]
pub struct Inside {
    /// Its private half.
    pub host_key: SigningKey,
    /// What the proof's script is told.
    pub facts: String,
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A positive integer as SSH writes it: no leading zeros but one before a high bit.
fn mpint(out: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut short = bytes[zeros..].to_vec();
    if short.first().is_some_and(|byte| byte & 0x80 != 0) {
        short.insert(0, 0);
    }
    string(out, &short);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn string(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        self.take(length)
    }
}

/// One direction's keys: AES-128-GCM with a counter in the nonce's last 8 bytes.
struct Sealing {
    cipher: Aes128Gcm,
    nonce: [u8; 12],
}

impl Sealing {
    fn new(key: &[u8], iv: &[u8]) -> Sealing {
        Sealing {
            cipher: Aes128Gcm::new_from_slice(&key[..16]).unwrap(),
            nonce: iv[..12].try_into().unwrap(),
        }
    }

    fn next(&mut self) -> Nonce<aes_gcm::aead::consts::U12> {
        let now = Nonce::clone_from_slice(&self.nonce);
        let counter = u64::from_be_bytes(self.nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&counter.to_be_bytes());
        now
    }
}

struct Wire<S> {
    stream: S,
    from: Option<Sealing>,
    to: Option<Sealing>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        // Plain packets count the length field in their alignment, sealed ones do not.
        let (block, counted) = if self.to.is_some() { (16, 1) } else { (8, 5) };
        let padding = match block - (payload.len() + counted) % block {
            short if short < 4 => short + block,
            enough => enough,
        };
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend_from_slice(payload);
        body.resize(1 + payload.len() + padding, 0);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut packet = length.to_vec();
        if let Some(to) = &mut self.to {
            let nonce = to.next();
            let tag = to
                .cipher
                .encrypt_in_place_detached(&nonce, &length, &mut body)
                .unwrap();
            body.extend_from_slice(&tag);
        }
        packet.extend_from_slice(&body);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await
    }

    async fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let count = u32::from_be_bytes(length) as usize;
        assert!(count <= 35_000, "a packet of {count} bytes");
        let mut body = vec![0; count];
        self.stream.read_exact(&mut body).await?;
        if let Some(from) = &mut self.from {
            let mut tag = Tag::default();
            self.stream.read_exact(&mut tag).await?;
            let nonce = from.next();
            from.cipher
                .decrypt_in_place_detached(&nonce, &length, &mut body, &tag)
                .unwrap();
        }
        let padding = usize::from(body[0]);
        Ok(body[1..body.len() - padding].to_vec())
    }

    async fn version(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(format!("{VERSION}\r\n").as_bytes()).await?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(self.stream.read_u8().await?);
        }
        Ok(line.trim_ascii_end().to_vec())
    }

    async fn exchange_keys(&mut self, key: &SigningKey) -> std::io::Result<()> {
        let theirs = self.version().await?;
        let mut own_init = vec![20];
        own_init.extend_from_slice(&[0x5a; 16]);
        let (cipher, mac, none) = ("aes128-gcm@openssh.com", "hmac-sha2-256", "none");
        for names in [
            "curve25519-sha256",
            "ssh-ed25519",
            cipher,
            cipher,
            mac,
            mac,
            none,
            none,
            "",
            "",
        ] {
            string(&mut own_init, names.as_bytes());
        }
        own_init.extend_from_slice(&[0; 5]);
        self.send(&own_init).await?;
        let their_init = self.receive().await?;
        let question = self.receive().await?;
        assert_eq!((their_init[0], question[0]), (20, 30));
        let their_point = Reader(&question[1..]).string();
        let secret = grid::fresh_secret().unwrap();
        let own_point = x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES);
        let shared = x25519_dalek::x25519(secret, their_point.try_into().unwrap());

        let mut host_key = Vec::new();
        string(&mut host_key, b"ssh-ed25519");
        string(&mut host_key, key.verifying_key().as_bytes());
        let mut hashed = Vec::new();
        for part in [
            &theirs[..],
            VERSION.as_bytes(),
            &their_init,
            &own_init,
            &host_key,
            their_point,
            &own_point,
        ] {
            string(&mut hashed, part);
        }
        mpint(&mut hashed, &shared);
        let hash = Sha256::digest(&hashed);
        let mut signature = Vec::new();
        string(&mut signature, b"ssh-ed25519");
        string(&mut signature, &key.sign(&hash).to_bytes());
        let mut answer = vec![31];
        string(&mut answer, &host_key);
        string(&mut answer, &own_point);
        string(&mut answer, &signature);
        self.send(&answer).await?;
        self.send(&[21]).await?;

        let derive = |letter: u8| {
            let mut input = Vec::new();
            mpint(&mut input, &shared);
            input.extend_from_slice(&hash);
            input.push(letter);
            input.extend_from_slice(&hash);
            Sha256::digest(&input)
        };
        self.to = Some(Sealing::new(&derive(b'D'), &derive(b'B')));
        let new_keys = self.receive().await?;
        assert_eq!(new_keys, [21]);
        self.from = Some(Sealing::new(&derive(b'C'), &derive(b'A')));
        Ok(())
    }
}

/// Serves one login until the other end leaves.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, inside: Inside) -> std::io::Result<()> {
    let (from, to) = (None, None);
    let mut wire = Wire { stream, from, to };
    wire.exchange_keys(&inside.host_key).await?;
    let (mut channel, mut script) = (0u32, Vec::new());
    loop {
        let packet = wire.receive().await?;
        let mut reader = Reader(&packet[1..]);
        match packet[0] {
            1 => return Ok(()),
            5 => {
                let mut accept = vec![6];
                string(&mut accept, reader.string());
                wire.send(&accept).await?;
            }
            50 => wire.send(&[52]).await?,
            90 => {
                reader.string();
                channel = reader.number();
                let mut open = vec![91];
                for number in [channel, 0, 1 << 20, 32_768] {
                    open.extend_from_slice(&number.to_be_bytes());
                }
                wire.send(&open).await?;
            }
            98 => {
                reader.number();
                reader.string();
                if reader.take(1) == [1] {
                    wire.send(&[&[99], &channel.to_be_bytes()[..]].concat()).await?;
                }
            }
            94 => {
                reader.number();
                script.extend_from_slice(reader.string());
            }
            96 => say(&mut wire, channel, &inside.facts, &script).await?,
            _ => {} // global requests that want no answer, windows, the close of the channel
        }
    }
}

/// What the script would print: the facts, its own nonce, its last line.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    channel: u32,
    facts: &str,
    script: &[u8],
) -> std::io::Result<()> {
    let script = String::from_utf8_lossy(script);
    let nonce = script
        .split("printf %s '")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    let printed = format!("{facts}nonce {}\nend end\n", nonce.unwrap_or_default());
    let to = channel.to_be_bytes();
    let mut data = [&[94], &to[..]].concat();
    string(&mut data, printed.as_bytes());
    wire.send(&data).await?;
    let mut status = [&[98], &to[..]].concat();
    string(&mut status, b"exit-status");
    status.extend_from_slice(&[0; 5]);
    wire.send(&status).await?;
    wire.send(&[&[96], &to[..]].concat()).await?;
    wire.send(&[&[97], &to[..]].concat()).await
}
