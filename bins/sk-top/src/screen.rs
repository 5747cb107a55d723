//! How is the terminal driven: drawn at most five times a second, given back whatever happens?

use crate::app::{App, Effect, Update};
use crate::ask::Asker;
use crate::cli::Failure;
use crate::draw::{Hit, Theme, draw, hit};
use crate::feed;
use nix::sys::signal::Signal;
use ratatui::crossterm::event::{
    DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind, MouseButton, MouseEvent, MouseEventKind, poll, read,
};
use ratatui::crossterm::execute;
use ratatui::layout::{Position, Rect};
use std::io;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(200);

/// How often figures are kept and questions asked again.
const SECOND: Duration = Duration::from_secs(1);

pub fn run(roots: &Roots, theme: &Theme, mouse: bool) -> Result<(), Failure> {
    // Before any thread: they inherit the mask.
    let signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT])
        .map_err(|e| Failure::sys("cannot take signals", e))?;
    let (sender, updates) = channel();
    feed::follow(roots, sender.clone());
    // Also installs a panic hook that gives the terminal back.
    let mut terminal = ratatui::try_init().map_err(|e| Failure::sys("cannot use this terminal; try --once", e))?;
    let mut live = || -> Result<(), Failure> {
        if mouse {
            execute!(io::stdout(), EnableMouseCapture).map_err(|e| Failure::sys("cannot use the mouse", e))?;
        }
        let mut app = App::default();
        let mut asker = Asker::new(roots, sender.clone());
        let mut drawn: Option<Instant> = None;
        let mut second: Option<Instant> = None;
        let mut stale = true;
        loop {
            if signals.read_signal().map_err(|e| Failure::sys("cannot read signals", e.into()))?.is_some() {
                return Ok(());
            }
            for update in updates.try_iter() {
                stale |= app.update(update);
            }
            if second.is_none_or(|at| at.elapsed() >= SECOND) {
                second = Some(Instant::now());
                stale |= app.tick((sys::clock::wall_ms() / 1000).cast_signed());
            }
            asker.ask(app.asks());
            let wait = drawn.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed()));
            if stale && wait.is_zero() {
                terminal.draw(|frame| draw(frame, &app, theme)).map_err(|e| Failure::sys("cannot draw", e))?;
                drawn = Some(Instant::now());
                stale = false;
                continue;
            }
            let failed = |e| Failure::sys("cannot read the keyboard", e);
            if !poll(if stale { wait } else { FRAME }).map_err(failed)? {
                continue;
            }
            stale = true;
            match read().map_err(failed)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match app.key(key) {
                    Effect::Nothing => {}
                    Effect::Quit => return Ok(()),
                    Effect::Command { module, verb } => feed::command(roots, module, verb, sender.clone()),
                },
                Event::Mouse(event) => {
                    let size = terminal.size().map_err(|e| Failure::sys("cannot measure the terminal", e))?;
                    point(&mut app, Rect::from((Position::ORIGIN, size)), event);
                }
                _ => {}
            }
        }
    };
    let result = live();
    if mouse {
        // A terminal that is gone needs nothing taken back.
        let _ = execute!(io::stdout(), DisableMouseCapture);
    }
    let restored = ratatui::try_restore().map_err(|e| Failure::sys("cannot restore the terminal", e));
    result.and(restored)
}

fn point(app: &mut App, area: Rect, event: MouseEvent) {
    match event.kind {
        MouseEventKind::ScrollUp => app.wheel(-1),
        MouseEventKind::ScrollDown => app.wheel(1),
        MouseEventKind::Down(MouseButton::Left) => match hit(app, area, event.column, event.row) {
            Some(Hit::Tab(page)) => app.go(page),
            Some(Hit::Module(place)) => app.choose(place),
            None => {}
        },
        _ => {}
    }
}

/// One plain frame, or the raw states as JSON lines.
pub fn once(roots: &Roots, json: bool) -> Result<Vec<String>, Failure> {
    let mut app = App::default();
    let mut lines = Vec::new();
    for module in sys::modules::known(roots) {
        let update = match feed::once(roots, &module) {
            Ok(value) if json => {
                lines.push(value.to_string());
                continue;
            }
            Err(reason) if json => {
                lines.push(serde_json::json!({"module": module, "error": reason}).to_string());
                continue;
            }
            Ok(value) => match crate::snapshot::Snapshot::read(value) {
                Ok(mut snapshot) => {
                    module.clone_into(&mut snapshot.module);
                    Update::Module(Box::new(snapshot))
                }
                Err(reason) => Update::Trouble { module, reason },
            },
            Err(reason) => Update::Trouble { module, reason },
        };
        app.update(update);
    }
    Ok(if json { lines } else { crate::text::frame(&app) })
}
