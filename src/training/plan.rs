//! Which gradient travels in which bucket.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use burn::module::ParamId;
use harvest_models::ParameterInfo;

/// Bytes of the first bucket at most, so that the exchange begins early.
const FIRST: usize = 1 << 20;
/// Bytes that the last buckets may have; with fewer, latency outweighs bytes on fast networks.
const LAST: usize = 4 << 20;
const BYTES: usize = size_of::<f32>();

/// Parameters that move, in the order in which their gradients are ready, cut into buckets.
///
/// Behind the gradients a bucket has one number for each of its parameters, 1 where this rank has a gradient: a parameter
/// without one on any rank stays as it is, as on a single rank.
#[derive(Debug)]
pub(super) struct Plan {
    pub slots: Vec<Slot>,
    /// Numbers in each bucket.
    pub lengths: Vec<usize>,
    index: HashMap<ParamId, usize>,
}

/// The place of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub id: ParamId,
    /// The tap at which its gradient is final: its depth. None if that is known to be later.
    pub stage: Option<usize>,
    pub bucket: usize,
    /// Its numbers in the bucket.
    pub range: Range<usize>,
    /// Where the bucket tells that there is a gradient.
    pub present: usize,
    /// Which of the numbers at its end that is.
    pub flag: usize,
}

impl Plan {
    /// For those of `parameters` that are tracked. Gradients come from the head down; those of `late` come last. `bucket`
    /// is the size of a bucket in bytes; a larger parameter has one of its own. Nothing hides the last bucket, so towards
    /// the end no bucket takes more than half of what is left.
    pub fn new(parameters: Vec<ParameterInfo>, late: &HashSet<ParamId>, bucket: usize) -> Self {
        let mut moving: Vec<_> = parameters.into_iter().filter(|parameter| parameter.tracked).rev().collect();
        moving.sort_by_key(|parameter| (late.contains(&parameter.id), parameter.depth));
        let bytes = |parameter: &ParameterInfo| parameter.shape.iter().product::<usize>() * BYTES;
        let mut left: usize = moving.iter().map(bytes).sum();
        let mut buckets: Vec<Vec<(ParameterInfo, usize)>> = Vec::new();
        let (mut filled, mut room) = (0, bucket.min(FIRST));
        for parameter in moving {
            let size = bytes(&parameter);
            if buckets.is_empty() {
                buckets.push(Vec::new());
            } else if filled + size > room {
                buckets.push(Vec::new());
                (filled, room) = (0, bucket.min(LAST.max(left / 2)));
            }
            filled += size;
            left -= size;
            buckets.last_mut().expect("one was made").push((parameter, size / BYTES));
        }
        let (mut slots, mut lengths) = (Vec::new(), Vec::new());
        for (number, bucket) in buckets.into_iter().enumerate() {
            let total: usize = bucket.iter().map(|(_, count)| count).sum();
            let mut start = 0;
            lengths.push(total + bucket.len());
            for (place, (parameter, count)) in bucket.into_iter().enumerate() {
                let stage = (!late.contains(&parameter.id)).then_some(parameter.depth);
                let (range, present) = (start..start + count, total + place);
                slots.push(Slot { id: parameter.id, stage, bucket: number, range, present, flag: place });
                start += count;
            }
        }
        let index = slots.iter().enumerate().map(|(place, slot)| (slot.id, place)).collect();
        Self { slots, lengths, index }
    }

    /// Where the parameter's slot is, if it moves.
    pub fn slot(&self, id: ParamId) -> Option<usize> {
        self.index.get(&id).copied()
    }

    /// How many numbers at the end of a bucket tell which gradients there are.
    pub fn flags(&self, bucket: usize) -> usize {
        self.slots.iter().filter(|slot| slot.bucket == bucket).count()
    }

    /// One more than the last stage.
    pub fn stages(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.stage).max().map_or(0, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Vec<ParameterInfo> {
        let parameter = |depth, count| ParameterInfo {
            name: String::new(),
            id: ParamId::new(),
            shape: vec![count],
            tracked: count != 3,
            depth,
            decays: true,
        };
        vec![parameter(2, 400_000), parameter(2, 5), parameter(1, 300_000), parameter(1, 3), parameter(0, 7)]
    }

    #[test]
    fn buckets_begin_at_the_head_and_the_first_is_small() {
        let all = parameters();
        let plan = Plan::new(all.clone(), &HashSet::new(), 25 << 20);
        let place = |i: usize| plan.slot(all[i].id).map(|slot| &plan.slots[slot]);
        assert!(place(3).is_none(), "it does not move");
        assert_eq!(place(4).map(|slot| (slot.bucket, slot.range.clone(), slot.present)), Some((0, 0..7, 7)));
        // 300,000 numbers more are beyond 1 MiB.
        assert_eq!(place(2).map(|slot| (slot.bucket, slot.range.start)), Some((1, 0)));
        assert_eq!(place(1).map(|slot| (slot.bucket, slot.range.clone())), Some((1, 300_000..300_005)));
        assert_eq!(place(0).map(|slot| slot.stage), Some(Some(2)));
        assert_eq!(plan.lengths, [8, 300_000 + 5 + 400_000 + 3]);
        assert_eq!(plan.stages(), 3);
    }

    #[test]
    fn the_last_buckets_are_small() {
        let parameter = |depth| ParameterInfo {
            name: String::new(),
            id: ParamId::new(),
            shape: vec![100_000],
            tracked: true,
            depth,
            decays: true,
        };
        // 80 MB: 0.8, 26 and 26 MB, then half of what is left each time, down to 4 MiB.
        let plan = Plan::new((0..200).rev().map(parameter).collect(), &HashSet::new(), 25 << 20);
        let sizes: Vec<usize> = plan.lengths.iter().map(|length| length * BYTES / 400_000).collect();
        assert_eq!(sizes, [2, 65, 65, 34, 17, 10, 7]);
    }

    #[test]
    fn late_ones_hold_up_nobody() {
        let all = parameters();
        let plan = Plan::new(all.clone(), &HashSet::from([all[4].id]), 25 << 20);
        assert_eq!(plan.slots.last().map(|slot| (slot.id, slot.stage)), Some((all[4].id, None)));
        assert_eq!(plan.slots.iter().map(|slot| slot.bucket).collect::<Vec<_>>(), [0, 1, 1, 1]);
    }
}
