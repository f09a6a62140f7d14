//! HARVEST: from a folder of unlabelled images and a few labels to a trained image classifier.
//!
//! The rooms, from the program's edge inwards; a module may use only those below it.

pub mod algorithms;
pub mod augment;
pub mod bounds;
pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod device;
pub mod files;
pub mod inference;
pub mod metrics;
pub mod project;
pub mod random;
pub mod report;
pub mod training;
