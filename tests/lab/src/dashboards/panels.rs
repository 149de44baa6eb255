//! A panel: what it asks Prometheus, and how Grafana draws that.
use serde_json::{Value, json};

/// How a panel looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// The latest value, large.
    Number,
    /// Lines over time.
    Lines,
    /// Lines upon each other, for what adds up.
    Stack,
    /// One strip for each series: 1 is well, 0 is not.
    Strip,
}

impl Draw {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Draw::Number => "stat",
            Draw::Lines | Draw::Stack => "timeseries",
            Draw::Strip => "state-timeline",
        }
    }

    pub(super) fn options(self) -> Value {
        match self {
            Draw::Number => json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": "background", "graphMode": "none", "textMode": "value_and_name",
            }),
            Draw::Lines | Draw::Stack => json!({
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Draw::Strip => json!({
                "showValue": "never", "mergeValues": true, "rowHeight": 0.8,
                "legend": {"displayMode": "list", "placement": "bottom"},
            }),
        }
    }
}

/// When a value is no longer well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Nothing to say.
    Never,
    /// Red from this value on.
    From(i64),
    /// Red below this value.
    Below(i64),
}

/// A panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// What it shows, for who points at it.
    pub(super) says: &'static str,
    pub(super) draw: Draw,
    /// Grafana's name of the unit.
    pub(super) unit: &'static str,
    pub(super) bad: Bad,
    /// Of 24.
    pub(super) width: u64,
    /// PromQL, and how each series is called.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

impl Panel {
    pub(super) fn height(&self) -> u64 {
        match self.draw {
            Draw::Number => 4,
            Draw::Lines | Draw::Stack | Draw::Strip => 8,
        }
    }

    /// Unit, colours, and what is drawn where nothing is known: a gap, never a line across it.
    pub(super) fn field(&self) -> Value {
        let steps = match self.bad {
            Bad::Never => json!([{"color": "blue", "value": null}]),
            Bad::From(value) => json!([{"color": "green", "value": null}, {"color": "red", "value": value}]),
            Bad::Below(value) => json!([{"color": "red", "value": null}, {"color": "green", "value": value}]),
        };
        let stacking = match self.draw {
            Draw::Stack => "normal",
            Draw::Number | Draw::Lines | Draw::Strip => "none",
        };
        let fill = if self.draw == Draw::Stack { 30 } else { 0 };
        let coloured = matches!(self.draw, Draw::Number | Draw::Strip);
        json!({
            "unit": self.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": if coloured { "thresholds" } else { "palette-classic" }},
            "custom": {"stacking": {"mode": stacking, "group": "A"}, "fillOpacity": if coloured { 70 } else { fill },
                       "spanNulls": false, "lineWidth": 1},
        })
    }
}
