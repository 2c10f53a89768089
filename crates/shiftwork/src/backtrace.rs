//! Backtraces as somebody wants to read them: without what every panic has above and below itself.

use std::backtrace::Backtrace;

/// The frames of this thread between the panic and the first one of a program's own;
/// `RUST_BACKTRACE=full` shows all of them.
pub(crate) fn captured() -> String {
    let whole = Backtrace::force_capture().to_string();
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|it| it == "full") {
        return whole;
    }
    between(&whole)
}

/// Frames after the mark that stands above a panic and before the one that stands below `main` or a
/// thread's function; all of them where there is no mark.
fn between(whole: &str) -> String {
    let marks = |frame: &&str, mark: &str| frame.contains(mark);
    let frames = frames(whole);
    let from = frames.iter().position(|it| marks(it, "__rust_end_short_backtrace"));
    let from = from.map_or(0, |it| it + 1);
    let length = frames[from..].iter().position(|it| marks(it, "__rust_begin_short_backtrace"));
    let to = length.map_or(frames.len(), |it| from + it);
    frames[from..to].concat()
}

/// A frame is a line with a number, and the lines below it that have none.
fn frames(whole: &str) -> Vec<&str> {
    let begins = |line: &str| {
        let number = line.trim_start().split(':').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())
    };
    let mut starts = Vec::new();
    let mut offset = 0;
    for line in whole.split_inclusive('\n') {
        if begins(line) {
            starts.push(offset);
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([whole.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| whole.get(*start..end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "   0: std::backtrace::Backtrace::create
   1: std::panicking::panic_with_hook
             at /rustc/1:2
   2: std::sys::backtrace::__rust_end_short_backtrace::<a::{closure#0}, !>
             at /rustc/3:4
   3: core::panicking::panic_fmt
   4: shop::main
             at examples/shop/main.rs:35:49
   5: std::sys::backtrace::__rust_begin_short_backtrace
   6: _start
";

    #[test]
    fn what_every_panic_has_is_left_out() {
        let expected = "   3: core::panicking::panic_fmt\n   4: shop::main\n             \
                        at examples/shop/main.rs:35:49\n";
        assert_eq!(between(WHOLE), expected);
    }

    #[test]
    fn without_marks_all_of_it_is_kept() {
        assert_eq!(between("   0: <unknown>\n   1: main\n"), "   0: <unknown>\n   1: main\n");
        assert_eq!(between(""), "");
    }

    #[test]
    fn a_real_one_has_this_test_in_it() {
        assert!(captured().contains("a_real_one_has_this_test_in_it"), "{}", captured());
    }
}
