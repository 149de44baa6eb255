//! Where a database is, in words for people: never with a password.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Names where the database of a URL is, for messages: `sqlite file /x/y.db`, `database DB on HOST:PORT`.
/// What cannot be read is not repeated, since a password may be anywhere in it.
#[must_use]
pub fn place(url: &str) -> String {
    match url.split_once("://") {
        Some(("sqlite", path)) => format!("sqlite file {path}"),
        Some(("postgres" | "postgresql", _)) => match PgConnectOptions::from_str(url) {
            Ok(options) => format!("database {}", on_server(&options)),
            Err(_) => "a PostgreSQL database whose URL cannot be read".to_owned(),
        },
        Some(_) | None => "a database of a kind that is not known".to_owned(),
    }
}

/// `DB on HOST:PORT`.
pub(crate) fn on_server(options: &PgConnectOptions) -> String {
    format!(
        "{} on {}:{}",
        options.get_database().unwrap_or_else(|| options.get_username()),
        options.get_socket().map_or(options.get_host().into(), |s| s.display().to_string()),
        options.get_port(),
    )
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_place_is_named_without_its_password() {
        for (url, expected) in [
            ("sqlite:///var/lib/ringward/ringward.db", "sqlite file /var/lib/ringward/ringward.db"),
            ("sqlite://here.db", "sqlite file here.db"),
            ("postgres://u:secret-word@db.example:5433/calls", "database calls on db.example:5433"),
            ("postgresql://u:secret-word@db.example/calls", "database calls on db.example:5432"),
            (
                "postgres://db.example:5433/calls?user=u&password=secret-word",
                "database calls on db.example:5433",
            ),
            ("postgres://u:secret-word@[broken", "a PostgreSQL database whose URL cannot be read"),
            ("mysql://u:secret-word@db.example/calls", "a database of a kind that is not known"),
            ("secret-word", "a database of a kind that is not known"),
        ] {
            assert_eq!(place(url), expected, "{url}");
        }
    }
}
