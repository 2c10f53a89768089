//! `top`: the server's processes on a terminal, live, and a reload as it goes.
//!
//! One thread draws and reads the keys; what speaks to the server are threads of their own ([`feed`]),
//! so that a server that is slow to answer does not hold up the keyboard. What is shown follows from
//! what was heard ([`model`]), without a terminal.

mod feed;
mod model;
mod rates;
mod view;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::wait::{Interest, Poller};

use super::speak::connect;
use super::{Application, Cli, exit, locate, output};
use feed::Feed;
use model::{Heard, Key, Model, Wanted};

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Top {
    /// Between two looks.
    pub interval: Duration,
}

/// The keyboard is looked at so often, and what was heard is shown so soon.
const TURN: Duration = Duration::from_millis(50);

/// Watches the server until somebody has seen enough, or it is gone. Gives the exit status.
pub(super) fn top(application: &Application<'_>, cli: &Cli, top: &Top) -> u8 {
    let name = application.name;
    if cli.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() || output::is_dumb() {
        output::warn(&format!(
            "{name}: top draws on a terminal, and this is none; {name} status tells the same once, and \
             {name} status --json for programs"
        ));
        return exit::USAGE;
    }
    // Says why, if nobody answers.
    if let Err(status) = connect(application, cli) {
        return status;
    }
    // Before the threads begin, so that none of them is ended by one of these.
    let signals = match SignalFd::new(&[signal::TERM, signal::INT, signal::HUP, signal::QUIT]) {
        Ok(signals) => signals,
        Err(error) => return output::failure(name, &format!("cannot hear signals: {error}")),
    };
    let (send, heard) = channel();
    let feed = Feed::begin(locate(application, cli).socket, top.interval, send);
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            return output::failure(name, &format!("cannot draw on the terminal: {error}"));
        }
    };
    let mut model = Model::new(name);
    let shown = watch(&mut terminal, &mut model, &feed, &heard, &signals);
    if ratatui::try_restore().is_err() {
        // The terminal is gone, and dropping this would complain about that to nobody, and panic.
        std::mem::forget(terminal);
    }
    match (shown, model.is_gone()) {
        (Err(error), _) => output::failure(name, &format!("cannot draw on the terminal: {error}")),
        (Ok(()), true) => {
            output::warn(&format!("{name} is gone"));
            exit::NOT_RUNNING
        }
        (Ok(()), false) => exit::OK,
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    feed: &Feed,
    heard: &Receiver<Heard>,
    signals: &SignalFd,
) -> io::Result<()> {
    let colour = output::may_colour();
    while is_attended(signals)? {
        let mut changed = false;
        while let Ok(it) = heard.try_recv() {
            model.hear(it, Instant::now());
            changed = true;
        }
        if let Ok(Some(_)) = signals.read() {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            changed = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    match understand(key).and_then(|it| model.press(it)) {
                        Some(Wanted::Reload) => feed.reload(),
                        Some(Wanted::Quit) => return Ok(()),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        if model.is_gone() {
            return Ok(());
        }
        if changed {
            terminal.draw(|frame| view::draw(frame, model, colour))?;
        }
    }
    Ok(())
}

/// Waits for a key, a signal, or the next turn. False: the terminal is gone, and crossterm, asked for
/// keys, would look for them for ever.
fn is_attended(signals: &SignalFd) -> io::Result<bool> {
    let keys = io::stdin();
    let mut poller = Poller::new();
    poller.add((), signals.as_fd(), Interest::READ);
    poller.add((), keys.as_fd(), Interest::READ);
    Ok(!poller.wait(Some(TURN))?.iter().any(|ready| ready.hung_up))
}

fn understand(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char('r') => Key::Reload,
        KeyCode::Char('y') => Key::Yes,
        KeyCode::Char('n') => Key::No,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        _ => return None,
    })
}
