//! Does any text make the parsers fail otherwise than with faults at places inside it, and is what is written read back?

use proptest::prelude::*;
use rules::{Expression, Fault, Rule, is_lua, parse, parse_lua};

fn inside(text: &str, fault: &Fault) {
    assert!(fault.start <= fault.end && text.get(fault.start..fault.end).is_some(), "{fault:?} in {text:?}");
}

fn judge(text: &str) {
    match parse(text) {
        Ok(rules) => {
            for rule in rules {
                let again = Expression::try_from(rule.condition.to_string());
                assert_eq!(again.as_ref(), Ok(&rule.condition), "{text}");
                let written = Rule {
                    label: rule.label,
                    condition: rule.condition,
                    action: rule.action,
                    origin: rules::Origin::Module,
                }
                .to_string();
                assert_eq!(parse(&written).map(|r| r.len()), Ok(1), "{written}");
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                inside(text, fault);
            }
        }
    }
    if let Err(fault) = parse_lua(text) {
        inside(text, &fault);
    }
    is_lua(text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_judged(text in "\\PC{0,200}") {
        judge(&text);
    }

    #[test]
    fn near_rules_are_judged(words in prop::collection::vec(
        prop::sample::select(vec![
            "a", ":", "if", "(", ")", "then", ";", "tcp.x", "ip.?", "custom.*", "remote.rfs.uptodate", "up", "down", "init",
            "==", "!=", "!", "&&", "||", "=", "restart", "stop", "cluster", "()", "/*", "*/", "é", "\n", "&", "Rules", "+", "{",
            "}", "if_then", "\"custom.a\"", "\"down\"", ",", "Action.stop", "Rules.disable", "--", "ip.fd00::1", "local.tcp.y",
        ]), 0..60), glue in prop::sample::select(vec!["", " "])) {
        judge(&words.join(glue));
    }

    #[test]
    fn well_formed_conditions_are_read_back(condition in conditions()) {
        let text = format!("a: if ({condition}) then custom.y = up;");
        prop_assert!(parse(&text).is_ok(), "{}", text);
        judge(&text);
    }
}

fn conditions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "tcp.x == down",
        "ip.? != up",
        "up == custom.*",
        "remote.module.m == unknown",
        "cluster() == down",
        "tcp.a != tcp.b",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}
