//! Does reading survive whatever a file may hold, and do findings stay inside it?

use config::{Diagnostics, parse_cluster, parse_module};
use proptest::prelude::*;

fn inside(text: &str, found: &Diagnostics) {
    for d in found {
        assert!(d.span.start <= d.span.end && d.span.end <= text.len(), "{d}");
        assert!(text.is_char_boundary(d.span.start) && text.is_char_boundary(d.span.end), "{d}");
        assert!(d.line >= 1 && d.line <= text.split('\n').count() && d.column >= 1, "{d}");
    }
    let _ = (found.plain(), found.report(true), found.report(false), found.json_lines());
}

fn try_all(text: &str) {
    let (module, found) = parse_module("m", text, &|name| (name == "E").then(|| "%E%".to_owned()));
    inside(text, &found);
    assert_eq!(module.is_some(), !found.has_errors());
    if let Some(module) = module {
        let (again, found) = parse_module("m", &module.expanded_xml(), &|_| None);
        assert_eq!(again, Some(module), "{}", found.plain());
    }
    let (cluster, found) = parse_cluster("c", text);
    inside(text, &found);
    assert_eq!(cluster.is_some(), !found.has_errors());
}

const GOOD: [&str; 4] = [
    include_str!("good/everything.xml"),
    include_str!("good/smallest.xml"),
    include_str!("good/cluster.xml"),
    include_str!("fixtures/pasted.xml"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        try_all(&text);
    }

    #[test]
    fn any_control_text(text in any::<String>()) {
        try_all(&text);
    }

    #[test]
    fn markup(parts in proptest::collection::vec(prop_oneof![
        Just("<safe>"), Just("</safe>"), Just("<service mode='mirror'"), Just("<heart"), Just("<heartbeat name="), Just("“"), Just("”"),
        Just("\""), Just("'"), Just("="), Just(">"), Just("/>"), Just("<"), Just("&"), Just("&#0;"), Just("&#x110000;"), Just("<!--"), Just("-->"),
        Just("<![CDATA["), Just("]]>"), Just("<?"), Just("<!DOCTYPE"), Just("["), Just(" "), Just("\u{a0}"), Just("\n"), Just("é"), Just("%E%"),
        Just("<macro name='E' value="), Just("</"), Just("<cluster>"), Just("<lan "), Just("\u{feff}"),
    ], 0..40)) {
        try_all(&parts.concat());
    }

    /// A real file with one piece replaced by another.
    #[test]
    fn damaged(which in 0..GOOD.len(), from in 0.0..1.0f64, length in 0..40usize, put in "[ -~“”é\n]{0,8}") {
        let chars: Vec<char> = GOOD[which].chars().collect();
        let at = ((chars.len() as f64) * from) as usize;
        let end = (at + length).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
        try_all(&text);
    }
}
