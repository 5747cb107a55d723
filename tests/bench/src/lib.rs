//! How fast is a mirror, compared with the file system beneath it? Loads, and the arithmetic of rounds.

pub mod load;
pub mod proxy;
pub mod table;
