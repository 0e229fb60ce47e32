//! Hands a rule set to the kernel: one `nft -f -`, one transaction, in the namespace that it is for.

use std::path::Path;

use host::command::{self, NftError};

/// Why the rules do not hold.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The thread that runs nft was lost.
    #[error("no firewall: the thread that runs nft was lost")]
    Lost(#[source] tokio::task::JoinError),
    /// nft or the kernel refused.
    #[error("the firewall's rules were not taken; those before still stand")]
    Refused(#[source] Box<NftError>),
}

/// Most entries of a table of connections: the node's own, for which each space has a share, and each of those that a
/// space makes in namespaces below its own, which are memory that nobody is charged for.
const MOST_CONNECTIONS: u64 = 65_536;
const CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Replaces the rules in the namespace at `path` (`None`: the node's own) by these.
pub async fn apply(path: Option<&Path>, rules: String) -> Result<(), ApplyError> {
    let path = path.map(Path::to_owned);
    let applied = tokio::task::spawn_blocking(move || command::nft(&rules, path.as_deref()));
    applied
        .await
        .map_err(ApplyError::Lost)?
        .map_err(|refused| ApplyError::Refused(Box::new(refused)))?;
    bound_connections();
    Ok(())
}

/// The kernel makes the table as large as the machine's memory lets it, each time that the module comes. The first rules
/// bring the module.
fn bound_connections() {
    let most = std::fs::read_to_string(CONNECTIONS);
    if most.is_ok_and(|text| text.trim().parse().is_ok_and(|most: u64| most > MOST_CONNECTIONS)) {
        // Where it cannot be written it is as large as it was.
        let _ = std::fs::write(CONNECTIONS, MOST_CONNECTIONS.to_string());
    }
}
