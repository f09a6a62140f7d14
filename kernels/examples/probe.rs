#![allow(unsafe_code, missing_docs)]
use std::time::Instant;
fn time(name: &str, flop: f64, mut f: impl FnMut()) {
    f();
    let mut best = f64::MAX;
    let t0 = Instant::now();
    while t0.elapsed().as_secs_f64() < 0.15 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    println!("{name}: {:.3} ms {:.1} GFLOP/s", best * 1e3, flop / best / 1e9);
}
#[target_feature(enable = "avx512f")]
fn peak(n: usize) -> f32 {
    use std::arch::x86_64::*;
    let mut a = [_mm512_set1_ps(1.0); 24];
    let b = std::hint::black_box(_mm512_set1_ps(0.999));
    let c = std::hint::black_box(_mm512_set1_ps(1e-3));
    for _ in 0..n {
        for x in a.iter_mut() {
            *x = _mm512_fmadd_ps(*x, b, c);
        }
    }
    let mut s = 0.0;
    for x in a {
        s += _mm512_reduce_add_ps(x);
    }
    s
}
fn main() {
    let n = 1_000_000usize;
    time("peak fma 1 thread", n as f64 * 24.0 * 32.0, || {
        std::hint::black_box(unsafe { peak(std::hint::black_box(n)) });
    });
    time("peak fma 2 threads", 2.0 * n as f64 * 24.0 * 32.0, || {
        rayon::join(
            || std::hint::black_box(unsafe { peak(std::hint::black_box(n)) }),
            || std::hint::black_box(unsafe { peak(std::hint::black_box(n)) }),
        );
    });
    let g = |m: usize, n: usize, k: usize, ta: bool, tb: bool, two: bool| {
        let a = vec![0.5f32; m * k];
        let b = vec![0.25f32; k * n];
        let c = vec![0f32; m * n];
        let c2 = vec![0f32; m * n];
        let (acs, ars) = if ta { (m as isize, 1) } else { (1, k as isize) };
        let (bcs, brs) = if tb { (k as isize, 1) } else { (1, n as isize) };
        let run = |c: &[f32]| unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_ptr() as *mut f32,
                1,
                n as isize,
                false,
                a.as_ptr(),
                acs,
                ars,
                b.as_ptr(),
                bcs,
                brs,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            )
        };
        time(
            &format!("gemm {m}x{n}x{k} ta{ta} tb{tb} two{two}"),
            if two { 2.0 } else { 1.0 } * 2.0 * (m * n * k) as f64,
            || {
                if two {
                    rayon::join(|| run(&c), || run(&c2));
                } else {
                    run(&c)
                }
            },
        );
    };
    for two in [false, true] {
        g(4112, 768, 192, false, false, two);
        for m in [48, 64, 96, 128, 192, 257, 512] {
            g(m, 768, 192, false, false, two);
            g(m, 192, 768, false, false, two);
        }
        g(256, 192, 768, false, true, two);
        g(256, 768, 192, false, true, two);
        g(192, 768, 1028, true, false, two);
        g(768, 192, 1028, true, false, two);
        g(192, 768, 256, true, false, two);
        g(192, 768, 2056, true, false, two);
        g(257, 257, 64, false, true, two);
        g(257, 64, 257, false, false, two);
        g(257, 64, 257, true, false, two);
        g(256, 256, 64, false, true, two);
        g(256, 64, 256, false, false, two);
    }
}
