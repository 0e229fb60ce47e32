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

/// Replaces the rules in the namespace at `path` (`None`: the node's own) by these.
pub async fn apply(path: Option<&Path>, rules: String) -> Result<(), ApplyError> {
    let path = path.map(Path::to_owned);
    let applied = tokio::task::spawn_blocking(move || command::nft(&rules, path.as_deref()));
    applied
        .await
        .map_err(ApplyError::Lost)?
        .map_err(|refused| ApplyError::Refused(Box::new(refused)))?;
    Ok(())
}
