use serde_json::json;

use super::*;

fn answer(chains: Value, evidence: &[&str]) -> Answer {
    let document = json!({ "chains": chains, "findings": [{ "verdict": { "verdict": "healthy" } }] });
    Answer { document, cpu: Duration::ZERO, evidence: evidence.iter().map(|row| (*row).to_owned()).collect() }
}

fn chain(rank: i64, cause: &str, share: f64) -> Value {
    let root_cause = "rank 3 was runnable but not running for 4.7s: cpu-hog (pid 9) had its CPU";
    json!({ "rank": rank, "cause": cause, "root_cause": root_cause, "explained_share": share, "evidence": ["a"] })
}

#[test]
fn only_the_whole_truth_about_a_hog_is_right() {
    let right = chain(3, "cpu_preemption", 0.97);
    let fault = |chains: Value, evidence: &[&str]| answer(chains, evidence).fault(true).unwrap_or_default();
    assert_eq!(fault(json!([right]), &["3,22,cpu-hog"]), "");
    assert!(fault(json!([]), &[]).contains("0 chain(s)"));
    assert!(fault(json!([right, right]), &["3,22,cpu-hog"]).contains("2 chain(s)"));
    assert!(fault(json!([chain(2, "cpu_preemption", 0.97)]), &["3,22,cpu-hog"]).contains("another rank"));
    assert!(fault(json!([chain(3, "reported", 0.97)]), &["3,22,cpu-hog"]).contains("another cause"));
    assert!(fault(json!([chain(3, "cpu_preemption", 0.4)]), &["3,22,cpu-hog"]).contains("less than half"));
    assert!(fault(json!([right]), &["3,22,rustc", "3,22,cpu-hog"]).contains("does not show the hog"));
    assert!(fault(json!([right]), &[]).contains("does not show the hog"));
}

#[test]
fn without_a_hog_any_blame_is_wrong() {
    assert_eq!(answer(json!([]), &[]).fault(false), None);
    let blamed = answer(json!([chain(3, "cpu_preemption", 0.97)]), &["3,22,cpu-hog"]).fault(false);
    assert!(blamed.is_some_and(|fault| fault.contains("blamed without a hog")));
}
