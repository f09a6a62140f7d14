//! Which classes a model knows: a table of classes, and which it takes for which.

use maud::{Markup, html};

use super::runs::Shown;
use super::words;
use crate::metrics::{Interval, Scores, wilson};
use crate::project::Classes;

/// Classes beyond which names of columns are numbers, explained by the rows.
const NAMED_COLUMNS: usize = 24;

/// Precision, recall and F1 of each class, with intervals.
pub fn per_class(run: &Shown, classes: &Classes, scores: &Scores) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Classes" {
            table.classes {
                thead { tr {
                    th scope="col" { "Class" }
                    th.number scope="col" { "Images" }
                    th scope="col" title="Of the images of this class, the share that the model finds" { "Found (recall)" }
                    th scope="col" title="Of the images that the model calls so, the share that is" { "Right when said (precision)" }
                    th.number scope="col" title="Harmonic mean of the two" { "F1" }
                } }
                tbody {
                    @for (class, own) in scores.per_class.iter().enumerate() {
                        @let hits = scores.confusion.count(class, class);
                        tr {
                            th scope="row" { (named(run, classes, class)) }
                            td.number { (own.support) }
                            td { (measured(hits, own.support)) }
                            td { (measured(hits, own.predicted)) }
                            td.number { @if own.support + own.predicted == 0 { "–" } @else { (format!("{:.2}", own.f1)) } }
                        }
                    }
                }
                @let mean = &scores.macro_present;
                tfoot { tr {
                    th scope="row" { "Mean over classes" }
                    td.number { (scores.samples) }
                    td { (format!("{:.0} %", 100.0 * mean.recall)) }
                    td { (format!("{:.0} %", 100.0 * mean.precision)) }
                    td.number { (format!("{:.2}", mean.f1)) }
                } }
            }
        }
        p.hint { "In brackets: where the true share lies with 95 % certainty. The dark mark is what was counted, the pale bar its range." }
    }
}

/// A class's name, with its colour where it has one.
pub fn named(run: &Shown, classes: &Classes, class: usize) -> Markup {
    let colour = run.class_ids.get(class).and_then(|id| classes.get(*id)).map(|class| class.colour);
    html! {
        @if let Some(colour) = colour { span.swatch data-colour=(colour) aria-hidden="true" {} " " }
        (run.class_name(classes, class))
    }
}

/// A share in words and as a mark within its range.
fn measured(hits: u64, of: u64) -> Markup {
    let Interval { low, high } = wilson(hits, of);
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    html! {
        span.measured {
            @if of > 0 {
                svg.range viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                    rect.rail x="0" y="4" width="100" height="2" {}
                    rect.reach x=(percent(low)) y="2" width=(percent(high - low)) height="6" {}
                    rect.mark x=(percent((hits as f64 / of as f64).min(0.98))) y="0" width="2" height="10" {}
                }
            }
            span { (words::share(hits, of)) }
        }
    }
}

/// How often each class was taken for each; every number leads to its images. `images`: the name of the images counted.
pub fn confusion(run: &Shown, classes: &Classes, scores: &Scores, images: &str, key: &str) -> Markup {
    let count = scores.confusion.classes();
    let named = count <= NAMED_COLUMNS;
    let id = |class: usize| run.class_ids.get(class).copied().unwrap_or(class as u16);
    let name = |class: usize| run.class_name(classes, class);
    html! {
        div.table tabindex="0" role="region" aria-label="Confusion matrix" {
            table.confusion {
                caption {
                    "A row for what experts say, a column for what the model says of the same " (images) " images. Each number \
                     leads to its images by the labels they have now; right answers are on the diagonal."
                }
                thead { tr {
                    th.corner scope="col" { span { "experts say" } span { "model says" } }
                    @for class in 0..count {
                        th.column scope="col" title=(name(class)) {
                            @if named { span { (name(class)) } } @else { (class + 1) }
                        }
                    }
                } }
                tbody {
                    @for target in 0..count {
                        @let support = scores.confusion.support(target);
                        tr {
                            th scope="row" { @if !named { span.muted { (target + 1) " " } } (super::tables::named(run, classes, target)) }
                            @for (said, cell) in scores.confusion.row(target).iter().enumerate() {
                                td class=(shade(*cell, support, target == said)) {
                                    @if *cell == 0 { span.none { "0" } }
                                    @else {
                                        a href={ "p/" (key) "/label?label=" (id(target)) "&predicted=" (id(said)) "&part=" (images)
                                                 "&run=" (run.listed.name) }
                                          aria-label={ (cell) " of " (name(target)) " called " (name(said)) } { (cell) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The classes of a cell: right or wrong, and a shade for its share of the row from 1 to 5.
fn shade(count: u64, support: u64, right: bool) -> String {
    let kind = if right { "right" } else { "wrong" };
    match count {
        0 => kind.to_owned(),
        _ => format!("{kind} shade{}", (5.0 * count as f64 / support.max(1) as f64).ceil().clamp(1.0, 5.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_follow_the_share_of_the_row() {
        assert_eq!(shade(0, 10, false), "wrong");
        assert_eq!(shade(1, 10, false), "wrong shade1");
        assert_eq!(shade(10, 10, true), "right shade5");
        assert_eq!(shade(3, 0, true), "right shade5");
    }
}
