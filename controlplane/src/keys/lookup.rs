//! Whose key it is, asked of the database with each request: a key that is revoked is refused at once, by every replica.

use std::{collections::HashMap, sync::Arc};

use controlplane_store::{Store, StoreError, keys::Key};

use crate::gather::Gather;

/// Most keys looked up at once.
const BATCH_MAX: usize = 128;

/// Looks up together what is asked for at the same time.
pub struct Lookup(Gather<[u8; 32], Result<Option<Key>, StoreError>>);

impl Lookup {
    pub(crate) fn start(store: Arc<dyn Store>) -> Self {
        Self(Gather::start(BATCH_MAX, move |hashes| find(Arc::clone(&store), hashes)))
    }

    /// The key with this hash, revoked or not, as it was at some moment after this was asked.
    pub(crate) async fn find(&self, secret_sha256: [u8; 32]) -> Result<Option<Key>, StoreError> {
        let broke = || StoreError::Corrupt { operation: "find key", detail: "it broke".to_owned() };
        self.0.ask(secret_sha256).await.ok_or_else(broke)?
    }
}

async fn find(store: Arc<dyn Store>, hashes: Vec<[u8; 32]>) -> Vec<Result<Option<Key>, StoreError>> {
    let mut wanted = hashes.clone();
    wanted.sort_unstable();
    wanted.dedup();
    match store.keys_by_hash(&wanted).await {
        Ok(keys) => {
            let keys: HashMap<_, _> = keys.iter().map(|key| (key.secret_sha256, key)).collect();
            hashes.iter().map(|hash| Ok(keys.get(hash).copied().cloned())).collect()
        }
        Err(error) => hashes.iter().map(|_| Err(error.again())).collect(),
    }
}
