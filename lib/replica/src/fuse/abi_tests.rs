//! Are requests parsed within their bounds, and replies laid out as the kernel reads them?

use super::*;
use proptest::prelude::*;

fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((IN_HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    for word in [7_u64, 42] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    for word in [1000_u32, 100, 4711, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn sizes_are_those_of_the_kernel() {
    let a = Attr {
        ino: 1,
        size: 2,
        blocks: 3,
        atime: (4, 5),
        mtime: (6, 7),
        ctime: (8, 9),
        mode: 0o100_644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
    };
    assert_eq!(Body::new().attr_out(&a).0.len(), 104);
    assert_eq!(Body::new().entry_out(1, 0, &a).0.len(), ENTRY_OUT);
    assert_eq!(Body::new().no_entry().0.len(), ENTRY_OUT);
    assert_eq!(Body::new().entry_unknown().0.len(), ENTRY_OUT);
    assert_eq!(Body::new().init_out(31, 0, 0).0.len(), 64);
    assert_eq!(Body::new().dirent(1, 2, 8, b"x").0.len(), DIRENT + 8);
}

#[test]
fn references_of_a_listing_are_found() {
    let mut body = Body::new();
    body.entry_unknown().dirent(9, 1, 4, b".");
    for (ino, name) in [(11, &b"a"[..]), (12, b"eight by"), (13, b"longer name")] {
        let at = body.0.len();
        body.entry_unknown().dirent(ino, 1, 8, name);
        body.0[at..at + 8].copy_from_slice(&ino.to_ne_bytes());
    }
    assert_eq!(references(44, &body.0), [11, 12, 13]);
    assert!(references(1, Body::new().no_entry().0.as_slice()).is_empty());
    assert_eq!(references(35, &11_u64.to_ne_bytes()), [11]);
    assert!(references(3, &body.0).is_empty());
}

#[test]
fn names_cannot_leave_their_directory() {
    for bad in [&b"..\0"[..], b".\0", b"\0", b"a/b\0", b"abc"] {
        assert_eq!(parse(&request(1, bad), true), Err(Malformed), "{bad:?}");
    }
    let good = request(1, b"\xff\x80 \n\0");
    assert_eq!(parse(&good, true).map(|r| r.1), Ok(Call::Lookup { name: b"\xff\x80 \n" }));
}

#[test]
fn a_write_must_hold_what_it_announces() {
    let mut body = Vec::new();
    for word in [9_u64, 512] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body.extend_from_slice(&4_u32.to_ne_bytes());
    body.resize(40, 0);
    assert_eq!(parse(&request(16, &body), true), Err(Malformed));
    body.extend_from_slice(b"data");
    let good = request(16, &body);
    let call = Call::Write { fh: 9, offset: 512, write_flags: 0, data: b"data" };
    assert_eq!(parse(&good, true).map(|r| r.1), Ok(call));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), ext in any::<bool>()) {
        let _ = parse(&bytes, ext);
    }

    #[test]
    fn garbage_bodies_never_panic(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..200), ext in any::<bool>()) {
        let bytes = request(opcode, &body);
        if let Ok((_, Call::BatchForget { items })) = parse(&bytes, ext) {
            prop_assert_eq!(forgets(items).count() * 16, items.len());
        }
    }

    #[test]
    fn garbage_listings_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        references(44, &body);
    }

    #[test]
    fn truncated_requests_are_refused(cut in 0_usize..40) {
        prop_assert_eq!(parse_header(&request(1, b"name\0")[..cut]), Err(Malformed));
    }
}
