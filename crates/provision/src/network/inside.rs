//! Work inside a network namespace: on a thread of its own that enters it, does the work and ends.
//!
//! Never on a tokio worker: a worker that came back from another namespace would carry other people's sockets there.
//! A netlink socket belongs to the namespace in which it was opened, so the thread opens it after it has entered.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rtnetlink::Handle;

/// Why nothing could be done inside.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The thread could not be started.
    #[error("no thread for work in {namespace}")]
    Thread {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("network namespace {namespace} could not be entered")]
    Enter {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No netlink socket there.
    #[error("no netlink socket in {namespace}")]
    Netlink {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The thread ended without an answer.
    #[error("the thread in {namespace} ended without an answer")]
    Ended {
        /// The namespace.
        namespace: String,
    },
}

/// Runs `work` on a fresh thread inside the namespace at `path` (`None`: the node's own) and returns its answer.
pub async fn run<T, F>(path: Option<&Path>, work: F) -> Result<T, InsideError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let namespace = shown(path);
    let path = path.map(Path::to_owned);
    let (send, receive) = tokio::sync::oneshot::channel();
    let name = namespace.clone();
    let body = move || {
        let result = enter(path, &name).map(|()| work());
        // The asker may be gone; then nobody wants the answer.
        let _ = send.send(result);
    };
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(body)
        .map_err(|source| InsideError::Thread {
            namespace: namespace.clone(),
            source,
        })?;
    receive.await.map_err(|_| InsideError::Ended { namespace })?
}

/// Runs `work` with a netlink connection opened inside the namespace at `path` (`None`: the node's own).
pub async fn netlink<T, F, Fut>(path: Option<&Path>, work: F) -> Result<T, InsideError>
where
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    let namespace = shown(path);
    run(path, move || {
        let failed = |source| InsideError::Netlink {
            namespace: namespace.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
            let driver = tokio::spawn(connection);
            let answer = work(handle).await;
            driver.abort();
            Ok(answer)
        })
    })
    .await?
}

fn enter(path: Option<PathBuf>, namespace: &str) -> Result<(), InsideError> {
    let Some(path) = path else { return Ok(()) };
    let entered = File::open(path).and_then(|file| host::netns::enter(file.as_fd()));
    entered.map_err(|source| InsideError::Enter {
        namespace: namespace.to_owned(),
        source,
    })
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "the node".to_owned(), |path| path.display().to_string())
}
