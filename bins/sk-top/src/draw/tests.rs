//! Does every page look as it should?

use super::*;
use crate::app::{Answer, Past, Update};
use crate::snapshot::Rule;
use crate::text;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use ratatui::crossterm::event::{KeyCode, KeyEvent};
use serde_json::json;

/// 2026-11-20T12:00:00Z
const NOW: i64 = 1_795_176_000;

fn app() -> App {
    let mut app = App::default();
    let replies = [
        json!({"module": "postgresql", "node": "node1", "peer": "node2", "state": "PRIM", "readiness": "Ready",
            "remote": {"state": "SECOND", "readiness": "Transient"}, "data": "uptodate",
            "heartbeats": [{"ident": "default", "value": "up"}, {"ident": "replication", "value": "down"}],
            "vip": [{"address": "10.0.0.50", "value": "up"}],
            "replica": {"peer": "syncing", "frozen": false, "out_bytes_s": 12_900_000, "in_bytes_s": 0, "lag_bytes": 4096,
                "resync": {"phase": "copy", "files": 120, "files_total": 480, "bytes": 250_000_000, "bytes_total": 1_000_000_000,
                    "rate_bytes_s": 25_000_000, "left_s": 30}},
            "id": 1, "mode": "mirror", "since": "2026-11-20T09:55:00.000000Z", "standing": "paired",
            "children": [{"name": "sk-heartbeat", "pid": 10, "restarts": 0}, {"name": "sk-errd", "pid": 11, "restarts": 2}],
            "resources": [
                {"name": "custom.queue", "value": "17", "t": "2026-11-20T11:59:00Z", "label": "Custom checker"},
                {"name": "heartbeat.default", "value": "up", "t": "2026-11-20T09:50:00Z", "label": "Heartbeat link"},
                {"name": "heartbeat.replication", "value": "down", "t": "2026-11-20T11:58:00Z", "label": "Heartbeat link"},
                {"name": "ip.10.0.0.50", "value": "init", "t": "2026-11-19T11:58:00Z", "label": "IP checker"},
                {"name": "proc.postgres", "value": "up", "t": "2026-11-20T09:55:00Z", "label": "Process or service"}]}),
        json!({"module": "files", "node": "node1", "peer": "node2", "state": "WAIT", "readiness": "NotReady",
            "remote": {"state": null}, "data": "not uptodate", "refused": "data are not up to date",
            "vip": [{"address": "10.0.0.51", "value": "down"}]}),
    ];
    for reply in replies {
        app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
    }
    app.update(Update::Module(Box::new(Snapshot::stopped("spare"))));
    app.now_s = NOW;
    for n in 0..30 {
        app.update(Update::Line {
            module: "postgresql".into(),
            line: format!("2026-11-20 10:00:{n:02}.000000 | heart | E | message {n}"),
        });
    }
    app.selected = Some("postgresql".into());
    app
}

fn frame(app: &App, width: u16, height: u16, colour: bool) -> (String, Buffer) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|f| draw(f, app, &Theme { colour, zone: jiff::tz::TimeZone::UTC })).unwrap();
    let text = terminal.backend().to_string();
    (text, terminal.backend().buffer().clone())
}

/// Style of the first cell of a text on the screen.
fn style_of(text: &str, app: &App, colour: bool) -> Style {
    let (_, buffer) = frame(app, 80, 24, colour);
    for y in 0..buffer.area.height {
        let row: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
        if let Some(at) = row.find(text) {
            let x = row[..at].chars().count() as u16;
            return buffer[(x, y)].style();
        }
    }
    panic!("{text} is not on the screen");
}

#[test]
fn a_frame_of_80_by_24() {
    insta::assert_snapshot!(frame(&app(), 80, 24, true).0);
}

fn farm() -> App {
    let mut app = app();
    let group = |name: &str, owned: u32, rate: u32| {
        json!({"group": name, "owned": owned, "of": 256, "percent": owned * 100 / 256, "connections_s": rate,
            "accepted_bytes_s": rate * 20_000, "members": ["node1", "node2", "node3"]})
    };
    let mut first = group("FarmProto_0", 128, 42);
    first["nodes"] = json!([{"node": "node1", "owned": 128, "connections_s": 42, "accepted_bytes_s": 840_000},
        {"node": "node2", "owned": 128, "connections_s": 40, "accepted_bytes_s": 800_000}, {"node": "node3", "owned": 0}]);
    let reply = json!({"module": "web", "mode": "farm", "node": "node1", "peer": null, "state": "UP", "readiness": "Ready",
        "remote": {"state": null}, "data": "none", "replica": null, "vip": [{"address": "10.0.0.80", "value": "up"}],
        "farm": {"generation": 7, "members": ["node1", "node2", "node3"], "open": ["node1", "node2"],
            "groups": [first, group("Api_1", 64, 0), group("Chain_2", 256, 7)]},
        "children": [{"name": "sk-farmfilter", "pid": 10, "restarts": 1}]});
    app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
    app.update(Update::Line {
        module: "web".into(),
        line: "2026-11-20 10:00:00.000000 | heart | E | Local state UP Ready".into(),
    });
    app.selected = Some("web".into());
    app
}

#[test]
fn a_farm_shows_its_shares_as_bars() {
    insta::assert_snapshot!(frame(&farm(), 80, 24, true).0);
}

#[test]
fn a_farm_says_the_same_in_plain_text() {
    insta::assert_snapshot!(text::frame(&farm()).join("\n"));
}

#[test]
fn a_farm_of_many_groups_leaves_room_for_the_log() {
    let mut app = farm();
    let groups: Vec<_> = (0..40).map(|n| json!({"group": format!("G_{n}"), "owned": n, "of": 256})).collect();
    let reply = json!({"module": "web", "mode": "farm", "state": "UP", "readiness": "Ready", "farm": {"members": [], "open": [], "groups": groups}});
    app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
    app.selected = Some("web".into());
    let (text, _) = frame(&app, 80, 40, true);
    assert!(text.contains("33 more") && text.contains("Local state UP Ready"), "{text}");
    // Nodes of many groups have no room: their groups have, and on the page of the farm one scrolls to them.
    let nodes: Vec<_> = (0..32).map(|n| json!({"node": format!("n{n}"), "owned": 8, "connections_s": 3})).collect();
    let reply = json!({"module": "web", "mode": "farm", "state": "UP", "readiness": "Ready",
        "farm": {"members": [], "open": [], "groups": [{"group": "G_0", "owned": 8, "of": 256, "nodes": nodes}]}});
    app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
    app.selected = Some("web".into());
    let (text, _) = frame(&app, 80, 24, true);
    assert!(text.contains("G_0 ") && !text.contains("n31") && text.contains("Local state UP Ready"), "{text}");
    keys(&mut app, "4");
    app.selected = Some("web".into());
    assert!(frame(&app, 80, 24, true).0.contains("more"));
    app.key(KeyEvent::from(KeyCode::End));
    assert!(frame(&app, 80, 24, true).0.contains("n31"));
}

#[test]
fn help_covers_the_frame() {
    let mut app = app();
    app.key(KeyEvent::from(KeyCode::Char('?')));
    insta::assert_snapshot!(frame(&app, 80, 24, true).0);
}

#[test]
fn states_have_their_colours() {
    let app = app();
    for (text, colour) in [
        ("PRIM Ready", Color::Green),
        ("SECOND Transient", Color::Yellow),
        ("WAIT NotReady", Color::Red),
        ("STOP NotReady", Color::Red),
        ("UNKNOWN", Color::DarkGray),
        ("uptodate", Color::Green),
        ("1/2", Color::Yellow),
    ] {
        // `not uptodate` comes first on the screen, in the row of `files`.
        let text = if text == "uptodate" { "uptodate     1/2" } else { text };
        assert_eq!(style_of(text, &app, true).fg, Some(colour), "{text}");
    }
}

#[test]
fn without_colours_trouble_is_underlined_and_nothing_is_coloured() {
    let app = app();
    let (_, buffer) = frame(&app, 80, 24, false);
    assert!(buffer.content.iter().all(|c| c.fg == Color::Reset && c.bg == Color::Reset));
    assert!(style_of("WAIT NotReady", &app, false).add_modifier.contains(Modifier::UNDERLINED));
    assert!(!style_of("PRIM Ready", &app, false).add_modifier.contains(Modifier::UNDERLINED));
}

#[test]
fn the_question_stands_in_the_last_line() {
    let mut app = app();
    app.key(KeyEvent::from(KeyCode::Char('w')));
    let (text, _) = frame(&app, 80, 24, true);
    assert!(text.lines().last().unwrap().contains("swap postgresql? y/n"), "{text}");
}

#[test]
fn no_size_makes_it_fail() {
    let mut app = app();
    for (help, page) in [false, true].into_iter().flat_map(|help| Page::ALL.map(|page| (help, page))) {
        app.help = help;
        app.page = page;
        for (width, height) in [(1, 1), (10, 3), (40, 12), (50, 20), (66, 24), (80, 5), (300, 100)] {
            frame(&app, width, height, true);
            let (mut farm, mut none) = (farm(), App::default());
            (farm.page, farm.help, none.page, none.help) = (page, help, page, help);
            frame(&farm, width, height, true);
            frame(&none, width, height, true);
        }
    }
}

#[test]
fn a_plain_frame_says_the_same() {
    insta::assert_snapshot!(text::frame(&app()).join("\n"));
}

fn keys(app: &mut App, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '↓' => KeyCode::Down,
            '→' => KeyCode::Right,
            c => KeyCode::Char(c),
        };
        app.key(KeyEvent::from(code));
    }
}

#[test]
fn the_page_of_a_module() {
    let mut app = app();
    keys(&mut app, "2↓↓");
    assert_eq!(app.resource_name(), Some("heartbeat.replication"));
    let past = [("2026-11-20T09:50:00Z", "up"), ("2026-11-20T11:58:00Z", "down")]
        .map(|(t, value)| Past { t: t.into(), value: value.into() });
    let answer = |resource: &str| {
        Update::Answer(Answer::History { module: "postgresql".into(), resource: resource.into(), past: past.to_vec() })
    };
    app.update(answer("heartbeat.default"));
    assert_eq!(app.past(), None, "an answer to an earlier question is not shown");
    app.update(answer("heartbeat.replication"));
    insta::assert_snapshot!(frame(&app, 80, 24, true).0);
    insta::assert_snapshot!("the_page_of_a_module_wide", frame(&app, 132, 20, true).0);
}

fn rules() -> Vec<Rule> {
    let rule = |label: &str, truth, acting, condition: &str, action: &str, waits_for: &[&str]| Rule {
        label: label.into(),
        truth,
        acting,
        condition: condition.into(),
        action: action.into(),
        waits_for: waits_for.iter().map(|w| (*w).to_owned()).collect(),
    };
    vec![
        rule("interface_failure", Some(true), true, "intf.? == down", "wait", &[]),
        rule("c_queue", None, false, "custom.queue == down", "restart", &["custom.queue"]),
        rule("degraded_server", Some(false), false, "rfs.degraded == up", "wait", &[]),
    ]
}

#[test]
fn the_page_of_the_rules() {
    let mut app = app();
    keys(&mut app, "3");
    assert!(frame(&app, 80, 24, true).0.contains('…'), "until the answer is there");
    let why =
        ["postgresql on node1: PRIM Ready", "It serves, and node2 copies what changed."].map(str::to_owned).to_vec();
    app.update(Update::Answer(Answer::Rules { module: "postgresql".into(), rules: rules(), why }));
    insta::assert_snapshot!(frame(&app, 80, 24, true).0);
    keys(&mut app, "→");
    assert!(!frame(&app, 80, 24, true).0.contains("c_queue"), "the rules of another module");
}

#[test]
fn the_page_of_replication() {
    let mut app = app();
    keys(&mut app, "4");
    for n in 0..200_u32 {
        let wave = f64::from(n % 20) * 1e6;
        let module = app.modules.get_mut("postgresql").unwrap();
        let replica = module.snapshot.replica.as_mut().unwrap();
        (replica.out_bytes_s, replica.lag_bytes) = (Some(wave), Some(f64::from(n % 7) * 1000.0));
        (replica.ack_us, replica.ack_worst_us) = (Some(f64::from(n) * 10.0 + 150.0), Some(4000.0));
        app.tick(NOW);
    }
    insta::assert_snapshot!(frame(&app, 80, 24, true).0);
    insta::assert_snapshot!("the_page_of_replication_wide", frame(&app, 130, 16, true).0);
    app.modules.get_mut("postgresql").unwrap().snapshot.replica.as_mut().unwrap().frozen = Some(true);
    assert!(frame(&app, 80, 24, true).0.contains("FROZEN: writes wait"));
    keys(&mut app, "→");
    assert!(frame(&app, 80, 24, true).0.contains("nothing is replicated while the module is stopped"));
}

#[test]
fn a_secondary_shows_from_where_it_copies() {
    let mut app = app();
    let module = app.modules.get_mut("postgresql").unwrap();
    module.snapshot.state = "SECOND".into();
    module.snapshot.readiness = "Transient".into();
    keys(&mut app, "4");
    let (text, _) = frame(&app, 80, 24, true);
    assert!(text.contains("SECOND Transient ◀── copying ──  node2") && text.contains("25 %"), "{text}");
}

#[test]
fn the_page_of_a_farm() {
    let mut app = farm();
    keys(&mut app, "4");
    for n in 0..100_u32 {
        let groups = &mut app.modules.get_mut("web").unwrap().snapshot.farm.as_mut().unwrap().groups;
        groups[0].connections_s = Some(f64::from(n % 10) * 10.0);
        app.tick(NOW);
    }
    let (text, buffer) = frame(&app, 80, 24, true);
    insta::assert_snapshot!(text);
    assert_eq!(buffer[(0, 0)].style().add_modifier & Modifier::REVERSED, Modifier::REVERSED);
}

#[test]
fn the_page_of_the_log_filters_and_follows() {
    let mut app = app();
    keys(&mut app, "5");
    for (n, (level, words)) in
        [("C", "Process postgres not running"), ("U", "Action swap called by root"), ("D", "a detail")]
            .iter()
            .enumerate()
    {
        for module in ["files", "postgresql"] {
            app.update(Update::Line {
                module: module.into(),
                line: format!("2026-11-20 10:01:0{n}.000000 | heart | {level} | {words} ({module})"),
            });
        }
    }
    insta::assert_snapshot!(frame(&app, 80, 12, true).0);
    keys(&mut app, "m/POSTGRES\n");
    let (text, _) = frame(&app, 80, 12, true);
    insta::assert_snapshot!("the_page_of_the_log_filtered", text);
    keys(&mut app, "ma");
    app.key(KeyEvent::from(KeyCode::Esc));
    assert!(frame(&app, 80, 12, true).0.contains("a detail (postgresql)"));
    app.key(KeyEvent::from(KeyCode::Home));
    let (text, _) = frame(&app, 80, 12, true);
    assert!(text.contains("message 0") && text.contains("newer lines below"), "{text}");
    keys(&mut app, "f");
    assert!(frame(&app, 80, 12, true).0.contains("follows"));
    // Verbs are words while a filter is typed.
    keys(&mut app, "/swq");
    assert_eq!((app.log.filter.as_str(), app.question.is_none()), ("swq", true));
    assert!(frame(&app, 80, 12, true).0.contains("no line has these words"));
}

#[test]
fn one_module_and_thirty_two_with_long_names() {
    let mut app = App::default();
    for n in 0..32 {
        let reply = json!({"module": format!("module-with-a-long-name-{n:02}"), "node": "server-in-the-cellar", "peer": "server-in-the-attic",
            "mode": "mirror", "state": "PRIM", "readiness": "Ready", "remote": {"state": "SECOND", "readiness": "Ready"}, "data": "uptodate",
            "heartbeats": [{"ident": "default", "value": "up"}], "vip": [{"address": "2001:db8::10", "value": "up"}]});
        app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
        if n == 0 {
            insta::assert_snapshot!("one_module", frame(&app, 100, 30, true).0);
        }
    }
    keys(&mut app, "↓↓↓↓↓↓↓↓↓↓↓↓↓↓");
    insta::assert_snapshot!("thirty_two_modules", frame(&app, 100, 40, true).0);
    insta::assert_snapshot!("thirty_two_modules_small", frame(&app, 60, 16, true).0);
}

#[test]
fn clicks_find_what_is_drawn() {
    let mut app = app();
    let area = Rect::new(0, 0, 80, 24);
    let (text, _) = frame(&app, 80, 24, true);
    let find = |words: &str| {
        let (y, line) = text.lines().enumerate().find(|(_, l)| l.contains(words)).unwrap();
        // The text is quoted line by line.
        (line[..line.find(words).unwrap()].chars().count() as u16 - 1, y as u16)
    };
    for (words, expected) in [
        ("Rules", Some(Hit::Tab(Page::Rules))),
        ("Log", Some(Hit::Tab(Page::Log))),
        ("files ", Some(Hit::Module(0))),
        ("spare", Some(Hit::Module(2))),
        ("Heartbeats", None),
        ("MODULE", None),
    ] {
        let (x, y) = find(words);
        assert_eq!(hit(&app, area, x, y), expected, "{words} at {x},{y}");
    }
    app.choose(2);
    assert_eq!(app.selected.as_deref(), Some("spare"));
    app.choose(9);
    assert_eq!(app.selected.as_deref(), Some("spare"));
}

/// JSON of any shape.
fn garbage() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[ -~é\u{1b}\u{7}漢\u{202e}]{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 32, 6, |inner| {
        let name = prop_oneof![
            "[a-z]{1,6}",
            proptest::sample::select(vec![
                "state",
                "value",
                "name",
                "t",
                "group",
                "owned",
                "of",
                "members",
                "open",
                "groups",
                "resync",
                "bytes",
                "bytes_total",
                "left_s",
                "ident",
                "address",
                "restarts",
                "peer",
                "out_bytes_s",
                "ack_us",
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever a state file says, in every place of it: no panic, and nothing reaches the terminal as a command.
    #[test]
    fn any_state_can_be_drawn(place in 0_usize..20, value in garbage(), line in "\\PC{0,60}", page in 1_u8..6) {
        const MEMBERS: [&str; 14] = ["module", "node", "peer", "mode", "state", "readiness", "since", "remote", "data",
            "heartbeats", "vip", "replica", "farm", "resources"];
        let mut app = farm();
        let mut state = json!({"module": "web", "state": "UP", "readiness": "Ready", "farm": {"members": ["a"], "groups": []}});
        match MEMBERS.get(place) {
            Some(member) => state[*member] = value,
            None => state = value,
        }
        match Snapshot::read(state) {
            Ok(snapshot) => {
                app.update(Update::Module(Box::new(Snapshot { module: "web".into(), ..snapshot })));
            }
            Err(reason) => {
                app.update(Update::Trouble { module: "web".into(), reason });
            }
        }
        app.update(Update::Line { module: "web".into(), line });
        app.tick(NOW);
        keys(&mut app, &page.to_string());
        for (width, height) in [(80, 24), (20, 6), (1, 1)] {
            let (_, buffer) = frame(&app, width, height, true);
            prop_assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(char::is_control)));
        }
        prop_assert!(text::frame(&app).iter().all(|line| !line.contains(char::is_control)));
    }
}
