//! Under which name does an application see its host? Preloaded (`LD_PRELOAD`), this library answers `gethostname()` and `uname()`
//! with the name in the environment variable `SK_VHOST_NAME`; without it, with the kernel's.
//!
//! It runs inside programs of others: it allocates nothing, keeps nothing, cannot panic, and calls nothing but `getenv` and `uname`.
//! Programs that are linked statically, or that ask the kernel themselves, see the true name.

use libc::{c_char, c_int, size_t, utsname};

const NAME: &core::ffi::CStr = c"SK_VHOST_NAME";

/// Writes the virtual name into a `nodename`. Longer names than the kernel's are cut, as the kernel would.
///
/// # Safety
/// `field` must be writable for `room` bytes.
unsafe fn replace(field: *mut c_char, room: usize) {
    // SAFETY: the name is a constant C string.
    let value = unsafe { libc::getenv(NAME.as_ptr()) };
    if value.is_null() || room == 0 {
        return;
    }
    // SAFETY: `value` is a C string of the environment.
    if unsafe { *value } == 0 {
        return;
    }
    let mut at = 0;
    while at < room - 1 {
        // SAFETY: not behind the end of `value` (the loop ends at its zero) nor of `field`.
        let byte = unsafe { *value.add(at) };
        // SAFETY: as above.
        unsafe { *field.add(at) = byte };
        if byte == 0 {
            return;
        }
        at += 1;
    }
    // SAFETY: `at` is `room - 1`.
    unsafe { *field.add(at) = 0 };
}

/// The kernel's answer with the virtual name.
///
/// # Safety
/// `buffer` must be null or point to a writable `utsname`.
unsafe fn answer(buffer: *mut utsname) -> c_int {
    // SAFETY: the kernel checks the pointer itself (EFAULT).
    let result = unsafe { libc::syscall(libc::SYS_uname, buffer) };
    if result != 0 || buffer.is_null() {
        return -1;
    }
    // SAFETY: the kernel has just written the whole structure.
    let nodename = unsafe { &mut (*buffer).nodename };
    // SAFETY: pointer and length are those of the field.
    unsafe { replace(nodename.as_mut_ptr(), nodename.len()) };
    0
}

/// `uname(2)` with the virtual name as `nodename`.
///
/// # Safety
/// That of the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uname(buffer: *mut utsname) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { answer(buffer) }
}

/// `gethostname(2)`: like the C library, a name that does not fit is cut and reported with `ENAMETOOLONG`.
///
/// # Safety
/// That of the function of the C library: `name` must be writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostname(name: *mut c_char, length: size_t) -> c_int {
    let mut buffer = core::mem::MaybeUninit::<utsname>::zeroed();
    // SAFETY: the buffer is ours.
    if unsafe { answer(buffer.as_mut_ptr()) } != 0 {
        return -1;
    }
    // SAFETY: zeroed, then written by the kernel.
    let buffer = unsafe { buffer.assume_init() };
    let mut at = 0;
    while at < length && at < buffer.nodename.len() {
        let Some(byte) = buffer.nodename.get(at) else { break };
        // SAFETY: `at` is below `length`.
        unsafe { *name.add(at) = *byte };
        if *byte == 0 {
            return 0;
        }
        at += 1;
    }
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = libc::ENAMETOOLONG };
    -1
}

/// What programs compiled with `_FORTIFY_SOURCE` call.
///
/// # Safety
/// That of [`gethostname`]; `room` is the size of the object, which the compiler has found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __gethostname_chk(name: *mut c_char, length: size_t, room: size_t) -> c_int {
    if room < length {
        // SAFETY: ends the process, as the C library does.
        unsafe { libc::abort() };
    }
    // SAFETY: the caller's promise.
    unsafe { gethostname(name, length) }
}
