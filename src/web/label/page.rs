//! The page itself. What it shows comes from the addresses beside it.

use maud::Markup;

use super::frame;
use crate::web::desk::AtDesk;
use crate::web::layout::{Page, Part};
use crate::web::security::Visitor;

/// The label page of a project.
pub async fn page(AtDesk(desk): AtDesk, _: Visitor) -> Markup {
    let address = format!("p/{}/", desk.key);
    let page = Page {
        title: "Label",
        depth: 2,
        project: Some((&desk, Part::Label)),
        script: Some("label.js"),
        style: Some("label.css"),
    };
    page.show(frame::content(&address))
}
