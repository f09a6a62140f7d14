//! A copy of a cache on a node's own disk.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{CacheError, CacheOptions, ImageCache, Plan, shard_name};
use crate::data::progress::Running;
use crate::data::{Manifest, Progress};

impl ImageCache {
    /// The copy of this cache, which is of the images of `manifest`, in `folder`; made if it is not there or damaged.
    ///
    /// For jobs whose nodes share a slow file system. However many processes of a node ask for it, one copies and the
    /// others wait.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn copied_to(
        &self,
        folder: &Path,
        manifest: &Manifest,
        options: &CacheOptions,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Self, CacheError> {
        let plan = Plan::new(folder, manifest, self.size, options)?;
        plan.open_or(folder, options, progress, || {
            plan.publish(folder, |temporary| self.copy_files(&plan, temporary, progress, stop))
        })
    }

    fn copy_files(
        &self,
        plan: &Plan<'_>,
        to: &Path,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<(), CacheError> {
        let copy = |name: &str| {
            let (from, to) = (self.path.join(name), to.join(name));
            let copied = fs::copy(from, &to).and_then(|_| fs::File::open(&to)?.sync_all());
            copied.map_err(|source| plan.cannot_write(to, source))
        };
        let running = Running::start(progress, "copying training images to this node", self.images);
        for number in 0..self.shards.len() {
            if stop.load(Ordering::Relaxed) {
                return Err(CacheError::Interrupted);
            }
            copy(&shard_name(number))?;
            running.advance(self.images_per_shard.min(self.images - number * self.images_per_shard) as u64);
        }
        copy("index.json")
    }
}
