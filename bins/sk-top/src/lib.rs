//! What are the modules of this node doing, at a glance and live? `sk-top`.

mod app;
mod ask;
mod cli;
mod draw;
mod feed;
mod screen;
mod snapshot;
mod text;

pub use cli::{command, main};
