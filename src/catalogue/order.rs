//! From a query to its images.
//!
//! Orders that no label changes are sorted once and kept; a view is then one pass over them. Those that follow labels are
//! made of these by dividing them, which takes no comparison either.

use std::borrow::Cow;

use rayon::prelude::*;

use super::CatalogueError;
use super::beliefs::{Beliefs, Believed, ordered};
use super::columns::{Columns, sorted};
use super::groups::Groups;
use super::marks::Marks;
use super::query::{Copies, Order, Query};
use super::similar;
use crate::project::Label;

/// Images a thread looks at before it takes others.
const PIECE: usize = 1 << 14;

/// A query and all that it is answered from.
pub(super) struct Search<'a> {
    pub columns: &'a Columns,
    pub marks: &'a Marks,
    pub groups: Option<&'a Groups>,
    pub beliefs: Option<&'a Beliefs>,
    pub query: &'a Query,
}

impl Search<'_> {
    /// The images, in order.
    pub(super) fn images(&self) -> Result<Vec<u32>, CatalogueError> {
        if self.query.needs_beliefs() && self.beliefs.is_none() {
            return Err(CatalogueError::NoPredictions);
        }
        if self.query.needs_groups() && self.groups.is_none() {
            return Err(CatalogueError::NoClusters);
        }
        let filter = Filter::new(self);
        let mut images = filter.pass(&self.all()?);
        Ok(match self.query.order {
            Order::Unlabelled => {
                let label = |image: &u32| u32::from(self.label(*image).is_some());
                in_buckets(&images, 2, &images.par_iter().map(label).collect::<Vec<u32>>())
            }
            Order::Class => self.by_class(&images, |image| match self.label(image) {
                Some(Label::Class(id)) => Ok(id),
                Some(Label::NotSure) => Err(0),
                Some(Label::NoneOfThese) => Err(1),
                Some(Label::BadImage) => Err(2),
                None => Err(3),
            }),
            Order::Predicted => self.by_class(&images, |image| {
                self.believed(image).map_or(Err(0), |believed| Ok(believed.class))
            }),
            Order::Confidence => {
                // Those the model knows nothing of stay last.
                let known = images.partition_point(|&image| self.believed(image).is_some());
                let unknown = images.split_off(known);
                backwards(&mut images, |image| {
                    self.believed(image).map(|believed| ordered(believed.confidence))
                });
                images.extend(unknown);
                images
            }
            Order::Newest => {
                backwards(&mut images, |image| self.columns.modified_ns(image));
                images
            }
            Order::Doubt => self.taking_turns(&images),
            _ => images,
        })
    }

    /// All images in an order that labels do not change.
    fn all(&self) -> Result<Cow<'_, [u32]>, CatalogueError> {
        let beliefs = || self.beliefs.ok_or(CatalogueError::NoPredictions);
        let columns = self.columns;
        Ok(match self.query.order {
            Order::Path | Order::Unlabelled | Order::Class => Cow::Owned((0..columns.len() as u32).collect()),
            Order::Predicted | Order::Confidence | Order::Sure | Order::Disagreement => {
                Cow::Borrowed(beliefs()?.surest(columns))
            }
            Order::Cluster => {
                Cow::Borrowed(self.groups.ok_or(CatalogueError::NoClusters)?.by_cluster(columns))
            }
            Order::Folder => Cow::Borrowed(columns.by_folder()),
            Order::Date | Order::Newest => Cow::Borrowed(columns.by_date()),
            Order::Doubt => match (self.beliefs, self.groups) {
                (Some(beliefs), _) => Cow::Borrowed(beliefs.narrowest(columns)),
                // Before the first training the edges of clusters are the next best.
                (None, Some(groups)) => {
                    Cow::Owned(groups.by_cluster(columns).iter().rev().copied().collect())
                }
                (None, None) => return Err(CatalogueError::NoPredictions),
            },
            Order::Duplicates => match self.groups {
                Some(groups) => Cow::Borrowed(groups.by_near(columns)),
                None => Cow::Owned(sorted(columns.len(), |image| {
                    let first = columns.first(image);
                    (columns.copies(first) == 0, first)
                })),
            },
            Order::Similar => Cow::Owned(self.similar()?),
        })
    }

    fn similar(&self) -> Result<Vec<u32>, CatalogueError> {
        let groups = self.groups.ok_or(CatalogueError::NoFeatures)?;
        let like = self.query.like.ok_or(CatalogueError::LikeWhat)?;
        let image = self.columns.find(&like.0).ok_or(CatalogueError::NotGrouped)?;
        let row = groups.row(image).ok_or(CatalogueError::NotGrouped)?;
        let likeness = similar::to_all(&groups.features, groups.rows(), row)?;
        Ok(sorted(self.columns.len(), |image| match groups.row(self.columns.first(image)) {
            // Bits of f32 sort as integers once the sign is taken care of; most alike first.
            Some(row) => !similar::sortable(likeness[row as usize]),
            None => u32::MAX,
        }))
    }

    fn label(&self, image: u32) -> Option<Label> {
        self.marks.get(self.columns.first(image))
    }

    fn believed(&self, image: u32) -> Option<Believed> {
        self.beliefs.and_then(|beliefs| beliefs.get(self.columns.first(image)))
    }

    /// By class as displayed, then by what else there is, in the order of its numbers 0 to 3.
    fn by_class(&self, images: &[u32], class: impl Fn(u32) -> Result<u16, usize> + Sync) -> Vec<u32> {
        let shown = &self.query.classes;
        let mut rank = vec![0usize; 1 << 16];
        // Classes that are not displayed come behind those that are.
        (0..rank.len()).for_each(|id| rank[id] = shown.len() + id);
        shown.iter().enumerate().for_each(|(place, &id)| rank[usize::from(id)] = place);
        let classes = shown.len() + (1 << 16);
        let bucket = |image: &u32| match class(*image) {
            Ok(id) => rank[usize::from(id)] as u32,
            Err(other) => (classes + other) as u32,
        };
        in_buckets(images, classes + 4, &images.par_iter().map(bucket).collect::<Vec<u32>>())
    }

    /// What helps most: unlabelled images first, of these none that is nearly the same as another, and of these one of each
    /// class (or cluster) after the other.
    fn taking_turns(&self, images: &[u32]) -> Vec<u32> {
        // Rounds of near-duplicates and of labelled images, behind all others.
        const NEAR: u32 = u32::MAX - 1;
        const LABELLED: u32 = u32::MAX;
        // By class or cluster, however these are numbered.
        let mut turns: Vec<u32> = Vec::new();
        let mut seen = vec![false; self.columns.len()];
        let mut most = 0;
        let mut rounds: Vec<u32> = Vec::with_capacity(images.len());
        for &image in images {
            let first = self.columns.first(image);
            if self.marks.get(first).is_some() {
                rounds.push(LABELLED);
                continue;
            }
            if let Some(groups) = self.groups
                && groups.has_near(first)
                && std::mem::replace(&mut seen[groups.near(first) as usize], true)
            {
                rounds.push(NEAR);
                continue;
            }
            let kind = match (self.believed(image), self.groups) {
                (Some(believed), _) => 1 + usize::from(believed.class),
                // What the model has not seen takes its turns as a class of its own.
                (None, _) if self.beliefs.is_some() => 0,
                (None, Some(groups)) => {
                    groups.cluster(first).map_or(0, |cluster| 1 + cluster as usize % 65_536)
                }
                (None, None) => 0,
            };
            if kind >= turns.len() {
                turns.resize(kind + 1, 0);
            }
            rounds.push(turns[kind]);
            turns[kind] += 1;
            most = most.max(turns[kind]);
        }
        rounds.iter_mut().for_each(|round| match *round {
            NEAR => *round = most,
            LABELLED => *round = most + 1,
            _ => {}
        });
        in_buckets(images, most as usize + 2, &rounds)
    }
}

/// Turns an order by `key` around; images with the same key stay as they are.
fn backwards<K: PartialEq>(images: &mut [u32], key: impl Fn(u32) -> K) {
    images.reverse();
    images.chunk_by_mut(|&a, &b| key(a) == key(b)).for_each(<[u32]>::reverse);
}

/// The images by the number of their bucket, else as they are.
fn in_buckets(images: &[u32], buckets: usize, numbers: &[u32]) -> Vec<u32> {
    let mut next = vec![0usize; buckets + 1];
    numbers.iter().for_each(|&number| next[number as usize + 1] += 1);
    (1..next.len()).for_each(|number| next[number] += next[number - 1]);
    let mut sorted = vec![0; images.len()];
    for (&image, &number) in images.iter().zip(numbers) {
        let place = &mut next[number as usize];
        sorted[*place] = image;
        *place += 1;
    }
    sorted
}

/// A query's conditions, ready to be asked of a million images.
struct Filter<'a> {
    search: &'a Search<'a>,
    folders: Option<Vec<bool>>,
    /// In small letters.
    text: Option<String>,
}

impl<'a> Filter<'a> {
    fn new(search: &'a Search<'a>) -> Self {
        let query = search.query;
        Self {
            search,
            folders: query.folder.as_deref().map(|folder| search.columns.folders_in(folder)),
            text: query.text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_lowercase),
        }
    }

    /// The images that meet all conditions, in their order.
    fn pass(&self, images: &[u32]) -> Vec<u32> {
        let pieces: Vec<Vec<u32>> = images
            .par_chunks(PIECE)
            .map(|piece| piece.iter().copied().filter(|&image| self.admits(image)).collect())
            .collect();
        pieces.concat()
    }

    fn admits(&self, image: u32) -> bool {
        let Search { columns, marks, query, .. } = self.search;
        let first = columns.first(image);
        let copies = match query.copies {
            Copies::First => image == first,
            Copies::All => true,
            Copies::Only => columns.copies(first) > 0,
        };
        copies
            && self.folders.as_ref().is_none_or(|inside| inside[columns.folder(image) as usize])
            && (query.labels.is_empty() || {
                let label = marks.get(first);
                query.labels.iter().any(|wanted| wanted.admits(label))
            })
            && self.grouped(first)
            && self.believed(first)
            && self.text.as_ref().is_none_or(|text| contains(columns.path(image), text))
    }

    fn grouped(&self, first: u32) -> bool {
        let query = self.search.query;
        if !query.needs_groups() {
            return true;
        }
        let Some(groups) = self.search.groups else { return false };
        let cluster = groups.cluster(first);
        let on_map = |[x0, y0, x1, y1]: [f32; 4]| {
            groups.place(first).is_some_and(|[x, y]| {
                (x0.min(x1)..=x0.max(x1)).contains(&x) && (y0.min(y1)..=y0.max(y1)).contains(&y)
            })
        };
        (query.clusters.is_empty() || cluster.is_some_and(|cluster| query.clusters.contains(&cluster)))
            && query.within.is_none_or(on_map)
    }

    fn believed(&self, first: u32) -> bool {
        let query = self.search.query;
        if !query.needs_beliefs() {
            return true;
        }
        let Some(beliefs) = self.search.beliefs else { return false };
        let believed = beliefs.get(first);
        if query.order == Order::Disagreement {
            let label = self.search.marks.get(first).and_then(Label::class);
            let differs = label.zip(believed).is_some_and(|(label, believed)| label != believed.class);
            if !differs {
                return false;
            }
        }
        (query.predicted.is_empty() || believed.is_some_and(|b| query.predicted.contains(&b.class)))
            && query.min.is_none_or(|min| believed.is_some_and(|b| b.confidence >= min))
            && query.max.is_none_or(|max| believed.is_some_and(|b| b.confidence <= max))
            && query.part.is_none_or(|part| believed.is_some_and(|b| b.part == part))
    }
}

/// Whether `text`, in small letters, is in `path`, whatever the case there.
fn contains(path: &str, text: &str) -> bool {
    if !path.is_ascii() {
        return path.to_lowercase().contains(text);
    }
    // Most paths are plain, and a million new strings take longer than all else.
    let (path, text) = (path.as_bytes(), text.as_bytes());
    let fits = |part: &[u8]| part[0].eq_ignore_ascii_case(&text[0]) && part.eq_ignore_ascii_case(text);
    path.windows(text.len()).any(fits)
}
