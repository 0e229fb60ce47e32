//! `steading connect`: bytes between OpenSSH and a space's SSH server, whichever way works.
//!
//! OpenSSH starts it as ProxyCommand, many at once. Standard output carries the bytes, so all that
//! is said goes to standard error.

use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::ssh::{finish_first, pay_what_is_due};
use crate::client::Client;
use crate::client::tunnel::Way;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::store::record::Step;

/// Flags of `connect`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// For the proof itself, which runs before anything is proven.
    #[arg(long, hide = true)]
    unproven: bool,
}

/// Carries bytes until one side ends.
pub async fn run(arguments: Arguments, settings: Settings) -> Outcome {
    let mut client = Client::open(settings)?;
    let (files, mut record) = client.store.find(&arguments.name)?;
    if !arguments.unproven && record.step != Step::Active {
        finish_first(&mut client, files.clone(), record.clone()).await?;
        record = files.record()?.unwrap_or(record);
    }
    let way = client.way_into(files.id, &record).await?;
    let carried = async {
        match way {
            Way::Tcp(stream) => carry(stream).await,
            Way::Grid(stream) => carry(stream).await,
        }
    };
    let name = record.name.clone();
    let paid = async {
        if !arguments.unproven {
            pay_what_is_due(&mut client, files, record).await;
        }
    };
    let (carried, ()) = tokio::join!(carried, paid);
    client.leave().await;
    carried.map_err(|error| {
        Failure::new(Code::NodeSilent, format!("the login to {name} was cut"))
            .because(error)
            .next("log in again: the space itself goes on; `steading spaces` shows what the node says")
    })
}

/// Both ways; ends when the space's side has ended.
async fn carry(stream: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
    let (mut from_space, mut to_space) = tokio::io::split(stream);
    let up = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut to_space).await;
        // The space hears that nothing more comes, and says its last words.
        let _ = to_space.shutdown().await;
        copied.map(|_| ())
    };
    let down = async {
        let mut out = tokio::io::stdout();
        tokio::io::copy(&mut from_space, &mut out).await?;
        out.flush().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => ended,
        sent = &mut up => {
            sent?;
            down.await
        }
    }
}
