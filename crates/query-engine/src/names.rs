//! The catalog and the schema of names without one, and suggestions for names that do not exist.

/// The catalog every table is in.
pub const CATALOG: &str = "causeway";
/// The schema of names without one. It holds the views.
pub const DEFAULT_SCHEMA: &str = "public";

/// At most three known names near `wanted`, nearest first.
pub(crate) fn close_names<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, usize, &str)> = known
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = datafusion::common::utils::datafusion_strsim::levenshtein(&wanted, &lower);
            // Levenshtein distance: two edits in a short name, one edit for three characters in a long one. A name that
            // contains the wanted one is near as well: `rank` suggests `local_rank`.
            let near = distance <= 2.max(wanted.len() / 3) || (wanted.len() > 2 && lower.contains(&wanted));
            near.then_some((distance, name.len().abs_diff(wanted.len()), name))
        })
        .collect();
    // By distance, then by difference in length, then by name, so that the suggestion is the same on every run.
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(3).map(|(.., name)| name.to_owned()).collect()
}
