//! `report.html` of a sweep: figures, the table of means, and all runs, on one page that needs nothing but itself.

use std::fmt::Write as _;

use super::Sweep;
use super::figures::Figure;
use super::results::{Row, Setting, State};
use crate::report::{escape, page as whole_page};

/// The page.
pub(super) fn page(sweep: &Sweep, rows: &[Row], settings: &[Setting], figures: &[Figure]) -> String {
    let done = rows.iter().filter(|row| row.finished().is_some()).count();
    let failed = rows.iter().filter(|row| matches!(row.state, State::Failed(_))).count();
    let mut body = format!(
        "<header><div>\n<p class=\"kind\">HARVEST sweep</p>\n<h1>{}</h1>\n<p class=\"method\">{done} of {} runs \
         done{}</p>\n</div></header>\n<main>\n<section><h2>Figures</h2>\n<div class=\"grid charts\">\n",
        escape(&sweep.name),
        rows.len(),
        if failed > 0 { format!(", {failed} failed") } else { String::new() },
    );
    for figure in figures {
        body += &format!("<figure class=\"card scroll\">{}</figure>\n", figure.svg);
    }
    body += "</div></section>\n";
    table(&mut body, settings);
    runs(&mut body, rows);
    body += "</main>\n";
    whole_page(&sweep.name, &body)
}

fn table(body: &mut String, settings: &[Setting]) {
    let many = settings.iter().any(|setting| setting.model != settings[0].model);
    *body += "<section><h2>Scores <small>mean \u{b1} standard deviation over seeds, in percent; precision, recall and F1 are \
              means over classes</small></h2>\n<div class=\"card scroll\"><table>\n<tr><th class=\"n\">Labels per class</th>\
              <th>Algorithm</th>";
    *body += if many { "<th>Model</th>" } else { "" };
    *body += "<th class=\"n\">Accuracy</th><th class=\"n\">Precision</th><th class=\"n\">Recall</th><th class=\"n\">F1</th>\
              <th class=\"n\">Error rate</th><th class=\"n\">Seeds</th></tr>\n";
    let mut ordered: Vec<&Setting> = settings.iter().collect();
    ordered.sort_by_key(|setting| setting.labels_per_class);
    for (index, setting) in ordered.iter().enumerate() {
        let first = index == 0 || ordered[index - 1].labels_per_class != setting.labels_per_class;
        let labels = if first { setting.labels_per_class.to_string() } else { String::new() };
        // The best of its group stands out.
        let group = ordered.iter().filter(|other| other.labels_per_class == setting.labels_per_class);
        let best = group.filter_map(|other| Some(other.scores?[0].mean)).fold(f64::NEG_INFINITY, f64::max);
        let class = if first && index > 0 { " class=\"group\"" } else { "" };
        put(
            body,
            format_args!("<tr{class}><td class=\"n\">{labels}</td><td>{}</td>", escape(&setting.algorithm)),
        );
        if many {
            put(body, format_args!("<td>{}</td>", escape(&setting.model)));
        }
        for place in 0..5 {
            let text = setting.scores.map_or_else(
                || "\u{2013}".to_owned(),
                |scores| {
                    let (mean, deviation) = (100.0 * scores[place].mean, scores[place].deviation);
                    deviation.map_or_else(
                        || format!("{mean:.1}"),
                        |sd| format!("{mean:.1} \u{b1} {:.1}", 100.0 * sd),
                    )
                },
            );
            let leads = matches!(place, 0 | 4) && setting.scores.is_some_and(|scores| scores[0].mean == best);
            let text = if leads { format!("<b>{text}</b>") } else { text };
            put(body, format_args!("<td class=\"n\">{text}</td>"));
        }
        put(body, format_args!("<td class=\"n\">{} of {}</td></tr>\n", setting.runs, setting.planned));
    }
    *body += "</table></div></section>\n";
}

fn runs(body: &mut String, rows: &[Row]) {
    put(
        body,
        format_args!(
            "<section><details class=\"card\"><summary>Runs <small>{}</small></summary>\n<div class=\"scroll\"><table>\n\
             <tr><th>Algorithm</th><th>Model</th><th class=\"n\">Labels</th><th class=\"n\">Seed</th>\
             <th>Accuracy (95 % interval)</th><th class=\"n\">Steps</th><th class=\"n\">Seconds</th><th>Folder</th></tr>\n",
            rows.len()
        ),
    );
    for row in rows {
        let outcome = match (&row.state, row.finished().and_then(|finished| finished.scores())) {
            (State::Failed(reason), _) => format!("failed: {reason}"),
            (_, Some((_, scores))) => scores.accuracy_text(),
            (state, None) => state.as_str().to_owned(),
        };
        let finished = row.finished();
        let name = row.folder.as_ref().and_then(|folder| folder.file_name()).unwrap_or_default();
        put(
            body,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"text\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"key\">{}</td></tr>\n",
                escape(&row.algorithm),
                escape(&row.model),
                row.labels_per_class,
                row.seed,
                escape(&outcome),
                finished.map_or_else(String::new, |finished| finished.steps.to_string()),
                finished.map_or_else(String::new, |finished| format!("{:.1}", finished.seconds)),
                escape(&name.to_string_lossy()),
            ),
        );
    }
    *body += "</table></div></details></section>\n";
}

fn put(body: &mut String, text: std::fmt::Arguments) {
    body.write_fmt(text).expect("strings can be written to");
}
