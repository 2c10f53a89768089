//! What comes with the dependencies, held to `deny.toml` where cargo-deny is not at hand: licences,
//! sources, and crates that are not wanted. Advisories are beyond it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use toml::Table;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// This machine, as cargo calls it.
fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "aarch64-unknown-linux-gnu"
    } else {
        "x86_64-unknown-linux-gnu"
    }
}

/// Every package of the workspace's whole tree.
fn packages() -> Vec<Value> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // What is for other systems is not at hand, and never built in.
        .args(["--filter-platform", platform()])
        .args(["--manifest-path", manifest])
        .output()
        .expect("run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    metadata["packages"].as_array().expect("packages").clone()
}

fn deny() -> Table {
    include_str!("../../../../deny.toml").parse().expect("deny.toml")
}

fn texts(list: &toml::Value, of: impl Fn(&toml::Value) -> Option<&str>) -> BTreeSet<String> {
    list.as_array().expect("a list").iter().filter_map(of).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with what is allowed. `AND` binds closer than `OR`; the
/// slash is how it was written once.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let met = any(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression:?} is not understood from {rest:?} on");
    met
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = all(rest, allowed);
    while take(rest, "OR") {
        met |= all(rest, allowed);
    }
    met
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(rest, allowed);
    while take(rest, "AND") {
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    if take(rest, "(") {
        let met = any(rest, allowed);
        assert!(take(rest, ")"), "a parenthesis is open before {rest:?}");
        return met;
    }
    let Some((name, after)) = rest.split_first() else { return false };
    *rest = after;
    let mut name = (*name).to_owned();
    if take(rest, "WITH")
        && let Some((exception, after)) = rest.split_first()
    {
        name = format!("{name} WITH {exception}");
        *rest = after;
    }
    allowed.contains(&name)
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0 OR MIT AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND GPL-3.0", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn all_dependencies_are_allowed_to_be_there() {
    let deny = deny();
    let allowed = texts(&deny["licenses"]["allow"], |it| it.as_str());
    let unwanted = texts(&deny["bans"]["deny"], |it| it["crate"].as_str());
    assert!(!allowed.is_empty() && !unwanted.is_empty(), "deny.toml says nothing");
    let packages = packages();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_met(licence, &allowed), "{name} is under {licence}");
        assert!(!unwanted.contains(name), "{name} is not wanted");
        let source = &package["source"];
        assert!(source.is_null() || source == CRATES_IO, "{name} is from {source}");
    }
}
