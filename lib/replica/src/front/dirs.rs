//! What is in a directory?

use std::mem::MaybeUninit;
use std::sync::PoisonError;

use rustix::fs::{AtFlags, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::core::{Core, Done, attr};
use crate::fuse::abi::{Body, DIRENT, ENTRY_OUT, FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE};
use crate::fuse::session::Outcome;

impl Core {
    pub(super) fn open_directory(&self, nodeid: u64) -> Done {
        let _names = self.names_shared();
        let ino = self.ino(nodeid);
        let fd = self.open(ino, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.nodes().opened(ino);
        let mut body = Body::new();
        // Everybody changes the directory through this mount, so the kernel knows when its copy is out of date.
        body.open_out(self.handles.insert(ino, fd), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
        Ok(Outcome::Reply(body))
    }

    /// Offsets are those of the directory beneath, so they stay good when another worker continues.
    pub(super) fn read_directory(&self, nodeid: u64, fh: u64, offset: u64, size: u32, plus: bool) -> Done {
        let _names = self.names_shared();
        let handle = self.handle(fh, nodeid)?;
        let _reading = handle.reading.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&handle.fd, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut entries = RawDir::new(&handle.fd, &mut buffer);
        let mut body = Body::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let needed = (DIRENT + name.len()).next_multiple_of(8) + if plus { ENTRY_OUT } else { 0 };
            if body.0.len() + needed > size as usize {
                break;
            }
            let dots = name == b"." || name == b"..";
            if plus {
                let stat = if dots {
                    Err(Errno::NOENT)
                } else {
                    rustix::fs::statat(&handle.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                };
                match stat {
                    Ok(stat) if stat.st_dev == self.device => {
                        self.nodes().looked_up(stat.st_ino, handle.ino, name);
                        body.entry_out(self.nodeid(stat.st_ino), 0, &attr(&stat));
                    }
                    _ => {
                        body.entry_unknown();
                    }
                }
            }
            let kind = entry.file_type().as_raw_mode() >> 12;
            body.dirent(entry.ino(), entry.next_entry_cookie(), kind, name);
        }
        Ok(Outcome::Reply(body))
    }
}
