//! `docs/signals-and-commands.md` has every command and every option, and none that is not.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use clap::Command;

use super::{args, exit};

const PAGE: &str = include_str!("../../../../docs/signals-and-commands.md");

/// Rows of the tables below a heading: their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = PAGE.split(heading).nth(1).unwrap_or_else(|| panic!("there is no {heading:?}"));
    let section = section.split("\n#").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect()
}

/// What stands between backticks in a cell.
fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn options(command: &Command) -> BTreeSet<String> {
    let long = |it: &clap::Arg| it.get_long().map(|it| format!("--{it}"));
    command.get_arguments().filter_map(long).collect()
}

#[test]
fn every_command_and_every_option() {
    let definition = args::definition();
    let common: BTreeSet<String> =
        ["--config", "--set", "--control", "--json"].map(str::to_owned).into();
    let rows = rows("\n## Commands\n");
    let first = |row: &Vec<&'static str>| codes(row[0]).next().map(|it| it.split(' ').next());
    let described: BTreeSet<&str> = rows.iter().filter_map(first).flatten().collect();
    for command in definition.get_subcommands() {
        let name = command.get_name();
        assert!(described.contains(name), "the command {name} is not described");
        let own: BTreeSet<String> = options(command).difference(&common).cloned().collect();
        let told: BTreeSet<String> = rows
            .iter()
            .filter(|row| row.len() == 3 && codes(row[0]).any(|it| it == name))
            .flat_map(|row| codes(row[1]))
            .map(|it| it.split(' ').next().unwrap().to_owned())
            .filter(|it| it.starts_with("--"))
            .collect();
        assert_eq!(told, own, "options of {name}");
    }
    for name in described.iter().filter(|it| !it.starts_with('-')) {
        assert!(definition.find_subcommand(name).is_some(), "there is no command {name}");
    }
    for option in options(&definition) {
        let told = described.contains(&*option) || option == "--daemonize";
        assert!(told, "the option {option} is not described");
    }
}

#[test]
fn every_value_of_an_option() {
    for command in args::definition().get_subcommands() {
        for argument in command.get_arguments() {
            for value in argument.get_possible_values() {
                let Some(long) =
                    argument.get_long().filter(|_| argument.get_action().takes_values())
                else {
                    continue;
                };
                let typed = format!("`--{long} {}`", value.get_name());
                assert!(PAGE.contains(&typed), "{}: {typed} is not described", command.get_name());
            }
        }
    }
}

#[test]
fn every_exit_status() {
    let told: Vec<u8> =
        rows("\n### Exit statuses\n").iter().filter_map(|row| row.first()?.parse().ok()).collect();
    let known = [
        exit::OK,
        exit::FAILED,
        exit::USAGE,
        exit::NOT_RUNNING,
        exit::NOT_PERMITTED,
        exit::DEADLINE,
    ];
    assert_eq!(told, known);
}
