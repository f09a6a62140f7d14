//! Where the newest clustering has put every image.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::CatalogueError;
use super::beliefs::ordered;
use super::columns::{Columns, sorted};
use crate::experiment::{Clustered, Places};

/// No cluster, no row, no image.
const NONE: u32 = u32::MAX;

/// Clusters, places on the map and near-duplicates. By image; only of those that are the first with their pixels.
pub(super) struct Groups {
    cluster: Vec<u32>,
    confidence: Vec<f32>,
    place: Vec<[f32; 2]>,
    /// The first image that is nearly the same, which may be itself.
    near: Vec<u32>,
    /// Whether another image is nearly the same.
    has_near: Vec<bool>,
    /// Row of each image in the file of features.
    row: Vec<u32>,
    /// Image of each row in the file of features.
    image: Vec<u32>,
    /// Features of all rows.
    pub(super) features: PathBuf,
    sizes: OnceLock<Vec<(u32, usize)>>,
    by_cluster: OnceLock<Vec<u32>>,
    by_near: OnceLock<Vec<u32>>,
    /// The images last shown on the map, and of how many they were a choice.
    shown: Mutex<Option<(usize, Vec<u32>)>>,
}

impl Groups {
    pub(super) fn latest(places: &Places, columns: &Columns) -> Result<Option<Self>, CatalogueError> {
        let Some(clustered) = Clustered::latest(places)? else { return Ok(None) };
        let table = clustered.table()?;
        let count = columns.len();
        let mut groups = Self {
            cluster: vec![NONE; count],
            confidence: vec![0.0; count],
            place: vec![[0.0; 2]; count],
            near: (0..count as u32).collect(),
            has_near: vec![false; count],
            row: vec![NONE; count],
            image: table.iter().map(|row| columns.find(&row.hash.0).unwrap_or(NONE)).collect(),
            features: clustered.features_file(),
            sizes: OnceLock::new(),
            by_cluster: OnceLock::new(),
            by_near: OnceLock::new(),
            shown: Mutex::default(),
        };
        for (number, row) in (0u32..).zip(&table) {
            let image = groups.image[number as usize];
            // Copies follow the first of them.
            if image == NONE || groups.row[image as usize] != NONE {
                continue;
            }
            let at = image as usize;
            groups.row[at] = number;
            groups.cluster[at] = row.cluster;
            groups.confidence[at] = row.confidence;
            groups.place[at] = [row.x, row.y];
            let near = groups.image[row.first as usize];
            if near != NONE && near != image {
                groups.near[at] = near;
                groups.has_near[at] = true;
                groups.has_near[near as usize] = true;
            }
        }
        Ok(Some(groups))
    }

    pub(super) fn cluster(&self, first: u32) -> Option<u32> {
        Some(self.cluster[first as usize]).filter(|&cluster| cluster != NONE)
    }

    /// How sure the cluster is, from 0 to 1.
    pub(super) fn confidence(&self, first: u32) -> f32 {
        self.confidence[first as usize]
    }

    pub(super) fn place(&self, first: u32) -> Option<[f32; 2]> {
        (self.row[first as usize] != NONE).then(|| self.place[first as usize])
    }

    /// The first image that is nearly the same, which may be the image itself.
    pub(super) fn near(&self, first: u32) -> u32 {
        self.near[first as usize]
    }

    /// Whether another image is nearly the same.
    pub(super) fn has_near(&self, first: u32) -> bool {
        self.has_near[first as usize]
    }

    /// Row of the image in the file of features.
    pub(super) fn row(&self, first: u32) -> Option<u32> {
        Some(self.row[first as usize]).filter(|&row| row != NONE)
    }

    /// Rows of the file of features.
    pub(super) fn rows(&self) -> usize {
        self.image.len()
    }

    /// Number and images of each cluster.
    pub(super) fn sizes(&self, columns: &Columns) -> Vec<(u32, usize)> {
        let count = || {
            let mut sizes = std::collections::BTreeMap::<u32, usize>::new();
            columns
                .heads()
                .filter_map(|image| self.cluster(image))
                .for_each(|cluster| *sizes.entry(cluster).or_default() += 1);
            sizes.into_iter().collect()
        };
        self.sizes.get_or_init(count).clone()
    }

    /// All images, cluster by cluster, the surest of each first.
    pub(super) fn by_cluster(&self, columns: &Columns) -> &[u32] {
        self.by_cluster.get_or_init(|| {
            sorted(columns.len(), |image| {
                let first = columns.first(image);
                (self.cluster[first as usize], !ordered(self.confidence(first)))
            })
        })
    }

    /// All images: those with near-duplicates or copies first, group by group.
    pub(super) fn by_near(&self, columns: &Columns) -> &[u32] {
        self.by_near.get_or_init(|| {
            sorted(columns.len(), |image| {
                let first = columns.first(image);
                (!(self.has_near(first) || columns.copies(first) > 0), self.near(first), first)
            })
        })
    }

    /// At most `most` images to show on the map, always the same: those with the smallest hashes, as good as drawn at random.
    pub(super) fn on_map(&self, columns: &Columns, most: usize) -> Vec<u32> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, images)) = shown.as_ref().filter(|(count, _)| *count == most) {
            return images.clone();
        }
        let mut images: Vec<u32> = columns.heads().filter(|&image| self.place(image).is_some()).collect();
        if images.len() > most {
            images.select_nth_unstable_by_key(most, |&image| columns.hash(image));
            images.truncate(most);
            images.sort_unstable();
        }
        *shown = Some((most, images.clone()));
        images
    }
}
