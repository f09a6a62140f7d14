//! Training that has gone wrong says so and leaves nothing behind that would go wrong again.

use harvest::training::TrainError;

use crate::world::{World, resnet_recipe, vit_recipe};

#[test]
fn an_absurd_learning_rate_is_reported() {
    let world = World::new();
    for (mut recipe, lr) in [(vit_recipe(), 1e30), (resnet_recipe(), 1e30)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.config.training.lr = lr;
        recipe.config.training.log_every = 1;
        let error = world.train(&recipe, folder.path()).err().expect("no such rate can work");
        assert!(matches!(error, TrainError::Diverged { loss, .. } if !loss.is_finite()), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("training.lr") && message.contains("training.warmup_steps"), "{message}");
    }
}

#[test]
fn what_has_diverged_is_never_saved() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut recipe = vit_recipe();
    // A good start, then a rate that ruins the weights between two lines of the log.
    world.train_until(2, &recipe, folder.path());
    let sound = recipe.config.training.lr;
    recipe.config.training.lr = 1e30;
    recipe.config.training.log_every = 1000;
    let error = world.train(&recipe, folder.path()).err().expect("no such rate can work");
    assert!(matches!(error, TrainError::Diverged { .. }), "{error:?}");
    assert_eq!(recipe.last(folder.path()).progress.step, 2);
    // As the message advises.
    recipe.config.training.lr = sound;
    world.train(&recipe, folder.path()).expect("the run goes on from its last good weights");
}
