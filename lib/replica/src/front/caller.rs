//! As whom does a thread change the directory beneath? As the one who asked: then new objects are the caller's from the beginning, and
//! blocks reserved for root and hard limits of quotas hold for the caller as they do without a mount.
//!
//! The kernel has checked the permissions. The capabilities that work on files are kept therefore; only the one that opens reserves is
//! given up while the caller is not root. These are attributes of the thread, set only when the caller is another than the last one.

use std::cell::Cell;

use crate::fuse::abi::Header;

const VERSION_3: u32 = 0x2008_0522;
const SYS_RESOURCE: u32 = 1 << 24;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// How this thread acts now.
#[derive(Clone, Copy)]
struct Acting {
    uid: u32,
    gid: u32,
    /// Capabilities that the thread began with; None: they cannot be set, so it stays root.
    full: Option<[CapData; 2]>,
}

thread_local! {
    static ACTING: Cell<Option<Acting>> = const { Cell::new(None) };
}

fn capabilities() -> Option<[CapData; 2]> {
    let mut header = CapHeader { version: VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: both structures are laid out as capget(2) says for this version, and outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_capget, std::ptr::from_mut(&mut header), std::ptr::from_mut(&mut data)) };
    (done == 0).then_some(data)
}

fn set_capabilities(data: &[CapData; 2]) -> bool {
    let mut header = CapHeader { version: VERSION_3, pid: 0 };
    // SAFETY: as for capget; concerns this thread only.
    unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_mut(&mut header), std::ptr::from_ref(data)) == 0 }
}

fn set_user(uid: u32) {
    // SAFETY: an attribute of this thread only; what it is afterwards shows in the owner of what is made.
    unsafe { libc::syscall(libc::SYS_setfsuid, libc::c_ulong::from(uid)) };
}

fn set_group(gid: u32) {
    // SAFETY: as for setfsuid.
    unsafe { libc::syscall(libc::SYS_setfsgid, libc::c_ulong::from(gid)) };
}

/// Until it is called again, this thread changes files as the sender of the request. -1, the kernel's own requests: root.
pub(super) fn act_as(header: &Header) {
    let known = |id: u32| if id == u32::MAX { 0 } else { id };
    let (uid, gid) = (known(header.uid), known(header.gid));
    let mut acting = ACTING.get().unwrap_or_else(|| Acting { uid: 0, gid: 0, full: capabilities() });
    if acting.gid != gid {
        set_group(gid);
        acting.gid = gid;
    }
    if acting.uid != uid
        && let Some(full) = acting.full
    {
        // Takes the capabilities on files away, or gives them back.
        set_user(uid);
        let mut wanted = full;
        if uid != 0 {
            wanted[0].effective &= !SYS_RESOURCE;
        }
        if set_capabilities(&wanted) {
            acting.uid = uid;
        } else {
            set_user(0);
            acting = Acting { uid: 0, full: None, ..acting };
        }
    }
    ACTING.set(Some(acting));
}
