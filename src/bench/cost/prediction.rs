//! Time, speed-up and efficiency on many ranks, and the arithmetic behind one of these numbers.

use serde::Serialize;

use super::{Device, Network, StepProfile, Workload, slowest_of};
use crate::bench::significant;
use crate::config::Scaling;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// What stays the same.
    pub scaling: Scaling,
    /// Labelled images a step, of a rank (weak) or of all (strong).
    pub batch: u32,
    /// Unlabelled images per labelled one.
    pub uratio: f64,
    /// Unlabelled images of an epoch.
    pub images: u64,
}

/// A number of ranks, and what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Ranks.
    pub ranks: usize,
    /// Labelled images a step of the rank that has most.
    pub local_batch: u32,
    /// A step.
    pub seconds_per_step: f64,
    /// An epoch.
    pub seconds_per_epoch: f64,
    /// Time of an epoch on one rank over that on these.
    pub speedup: f64,
    /// Speed-up over ranks.
    pub efficiency: f64,
    /// Seconds of a step in which sums were under way and nothing was computed.
    pub exposed: f64,
    /// Share of the sums' time that the backward pass hid.
    pub hidden: f64,
}

/// Predicts; numbers of ranks that would leave one without an image are left out.
pub fn predict(
    step: impl Fn(f64) -> StepProfile,
    network: &Network,
    plan: &Plan,
    ranks: &[usize],
) -> Vec<Prediction> {
    let one = on(&step, network, plan, 1);
    let fits = |ranks: &&usize| plan.scaling == Scaling::Weak || **ranks <= plan.batch as usize;
    ranks
        .iter()
        .filter(fits)
        .map(|&ranks| {
            let found = on(&step, network, plan, ranks);
            let speedup = one.seconds_per_epoch / found.seconds_per_epoch;
            Prediction { speedup, efficiency: speedup / ranks as f64, ..found }
        })
        .collect()
}

fn on(step: impl Fn(f64) -> StepProfile, network: &Network, plan: &Plan, ranks: usize) -> Prediction {
    let (local, global) = match plan.scaling {
        Scaling::Weak => (f64::from(plan.batch), f64::from(plan.batch) * ranks as f64),
        // The rank with most rows is waited for.
        Scaling::Strong => ((f64::from(plan.batch) / ranks as f64).ceil(), f64::from(plan.batch)),
    };
    let timeline = step(local).on(network, ranks);
    let steps = plan.images as f64 / (global * plan.uratio);
    Prediction {
        ranks,
        local_batch: local as u32,
        seconds_per_step: timeline.seconds(),
        seconds_per_epoch: timeline.seconds() * steps,
        speedup: 1.0,
        efficiency: 1.0,
        exposed: timeline.exposed,
        hidden: timeline.hidden(),
    }
}

/// How the weak-scaling efficiency of `ranks` devices comes about, line by line.
pub fn arithmetic(
    workload: &Workload,
    device: &Device,
    network: &Network,
    batch: u32,
    ranks: usize,
) -> Vec<String> {
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    let (forward, both) = workload.passes(f64::from(batch));
    let (giga, tera) = (workload.forward_flops() / 1e9, workload.flops(f64::from(batch)) / 1e12);
    let profile = workload.on(device, f64::from(batch));
    let timeline = profile.on(network, ranks);
    let backward: f64 = profile.backward.iter().map(|stage| stage.seconds).sum();
    let nodes = ranks.div_ceil(network.ranks_per_node);
    let mut lines = vec![
        format!("device           {}: {:.3} Tflop/s", device.name, device.flops / 1e12),
        format!(
            "network          {} ranks a node; within {:.0} GB/s, {:.0} µs; between {:.1} GB/s a node, {:.0} µs; {:.0} µs a call",
            network.ranks_per_node,
            network.within.bandwidth / 1e9,
            network.within.latency * 1e6,
            network.between.bandwidth / 1e9,
            network.between.latency * 1e6,
            network.call * 1e6
        ),
        format!(
            "an image         {:.3} Gflop forward ({} parameters, {:.2} MB of gradients in f32)",
            giga,
            workload.parameters(),
            workload.parameters() * 4.0 / 1e6
        ),
        format!(
            "a step           {forward:.0} weak views forward, {both:.1} labelled and strong ones forward and back: ({forward:.0} + 3 · {both:.1}) · {giga:.3} Gflop = {tera:.3} Tflop"
        ),
        format!(
            "forward          ({forward:.0} + {both:.1}) · {giga:.3} Gflop / speed + {} fixed = {}",
            ms(device.fixed),
            ms(profile.forward)
        ),
        format!("backward         2 · {both:.1} · {giga:.3} Gflop / speed = {}", ms(backward)),
        format!(
            "optimizer        7 · 4 · {} B / {:.1} TB/s = {}",
            workload.parameters(),
            device.memory / 1e12,
            ms(profile.optimizer)
        ),
        format!("one device       {} a step", ms(timeline.computing)),
    ];
    let (mut now, mut free) = (0.0f64, 0.0f64);
    for stage in &profile.backward {
        now += stage.seconds;
        for &bytes in &stage.buckets {
            let (seconds, way) = network.all_reduce(ranks, bytes);
            let start = now.max(free);
            free = start + seconds;
            lines.push(format!(
                "bucket           {:.2} MB complete at {} of the backward pass, starts at {}, takes {} ({way}; {ranks} ranks, {nodes} nodes), there at {}",
                bytes / 1e6,
                ms(now),
                ms(start),
                ms(seconds),
                ms(free)
            ));
        }
    }
    lines.extend([
        format!(
            "exposed          {} - {} = {} of {} ({:.1} % hidden)",
            ms(free.max(now)),
            ms(now),
            ms(timeline.exposed),
            ms(timeline.reducing),
            timeline.hidden() * 100.0
        ),
        format!(
            "statistics       {} gathers in the forward pass: {}",
            profile.gathers.len(),
            ms(timeline.gathering)
        ),
        format!(
            "slowest          σ = {:.2} % of {}, largest of {ranks}: {:.3} σ = {}",
            device.jitter * 100.0,
            ms(timeline.computing),
            slowest_of(ranks),
            ms(timeline.waiting)
        ),
        format!(
            "{ranks:<4} devices     {} + {} + {} + {} = {} a step",
            ms(timeline.computing),
            ms(timeline.gathering),
            ms(timeline.exposed),
            ms(timeline.waiting),
            ms(timeline.seconds())
        ),
        format!(
            "efficiency       {} / {} = {:.2} %, speed-up {:.2}",
            ms(timeline.computing),
            ms(timeline.seconds()),
            100.0 * timeline.computing / timeline.seconds(),
            ranks as f64 * timeline.computing / timeline.seconds()
        ),
    ]);
    lines
}

/// The weak-scaling efficiency of `ranks` devices with one assumption changed at a time.
pub fn sensitivity(
    workload: &Workload,
    device: &Device,
    network: &Network,
    batch: u32,
    ranks: usize,
) -> Vec<(String, f64)> {
    let efficiency = |workload: &Workload, device: &Device, network: &Network, batch: u32| {
        let timeline = workload.on(device, f64::from(batch)).on(network, ranks);
        significant(timeline.computing / timeline.seconds())
    };
    let mut rows = vec![("as assumed".to_owned(), efficiency(workload, device, network, batch))];
    for jitter in [0.0, 0.01, 0.02] {
        let name = format!("a step's time varies by {:.0} %", jitter * 100.0);
        rows.push((name, efficiency(workload, &Device { jitter, ..device.clone() }, network, batch)));
    }
    for factor in [0.5, 0.25] {
        let mut slower = *network;
        slower.between.bandwidth *= factor;
        let name = format!("{:.1} GB/s between nodes", slower.between.bandwidth / 1e9);
        rows.push((name, efficiency(workload, device, &slower, batch)));
    }
    let mut late = *network;
    (late.between.latency, late.within.latency, late.call) =
        (10.0 * late.between.latency, 10.0 * late.within.latency, 10.0 * late.call);
    rows.push(("all latencies tenfold".to_owned(), efficiency(workload, device, &late, batch)));
    for factor in [2.0, 0.5] {
        let faster = Device { flops: device.flops * factor, ..device.clone() };
        let name = format!("{:.0} Tflop/s", faster.flops / 1e12);
        rows.push((name, efficiency(workload, &faster, network, batch)));
    }
    let nothing_fixed = Device { fixed: 0.0, ..device.clone() };
    rows.push(("no fixed time in a step".to_owned(), efficiency(workload, &nothing_fixed, network, batch)));
    let masked = Workload { strong_computed: 0.0, ..workload.clone() };
    rows.push((
        "every strong view masked and left out".to_owned(),
        efficiency(&masked, device, network, batch),
    ));
    let narrow = Workload { wire_bytes: 2.0, ..workload.clone() };
    rows.push(("bf16 on the wire".to_owned(), efficiency(&narrow, device, network, batch)));
    let one_bucket = Workload { buckets: (f64::INFINITY, f64::INFINITY), ..workload.clone() };
    rows.push(("one bucket: nothing hidden".to_owned(), efficiency(&one_bucket, device, network, batch)));
    if batch > 1 {
        let name = format!("{} labelled images a device", batch / 2);
        rows.push((name, efficiency(workload, device, network, batch / 2)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Speed, a100, ascend, published};
    use super::*;

    const RANKS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

    fn speed() -> impl Strategy<Value = Speed> {
        prop_oneof![Just(Speed::Published), Just(Speed::Tf32), Just(Speed::Bf16)]
    }

    proptest! {
        #[test]
        fn nothing_scales_better_than_its_ranks(speed in speed(), batch in 1u32..129, strong: bool, figure in 0usize..4) {
            let workload = published()[figure].workload();
            let scaling = if strong { Scaling::Strong } else { Scaling::Weak };
            let plan = Plan { scaling, batch, uratio: 1.0, images: 10_000 };
            let found = predict(|batch| workload.on(&a100(speed), batch), &ascend(), &plan, &RANKS);
            prop_assert_eq!(found[0].speedup, 1.0);
            for pair in found.windows(2) {
                prop_assert!(pair[1].efficiency <= pair[0].efficiency + 1e-9, "{pair:?}");
                prop_assert!(pair[1].ranks > pair[0].ranks && pair[1].efficiency > 0.0);
            }
            prop_assert!(found.iter().all(|one| scaling == Scaling::Weak || one.ranks <= batch as usize));
        }
    }

    #[test]
    fn the_arithmetic_ends_where_the_prediction_does() {
        let workload = published()[0].workload();
        let plan = Plan { scaling: Scaling::Weak, batch: 64, uratio: 1.0, images: 10_100 };
        let device = a100(Speed::Bf16);
        let found = predict(|batch| workload.on(&device, batch), &ascend(), &plan, &[16])[0];
        let lines = arithmetic(&workload, &device, &ascend(), 64, 16);
        let last = lines.last().expect("it ends");
        assert!(last.contains(&format!("{:.2} %", found.efficiency * 100.0)), "{last} / {found:?}");
        let rows = sensitivity(&workload, &device, &ascend(), 64, 16);
        assert!((rows[0].1 - found.efficiency).abs() < 1e-5);
        let of = |name: &str| rows.iter().find(|row| row.0.contains(name)).expect(name).1;
        assert!(of("varies by 2") < of("varies by 1") && of("varies by 0") > rows[0].1);
        assert!(of("one bucket") < rows[0].1 && of("latencies") < rows[0].1);
    }
}
