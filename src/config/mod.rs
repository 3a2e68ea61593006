//! Configuration: as written (`schema`), as meant (`plan`), and the way between.

pub mod plan;
