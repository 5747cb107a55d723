//! Does the model do what the keys say?

use super::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

fn app(names: &[&str]) -> App {
    let mut app = App::default();
    for name in names {
        app.update(Update::Module(Box::new(Snapshot::stopped(name))));
    }
    app
}

fn press(app: &mut App, keys: &str) -> Effect {
    keys.chars().map(|c| app.key(KeyEvent::from(KeyCode::Char(c)))).last().unwrap()
}

#[test]
fn a_command_needs_a_yes() {
    let mut app = app(&["a", "b"]);
    assert_eq!(press(&mut app, "js"), Effect::Nothing);
    assert_eq!(app.question, Some(("b".into(), Verb::Start)));
    assert_eq!(press(&mut app, "n"), Effect::Nothing);
    assert_eq!(app.question, None);
    assert_eq!(press(&mut app, "ty"), Effect::Command { module: "b".into(), verb: Verb::Stop });
    assert_eq!(press(&mut app, "wq"), Effect::Nothing, "q answers the question, it does not quit");
    assert_eq!(press(&mut app, "q"), Effect::Quit);
}

#[test]
fn the_question_keeps_its_module_when_the_list_changes() {
    let mut app = app(&["b"]);
    press(&mut app, "t");
    app.update(Update::Module(Box::new(Snapshot::stopped("a"))));
    assert_eq!(press(&mut app, "y"), Effect::Command { module: "b".into(), verb: Verb::Stop });
}

#[test]
fn the_selection_stays_in_the_list() {
    let mut app = app(&["a", "b", "c"]);
    press(&mut app, "jjjjj");
    assert_eq!(app.selected.as_deref(), Some("c"));
    app.update(Update::Removed { module: "c".into() });
    assert_eq!(app.selected.as_deref(), Some("a"));
    press(&mut app, "kkk");
    assert_eq!(app.selected_position(), Some(0));
    let mut empty = App::default();
    assert_eq!(press(&mut empty, "jks"), Effect::Nothing);
    assert_eq!(empty.question, None);
}

#[test]
fn before_the_first_key_the_first_module_is_selected() {
    let mut app = app(&["b"]);
    app.update(Update::Module(Box::new(Snapshot::stopped("a"))));
    assert_eq!(app.selected.as_deref(), Some("a"));
    app.key(KeyEvent::from(KeyCode::F(1)));
    app.update(Update::Module(Box::new(Snapshot::stopped("Z"))));
    assert_eq!(app.selected.as_deref(), Some("a"));
}

#[test]
fn log_lines_are_bounded() {
    let mut app = app(&["a"]);
    for n in 0..1000 {
        app.update(Update::Line { module: "a".into(), line: n.to_string() });
    }
    let lines = &app.modules["a"].lines;
    assert_eq!((lines.len(), lines.back().map(String::as_str)), (LINES_KEPT, Some("999")));
}
