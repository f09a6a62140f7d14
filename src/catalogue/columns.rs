//! What a scan found, a column for each thing to know.

use std::collections::HashMap;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::data::{ContentHash, ImageRecord, Manifest};
use crate::project::ImageHash;

/// Folders that a page lists.
const FOLDERS: usize = 200;

/// No image here.
const FREE: u32 = u32::MAX;

/// All images in the order of the list, found by their pixels.
pub(super) struct Columns {
    hashes: Vec<[u8; 32]>,
    /// All paths, one behind the other.
    paths: String,
    /// Where each path ends.
    ends: Vec<u64>,
    sizes: Vec<[u32; 2]>,
    size_bytes: Vec<u64>,
    modified_ns: Vec<i64>,
    /// The first image with the same pixels, which may be itself.
    first: Vec<u32>,
    /// Other images with the same pixels, of those that are the first.
    copies: Vec<u32>,
    /// Images that are the first.
    distinct: usize,
    folder: Vec<u32>,
    /// In the order of their names.
    folders: Vec<String>,
    /// Open addressing by the first bytes of the hash, which are random as they are; a power of two long, at most half full.
    table: Vec<u32>,
    by_date: OnceLock<Vec<u32>>,
    by_folder: OnceLock<Vec<u32>>,
    largest_folders: OnceLock<Vec<(String, usize)>>,
}

impl Columns {
    pub(super) fn new(manifest: Manifest) -> Self {
        let images = manifest.images;
        let count = images.len();
        let first: Vec<u32> =
            (0u32..).zip(&images).map(|(index, image)| image.duplicate_of.unwrap_or(index)).collect();
        let mut copies = vec![0u32; count];
        images.iter().filter_map(|image| image.duplicate_of).for_each(|head| copies[head as usize] += 1);
        let (folder, folders) = folders(&images);
        let mut columns = Self {
            hashes: images.iter().map(|image| image.hash.0).collect(),
            paths: String::with_capacity(images.iter().map(|image| image.path.len()).sum()),
            ends: Vec::with_capacity(count),
            sizes: images.iter().map(|image| [image.width, image.height]).collect(),
            size_bytes: images.iter().map(|image| image.size_bytes).collect(),
            modified_ns: images.iter().map(|image| image.modified_ns).collect(),
            distinct: images.iter().filter(|image| image.duplicate_of.is_none()).count(),
            first,
            copies,
            folder,
            folders,
            table: Vec::new(),
            by_date: OnceLock::new(),
            by_folder: OnceLock::new(),
            largest_folders: OnceLock::new(),
        };
        for image in images {
            columns.paths.push_str(&image.path);
            columns.ends.push(columns.paths.len() as u64);
        }
        columns.table = columns.make_table();
        columns
    }

    fn make_table(&self) -> Vec<u32> {
        let mut table = vec![FREE; (2 * self.distinct).next_power_of_two().max(2)];
        let mask = table.len() - 1;
        for image in self.heads() {
            let mut place = slot(&self.hashes[image as usize]) & mask;
            while table[place] != FREE {
                place = (place + 1) & mask;
            }
            table[place] = image;
        }
        table
    }

    /// The first image with these pixels.
    pub(super) fn find(&self, hash: &ImageHash) -> Option<u32> {
        let mask = self.table.len() - 1;
        let mut place = slot(hash) & mask;
        loop {
            match self.table[place] {
                FREE => return None,
                image if self.hashes[image as usize] == *hash => return Some(image),
                _ => place = (place + 1) & mask,
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn distinct(&self) -> usize {
        self.distinct
    }

    /// Every image that is the first with its pixels.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.first).filter(|(index, first)| index == *first).map(|(index, _)| index)
    }

    pub(super) fn hash(&self, image: u32) -> ContentHash {
        ContentHash(self.hashes[image as usize])
    }

    pub(super) fn path(&self, image: u32) -> &str {
        let image = image as usize;
        let start = if image == 0 { 0 } else { self.ends[image - 1] };
        &self.paths[start as usize..self.ends[image] as usize]
    }

    pub(super) fn size(&self, image: u32) -> [u32; 2] {
        self.sizes[image as usize]
    }

    pub(super) fn modified_ns(&self, image: u32) -> i64 {
        self.modified_ns[image as usize]
    }

    /// The first image with the same pixels.
    pub(super) fn first(&self, image: u32) -> u32 {
        self.first[image as usize]
    }

    /// Other images with the same pixels as the first one `first`.
    pub(super) fn copies(&self, first: u32) -> u32 {
        self.copies[first as usize]
    }

    pub(super) fn folder(&self, image: u32) -> u32 {
        self.folder[image as usize]
    }

    /// For every folder whether it is `wanted` or lies in it.
    pub(super) fn folders_in(&self, wanted: &str) -> Vec<bool> {
        let wanted = wanted.trim_end_matches('/');
        let below = |name: &String| {
            name.strip_prefix(wanted)
                .is_some_and(|rest| wanted.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        self.folders.iter().map(below).collect()
    }

    pub(super) fn record(&self, image: u32) -> ImageRecord {
        let [width, height] = self.size(image);
        ImageRecord {
            path: self.path(image).to_owned(),
            hash: self.hash(image),
            width,
            height,
            size_bytes: self.size_bytes[image as usize],
            modified_ns: self.modified_ns(image),
            duplicate_of: None,
            label: None,
            part: None,
        }
    }

    /// All images, the oldest first.
    pub(super) fn by_date(&self) -> &[u32] {
        self.by_date.get_or_init(|| sorted(self.len(), |image| self.modified_ns(image)))
    }

    /// All images, folder by folder: files of a folder before those of the folders in it.
    pub(super) fn by_folder(&self) -> &[u32] {
        self.by_folder.get_or_init(|| sorted(self.len(), |image| self.folder(image)))
    }

    /// The folders with most images, by name, each with the images directly in it.
    pub(super) fn largest_folders(&self) -> &[(String, usize)] {
        self.largest_folders.get_or_init(|| {
            let mut counts = vec![0usize; self.folders.len()];
            self.heads().for_each(|image| counts[self.folder(image) as usize] += 1);
            let mut largest: Vec<usize> = (0..counts.len()).collect();
            largest.sort_by_key(|&folder| std::cmp::Reverse(counts[folder]));
            largest.truncate(FOLDERS);
            largest.sort_unstable();
            largest.into_iter().map(|folder| (self.folders[folder].clone(), counts[folder])).collect()
        })
    }
}

/// Images `0..count` by a key; of equal keys the earlier first.
pub(super) fn sorted<K: Ord + Send>(count: usize, key: impl Fn(u32) -> K + Sync) -> Vec<u32> {
    // Keys beside their images: fetching each key from its column at every comparison would be most of the time.
    let mut pairs: Vec<(K, u32)> =
        (0..count as u32).into_par_iter().map(|image| (key(image), image)).collect();
    pairs.par_sort_unstable();
    pairs.into_par_iter().map(|(_, image)| image).collect()
}

fn slot(hash: &[u8; 32]) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes) as usize
}

/// Folder of every image, and their names in order.
fn folders(images: &[ImageRecord]) -> (Vec<u32>, Vec<String>) {
    let name = |image: &ImageRecord| match image.path.rsplit_once(['/', '#']) {
        // The images of an IDX file are in it as in a folder.
        Some((folder, _)) => folder.to_owned(),
        None => String::new(),
    };
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut folder = Vec::with_capacity(images.len());
    for image in images {
        let next = numbers.len() as u32;
        folder.push(*numbers.entry(name(image)).or_insert(next));
    }
    let mut named: Vec<(String, u32)> = numbers.into_iter().collect();
    named.sort_unstable();
    let mut rank = vec![0u32; named.len()];
    (0u32..).zip(&named).for_each(|(place, (_, number))| rank[*number as usize] = place);
    folder.iter_mut().for_each(|number| *number = rank[*number as usize]);
    (folder, named.into_iter().map(|(name, _)| name).collect())
}
