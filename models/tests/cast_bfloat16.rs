//! bfloat16 by casting weights and activations, as on GPUs: here in burn's own operations on the CPU, whose fused products
//! would round for themselves. That choice holds for a whole process, so these tests have one of their own.

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Distribution, Tensor};
use harvest_kernels::{Kernels, choose};
use harvest_models::{Classifier, ClassifierConfig, Mode, Precision, Tuning};

fn networks() -> Vec<Classifier> {
    choose(Kernels::Reference);
    let device = Device::flex().autodiff();
    let vit = r#"{"vit": {"image_size": 16, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "classes": 3}}"#;
    let vit: ClassifierConfig = serde_json::from_str(vit).expect("a configuration");
    let resnet = ClassifierConfig::preset("resnet8", 3).expect("a preset");
    let [vit, resnet] = [vit, resnet].map(|config| config.init(1, &device).expect("valid"));
    let tuned = |tuning| vit.clone().tuned(tuning, 7).expect("a transformer");
    let lora = tuned(Tuning::Lora { rank: 3, scale: 2.0 });
    let adapter = tuned(Tuning::Adapter { rank: 5, scale: 0.5 });
    vec![vit, resnet, lora, adapter]
}

#[test]
fn cast_networks_stay_close_and_give_f32_gradients() {
    for exact in networks() {
        let cast = exact.clone().separate().with_precision(Precision::Bf16);
        let images = Tensor::random([4, 3, 16, 16], Distribution::Normal(0.0, 1.0), &Device::flex());
        for mode in [Mode::Evaluate, Mode::train(5)] {
            let read = |logits: Tensor<2>| logits.into_data().iter::<f32>().collect::<Vec<_>>();
            let expected = read(exact.forward(images.clone(), mode).logits);
            let logits = cast.forward(images.clone(), mode).logits;
            let found = read(logits.clone());
            // Roundings of 8 bits add up over the layers.
            let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 0.03 * largest, "{found}, in f32 {expected}");
            }
            assert_ne!(found, expected, "nothing was rounded");
            let gradients = GradientsParams::from_grads(logits.square().sum().backward(), &cast);
            for parameter in cast.parameters() {
                let dtype = match parameter.shape.len() {
                    1 => gradients.get::<1>(parameter.id).map(|gradient| gradient.dtype()),
                    2 => gradients.get::<2>(parameter.id).map(|gradient| gradient.dtype()),
                    3 => gradients.get::<3>(parameter.id).map(|gradient| gradient.dtype()),
                    _ => gradients.get::<4>(parameter.id).map(|gradient| gradient.dtype()),
                };
                assert_eq!(dtype, Some(DType::F32), "{}", parameter.name);
            }
        }
    }
}
