//! What time it is: from a time server (SNTP, RFC 4330) or from the rail's signed time.
//!
//! Invariant: the machine's own clock is not believed. A battery that died says 1970, a
//! farmer's typing says 2069: until somebody has answered, the node sells nothing. The
//! system clock is set when it is off by more than [`TOLERANCE`], so that certificates,
//! logs and time of day are right; deadlines about money use the rail's time all the same.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// The clock may be wrong by so much without being set.
pub const TOLERANCE: Duration = Duration::from_millis(500);
/// How long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;
const PORT: u16 = 123;
const PACKET: usize = 48;

/// Why there is no time.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The server could not be reached or did not answer in time.
    #[error("no answer from the time server {server}")]
    Silent {
        /// Which.
        server: IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came back is no answer to the question, or the server says that it does not know.
    #[error("the time server {server} does not know the time")]
    Useless {
        /// Which.
        server: IpAddr,
    },
    /// The kernel did not take it.
    #[error("setting the clock")]
    Set(#[source] io::Error),
    /// The kernel has no random bytes.
    #[error("the kernel has no random numbers")]
    Random,
}

/// Asks one time server; the answer is milliseconds since 1970.
///
/// # Errors
/// When it is silent or useless.
pub async fn ask(server: IpAddr) -> Result<u64, ClockError> {
    let silent = |source| ClockError::Silent { server, source };
    let any: SocketAddr = match server {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(silent)?;
    socket.connect((server, PORT)).await.map_err(silent)?;
    // Our transmit time is a random number: only who saw the question can answer it.
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|_| ClockError::Random)?;
    let began = boot_time();
    socket.send(&question(nonce)).await.map_err(silent)?;
    let mut answer = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut answer))
        .await
        .map_err(|_| silent(io::ErrorKind::TimedOut.into()))?
        .map_err(silent)?;
    let half = boot_time().saturating_sub(began) / 2;
    let heard = answer.get(..length).unwrap_or_default();
    let sent = read_answer(heard, nonce).ok_or(ClockError::Useless { server })?;
    Ok(sent + half.as_millis() as u64)
}

/// Version 4, mode 3 (client).
fn question(nonce: [u8; 8]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0b00_100_011;
    packet[40..].copy_from_slice(&nonce);
    packet
}

/// The server's transmit time, if the packet answers our question.
fn read_answer(packet: &[u8], nonce: [u8; 8]) -> Option<u64> {
    let first = *packet.first()?;
    let (leap, mode) = (first >> 6, first & 7);
    let stratum = *packet.get(1)?;
    let ours = packet.get(24..32)? == nonce;
    // Leap 3 and stratum 0 or 16 mean: I do not know myself.
    if mode != 4 || leap == 3 || !(1..16).contains(&stratum) || !ours {
        return None;
    }
    let seconds = u32::from_be_bytes(packet.get(40..44)?.try_into().ok()?);
    let fraction = u32::from_be_bytes(packet.get(44..48)?.try_into().ok()?);
    if seconds == 0 {
        return None;
    }
    // A count below 1970 is of the era that begins in 2036.
    let era = if u64::from(seconds) < NTP_TO_UNIX {
        1_u64 << 32
    } else {
        0
    };
    let unix = u64::from(seconds) + era - NTP_TO_UNIX;
    Some(unix * 1000 + ((u64::from(fraction) * 1000) >> 32))
}

/// Sets the system clock where it is off; says by how much it was.
///
/// # Errors
/// When the kernel refuses.
pub fn set(unix_ms: u64) -> Result<Duration, ClockError> {
    let wanted = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let now = SystemTime::now();
    let off = wanted
        .duration_since(now)
        .unwrap_or_else(|error| error.duration());
    if off > TOLERANCE {
        let time = TimeSpec::from_duration(Duration::from_millis(unix_ms));
        clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|error| ClockError::Set(error.into()))?;
    }
    Ok(off)
}

fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into)
}

/// Asks the servers in turn, for ever, until one answers; says which one, and the time.
///
/// `servers` is asked anew each round: the network may have named others meanwhile.
pub async fn find<F: Future<Output = Vec<IpAddr>>>(servers: impl Fn() -> F) -> (IpAddr, u64) {
    let mut pause = Duration::from_secs(1);
    loop {
        for server in servers().await {
            match ask(server).await {
                Ok(time) => return (server, time),
                Err(error) => tracing::debug!(%error, "no time yet"),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(16));
    }
}

/// The answer to the question whose nonce is `nonce`, for its fuzz target.
#[cfg(fuzzing)]
pub fn fuzz_answer(packet: &[u8]) -> Option<u64> {
    read_answer(packet, *b"nonce---")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(nonce: [u8; 8], seconds: u32) -> Vec<u8> {
        let mut packet = vec![0; PACKET];
        packet[0] = 0b00_100_100;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&nonce);
        packet[40..44].copy_from_slice(&seconds.to_be_bytes());
        packet[44] = 0x80;
        packet
    }

    #[test]
    fn an_answer_is_milliseconds_since_1970_in_either_era() {
        let nonce = *b"question";
        let of_2026 = 1_790_000_000_u64;
        let good = answer(nonce, (of_2026 + NTP_TO_UNIX) as u32);
        assert_eq!(read_answer(&good, nonce), Some(of_2026 * 1000 + 500));
        // 2040 is in the second era: the count began again in February 2036.
        let of_2040 = 2_208_988_800_u64;
        let wrapped = answer(nonce, (of_2040 + NTP_TO_UNIX - (1 << 32)) as u32);
        assert_eq!(read_answer(&wrapped, nonce), Some(of_2040 * 1000 + 500));
    }

    #[test]
    fn an_answer_to_nobody_or_from_a_fool_is_none() {
        let nonce = *b"question";
        let good = answer(nonce, 3_990_000_000);
        assert!(read_answer(&good, nonce).is_some());
        assert_eq!(read_answer(&good, *b"anotherq"), None, "a replay");
        for (at, value) in [(0, 0b11_100_100), (0, 0b00_100_011), (1, 0), (1, 16)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read_answer(&bad, nonce), None, "byte {at} = {value}");
        }
        assert_eq!(read_answer(&good[..47], nonce), None);
        assert_eq!(read_answer(&answer(nonce, 0), nonce), None);
    }
}
