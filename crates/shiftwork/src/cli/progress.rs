//! How far a reload is, on stderr: a picture that changes on a terminal, lines in a pipe, events with
//! `--json`.

mod picture;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use shiftwork_supervisor::control::Response;
use shiftwork_supervisor::control::status::Status;
use shiftwork_supervisor::core::outcome::Progress;

use super::output;
use picture::Remains;
pub(super) use picture::{Picture, line};

/// Shows progress on stderr.
#[derive(Debug)]
pub(super) struct Shown {
    how: How,
    /// Whether the new generation is in force, and only the end of the old one is waited for.
    drains: bool,
    remains: Option<Remains>,
}

#[derive(Debug)]
enum How {
    /// One event a line.
    Json,
    /// One line for what has changed, and none if nothing has.
    Lines { last: String },
    /// All there is, drawn anew.
    Live { bar: ProgressBar, picture: Picture, colour: bool },
}

impl Shown {
    /// Begins.
    pub(super) fn new(json: bool) -> Self {
        let how = if json {
            How::Json
        } else if output::draws() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            How::Live { bar, picture: Picture::default(), colour: output::may_colour() }
        } else {
            How::Lines { last: String::new() }
        };
        Self { how, drains: false, remains: None }
    }

    /// It is this far.
    pub(super) fn update(&mut self, progress: Progress) {
        self.drains = progress.phase == "draining";
        match &mut self.how {
            How::Json => {
                let event = serde_json::to_string(&Response::Progress(progress));
                output::warn(&event.unwrap_or_default());
            }
            How::Lines { last } => {
                let line = line(&progress);
                if line != *last {
                    output::warn(&line);
                    *last = line;
                }
            }
            How::Live { bar, picture, colour } => {
                picture.update(&progress);
                bar.set_message(picture.draw(*colour));
            }
        }
    }

    /// Whether only the end of the old processes is waited for, so that it is worth asking how they are.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// What the old processes still have in hand.
    pub(super) fn remains(&mut self, status: &Status) {
        let remains = Remains::of(status);
        if self.remains.replace(remains) == Some(remains) {
            return;
        }
        match &mut self.how {
            How::Json => {
                let event = serde_json::json!({ "event": "draining", "processes": remains.processes,
                    "in_flight": remains.in_flight, "connections": remains.connections });
                output::warn(&event.to_string());
            }
            How::Lines { .. } => output::warn(&remains.to_string()),
            How::Live { bar, picture, colour } => {
                picture.remains = Some(remains);
                bar.set_message(picture.draw(*colour));
            }
        }
    }

    /// It is over: the terminal is left as it was.
    pub(super) fn finish(self) {
        if let How::Live { bar, .. } = self.how {
            bar.finish_and_clear();
        }
    }
}
