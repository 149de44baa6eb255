//! Tables as people read them.

use std::io::IsTerminal;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Narrower than this no table is made: what is cut to pieces is read by nobody.
const WIDTH_MIN: u16 = 40;

/// A table without lines, that fits the terminal; for programs it is as wide as it is.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    of_width(header, rows, terminal_width())
}

/// How wide the terminal is, where it is one.
fn terminal_width() -> Option<u16> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}

/// The first column is never broken: it is what the next command is told.
fn of_width(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    if let Some(width) = width {
        table.set_width(width.max(WIDTH_MIN));
    }
    for row in rows {
        table.add_row(row);
    }
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A JSON member as a cell; `-` for none.
pub(super) fn cell(value: &Value, member: &str) -> String {
    match &value[member] {
        Value::Null => "-".to_owned(),
        Value::String(text) => short_time(text).unwrap_or_else(|| text.clone()),
        Value::Number(number) => number
            .as_f64()
            .filter(|n| n.fract() != 0.0)
            .map_or_else(|| number.to_string(), |n| format!("{n:.1}")),
        other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

/// A moment to the second: the rest is for `--json`.
fn short_time(text: &str) -> Option<String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

/// The members of each object of a list as rows.
pub(super) fn rows<'a>(list: &'a Value, members: &'a [&'a str]) -> impl Iterator<Item = Vec<String>> + 'a {
    list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| members.iter().map(|member| cell(item, member)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal_and_its_first_column_is_whole() {
        let id = "call_06h2fqtvkafvp9qsba3g4gtp8r";
        let why =
            "its contact does not answer OPTIONS, and calls that were sent there met silence".to_owned();
        let rows = || vec![vec![id.to_owned(), "failed".to_owned(), why.clone()]];
        let wide = of_width(&["CALL", "STATUS", "WHY"], rows(), None);
        assert_eq!(wide.lines().count(), 2, "{wide}");
        let narrow = of_width(&["CALL", "STATUS", "WHY"], rows(), Some(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(narrow.lines().count() > 2 && narrow.contains(id), "{narrow}");
    }
}
