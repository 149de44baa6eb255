//! Which metrics a PromQL expression names, and which values it wants of their labels.

use std::collections::BTreeSet;

/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that are no metrics.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) metrics: BTreeSet<String>,
    /// Label and value, alternatives apart.
    pub(crate) values: BTreeSet<(String, String)>,
}

pub(crate) fn named(expr: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expr;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    while let Some(first) = rest.chars().next() {
        if first == '{' {
            let end = rest.find('}').unwrap();
            matchers(&rest[1..end], &mut named);
            rest = &rest[end + 1..];
        } else if let Some(end) = closing(first).and_then(|close| rest[1..].find(close)) {
            rest = &rest[end + 2..];
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            let is_number = first.is_ascii_digit();
            // `sum(…)`, `sum by (…) (…)`.
            let is_called =
                ["(", "by ", "by(", "without ", "without("].iter().any(|head| rest.starts_with(head));
            if BEFORE_LABELS.contains(&word) && rest.starts_with('(') {
                rest = &rest[rest.find(')').unwrap() + 1..];
            } else if !is_number && !WORDS.contains(&word) && !is_called {
                named.metrics.insert(word.to_owned());
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    named
}

/// What ends a range, or a text.
fn closing(first: char) -> Option<char> {
    match first {
        '[' => Some(']'),
        '"' => Some('"'),
        _ => None,
    }
}

fn matchers(text: &str, named: &mut Named) {
    for matcher in text.split("\",").filter(|matcher| !matcher.trim().is_empty()) {
        let (label, value) = matcher.split_once('"').unwrap();
        let label = label.trim().trim_end_matches(['=', '!', '~']);
        // A variable of a dashboard stands for whatever there is.
        let words = value.trim_end_matches('"').split('|').filter(|word| !word.starts_with('$'));
        named.values.extend(words.map(|word| (label.to_owned(), word.to_owned())));
    }
}

#[test]
fn metrics_and_values_are_told_from_all_else() {
    let named = named(
        "sum by (le, node) (rate(a_bucket{x=~\"p|q\", node=~\"$node\"}[5m])) / 2 * b:c offset 1w\n and on (trunk) d > 1e9 or vector(0)",
    );
    let metrics: Vec<_> = named.metrics.iter().map(String::as_str).collect();
    assert_eq!(metrics, ["a_bucket", "b:c", "d"]);
    let values: Vec<_> = named.values.iter().map(|(label, value)| format!("{label}={value}")).collect();
    assert_eq!(values, ["x=p", "x=q"]);
}
