//! `clusters.html`: the map and a contact sheet of each cluster on one page.

use std::fmt::Write as _;

use base64::Engine as _;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::Clustered;
use crate::clustering::{Embedding, Purity};
use crate::data::ImageCache;
use crate::experiment::ExperimentError;
use crate::files::atomic_write;
use crate::project::ClusterRow;
use crate::report::{confusion_svg, contact_sheet, duration, escape, illustrated_page, map_svg, thousands};

/// Pictures of a sheet, in a row, and how wide each is shown.
const PICTURES: usize = 40;
const COLUMNS: u32 = 10;
const SIDE: u32 = 64;
const JPEG_QUALITY: u8 = 85;

/// A cluster at a glance: its most typical images.
pub(super) struct SheetOf {
    pub cluster: usize,
    pub jpeg: Vec<u8>,
}

impl SheetOf {
    /// Of each of `count` clusters; of pictures that are nearly the same only the first is shown.
    pub fn each_cluster(
        table: &[ClusterRow],
        rows: &Embedding,
        cache: &ImageCache,
        count: usize,
    ) -> Vec<Self> {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); count];
        (0u32..).zip(table).for_each(|(image, row)| members[row.cluster as usize].push(image));
        let sheet = |(cluster, members): (usize, &Vec<u32>)| {
            let typical = most_typical(members, table, rows);
            let pictures: Vec<&[u8]> = typical.iter().map(|image| cache.image(*image)).collect();
            let sheet = contact_sheet(&pictures, cache.size(), COLUMNS, SIDE);
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
                .encode(sheet.as_raw(), sheet.width(), sheet.height(), ExtendedColorType::Rgb8)
                .expect("a sheet of some hundred pixels is encoded to memory");
            Self { cluster, jpeg }
        };
        members.par_iter().enumerate().map(sheet).collect()
    }

    pub fn file_name(&self) -> String {
        format!("cluster-{:02}.jpg", self.cluster)
    }
}

/// Nearest to the mean direction first.
fn most_typical(members: &[u32], table: &[ClusterRow], rows: &Embedding) -> Vec<u32> {
    let mut mean = vec![0f32; rows.dim()];
    for image in members {
        mean.iter_mut().zip(rows.row(*image as usize)).for_each(|(sum, value)| *sum += value);
    }
    let along = |image: u32| -> f32 { rows.row(image as usize).iter().zip(&mean).map(|(a, b)| a * b).sum() };
    let own = members.iter().filter(|image| {
        let first = table[**image as usize].first;
        first == **image || table[first as usize].cluster != table[**image as usize].cluster
    });
    let mut ranked: Vec<(f32, u32)> = own.map(|image| (along(*image), *image)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().take(PICTURES).map(|(_, image)| image).collect()
}

/// What the page shows.
pub(super) struct ClusterPage<'a> {
    pub clustered: &'a Clustered,
    pub sheets: &'a [SheetOf],
    pub table: &'a [ClusterRow],
    /// Class of each image, where known.
    pub labels: &'a [Option<u16>],
    pub classes: &'a [String],
}

impl ClusterPage<'_> {
    /// Writes `clusters.html`, `map.svg` and, with labels, `confusion.svg`.
    pub fn write(&self) -> Result<(), ExperimentError> {
        let folder = &self.clustered.folder;
        let map = self.map();
        atomic_write(&folder.join("map.svg"), map.as_bytes())?;
        let confusion = self.confusion();
        if let Some(svg) = &confusion {
            atomic_write(&folder.join("confusion.svg"), svg.as_bytes())?;
        }
        let mut body = self.header();
        body += "<main>\n<section><h2>Map <small>like images lie close together; numbers are clusters</small></h2>\n";
        let _ = writeln!(body, "<figure class=\"card chart\">{map}</figure></section>");
        if let Some(svg) = confusion {
            body += "<section><h2>Clusters against known classes</h2>\n";
            let _ = writeln!(body, "<figure class=\"card scroll\">{svg}</figure></section>");
        }
        self.each_cluster(&mut body);
        body += "</main>\n";
        let page = illustrated_page("Clusters", &body);
        Ok(atomic_write(&folder.join("clusters.html"), page.as_bytes())?)
    }

    fn clusters(&self) -> Vec<u32> {
        self.table.iter().map(|row| row.cluster).collect()
    }

    fn map(&self) -> String {
        let names: Vec<String> = (0..self.clustered.clusters).map(|cluster| cluster.to_string()).collect();
        let points: Vec<[f32; 2]> = self.table.iter().map(|row| [row.x, row.y]).collect();
        map_svg("Map of all images, coloured by cluster", &points, &self.clusters(), &names)
    }

    fn confusion(&self) -> Option<String> {
        let taken =
            self.clustered.candidates.iter().find(|found| found.found_by == self.clustered.found_by)?;
        Some(confusion_svg(&taken.scores.as_ref()?.confusion, self.classes))
    }

    fn header(&self) -> String {
        let found = self.clustered;
        let mut page = format!(
            "<header><div>\n<p class=\"kind\">HARVEST clusters</p>\n<h1>{} images in {} clusters</h1>\n\
             <p class=\"method\">by {}</p>\n<dl class=\"facts\">\n",
            thousands(found.images as u64),
            found.clusters,
            found.found_by.words(),
        );
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(&value));
        };
        for candidate in &found.candidates {
            let known = candidate.scores.as_ref().map_or(String::new(), |scores| {
                format!(
                    ", {:.1} % right, NMI {:.2}, ARI {:.2} on {} labelled",
                    100.0 * scores.accuracy,
                    scores.nmi,
                    scores.ari,
                    thousands(scores.samples)
                )
            });
            let crate::clustering::Quality { silhouette, agreement, stability } = candidate.quality;
            let stability =
                stability.map_or(String::new(), |stability| format!(", stability {stability:.2}"));
            fact(
                candidate.found_by.words(),
                format!("silhouette {silhouette:.2}, agreement {agreement:.2}{stability}{known}"),
            );
        }
        for note in &found.notes {
            fact("Note", note.clone());
        }
        fact("Nearly the same as another image", thousands(found.near_duplicates as u64));
        for (part, seconds) in &found.seconds {
            fact(&format!("Time for {part}"), duration(std::time::Duration::from_secs_f64(*seconds)));
        }
        let _ = writeln!(
            page,
            "</dl>\n<p class=\"verdict\">{}</p>\n</div></header>",
            escape(&found.quality().sentence())
        );
        page
    }

    fn each_cluster(&self, page: &mut String) {
        let purity = Purity::of_all(&self.clusters(), self.clustered.clusters, self.labels);
        *page += "<section><h2>Clusters <small>the most typical images of each</small></h2>\n<div class=\"grid charts\">\n";
        for (sheet, purity) in self.sheets.iter().zip(&purity) {
            let picture = base64::engine::general_purpose::STANDARD.encode(&sheet.jpeg);
            let words = purity.sentence(self.classes);
            let _ = writeln!(
                page,
                "<figure class=\"card\"><h3>Cluster {}</h3><p class=\"note\">{}</p>\
                 <img style=\"max-width:100%;height:auto\" alt=\"typical images of cluster {}\" \
                 src=\"data:image/jpeg;base64,{picture}\"></figure>",
                sheet.cluster,
                escape(&words),
                sheet.cluster
            );
        }
        *page += "</div></section>\n";
    }
}
