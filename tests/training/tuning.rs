//! Training a part of a network: what is kept fixed stays to the last bit, and an interruption changes nothing.

use harvest::config::{ConfigPath, TuningName};
use harvest::training::{ScopeError, TrainError};

use crate::resume::resumes;
use crate::world::{Recipe, World, resnet_recipe, vit_recipe};

/// Both families, the classifier alone for 3 of 11 steps, then all but the first of two blocks.
fn recipes() -> [Recipe; 2] {
    [vit_recipe(), resnet_recipe()].map(|mut recipe| {
        recipe.config.training.head_warmup_steps = 3;
        recipe.config.training.frozen = 1;
        recipe
    })
}

/// Interrupted before, at and after the end of the warm-up.
#[test]
fn a_part_of_a_network_goes_on_as_if_never_interrupted() {
    for recipe in recipes() {
        for interruptions in [2, 3, 6] {
            resumes(&recipe, interruptions);
        }
    }
}

#[test]
fn fixed_parameters_stay_to_the_last_bit_and_have_no_optimizer_state() {
    let world = World::new();
    for recipe in recipes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |steps: u64| {
            let folder = folder.path().join(steps.to_string());
            world.train_until(steps, &recipe, &folder);
            recipe.last(&folder)
        };
        let [first, third, last] = [1, 3, 6].map(at);
        let network = recipe.model.blank(&burn::tensor::Device::flex()).expect("a valid network");
        let deepest = recipe.model.max_depth();
        for parameter in network.parameters() {
            let (name, fixed) = (&parameter.name, parameter.depth + 1 >= deepest);
            // The classifier alone moves at first; what is fixed never does, nor does its average.
            assert_eq!(first.model[name] == third.model[name], parameter.depth > 0, "{name}");
            assert_eq!(third.model[name] == last.model[name], fixed, "{name}");
            assert_eq!(first.ema[name] == last.ema[name], fixed, "{name}");
            let state = |of: &harvest_models::NamedTensors| {
                of.keys().any(|key| key.split_once('/').is_some_and(|(_, own)| own == name))
            };
            assert_eq!(state(&third.optimizer), parameter.depth == 0, "{name}");
            assert_eq!(state(&last.optimizer), !fixed, "{name}");
        }
    }
}

#[test]
fn more_fixed_blocks_than_there_are_is_refused_before_the_first_step() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = vit_recipe();
        change(&mut recipe);
        match world.train(&recipe, folder.path()) {
            Err(TrainError::Scope(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it must be refused"),
        }
    };
    let error = refused(&|recipe| recipe.config.training.frozen = 3);
    assert_eq!(error, ScopeError::Frozen { frozen: 3, blocks: 2 });
    let error = refused(&|recipe| recipe.config.training.head_warmup_steps = 11);
    assert_eq!(error, ScopeError::HeadWarmup { warmup: 11, steps: 11 });
    assert!(!folder.path().join("checkpoints").exists());
}

/// LoRA, adapters, and a classifier on fixed features.
fn tunings() -> [Recipe; 3] {
    [TuningName::Lora, TuningName::Adapter, TuningName::Linear].map(|tuning| {
        let mut recipe = vit_recipe();
        recipe.config.training.tuning = tuning;
        recipe.config.training.tuning_rank = Some(3);
        recipe.config.training.layer_decay = 1.0;
        recipe
    })
}

#[test]
fn a_tuned_network_goes_on_as_if_never_interrupted() {
    for mut recipe in tunings() {
        resumes(&recipe, 4);
        recipe.config.training.head_warmup_steps = 3;
        resumes(&recipe, 5);
    }
}

#[test]
fn tuning_moves_what_it_added_and_ends_in_an_ordinary_network() {
    let world = World::new();
    for mut recipe in tunings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pretrained = folder.path().join("pretrained.safetensors");
        let base = recipe.model.init(99, &burn::tensor::Device::flex()).expect("a valid network");
        base.save_safetensors(&pretrained).expect("writable");
        let base = base.to_tensors();
        recipe.config.model.pretrained = Some(ConfigPath(pretrained));
        let outcome = world.train(&recipe, folder.path()).expect("the run ends");

        let last = recipe.last(folder.path());
        for (name, data) in &base {
            let head = name.starts_with("head.");
            assert_eq!(&last.model[name] == data, !head, "{name}");
            assert_eq!(&last.ema[name] == data, !head, "{name}");
        }
        let added = last.model.len() - base.len();
        let trained = last.optimizer.keys().filter(|key| key.starts_with("first/")).count();
        assert_eq!(trained, added + 2);
        let adds = recipe.config.training.tuning != TuningName::Linear;
        assert_eq!(added, if adds { 2 * 4 } else { 0 });

        // What is kept is of the ordinary kind, and not the network that it started from.
        let mut plain = outcome.model.blank(&burn::tensor::Device::flex()).expect("a valid network");
        plain.load_tensors(&outcome.network.to_tensors()).expect("names and shapes of an ordinary network");
        let kept = outcome.network.to_tensors();
        let changed = base.keys().filter(|name| name.starts_with("blocks.") && kept[*name] != base[*name]);
        assert_eq!(changed.count() > 0, adds);
        let wider = recipe.config.training.tuning == TuningName::Adapter;
        assert_eq!(outcome.model != recipe.model, wider);
    }
}
