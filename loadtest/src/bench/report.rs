//! How figures are printed: one line each, or JSON for machines.

use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In `unit`.
    pub value: f64,
    /// `s`, `MB/s` and the like; empty for a plain number.
    pub unit: &'static str,
    /// What the figure should be, in words; empty when it is only information.
    pub aim: &'static str,
}

/// The figures of one bench.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The bench, as the command names it.
    pub bench: &'static str,
    /// In the order in which they are printed.
    pub figures: Vec<Figure>,
}

impl Report {
    pub fn new(bench: &'static str) -> Self {
        Self { bench, figures: Vec::new() }
    }

    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, aim: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, aim });
    }

    /// Lines of name, value, unit and aim.
    pub fn to_text(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("bench {}\n", self.bench);
        for f in &self.figures {
            let aim = if f.aim.is_empty() { String::new() } else { format!("   (aim {})", f.aim) };
            // Writing to a `String` cannot fail.
            let _ = writeln!(out, "  {:<58} {:>14.3} {}{aim}", f.name, f.value, f.unit);
        }
        out
    }
}
