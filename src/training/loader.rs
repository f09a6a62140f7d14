//! Batches of views, prepared ahead of the step that needs them.
//!
//! A batch is a function of the seed and the step's number alone; a thread makes the next ones while the present one
//! is trained on.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use harvest_kernels::ViewPlan;
use harvest_models::ClassifierConfig;
use rand::{Rng, RngExt};

use super::crew::Crew;
use crate::algorithms::{Place, Places, Views};
use crate::augment::{View, ViewConfig, ViewRequest, fill_views, plan_view};
use crate::data::{ImageCache, Pick, Sampler};
use crate::random::{Purpose, stream};

/// How many batches wait at most.
const AHEAD: usize = 2;

/// The images of one step; of this rank alone.
#[derive(Debug)]
pub struct HostBatch {
    /// The step it is for.
    pub step: u64,
    /// What is seen of them.
    pub views: HostViews,
    /// Classes of the labelled images.
    pub labels: Vec<i32>,
    /// Which unlabelled images.
    pub indices: Vec<u32>,
    /// Where these images lie among those of all ranks.
    pub places: Places,
    /// Passes over the unlabelled (else the labelled) images that are complete before this step.
    pub epoch: u64,
}

/// The views of one step.
#[derive(Debug, PartialEq)]
pub enum HostViews {
    /// As bytes, `[images, size, size, 3]` each.
    Made(ViewsOf<Vec<u8>>),
    /// To be made where they are looked at, of the same bytes.
    Planned {
        /// The pictures that plans number: those of labelled, then those of unlabelled images, `[images, size, size, 3]`.
        pictures: Vec<u8>,
        /// A plan for each view.
        plans: ViewsOf<Vec<ViewPlan>>,
    },
}

/// What the views of one step, of each kind, are held in.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewsOf<T> {
    /// Weak views of labelled images.
    pub labelled: T,
    /// Weak views of unlabelled images, as many as the algorithm asks for.
    pub weak: Vec<T>,
    /// Strong views of the same.
    pub strong: Vec<T>,
}

impl<T> ViewsOf<T> {
    /// `labelled` makes something of those of labelled images, `unlabelled` of the others.
    pub fn map<U>(self, labelled: impl FnOnce(T) -> U, unlabelled: impl FnMut(T) -> U + Clone) -> ViewsOf<U> {
        ViewsOf {
            labelled: labelled(self.labelled),
            weak: self.weak.into_iter().map(unlabelled.clone()).collect(),
            strong: self.strong.into_iter().map(unlabelled).collect(),
        }
    }
}

impl HostBatch {
    /// Noise in place of views, the same in every run, for measurements and rehearsals: time does not depend on what
    /// pictures show.
    pub fn noise(
        labelled: usize,
        unlabelled: usize,
        wanted: Views,
        model: &ClassifierConfig,
        step: u64,
    ) -> Self {
        let bytes_each = model.image_size() * model.image_size() * 3;
        let mut rng = stream(1, Purpose::View, [step, 0, 0]);
        let mut views = |count: usize| {
            let mut bytes = vec![0; count * bytes_each];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let weak = (0..wanted.weak).map(|_| views(unlabelled)).collect();
        let strong = (0..wanted.strong).map(|_| views(unlabelled)).collect();
        let views = HostViews::Made(ViewsOf { weak, strong, labelled: views(labelled) });
        let labels = (0..labelled).map(|_| rng.random_range(0..model.classes() as i32)).collect();
        let indices = (0..unlabelled as u32).collect();
        let places = Places::whole(labelled, unlabelled);
        Self { step, views, labels, indices, places, epoch: 0 }
    }

    /// The rows of a rank of `crew`, of a batch that holds those of all ranks.
    pub fn of(self, crew: &Crew) -> Self {
        let (labelled, unlabelled) = (self.labels.len(), self.indices.len());
        let rows = [labelled, unlabelled].map(|count| crew.rows_among(count));
        let cut = |bytes: Vec<u8>, rows: &Range<usize>, of: usize| {
            let each = bytes.len() / of.max(1);
            bytes[rows.start * each..rows.end * each].to_vec()
        };
        let views = match self.views {
            HostViews::Made(views) => HostViews::Made(
                views.map(|bytes| cut(bytes, &rows[0], labelled), |bytes| cut(bytes, &rows[1], unlabelled)),
            ),
            HostViews::Planned { pictures, plans } => {
                let plans = plans
                    .map(|plans| plans[rows[0].clone()].to_vec(), |plans| plans[rows[1].clone()].to_vec());
                HostViews::Planned { pictures, plans }
            }
        };
        Self {
            views,
            labels: self.labels[rows[0].clone()].to_vec(),
            indices: self.indices[rows[1].clone()].to_vec(),
            places: Places {
                labelled: Place::of(&rows[0], labelled),
                unlabelled: Place::of(&rows[1], unlabelled),
            },
            ..self
        }
    }
}

/// Everything batches are made from.
#[derive(Debug, Clone)]
pub struct Loader<'a> {
    /// The images.
    pub cache: &'a ImageCache,
    /// Class of every image of the data set; only those of labelled images are looked at.
    pub labels: &'a [Option<u16>],
    /// How views are made.
    pub views: &'a ViewConfig,
    /// Seed of the views.
    pub seed: u64,
    /// Labelled images.
    pub labelled: Intake,
    /// Unlabelled images; none for algorithms that need none.
    pub unlabelled: Option<Intake>,
    /// Which views of unlabelled images to make.
    pub wanted: Views,
    /// Leave it to the device to make them.
    pub planned: bool,
}

/// Images of one kind, and which of them a step takes.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Their order, which all ranks share.
    sampler: Sampler,
    /// How many a step takes over all ranks.
    batch: usize,
    /// This rank's among them.
    rows: Range<usize>,
}

impl Intake {
    /// `batch` images a step, all of them here.
    pub fn whole(sampler: Sampler, batch: usize) -> Self {
        Self { sampler, batch, rows: 0..batch }
    }

    /// `batch` images a step over all ranks of `crew`, of which this rank takes its own.
    pub fn of(crew: &Crew, sampler: Sampler, batch: usize) -> Self {
        Self { sampler, batch, rows: crew.rows_among(batch) }
    }

    fn picks(&mut self, step: u64) -> Vec<Pick> {
        let position = step * self.batch as u64 + self.rows.start as u64;
        self.sampler.at(position, self.rows.len())
    }

    fn place(&self) -> Place {
        Place::of(&self.rows, self.batch)
    }
}

impl Loader<'_> {
    /// The batch of step `step`.
    pub fn batch(&mut self, step: u64) -> HostBatch {
        let picks = self.labelled.picks(step);
        let labels = picks
            .iter()
            .map(|pick| {
                let label = self.labels[pick.index as usize];
                i32::from(label.expect("images of the labelled split have a label"))
            })
            .collect();
        let unlabelled = match &mut self.unlabelled {
            Some(intake) => intake.picks(step),
            None => Vec::new(),
        };
        HostBatch {
            step,
            views: self.views(&picks, &unlabelled),
            labels,
            epoch: unlabelled.first().or(picks.first()).map_or(0, |pick| pick.epoch),
            indices: unlabelled.into_iter().map(|pick| pick.index).collect(),
            places: Places {
                labelled: self.labelled.place(),
                unlabelled: self.unlabelled.as_ref().map_or(Place::whole(0), Intake::place),
            },
        }
    }

    fn views(&self, labelled: &[Pick], unlabelled: &[Pick]) -> HostViews {
        let kinds = ViewsOf {
            labelled: View::Labelled,
            weak: [View::Weak, View::WeakSecond][..self.wanted.weak].to_vec(),
            strong: [View::Strong, View::StrongSecond][..self.wanted.strong].to_vec(),
        };
        if !self.planned {
            return HostViews::Made(
                kinds.map(|view| self.made(labelled, view), |view| self.made(unlabelled, view)),
            );
        }
        let picks = labelled.iter().chain(unlabelled);
        let pictures: Vec<&[u8]> = picks.map(|pick| self.cache.image(pick.index)).collect();
        let first = labelled.len() as u32;
        let plans =
            kinds.map(|view| self.plans(labelled, 0, view), |view| self.plans(unlabelled, first, view));
        HostViews::Planned { pictures: pictures.concat(), plans }
    }

    fn made(&self, picks: &[Pick], view: View) -> Vec<u8> {
        let size = self.cache.size() as usize;
        let requests: Vec<ViewRequest<'_>> = picks.iter().map(|pick| self.request(pick, view)).collect();
        let mut out = vec![0; picks.len() * size * size * 3];
        fill_views(&requests, size, self.views, self.seed, &mut out);
        out
    }

    /// `first`: the number of the first pick's picture.
    fn plans(&self, picks: &[Pick], first: u32, view: View) -> Vec<ViewPlan> {
        let size = self.cache.size() as usize;
        let plan = |(picture, pick)| {
            let plan = plan_view(&self.request(pick, view), picture, size, self.views, self.seed);
            plan.expect("weak and strong views have plans")
        };
        (first..).zip(picks).map(plan).collect()
    }

    fn request(&self, pick: &Pick, view: View) -> ViewRequest<'_> {
        let source = self.cache.image(pick.index);
        ViewRequest { source, image: u64::from(pick.index), epoch: pick.epoch, view }
    }

    /// Makes the batches of steps `steps` in a thread of `scope`. Dropping the receiver ends it.
    pub fn prefetch<'scope, 'env: 'scope>(
        mut self,
        scope: &'scope Scope<'scope, 'env>,
        steps: std::ops::Range<u64>,
    ) -> Receiver<HostBatch>
    where
        Self: 'scope,
    {
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || {
            for step in steps {
                // The trainer has stopped listening: it was interrupted, or it failed.
                if sender.send(self.batch(step)).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}
