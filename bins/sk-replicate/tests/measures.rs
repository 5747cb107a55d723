//! What both engines tell of a resynchronisation and of traffic: the same on both sides, and only what happened.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pair;

use pair::{Pair, possible, until_equal};
use serde_json::json;

const FILES: u64 = 8;

#[test]
fn both_nodes_tell_how_far_a_resynchronisation_is_and_what_it_took() {
    if !possible() {
        return;
    }
    // 8 MiB at 4 MB a second: longer than a progress is apart.
    let mut pair = Pair::new(json!({"resync_bandwidth_kbs": 4_000, "resync_detail": true}));
    for n in 0..FILES {
        std::fs::create_dir(pair.a.dir.join(format!("d{n}"))).unwrap();
        std::fs::write(pair.a.dir.join(format!("d{n}/blob")), vec![n as u8 + 1; 1 << 20]).unwrap();
    }
    pair.follow();
    until_equal(&pair.a.dir, &pair.b.dir);
    for node in [&pair.a, &pair.b] {
        let progress = node.until("progress", |e| e["kind"] == "progress" && e["sent"].as_u64() > Some(1 << 20));
        assert_eq!(progress["phase"], "data");
        assert_eq!((&progress["files_total"], &progress["bytes_total"]), (&FILES.into(), &(FILES << 20).into()));
        let figures = node.until("figures", |e| e["kind"] == "figures");
        let number = |name: &str| figures[name].as_u64().expect(name);
        assert_eq!((number("files"), number("sent_files"), number("sent")), (FILES, FILES, FILES << 20), "{figures}");
        // The root and what is in it.
        assert_eq!(number("directories"), FILES + 1, "{figures}");
        // The limit allows a tenth of a second at once.
        assert!((1_500..20_000).contains(&number("copy_ms")), "{figures}");
        assert!(number("scan_ms") < 20_000, "{figures}");
        node.until("the bandwidth", |e| e["kind"] == "traffic" && e["rei_bytes_s"].as_u64() > Some(1 << 20));
    }
    // Named by the node that receives, and only by it.
    for n in 0..FILES {
        let path = pair.b.dir.join(format!("d{n}/blob")).display().to_string();
        let copied = pair.b.until(&path, |e| e["kind"] == "copied" && e["path"] == path.as_str());
        assert_eq!(copied["bytes"], 1 << 20);
    }
    assert!(!pair.a.has("copied"));

    for node in [&pair.a, &pair.b] {
        node.until("silence", |e| e["kind"] == "traffic" && e["in_bytes_s"] == 0 && e["out_bytes_s"] == 0);
        node.forget();
    }
    std::fs::write(pair.a.dir.join("live"), vec![7; 1 << 20]).unwrap();
    for node in [&pair.a, &pair.b] {
        let live = node.until("live traffic", |e| e["kind"] == "traffic" && e["rep_bytes_s"].as_u64() > Some(1000));
        assert_eq!(live["rei_bytes_s"], 0);
        assert!(!node.has("progress"), "nothing is being resynchronised");
    }
}
