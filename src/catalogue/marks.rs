//! The current label of every image. Whoever reads never waits for whoever labels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::columns::Columns;
use crate::project::{ImageHash, Label};

const UNLABELLED: u32 = 1 << 16;
const NOT_SURE: u32 = UNLABELLED + 1;
const NONE_OF_THESE: u32 = UNLABELLED + 2;
const BAD_IMAGE: u32 = UNLABELLED + 3;

/// How many images have which label. Copies of a picture share a label and count once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images of each class that has any, by its number.
    pub classes: BTreeMap<u16, usize>,
    /// Images without a label.
    pub unlabelled: usize,
    /// Images somebody is not sure of.
    pub not_sure: usize,
    /// Images that show none of the classes.
    pub none: usize,
    /// Images that cannot be judged.
    pub bad: usize,
}

impl Counts {
    /// Images with a class.
    pub fn labelled(&self) -> usize {
        self.classes.values().sum()
    }

    fn add(&mut self, label: Option<Label>) {
        *self.of(label) += 1;
    }

    fn take(&mut self, label: Option<Label>) {
        *self.of(label) -= 1;
        if let Some(Label::Class(id)) = label
            && self.classes[&id] == 0
        {
            self.classes.remove(&id);
        }
    }

    fn of(&mut self, label: Option<Label>) -> &mut usize {
        match label {
            None => &mut self.unlabelled,
            Some(Label::Class(id)) => self.classes.entry(id).or_default(),
            Some(Label::NotSure) => &mut self.not_sure,
            Some(Label::NoneOfThese) => &mut self.none,
            Some(Label::BadImage) => &mut self.bad,
        }
    }
}

/// Labels of the images that are the first with their pixels; the others' places are unused.
pub(super) struct Marks {
    labels: Vec<AtomicU32>,
    version: AtomicU64,
    /// Held while labels change, so that counts are those of the labels.
    counts: Mutex<Counts>,
}

impl Marks {
    pub(super) fn new(columns: &Columns, labels: impl IntoIterator<Item = (ImageHash, Label)>) -> Self {
        let marks = Self {
            labels: (0..columns.len()).map(|_| AtomicU32::new(UNLABELLED)).collect(),
            version: AtomicU64::new(0),
            counts: Mutex::new(Counts { unlabelled: columns.distinct(), ..Counts::default() }),
        };
        let mut counts = marks.lock();
        for (hash, label) in labels {
            if let Some(image) = columns.find(&hash) {
                marks.change(&mut counts, image, Some(label));
            }
        }
        drop(counts);
        marks
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, counts: &mut Counts, image: u32, label: Option<Label>) {
        // Counted before anything could go wrong in between: no step here can fail.
        let before = unpack(self.labels[image as usize].swap(pack(label), Ordering::Relaxed));
        counts.take(before);
        counts.add(label);
    }

    pub(super) fn set(&self, columns: &Columns, changes: &[(ImageHash, Option<Label>)]) -> u64 {
        let mut counts = self.lock();
        for (hash, label) in changes {
            if let Some(image) = columns.find(hash) {
                self.change(&mut counts, image, *label);
            }
        }
        // After the labels: whoever sees this version sees at least these.
        self.version.fetch_add(1, Ordering::Release) + 1
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, first: u32) -> Option<Label> {
        unpack(self.labels[first as usize].load(Ordering::Relaxed))
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().clone()
    }
}

fn pack(label: Option<Label>) -> u32 {
    match label {
        None => UNLABELLED,
        Some(Label::Class(id)) => u32::from(id),
        Some(Label::NotSure) => NOT_SURE,
        Some(Label::NoneOfThese) => NONE_OF_THESE,
        Some(Label::BadImage) => BAD_IMAGE,
    }
}

fn unpack(packed: u32) -> Option<Label> {
    match packed {
        NOT_SURE => Some(Label::NotSure),
        NONE_OF_THESE => Some(Label::NoneOfThese),
        BAD_IMAGE => Some(Label::BadImage),
        class => u16::try_from(class).ok().map(Label::Class),
    }
}
