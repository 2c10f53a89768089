//! What is known, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use shiftwork_supervisor::control::status::{ProcessStatus, Role, Status};

use super::model::{Model, Reload, Sort};
use super::rates::Rates;
use crate::cli::progress::line;
use crate::cli::status::{branch, memory, name, quantiles, time};

/// The columns, and by which sort each is meant.
const COLUMNS: [(&str, u16, Option<Sort>); 13] = [
    ("PROCESS", 20, Some(Sort::Tree)),
    ("PID", 7, None),
    ("GEN", 4, None),
    ("STATE", 9, None),
    ("UP", 8, None),
    ("REQ/S", 8, Some(Sort::Requests)),
    ("IN HAND", 7, Some(Sort::InHand)),
    ("CONNS", 7, Some(Sort::Connections)),
    ("TASKS/S", 8, Some(Sort::Tasks)),
    ("P50", 6, None),
    ("P99", 6, Some(Sort::Latency)),
    ("MEMORY", 9, Some(Sort::Memory)),
    ("RESTARTS", 8, Some(Sort::Restarts)),
];

/// Columns of numbers.
const RIGHT: [usize; 10] = [1, 2, 5, 6, 7, 8, 9, 10, 11, 12];

/// Draws all of it, into whatever room there is.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, colour: bool) {
    let paint = Paint { colour };
    let Some(status) = model.status() else {
        let words = model.silence().unwrap_or("asking the server…");
        frame.render_widget(Paragraph::new(format!("{}: {words}", model.name)), frame.area());
        return;
    };
    let reload = reload_lines(&model.reload, paint);
    let head = head_lines(model, status, paint);
    let [top, middle, bottom, foot] = Layout::vertical([
        Constraint::Length(head.len() as u16 + 1),
        Constraint::Min(2),
        Constraint::Length(reload.len() as u16),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    table(frame, middle, model, paint);
    frame.render_widget(Paragraph::new(reload), bottom);
    frame.render_widget(Paragraph::new(foot_line(model)), foot);
}

/// Colours, or none of them.
#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn state(self, state: &str) -> Style {
        match state {
            "serving" | "running" | "ready" => self.fg(Color::Green),
            "draining" | "starting" | "loading" | "proving" | "observing" | "reloading"
            | "rolling_back" | "scaling" | "upgrading" | "stopping" => self.fg(Color::Yellow),
            _ => Style::new(),
        }
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn head_lines(model: &Model, status: &Status, paint: Paint) -> Vec<Line<'static>> {
    let rates = model.rates();
    let totals = &status.totals;
    let mut lines = vec![Line::from(vec![
        Span::styled(status.name.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("  "),
        Span::styled(status.state.clone(), paint.state(&status.state)),
        Span::raw(format!(
            "  generation {}, release {:?}, up {}",
            status.generation,
            status.release,
            time(status.uptime_ms)
        )),
    ])];
    if let Some(silence) = model.silence() {
        lines[0].push_span(Span::styled(format!("  {silence}"), paint.fg(Color::Red)));
    }
    let latency = match quantiles(rates.latency.as_ref()) {
        [p50, _] if p50.is_empty() => String::new(),
        [p50, p99] => format!(" (p50 {p50}, p99 {p99})"),
    };
    lines.push(Line::raw(format!(
        "{} requests/s{latency}, {} in hand, {} connections, {} tasks/s, {}, {} restarts",
        rate(rates.requests),
        totals.in_flight,
        totals.connections,
        rate(rates.tasks),
        memory(totals.memory_bytes),
        totals.restarts
    )));
    // A reload that was asked for here has its own picture.
    if let Some(progress) = &status.progress
        && !matches!(model.reload, Reload::UnderWay(_))
    {
        lines.push(Line::styled(line(progress), paint.fg(Color::Yellow)));
    }
    for it in &status.releases {
        let digest = it.digest.as_deref().and_then(|it| it.get(..12)).unwrap_or("");
        lines.push(Line::from(vec![
            Span::styled(format!("generation {} ", it.generation), dim()),
            Span::styled(it.state.clone(), paint.state(&it.state)),
            Span::styled(format!("  release {:?}  {digest}  {}", it.release, it.executable), dim()),
        ]));
    }
    lines
}

fn table(frame: &mut Frame<'_>, area: Rect, model: &Model, paint: Paint) {
    let heads = COLUMNS.iter().enumerate().map(|(i, (name, _, sort))| {
        let style = if *sort == Some(model.sort) {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            dim()
        };
        let head = Line::from(Span::styled(*name, style));
        Cell::from(if RIGHT.contains(&i) { head.right_aligned() } else { head })
    });
    let processes = model.processes();
    let last = processes.len().saturating_sub(1);
    // No further than that something is left to see.
    let hidden =
        model.scroll.min(processes.len().saturating_sub(usize::from(area.height).max(2) - 1));
    let rows = processes
        .iter()
        .enumerate()
        .skip(hidden)
        .map(|(i, (process, rates))| row(process, rates, i == last, model.sort, paint));
    let widths = COLUMNS.iter().map(|(_, width, _)| Constraint::Length(*width));
    frame.render_widget(Table::new(rows, widths).header(Row::new(heads)), area);
}

fn row(
    process: &ProcessStatus,
    rates: &Rates,
    last: bool,
    sort: Sort,
    paint: Paint,
) -> Row<'static> {
    let works = matches!(process.role, Role::Worker | Role::TaskWorker);
    let serves = process.role == Role::Worker;
    let shown = |it: String, when: bool| if when { it } else { String::new() };
    let number = |it: Option<String>| it.unwrap_or_default();
    let [p50, p99] = quantiles(rates.latency.as_ref());
    let cells = [
        if sort == Sort::Tree { branch(process, last) } else { name(process) },
        number(process.pid.map(|it| it.to_string())),
        number(process.generation.map(|it| it.to_string())),
        process.state.clone(),
        time(process.uptime_ms),
        shown(rate(rates.requests), serves),
        shown(process.in_flight.to_string(), works),
        shown(process.connections.to_string(), serves),
        shown(rate(rates.tasks), process.role == Role::TaskWorker),
        p50,
        p99,
        memory(process.memory_bytes),
        shown(process.restarts.to_string(), works || process.restarts > 0),
    ];
    let style = paint.state(&process.state);
    Row::new(cells.into_iter().enumerate().map(move |(i, text)| {
        Cell::from(match i {
            3 => Line::styled(text, style),
            _ if RIGHT.contains(&i) => Line::raw(text).right_aligned(),
            _ => Line::raw(text),
        })
    }))
}

fn reload_lines(reload: &Reload, paint: Paint) -> Vec<Line<'static>> {
    match reload {
        Reload::None => Vec::new(),
        Reload::Asked => vec![Line::styled(
            "Reload: start the next generation and have it take over? y / n",
            Style::new().add_modifier(Modifier::BOLD),
        )],
        Reload::UnderWay(picture) => {
            picture.draw(false).lines().map(|it| Line::raw(it.to_owned())).collect()
        }
        Reload::Over(words, good) => {
            let style = paint.fg(if *good { Color::Green } else { Color::Red });
            words.lines().map(|it| Line::styled(it.to_owned(), style)).collect()
        }
    }
}

fn foot_line(model: &Model) -> Line<'static> {
    let escape = match model.reload {
        Reload::Over(..) => "  esc close the message",
        _ => "",
    };
    Line::styled(format!("q quit  r reload  ←→ sort  ↑↓ scroll{escape}"), dim())
}

fn rate(number: f64) -> String {
    if number >= 10.0 || number == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use shiftwork_supervisor::control::latency::Latency;
    use shiftwork_supervisor::core::outcome::Progress;
    use shiftwork_sys::slab::BUCKETS;

    use super::super::model::tests::status;
    use super::super::model::{Heard, Key};
    use super::*;

    fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, true)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_screen() {
        let mut model = Model::new("shop");
        assert_eq!(drawn(&model, 40, 3)[0], "shop: asking the server…");
        model.hear(Heard::Status(status(2, 100)), Instant::now());
        model.press(Key::Reload);
        let lines = drawn(&model, 120, 14);
        assert_eq!(lines[0], "shop  serving  generation 2, release \"7\", up 1m 1s");
        assert!(lines[1].starts_with("0 requests/s, 2 in hand, 4 connections,"), "{lines:#?}");
        assert!(lines[2].contains("0123456789ab  /srv/shop"), "{lines:#?}");
        assert!(lines[4].starts_with("PROCESS ") && lines[4].contains("REQ/S"), "{lines:#?}");
        assert!(lines[5].starts_with("master "), "{lines:#?}");
        assert!(lines[6].starts_with("   ├─ worker 0 ") && lines[7].starts_with("   └─ worker 1 "));
        assert!(lines[12].ends_with("y / n") && lines[13].starts_with("q quit"), "{lines:#?}");
    }

    #[test]
    fn latencies() {
        let mut model = Model::new("shop");
        let began = Instant::now();
        let mut after = status(2, 200);
        let mut timed = vec![0, 98];
        timed.resize(BUCKETS - 1, 0);
        timed.push(2);
        let latency = Latency { buckets: timed, ..Latency::default() };
        after.processes[1].latency = Some(latency.clone());
        after.totals.latency = Some(latency);
        model.hear(Heard::Status(status(2, 100)), began);
        model.hear(Heard::Status(after), began + Duration::from_secs(1));
        let lines = drawn(&model, 120, 14);
        assert!(lines[1].starts_with("100 requests/s (p50 250us, p99 >30s), "), "{lines:#?}");
        assert!(lines[6].contains("  250us   >30s   1.0 MiB        0"), "{lines:#?}");
        assert!(lines[4].ends_with("RESTARTS"), "{lines:#?}");
    }

    #[test]
    fn a_reload_from_elsewhere() {
        let mut model = Model::new("shop");
        let mut status = status(2, 100);
        status.progress = Some(Progress {
            phase: "replacing".into(),
            generation: 3,
            done: 1,
            total: 2,
            ..Progress::default()
        });
        let expected = line(status.progress.as_ref().unwrap());
        model.hear(Heard::Status(status), Instant::now());
        assert_eq!(drawn(&model, 120, 14)[2], expected);
    }

    #[test]
    fn any_size_of_a_terminal_will_do() {
        let mut model = Model::new("shop");
        model.hear(Heard::Status(status(2, 100)), Instant::now());
        for _ in 0..9 {
            let _ = model.press(Key::Down);
        }
        for (width, height) in [(1, 1), (3, 2), (20, 5), (300, 100)] {
            drawn(&model, width, height);
        }
    }
}
