//! The bytes that a row's hash covers.
//!
//! Each field is written with its length, so that no two rows are the same bytes; JSON with its members in order, since
//! PostgreSQL's jsonb keeps no order. What is hashed is what the database gives back, not what was sent to it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{CHAIN, Hash, Record};

/// Another form of these bytes gets another text.
const FORM: &[u8] = b"ringward audit row 1\n";

fn field(hash: &mut Sha256, value: Option<&[u8]>) {
    match value {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        }
    }
}

/// JSON without spaces, members sorted by their names' bytes.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

/// A row's hash at its place.
pub(super) fn hash(seq: i64, prev_hash: &Hash, record: &Record) -> Hash {
    // Every field by name: a new one does not compile until it is covered.
    let Record {
        id,
        org,
        occurred_at_us,
        actor_type,
        actor_id,
        key_prefix,
        auth_method,
        action,
        target_type,
        target_id,
        outcome,
        reason,
        ip,
        user_agent,
        request_id,
        changes,
    } = record;
    let mut json = String::new();
    write(changes, &mut json);
    let mut hash = Sha256::new();
    hash.update(FORM);
    field(&mut hash, Some(CHAIN.as_bytes()));
    hash.update(seq.to_be_bytes());
    hash.update(prev_hash.0);
    hash.update(occurred_at_us.to_be_bytes());
    let texts = [
        Some(id),
        org.as_ref(),
        Some(actor_type),
        actor_id.as_ref(),
        key_prefix.as_ref(),
        auth_method.as_ref(),
        Some(action),
        Some(target_type),
        Some(target_id),
        Some(outcome),
        reason.as_ref(),
        ip.as_ref(),
        user_agent.as_ref(),
        request_id.as_ref(),
        Some(&json),
    ];
    for text in texts {
        field(&mut hash, text.map(|text| text.as_bytes()));
    }
    Hash(hash.finalize().into())
}
