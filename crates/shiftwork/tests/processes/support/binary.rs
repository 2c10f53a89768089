//! The shop's executable, and a second release of it that was really compiled anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What `x-build` says of the second release.
pub(crate) const SECOND_BUILD: &str = "second";

/// The shop as it is. Built once for all tests: cargo builds the examples before it runs the
/// workspace's tests, but not those of one package, so it is asked here in any case.
pub(crate) fn first() -> PathBuf {
    static FIRST: OnceLock<PathBuf> = OnceLock::new();
    FIRST.get_or_init(|| keep("shop-first", env::var("SHOP_BUILD").ok().as_deref())).clone()
}

/// The shop compiled again, with another `SHOP_BUILD`.
pub(crate) fn second() -> PathBuf {
    static SECOND: OnceLock<PathBuf> = OnceLock::new();
    first();
    SECOND.get_or_init(|| keep("shop-second", Some(SECOND_BUILD))).clone()
}

/// Builds a release and keeps a copy, since the next build writes to the same place.
fn keep(name: &str, label: Option<&str>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = folder.join(name);
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    fs::copy(build("shop", label), &fresh).expect("copy the shop");
    fs::rename(&fresh, &kept).expect("name the copy");
    kept
}

/// Puts a release at `to`: by a hard link where that is possible.
pub(crate) fn install(release: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    if fs::hard_link(release, to).is_err() {
        fs::copy(release, to).expect("copy a release");
    }
}

/// The example with every callback.
pub(crate) fn callbacks() -> PathBuf {
    static CALLBACKS: OnceLock<PathBuf> = OnceLock::new();
    CALLBACKS.get_or_init(|| build("callbacks", None)).clone()
}

/// A program that cannot go on where it said that it could.
pub(crate) fn impostor() -> PathBuf {
    static IMPOSTOR: OnceLock<PathBuf> = OnceLock::new();
    IMPOSTOR.get_or_init(|| build("impostor", None)).clone()
}

/// A server whose connections last: `tests/programs/talkers.rs`.
pub(crate) fn talkers() -> PathBuf {
    static TALKERS: OnceLock<PathBuf> = OnceLock::new();
    TALKERS.get_or_init(|| build("talkers", None)).clone()
}

fn build(example: &str, label: Option<&str>) -> PathBuf {
    // target/PROFILE/deps/processes-HASH
    let test = env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE");
    let target = profile.parent().expect("target");
    let release = profile.file_name().is_some_and(|name| name == "release");

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--workspace", "--example", example]);
    cargo.arg("--target-dir").arg(target);
    if release {
        cargo.arg("--release");
    }
    match label {
        Some(label) => cargo.env("SHOP_BUILD", label),
        None => cargo.env_remove("SHOP_BUILD"),
    };
    // A test program runs with some variables that a build does not have; with them, cargo would
    // compile everything again.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().expect("run cargo");
    assert!(
        output.status.success(),
        "{example} does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    profile.join("examples").join(example)
}
