//! The way from the node to the ledger, with a box on it that can be told to lie.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ed25519_dalek::SigningKey;
use ledger::wire::SIGNATURE_HEADER;
use ledger::{RailAddress, hex, signing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the box does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Hands it on.
    None,
    /// Another amount in it.
    Amounts,
    /// The last answer that it saw, whatever was asked.
    Replay,
    /// Signed with a key of its own, over this very request.
    OtherKey,
    /// HTTP status 500.
    Error,
    /// Nothing.
    Silence,
}

#[derive(Clone)]
pub struct Way {
    pub address: RailAddress,
    /// Where it leads.
    far: Arc<Mutex<String>>,
    /// When a give-back was asked for.
    pub give_backs: Arc<Mutex<Vec<Instant>>>,
    lie: Arc<Mutex<Lie>>,
    old: Arc<Mutex<Vec<u8>>>,
}

impl Way {
    /// A box in front of this ledger.
    pub async fn to(ledger: &RailAddress) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let way = Way {
            address: RailAddress::new(ledger.key(), &here).unwrap(),
            far: Arc::new(Mutex::new(ledger.authority().to_owned())),
            give_backs: Arc::default(),
            lie: Arc::new(Mutex::new(Lie::None)),
            old: Arc::default(),
        };
        let box_ = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let box_ = box_.clone();
                tokio::spawn(async move { box_.carry(client).await });
            }
        });
        way
    }

    pub fn lies(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    /// From now on to another ledger.
    pub fn leads_to(&self, ledger: &RailAddress) {
        *self.far.lock().unwrap() = ledger.authority().to_owned();
    }

    async fn carry(&self, mut client: TcpStream) -> Option<()> {
        loop {
            let request = read(&mut client).await?;
            let far = self.far.lock().unwrap().clone();
            if String::from_utf8_lossy(&request).contains(r#""kind":"give_back""#) {
                self.give_backs.lock().unwrap().push(Instant::now());
            }
            let mut upstream = TcpStream::connect(far).await.ok()?;
            upstream.write_all(&request).await.ok()?;
            let answer = read(&mut upstream).await?;
            let said = self.tamper(&request, answer)?;
            client.write_all(&said).await.ok()?;
        }
    }

    fn tamper(&self, request: &[u8], answer: Vec<u8>) -> Option<Vec<u8>> {
        let lie = *self.lie.lock().unwrap();
        match lie {
            Lie::None => {
                *self.old.lock().unwrap() = answer.clone();
                Some(answer)
            }
            Lie::Amounts => {
                let (head, body) = parts(&answer);
                let body = String::from_utf8(body)
                    .unwrap()
                    .replace("\"1200000\"", "\"9200000\"");
                Some([head, body.into_bytes()].concat())
            }
            Lie::Replay => Some(self.old.lock().unwrap().clone()),
            Lie::OtherKey => {
                let (_, asked) = parts(request);
                let (_, body) = parts(&answer);
                let key = SigningKey::from_bytes(&[99; 32]);
                let signature = signing::sign(&key, &signing::answer(&asked, &body));
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{SIGNATURE_HEADER}: {}\r\ncontent-length: {}\r\n\r\n",
                    hex::encode(&signature),
                    body.len()
                );
                Some([head.into_bytes(), body].concat())
            }
            Lie::Error => Some(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec()),
            Lie::Silence => None,
        }
    }
}

fn parts(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let at = message.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    (message[..at].to_vec(), message[at..].to_vec())
}

/// One message, whole by its content-length.
async fn read(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0u8; 4096];
        let count = from.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
        if bytes.len() >= head + 4 + length {
            return Some(bytes);
        }
    }
}
