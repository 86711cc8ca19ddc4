//! The catalog and the schema of names without one; and names that are near one that does not exist.

/// The catalog every table is in.
pub const CATALOG: &str = "causeway";
/// The schema of names without one: the views.
pub const DEFAULT_SCHEMA: &str = "public";
/// At most three known names near `wanted`, nearest first.
pub(crate) fn close_names<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, usize, &str)> = known
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = datafusion::common::utils::datafusion_strsim::levenshtein(&wanted, &lower);
            let near = distance <= 2.max(wanted.len() / 3) || (wanted.len() > 2 && lower.contains(&wanted));
            near.then_some((distance, name.len().abs_diff(wanted.len()), name))
        })
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(3).map(|(.., name)| name.to_owned()).collect()
}
