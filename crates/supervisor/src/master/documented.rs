//! `docs/signals-and-commands.md` has every signal that the master reads, and none that it does not.

use std::collections::BTreeSet;

use shiftwork_sys::signal;

use super::signals;

const PAGE: &str = include_str!("../../../../docs/signals-and-commands.md");

/// A signal's name, as `kill` knows it.
fn name(signo: i32) -> &'static str {
    match signo {
        signal::TERM => "TERM",
        signal::INT => "INT",
        signal::QUIT => "QUIT",
        signal::HUP => "HUP",
        signal::USR1 => "USR1",
        signal::USR2 => "USR2",
        signal::TTIN => "TTIN",
        signal::TTOU => "TTOU",
        other if other == signal::rtmin() => "RTMIN",
        other => panic!("signal {other} has no name here"),
    }
}

#[test]
fn every_signal_to_the_master() {
    let section = PAGE.split("\n### To the master\n").nth(1).and_then(|it| it.split("\n#").next());
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with("| `"));
    let told: BTreeSet<&str> = rows
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        // Nobody can read that one.
        .filter(|it| *it != "KILL")
        .collect();
    let read = signals::all().into_iter().filter(|it| *it != signal::CHLD);
    assert_eq!(told, read.map(name).collect::<BTreeSet<_>>());
}
