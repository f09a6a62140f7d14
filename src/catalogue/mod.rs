//! A project's images as a page shows them: in memory, with labels, clusters and predictions, filtered and in any order.
