//! Where do requests lie so that the death of this process does not lose them?
//!
//! A memfd holds a header page and an array of slots. The kernel copies each request straight into a slot; its first word is the
//! request's length, hence not zero. The word becomes zero after the reply. Whoever inherits the memfd and the /dev/fuse descriptor
//! finds in the busy slots exactly the requests that were read and perhaps not answered.
//!
//! A slot also says how far its request came: a request that was applied and recorded is only answered again, never applied again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::abi::MAX_WRITE;

const MAGIC: u64 = 0x736b_2d73_6c6f_7473;
const VERSION: u32 = 1;
const PAGE: usize = 4096;
/// Words about the slot, before the request.
const WORDS: usize = 64;
const SLOT: usize = MAX_WRITE + 2 * PAGE;
/// Requests read and not yet answered; readers wait when there are more.
const COUNT: usize = 2048;
/// Slots that keep their pages. More than there are threads that read, unless many wait for the disk; the one that was freed last is
/// taken first, so slots that are not needed stay without pages.
const KEPT: usize = 16;
/// Slots whose pages are all there before a request is read into them: more than there can be readers. Those above are in use when many
/// requests wait for the peer, and would need gigabytes.
const WARM: usize = 40;
/// Slots that do not keep their pages give them back when the request was longer than this.
const PUNCH: usize = 64 << 10;

#[repr(C)]
struct PoolHeader {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
    /// How many workers have served this mount.
    generation: AtomicU64,
    /// 0 until INIT was answered, else 1 << 63 | negotiated flags.
    negotiated: AtomicU64,
}

#[repr(C)]
struct SlotWords {
    /// See [`Progress`].
    progress: AtomicU32,
    _pad: AtomicU32,
    position: AtomicU64,
    notes: [AtomicU64; 2],
}

/// How far the request in a slot came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Fresh,
    /// About to be applied; the notes tell what was there before.
    Noted([u64; 2]),
    /// Applied, and recorded at this position (0: nothing to record).
    Done(u64),
    /// Refused with this errno.
    Failed(i32),
}

#[derive(Default)]
struct Free {
    slots: Vec<u32>,
    /// Readers that wait for one.
    waiting: usize,
}

/// The slots of one mount.
pub struct Pool {
    memfd: OwnedFd,
    base: NonNull<u8>,
    free: Mutex<Free>,
    freed: Condvar,
    /// Slots all of whose pages are mapped in this process, see [`Slot::warm`].
    warm: Vec<AtomicBool>,
    /// Requests that a former worker noted, and perhaps applied, and that are not recorded yet.
    unsettled: AtomicUsize,
}

// SAFETY: the mapping is shared memory accessed through atomics, or through slots that have one owner at a time.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

const fn total() -> usize {
    PAGE + COUNT * SLOT
}

impl Pool {
    /// A new memfd with free slots.
    pub fn create() -> io::Result<Arc<Self>> {
        let memfd = rustix::fs::memfd_create("sk-slots", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memfd, total() as u64)?;
        let pool = Self::map(memfd)?;
        let header = pool.header();
        header.version.store(VERSION, Ordering::Relaxed);
        header.slots.store(COUNT as u32, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        pool.start(Vec::new())
    }

    /// The memfd of a former worker: the pool and its busy slots, first those that are noted, then in the order of their arrival.
    /// An error if the memfd is not such a pool, or one of another version.
    pub fn adopt(memfd: OwnedFd) -> io::Result<(Arc<Self>, Vec<Slot>)> {
        let size = rustix::fs::fstat(&memfd)?.st_size;
        if u64::try_from(size) != Ok(total() as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the kept request slots have another size"));
        }
        let pool = Self::map(memfd)?;
        let header = pool.header();
        if header.magic.load(Ordering::Acquire) != MAGIC || header.version.load(Ordering::Relaxed) != VERSION {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the kept request slots are of another version"));
        }
        let busy: Vec<u32> = (0..COUNT as u32).filter(|n| pool.length(*n).load(Ordering::Acquire) != 0).collect();
        let pool = pool.start(busy.clone())?;
        let mut slots: Vec<Slot> = busy.into_iter().map(|number| Slot { pool: Arc::clone(&pool), number }).collect();
        // One that is noted may have been applied without having been recorded: the others must find it recorded.
        let noted = |slot: &Slot| matches!(slot.progress(), Progress::Noted(_));
        let parsed = |slot: &&Slot| super::abi::parse_header(slot.bytes()).is_ok();
        let unsettled = slots.iter().filter(|slot| noted(slot)).filter(parsed).count();
        pool.unsettled.store(unsettled, Ordering::Release);
        slots.sort_by_key(|slot| (!noted(slot), super::abi::parse_header(slot.bytes()).map_or(0, |h| h.unique)));
        Ok((pool, slots))
    }

    fn map(memfd: OwnedFd) -> io::Result<Self> {
        // SAFETY: a new shared mapping at an address chosen by the kernel; unmapped in Drop only.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                total(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                memfd.as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let warm = (0..WARM).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { memfd, base, free: Mutex::default(), freed: Condvar::new(), warm, unsettled: AtomicUsize::new(0) })
    }

    fn start(self, busy: Vec<u32>) -> io::Result<Arc<Self>> {
        self.header().generation.fetch_add(1, Ordering::AcqRel);
        let free = (0..COUNT as u32).rev().filter(|n| !busy.contains(n)).collect();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).slots = free;
        Ok(Arc::new(self))
    }

    fn header(&self) -> &PoolHeader {
        // SAFETY: the mapping starts with a page that holds the header, all of whose fields are atomics.
        unsafe { self.base.cast::<PoolHeader>().as_ref() }
    }

    fn slot_base(&self, number: u32) -> *mut u8 {
        debug_assert!((number as usize) < COUNT);
        // SAFETY: number < COUNT, so the offset is inside the mapping.
        unsafe { self.base.as_ptr().add(PAGE + number as usize * SLOT) }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "slots are page-aligned")]
    fn words(&self, number: u32) -> &SlotWords {
        // SAFETY: a slot is page-aligned and starts with WORDS bytes for these atomics.
        unsafe { &*self.slot_base(number).cast::<SlotWords>() }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "slots are page-aligned, WORDS a multiple of four")]
    fn length(&self, number: u32) -> &AtomicU32 {
        // SAFETY: the request starts WORDS bytes into the page-aligned slot with its length; aligned for u32.
        unsafe { &*self.slot_base(number).add(WORDS).cast::<AtomicU32>() }
    }

    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Number of this worker, from 1.
    pub fn generation(&self) -> u64 {
        self.header().generation.load(Ordering::Acquire)
    }

    /// Flags agreed upon with the kernel, once they were.
    pub fn negotiated(&self) -> Option<u32> {
        let word = self.header().negotiated.load(Ordering::Acquire);
        (word >> 63 == 1).then_some(word as u32)
    }

    pub fn set_negotiated(&self, flags: u32) {
        self.header().negotiated.store(1 << 63 | u64::from(flags), Ordering::Release);
    }

    /// Whether a change that a former worker perhaps applied is still to be recorded.
    pub fn unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) > 0
    }

    /// One of these changes is recorded, or found not to be. True: it was the last.
    pub fn settled(&self) -> bool {
        self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A free slot that can be read into; waits when all are busy.
    pub fn take(self: &Arc<Self>) -> Slot {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(number) = free.slots.pop() {
                drop(free);
                let slot = Slot { pool: Arc::clone(self), number };
                slot.warm();
                return slot;
            }
            free.waiting += 1;
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
            free.waiting -= 1;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: our mapping; slots hold the pool by Arc, so nobody can refer to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), total()) };
    }
}

/// One slot, owned. Dropping it without [`Slot::free`] leaves its request busy, for a successor.
pub struct Slot {
    pool: Arc<Pool>,
    number: u32,
}

impl Slot {
    /// Maps all pages, if they are not. While it copies a request, the kernel brings in no page for a process that is being killed: it
    /// answers the request with EIO instead, and leaves in the slot what it had copied, which a successor would take for the request.
    fn warm(&self) {
        let Some(warm) = self.pool.warm.get(self.number as usize) else { return };
        if warm.swap(true, Ordering::Relaxed) {
            return;
        }
        let base = self.pool.slot_base(self.number);
        // SAFETY: whole pages, our own slot; populating does not change content.
        let populated = unsafe { rustix::mm::madvise(base.cast(), SLOT, Advice::LinuxPopulateWrite) };
        if populated.is_err() {
            // Kernels before 5.14 do not know it. Without memory, each page is tried on its own.
            for at in (0..SLOT).step_by(PAGE) {
                // SAFETY: inside our own slot, which nobody else accesses but through atomics.
                unsafe { &*base.add(at).cast::<AtomicU8>() }.fetch_or(0, Ordering::Relaxed);
            }
        }
    }

    /// Whether a change must wait for one that a former worker perhaps applied, see [`Pool::unsettled`].
    pub fn unsettled_before(&self) -> bool {
        self.pool.unsettled()
    }

    /// Reads one request into the slot. Ok(0): end of file.
    pub fn fill(&mut self, fuse: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        // Here and not when it is freed: a request that was answered must never look as if it had yet to be applied.
        self.pool.words(self.number).progress.store(0, Ordering::Release);
        // SAFETY: the slot is ours alone, and the range lies inside it.
        let space =
            unsafe { std::slice::from_raw_parts_mut(self.pool.slot_base(self.number).add(WORDS), SLOT - WORDS) };
        rustix::io::read(fuse, space)
    }

    /// The request.
    pub fn bytes(&self) -> &[u8] {
        let length = self.pool.length(self.number).load(Ordering::Acquire) as usize;
        // SAFETY: inside the slot, which nobody writes to while it is owned and not being filled.
        unsafe { std::slice::from_raw_parts(self.pool.slot_base(self.number).add(WORDS), length.min(SLOT - WORDS)) }
    }

    pub fn progress(&self) -> Progress {
        let words = self.pool.words(self.number);
        match words.progress.load(Ordering::Acquire) {
            0 => Progress::Fresh,
            1 => Progress::Noted([words.notes[0].load(Ordering::Relaxed), words.notes[1].load(Ordering::Relaxed)]),
            2 => Progress::Done(words.position.load(Ordering::Relaxed)),
            _ => Progress::Failed(words.position.load(Ordering::Relaxed) as i32),
        }
    }

    pub fn note(&self, notes: [u64; 2]) {
        let words = self.pool.words(self.number);
        words.notes[0].store(notes[0], Ordering::Relaxed);
        words.notes[1].store(notes[1], Ordering::Relaxed);
        words.progress.store(1, Ordering::Release);
    }

    pub fn done(&self, position: u64) {
        let words = self.pool.words(self.number);
        words.position.store(position, Ordering::Relaxed);
        words.progress.store(2, Ordering::Release);
    }

    pub fn failed(&self, errno: i32) {
        let words = self.pool.words(self.number);
        words.position.store(u64::from(errno.unsigned_abs()), Ordering::Relaxed);
        words.progress.store(3, Ordering::Release);
    }

    /// The request was answered (or needs no answer): the slot is free again.
    pub fn free(self) {
        let number = self.number;
        let length = self.pool.length(number).swap(0, Ordering::AcqRel) as usize;
        if number as usize >= KEPT && length > PUNCH {
            if let Some(warm) = self.pool.warm.get(number as usize) {
                warm.store(false, Ordering::Relaxed);
            }
            // SAFETY: whole pages inside our own slot, behind the one that holds its words.
            let _ = unsafe {
                rustix::mm::madvise(self.pool.slot_base(number).add(PAGE).cast(), SLOT - PAGE, Advice::LinuxRemove)
            };
        }
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.slots.push(number);
        let waited_for = free.waiting > 0;
        drop(free);
        // Waking up nobody costs a system call for each request.
        if waited_for {
            self.pool.freed.notify_one();
        }
    }

    /// Gives back a slot into which nothing was read.
    pub fn unused(self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slot: &mut Slot, unique: u64) {
        let mut request = vec![0_u8; 48];
        request[..4].copy_from_slice(&48_u32.to_ne_bytes());
        request[8..16].copy_from_slice(&unique.to_ne_bytes());
        let (read, mut write) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut write, &request).unwrap();
        assert_eq!(slot.fill(read.as_fd()).unwrap(), 48);
    }

    #[test]
    fn a_successor_finds_the_unanswered_requests_in_order() {
        let pool = Pool::create().unwrap();
        pool.set_negotiated(77);
        let mut slots: Vec<Slot> = (0..4).map(|_| pool.take()).collect();
        for (slot, unique) in slots.iter_mut().zip([40, 10, 30, 20]) {
            put(slot, unique);
        }
        slots[2].note([5, 6]);
        slots[3].done(99);
        slots.remove(0).free();
        let memfd = pool.memfd().try_clone_to_owned().unwrap();
        drop(slots);
        drop(pool);

        let (pool, busy) = Pool::adopt(memfd).unwrap();
        assert_eq!((pool.generation(), pool.negotiated()), (2, Some(77)));
        assert!(pool.unsettled() && pool.settled() && !pool.unsettled(), "one is noted");
        let seen: Vec<_> =
            busy.iter().map(|s| (super::super::abi::parse_header(s.bytes()).unwrap().unique, s.progress())).collect();
        assert_eq!(seen, [(30, Progress::Noted([5, 6])), (10, Progress::Fresh), (20, Progress::Done(99))]);
        let taken: Vec<Slot> = (0..COUNT - 3).map(|_| pool.take()).collect();
        assert!(taken.iter().all(|t| busy.iter().all(|b| b.number != t.number)));
    }

    /// Whether all pages of the slot are mapped in this process.
    fn is_mapped(slot: &Slot) -> bool {
        let pages = std::fs::File::open("/proc/self/pagemap").unwrap();
        let first = slot.pool.slot_base(slot.number) as usize / PAGE;
        let mut entries = vec![0_u8; SLOT / PAGE * 8];
        std::os::unix::fs::FileExt::read_exact_at(&pages, &mut entries, first as u64 * 8).unwrap();
        entries.chunks_exact(8).all(|entry| u64::from_ne_bytes(entry.try_into().unwrap()) >> 63 == 1)
    }

    #[test]
    fn no_page_is_missing_when_a_request_is_read() {
        let pool = Pool::create().unwrap();
        let mut slots: Vec<Slot> = (0..KEPT + 3).map(|_| pool.take()).collect();
        assert!(slots.iter().all(is_mapped), "of a new pool");
        // One above those that keep their pages gives them back after a long request, and has them again when it is taken.
        let last = slots.pop().unwrap();
        let number = last.number;
        last.pool.length(number).store(PUNCH as u32 + 1, Ordering::Release);
        last.free();
        let again = pool.take();
        assert_eq!(again.number, number);
        assert!(is_mapped(&again), "after its pages were given back");
        let memfd = pool.memfd().try_clone_to_owned().unwrap();
        drop((slots, again, pool));
        let (pool, busy) = Pool::adopt(memfd).unwrap();
        assert!(busy.is_empty());
        let slots: Vec<Slot> = (0..KEPT + 3).map(|_| pool.take()).collect();
        assert!(slots.iter().all(is_mapped), "in a successor");
    }

    #[test]
    fn other_files_are_refused() {
        let memfd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(Pool::adopt(memfd).is_err());
        let memfd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, total() as u64).unwrap();
        assert!(Pool::adopt(memfd).is_err());
    }
}
