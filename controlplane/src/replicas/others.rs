//! What every replica has in memory of the settings: read anew when another one has changed it.

use std::sync::Arc;

use controlplane_store::{StoreError, replicas::SettingMarks};

use crate::{
    health::Keeping,
    nodes::{Nodes, TakeUpError},
    registry::Registry,
    rules::Rules,
};

/// What this process has in memory of what any replica may change.
pub(crate) struct Others {
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) keeping: Arc<Keeping>,
    pub(crate) rules: Arc<Rules>,
}

impl Others {
    /// Reads what has changed since these marks were seen.
    pub(super) async fn read(
        &self,
        marks: SettingMarks,
        seen: Option<SettingMarks>,
    ) -> Result<(), StoreError> {
        if self.registry.fleet().1 != marks.fleet {
            match self.nodes.take_up(&**self.rules.store()).await {
                // Looked at again: what is not read is not marked as seen.
                Err(TakeUpError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "the fleet that another replica applied could not be taken up");
                }
                Ok(_) => {}
            }
        }
        if seen.is_none_or(|seen| seen.holds != marks.holds) {
            self.keeping.read_holds(&self.registry).await?;
        }
        if seen.is_none_or(|seen| seen.rules != marks.rules) {
            self.rules.read_again().await?;
        }
        Ok(())
    }
}
