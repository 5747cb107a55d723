//! Orders from the standard input to the engine, its events to the standard output; the safe side when either ends.

use crate::{Run, Trouble};
use nix::sys::signal::Signal;
use replica::engine::Engine;
use replica::engine::report::{Report, Reporter};
use replica::engine::spec::{Order, Spec};
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use wire::lines::{EmitError, Emitter, Message, Messages};

/// The specification's size is bounded like every input's.
const SPEC_LIMIT: u64 = 4 << 20;
/// Longest time from the end of the runner to ours, whatever a disk or a mount does.
const LAST_RESORT: Duration = Duration::from_secs(10);

enum Input {
    Order {
        id: Option<u64>,
        order: Order,
    },
    /// The runner is gone.
    End,
    /// SIGTERM.
    Terminate,
    Quit {
        id: Option<u64>,
    },
}

#[derive(Serialize)]
struct Done {
    id: Option<u64>,
}

#[derive(Serialize)]
struct Failed {
    id: Option<u64>,
    reason: String,
    hint: String,
}

/// Takes over a descriptor that the parent passed by number.
fn inherited(number: i32) -> Result<OwnedFd, Trouble> {
    if number <= 2 || !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(Trouble::new(100, format!("descriptor {number} was not inherited")));
    }
    // SAFETY: the descriptor is open (looked up above), was given to us by number, and nobody else in this process uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `sk-replicate run`.
pub fn run(args: &Run) -> Result<(), Trouble> {
    let bytes = sys::files::read_bounded(&args.spec, SPEC_LIMIT)
        .map_err(|e| Trouble::new(1, format!("{}: {e}", args.spec.display())))?;
    let spec: Spec =
        serde_json::from_slice(&bytes).map_err(|e| Trouble::new(1, format!("{}: {e}", args.spec.display())))?;
    // Before the first thread, so that all inherit it.
    let mut signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGINT])?;
    let store = args.store_fd.map(inherited).transpose()?;
    let ready = args.ready_fd.map(inherited).transpose()?;
    let store = store.map(sys::store::StoreClient::connect).transpose()?;
    let emitter = Arc::new(Emitter::new("sk-replicate", &spec.node, &spec.module));
    let module = spec.module.clone();
    let (sender, inputs) = channel();
    let reporter = reporter(emitter.clone(), sender.clone());
    let mut engine =
        Engine::start(spec, store, reporter).map_err(|e| Trouble::new(1, format!("{}; {}", e.reason, e.hint)))?;
    // Replication does not depend on who may ask about it.
    if let Err(e) = crate::inquiry::serve(&module, engine.verifier()) {
        sys::warn!("sk-replicate: questions cannot be answered: {e}");
    }
    let (abandon, lessor) = (engine.abandoner(), engine.lessor());
    let reading = sender.clone();
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        read(&reading, &lessor);
        abandon();
        let _ = reading.send(Input::End);
        std::thread::sleep(LAST_RESORT);
        sys::warn!("sk-replicate: the directories could not be released in time");
        std::process::exit(111);
    })?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(Some(_)) = wait_signal(&mut signals) {
            let _ = sender.send(Input::Terminate);
        }
    })?;
    if let Some(ready) = ready {
        let _ = File::from(ready).write_all(b"\n");
    }
    for input in inputs {
        let (id, order) = match input {
            Input::Order { id, order } => (id, order),
            Input::Quit { id } => {
                // A role that has not ended is ended in good order first.
                let outcome = engine.order(Order::Retire);
                answer(&emitter, id, outcome);
                break;
            }
            Input::Terminate => {
                if let Err(e) = engine.order(Order::Retire) {
                    sys::warn!("sk-replicate: {}; {}", e.reason, e.hint);
                }
                break;
            }
            Input::End => break,
        };
        let outcome = engine.order(order);
        if !answer(&emitter, id, outcome) {
            break;
        }
    }
    engine.release();
    Ok(())
}

fn wait_signal(signals: &mut nix::sys::signalfd::SignalFd) -> nix::Result<Option<nix::sys::signalfd::siginfo>> {
    loop {
        let mut set = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(signals), nix::poll::PollFlags::POLLIN)];
        match nix::poll::poll(&mut set, nix::poll::PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(e),
        }
        match signals.read_signal() {
            Ok(None) | Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// False: nobody reads our events any more.
fn answer(emitter: &Emitter, id: Option<u64>, outcome: Result<(), replica::engine::spec::Failure>) -> bool {
    let written = match outcome {
        Ok(()) => emitter.emit("done", &Done { id }),
        Err(e) => {
            sys::warn!("sk-replicate: {}; {}", e.reason, e.hint);
            emitter.emit("failed", &Failed { id, reason: e.reason, hint: e.hint })
        }
    };
    !matches!(written, Err(EmitError::Closed))
}

fn reporter(emitter: Arc<Emitter>, sender: Sender<Input>) -> Reporter {
    let sender = std::sync::Mutex::new(sender);
    Arc::new(move |report: &Report| {
        let Some(kind) = report.kind() else {
            if let Report::Note { text } = report {
                sys::warn!("sk-replicate: {text}");
            }
            return;
        };
        match emitter.emit(kind, report) {
            Ok(()) => {}
            Err(EmitError::Closed) => {
                let sender = sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let _ = sender.send(Input::End);
            }
            Err(e) => sys::warn!("sk-replicate: {e}"),
        }
    })
}

fn read(inputs: &Sender<Input>, lessor: &dyn Fn(u64)) {
    for message in Messages::new(std::io::stdin()) {
        match message.map_err(|e| e.to_string()).and_then(|m| understand(&m)) {
            Ok(Input::Order { order: Order::Lease { until_boottime_ms }, .. }) => lessor(until_boottime_ms),
            Ok(input) => {
                if inputs.send(input).is_err() {
                    return;
                }
            }
            Err(e) => sys::warn!("sk-replicate: an order was skipped: {e}"),
        }
    }
}

fn understand(message: &Message) -> Result<Input, String> {
    let id = message.id();
    if message.kind == "quit" {
        return Ok(Input::Quit { id });
    }
    message.body::<Order>().map(|order| Input::Order { id, order }).map_err(|e| e.to_string())
}
