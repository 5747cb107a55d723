//! A secondary was found to differ from what it was sent: how does it become equal again?
//!
//! It must not take over meanwhile, and what it has was made by nobody knows whom. So its place in the stream is taken from it, as when the ring is lost:
//! it counts as outdated, this node goes on with an epoch of its own, and an incremental resynchronisation copies what the change map says. The
//! differences are in the map, and durable in the activity log, before. What is replaced is put aside first ([`crate::salvage`]).

use super::core::Core;
use super::spec::Failure;
use crate::change_map::{Blocks, DirtySet, MAX_ENTRIES};
use crate::tree;
use crate::verify::{Difference, What};
use std::os::fd::{AsFd as _, OwnedFd};

/// Differences as places to compare.
pub struct Differences {
    roots: Vec<OwnedFd>,
    pub set: DirtySet,
}

impl Differences {
    /// `roots`: a descriptor of each replicated directory of the primary.
    pub fn new(roots: Vec<OwnedFd>) -> Self {
        Self { roots, set: DirtySet::default() }
    }

    pub fn add(&mut self, difference: &Difference) {
        if self.set.everything() {
            return;
        }
        let Difference { dir, path, what } = difference;
        let here = self.roots.get(usize::from(*dir)).and_then(|root| tree::stat(root.as_fd(), path).ok());
        let ino = here.map_or(0, |stat| stat.st_ino);
        match what {
            What::Content { ranges } if ino != 0 => {
                let mut blocks = Blocks::default();
                for (offset, length) in ranges {
                    blocks.merge(&Blocks::range(*offset, *length));
                }
                self.set.add_file(*dir, ino, path.clone(), blocks);
            }
            What::Attributes { attributes } if ino != 0 && attributes.iter().all(|a| is_of_the_inode(a)) => {
                self.set.add_file(*dir, ino, path.clone(), Blocks::default());
            }
            // Who has which name, and what kind of object it is, shows in the listing of its directory; what comes anew is compared whole.
            _ => {
                self.set.add_names(*dir, path.parent());
                if ino != 0 && !path.as_bytes().is_empty() {
                    self.set.add_moved(*dir, path.clone());
                }
            }
        }
        if self.set.len() > MAX_ENTRIES {
            self.set = DirtySet::all_of_it();
        }
    }
}

/// Whether an attribute of [`What::Attributes`] is put right by setting the attributes of the object that is there.
fn is_of_the_inode(attribute: &str) -> bool {
    matches!(attribute, "mode" | "owner" | "size" | "mtime" | "xattrs")
}

impl Core {
    /// Makes the secondary of this connection equal again; begun when it returns.
    pub fn repair(&self, link: u64, set: &DirtySet) -> Result<(), Failure> {
        if let Err(e) = self.activity.add(set) {
            self.activity_failed(&e).map_err(|e| Failure::new(e, "the state directory must be on a good disk"))?;
        }
        let mut flow = self.flow();
        if flow.link != Some(link) || !flow.paired {
            return Err(Failure::new("the stream to the secondary was lost meanwhile", "compare again"));
        }
        flow.changes.add(set);
        flow.repair = true;
        let n = flow.ring.position();
        self.break_stream(&mut flow, n, "the secondary differs, and is repaired");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::RelPath;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn each_difference_becomes_a_place_to_compare() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), b"x").unwrap();
        std::fs::write(dir.path().join("d/g"), b"x").unwrap();
        let root = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let mut found = Differences::new(vec![root]);
        let mut add = |at: &str, what| found.add(&Difference { dir: 0, path: path(at), what });
        add("d/f", What::Content { ranges: vec![(0, 4096), (1 << 20, 4096)] });
        add("d/g", What::Attributes { attributes: vec!["mode".into(), "mtime".into()] });
        add("gone", What::Extra);
        add("d", What::Attributes { attributes: vec!["kind".into()] });
        let files: Vec<_> = found.set.files().map(|(_, f)| (f.path.clone(), f.blocks.runs(1 << 20))).collect();
        assert!(files.contains(&(
            path("d/f"),
            Blocks::range(0, 1).runs(1 << 20).into_iter().chain(Blocks::range(1 << 20, 1).runs(1 << 20)).collect()
        )));
        assert!(files.contains(&(path("d/g"), Vec::new())));
        assert_eq!(found.set.names().map(|(_, p)| p.clone()).collect::<Vec<_>>(), [RelPath::default()]);
        assert_eq!(found.set.moved().map(|((_, p), _)| p.clone()).collect::<Vec<_>>(), [path("d")]);
        assert!(!found.set.everything());
    }
}
