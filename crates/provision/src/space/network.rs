//! The steps `limits` and `network` of a space's table.

use async_trait::async_trait;
use host::names;
use market::id::SaleId;
use market::quantity::Bytes;

use super::SpaceContext;
use crate::limits::{self, Device, DiskLimit, Limits};
use crate::network::{self, SpaceLink, UserLink};
use crate::step::{Cause, Step};

/// The cgroup, fresh, with its limits.
pub(super) struct LimitsStep;

#[async_trait]
impl Step<SpaceContext> for LimitsStep {
    fn name(&self) -> &'static str {
        "limits"
    }

    /// The device of its mapping has to be there: its limit of io names it.
    fn after(&self) -> Option<&'static [&'static str]> {
        Some(&["mount"])
    }

    fn needs_key(&self) -> bool {
        false
    }

    async fn ensure(&self, sale: &SaleId, context: &SpaceContext) -> Result<(), Cause> {
        let (spec, place) = (&context.spec, context.place);
        let cgroup = names::cgroup(sale.as_bytes());
        // The space's own mapping: what it reads and writes is counted before it is encrypted and mixed with others'.
        let mapping = names::mapping_device(&names::mapping(sale.as_bytes()));
        let device = Device::of(&mapping)?;
        let volume = if spec.snapshot == Bytes::ZERO {
            DiskLimit::usual(device)
        } else {
            DiskLimit::with_snapshot(device)
        };
        let limits = Limits {
            cpu: spec.cpu,
            memory: spec.memory,
            pids: spec.pids,
            disks: vec![volume, DiskLimit::of_base(Device::of(&context.base)?)],
        };
        tokio::task::spawn_blocking(move || limits::ensure(&cgroup, &limits, place.first_id)).await??;
        Ok(())
    }

    async fn ensure_absent(&self, sale: &SaleId, _: &SpaceContext) -> Result<(), Cause> {
        let cgroup = names::cgroup(sale.as_bytes());
        tokio::task::spawn_blocking(move || limits::ensure_absent(&cgroup)).await??;
        Ok(())
    }
}

/// The name of [`NetworkStep`].
pub(super) const NETWORK: &str = "network";

/// The user's namespace, the walls, the space's namespace and cable: in this order, so that no space ever has a cable
/// to where no walls stand.
pub(super) struct NetworkStep;

#[async_trait]
impl Step<SpaceContext> for NetworkStep {
    fn name(&self) -> &'static str {
        NETWORK
    }

    fn after(&self) -> Option<&'static [&'static str]> {
        Some(&[])
    }

    fn needs_key(&self) -> bool {
        false
    }

    async fn ensure(&self, sale: &SaleId, context: &SpaceContext) -> Result<(), Cause> {
        let (spec, place) = (&context.spec, context.place);
        // Two spaces of one user must not make, or remove, the user's namespace at the same time.
        let _alone = context.networks.lock().await;
        network::ensure_user(&UserLink {
            user: spec.user,
            index: place.user_index,
        })
        .await?;
        context.walls.enter(*sale, spec.user).await?;
        let link = SpaceLink {
            sale: *sale,
            user: spec.user,
            user_index: place.user_index,
            space_index: place.space_index,
            first_id: place.first_id,
            rate: spec.rate,
        };
        Ok(network::ensure_space(&link).await?)
    }

    async fn ensure_absent(&self, sale: &SaleId, context: &SpaceContext) -> Result<(), Cause> {
        let user = context.spec.user;
        let _alone = context.networks.lock().await;
        network::ensure_space_absent(sale, &user).await?;
        if !context.walls.leave(*sale, user).await? {
            network::ensure_user_absent(&user).await?;
        }
        Ok(())
    }
}
