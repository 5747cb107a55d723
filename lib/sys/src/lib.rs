//! See docs/architecture.md.

pub mod roots;
