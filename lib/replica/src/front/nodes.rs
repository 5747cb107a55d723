//! Which objects does the kernel know, under which names, and where are they now? No system calls here.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::op::RelPath;

/// Cached descriptors of directories; beyond, all are dropped and opened again as needed.
const MOST_DIRECTORIES: usize = 1024;

/// What keeps an object that has no name any more.
#[derive(Clone)]
pub struct Orphan {
    pub fd: Arc<OwnedFd>,
    /// The runner keeps it, too, for a successor.
    pub kept: bool,
}

#[derive(Default)]
struct Node {
    /// References that the kernel holds.
    lookups: u64,
    handles: u32,
    /// Names in this directory that the table knows: they keep it in the table.
    children: u32,
    /// All known names: (inode of the directory, name). More may exist.
    names: Vec<(u64, Box<[u8]>)>,
    /// No name is left: what keeps the inode, and its number, while the kernel knows it.
    orphan: Option<Orphan>,
    /// It has no attribute `security.capability`.
    without_capability: bool,
    /// `O_PATH` descriptor, for directories.
    directory: Option<Arc<OwnedFd>>,
}

/// Where an object is.
pub enum Place {
    Root,
    /// The inode of its directory, and its name there.
    Named(u64, Box<[u8]>),
    Orphan(Arc<OwnedFd>),
    /// The table does not know (any more): after a restart, or only other names of it are left.
    Unknown,
}

/// Why an object has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// It, or a directory on its way, has no name any more.
    Orphan,
    /// The table does not know where this one is.
    Unknown(u64),
    /// Longer than operations can carry.
    TooLong,
}

/// Table of nodes by inode number; the root is always there.
pub struct Nodes {
    root: u64,
    map: HashMap<u64, Node>,
    directories: usize,
}

impl Nodes {
    pub fn new(root: u64) -> Self {
        let map = HashMap::from([(root, Node { lookups: 1, ..Node::default() })]);
        Self { root, map, directories: 0 }
    }

    /// The object is at this place, whether or not the kernel knows it.
    pub fn found(&mut self, ino: u64, parent: u64, name: &[u8]) {
        if ino == self.root {
            return;
        }
        let node = self.map.entry(ino).or_default();
        node.orphan = None;
        if !node.names.iter().any(|(p, n)| *p == parent && **n == *name) {
            node.names.push((parent, name.into()));
            self.map.entry(parent).or_default().children += 1;
        }
    }

    /// The object was found anew, and the kernel knows it: how often is known when it forgets.
    pub fn recovered(&mut self, ino: u64, parent: u64, name: &[u8]) {
        self.found(ino, parent, name);
        if let Some(node) = self.map.get_mut(&ino) {
            node.lookups = node.lookups.max(1);
        }
    }

    /// The kernel got one more reference to it.
    pub fn looked_up(&mut self, ino: u64, parent: u64, name: &[u8]) {
        self.found(ino, parent, name);
        if let Some(node) = self.map.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// The kernel dropped references. If the object was an orphan, and is gone now: what kept it. Its inode number may be used again
    /// when that is dropped.
    pub fn forget(&mut self, ino: u64, count: u64) -> Option<Orphan> {
        let node = self.map.get_mut(&ino).filter(|_| ino != self.root)?;
        // After a restart the kernel may count more than we do.
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 {
            // It forgets what nobody has open; a RELEASE may still be on its way through another thread.
            node.handles = 0;
        }
        let orphan = node.orphan.clone();
        let gone = self.sweep(ino);
        orphan.filter(|_| gone)
    }

    /// A reference that was counted does not exist. Too small a count is harmless, too great a one lasts.
    pub fn uncount(&mut self, ino: u64) {
        if let Some(node) = self.map.get_mut(&ino).filter(|_| ino != self.root) {
            let least = u64::from(node.orphan.is_some());
            node.lookups = node.lookups.saturating_sub(1).max(least);
            self.sweep(ino);
        }
    }

    /// Drops a node that nobody refers to, then its directories likewise. True if this one was dropped.
    fn sweep(&mut self, ino: u64) -> bool {
        let mut todo = vec![ino];
        let mut dropped = false;
        while let Some(next) = todo.pop() {
            let unused = self.map.get(&next).is_some_and(|n| n.lookups == 0 && n.children == 0 && n.handles == 0);
            if !unused || next == self.root {
                continue;
            }
            if let Some(node) = self.map.remove(&next) {
                dropped |= next == ino;
                self.directories -= usize::from(node.directory.is_some());
                for (parent, _) in node.names {
                    if let Some(p) = self.map.get_mut(&parent) {
                        p.children = p.children.saturating_sub(1);
                    }
                    todo.push(parent);
                }
            }
        }
        dropped
    }

    pub fn opened(&mut self, ino: u64) {
        self.map.entry(ino).or_default().handles += 1;
    }

    /// A handle is gone. The result is that of [`Nodes::forget`].
    pub fn closed(&mut self, ino: u64) -> Option<Orphan> {
        let node = self.map.get_mut(&ino)?;
        node.handles = node.handles.saturating_sub(1);
        let orphan = node.orphan.clone();
        let gone = self.sweep(ino);
        orphan.filter(|_| gone)
    }

    pub fn knows(&self, ino: u64) -> bool {
        self.map.contains_key(&ino)
    }

    pub fn is_open(&self, ino: u64) -> bool {
        self.map.get(&ino).is_some_and(|n| n.handles > 0)
    }

    /// It has no name, and may get one.
    pub fn is_orphan(&self, ino: u64) -> bool {
        self.map.get(&ino).is_some_and(|n| n.orphan.is_some())
    }

    pub fn place(&self, ino: u64) -> Place {
        if ino == self.root {
            return Place::Root;
        }
        match self.map.get(&ino) {
            Some(Node { orphan: Some(orphan), .. }) => Place::Orphan(Arc::clone(&orphan.fd)),
            Some(node) => match node.names.first() {
                Some((parent, name)) => Place::Named(*parent, name.clone()),
                None => Place::Unknown,
            },
            None => Place::Unknown,
        }
    }

    /// Path from the root.
    pub fn path(&self, ino: u64) -> Result<RelPath, Gap> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = ino;
        let mut length = 0;
        while at != self.root {
            let node = self.map.get(&at).ok_or(Gap::Unknown(at))?;
            if node.orphan.is_some() {
                return Err(Gap::Orphan);
            }
            let (parent, name) = node.names.first().ok_or(Gap::Unknown(at))?;
            length += name.len() + 1;
            if length > 4097 {
                return Err(Gap::TooLong);
            }
            parts.push(name);
            at = *parent;
        }
        parts.reverse();
        RelPath::new(parts.join(&b'/')).ok_or(Gap::TooLong)
    }

    /// A name is gone.
    pub fn remove_name(&mut self, ino: u64, parent: u64, name: &[u8]) {
        if let Some(node) = self.map.get_mut(&ino)
            && let Some(at) = node.names.iter().position(|(p, n)| *p == parent && **n == *name)
        {
            node.names.swap_remove(at);
            if let Some(p) = self.map.get_mut(&parent) {
                p.children = p.children.saturating_sub(1);
            }
            self.sweep(ino);
            self.sweep(parent);
        }
    }

    /// The last name is gone, the kernel may still use the object.
    pub fn orphaned(&mut self, ino: u64, orphan: Orphan) {
        let node = self.map.entry(ino).or_default();
        let names = std::mem::take(&mut node.names);
        node.orphan = Some(orphan);
        // After a restart our count may be too small: it goes when the kernel says so.
        node.lookups = node.lookups.max(1);
        for (parent, _) in names {
            if let Some(p) = self.map.get_mut(&parent) {
                p.children = p.children.saturating_sub(1);
            }
            self.sweep(parent);
        }
    }

    /// Whether it is known that the object has no attribute `security.capability`.
    pub fn is_without_capability(&self, ino: u64) -> bool {
        self.map.get(&ino).is_some_and(|n| n.without_capability)
    }

    /// Remembers that, while the object is known.
    pub fn set_without_capability(&mut self, ino: u64, without: bool) {
        if let Some(node) = self.map.get_mut(&ino) {
            node.without_capability = without;
        }
    }

    pub fn directory(&self, ino: u64) -> Option<Arc<OwnedFd>> {
        self.map.get(&ino)?.directory.clone()
    }

    pub fn set_directory(&mut self, ino: u64, fd: Arc<OwnedFd>) {
        if self.directories >= MOST_DIRECTORIES {
            self.directories = 0;
            for node in self.map.values_mut() {
                node.directory = None;
            }
        }
        if let Some(node) = self.map.get_mut(&ino) {
            self.directories += usize::from(node.directory.is_none());
            node.directory = Some(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(nodes: &Nodes, ino: u64) -> Option<Vec<u8>> {
        nodes.path(ino).ok().map(|p| p.as_bytes().to_vec())
    }

    #[test]
    fn directories_stay_while_names_below_are_known() {
        let mut nodes = Nodes::new(2);
        nodes.looked_up(10, 2, b"a");
        nodes.looked_up(11, 10, b"b");
        nodes.looked_up(12, 11, b"c");
        nodes.forget(10, 1);
        nodes.forget(11, 1);
        assert_eq!(path(&nodes, 12).as_deref(), Some(&b"a/b/c"[..]));
        nodes.forget(12, 1);
        assert!(![10, 11, 12].iter().any(|i| nodes.knows(*i)));
        assert_eq!(path(&nodes, 2).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_moved_directory_moves_what_is_below() {
        let mut nodes = Nodes::new(2);
        nodes.looked_up(10, 2, b"a");
        nodes.looked_up(12, 10, b"c");
        nodes.remove_name(10, 2, b"a");
        nodes.found(10, 2, b"z");
        assert_eq!(path(&nodes, 12).as_deref(), Some(&b"z/c"[..]));
    }

    #[test]
    fn hard_links_and_orphans() {
        let mut nodes = Nodes::new(2);
        nodes.looked_up(12, 2, b"one");
        nodes.looked_up(12, 2, b"two");
        nodes.opened(12);
        nodes.remove_name(12, 2, b"one");
        assert_eq!(path(&nodes, 12).as_deref(), Some(&b"two"[..]));
        let fd = Arc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
        nodes.orphaned(12, Orphan { fd, kept: true });
        assert_eq!(path(&nodes, 12), None);
        assert!(matches!(nodes.place(12), Place::Orphan(_)));
        nodes.closed(12);
        assert!(nodes.forget(12, 2).is_some_and(|orphan| orphan.kept));
        assert!(matches!(nodes.place(12), Place::Unknown));
    }
}
