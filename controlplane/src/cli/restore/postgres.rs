//! A dump in the place of a PostgreSQL database: loaded by PostgreSQL's own `pg_restore`.

use std::{path::Path, process::Command};

use controlplane_store::{StoreError, postgres::Replacing, restoring::HoldOpen};
use reqwest::Url;

use super::{Failure, chain, is_file};

/// What our URLs may say and libpq does not know.
const OURS: [&str; 2] = ["password", "statement-cache-capacity"];

/// Puts the dump in the place of the database and holds what is open in it; how many are held. What was there before is there
/// again if that fails, also if `beforehand` does, which is done once the dump has proved good.
pub(super) async fn replace(
    url: &str,
    dump: &Path,
    hold: &HoldOpen,
    beforehand: impl FnOnce() -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let failed = |error: StoreError| Failure::local(chain(&error));
    let mut replacing = Replacing::begin(url).await.map_err(failed)?;
    is_file(dump)?;
    replacing.set_aside().await.map_err(failed)?;
    let mut loaded = load(url, replacing.schema(), dump);
    if loaded.is_ok() {
        loaded = replacing.migrate().await.map_err(failed).and_then(|()| beforehand());
    }
    if let Err(failure) = loaded {
        replacing.take_back().await.map_err(failed)?;
        return Err(failure);
    }
    replacing.finish(hold).await.map_err(failed)
}

fn load(url: &str, schema: &str, dump: &Path) -> Result<(), Failure> {
    let (url, password) = apart(url);
    let mut command = Command::new("pg_restore");
    command.args(["--no-owner", "--single-transaction", "--schema", schema, "--dbname", &url]).arg(dump);
    if let Some(password) = password {
        // As an argument every user of the host could read it.
        command.env("PGPASSWORD", password);
    }
    let status =
        command.status().map_err(|error| Failure::local(format!("cannot start pg_restore: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::local(format!("pg_restore ended with {status}"))) }
}

/// The URL as libpq takes it, without its password; and the password.
fn apart(url: &str) -> (String, Option<String>) {
    // What cannot be read was refused before.
    let Ok(mut bare) = Url::parse(url) else { return (url.to_owned(), None) };
    let mut password = bare.password().map(decoded);
    // Where there is no host, there is no password before it.
    bare.set_password(None).ok();
    if let Some((_, word)) = bare.query_pairs().find(|(name, _)| name == "password") {
        password = Some(word.into_owned());
    }
    // As it is written: libpq takes no + for a space.
    let theirs = |part: &&str| !OURS.contains(&part.split('=').next().unwrap_or_default());
    let query = bare.query().map(|query| query.split('&').filter(theirs).collect::<Vec<_>>().join("&"));
    bare.set_query(query.as_deref().filter(|query| !query.is_empty()));
    (bare.into(), password)
}

/// `%41` as `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn a_password_is_no_argument() {
        for (url, bare, password) in [
            (
                "postgres://u:p%40%2fs%25@db.example:5433/calls",
                "postgres://u@db.example:5433/calls",
                Some("p@/s%"),
            ),
            (
                "postgres://u@db.example/calls?sslmode=require",
                "postgres://u@db.example/calls?sslmode=require",
                None,
            ),
            (
                "postgres://db.example/calls?user=u&password=a%20b&statement-cache-capacity=5",
                "postgres://db.example/calls?user=u",
                Some("a b"),
            ),
            (
                "postgres:///calls?host=%2Frun%2Fpostgresql&options=-c%20search_path%3Dcalls",
                "postgres:///calls?host=%2Frun%2Fpostgresql&options=-c%20search_path%3Dcalls",
                None,
            ),
        ] {
            assert_eq!(apart(url), (bare.to_owned(), password.map(str::to_owned)), "{url}");
        }
    }
}
