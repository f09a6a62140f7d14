//! Every algorithm on several ranks, against the recorded numbers of one rank with the joined batch.
//!
//! Ranks are threads that show each other rows through channels. Each gets its slice of the recorded batch; masks must
//! be the slices of the recorded mask, states the recorded ones on every rank, and losses and gradients their means.

use super::linked::{ring, share};
use super::*;
use harvest::training::Crew;

/// What one rank says after one iteration.
struct Seen {
    total: f32,
    mask: Vec<f32>,
    /// In the order of [`GRADIENTS`].
    gradients: Vec<Vec<f32>>,
    state: State,
}

/// The recorded gradients, in the order of [`Seen::gradients`].
const GRADIENTS: [&str; 3] = ["grad/logits_lb", "grad/logits_s", "grad/logits_w"];

/// One recorded case of an algorithm.
struct Case<'a> {
    name: AlgorithmName,
    vectors: &'a Vectors,
    case: &'a str,
    facts: &'a Value,
}

impl Case<'_> {
    fn number(&self, key: &str) -> usize {
        self.facts[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
    }

    fn input(&self, what: &str) -> String {
        format!("{}/in/{what}", self.case.split('/').next().expect("class group"))
    }

    /// All iterations on one rank.
    fn run(&self, ranks: &Crew, skip_masked: bool) -> Vec<Seen> {
        let (classes, steps) = (self.number("num_classes"), self.number("num_train_iter") as u64);
        let world = ranks.world_size();
        let device = Device::flex().autodiff();
        let pool = self.facts["unlabelled_pool"].as_u64().unwrap_or(0) as usize;
        let problem = Problem::bare(classes, pool, steps, &device);
        let mut algorithm = config(self.name, &self.facts["hyperparameters"]).build(&problem);
        let network = StandIn { rows_are_independent: skip_masked, ranks };
        let views = algorithm.views();
        let mut seen = Vec::new();
        for t in 0..self.number("iterations") {
            let slice = |name: &str| {
                let values = self.vectors.floats_at(&self.input(name), t);
                let values = &values[share(values.len(), ranks)];
                let rows = values.len() / classes;
                Tensor::<4>::from_data(TensorData::new(values.to_vec(), [rows, classes, 1, 1]), &device)
                    .require_grad()
            };
            let labelled = slice("logits_lb");
            let weak: Vec<_> = (0..views.weak).map(|_| slice("logits_w")).collect();
            let strong: Vec<_> = (0..views.strong).map(|_| slice("logits_s")).collect();
            let labels = self.vectors.integers_at(&self.input("y_lb"), t);
            let rows = weak.first().map_or(0, |weak| weak.dims()[0] * world);
            let all = match self.vectors.has(&self.input("idx_ulb")) {
                true => self.vectors.integers_at(&self.input("idx_ulb"), t),
                false => (0..rows as i64).collect(),
            };
            let batch = SslBatch {
                labels: Tensor::<1, Int>::from_data(&labels[share(labels.len(), ranks)], &device),
                places: Places {
                    labelled: Place::of(&share(labels.len(), ranks), labels.len()),
                    unlabelled: Place::of(&share(all.len(), ranks), all.len()),
                },
                indices: all[share(all.len(), ranks)].iter().map(|index| *index as u32).collect(),
                step: t as u64,
                total_steps: steps,
                skip_masked,
                objective: Objective::default(),
                labelled: labelled.clone(),
                weak: weak.clone(),
                strong: strong.clone(),
            };
            let step = algorithm.step(&network, &batch);
            let total = values(step.total.clone().inner())[0];
            let gradients = step.total.backward();
            let leaves = [Some(&labelled), strong.first(), weak.first()];
            seen.push(Seen {
                total,
                mask: step.pseudo_labels.map(|pseudo| values(pseudo.mask)).unwrap_or_default(),
                gradients: leaves
                    .into_iter()
                    .map(|leaf| {
                        let Some(leaf) = leaf else { return Vec::new() };
                        let rows = leaf.dims()[0];
                        leaf.grad(&gradients).map_or_else(|| vec![0.0; rows * classes], values)
                    })
                    .collect(),
                state: algorithm.state(),
            });
        }
        seen
    }

    /// Compares what the ranks saw with what was recorded.
    fn check(&self, seen: &[Vec<Seen>]) {
        let world = seen.len() as f32;
        for t in 0..self.number("iterations") {
            let what = |part: &str| format!("{} on {world} ranks, iteration {t}: {part}", self.case);
            let expected = |part: &str| self.vectors.floats_at(&format!("{}/{part}", self.case), t);
            let at = || seen.iter().map(move |rank| &rank[t]);
            let total = at().map(|seen| seen.total).sum::<f32>() / world;
            assert_close(&what("total"), &[total], &expected("out/total_loss"), VALUE.0, VALUE.1);
            let mask: Vec<f32> = at().flat_map(|seen| seen.mask.clone()).collect();
            if !mask.is_empty() {
                check_mask(self.name, &what("mask"), &mask, &expected("out/mask"));
            }
            for (i, part) in GRADIENTS.iter().enumerate() {
                if self.vectors.has(&format!("{}/{part}", self.case)) {
                    let found: Vec<f32> =
                        at().flat_map(|seen| &seen.gradients[i]).map(|g| g / world).collect();
                    assert_close(&what(part), &found, &expected(part), GRADIENT.0, GRADIENT.1);
                }
            }
            for seen in at() {
                check_state(self.vectors, self.case, t, &seen.state);
            }
        }
    }
}

fn agree(world: usize, skip_masked: bool) {
    let index = json("algorithms/index.json");
    let mut algorithms = 0;
    for name in AlgorithmName::ALL {
        let Some(entry) = index.get(name.as_str()) else { continue };
        let vectors = Vectors::read(&format!("algorithms/{}", entry["file"].as_str().expect("file name")));
        let cases = entry["cases"].as_object().expect("cases");
        if !vectors.has("c10/in/logits_lb") {
            continue; // recorded with a network of its own
        }
        algorithms += 1;
        for (case, facts) in cases {
            let case = Case { name: *name, vectors: &vectors, case, facts };
            let seen: Vec<Vec<Seen>> = std::thread::scope(|scope| {
                let case = &case;
                let ranks: Vec<_> = ring(world)
                    .into_iter()
                    .map(|rank| scope.spawn(move || case.run(&rank, skip_masked)))
                    .collect();
                ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
            });
            case.check(&seen);
        }
    }
    assert!(algorithms >= 8, "{algorithms} algorithms");
}

#[test]
fn ranks_algorithm_two_ranks_are_one() {
    agree(2, false);
}

#[test]
fn ranks_algorithm_four_ranks_are_one() {
    agree(4, false);
}

#[test]
fn ranks_algorithm_four_ranks_are_one_without_the_masked_views() {
    agree(4, true);
}
