//! HARVEST: from a folder of unlabelled images and a few labels to a trained image classifier.
//!
//! The rooms, from the program's edge inwards; a module may use only those below it.

pub mod cli;
pub mod demo;
pub mod bench;
pub mod training;
pub mod report;
pub mod inference;
pub mod project;
pub mod config;
pub mod algorithms;
pub mod data;
pub mod augment;
pub mod metrics;
pub mod bounds;
pub mod device;
pub mod files;
pub mod random;
