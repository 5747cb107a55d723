//! Which file is compared next? From the change map, from the whole tree, or found again by its inode.

use super::super::{Candidate, ResyncError, disk, is_elsewhere};
use super::Data;
use crate::change_map::{Blocks, FileChange};
use crate::op::{Kind, RelPath};
use crate::tree;

impl Data<'_> {
    /// The next file to compare; None: there is none, or it must wait for what is in work.
    pub(super) fn candidate(&mut self, nothing_in_hand: bool) -> Result<Option<Candidate>, ResyncError> {
        loop {
            if let Some(mut file) = self.ready.pop_front() {
                if self.this.lock().disturbed.contains_key(&(file.dir, file.ino)) {
                    file.blocks = Blocks::whole();
                    file.unchanged = false;
                }
                // Another name of a file in work is compared when that one is finished.
                if self.open.contains_key(&(file.dir, file.ino)) {
                    if nothing_in_hand && self.asked.is_empty() && self.parts.is_empty() {
                        self.open.remove(&(file.dir, file.ino));
                    } else {
                        self.ready.push_front(file);
                        return Ok(None);
                    }
                }
                if !self.this.lock().done.contains(&(file.dir, file.ino)) {
                    return Ok(Some(file));
                }
                continue;
            }
            let moved = self.this.lock().compare.pop_first();
            if let Some((dir, path)) = moved {
                self.taken.push((dir, path.clone()));
                self.consider(dir, path, Blocks::whole())?;
            } else if let Some((dir, path)) = self.directories.pop() {
                self.read(dir, &path)?;
            } else if let Some(((dir, ino), change)) = self.dirty.pop_front() {
                self.changed(dir, ino, change)?;
            } else {
                let mut state = self.this.lock();
                let suspects = std::mem::take(&mut state.suspects);
                for key in suspects {
                    if state.done.contains(&key) {
                        continue;
                    }
                    // In work: known by another name.
                    if !self.open.contains_key(&key) {
                        self.lost.insert(key, Blocks::whole());
                    } else if nothing_in_hand && self.asked.is_empty() && self.parts.is_empty() {
                        self.open.remove(&key);
                        self.lost.insert(key, Blocks::whole());
                    } else {
                        state.suspects.insert(key);
                    }
                }
                drop(state);
                if self.lost.is_empty() {
                    return Ok(None);
                }
                self.search()?;
            }
        }
    }

    fn consider(&mut self, dir: u16, path: RelPath, blocks: Blocks) -> Result<(), ResyncError> {
        let Some(root) = self.this.root(dir) else { return Ok(()) };
        let stat = match tree::stat(root, &path) {
            Ok(stat) => stat,
            Err(e) if is_elsewhere(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, &path, e)),
        };
        let Some(kind) = tree::kind_of(&stat) else { return Ok(()) };
        if self.this.is_excluded(dir, &path, kind) {
            return Ok(());
        }
        match kind {
            Kind::Directory => self.directories.push((dir, path)),
            Kind::File => {
                let (ino, size) = (stat.st_ino, stat.st_size as u64);
                let unchanged = self.this.since.is_some_and(|since| stat.st_mtime < since && stat.st_ctime < since);
                let blocks = if unchanged { Blocks::default() } else { blocks };
                self.ready.push_back(Candidate { dir, path, ino, blocks, size, unchanged });
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a directory, without a lock: what moves meanwhile is noted by whoever moves it.
    fn read(&mut self, dir: u16, path: &RelPath) -> Result<(), ResyncError> {
        let Some(root) = self.this.root(dir) else { return Ok(()) };
        let names = tree::open_dir(root, path).and_then(tree::names);
        let names = match names {
            Ok(names) => names,
            Err(e) if is_elsewhere(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, path, e)),
        };
        for name in names {
            self.consider(dir, path.join(&name), Blocks::whole())?;
        }
        Ok(())
    }

    /// A file of the change map.
    fn changed(&mut self, dir: u16, ino: u64, change: FileChange) -> Result<(), ResyncError> {
        let Some(root) = self.this.root(dir) else { return Ok(()) };
        match tree::stat(root, &change.path) {
            Ok(stat) if stat.st_ino == ino => {
                if tree::kind_of(&stat) == Some(Kind::File) {
                    return self.consider(dir, change.path, change.blocks);
                }
                self.link.wait_room(1 << 20)?;
                let mut result = Ok(());
                self.this.front.with_names(dir, &mut || {
                    result = self.this.emit_meta(self.link, dir, &change.path);
                });
                result
            }
            Err(e) if !is_elsewhere(&e) => Err(disk(dir, &change.path, e)),
            _ => {
                self.lost.insert((dir, ino), change.blocks);
                Ok(())
            }
        }
    }

    /// Looks in the whole tree for changed objects whose paths are out of date.
    fn search(&mut self) -> Result<(), ResyncError> {
        let mut lost = std::mem::take(&mut self.lost);
        let mut queue: Vec<(u16, RelPath)> = self.this.dirs().map(|dir| (dir, RelPath::default())).collect();
        while let Some((dir, path)) = queue.pop() {
            self.this.check()?;
            if lost.is_empty() {
                break;
            }
            let Some(root) = self.this.root(dir) else { continue };
            let Ok(here) = tree::open_dir(root, &path) else { continue };
            for name in tree::names(&here).map_err(|e| disk(dir, &path, e))? {
                let Ok(stat) = tree::stat_at(&here, &name) else { continue };
                let full = path.join(&name);
                if tree::kind_of(&stat) == Some(Kind::Directory) {
                    queue.push((dir, full.clone()));
                }
                if let Some(blocks) = lost.remove(&(dir, stat.st_ino)) {
                    if tree::kind_of(&stat) == Some(Kind::File) {
                        self.consider(dir, full, blocks)?;
                    } else {
                        self.changed(dir, stat.st_ino, FileChange { path: full, blocks, born: false })?;
                    }
                }
            }
        }
        // What was not found has no name any more.
        Ok(())
    }
}
