//! How far a reload is: a line that changes on a terminal, lines in a pipe, nothing in JSON.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use shiftwork_supervisor::core::outcome::Progress;

use super::output;

/// Shows progress on stderr.
#[derive(Debug)]
pub(super) enum Shown {
    Nothing,
    Lines { last: Option<Progress> },
    Bar(ProgressBar),
}

impl Shown {
    /// Begins.
    pub(super) fn new(json: bool) -> Self {
        if json {
            return Self::Nothing;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let bar = ProgressBar::new_spinner();
        bar.set_message("reload");
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Bar(bar)
    }

    /// The reload is this far.
    pub(super) fn update(&mut self, progress: Progress) {
        match self {
            Self::Nothing => {}
            Self::Lines { last } => {
                if last.as_ref() != Some(&progress) {
                    output::warn(&line(&progress));
                    *last = Some(progress);
                }
            }
            Self::Bar(bar) => {
                let template = if progress.total > 0 {
                    "{spinner} {msg} [{bar:24}] {pos}/{len}"
                } else {
                    "{spinner} {msg}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_length(progress.total.into());
                bar.set_position(progress.done.into());
                bar.set_message(words(&progress));
            }
        }
    }

    /// It is over: the terminal is left as it was.
    pub(super) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn words(progress: &Progress) -> String {
    let generation = progress.generation;
    match progress.phase.as_str() {
        "waiting" => "waiting for what goes on already".into(),
        "starting" => format!("starting generation {generation}"),
        "replacing" => format!("replacing with generation {generation}"),
        "rolling_back" => format!("rolling generation {generation} back"),
        "upgrading_probing" => "asking the new program".into(),
        "upgrading_manager" => "replacing the manager".into(),
        "upgrading_master" => "replacing the master".into(),
        "draining" => "draining the old generation".into(),
        "scaling" => "scaling".into(),
        other => format!("{other}, generation {generation}"),
    }
}

fn line(progress: &Progress) -> String {
    let words = words(progress);
    match progress.total {
        0 => words,
        total => format!("{words}: {}/{total}", progress.done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let at = |phase: &str, done, total| {
            line(&Progress { phase: phase.into(), generation: 2, done, total })
        };
        assert_eq!(at("starting", 1, 4), "starting generation 2: 1/4");
        assert_eq!(at("waiting", 0, 0), "waiting for what goes on already");
        assert_eq!(at("canary", 0, 1), "canary, generation 2: 0/1");
    }
}
