//! Several faults at once: who is blamed, who is mentioned, and who costs the job nothing.

use super::{chains, judged, reason, the_chain};
use crate::fixture::{Fault, Job};
use crate::{Reason, Verdict, text};

fn hog(rank: usize) -> Fault {
    Fault::Hog { rank, from: 0, to: usize::MAX }
}

#[test]
fn a_hog_on_a_rank_that_comes_before_a_slower_one_is_not_blamed_and_the_slower_one_is_named() {
    let faults = [Fault::MoreWork { rank: 1, times: 2.0 }, hog(2)];
    let finding = judged(&Job { hog_strength: 0.4, ..Job::with(faults) });
    assert!(matches!(reason(&finding), Reason::Unexplained { rank: 1, .. }), "{:?}", finding.verdict);
    assert!(finding.ranking.iter().all(|rank| !rank.is_blamed));
}

#[test]
fn of_two_faults_the_larger_is_told() {
    let finding = judged(&Job::with([Fault::MoreWork { rank: 1, times: 1.4 }, hog(2)]));
    assert_eq!(the_chain(&finding).rank, Some(2));
    let Verdict::Chains { unexplained, .. } = &finding.verdict else { panic!("{:?}", finding.verdict) };
    assert_eq!(unexplained, &[], "rank 1 comes before rank 2 in every iteration");
}

#[test]
fn a_slow_rank_without_a_chain_is_told_beside_the_chains() {
    let faults = [Fault::MoreWork { rank: 1, times: 1.6 }, Fault::Hog { rank: 2, from: 0, to: 300 }];
    let finding = judged(&Job { iterations: 600, ..Job::with(faults) });
    assert_eq!(the_chain(&finding).rank, Some(2));
    let Verdict::Chains { unexplained, .. } = &finding.verdict else { panic!("{:?}", finding.verdict) };
    assert!(matches!(unexplained[..], [Reason::Unexplained { rank: 1, .. }]), "{unexplained:?}");
    let told = finding.ranking.iter().find(|rank| rank.rank == 1).and_then(|rank| rank.unexplained.clone());
    assert_eq!(told.as_ref(), unexplained.first());
    let text = text::finding(&finding);
    assert!(text.ends_with(&format!("unknown: job train-1: {}\n", unexplained[0])), "{text}");
    assert_eq!(chains(&finding).len(), 1);
}
