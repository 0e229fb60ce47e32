//! The one owner of the firewall: it computes the rules from the journal's records and replaces them whole.
//!
//! Two spaces that come and go at the same time wait for each other here; otherwise the rules of the one that looked
//! first could replace those of the one that looked last.

use std::collections::BTreeSet;

use host::names;
use market::id::{SaleId, UserId};
use tokio::sync::Mutex;

use super::record::{self, SpaceRecord};
use crate::firewall::{
    self, ApplyError, Caps, InterfaceName, InterfaceNameError, Openings, Plan, SpacePlan, Uplink, UserPlan,
};
use crate::journal::{Journal, JournalError};
use crate::network::LINK_OF_USER;

/// The firewall of this node.
#[derive(Debug)]
pub struct Walls {
    journal: Journal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uplinks: Vec<Uplink>,
    openings: Openings,
    caps: Caps,
    /// Spaces that still have a record and whose network is gone or going.
    leaving: BTreeSet<SaleId>,
}

/// Why the rules do not stand.
#[derive(Debug, thiserror::Error)]
pub enum WallsError {
    /// The records could not be read.
    #[error("the firewall's rules cannot be computed")]
    Journal(#[from] JournalError),
    /// A name of ours that no rule can carry.
    #[error("the firewall's rules cannot be computed")]
    Name(#[from] InterfaceNameError),
    /// The rules of the node's namespace.
    #[error("the node's namespace")]
    Node(#[source] ApplyError),
    /// The rules of a user's namespace.
    #[error("the namespace of user {user}")]
    User {
        /// Whose.
        user: UserId,
        /// Why.
        #[source]
        source: ApplyError,
    },
}

impl Walls {
    /// Walls over the spaces of this journal; nothing is applied before one of the methods is called.
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            state: Mutex::default(),
        }
    }

    /// Replaces what is known of the uplinks and of the farmer's openings, and all rules with it.
    pub async fn set_uplinks(&self, uplinks: Vec<Uplink>, openings: Openings) -> Result<(), WallsError> {
        let mut state = self.state.lock().await;
        state.uplinks = uplinks;
        state.openings = openings;
        self.apply(&state, |_| true).await
    }

    /// Replaces what the farmer allows of his line, and all rules with it.
    pub async fn set_caps(&self, caps: Caps) -> Result<(), WallsError> {
        let mut state = self.state.lock().await;
        state.caps = caps;
        self.apply(&state, |_| true).await
    }

    /// After a start of the agent: these spaces have a record and no network, so no rule speaks of them until they
    /// enter again.
    pub(super) async fn without(&self, sales: impl IntoIterator<Item = SaleId>) {
        self.state.lock().await.leaving.extend(sales);
    }

    /// All rules anew, in every namespace that is there.
    pub async fn apply_all(&self) -> Result<(), WallsError> {
        self.apply(&*self.state.lock().await, |_| true).await
    }

    /// The rules for a space whose user's namespace now stands.
    pub(super) async fn enter(&self, sale: SaleId, user: UserId) -> Result<(), WallsError> {
        let mut state = self.state.lock().await;
        state.leaving.remove(&sale);
        self.apply(&state, |other| other == user).await
    }

    /// The rules without this space. Whether the user has another one.
    pub(super) async fn leave(&self, sale: SaleId, user: UserId) -> Result<bool, WallsError> {
        let mut state = self.state.lock().await;
        state.leaving.insert(sale);
        self.apply(&state, |other| other == user).await?;
        let records = record::read_all(&self.journal).await?;
        Ok(records
            .iter()
            .any(|record| record.spec.user == user && !state.leaving.contains(&record.spec.sale)))
    }

    /// The space's record is gone: nothing is left to leave out.
    pub(super) async fn forget(&self, sale: SaleId) {
        self.state.lock().await.leaving.remove(&sale);
    }

    /// Replaces the rules of the node and those of the users that `which` names, at the same time.
    async fn apply(&self, state: &State, which: impl Fn(UserId) -> bool) -> Result<(), WallsError> {
        let records = record::read_all(&self.journal).await?;
        let present: Vec<&SpaceRecord> = records
            .iter()
            .filter(|record| !state.leaving.contains(&record.spec.sale))
            .collect();
        let (plan, users) = plan(state, &present)?;
        let mut tasks = tokio::task::JoinSet::new();
        for (user, of_user) in users.iter().zip(&plan.users).filter(|(user, _)| which(**user)) {
            let name = names::user_netns(user.as_bytes());
            if host::netns::exists(&name) {
                let (user, rules, path) = (
                    *user,
                    firewall::user_rules(&plan, of_user),
                    names::netns_path(&name),
                );
                tasks.spawn(async move {
                    let applied = firewall::apply(Some(&path), rules).await;
                    applied.map_err(|source| WallsError::User { user, source })
                });
            }
        }
        // All are waited for, also when one has failed: nothing may still be on its way when the lock is let go.
        let node = firewall::apply(None, firewall::node_rules(&plan))
            .await
            .map_err(WallsError::Node);
        let mut first = node;
        while let Some(joined) = tasks.join_next().await {
            let result = joined.unwrap_or_else(|lost| Err(WallsError::Node(ApplyError::Lost(lost))));
            first = first.and(result);
        }
        first
    }
}

/// The plan for these spaces, and whose each of its users is.
fn plan(state: &State, records: &[&SpaceRecord]) -> Result<(Plan, Vec<UserId>), InterfaceNameError> {
    let mut plan = Plan {
        uplinks: state.uplinks.clone(),
        openings: state.openings.clone(),
        caps: state.caps,
        users: Vec::new(),
    };
    let mut users: Vec<UserId> = Vec::new();
    for record in records {
        let user = record.spec.user;
        let at = match users.iter().position(|known| *known == user) {
            Some(at) => at,
            None => {
                users.push(user);
                plan.users.push(UserPlan {
                    index: record.place.user_index,
                    link_of_node: InterfaceName::try_from(names::user_interface(user.as_bytes()))?,
                    link_of_user: InterfaceName::try_from(LINK_OF_USER.to_owned())?,
                    spaces: Vec::new(),
                });
                users.len() - 1
            }
        };
        plan.users[at].spaces.push(SpacePlan {
            index: record.place.space_index,
            link: InterfaceName::try_from(names::space_interface(record.spec.sale.as_bytes()))?,
            public_port: record.spec.public_port,
        });
    }
    Ok((plan, users))
}
