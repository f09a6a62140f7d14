//! Gradients of all ranks, summed while the backward pass goes on.
//!
//! Taps at the boundaries of blocks tell when the gradients behind them are final. They are packed into buckets, times this
//! rank's share, and a bucket goes out as soon as it is full; always in the same order, for all ranks run the same network.
//! In the first step nothing goes out early: it is then seen which gradients are final at their tap. The others travel last.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use harvest_collectives::{Bucket, HostBucket, Wire};
use harvest_kernels::{Found, Watcher};
use harvest_models::ParameterInfo;

use super::arrivals::Arrivals;
use super::buffer::Buffer;
use super::crew::Crew;
use super::plan::Plan;
use crate::config::DistributionConfig;

/// What summing gradients took, over several steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReduceTimes {
    /// Steps.
    pub steps: u64,
    /// Bytes this rank contributed, as single precision.
    pub bytes: u64,
    /// Buckets were on their way, one after the other.
    pub total: Duration,
    /// The step waited for them, after the backward pass.
    pub exposed: Duration,
}

impl ReduceTimes {
    /// The part of the exchange that the backward pass hid, from 0 to 1; 1 where there was none.
    pub fn hidden(&self) -> f64 {
        if self.total.is_zero() {
            return 1.0;
        }
        (1.0 - self.exposed.as_secs_f64() / self.total.as_secs_f64()).max(0.0)
    }
}

/// The sum of gradients over several ranks, for a network whose moving part stays the same.
#[derive(Debug)]
pub(super) struct Reduction {
    crew: Crew,
    device: Device,
    parameters: Vec<ParameterInfo>,
    /// Bytes of a bucket.
    size: usize,
    wire: Wire,
    flow: Arc<Flow>,
    times: ReduceTimes,
}

/// What taps reach.
#[derive(Debug)]
struct Flow {
    crew: Crew,
    plan: Plan,
    /// Whether this is the first step, in which it is only looked at what is final when.
    looking: bool,
    state: Mutex<State>,
}

/// A step's progress.
#[derive(Debug)]
struct State {
    /// Tracked tensors of the slots, during the backward pass.
    leaves: Vec<Option<DispatchTensor>>,
    /// Gradients found at taps in the first step.
    seen: Vec<Option<DispatchTensor>>,
    /// Slots that are packed.
    packed: Vec<bool>,
    /// Passes that have not come back to each stage.
    passes: Vec<usize>,
    /// Slots that each bucket waits for.
    missing: Vec<usize>,
    /// Those at home.
    buffers: Vec<Option<Buffer>>,
    /// The next bucket to go out.
    next: usize,
    arrivals: Arrivals,
}

impl Reduction {
    /// For `parameters`, of which those that are tracked now move.
    ///
    /// `device` is where gradients are.
    pub fn new(
        crew: &Crew,
        config: &DistributionConfig,
        parameters: Vec<ParameterInfo>,
        device: &Device,
    ) -> Self {
        let (size, wire) = ((config.bucket_mib * f64::from(1 << 20)) as usize, config.wire.into());
        let plan = Plan::new(parameters.clone(), &HashSet::new(), size);
        let flow = Arc::new(Flow::new(crew.clone(), plan, wire, device, true));
        let (crew, device) = (crew.clone(), device.clone());
        Self { crew, device, parameters, size, wire, flow, times: ReduceTimes::default() }
    }

    /// Who is to watch the passes of the coming step.
    pub fn watcher(&self) -> Arc<dyn Watcher> {
        self.flow.clone()
    }

    /// Begins a step of `module`; to be called for every module that learns.
    pub fn begin<M: Module>(&self, module: &M) {
        module.visit(&mut Leaves { plan: &self.flow.plan, state: &mut self.flow.state() });
    }

    /// Contributes what has not gone out during the backward pass.
    pub fn contribute<M: Module>(&self, module: &M, gradients: &GradientsParams) {
        let mut state = self.flow.state();
        module.visit(&mut Rest { flow: &self.flow, state: &mut state, gradients });
    }

    /// Sends what is left and waits for all buckets.
    pub fn arrive(&mut self) {
        let waited = {
            let mut state = self.flow.state();
            // A graph must not outlive its step, and the optimizer works in place only where it has the sole handle.
            state.leaves.fill(None);
            self.flow.skip_rest(&mut state);
            self.flow.send(&mut state);
            let began = Instant::now();
            for number in 0..state.buffers.len() {
                let arrival = state.arrivals.next();
                let bucket = self.crew.succeeded("sum of gradients", arrival.bucket);
                state.buffers[number] = Some(bucket.into());
                self.times.total += arrival.took;
            }
            began.elapsed()
        };
        self.times.exposed += waited;
        self.times.steps += 1;
        self.times.bytes += 4 * self.flow.plan.lengths.iter().sum::<usize>() as u64;
    }

    /// Puts the sums in the place of the gradients of `module`.
    pub fn spread<M: Module>(&self, module: &M, gradients: &mut GradientsParams) {
        module.visit(&mut Spread { plan: &self.flow.plan, state: &mut self.flow.state(), gradients });
    }

    /// Ends a step. After the first, gradients that were not final at their tap are put last, on every rank.
    pub fn end(&mut self) {
        if !self.flow.looking {
            self.flow.state().reset(&self.flow.plan);
            return;
        }
        let late = self.late();
        let plan = Plan::new(self.parameters.clone(), &late, self.size);
        self.flow = Arc::new(Flow::new(self.crew.clone(), plan, self.wire, &self.device, false));
    }

    /// What summing took since this was last asked.
    pub fn take_times(&mut self) -> ReduceTimes {
        std::mem::take(&mut self.times)
    }

    /// Parameters whose gradients were not final at their tap, on any rank.
    fn late(&self) -> HashSet<ParamId> {
        let state = self.flow.state();
        let mut bucket = HostBucket::new(self.flow.plan.slots.len(), Wire::F32);
        for (late, seen) in bucket.local.iter_mut().zip(&state.seen) {
            *late = f32::from(u8::from(seen.is_none()));
        }
        let pending = self.crew.communicator().all_reduce_sum(Bucket::Host(bucket));
        match self.crew.arrived("order of gradients", pending) {
            Bucket::Host(bucket) => {
                let slots = self.flow.plan.slots.iter().zip(&bucket.sum);
                slots.filter(|(_, late)| **late > 0.5).map(|(slot, _)| slot.id).collect()
            }
            _ => unreachable!("a bucket comes back as it went out"),
        }
    }
}

impl Flow {
    fn new(crew: Crew, plan: Plan, wire: Wire, device: &Device, looking: bool) -> Self {
        let state =
            State::new(&plan, |number, length| Buffer::new(length, plan.flags(number), wire, &crew, device));
        Self { crew, plan, looking, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends this rank anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends out all buckets in order that wait for nothing.
    fn send(&self, state: &mut State) {
        while state.missing.get(state.next) == Some(&0) {
            if let Some(buffer) = state.buffers[state.next].take() {
                state.arrivals.expect(self.crew.communicator().all_reduce_sum(buffer.into()));
            }
            state.next += 1;
        }
    }

    /// Contributes nothing to the slots that have no gradient.
    fn skip_rest(&self, state: &mut State) {
        for (slot, _) in self.plan.slots.iter().zip(&state.packed).filter(|(_, packed)| !**packed) {
            if let Some(buffer) = &mut state.buffers[slot.bucket] {
                buffer.skip(slot);
            }
        }
        state.missing.fill(0);
    }

    fn pack(&self, state: &mut State, slot: usize, gradient: DispatchTensor) {
        let place = &self.plan.slots[slot];
        if let Some(buffer) = &mut state.buffers[place.bucket] {
            buffer.write(place, gradient, self.crew.share() as f32);
        }
        state.packed[slot] = true;
        state.missing[place.bucket] -= 1;
    }
}

impl Watcher for Flow {
    fn entered(&self, stage: usize) {
        if let Some(passes) = self.state().passes.get_mut(stage) {
            *passes += 1;
        }
    }

    fn passed(&self, stage: usize, found: &Found<'_>) {
        let mut state = self.state();
        let Some(passes) = state.passes.get_mut(stage) else { return };
        *passes -= 1;
        if *passes > 0 {
            return;
        }
        for slot in 0..self.plan.slots.len() {
            if self.plan.slots[slot].stage != Some(stage) {
                continue;
            }
            let Some(gradient) = state.leaves[slot].as_ref().and_then(found) else { continue };
            match self.looking {
                true => state.seen[slot] = Some(gradient),
                false => self.pack(&mut state, slot, gradient),
            }
        }
        self.send(&mut state);
    }
}

impl State {
    fn new(plan: &Plan, buffer: impl Fn(usize, usize) -> Buffer) -> Self {
        let mut state = Self {
            leaves: vec![None; plan.slots.len()],
            seen: vec![None; plan.slots.len()],
            packed: Vec::new(),
            passes: Vec::new(),
            missing: Vec::new(),
            buffers: plan
                .lengths
                .iter()
                .enumerate()
                .map(|(number, length)| Some(buffer(number, *length)))
                .collect(),
            next: 0,
            arrivals: Arrivals::new(),
        };
        state.reset(plan);
        state
    }

    /// As before a step.
    fn reset(&mut self, plan: &Plan) {
        self.packed = vec![false; plan.slots.len()];
        self.passes = vec![0; plan.stages()];
        self.missing = vec![0; plan.lengths.len()];
        plan.slots.iter().for_each(|slot| self.missing[slot.bucket] += 1);
        self.next = 0;
    }
}

struct Leaves<'a> {
    plan: &'a Plan,
    state: &'a mut State,
}

impl ModuleVisitor for Leaves<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(slot) = self.plan.slot(parameter.id) {
            self.state.leaves[slot] = Some(parameter.val().into_dispatch());
        }
    }
}

/// What is packed after the backward pass. In the first step, also looks whether what was seen at taps was final.
struct Rest<'a> {
    flow: &'a Flow,
    state: &'a mut State,
    gradients: &'a GradientsParams,
}

impl ModuleVisitor for Rest<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(slot) = self.flow.plan.slot(parameter.id).filter(|slot| !self.state.packed[*slot]) else {
            return;
        };
        let Some(gradient) = self.gradients.get::<D>(parameter.id) else { return };
        if let Some(seen) = self.state.seen[slot].take() {
            // Held until here, so that nothing was added to it in place.
            let final_at_tap = Tensor::<D>::from_dispatch(seen.clone()).into_data() == gradient.to_data();
            self.state.seen[slot] = final_at_tap.then_some(seen);
        }
        self.flow.pack(self.state, slot, gradient.into_dispatch());
    }
}

struct Spread<'a> {
    plan: &'a Plan,
    state: &'a mut State,
    gradients: &'a mut GradientsParams,
}

impl ModuleVisitor for Spread<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(slot) = self.plan.slot(parameter.id).map(|slot| &self.plan.slots[slot]) else { return };
        drop(self.gradients.remove::<D>(parameter.id));
        let weight = parameter.val();
        let buffer = self.state.buffers[slot.bucket].as_mut().expect("all buckets have come home");
        if let Some(sum) = buffer.read(slot, weight.dims(), &weight.device().inner()) {
            self.gradients.register(parameter.id, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use harvest_models::{Classifier, ClassifierConfig, Company, Mode, Noise, Rows, Tuning};

    use super::*;

    fn config(text: &str) -> ClassifierConfig {
        serde_json::from_str(text).expect("a configuration")
    }

    /// One step of two passes, which all ranks would make; how many parameters went out during the backward pass.
    fn step(reduction: &mut Reduction, network: &Classifier, number: u64) -> usize {
        reduction.begin(network);
        let watcher = reduction.watcher();
        let pass = |images: usize, first: u64| {
            let size = [images, 3, 32, 32];
            let images = Tensor::random(size, Distribution::Normal(0.0, 1.0), &Device::flex());
            let noise = Noise { seed: number, rows: Rows::From(first) };
            let company = Company { watcher: Some(&watcher), statistics: None };
            network.forward(images, Mode::Train { noise, company }).logits.square().sum()
        };
        let gradients = (pass(3, 0) + pass(4, 3)).backward();
        let mut gradients = GradientsParams::from_grads(gradients, network);
        let early = reduction.flow.state().packed.iter().filter(|packed| **packed).count();
        reduction.contribute(network, &gradients);
        reduction.arrive();
        let mut sums = GradientsParams::new();
        reduction.spread(network, &mut sums);
        network.visit(&mut Same { gradients: &mut gradients, sums: &mut sums });
        reduction.end();
        early
    }

    /// What went out, and came back from the one rank there is, must be the final gradient to the last bit.
    struct Same<'a> {
        gradients: &'a mut GradientsParams,
        sums: &'a mut GradientsParams,
    }

    impl ModuleVisitor for Same<'_> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let [gradient, sum] = [&mut *self.gradients, &mut *self.sums]
                .map(|from| from.remove::<D>(parameter.id).map(Tensor::into_data));
            assert_eq!(sum, gradient);
        }
    }

    #[test]
    fn most_gradients_go_out_early_and_are_final() {
        let vit = r#"{"vit": {"image_size": 32, "patch": 8, "dim": 24, "depth": 3, "heads": 3, "drop_path": 0.2,
                      "classes": 3}}"#;
        let convnext = r#"{"convnext": {"image_size": 32, "stages": [{"blocks": 2, "dim": 8}, {"blocks": 1, "dim": 12}],
                           "layer_scale": 0.1, "drop_path": 0.2, "classes": 3}}"#;
        let device = Device::flex().autodiff();
        let plain = |config: ClassifierConfig| config.init(1, &device).expect("valid");
        let preset = |name| plain(ClassifierConfig::preset(name, 3).expect("a preset"));
        let scaled = vit.replace("\"drop_path\"", "\"registers\": 1, \"layer_scale\": 0.1, \"drop_path\"");
        let scaled = plain(config(&scaled));
        let lora = plain(config(vit)).tuned(Tuning::Lora { rank: 2, scale: 1.0 }, 7).expect("a transformer");
        for (name, network) in [
            ("vit", plain(config(vit))),
            ("vit with layer scale", scaled),
            ("vit with LoRA", lora),
            ("resnet8", preset("resnet8")),
            ("efficientnet_lite0", preset("efficientnet_lite0")),
            ("convnext", plain(config(convnext))),
        ] {
            // Those of the embedding are ready when the backward pass ends; some others are reshaped or scaled before use.
            let deepest = network.parameters().iter().map(|p| p.depth).max();
            let changed = ["gamma", "low_rank.b", "downsample.1.weight"];
            let changed =
                |p: &ParameterInfo| name != "resnet8" && changed.iter().any(|end| p.name.ends_with(end));
            let late = |p: &ParameterInfo| Some(p.depth) == deepest || changed(p);
            let rest = network.parameters().into_iter().filter(late).count();
            let all = network.parameters().len();
            let options = DistributionConfig { bucket_mib: 0.05, ..DistributionConfig::default() };
            let mut reduction =
                Reduction::new(&Crew::alone(7), &options, network.parameters(), &Device::flex());
            assert_eq!(step(&mut reduction, &network, 0), 0, "the first step looks on");
            for number in 1..3 {
                let early = step(&mut reduction, &network, number);
                println!("{name}: {early} of {all} parameters go out during the backward pass");
                assert_eq!(early, all - rest, "{name}");
            }
            let times = reduction.take_times();
            assert_eq!(times.steps, 3);
            assert_eq!(reduction.take_times(), ReduceTimes::default());
        }
    }
}
