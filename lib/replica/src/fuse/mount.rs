//! How does a directory become our mount, and a plain directory again?

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags};

/// Type of our mounts in `/proc/self/mountinfo`.
pub const TYPE: &str = "fuse.sk";

/// How far the kernel reads ahead, in bytes.
pub const READ_AHEAD: u32 = 512 << 10;

/// Opens `/dev/fuse`; not connected before [`mount`].
pub fn open_device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Mounts over `path`; `beneath` is the directory itself, whose mount's options are kept.
pub fn mount(fuse: BorrowedFd<'_>, path: &Path, beneath: BorrowedFd<'_>) -> io::Result<()> {
    let options = rustix::fs::fstatvfs(beneath)?.f_flag;
    let mut flags = MsFlags::empty();
    for (has, wants) in [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
    ] {
        if options.contains(has) {
            flags |= wants;
        }
    }
    let mode = rustix::fs::fstat(beneath)?.st_mode;
    let data =
        format!("fd={},rootmode={mode:o},user_id=0,group_id=0,default_permissions,allow_other", fuse.as_raw_fd());
    nix::mount::mount(Some(path), path, Some(TYPE), flags, Some(data.as_str()))?;
    // Without it reading ahead is only slower.
    let _ = read_ahead(path);
    Ok(())
}

/// Before the first request is answered: lets the kernel read further ahead than the 128 KiB that every FUSE mount begins with.
/// Sequential reading of what is in no cache is a third faster then; twice as far was no better.
fn read_ahead(path: &Path) -> io::Result<()> {
    // Nobody answers yet what the mount would have to be asked for.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(CWD, path, flags, StatxFlags::empty())?;
    let setting = format!("/sys/class/bdi/{}:{}/read_ahead_kb", seen.stx_dev_major, seen.stx_dev_minor);
    std::fs::write(setting, (READ_AHEAD >> 10).to_string())
}

/// What can be said of the connection behind this descriptor without waiting.
fn look(fuse: BorrowedFd<'_>) -> Option<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fuse, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok().then(|| fds[0].revents())
}

/// Whether the connection behind this descriptor still exists.
pub fn connected(fuse: BorrowedFd<'_>) -> bool {
    look(fuse).is_some_and(|seen| !seen.intersects(PollFlags::ERR | PollFlags::NVAL))
}

/// Whether a request is there to be read.
pub fn has_request(fuse: BorrowedFd<'_>) -> bool {
    look(fuse).is_some_and(|seen| seen.contains(PollFlags::IN))
}

/// How many of our mounts lie over exactly this path.
pub fn mounts_over(path: &Path) -> io::Result<usize> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|b| *b == b'\n').filter(|line| is_ours(line, path)).count())
}

/// A line of mountinfo: `36 35 98:0 /root /mount/point options - type source options`.
fn is_ours(line: &[u8], path: &Path) -> bool {
    let mut fields = line.split(|b| *b == b' ');
    let Some(point) = fields.nth(4) else { return false };
    let Some(kind) = fields.skip_while(|f| *f != b"-").nth(1) else { return false };
    kind == TYPE.as_bytes() && unescape(point) == path
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Unmounts in good order: EBUSY when in use.
pub fn unmount(path: &Path) -> io::Result<()> {
    Ok(nix::mount::umount2(path, MntFlags::UMOUNT_NOFOLLOW)?)
}

/// The path leads to the plain directory at once.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(nix::mount::umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Breaks the connection, so that everything waiting fails, and detaches.
pub fn abort(path: &Path) -> io::Result<()> {
    // MNT_FORCE breaks the connection even when the unmounting then fails with EBUSY.
    match nix::mount::umount2(path, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(_) => detach(path),
    }
}

/// Breaks the connection, so that everything waiting fails, and leaves the mount where it is: nobody gets anything by this path. An error: it
/// may be gone.
pub fn break_off(path: &Path) -> io::Result<()> {
    let in_use = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let unmounted = nix::mount::umount2(path, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
    drop(in_use);
    match unmounted {
        Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(e) => Err(e.into()),
        Ok(()) => Err(io::Error::other("the mount was not in use")),
    }
}

/// Removes mounts of ours that a dead process left over `path`.
pub fn clear_stale(path: &Path) -> io::Result<()> {
    while mounts_over(path)? > 0 {
        abort(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_our_mounts_only() {
        let line = b"36 35 0:40 / /data\\040dir rw,relatime shared:1 - fuse.sk /data rw,user_id=0";
        assert!(is_ours(line, Path::new("/data dir")));
        assert!(!is_ours(line, Path::new("/data")));
        assert!(!is_ours(b"36 35 0:40 / /data rw - ext4 /dev/sda rw", Path::new("/data")));
        assert!(!is_ours(b"", Path::new("/data")));
        assert_eq!(unescape(b"a\\134b\\9"), Path::new("a\\b\\9"));
    }
}
