//! Bytes to a space's SSH server: straight where the node says so, through the grid else.

use std::time::Duration;

use grid::{DialError, EndpointAddress, TunnelStream};
use market::id::{GridId, SaleId};
use market::message::{TunnelAnswer, TunnelOpening};
use tokio::net::TcpStream;

use super::Client;
use super::talk::delegation;
use crate::exit::{Code, Failure, Outcome};
use crate::store::record::Record;

/// How long a way into the space is looked for.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// How long the straight way is tried first.
const TCP_WITHIN: Duration = Duration::from_secs(3);
/// The SSH server's port inside the space.
const SSH_PORT: u16 = 22;

/// A way into the space.
pub enum Way {
    /// Over TCP.
    Tcp(TcpStream),
    /// Through the grid.
    Grid(TunnelStream),
}

impl Client {
    /// Opens a way to the SSH server of that sale's space.
    pub async fn way_into(&mut self, sale: SaleId, record: &Record) -> Outcome<Way> {
        if let Some(target) = &record.tcp
            && let Ok(Ok(stream)) = tokio::time::timeout(TCP_WITHIN, TcpStream::connect(target)).await
        {
            return Ok(Way::Tcp(stream));
        }
        let ticket = super::selling::ticket_of(record)?;
        let address = super::selling::address_of(record)?;
        let grid = self.grid(&ticket).await?;
        self.open_tunnel(&grid, &address, GridId(ticket.grid_id()), sale, &record.name)
            .await
            .map(Way::Grid)
    }

    async fn open_tunnel(
        &self,
        grid: &grid::Grid,
        address: &EndpointAddress,
        grid_id: GridId,
        sale: SaleId,
        name: &str,
    ) -> Outcome<TunnelStream> {
        let delegate = delegation(&self.seed.user_key(), grid_id, grid, sale)
            .map_err(|error| Failure::new(Code::Unexpected, "no delegation").caused_by(&error))?;
        let opening = TunnelOpening {
            delegate: delegate.bytes,
            port: SSH_PORT,
        }
        .to_bytes();
        let what = format!("{name} is not reached");
        match grid.dial_tunnel(address, &opening, OPEN_WITHIN).await {
            Ok((answer, stream)) => match TunnelAnswer::from_bytes(&answer) {
                Ok(TunnelAnswer::Open) => Ok(stream),
                Ok(TunnelAnswer::Refused { words, .. }) => {
                    Err(Failure::new(Code::NodeRefuses, what).because(words))
                }
                Err(error) => Err(Failure::new(Code::NodeSilent, what).caused_by(&error)),
            },
            Err(DialError::Refused(answer)) => {
                let words = match TunnelAnswer::from_bytes(&answer) {
                    Ok(TunnelAnswer::Refused { words, .. }) => words,
                    Ok(TunnelAnswer::Open) | Err(_) => "it does not say why".to_owned(),
                };
                Err(Failure::new(Code::NodeRefuses, what).because(words).next(format!(
                    "`steading spaces` shows its state; after a power cut of the node, `steading unlock {name}`"
                )))
            }
            Err(error) => Err(Failure::new(Code::NodeSilent, what)
                .caused_by(&error)
                .next("try again in a while; `steading spaces` shows what the node says")),
        }
    }
}
