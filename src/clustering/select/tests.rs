use super::*;
use proptest::prelude::*;
use rand::RngExt;

/// `count` images around each of three directions; image `i` is of direction `i % 3`.
fn clouds(count: usize) -> (Embedding, Vec<u32>) {
    let mut rng = stream(7, Purpose::Select, [1, 0, 0]);
    let values = (0..3 * count).flat_map(|i| {
        let mut row = [0f32; 3];
        row[i % 3] = 1.0;
        row.map(|value| value + 0.2 * (rng.random::<f32>() - 0.5))
    });
    let rows = Embedding::new(values.collect(), 3).expect("finite").normalised();
    (rows, (0..3 * count as u32).map(|i| i % 3).collect())
}

fn choose(pool: &Pool, strategy: Selection, count: usize, seed: u64) -> Vec<Choice> {
    pool.choose(strategy, count, seed, &Device::flex(), &AtomicBool::new(false)).expect("chooses")
}

#[test]
fn clusters_take_turns() {
    let (rows, clusters) = clouds(10);
    let alone: Vec<u32> = (0..30).collect();
    let pool = Pool {
        rows: &rows,
        clusters: &clusters,
        first: &alone,
        labelled: &[],
        open: &alone,
        probabilities: None,
    };
    let chosen = choose(&pool, Selection::Clusters, 6, 1);
    let of: Vec<u32> = chosen.iter().map(|choice| clusters[choice.image as usize]).collect();
    assert_eq!(of, [0, 1, 2, 0, 1, 2]);
    assert_ne!(chosen, choose(&pool, Selection::Clusters, 6, 2));
}

#[test]
fn typical_images_are_one_of_each_group_and_not_its_outlier() {
    let (rows, _) = clouds(20);
    let mut values = rows.values().to_vec();
    // Image 0 stays nearest to its group, and far from all.
    values[..3].copy_from_slice(&[0.8, -0.6, 0.0]);
    let rows = Embedding::new(values, 3).expect("finite");
    let alone: Vec<u32> = (0..60).collect();
    let pool = Pool {
        rows: &rows,
        clusters: &[0; 60],
        first: &alone,
        labelled: &[],
        open: &alone,
        probabilities: None,
    };
    let chosen = choose(&pool, Selection::Typical, 3, 0);
    let mut of: Vec<u32> = chosen.iter().map(|choice| choice.image % 3).collect();
    of.sort_unstable();
    assert_eq!(of, [0, 1, 2]);
    assert!(chosen.iter().all(|choice| choice.image != 0));
    // With a label in two groups the third comes first.
    let pool = Pool { labelled: &[1, 2], open: &alone[3..], ..pool };
    assert_eq!(choose(&pool, Selection::Typical, 1, 0)[0].image % 3, 0);
}

#[test]
fn coverage_goes_to_what_is_far_from_every_label() {
    let (rows, _) = clouds(10);
    let alone: Vec<u32> = (0..30).collect();
    let pool = Pool {
        rows: &rows,
        clusters: &[0; 30],
        first: &alone,
        labelled: &[0, 1],
        open: &alone[2..],
        probabilities: None,
    };
    let chosen = choose(&pool, Selection::Coverage, 2, 0);
    assert_eq!(chosen[0].image % 3, 2);
    assert!(chosen[0].score > chosen[1].score && chosen[1].score > 0.0);
}

#[test]
fn the_least_sure_are_spread_over_classes_and_groups() {
    let (rows, clusters) = clouds(10);
    let alone: Vec<u32> = (0..30).collect();
    // Of each predicted class the first three images are unsure.
    let probabilities: Vec<f32> = (0..30)
        .flat_map(|i| {
            let mut row = if i < 9 { [0.3; 3] } else { [0.01; 3] };
            row[i % 3] = 1.0 - row[0] - row[1];
            row
        })
        .collect();
    let pool = Pool {
        rows: &rows,
        clusters: &clusters,
        first: &alone,
        labelled: &[],
        open: &alone,
        probabilities: Some((&probabilities, 3)),
    };
    let chosen = choose(&pool, Selection::Uncertain, 3, 0);
    let mut of: Vec<u32> = chosen.iter().map(|choice| choice.image % 3).collect();
    of.sort_unstable();
    assert_eq!(of, [0, 1, 2]);
    assert!(chosen.iter().all(|choice| choice.image < 9), "{chosen:?}");
    let blind = Pool { probabilities: None, ..pool };
    let found = blind.choose(Selection::Uncertain, 3, 0, &Device::flex(), &AtomicBool::new(false));
    assert!(matches!(found, Err(ClusterError::NoModel)));
}

#[test]
fn equal_images_can_be_chosen_by_every_strategy() {
    let rows = Embedding::new(vec![1.0; 24], 2).expect("finite").normalised();
    let alone: Vec<u32> = (0..12).collect();
    let probabilities = vec![0.5; 24];
    let pool = Pool {
        rows: &rows,
        clusters: &[0; 12],
        first: &alone,
        labelled: &[3],
        open: &[0, 1, 2, 4, 5, 6, 7],
        probabilities: Some((&probabilities, 2)),
    };
    for strategy in Selection::ALL {
        assert_eq!(choose(&pool, strategy, 5, 0).len(), 5, "{strategy:?}");
        // More than there are: all.
        assert_eq!(choose(&pool, strategy, 50, 0).len(), 7, "{strategy:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    /// Whatever the strategy: as many as asked for if there are, none twice, none labelled, no two nearly the same, and the
    /// same again with the same seed.
    #[test]
    fn choices_are_distinct_open_and_repeatable(
        count in 1usize..20, groups in 1u32..30, labelled in 0usize..10, seed: u64, which in 0usize..5,
    ) {
        let (rows, clusters) = clouds(10);
        let first: Vec<u32> = (0..30).map(|i| i % groups).collect();
        let all: Vec<u32> = (0..30).collect();
        let (labelled, open) = all.split_at(labelled);
        let probabilities: Vec<f32> = rows.values().iter().map(|value| value.abs()).collect();
        let pool = Pool {
            rows: &rows, clusters: &clusters, first: &first, labelled, open, probabilities: Some((&probabilities, 3)),
        };
        let chosen = choose(&pool, Selection::ALL[which], count, seed);
        prop_assert_eq!(&chosen, &choose(&pool, Selection::ALL[which], count, seed));
        let of: std::collections::BTreeSet<u32> = chosen.iter().map(|c| first[c.image as usize]).collect();
        prop_assert_eq!(of.len(), chosen.len());
        prop_assert!(chosen.iter().all(|choice| open.contains(&choice.image)));
        let taken: std::collections::BTreeSet<u32> = labelled.iter().map(|i| first[*i as usize]).collect();
        let groups_open: std::collections::BTreeSet<u32> = open.iter().map(|i| first[*i as usize]).collect();
        let new = groups_open.difference(&taken).count();
        let expected = if new == 0 { groups_open.len() } else { new };
        prop_assert_eq!(chosen.len(), count.min(expected));
    }
}
