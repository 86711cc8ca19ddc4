//! What holds over many random jobs: how often the answer is right, and that it does not depend on the order or pace of the rows.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{MS, chains, judged, only};
use crate::Engine;
use crate::fixture::{Fault, Job, Row, feed, findings};

/// Figures over many seeds, healthy and hogged, each with its own noise.
#[test]
fn two_hundred_healthy_jobs_blame_nobody_and_two_hundred_hogged_ones_the_right_rank() {
    let seeds = 200;
    let (mut false_blames, mut right, mut wrong, mut shares) = (0, 0, 0, Vec::new());
    for seed in 0..seeds {
        let shape = Job {
            seed,
            iterations: 80 + (seed as usize % 5) * 20,
            work_ns: (4 + seed as i64 % 12) * MS,
            crowd_ns: (seed as i64 % 3) * MS,
            ..Job::default()
        };
        let healthy = judged(&shape);
        false_blames += usize::from(!chains(&healthy).is_empty());
        let rank = if shape.crowd_ns > 0 { 3 } else { seed as usize % 4 };
        let hogged = judged(&Job { faults: vec![Fault::Hog { rank, from: 0, to: usize::MAX }], ..shape });
        match chains(&hogged) {
            [chain] if chain.rank == Some(rank as i32) && chain.summary.contains("cpu-hog") => {
                right += 1;
                shares.push(chain.explained_share.unwrap_or(0.0));
            }
            [] => {}
            _ => wrong += 1,
        }
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "{seeds} seeds: healthy falsely blamed {false_blames}; hogged: right {right}, wrong rank {wrong}, silent {}; \
         explained share min {:.2} median {:.2}",
        seeds as i32 - right - wrong,
        shares.first().copied().unwrap_or(0.0),
        shares.get(shares.len() / 2).copied().unwrap_or(0.0),
    );
    assert_eq!((false_blames, wrong), (0, 0));
    assert!(right * 100 >= seeds as i32 * 95, "{right} of {seeds}");
}

/// The shape of the live case: the GPU paces the job, and a rank that computes for an eighth of the iteration loses half a CPU.
#[test]
fn where_the_gpu_paces_the_job_the_hogged_rank_is_found_and_no_other() {
    for seed in 0..40 {
        let shape = Job { seed, iterations: 400, work_ns: MS / 2, gpu_ns: 3 * MS, ..Job::default() };
        assert_eq!(chains(&judged(&shape)), [], "seed {seed}");
        let hogged = judged(&Job { faults: vec![Fault::Hog { rank: 3, from: 0, to: usize::MAX }], ..shape });
        let [chain] = chains(&hogged) else { panic!("seed {seed}: {:?}", hogged.verdict) };
        assert_eq!(chain.rank, Some(3), "seed {seed}");
        assert!(chain.root_cause.contains(": cpu-hog ") && chain.explained_share.is_some_and(|share| share > 0.5));
    }
}

/// How weak a hog is still found. The share of its CPU that the rank loses is strength / (1 + strength).
#[test]
fn weaker_hogs_are_found_less_often_and_nobody_else_is_blamed() {
    let found = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0].map(|hog_strength| {
        let blamed = (0..40).map(|seed| judged(&Job { seed, hog_strength, iterations: 120, ..Job::hog(1) }));
        let blamed: Vec<Option<i32>> =
            blamed.flat_map(|finding| chains(&finding).iter().map(|c| c.rank).collect::<Vec<_>>()).collect();
        assert!(blamed.iter().all(|rank| *rank == Some(1)), "{blamed:?} at {hog_strength}");
        println!("hog strength {hog_strength}: {} of 40 found", blamed.len());
        blamed.len()
    });
    assert!(found[3] >= 38 && found[4] == 40 && found[5] == 40, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_plays_no_part(seed in 0_u64..1_000, shuffle in any::<u64>(), hogged in any::<bool>()) {
        let job = Job { seed, iterations: 80, ..if hogged { Job::hog(2) } else { Job::default() } };
        let rows = job.rows();
        let mut shuffled = rows.clone();
        shuffled.shuffle(&mut StdRng::seed_from_u64(shuffle));
        prop_assert_eq!(findings(&rows), findings(&shuffled));
    }

    #[test]
    fn order_plays_no_part_within_the_lateness_either(seed in 0_u64..1_000, shuffle in any::<u64>()) {
        let rows = Job { seed, iterations: 80, ..Job::hog(2) }.rows();
        let mut rng = StdRng::seed_from_u64(shuffle);
        let (mut engine, mut other) = (Engine::default(), Engine::default());
        for part in rows.chunks(1_500) {
            let until_ns = part.iter().map(|row| row.ts_ns).min().unwrap_or(0) - 1;
            prop_assert_eq!(engine.advance(until_ns), other.advance(until_ns));
            feed(&mut engine, part);
            let mut shuffled = part.to_vec();
            shuffled.shuffle(&mut rng);
            feed(&mut other, &shuffled);
        }
        prop_assert_eq!(engine.finish(), other.finish());
    }

    #[test]
    fn a_job_of_slower_time_is_judged_the_same(seed in 0_u64..1_000, times in 2_i64..40, hogged in any::<bool>()) {
        let job = Job { seed, iterations: 120, ..if hogged { Job::hog(1) } else { Job::default() } };
        let rows = job.rows();
        let origin_ns = rows.iter().map(|row| row.boot_ns).min().unwrap_or(0);
        let stretched = |row: &Row| {
            let more_ns = (row.boot_ns - origin_ns) * (times - 1);
            Row {
                ts_ns: row.ts_ns + more_ns,
                boot_ns: row.boot_ns + more_ns,
                duration_ns: row.duration_ns * times,
                ..row.clone()
            }
        };
        let slow: Vec<Row> = rows.iter().map(stretched).collect();
        let blamed = |rows: &[Row]| chains(&only(findings(rows))).iter().map(|chain| chain.rank).collect::<Vec<_>>();
        prop_assert_eq!(blamed(&rows), blamed(&slow));
        prop_assert_eq!(blamed(&slow), if hogged { vec![Some(1)] } else { vec![] });
    }
}
