//! What needs a process with a single thread, or a whole process of its own: forks, titles,
//! execution, the daemon, the drop of privileges.
//!
//! Each case runs in a process of its own: this program executes itself with the case's name.

#![allow(clippy::unwrap_used)]

#[path = "processes/cases.rs"]
mod cases;
#[path = "processes/common.rs"]
mod common;
#[path = "processes/programs.rs"]
mod programs;

use std::process::{Command, ExitCode};

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let all: Vec<Case> = [cases::ALL, programs::ALL].concat();
    if let [_, flag, name] = arguments.as_slice()
        && flag == "--case"
    {
        let case = all.iter().find(|(known, _)| known == name).unwrap();
        case.1();
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let wanted = |name: &str| {
        let mut filters = arguments[1..].iter().filter(|text| !text.starts_with('-')).peekable();
        filters.peek().is_none()
            || filters.any(|text| if exact { name == text } else { name.contains(text.as_str()) })
    };
    let mut failed = 0;
    for (name, _) in all.iter().filter(|(name, _)| wanted(name)) {
        let mut case = Command::new(std::env::current_exe().unwrap());
        let output = case.args(["--case", name]).env("SYS_TEST", "kept").output().unwrap();
        let good = output.status.success();
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        if !good {
            failed += 1;
            println!("{}", output.status);
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
