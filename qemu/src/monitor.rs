//! Orders to a running QEMU: what a hand at the machine does. QMP, one line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::machine::CARD_ID;

/// QEMU answers at once, on however busy a host.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// From QEMU's start until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A machine's monitor.
#[derive(Debug)]
pub struct Monitor {
    orders: UnixStream,
    answers: BufReader<UnixStream>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The machine was started without one.
    #[error("the machine has no monitor")]
    None,
    /// The socket failed.
    #[error("speaking to QEMU's monitor")]
    Socket(#[from] std::io::Error),
    /// QEMU refused.
    #[error("QEMU refuses {order}: {answer}")]
    Refused {
        /// What was asked.
        order: String,
        /// Its words.
        answer: String,
    },
}

impl Monitor {
    pub(crate) fn open(socket: Option<&Path>) -> Result<Monitor, MonitorError> {
        let socket = socket.ok_or(MonitorError::None)?;
        let until = Instant::now() + LISTENS_WITHIN;
        let orders = loop {
            match UnixStream::connect(socket) {
                Ok(orders) => break orders,
                // QEMU has started and does not listen yet.
                Err(_) if Instant::now() < until => sleep(BETWEEN_TRIES),
                Err(error) => return Err(error.into()),
            }
        };
        orders.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let answers = BufReader::new(orders.try_clone()?);
        let mut monitor = Monitor { orders, answers };
        monitor.order(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    /// Pulls out the disk at `index` of the machine's list.
    pub fn pull_disk(&mut self, index: usize) -> Result<(), MonitorError> {
        let id = Disk::device_id(index);
        self.order(&format!(
            r#"{{"execute":"device_del","arguments":{{"id":"{id}"}}}}"#
        ))
    }

    /// Puts the cable into the card that leads somewhere, or pulls it.
    pub fn cable(&mut self, there: bool) -> Result<(), MonitorError> {
        self.order(&format!(
            r#"{{"execute":"set_link","arguments":{{"name":"{CARD_ID}","up":{there}}}}}"#
        ))
    }

    fn order(&mut self, order: &str) -> Result<(), MonitorError> {
        self.orders.write_all(order.as_bytes())?;
        self.orders.write_all(b"\n")?;
        loop {
            let mut answer = String::new();
            if self.answers.read_line(&mut answer)? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            // Greeting and events come between.
            if answer.starts_with(r#"{"return""#) {
                return Ok(());
            }
            if answer.starts_with(r#"{"error""#) {
                return Err(MonitorError::Refused {
                    order: order.into(),
                    answer: answer.trim().into(),
                });
            }
        }
    }
}
