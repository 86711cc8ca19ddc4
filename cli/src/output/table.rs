//! Rows as people read them: aligned columns under a heading, numbers to the right.

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
    /// A table whose columns are all text until [`Self::numbers`] says otherwise.
    pub(crate) fn new(heading: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let heading: Vec<String> = heading.into_iter().map(|name| cell(&name.into())).collect();
        Self { is_number: vec![false; heading.len()], heading, rows: Vec::new() }
    }

    /// Columns that are numbers.
    pub(crate) fn numbers(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        columns.into_iter().for_each(|at| self.is_number[at] = true);
        self
    }

    /// Adds a row with a cell for every column; what is not given stays empty. Line breaks and other control characters are shown
    /// as escapes.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut row: Vec<String> = cells.into_iter().map(|text| cell(text.as_ref())).collect();
        row.resize(self.heading.len(), String::new());
        self.rows.push(row);
    }

    /// The table; the last column is not padded.
    pub(crate) fn render(&self) -> String {
        let width = |text: &String| text.chars().count();
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|at| self.rows.iter().map(|row| width(&row[at])).chain([width(&self.heading[at])]).max().unwrap_or(0))
            .collect();
        let line = |cells: &[String]| {
            let pad = |at: usize| match (self.is_number[at], at + 1 == cells.len()) {
                (true, _) => format!("{:>1$}", cells[at], widths[at]),
                (false, true) => cells[at].clone(),
                (false, false) => format!("{:<1$}", cells[at], widths[at]),
            };
            format!("{}\n", (0..cells.len()).map(pad).collect::<Vec<_>>().join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = line(&self.heading);
        text += &format!("{}\n", rule.join("-+-"));
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

fn cell(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    if text.chars().any(char::is_control) { text.chars().map(shown).collect() } else { text.to_owned() }
}

/// A number of bytes for people.
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
