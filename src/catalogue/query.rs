//! Which images, in which order.

use crate::data::ContentHash;
use crate::experiment::RunPart;
use crate::project::Label;

/// A label that images are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelFilter {
    /// This one.
    Is(Label),
    /// Any class.
    AnyClass,
    /// None yet.
    Unlabelled,
}

impl LabelFilter {
    pub(super) fn admits(self, label: Option<Label>) -> bool {
        match self {
            Self::Is(wanted) => label == Some(wanted),
            Self::AnyClass => label.is_some_and(|label| label.class().is_some()),
            Self::Unlabelled => label.is_none(),
        }
    }
}

/// Which of several files with the same pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// The first.
    #[default]
    First,
    /// All.
    All,
    /// All, and only images that have copies.
    Only,
}

/// The order of a view. Equal images are in the order of their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they lie in folders.
    #[default]
    Path,
    /// Without a label first.
    Unlabelled,
    /// By label, classes as [`Query::classes`] has them.
    Class,
    /// By what the model believes, the surest of each class first.
    Predicted,
    /// Least sure first.
    Confidence,
    /// Surest first.
    Sure,
    /// What helps most to label: between two classes, taking turns over classes; nothing nearly the same twice.
    Doubt,
    /// Labelled images of which the model is sure that they are of another class, the surest first.
    Disagreement,
    /// By cluster, the surest of each first.
    Cluster,
    /// By folder.
    Folder,
    /// Oldest first.
    Date,
    /// Newest first.
    Newest,
    /// The same and nearly the same beside each other, before all others.
    Duplicates,
    /// Most like [`Query::like`] first.
    Similar,
}

/// Which images, in which order. The default is all of them by path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// Any of these labels; empty: whatever the label.
    pub labels: Vec<LabelFilter>,
    /// The model believes any of these classes; empty: whatever it believes.
    pub predicted: Vec<u16>,
    /// In any of these clusters; empty: in whichever.
    pub clusters: Vec<u32>,
    /// In this folder or below.
    pub folder: Option<String>,
    /// At least this confidence, from 0 to 1.
    pub min: Option<f32>,
    /// At most this confidence.
    pub max: Option<f32>,
    /// Which of several copies.
    pub copies: Copies,
    /// What the run used the image for.
    pub part: Option<RunPart>,
    /// Words in the path, whatever their case.
    pub text: Option<String>,
    /// From x0, y0 to x1, y1 on the map.
    pub within: Option<[f32; 4]>,
    /// The order.
    pub order: Order,
    /// For [`Order::Similar`].
    pub like: Option<ContentHash>,
    /// The run whose predictions count; without, the newest finished one.
    pub run: Option<String>,
    /// Numbers of the classes as they are displayed.
    pub classes: Vec<u16>,
}

impl Query {
    /// Whether another label can change the view.
    pub(super) fn follows_labels(&self) -> bool {
        !self.labels.is_empty()
            || matches!(self.order, Order::Unlabelled | Order::Class | Order::Doubt | Order::Disagreement)
    }

    /// Whether only images that a model has seen can be in it.
    pub(super) fn needs_beliefs(&self) -> bool {
        let filters =
            !self.predicted.is_empty() || self.min.is_some() || self.max.is_some() || self.part.is_some();
        let orders = [Order::Predicted, Order::Confidence, Order::Sure, Order::Disagreement];
        filters || orders.contains(&self.order)
    }

    /// Whether only images that were grouped can be in it.
    pub(super) fn needs_groups(&self) -> bool {
        !self.clusters.is_empty() || self.within.is_some() || self.order == Order::Cluster
    }
}
