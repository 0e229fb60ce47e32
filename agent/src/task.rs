//! Tasks beside each other.

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

/// As `tokio::spawn`, which is compiled anew for each kind of future that it is given, two hundred functions at a time:
/// here all are of one kind, a pointer.
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let future: BoxFuture<'static, T> = Box::pin(future);
    tokio::spawn(future)
}
