//! Unequal classes and doubtful labels: what the section `[labels]` does to a run.

use std::sync::atomic::AtomicBool;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use harvest::algorithms::{
    Algorithm, AlgorithmBuilder, AlgorithmName, Aligned, Network, Places, PseudoLabels, SslBatch, StepLoss,
    Student, Targets,
};
use harvest::algorithms::{Alignment, Problem};
use harvest::config::{AlignmentTarget, Sampling};
use harvest::report::Progress;
use harvest::training::{TrainError, train};

use crate::resume::resumes;
use crate::world::{Recipe, World, resnet_recipe, vit_recipe};

fn with(change: impl Fn(&mut Recipe)) -> Recipe {
    let mut recipe = vit_recipe();
    change(&mut recipe);
    recipe
}

#[test]
fn every_option_trains_and_goes_on_after_an_interruption() {
    for change in [
        |recipe: &mut Recipe| recipe.config.labels.sampling = Sampling::Classes,
        |recipe: &mut Recipe| recipe.config.labels.smoothing = 0.1,
        |recipe: &mut Recipe| recipe.config.labels.logit_adjustment = 1.0,
        |recipe: &mut Recipe| recipe.config.labels.ordinal_width = 0.5,
        |recipe: &mut Recipe| recipe.config.labels.alignment = AlignmentTarget::Uniform,
        |recipe: &mut Recipe| recipe.config.labels.alignment = AlignmentTarget::Labelled,
    ] {
        resumes(&with(change), 4);
    }
}

#[test]
fn alignment_goes_with_every_algorithm_that_has_none_of_its_own() {
    let mut aligned = 0;
    for name in AlgorithmName::ALL {
        let recipe = with(|recipe| {
            recipe.config.algorithm.name = *name;
            recipe.config.labels.alignment = AlignmentTarget::Uniform;
        });
        match recipe.config.check() {
            Ok(()) => {
                aligned += 1;
                resumes(&recipe, 3);
            }
            Err(refusal) => {
                let own = ["adamatch", "softmatch", "remixmatch", "self_training", "supervised"];
                assert!(own.contains(&name.as_str()), "{name}: {refusal}");
                assert!(refusal.to_string().contains("labels.alignment"), "{refusal}");
            }
        }
    }
    assert_eq!(aligned, AlgorithmName::ALL.len() - 5);
}

/// The weights after a step differ by option, so each option reaches the loss.
#[test]
fn options_change_what_is_learned() {
    let world = World::new();
    let weights = |change: &dyn Fn(&mut Recipe)| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let recipe = with(change);
        world.train_until(2, &recipe, folder.path());
        recipe.last(folder.path()).model["head.weight"].clone()
    };
    let plain = weights(&|_| ());
    assert_ne!(plain, weights(&|recipe| recipe.config.labels.smoothing = 0.2));
    assert_ne!(plain, weights(&|recipe| recipe.config.labels.ordinal_width = 1.0));
    assert_ne!(plain, weights(&|recipe| recipe.config.labels.sampling = Sampling::Classes));
    // The world's classes are equally frequent: adjustment adds the same to all logits.
    assert_eq!(plain.shape(), weights(&|recipe| recipe.config.labels.logit_adjustment = 1.0).shape());
}

/// Logits that are given: images `[N, C, 1, 1]` are their own logits.
struct Given;

impl Network for Given {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        images.flatten::<3>(2, 3).squeeze_dim::<2>(2)
    }
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows)
    }
    fn rows_are_independent(&self) -> bool {
        true
    }
}

/// Hands on what it sees of the teacher as soft labels.
struct Mirror;

impl Algorithm for Mirror {
    fn name(&self) -> &'static str {
        "mirror"
    }
    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let seen = softmax(batch.teach(network), 1);
        let everything = Tensor::ones([seen.dims()[0]], &seen.device());
        let pseudo =
            PseudoLabels { mask: everything.clone(), targets: Targets::Soft(seen), threshold: everything };
        let student = Student::pass(network, batch, &pseudo);
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        StepLoss::of(supervised, student.consistency(), 1.0, pseudo)
    }
}

#[test]
fn an_aligned_algorithm_sees_aligned_predictions() {
    let device = Device::flex();
    let problem = Problem { labelled_per_class: vec![5, 3, 2], ..Problem::bare(3, 4, 100, &device) };
    let target = problem.class_frequencies();
    let mut aligned = Aligned::new(Box::new(Mirror), 0.9, target.clone());
    let mut expected = Alignment::new(0.9, target);
    for step in 0..3u64 {
        let values: Vec<f32> = (0..12).map(|i| ((i * 7 + step as usize * 5) % 11) as f32 / 3.0).collect();
        let weak = Tensor::<1>::from_data(values.as_slice(), &device).reshape([4, 3, 1, 1]);
        let batch = SslBatch {
            labelled: weak.clone().narrow(0, 0, 2),
            labels: Tensor::from_data([0i32, 2], &device),
            weak: vec![weak.clone()],
            strong: vec![weak.clone()],
            indices: vec![0, 1, 2, 3],
            places: Places::whole(2, 4),
            step,
            total_steps: 100,
            skip_masked: true,
            objective: Default::default(),
        };
        let loss = aligned.step(&Given, &batch);
        let Some(PseudoLabels { targets: Targets::Soft(found), .. }) = loss.pseudo_labels else {
            panic!("mirrors make soft labels")
        };
        let plain = softmax(Given.teacher(weak, &[]), 1);
        expected.observe(plain.clone());
        let difference = (found - expected.align(plain)).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
    }
    // The wrapper's means come back beside the algorithm's own state.
    let mut other = Aligned::new(Box::new(Mirror), 0.9, problem.class_frequencies());
    other.restore(aligned.state()).expect("its own state");
    assert_eq!(other.state(), aligned.state());
    assert!(other.restore(Default::default()).is_err());
}

/// A loss that is no number from one step on, of which one part is the cause.
#[derive(Debug)]
struct Spoiled {
    from: u64,
}

impl AlgorithmBuilder for Spoiled {
    fn name(&self) -> &str {
        "freematch"
    }
    fn build(&self, _problem: &Problem) -> Box<dyn Algorithm> {
        Box::new(Self { from: self.from })
    }
}

impl Algorithm for Spoiled {
    fn name(&self) -> &'static str {
        "spoiled"
    }
    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let mut loss = Mirror.step(network, batch);
        if batch.step >= self.from {
            loss.scalars[1].1 = loss.scalars[1].1.clone().full_like(f32::INFINITY);
            loss.total = loss.total.mul_scalar(f32::INFINITY);
        }
        loss
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_at_its_step_and_names_the_part() {
    let (world, recipe) = (World::new(), resnet_recipe());
    for from in [1, 6, 9] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let spoiled = Spoiled { from };
        let mut job = world.job(&recipe);
        job.algorithm = &spoiled;
        let error = train(&job, folder.path(), &AtomicBool::new(false), &Progress::hidden());
        let error = error.err().expect("no run can go on from there");
        // Checkpoints are due after every fifth step and after better evaluations, every fourth.
        let TrainError::Diverged { step, part, saved, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*step, *part), (from, Some("unsup")));
        assert_eq!(saved.is_some(), from > 4, "{error}");
        if let Some(saved) = saved {
            assert!(*saved <= from, "the loss was a number up to there: {error}");
            assert!(error.to_string().contains(&format!("after step {saved}")), "{error}");
        }
        assert!(error.to_string().contains("`unsup`"), "{error}");
    }
}
