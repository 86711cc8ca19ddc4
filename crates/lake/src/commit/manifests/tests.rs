use super::*;

const POLICY: MergePolicy = MergePolicy { fanout: 4, target_bytes: 1_000_000, target_entries: 1_000 };

fn size(entries: u64) -> Size {
    Size { entries, bytes: entries * 100 }
}

#[test]
fn a_full_class_is_merged_and_larger_ones_left_alone() {
    let sizes: Vec<_> = [16, 1, 16, 1, 1, 4].map(size).to_vec();
    assert_eq!(members_to_merge(&sizes, POLICY), [0usize; 0], "three of a kind are not full");
    let sizes: Vec<_> = [16, 1, 16, 1, 1, 4, 1].map(size).to_vec();
    assert_eq!(members_to_merge(&sizes, POLICY), [1, 3, 4, 6]);
}

#[test]
fn the_lowest_full_class_goes_first_and_one_merge_happens_at_a_time() {
    let sizes: Vec<_> = [4, 4, 4, 4, 1, 1, 1, 1].map(size).to_vec();
    assert_eq!(members_to_merge(&sizes, POLICY), [4, 5, 6, 7]);
}

#[test]
fn large_manifests_are_never_rewritten() {
    let by_entries = vec![size(501); 8];
    assert_eq!(members_to_merge(&by_entries, POLICY), [0usize; 0]);
    let by_bytes = vec![Size { entries: 1, bytes: 500_001 }; 8];
    assert_eq!(members_to_merge(&by_bytes, POLICY), [0usize; 0]);
}

#[test]
fn a_merge_stops_at_the_target_size() {
    let sizes = vec![size(300); 8];
    assert_eq!(members_to_merge(&sizes, POLICY), [0, 1, 2]);
}

/// Plays a long life of one-file commits: the manifests stay few and the rewriting logarithmic.
#[test]
fn a_hundred_thousand_commits_keep_manifests_few_and_rewrites_rare() {
    let policy = MergePolicy::DEFAULT;
    let (mut sizes, mut rewritten, mut most) = (Vec::<Size>::new(), 0u64, 0);
    let commits = 100_000u64;
    for _ in 0..commits {
        sizes.push(Size { entries: 1, bytes: 2_500 });
        let members = members_to_merge(&sizes, policy);
        if !members.is_empty() {
            let merged = members.iter().fold(Size { entries: 0, bytes: 0 }, |sum, i| Size {
                entries: sum.entries + sizes[*i].entries,
                bytes: sum.bytes + sizes[*i].bytes,
            });
            rewritten += merged.entries;
            let mut i = 0;
            sizes.retain(|_| {
                i += 1;
                !members.contains(&(i - 1))
            });
            sizes.push(merged);
        }
        most = most.max(sizes.len());
    }
    println!("{most} manifests at most, {:.2} rewrites per entry", rewritten as f64 / commits as f64);
    assert_eq!(sizes.iter().map(|s| s.entries).sum::<u64>(), commits);
    assert!(most <= 100, "{most} manifests");
    assert!(rewritten <= 4 * commits, "{rewritten} entries rewritten for {commits} commits");
}
