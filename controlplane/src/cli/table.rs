//! Tables as people read them.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A table without lines, that fits the terminal.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for row in rows {
        table.add_row(row);
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
