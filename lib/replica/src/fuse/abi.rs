//! What do the bytes of /dev/fuse mean? Requests are parsed without trust, replies built field by field (protocol 7.31 and later).

/// Node number of the mounted directory.
pub const ROOT_ID: u64 = 1;
pub const OUT_HEADER: usize = 16;
const IN_HEADER: usize = 40;

/// Longest request payload that we negotiate.
pub const MAX_WRITE: usize = 1 << 20;

/// How long the kernel may keep names and attributes: nobody else changes the directory.
const CACHE_SECONDS: u64 = 86_400;

pub mod flag {
    //! INIT flags, first 32 bits.
    pub const ASYNC_READ: u32 = 1;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const DONT_MASK: u32 = 1 << 6;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const ASYNC_DIO: u32 = 1 << 15;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const POSIX_ACL: u32 = 1 << 20;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const CACHE_SYMLINKS: u32 = 1 << 23;
    pub const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
    pub const SETXATTR_EXT: u32 = 1 << 29;
    pub const INIT_EXT: u32 = 1 << 30;

    /// What this implementation wants; what the kernel lacks is left out.
    pub const WANTED: u32 = ASYNC_READ
        | BIG_WRITES
        | DONT_MASK
        | DO_READDIRPLUS
        | READDIRPLUS_AUTO
        | ASYNC_DIO
        | PARALLEL_DIROPS
        | POSIX_ACL
        | MAX_PAGES
        | CACHE_SYMLINKS
        | HANDLE_KILLPRIV_V2
        | SETXATTR_EXT
        | INIT_EXT;
}

pub mod valid {
    //! Which fields of SETATTR count.
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
const FOPEN_NOFLUSH: u32 = 1 << 5;
/// How files are opened. Nothing is held back until a file is closed, so no close has to be told. Without the flag (kernels before 5.16 do not
/// know it) the first ones are: a process that becomes another program (exec) while nobody answers stands still, and everybody who looks at
/// it in /proc with it.
pub const OPEN_FILE: u32 = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;
/// Reply of OPENDIR: the kernel may keep what it reads.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
pub const OPEN_KILL_SUIDGID: u32 = 1;
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
pub const FSYNC_DATA_ONLY: u32 = 1;
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;
const GETATTR_FH: u32 = 1;

/// What every request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub nodeid: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

/// SETATTR's wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub valid: u32,
    pub fh: u64,
    pub size: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A request, borrowed from its buffer. `fh` None: the kernel named no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    Lookup {
        name: &'a [u8],
    },
    Forget {
        nlookup: u64,
    },
    BatchForget {
        items: &'a [u8],
    },
    GetAttr {
        fh: Option<u64>,
    },
    /// GETATTR with more to tell; `mask` as in statx(2).
    StatX {
        fh: Option<u64>,
        mask: u32,
    },
    SetAttr(SetAttr),
    ReadLink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MkNod {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    MkDir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    RmDir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_parent: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        from: u64,
        name: &'a [u8],
    },
    Open {
        flags: u32,
        open_flags: u32,
    },
    Create {
        name: &'a [u8],
        flags: u32,
        mode: u32,
        umask: u32,
        open_flags: u32,
    },
    Read {
        fh: u64,
        offset: u64,
        size: u32,
    },
    Write {
        fh: u64,
        offset: u64,
        write_flags: u32,
        data: &'a [u8],
    },
    StatFs,
    Release {
        fh: u64,
    },
    FSync {
        fh: u64,
        data_only: bool,
    },
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
        kill_sgid: bool,
    },
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    Flush,
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
    },
    OpenDir,
    ReadDir {
        fh: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    ReleaseDir {
        fh: u64,
    },
    FSyncDir {
        fh: u64,
        data_only: bool,
    },
    Interrupt,
    Destroy,
    Ioctl,
    Fallocate {
        fh: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    LSeek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    /// The name that the kernel sends means nothing.
    TmpFile {
        flags: u32,
        mode: u32,
        umask: u32,
    },
    /// Not implemented: the kernel falls back or refuses.
    Other(u32),
}

/// A request that does not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?;
        Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| Malformed)?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| Malformed)?))
    }

    fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// One component of a path: what we pass on to system calls relative to a directory must not leave it.
    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let name = self.text()?;
        let good = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/');
        if good { Ok(name) } else { Err(Malformed) }
    }
}

/// The header alone: enough to answer a request that is malformed otherwise.
pub fn parse_header(bytes: &[u8]) -> Result<Header, Malformed> {
    let mut c = Cursor(bytes);
    let header = Header {
        len: c.u32()?,
        opcode: c.u32()?,
        unique: c.u64()?,
        nodeid: c.u64()?,
        uid: c.u32()?,
        gid: c.u32()?,
        pid: c.u32()?,
    };
    c.take(4)?;
    let len = usize::try_from(header.len).map_err(|_| Malformed)?;
    if len < IN_HEADER || len > bytes.len() { Err(Malformed) } else { Ok(header) }
}

/// `setxattr_ext`: whether SETXATTR_EXT was negotiated, which makes that request's header longer.
pub fn parse(bytes: &[u8], setxattr_ext: bool) -> Result<(Header, Call<'_>), Malformed> {
    let header = parse_header(bytes)?;
    let body = bytes.get(IN_HEADER..header.len as usize).ok_or(Malformed)?;
    Ok((header, parse_call(header.opcode, Cursor(body), setxattr_ext)?))
}

fn parse_call(opcode: u32, mut c: Cursor<'_>, setxattr_ext: bool) -> Result<Call<'_>, Malformed> {
    Ok(match opcode {
        1 => Call::Lookup { name: c.name()? },
        2 => Call::Forget { nlookup: c.u64()? },
        3 => {
            let flags = c.u32()?;
            c.u32()?;
            let fh = c.u64()?;
            Call::GetAttr { fh: (flags & GETATTR_FH != 0).then_some(fh) }
        }
        4 => Call::SetAttr(set_attr(&mut c)?),
        5 => Call::ReadLink,
        6 => Call::Symlink { name: c.name()?, target: c.text()? },
        8 => {
            let (mode, rdev, umask) = (c.u32()?, c.u32()?, c.u32()?);
            c.u32()?;
            Call::MkNod { mode, rdev, umask, name: c.name()? }
        }
        9 => {
            let (mode, umask) = (c.u32()?, c.u32()?);
            Call::MkDir { mode, umask, name: c.name()? }
        }
        10 => Call::Unlink { name: c.name()? },
        11 => Call::RmDir { name: c.name()? },
        12 => {
            let new_parent = c.u64()?;
            Call::Rename { new_parent, flags: 0, name: c.name()?, new_name: c.name()? }
        }
        45 => {
            let (new_parent, flags) = (c.u64()?, c.u32()?);
            c.u32()?;
            Call::Rename { new_parent, flags, name: c.name()?, new_name: c.name()? }
        }
        13 => Call::Link { from: c.u64()?, name: c.name()? },
        14 => Call::Open { flags: c.u32()?, open_flags: c.u32()? },
        35 => {
            let (flags, mode, umask, open_flags) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
            Call::Create { flags, mode, umask, open_flags, name: c.name()? }
        }
        15 => Call::Read { fh: c.u64()?, offset: c.u64()?, size: c.u32()? },
        16 => {
            let (fh, offset, size, write_flags) = (c.u64()?, c.u64()?, c.u32()?, c.u32()?);
            c.take(16)?;
            Call::Write { fh, offset, write_flags, data: c.take(size as usize)? }
        }
        17 => Call::StatFs,
        18 => Call::Release { fh: c.u64()? },
        20 => Call::FSync { fh: c.u64()?, data_only: c.u32()? & FSYNC_DATA_ONLY != 0 },
        21 => {
            let (size, flags) = (c.u32()?, c.u32()?);
            let extra = if setxattr_ext { (c.u32()?, c.u32()?).0 } else { 0 };
            let name = c.text()?;
            Call::SetXattr {
                name,
                flags,
                value: c.take(size as usize)?,
                kill_sgid: extra & SETXATTR_ACL_KILL_SGID != 0,
            }
        }
        22 => {
            let size = c.u32()?;
            c.u32()?;
            Call::GetXattr { size, name: c.text()? }
        }
        23 => Call::ListXattr { size: c.u32()? },
        24 => Call::RemoveXattr { name: c.text()? },
        25 => Call::Flush,
        26 => Call::Init { major: c.u32()?, minor: c.u32()?, max_readahead: c.u32()?, flags: c.u32()? },
        27 => Call::OpenDir,
        28 | 44 => Call::ReadDir { fh: c.u64()?, offset: c.u64()?, size: c.u32()?, plus: opcode == 44 },
        29 => Call::ReleaseDir { fh: c.u64()? },
        30 => Call::FSyncDir { fh: c.u64()?, data_only: c.u32()? & FSYNC_DATA_ONLY != 0 },
        36 => Call::Interrupt,
        38 => Call::Destroy,
        39 => Call::Ioctl,
        42 => {
            let count = c.u32()? as usize;
            c.u32()?;
            Call::BatchForget { items: c.take(count.checked_mul(16).ok_or(Malformed)?)? }
        }
        43 => Call::Fallocate { fh: c.u64()?, offset: c.u64()?, length: c.u64()?, mode: c.u32()? },
        46 => Call::LSeek { fh: c.u64()?, offset: c.u64()?, whence: c.u32()? },
        51 => Call::TmpFile { flags: c.u32()?, mode: c.u32()?, umask: c.u32()? },
        52 => {
            let flags = c.u32()?;
            c.u32()?;
            let fh = c.u64()?;
            c.u32()?;
            Call::StatX { fh: (flags & GETATTR_FH != 0).then_some(fh), mask: c.u32()? }
        }
        other => Call::Other(other),
    })
}

fn set_attr(c: &mut Cursor<'_>) -> Result<SetAttr, Malformed> {
    let valid = c.u32()?;
    c.u32()?;
    let (fh, size) = (c.u64()?, c.u64()?);
    c.u64()?;
    let (atime, mtime) = (c.u64()?.cast_signed(), c.u64()?.cast_signed());
    c.u64()?;
    let (atime_ns, mtime_ns) = (c.u32()?, c.u32()?);
    c.u32()?;
    let mode = c.u32()?;
    c.u32()?;
    let (uid, gid) = (c.u32()?, c.u32()?);
    Ok(SetAttr { valid, fh, size, atime: (atime, atime_ns), mtime: (mtime, mtime_ns), mode, uid, gid })
}

/// Requests that may take space or make objects: SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN (clears set-user-id),
/// WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE, RENAME2, TMPFILE.
pub fn changes(opcode: u32) -> bool {
    matches!(opcode, 4 | 6 | 8..=14 | 16 | 21 | 24 | 35 | 43 | 45 | 51)
}

/// The pairs (node, lookups) of a BATCH_FORGET.
pub fn forgets(items: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    items.chunks_exact(16).filter_map(|item| {
        let mut c = Cursor(item);
        Some((c.u64().ok()?, c.u64().ok()?))
    })
}

/// The nodes that a reply to this kind of request gives references to.
pub fn references(opcode: u32, body: &[u8]) -> Vec<u64> {
    let nodeid = |entry: &[u8]| Cursor(entry).u64().ok().filter(|n| *n != 0);
    match opcode {
        // LOOKUP, SYMLINK, MKNOD, MKDIR, LINK, CREATE, TMPFILE.
        1 | 6 | 8 | 9 | 13 | 35 | 51 => nodeid(body).into_iter().collect(),
        44 => {
            let mut found = Vec::new();
            let mut rest = body;
            while let Some((entry, tail)) = rest.split_at_checked(ENTRY_OUT) {
                found.extend(nodeid(entry));
                let mut c = Cursor(tail.get(16..).unwrap_or_default());
                let Ok(length) = c.u32() else { break };
                rest = tail.get((DIRENT + length as usize).next_multiple_of(8)..).unwrap_or_default();
            }
            found
        }
        _ => Vec::new(),
    }
}

/// Attributes of an object as the kernel wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
}

/// Builds the body of a reply.
#[derive(Debug, Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn new() -> Self {
        Self(Vec::with_capacity(160))
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn attr(&mut self, a: &Attr) -> &mut Self {
        self.u64(a.ino).u64(a.size).u64(a.blocks);
        self.u64(a.atime.0.cast_unsigned()).u64(a.mtime.0.cast_unsigned()).u64(a.ctime.0.cast_unsigned());
        self.u32(a.atime.1).u32(a.mtime.1).u32(a.ctime.1).u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid);
        self.u32(a.rdev).u32(a.blksize).u32(0)
    }

    /// Reply of GETATTR and SETATTR.
    pub fn attr_out(&mut self, a: &Attr) -> &mut Self {
        self.u64(CACHE_SECONDS).u32(0).u32(0).attr(a)
    }

    /// Reply of STATX; `device` is left out: the mount has its own.
    pub fn statx_out(&mut self, x: &rustix::fs::Statx) -> &mut Self {
        self.u64(CACHE_SECONDS).u32(0).u32(0).u64(0).u64(0);
        self.u32(x.stx_mask).u32(x.stx_blksize).u64(x.stx_attributes.bits()).u32(x.stx_nlink);
        self.u32(x.stx_uid).u32(x.stx_gid).u32(x.stx_mode.into());
        self.u64(x.stx_ino).u64(x.stx_size).u64(x.stx_blocks).u64(x.stx_attributes_mask.bits());
        for time in [x.stx_atime, x.stx_btime, x.stx_ctime, x.stx_mtime] {
            self.u64(time.tv_sec.cast_unsigned()).u32(time.tv_nsec).u32(0);
        }
        self.u32(x.stx_rdev_major).u32(x.stx_rdev_minor);
        self.0.resize(self.0.len() + 8 + 14 * 8, 0);
        self
    }

    /// Reply of LOOKUP and of what creates names.
    pub fn entry_out(&mut self, nodeid: u64, generation: u64, a: &Attr) -> &mut Self {
        self.u64(nodeid).u64(generation).u64(CACHE_SECONDS).u64(CACHE_SECONDS).u32(0).u32(0).attr(a)
    }

    /// "There is no such name", to be remembered by the kernel.
    pub fn no_entry(&mut self) -> &mut Self {
        self.u64(0).u64(0).u64(CACHE_SECONDS).u64(0);
        self.0.resize(self.0.len() + 8 + 88, 0);
        self
    }

    /// In READDIRPLUS: an entry without attributes, the kernel will ask for them when needed.
    pub fn entry_unknown(&mut self) -> &mut Self {
        self.0.resize(self.0.len() + ENTRY_OUT, 0);
        self
    }

    pub fn open_out(&mut self, fh: u64, flags: u32) -> &mut Self {
        self.u64(fh).u32(flags).u32(0)
    }

    /// One directory entry; `kind` is `DT_*`.
    pub fn dirent(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) -> &mut Self {
        self.u64(ino).u64(next).u32(name.len() as u32).u32(kind);
        self.0.extend_from_slice(name);
        let padded = self.0.len().next_multiple_of(8);
        self.0.resize(padded, 0);
        self
    }

    /// Reply of INIT.
    pub fn init_out(&mut self, minor: u32, max_readahead: u32, flags: u32) -> &mut Self {
        self.u32(7).u32(minor).u32(max_readahead).u32(flags);
        // max_background and congestion_threshold: how many asynchronous reads may be under way.
        self.u32(u32::from_ne_bytes([64, 0, 48, 0]));
        let [a, b] = ((MAX_WRITE / 4096) as u16).to_ne_bytes();
        self.u32(MAX_WRITE as u32).u32(1).u32(u32::from_ne_bytes([a, b, 0, 0]));
        self.0.resize(self.0.len() + 4 + 28, 0);
        self
    }
}

/// Size of `fuse_entry_out`.
pub const ENTRY_OUT: usize = 128;
/// Size of `fuse_dirent` before the name.
pub const DIRENT: usize = 24;

/// Header of a reply; `error` is a positive errno or 0.
pub fn out_header(unique: u64, error: i32, body: usize) -> [u8; OUT_HEADER] {
    let mut bytes = [0; OUT_HEADER];
    let len = (OUT_HEADER + body) as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(-error).to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}

#[cfg(test)]
#[path = "abi_tests.rs"]
mod tests;
