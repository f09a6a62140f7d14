//! The parts of the label page that do not depend on the project. Scripts fill them.

use maud::{Markup, PreEscaped, html};

/// Drawings on buttons, 16 units a side.
mod drawing {
    pub const FILTER: &str = "M2 4h12M4.5 8h7M7 12h2";
    pub const MAP: &str =
        "M4 4.5h.01M7 3h.01M6 7h.01M11 10h.01M13 12.5h.01M10 13h.01M12.5 5h.01M3.5 11.5h.01";
    pub const HISTORY: &str = "M2.5 8a5.5 5.5 0 1 0 2-4.2M2.5 2.5v2.8h2.8M8 5v3.2l2 1.3";
    pub const KEYS: &str = "M1.5 4h13v8h-13zM4 6.7h.01M6.7 6.7h.01M9.3 6.7h.01M12 6.7h.01M5 9.5h6";
    pub const UNDO: &str = "M5.5 3 2.5 6l3 3M2.5 6h7a3.5 3.5 0 0 1 0 7H6";
    pub const REDO: &str = "m10.5 3 3 3-3 3M13.5 6h-7a3.5 3.5 0 0 0 0 7H10";
    pub const LARGE: &str = "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10";
    pub const CLOSE: &str = "m4 4 8 8M12 4l-8 8";
    pub const BEFORE: &str = "m10 3-5 5 5 5";
    pub const AFTER: &str = "m6 3 5 5-5 5";
    pub const SMALL_TILES: &str = "M3 3h2v2H3zM7 3h2v2H7zM11 3h2v2h-2zM3 7h2v2H3zM7 7h2v2H7zM11 7h2v2h-2zM3 11h2v2H3zM7 11h2v2H7zM11 11h2v2h-2z";
    pub const LARGE_TILES: &str = "M2.5 2.5h11v11h-11z";
}

fn icon(path: &str) -> Markup {
    html! {
        (PreEscaped(format!(
            "<svg class=\"icon\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>"
        )))
    }
}

/// The inside of `<main>`; `project` is the address of the project's pages, such as `p/KEY/`.
pub fn content(project: &str) -> Markup {
    html! {
        h1.visually-hidden { "Label images" }
        noscript { p.note.warn { "This page needs scripts. They are part of the program; nothing is loaded from elsewhere." } }
        div #desk .desk {
            (classes())
            section .work aria-label="Images" {
                (toolbar())
                (progress(project))
                (grid())
            }
            (panel())
        }
        (viewer())
        (dialogs())
    }
}

fn classes() -> Markup {
    html! {
        aside .classes aria-labelledby="classes-title" {
            div .side-head {
                h2 #classes-title { "Classes" }
                button #edit-classes .quiet .slim type="button" { "Edit" }
            }
            p #class-hint .hint {}
            p #notes .note .warn .slim-note hidden {}
            ul #class-list .class-list {}
            h2 .states-title { "Or" }
            ul #state-list .class-list {}
        }
    }
}

fn toolbar() -> Markup {
    html! {
        div .toolbar role="group" aria-label="What is shown, and how" {
            fieldset .segment {
                legend.visually-hidden { "How to label" }
                input #mode-class type="radio" name="mode" value="class" checked;
                label for="mode-class" title="Choose a class, then click the images that belong to it" { "Class first" }
                input #mode-image type="radio" name="mode" value="image";
                label for="mode-image" title="Select images, then choose their class" { "Image first" }
            }
            label .inline { span.words { "Order" } select #order aria-label="Order" {} }
            button #filter-button .slim type="button" aria-expanded="false" aria-controls="filter-panel" {
                (icon(drawing::FILTER)) span { "Filter" }
            }
            div #filter-panel .popover hidden { form #filter-form .filter-form {} }
            ul #chips .chips aria-label="Filters in use" {}
            div .tools {
                button #one .slim type="button" aria-label="One at a time" title="One large image after the other" {
                    (icon(drawing::LARGE)) span.words { "One at a time" }
                }
                label .size {
                    (icon(drawing::SMALL_TILES))
                    input #size type="range" min="64" max="320" step="4" aria-label="Size of the pictures";
                    (icon(drawing::LARGE_TILES))
                }
                button #map-button .slim type="button" aria-label="Map" aria-pressed="false" aria-controls="panel" {
                    (icon(drawing::MAP)) span.words { "Map" }
                }
                button #history-button .slim type="button" aria-label="History" aria-pressed="false" aria-controls="panel" {
                    (icon(drawing::HISTORY)) span.words { "History" }
                }
                button #keys-button .slim type="button" aria-label="Keys" title="Keys" { (icon(drawing::KEYS)) }
            }
        }
    }
}

fn progress(project: &str) -> Markup {
    html! {
        div .progress-row {
            div #brush .brush {}
            div .doing {
                button #undo .quiet .slim type="button" aria-label="Undo" title="Undo" { (icon(drawing::UNDO)) }
                button #redo .quiet .slim type="button" aria-label="Redo" title="Redo" { (icon(drawing::REDO)) }
                span #said .said role="status" aria-live="polite" {}
            }
            div .totals {
                span #stale .stale hidden { span #stale-words {} " · " button #refresh .link type="button" { "refresh" } }
                span #total {}
                span #saved .saved { span #saved-words { "Loading" } }
                a #train .button .slim .primary href={ (project) "train" } hidden { "Train" }
            }
        }
        div #waiting .note .warn .waiting role="alert" hidden {
            span #waiting-words {} " "
            button #send-now .slim type="button" { "Try now" }
            button #discard .slim type="button" hidden { "Give up the first" }
        }
    }
}

fn grid() -> Markup {
    html! {
        div .stage {
            div #scroller .scroller tabindex="-1" {
                div #sizer .sizer {
                    div #grid .grid role="grid" aria-label="Images" aria-multiselectable="true" aria-describedby="grid-help" {}
                    div #band .band hidden {}
                }
            }
            p #grid-help .visually-hidden {
                "Arrow keys move from image to image, Space marks, Enter shows the image large, and a question mark lists all keys."
            }
            div #empty .empty hidden {}
            div #selection .selection role="group" aria-label="Selected images" hidden {
                strong #selection-count {}
                span #selection-hint .muted {}
                span .selection-tools {
                    button #select-cluster .slim type="button" hidden {}
                    button #select-all .slim type="button" {}
                    button #similar .slim type="button" { "Show similar" }
                    button #unlabel .slim type="button" { "Remove label" }
                    button #deselect .slim type="button" { "Clear" }
                }
            }
        }
    }
}

fn panel() -> Markup {
    html! {
        aside #panel .panel aria-labelledby="panel-title" hidden {
            div .side-head {
                h2 #panel-title {}
                button #close-panel .quiet .slim type="button" aria-label="Close" { (icon(drawing::CLOSE)) }
            }
            div #map-panel .panel-body hidden {
                div .map-tools {
                    fieldset .segment {
                        legend.visually-hidden { "What dragging does" }
                        input #map-choose type="radio" name="map-tool" value="choose" checked;
                        label for="map-choose" title="Show only the images in a box" { "Box" }
                        input #map-lasso type="radio" name="map-tool" value="lasso";
                        label for="map-lasso" title="Select the images inside a line" { "Lasso" }
                        input #map-move type="radio" name="map-tool" value="move";
                        label for="map-move" { "Move" }
                    }
                    label .inline { "Colour" select #map-colour {
                        option value="cluster" { "cluster" }
                        option value="label" { "label" }
                    } }
                    button #map-in .slim type="button" aria-label="Larger" { "+" }
                    button #map-out .slim type="button" aria-label="Smaller" { "−" }
                    button #map-all .slim type="button" { "All" }
                }
                div .map-stage {
                    canvas #map role="img" aria-label="Map of the images: like images lie close together" {}
                    div #map-tip .map-tip hidden { img #map-thumb alt=""; span #map-words {} }
                }
                p #map-note .hint {}
            }
            div #history-panel .panel-body hidden {
                ol #history-list .history {}
                button #older .slim type="button" hidden { "Older" }
            }
        }
    }
}

fn viewer() -> Markup {
    html! {
        dialog #viewer .viewer aria-labelledby="viewer-name" {
            div .viewer-head {
                span #viewer-at .muted {}
                h2 #viewer-name {}
                span .viewer-zoom {
                    button #zoom-out .quiet .slim type="button" aria-label="Smaller" { "−" }
                    button #zoom-fit .quiet .slim type="button" { "Fit" }
                    button #zoom-in .quiet .slim type="button" aria-label="Larger" { "+" }
                }
                button #viewer-close .quiet .slim type="button" aria-label="Close the large view" { (icon(drawing::CLOSE)) }
            }
            div #viewer-stage .viewer-stage tabindex="0" role="group" aria-label="Picture; plus and minus zoom, arrows go to the next" {
                img #viewer-image alt="" draggable="false";
                button #viewer-before .viewer-step .before type="button" aria-label="Image before" { (icon(drawing::BEFORE)) }
                button #viewer-after .viewer-step .after type="button" aria-label="Next image" { (icon(drawing::AFTER)) }
            }
            div .viewer-side {
                p #viewer-label .viewer-label role="status" aria-live="polite" {}
                p #viewer-guess .muted {}
                ul #viewer-classes .class-list aria-label="Label this image and go on" {}
                dl #viewer-facts .viewer-facts {}
                details #viewer-history-box { summary { "History" } ol #viewer-history .history {} }
            }
        }
    }
}

fn dialogs() -> Markup {
    html! {
        dialog #classes-dialog .wide-dialog aria-labelledby="classes-dialog-title" {
            div .side-head {
                h2 #classes-dialog-title { "Classes" }
                button #classes-close .quiet .slim type="button" aria-label="Close" { (icon(drawing::CLOSE)) }
            }
            p .hint { "Names, colours and order can change at any time; labels follow. Changes are kept at once." }
            ol #class-rows .class-rows {}
            form #class-add .class-add {
                label.visually-hidden for="class-add-name" { "Name of the new class" }
                input #class-add-name placeholder="New class" maxlength="80" autocomplete="off" required;
                button .primary type="submit" { "Add class" }
            }
            p #class-error .error role="alert" {}
        }
        dialog #keys-dialog .wide-dialog aria-labelledby="keys-title" {
            div .side-head {
                h2 #keys-title { "Keys" }
                button #keys-close .quiet .slim type="button" aria-label="Close" { (icon(drawing::CLOSE)) }
            }
            p { label { input #keys-on type="checkbox"; "Single keys do something" } }
            p .hint { "Choose a key's button and press another key to change it. Switched off, only arrows, Space, Enter, Escape and keys with Ctrl work." }
            div #keys-table .keys-table {}
            p #keys-error .error role="alert" {}
            div .actions { button #keys-reset type="button" { "As it was at first" } }
        }
    }
}
