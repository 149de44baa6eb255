//! Rows of organisations and keys, as both databases give them.

use controlplane_core::{
    access::Mode,
    ids::{KeyId, OrgId},
    names::OrgSlug,
};
use sqlx::{FromRow, types::Json};

use crate::{
    columns::{Micros, Word},
    keys::Key,
    orgs::Org,
    rows::{moment, word},
};

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, mode, name, prefix, secret_sha256, scopes, created_at, expires_at, revoked_at, \
                 last_used_at, rotated_from, (SELECT suspended_at FROM org WHERE org.org_id = api_key.org_id) \
                 AS suspended_at FROM api_key ",
            $rest
        )
    };
}
pub(crate) use select_keys;

#[derive(Debug, FromRow)]
pub(crate) struct KeyRow {
    id: Word<KeyId>,
    org_id: Option<Word<OrgId>>,
    mode: Word<Mode>,
    name: String,
    prefix: String,
    secret_sha256: Vec<u8>,
    scopes: Json<Vec<String>>,
    created_at: Micros,
    expires_at: Option<Micros>,
    revoked_at: Option<Micros>,
    last_used_at: Option<Micros>,
    rotated_from: Option<Word<KeyId>>,
    suspended_at: Option<Micros>,
}

impl TryFrom<KeyRow> for Key {
    type Error = sqlx::Error;

    fn try_from(row: KeyRow) -> Result<Self, sqlx::Error> {
        let length = |_| sqlx::Error::Decode("secret_sha256 is not 32 bytes long".into());
        Ok(Self {
            id: row.id.0,
            org: word(row.org_id),
            mode: row.mode.0,
            name: row.name,
            prefix: row.prefix,
            secret_sha256: row.secret_sha256.try_into().map_err(length)?,
            scopes: row.scopes.0,
            created_at: row.created_at.0,
            expires_at: moment(row.expires_at),
            revoked_at: moment(row.revoked_at),
            last_used_at: moment(row.last_used_at),
            rotated_from: word(row.rotated_from),
            suspended_at: moment(row.suspended_at),
        })
    }
}

/// As above.
macro_rules! select_orgs {
    ($rest:literal) => {
        concat!("SELECT org_id, slug, name, created_at, suspended_at FROM org ", $rest)
    };
}
pub(crate) use select_orgs;

#[derive(Debug, FromRow)]
pub(crate) struct OrgRow {
    org_id: Word<OrgId>,
    slug: Word<OrgSlug>,
    name: String,
    created_at: Micros,
    suspended_at: Option<Micros>,
}

impl From<OrgRow> for Org {
    fn from(row: OrgRow) -> Self {
        Self {
            id: row.org_id.0,
            slug: row.slug.0,
            name: row.name,
            created_at: row.created_at.0,
            suspended_at: moment(row.suspended_at),
        }
    }
}
