//! The demo: the whole loop on leaves the program draws itself.

pub mod leaves;
