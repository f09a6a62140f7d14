//! Features are made once, by content, and what is wrong with them is said.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use harvest::augment::{Normalisation, View, ViewConfig};
use harvest::clustering::{AugmentedCopy, ClusterError, Embedding, LearnError, embed, embed_copy};
use harvest::report::Progress;
use harvest_models::Classifier;

use crate::world::{Clothes, resnet, vit};

fn run(
    network: &Classifier,
    clothes: &Clothes,
    indices: &[u32],
    folder: &Path,
    stop: bool,
) -> Result<Embedding, LearnError> {
    let stop = AtomicBool::new(stop);
    let normalisation = Normalisation::default();
    embed(network, &clothes.cache, indices, &normalisation, folder, &stop, &Progress::hidden())
}

fn shards(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let mut files: Vec<_> = files.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

#[test]
fn stored_features_are_used_again_even_when_images_are_added() {
    let clothes = Clothes::new(2600);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = vit();
    let few = run(&network, &clothes, &clothes.indices[..2100], folder.path(), false).expect("it runs");
    let first = shards(folder.path());
    assert_eq!((few.len(), few.dim(), first.len()), (2100, 16, 2));
    // With a request to stop only what is stored can be had.
    let again = run(&network, &clothes, &clothes.indices[..2100], folder.path(), true).expect("stored");
    assert_eq!(again, few);
    let more = run(&network, &clothes, &clothes.indices, folder.path(), true);
    assert!(matches!(more, Err(LearnError::Cluster(ClusterError::Interrupted))));
    let more = run(&network, &clothes, &clothes.indices, folder.path(), false).expect("it runs");
    assert_eq!(more.values()[..few.values().len()], *few.values());
    let stored = shards(folder.path());
    assert_eq!(stored.len(), 3, "the first 2048 images were not done again");
    // A damaged file is made again.
    std::fs::write(&stored[0], b"half").expect("writable");
    assert_eq!(run(&network, &clothes, &clothes.indices, folder.path(), false).expect("it runs"), more);
    // Other weights have features of their own.
    let mut other = network.clone();
    let mut tensors = other.to_tensors();
    for data in tensors.values_mut() {
        *data = data.clone().convert::<f32>();
        let values: Vec<f32> = data.iter::<f32>().map(|value| value * 1.5).collect();
        *data = burn::tensor::TensorData::new(values, data.shape().clone());
    }
    other.load_tensors(&tensors).expect("the same network");
    let other = run(&other, &clothes, &clothes.indices[..64], folder.path(), false).expect("it runs");
    assert_ne!(other.values(), &more.values()[..other.values().len()]);
}

#[test]
fn copies_are_views_and_differ() {
    let clothes = Clothes::new(70);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = resnet();
    let copy = |number, seed| {
        let (views, stop) = (ViewConfig::default(), AtomicBool::new(false));
        let copy = AugmentedCopy { views: &views, view: View::Strong, number, seed };
        let (cache, indices) = (&clothes.cache, &clothes.indices);
        embed_copy(&network, cache, indices, copy, folder.path(), &stop, &Progress::hidden())
            .expect("it runs")
    };
    let plain = run(&network, &clothes, &clothes.indices, folder.path(), false).expect("it runs");
    let first = copy(0, 1);
    assert_eq!(first, copy(0, 1));
    assert!(first != copy(1, 1) && first != copy(0, 2) && first != plain);
    assert_eq!(first.len(), plain.len());
}

#[test]
fn an_image_without_sound_features_is_named() {
    let clothes = Clothes::new(10);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut broken = vit();
    let mut tensors = broken.to_tensors();
    let name = "patch_embed.proj.bias";
    let mut values: Vec<f32> = tensors[name].iter::<f32>().collect();
    values[0] = f32::NAN;
    let shape = tensors[name].shape().clone();
    tensors.insert(name.to_owned(), burn::tensor::TensorData::new(values, shape));
    broken.load_tensors(&tensors).expect("the same shapes");
    let error = run(&broken, &clothes, &clothes.indices[3..], folder.path(), false).expect_err("no numbers");
    assert!(matches!(error, LearnError::NotFinite { image: 3 }), "{error:?}");
    assert!(error.to_string().contains("image 3"), "{error}");
    assert!(shards(folder.path()).is_empty(), "nothing of it is stored");
    let none = run(&vit(), &clothes, &[], folder.path(), false).expect("no images have no features");
    assert!(none.is_empty());
}
