//! `top` on a terminal: it shows, reloads, follows an upgrade, and leaves the terminal as it was.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use shiftwork_sys::signal;

use crate::support::not_tried;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::Shop;
use crate::support::wait::{LONG, within};

/// What stands on the screen: only the cells that change are written, wherever they are.
fn screen(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let mut lines = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => {
                let mut sequence = String::new();
                if chars.next() == Some('[') {
                    for char in chars.by_ref() {
                        sequence.push(char);
                        if char.is_ascii_alphabetic() {
                            break;
                        }
                    }
                }
                if let Some(place) = sequence.strip_suffix('H') {
                    let mut numbers = place.split(';').map(|it| it.parse().unwrap_or(1_usize) - 1);
                    (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                } else if sequence.ends_with('J') {
                    lines.iter_mut().for_each(|line| line.fill(' '));
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            char => {
                if let Some(cell) = lines.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = char;
                }
                column += 1;
            }
        }
    }
    lines.iter().map(String::from_iter).collect::<Vec<_>>().join("\n")
}

const ROWS: usize = 30;
const COLUMNS: usize = 120;

/// A terminal with `top` on it.
struct Watched {
    script: Child,
    keyboard: ChildStdin,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Watched {
    fn of(shop: &Shop) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            not_tried("script(1) is not there");
            return None;
        }
        let typed = format!(
            "stty cols {COLUMNS} rows {ROWS}; echo $$ > top.pid; exec '{}' top --interval 100ms --config '{}'",
            shop.site.path("current/shop").display(),
            shop.site.config().display()
        );
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &typed, "/dev/null"]);
        script.env("TERM", "xterm").env("NO_COLOR", "1").current_dir(shop.site.path(""));
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = script.spawn().unwrap();
        let keyboard = script.stdin.take().unwrap();
        let mut output = script.stdout.take().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&written);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Some(Self { script, keyboard, written })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this stands on the screen.
    #[track_caller]
    fn shows(&self, words: &str) {
        within(LONG, &format!("top shows {words:?}"), || {
            screen(&self.written.lock().unwrap()).contains(words).then_some(())
        });
    }

    /// Waits until this was written, as it is.
    #[track_caller]
    fn writes(&self, words: &str) {
        within(LONG, &format!("top writes {words:?}"), || {
            String::from_utf8_lossy(&self.written.lock().unwrap()).contains(words).then_some(())
        });
    }

    /// The exit status; the terminal is left as it was.
    #[track_caller]
    fn ends(mut self) -> i32 {
        self.writes("\x1b[?1049l");
        let status = within(LONG, "top ends", || self.script.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

#[test]
fn it_shows_the_tree_reloads_and_follows_an_upgrade() {
    let shop = Shop::start();
    let Some(mut top) = Watched::of(&shop) else { return };
    top.shows("generation 1, release \"1\"");
    for words in ["requests/s", "PROCESS", "└─ manager", "├─ worker 0", "└─ task worker 2"]
    {
        top.shows(words);
    }
    top.press("r");
    top.shows("y / n");
    top.press("y");
    top.shows("generation 2 is committed after ");
    assert_eq!(shop.status().generation, 2);
    shop.site.run(&["upgrade"]).expect(0);
    top.shows("generation 3, release");
    top.press("q");
    assert_eq!(top.ends(), 0);
    shop.stop();
}

#[test]
fn it_leaves_the_terminal_when_the_server_goes_and_when_it_is_told_to() {
    let shop = Shop::start();
    let Some(top) = Watched::of(&shop) else { return };
    top.shows("├─ worker 0");
    let pid = std::fs::read_to_string(shop.site.path("top.pid")).unwrap();
    send(pid.trim().parse().unwrap(), signal::TERM);
    assert_eq!(top.ends(), 0);

    let Some(top) = Watched::of(&shop) else { return };
    top.shows("├─ worker 0");
    shop.site.run(&["stop"]).expect(0);
    top.writes("\x1b[?1049l");
    top.writes("shop is gone");
    let Watched { mut script, .. } = top;
    assert_eq!(within(LONG, "top ends", || script.try_wait().unwrap()).code(), Some(3));
    shop.site.assert_nothing_left();
}

#[test]
fn it_ends_with_its_terminal() {
    let shop = Shop::start();
    let Some(mut top) = Watched::of(&shop) else { return };
    top.shows("├─ worker 0");
    let pid = std::fs::read_to_string(shop.site.path("top.pid")).unwrap();
    top.script.kill().unwrap();
    top.script.wait().unwrap();
    wait_gone(pid.trim().parse().unwrap());
    shop.stop();
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let shop = Shop::start();
    let said = shop.site.run(&["top"]).expect(2);
    assert!(said.stderr.contains("shop status"), "{said:?}");
    shop.stop();
}
