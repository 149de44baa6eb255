//! Grafana's dashboards, as the files in `docs/dashboards` have them: written by `cargo lab dashboards`, held against these
//! definitions by a test.
mod panels;
mod places;

use crate::LabError;
use panels::{Draw, Panel};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Width of Grafana's grid.
const GRID: u64 = 24;
/// The form of the JSON: that of Grafana 9.5, which later ones read too.
const SCHEMA: u64 = 38;

/// A file of `docs/dashboards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// Its name there.
    pub file: String,
    /// What it holds: JSON, with a line end.
    pub text: String,
}

/// All of them.
///
/// # Errors
/// One cannot be written as JSON.
pub fn dashboards() -> Result<Vec<Dashboard>, LabError> {
    places::ALL.iter().map(|(name, title, panels)| dashboard(name, title, panels)).collect()
}

/// Writes them into `folder`.
///
/// # Errors
/// A file cannot be written.
pub fn write_dashboards(folder: &Path) -> Result<(), LabError> {
    fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    for dashboard in dashboards()? {
        let path = folder.join(&dashboard.file);
        fs::write(&path, &dashboard.text).map_err(LabError::file("write", &path))?;
    }
    Ok(())
}

/// The files of `folder` that are not as they should be; those that nobody defines are among them.
///
/// # Errors
/// The folder cannot be read.
pub fn drifted_dashboards(folder: &Path) -> Result<Vec<String>, LabError> {
    let wanted = dashboards()?;
    let differs = |dashboard: &&Dashboard| {
        fs::read_to_string(folder.join(&dashboard.file)).ok().as_deref() != Some(dashboard.text.as_str())
    };
    let mut drifted: Vec<String> =
        wanted.iter().filter(differs).map(|dashboard| dashboard.file.clone()).collect();
    let entries = fs::read_dir(folder).map_err(LabError::file("read", folder))?;
    let there = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    drifted.extend(there.filter(|file| wanted.iter().all(|dashboard| dashboard.file != *file)));
    Ok(drifted)
}

fn dashboard(name: &str, title: &str, panels: &[Panel]) -> Result<Dashboard, LabError> {
    let value = json!({
        "uid": format!("ringward-{name}"),
        "title": format!("Ringward: {title}"),
        "tags": ["ringward"],
        "schemaVersion": SCHEMA,
        "editable": true,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"title": "Ringward", "type": "dashboards", "tags": ["ringward"], "asDropdown": true,
                   "includeVars": true, "keepTime": true}],
        "templating": {"list": variables()},
        "panels": lay(panels),
    });
    let text = serde_json::to_string_pretty(&value)
        .map_err(|error| LabError::Machine(format!("dashboard {name}: {error}")))?;
    Ok(Dashboard { file: format!("ringward-{name}.json"), text: text + "\n" })
}

fn variables() -> Value {
    let of_label = |label: &str, metric: &str| {
        json!({
            "name": label, "label": label, "type": "query", "datasource": datasource(),
            "query": {"query": format!("label_values({metric}, {label})"), "refId": label},
            "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*", "sort": 1,
            "current": {"text": "All", "value": "$__all"},
        })
    };
    json!([
        {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus", "current": {}},
        of_label("node", "ringward_node_up"),
        of_label("carrier", "ringward_trunk_usable"),
    ])
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// Panels from left to right, in rows as high as the highest of them.
fn lay(panels: &[Panel]) -> Vec<Value> {
    let (mut x, mut y, mut row) = (0, 0, 0);
    let place = |(index, panel): (usize, &Panel)| {
        if x + panel.width > GRID {
            (x, y, row) = (0, y + row, 0);
        }
        let at = json!({"x": x, "y": y, "w": panel.width, "h": panel.height()});
        x += panel.width;
        row = row.max(panel.height());
        panel_json(index + 1, panel, &at)
    };
    panels.iter().enumerate().map(place).collect()
}

fn panel_json(id: usize, panel: &Panel, at: &Value) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip(b'A'..=b'Z')
        .map(|((expr, legend), letter)| {
            json!({
                "refId": char::from(letter).to_string(), "datasource": datasource(), "expr": expr,
                "legendFormat": legend, "instant": panel.draw == Draw::Number, "range": panel.draw != Draw::Number,
            })
        })
        .collect();
    json!({
        "id": id, "type": panel.draw.kind(), "title": panel.title, "description": panel.says,
        "datasource": datasource(), "gridPos": at, "targets": targets,
        "fieldConfig": {"defaults": panel.field(), "overrides": []},
        "options": panel.draw.options(),
    })
}
