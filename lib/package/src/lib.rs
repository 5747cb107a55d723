//! What is in a package of a module (`.safe`, a zip archive), and may it be unpacked here?
//!
//! A package comes from anywhere. Every entry is checked before anything of it is written, nothing is believed that the archive says about
//! sizes, and what was unpacked of a package that turns out to be bad is removed.

mod archive;
mod error;
mod name;
mod tree;

pub use archive::{pack, unpack};
pub use error::Error;

/// Longest package file.
pub const PACKAGE_MAX: u64 = 256 << 20;
/// Most files and directories in a package.
pub const ENTRIES_MAX: usize = 4096;
/// Most bytes of all files together, unpacked.
pub const CONTENT_MAX: u64 = 512 << 20;
/// Contents beyond [`RATIO_FROM`] may be this many times as long as the package: text shrinks to a tenth, a bomb to a thousandth.
pub const RATIO_MAX: u64 = 200;
/// Contents up to this length may shrink as they like.
pub const RATIO_FROM: u64 = 16 << 20;

/// The file every package must have.
pub const CONFIGURATION: &str = "conf/userconfig.xml";

/// What was found in a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The number of the module where it was packed.
    pub id: Option<u16>,
    /// Files that were unpacked, as paths from the module's directory, in order.
    pub files: Vec<String>,
    /// Entries that are no part of a module and were left out, as they are called in the package.
    pub left_out: Vec<String>,
}
