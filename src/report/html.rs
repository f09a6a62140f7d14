//! `report.html`: a run on one page that needs nothing but itself, neither network nor scripts.

use super::charts::LineChart;
use super::confusion_chart::confusion_svg;
use super::progress::thousands;
use super::svg::escape;
use crate::metrics::{Interval, Macro, Scores};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Rows of the set-aside table; a data set can hold a million broken files.
const SET_ASIDE_SHOWN: usize = 500;

/// Everything the page of a run shows. Parts left empty are left out.
#[derive(Debug, Clone, Default)]
pub struct RunSummary {
    /// Heading, such as the run's name.
    pub title: String,
    /// As a reader knows it: "FreeMatch".
    pub algorithm: String,
    /// The network: "vit_tiny_patch2_32".
    pub model: String,
    /// What else matters at first sight, in order: steps, images, device, time taken.
    pub facts: Vec<(String, String)>,
    /// A sentence that sums up, such as a comparison with another run.
    pub verdict: Option<String>,
    /// Class names in class order; classes beyond it are called by their number.
    pub classes: Vec<String>,
    /// How good the model is, the most important first.
    pub results: Vec<Results>,
    /// The networks it learned from, where there are some.
    pub members: Vec<MemberRow>,
    /// What confidences mean.
    pub confidence: Option<ConfidenceSection>,
    /// Curves; see [`super::standard_charts`].
    pub charts: Vec<LineChart>,
    /// Files that are not used, and why.
    pub set_aside: Vec<SetAsideRow>,
    /// The whole resolved configuration.
    pub configuration: Vec<ConfigurationRow>,
}

/// Scores on one set of images.
#[derive(Debug, Clone)]
pub struct Results {
    /// Which set: "Test set".
    pub name: String,
    /// Which model: "best model by evaluation accuracy, step 600".
    pub note: String,
    /// The scores.
    pub scores: Scores,
    /// Whether the page shows the confusion matrix and the table of classes too.
    pub detailed: bool,
}

/// A network that the model learned from.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// Network and tuning, as in the recipe.
    pub line: String,
    /// How good it is, in words.
    pub score: String,
    /// Name of its run.
    pub run: String,
}

/// What confidences mean.
#[derive(Debug, Clone)]
pub struct ConfidenceSection {
    /// One paragraph each.
    pub sentences: Vec<String>,
    /// SVG documents; see [`super::reliability_svg`].
    pub diagrams: Vec<String>,
}

/// A file that is not used.
#[derive(Debug, Clone)]
pub struct SetAsideRow {
    /// Relative to the image root.
    pub path: String,
    /// Why, in plain words.
    pub reason: String,
}

/// One resolved setting.
#[derive(Debug, Clone)]
pub struct ConfigurationRow {
    /// Dotted: "training.lr".
    pub key: String,
    /// As TOML writes it.
    pub value: String,
    /// Where it comes from: "default", "recipe", "command line".
    pub origin: String,
}

impl RunSummary {
    /// Writes the page to `path`, at once: a page that is there stays whole until the new one is.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".report-").tempfile_in(folder)?;
        file.write_all(self.to_html().as_bytes())?;
        file.as_file().sync_all()?;
        readable_by_all(file.as_file())?;
        file.persist(path)?;
        Ok(())
    }

    /// The page as HTML text.
    pub fn to_html(&self) -> String {
        let mut page = String::new();
        self.header(&mut page);
        page += "<main>\n";
        self.results(&mut page);
        self.members(&mut page);
        self.charts(&mut page);
        for results in self.results.iter().filter(|results| results.detailed) {
            self.confusion(&mut page, results);
            self.per_class(&mut page, results);
        }
        self.confidence(&mut page);
        self.set_aside(&mut page);
        self.configuration(&mut page);
        page += "</main>\n";
        self::page(&self.title, &page)
    }

    fn header(&self, page: &mut String) {
        let [title, algorithm, model] = [&self.title, &self.algorithm, &self.model].map(|text| escape(text));
        put(
            page,
            format_args!(
                "<header><div>\n<p class=\"kind\">HARVEST training run</p>\n<h1>{title}</h1>\n\
             <p class=\"method\">{algorithm} with {model}</p>\n"
            ),
        );
        if !self.facts.is_empty() {
            page.push_str("<dl class=\"facts\">\n");
            for (name, value) in &self.facts {
                put(page, format_args!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)));
            }
            page.push_str("</dl>\n");
        }
        if let Some(verdict) = &self.verdict {
            put(page, format_args!("<p class=\"verdict\">{}</p>\n", escape(verdict)));
        }
        page.push_str("</div></header>\n");
    }

    fn results(&self, page: &mut String) {
        if self.results.is_empty() {
            return;
        }
        page.push_str("<section class=\"grid\">\n");
        for Results { name, note, scores, .. } in &self.results {
            let Interval { low, high } = scores.accuracy_interval();
            let interval = format!(", 95 % interval {:.1} to {:.1}", 100.0 * low, 100.0 * high);
            put(
                page,
                format_args!(
                    "<div class=\"card result\"><h3>{}</h3><p class=\"note\">{}</p>\n\
                 <p class=\"big\">{} <small>accuracy{interval}</small></p>\n<dl>",
                    escape(name),
                    escape(note),
                    percent(scores.accuracy),
                ),
            );
            let mut rows = vec![
                ("Error rate".to_owned(), percent(scores.error_rate)),
                ("Balanced accuracy".to_owned(), percent(scores.balanced_accuracy)),
                ("Macro F1".to_owned(), percent(scores.macro_present.f1)),
            ];
            let informative = scores.top_k.iter().filter(|top| top.k > 1 && top.k < scores.per_class.len());
            rows.extend(informative.map(|top| (format!("Top-{} accuracy", top.k), percent(top.accuracy))));
            rows.extend(scores.cross_entropy.map(|loss| ("Cross entropy".to_owned(), format!("{loss:.3}"))));
            let off = scores.mean_absolute_error;
            rows.extend(off.map(|off| ("Mean absolute error".to_owned(), format!("{off:.1} %"))));
            rows.push(("Images".to_owned(), thousands(scores.samples)));
            for (name, value) in rows {
                put(page, format_args!("<dt>{name}</dt><dd>{value}</dd>"));
            }
            page.push_str("</dl></div>\n");
        }
        page.push_str("</section>\n");
    }

    fn charts(&self, page: &mut String) {
        if self.charts.is_empty() {
            return;
        }
        page.push_str("<section><h2>Training</h2>\n<div class=\"grid charts\">\n");
        for chart in &self.charts {
            put(page, format_args!("<figure class=\"card chart\">{}</figure>\n", chart.to_svg()));
        }
        page.push_str("</div></section>\n");
    }

    fn confusion(&self, page: &mut String, results: &Results) {
        put(
            page,
            format_args!(
                "<section><h2>Confusion matrix <small>{}</small></h2>\n<figure class=\"card scroll\">{}</figure></section>\n",
                escape(&results.name),
                confusion_svg(&results.scores.confusion, &self.classes),
            ),
        );
    }

    fn per_class(&self, page: &mut String, results: &Results) {
        put(
            page,
            format_args!(
                "<section><h2>Classes <small>{}</small></h2>\n<div class=\"card scroll\"><table>\n<tr><th>Class</th>\
             <th class=\"n\">Precision</th><th class=\"n\">Recall</th><th class=\"n\">F1</th><th class=\"bars\"></th>\
             <th class=\"n\">Images</th></tr>\n",
                escape(&results.name),
            ),
        );
        let row =
            |page: &mut String, kind: &str, name: &str, [precision, recall, f1]: [f64; 3], support: u64| {
                put(
                    page,
                    format_args!(
                        "<tr{kind}><td class=\"text\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"bars\"><span><i style=\"width:{:.0}%\"></i></span></td>\
                 <td class=\"n\">{}</td></tr>\n",
                        escape(name),
                        percent(precision),
                        percent(recall),
                        percent(f1),
                        f1 * 100.0,
                        thousands(support),
                    ),
                );
            };
        for (class, scores) in results.scores.per_class.iter().enumerate() {
            let name = self.classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
            row(page, "", &name, [scores.precision, scores.recall, scores.f1], scores.support);
        }
        let Macro { precision, recall, f1 } = results.scores.macro_present;
        row(page, " class=\"mean\"", "Mean over classes", [precision, recall, f1], results.scores.samples);
        page.push_str("</table></div></section>\n");
    }

    fn confidence(&self, page: &mut String) {
        let Some(confidence) = &self.confidence else { return };
        page.push_str("<section><h2>Confidence</h2>\n");
        for sentence in &confidence.sentences {
            put(page, format_args!("<p>{}</p>\n", escape(sentence)));
        }
        page.push_str("<div class=\"grid charts\">\n");
        for diagram in &confidence.diagrams {
            put(page, format_args!("<figure class=\"card chart\">{diagram}</figure>\n"));
        }
        page.push_str("</div></section>\n");
    }

    fn members(&self, page: &mut String) {
        if self.members.is_empty() {
            return;
        }
        page.push_str(
            "<section><h2>Members <small>the networks whose joined pseudo-labels it learned from</small></h2>\n\
             <div class=\"card scroll\"><table>\n<tr><th>Network and tuning</th><th>On its own</th><th>Run</th></tr>\n",
        );
        for MemberRow { line, score, run } in &self.members {
            let [line, score, run] = [line, score, run].map(|text| escape(text));
            put(
                page,
                format_args!(
                    "<tr><td class=\"text\">{line}</td><td class=\"text\">{score}</td><td class=\"text\">{run}</td></tr>\n"
                ),
            );
        }
        page.push_str("</table></div></section>\n");
    }

    fn set_aside(&self, page: &mut String) {
        if self.set_aside.is_empty() {
            return;
        }
        let count = self.set_aside.len();
        let noun = if count == 1 { "file" } else { "files" };
        put(
            page,
            format_args!(
                "<section><h2>Set aside <small>{} {noun} not used</small></h2>\n<div class=\"card scroll\"><table>\n\
             <tr><th>File</th><th>Reason</th></tr>\n",
                thousands(count as u64),
            ),
        );
        for SetAsideRow { path, reason } in self.set_aside.iter().take(SET_ASIDE_SHOWN) {
            put(
                page,
                format_args!(
                    "<tr><td class=\"text\"><bdi>{}</bdi></td><td class=\"text\">{}</td></tr>\n",
                    escape(path),
                    escape(reason),
                ),
            );
        }
        if count > SET_ASIDE_SHOWN {
            let more = thousands((count - SET_ASIDE_SHOWN) as u64);
            put(page, format_args!("<tr><td colspan=\"2\">and {more} more</td></tr>\n"));
        }
        page.push_str("</table></div></section>\n");
    }

    fn configuration(&self, page: &mut String) {
        if self.configuration.is_empty() {
            return;
        }
        put(
            page,
            format_args!(
                "<section><details class=\"card\"><summary>Configuration <small>{} settings</small></summary>\n\
             <div class=\"scroll\"><table>\n<tr><th>Setting</th><th>Value</th><th>From</th></tr>\n",
                self.configuration.len(),
            ),
        );
        for ConfigurationRow { key, value, origin } in &self.configuration {
            put(
                page,
                format_args!(
                    "<tr><td class=\"key\">{}</td><td class=\"key\">{}</td><td>{}</td></tr>\n",
                    escape(key),
                    escape(value),
                    escape(origin),
                ),
            );
        }
        page.push_str("</table></div></details></section>\n");
    }
}

/// A page in the look of all reports that asks for nothing from elsewhere. `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    whole_page(title, body, "")
}

/// As [`page`], for a `body` with pictures in it (`data:` addresses).
pub fn illustrated_page(title: &str, body: &str) -> String {
    whole_page(title, body, "; img-src data:")
}

fn whole_page(title: &str, body: &str, allowed: &str) -> String {
    let (title, version) = (escape(title), env!("CARGO_PKG_VERSION"));
    let written = escape(&jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'{allowed}\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n{body}\
         <footer>HARVEST {version}, written {written}</footer>\n</body>\n</html>\n",
        include_str!("report.css")
    )
}

/// Temporary files are private to their maker; a report is for everyone the run folder is for.
#[cfg(unix)]
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn put(page: &mut String, text: std::fmt::Arguments) {
    page.write_fmt(text).expect("strings can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Reliability;
    use crate::report::Series;

    /// A run with something nasty in every text.
    fn nasty() -> RunSummary {
        let text = || "<script>alert('1')</script>\u{0}&\"".to_owned();
        let scores = Scores::from_predictions(&[0, 1, 1], &[0, 1, 0], 2).unwrap();
        RunSummary {
            title: text(),
            algorithm: text(),
            model: text(),
            facts: vec![(text(), text())],
            verdict: Some(text()),
            classes: vec![text()],
            results: vec![Results { name: text(), note: text(), scores, detailed: true }],
            members: vec![MemberRow { line: text(), score: text(), run: text() }],
            confidence: Some(ConfidenceSection {
                sentences: vec![text()],
                diagrams: vec![crate::report::reliability_svg(
                    &text(),
                    &Reliability::of(&[]),
                    &Reliability::of(&[]),
                )],
            }),
            charts: vec![LineChart {
                title: text(),
                x_label: text(),
                series: vec![Series { name: text(), points: vec![(1.0, f64::NAN), (2.0, 0.5)] }],
                range: None,
                percent: false,
                smooth: true,
            }],
            set_aside: vec![SetAsideRow { path: text(), reason: text() }; SET_ASIDE_SHOWN + 1500],
            configuration: vec![ConfigurationRow { key: text(), value: text(), origin: text() }],
        }
    }

    #[test]
    fn nothing_a_user_names_becomes_markup() {
        let page = nasty().to_html();
        assert!(!page.contains("<script") && !page.contains('\0') && !page.contains("NaN"));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"));
        assert!(page.contains("and 1,500 more"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let page = nasty().to_html().replace("http://www.w3.org/2000/svg", "");
        for reference in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn writing_replaces_the_page_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        std::fs::write(&path, "old").unwrap();
        RunSummary::default().write(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
        assert!(RunSummary::default().write(&folder.path().join("missing/report.html")).is_err());
    }
}
