//! Rows as text: aligned columns under a heading, numbers to the right.

#[cfg(test)]
mod tests;

/// A table being filled.
#[derive(Debug, Clone)]
pub(crate) struct TextTable {
    heading: Vec<String>,
    is_number: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table whose columns are text, except those of [`Self::numbers`].
    pub(crate) fn new(heading: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let heading: Vec<String> = heading.into_iter().map(|name| cell(&name.into())).collect();
        Self { is_number: vec![false; heading.len()], heading, rows: Vec::new() }
    }

    /// Columns that are numbers.
    pub(crate) fn numbers(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        columns.into_iter().for_each(|at| self.is_number[at] = true);
        self
    }

    /// Adds a row with a cell for every column; what is not given stays empty. Line breaks and other control characters
    /// are shown as escapes.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut row: Vec<String> = cells.into_iter().map(|text| cell(text.as_ref())).collect();
        row.resize(self.heading.len(), String::new());
        self.rows.push(row);
    }

    /// The table; the last column is not padded.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = vec![0; self.heading.len()];
        for row in self.rows.iter().chain([&self.heading]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                // Characters, not bytes: padding of `format!` counts characters too.
                *width = cell.chars().count().max(*width);
            }
        }
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = self.line(&self.heading, &widths);
        text += &format!("{}\n", rule.join("-+-"));
        for row in &self.rows {
            text += &self.line(row, &widths);
        }
        text
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let mut cells = Vec::with_capacity(row.len());
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            cells.push(match (self.is_number[at], at + 1 == row.len()) {
                (true, _) => format!("{cell:>width$}"),
                (false, true) => cell.clone(),
                (false, false) => format!("{cell:<width$}"),
            });
        }
        format!("{}\n", cells.join(" | "))
    }
}

/// A text with its control characters as escapes.
fn cell(text: &str) -> String {
    // Line breaks and tabs too, which `printable` passes: within a row they would break the alignment.
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// A number of bytes with a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
