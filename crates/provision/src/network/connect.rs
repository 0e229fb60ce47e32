//! A connection to what listens inside a space, made from inside: by a thread in the space's namespace, to its
//! loopback. No rule is opened for it, and nothing of it passes a cable: what it may carry is the caller's to bound.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::inside::{self, InsideError};

/// How long the space's kernel may take to answer: it is this machine's own.
const WITHIN: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The namespace is not there.
    #[error("the space's network cannot be entered")]
    Inside(#[from] InsideError),
    /// Nothing is known of it, so not what its line may carry either.
    #[error("nothing is known of the space")]
    Unknown,
    /// Nothing listens, or it did not answer.
    #[error("nothing answers on port {port} inside the space")]
    Refused {
        /// The port.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Connects to 127.0.0.1:`port` inside the namespace bound at `namespace`.
pub async fn connect(namespace: &Path, port: u16) -> Result<TcpStream, ConnectError> {
    let refused = |source| ConnectError::Refused { port, source };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
    let stream = inside::run(Some(namespace), move || {
        let stream = std::net::TcpStream::connect_timeout(&address, WITHIN)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    // A socket stays in the namespace in which it was made; the worker only reads and writes it.
    TcpStream::from_std(stream.await?.map_err(refused)?).map_err(refused)
}
