//! `harvest doctor`: devices, versions, and what is missing.

use clap::Args;

/// Show devices, versions, and what is missing.
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    pub fn run(self) -> anyhow::Result<()> {
        let features = match crate::project::features() {
            none if none.is_empty() => "none (CPU only)".to_owned(),
            some => some.join(", "),
        };
        println!(
            "harvest   {} for {}-{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        );
        println!("features  {features}");
        println!("burn      {}", crate::project::BURN_VERSION);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        println!("cpu       {threads} threads{}", simd());
        match crate::device::cuda_devices() {
            Ok(count) => println!(
                "cuda      {count} devices: {}",
                (0..count).map(|n| format!("cuda:{n}")).collect::<Vec<_>>().join(", ")
            ),
            Err(reason) => println!("cuda      none: {reason}"),
        }
        #[cfg(feature = "cuda")]
        println!("nccl      {}", nccl());
        let device = crate::device::by_name("auto")?;
        println!("default   {}", crate::device::describe(&device));
        // The proof that the device computes, not only that it is listed.
        let ones = burn::tensor::Tensor::<2>::ones([64, 64], &device);
        let sum = ones.clone().matmul(ones).sum().into_scalar::<f32>();
        anyhow::ensure!(sum == 64.0 * 64.0 * 64.0, "the device multiplies wrongly: {sum}");
        println!("check     a matrix product on it is right");
        Ok(())
    }
}

/// What several GPUs need to train together.
#[cfg(feature = "cuda")]
fn nccl() -> String {
    match harvest_collectives::nccl::Library::load() {
        Ok(library) => format!("{} from {}", library.version(), library.path().display()),
        Err(error) => format!("none, and so no training on several GPUs: {error}"),
    }
}

fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if harvest_kernels::has_bf16_products() {
            ", AVX-512 with bf16 products (training.precision = \"bf16\")"
        } else if std::arch::is_x86_feature_detected!("avx512f") {
            ", AVX-512"
        } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            ", AVX2"
        } else {
            ", SSE2 only: expect slow training"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    ""
}
