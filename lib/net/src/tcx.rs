//! How does a small program see the packets of an interface before everybody else? `bpf(2)`: maps, programs, and their
//! places at the ingress of an interface (tcx, Linux 6.6 and later).
//!
//! Everything ends with the descriptors: when the process that opened them dies, the kernel removes program, place and maps.

use crate::ebpf::Instruction;
use crate::error::NetError;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The packet goes on to whoever is next.
pub const NEXT: i32 = -1;
/// The packet ends here.
pub const DROP: i32 = 2;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOK_UP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const MAP_ARRAY: u32 = 2;
const MAP_ARRAY_PER_PROCESSOR: u32 = 6;
const PROGRAM_OF_PACKETS: u32 = 3;
const INGRESS: u32 = 46;
/// `CONFIG_NR_CPUS` is at most this.
const PROCESSORS: usize = 8192;
/// The kernel's limit of names, with its zero.
const NAME: usize = 16;
/// What the kernel says about a program that it refuses.
const LOG: usize = 64 * 1024;

/// The parts of `union bpf_attr` that are used here. The kernel takes what is not given for zero.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; NAME],
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME],
}

#[repr(C)]
#[derive(Default)]
struct ProgramRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    processor: u32,
    batch: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

/// The system call. `attribute` is one of the structures above, which begin as the kernel's do.
fn bpf<T>(command: libc::c_int, attribute: &mut T, what: &str) -> Result<i32, NetError> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of a structure that lives for the call, and the memory that
    // its members point to, which every caller below keeps alive and large enough.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(NetError::last(what)),
    }
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

fn name(text: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    let allowed = text.bytes().map(|b| if b.is_ascii_alphanumeric() || b == b'_' { b } else { b'_' });
    name.iter_mut().take(NAME - 1).zip(allowed).for_each(|(to, from)| *to = from);
    name
}

fn map(kind: u32, value_size: usize, entries: usize, label: &str) -> Result<OwnedFd, NetError> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut attribute = MapCreate {
        kind,
        key_size: 4,
        value_size: size(value_size),
        entries: size(entries),
        name: name(label),
        ..MapCreate::default()
    };
    bpf(MAP_CREATE, &mut attribute, "make a map for a packet program").map(descriptor)
}

/// Bytes that a program reads and this process writes.
pub struct Table {
    map: OwnedFd,
    size: usize,
}

impl Table {
    /// All bytes are zero.
    pub fn new(label: &str, size: usize) -> Result<Self, NetError> {
        Ok(Self { map: map(MAP_ARRAY, size, 1, label)?, size })
    }

    /// For [`Assembler::map_value`](crate::ebpf::Assembler::map_value).
    pub fn descriptor(&self) -> RawFd {
        self.map.as_raw_fd()
    }

    /// Replaces all bytes; each changes at once, but not all at the same instant. Those that are not given become zero.
    pub fn set(&self, bytes: &[u8]) -> Result<(), NetError> {
        let mut value = bytes.to_vec();
        value.resize(self.size, 0);
        let key = 0_u32;
        let mut attribute = Element {
            map: number(&self.map),
            padding: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: value.as_ptr() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE, &mut attribute, "write the map of a packet program").map(drop)
    }
}

/// Packets and bytes that a program counts, each processor for itself.
pub struct Counters {
    map: OwnedFd,
    entries: usize,
    /// The kernel writes one element for each processor that there can be, which is less than this holds.
    values: Vec<[u64; 2]>,
}

impl Counters {
    pub fn new(label: &str, entries: usize) -> Result<Self, NetError> {
        let map = map(MAP_ARRAY_PER_PROCESSOR, size_of::<[u64; 2]>(), entries, label)?;
        Ok(Self { map, entries, values: vec![[0; 2]; PROCESSORS] })
    }

    /// For [`Assembler::map`](crate::ebpf::Assembler::map).
    pub fn descriptor(&self) -> RawFd {
        self.map.as_raw_fd()
    }

    /// Packets and bytes of each entry.
    pub fn read(&mut self) -> Result<Vec<[u64; 2]>, NetError> {
        let mut all = Vec::with_capacity(self.entries);
        for entry in 0..self.entries {
            let key = u32::try_from(entry).unwrap_or(u32::MAX);
            let mut attribute = Element {
                map: number(&self.map),
                padding: 0,
                key: std::ptr::from_ref(&key) as u64,
                value: self.values.as_mut_ptr() as u64,
                flags: 0,
            };
            bpf(MAP_LOOK_UP, &mut attribute, "read the counters of a packet program")?;
            let sum = |at: fn(&[u64; 2]) -> u64| self.values.iter().map(at).fold(0, u64::wrapping_add);
            all.push([sum(|[packets, _]| *packets), sum(|[_, bytes]| *bytes)]);
        }
        Ok(all)
    }
}

/// A program that the kernel has accepted.
pub struct Program(OwnedFd);

impl Program {
    /// Loads a program that is called for packets.
    ///
    /// # Errors
    /// The kernel has no `bpf(2)`, does not permit it, or refuses the program: then its last words about it are part of the
    /// error.
    pub fn load(label: &str, code: &[Instruction]) -> Result<Self, NetError> {
        let license = CString::default();
        let what = "load a packet program";
        let mut attribute = ProgramLoad {
            kind: PROGRAM_OF_PACKETS,
            instructions: u32::try_from(code.len()).unwrap_or(u32::MAX),
            code: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name: name(label),
            ..ProgramLoad::default()
        };
        let error = match bpf(PROGRAM_LOAD, &mut attribute, what) {
            Ok(number) => return Ok(Self(descriptor(number))),
            Err(error) if !matches!(error.errno(), Some(libc::EINVAL | libc::EACCES)) => return Err(error),
            Err(error) => error,
        };
        // Once more with a log, which costs time and is not needed otherwise.
        let mut log = vec![0_u8; LOG];
        (attribute.log_level, attribute.log_size, attribute.log) = (1, LOG as u32, log.as_mut_ptr() as u64);
        match bpf(PROGRAM_LOAD, &mut attribute, what) {
            Ok(number) => Ok(Self(descriptor(number))),
            Err(_) => Err(refused(error, &log)),
        }
    }

    /// What the program says of one frame (from its Ethernet header on): [`NEXT`] or [`DROP`]. Nothing else happens to it.
    pub fn judge(&self, frame: &[u8]) -> Result<i32, NetError> {
        let mut attribute = ProgramRun {
            program: number(&self.0),
            size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ..ProgramRun::default()
        };
        bpf(PROGRAM_RUN, &mut attribute, "try a packet program")?;
        Ok(attribute.result.cast_signed())
    }

    /// Every packet that comes in on an interface goes through the program, as long as the place is kept.
    pub fn attach(&self, interface: u32) -> Result<Place, NetError> {
        let mut attribute = LinkCreate { program: number(&self.0), interface, kind: INGRESS, ..LinkCreate::default() };
        let link = bpf(LINK_CREATE, &mut attribute, "put a packet program before an interface")?;
        Ok(Place { _link: descriptor(link) })
    }
}

/// A program's place at an interface, which it loses when this is dropped.
pub struct Place {
    _link: OwnedFd,
}

/// The kernel's last line about a program that it did not take.
fn refused(error: NetError, log: &[u8]) -> NetError {
    let text = String::from_utf8_lossy(log);
    let text = text.trim_end_matches('\0');
    let said = text.lines().rev().find(|l| !l.is_empty() && !l.starts_with("processed "));
    match (error, said) {
        (NetError::Sys { what, source }, Some(said)) => {
            NetError::Sys { what: format!("{what} ({said})"), source: io::Error::new(source.kind(), source) }
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        assert_eq!(&name("sk_my-module.with more"), b"sk_my_module_wi\0");
        assert_eq!(&name("sk"), b"sk\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_kernels_last_word_is_told() {
        let error = NetError::sys("load", io::Error::from_raw_os_error(libc::EACCES));
        let said = refused(error, b"0: (95) exit\nR0 !read_ok\nprocessed 1 insns\n\0\0").to_string();
        assert!(said.starts_with("load (R0 !read_ok): "), "{said}");
    }
}
