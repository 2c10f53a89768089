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

/// What was drawn, to read: the cursor goes over what is blank already, and styles are no text.
fn read(drawn: &str) -> String {
    let mut text = String::new();
    let mut rest = drawn;
    while let Some(at) = rest.find("\x1b[") {
        text.push_str(&rest[..at]);
        let sequence = &rest[at..];
        let Some(end) = sequence[2..].find(|it: char| it.is_ascii_alphabetic()) else {
            rest = sequence;
            break;
        };
        let (whole, after) = sequence.split_at(end + 3);
        match whole.chars().last() {
            Some('H') => text.push(' '),
            Some('m') => {}
            _ => text.push_str(whole),
        }
        rest = after;
    }
    text + rest
}

/// A terminal with `top` on it.
struct Watched {
    script: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Watched {
    fn of(shop: &Shop) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            not_tried("script(1) is not there");
            return None;
        }
        let typed = format!(
            "stty cols 120 rows 30; echo $$ > top.pid; exec '{}' top --interval 100ms --config '{}'",
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
        let screen = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Some(Self { script, keyboard, screen })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is drawn, and forgets what was drawn until then.
    #[track_caller]
    fn shows(&self, words: &str) {
        within(LONG, &format!("top shows {words:?}"), || {
            let mut screen = self.screen.lock().unwrap();
            let text = read(&screen);
            let at = text.find(words)?;
            *screen = text[at + words.len()..].to_owned();
            Some(())
        });
    }

    /// The exit status; the terminal is left as it was.
    #[track_caller]
    fn ends(mut self) -> i32 {
        self.shows("\x1b[?1049l");
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
    within(LONG, "the upgrade's generation", || {
        read(&top.screen.lock().unwrap()).contains(" 3 ").then_some(())
    });
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
    top.shows("\x1b[?1049l");
    top.shows("shop is gone");
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
