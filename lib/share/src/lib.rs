//! Who owns which of the 256 buckets of a load-balancing group.
//!
//! [`Table::next`] makes the table of a new view from the table of the former one. A function of the members alone could
//! not give exact shares *and* move as little as possible, so the table itself is part of the view and is carried from
//! view to view; a joiner learns it with the view. The same table, members and powers give the same next table everywhere.
//!
//! - **Exact shares**: a member with power `p` of a total `P` owns `256 * p / P` buckets, rounded down or up.
//! - **Least movement**: of all tables with such shares, the next one is among those nearest to the former one: a member
//!   that must not have fewer buckets loses none, and the rounding favours those that own the buckets already.
//! - **Power 0** gets nothing. When nobody has power, nobody owns anything.
//! - **The strongest takes all**: a member whose power is at most a 64th ([`CHAIN_RATIO`]) of the strongest present gets
//!   nothing. With powers 1, 64, 64² the strongest available node serves everything; members of one rank share.

mod bucket;
mod table;

pub use bucket::Buckets;
pub use table::{Powers, Table};

/// Buckets of a group.
pub const BUCKETS: usize = 256;
/// Most nodes of a farm; nodes are numbered from 0.
pub const NODES: usize = 32;
/// A member this many times weaker than the strongest one gets nothing.
pub const CHAIN_RATIO: u64 = 64;
