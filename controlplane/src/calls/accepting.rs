//! Accepting calls: those that are asked for at the same time together, in one transaction.

use std::sync::Arc;

use controlplane_store::{
    StoreError,
    calls::{Created, NewCall},
};

use super::Calls;
use crate::gather::Gather;

/// Most calls in one transaction: bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 128;

/// The way to be accepted.
pub struct Accepting(Gather<NewCall, Result<Created, StoreError>>);

impl Accepting {
    /// Calls that it accepts are placed by `calls`, also those whose client has hung up meanwhile: a durable call that nobody places
    /// must not be.
    pub(crate) fn start(calls: Arc<Calls>) -> Self {
        Self(Gather::start(BATCH_MAX, move |batch| create(Arc::clone(&calls), batch)))
    }

    /// Makes the call durable. `None`: accepting broke, and it is not known whether it is.
    pub(crate) async fn accept(&self, new: NewCall) -> Option<Result<Created, StoreError>> {
        self.0.ask(new).await
    }
}

async fn create(calls: Arc<Calls>, batch: Vec<NewCall>) -> Vec<Result<Created, StoreError>> {
    let batch: Arc<[NewCall]> = batch.into();
    let mut created: Vec<_> = match calls.store.create_calls(Arc::clone(&batch)).await {
        Ok(created) => created.into_iter().map(Ok).collect(),
        Err(error @ StoreError::Unavailable { .. }) => batch.iter().map(|_| Err(error.again())).collect(),
        Err(error) if batch.len() == 1 => vec![Err(error)],
        // One of them is not to be written: each by itself, so that it takes no other with it.
        Err(_) => {
            let mut created = Vec::with_capacity(batch.len());
            for new in batch.iter() {
                created.push(calls.store.create_call(new.clone()).await);
            }
            created
        }
    };
    for (new, answer) in batch.iter().zip(&mut created) {
        if let Ok(Created::Deduplicated(call)) = answer
            && let Err(error) = calls.wanted_again(call.id.as_str(), &new.actor).await
        {
            *answer = Err(error);
        }
    }
    for created in created.iter().flatten() {
        match created {
            Created::New(call) => calls.start(call.clone()),
            // Whoever asked first may have been cut off before its task began.
            Created::Replayed(call) | Created::Deduplicated(call) => {
                calls.ensure(call.clone());
            }
            Created::KeyReused | Created::Full(_) => {}
        }
    }
    created
}
