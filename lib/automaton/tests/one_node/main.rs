//! Does one core do the right thing, in the right order, when steps fail, hang or are interrupted?

mod any_input;
mod driver;
mod order;
mod orders;
mod peer;
