//! The prompt: what is typed at a terminal, and when.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use crate::manners::{ENDLESS, cancelled, comes_true, exit_code, is_running};
use crate::run::{Lake, TIME_LIMIT, Up};

/// Lines of a terminal that can move its cursor are edited by the program, those of another one by the terminal.
const KINDS: [&str; 2] = ["dumb", "xterm"];

/// The prompt in a terminal of its own.
struct Terminal {
    child: std::process::Child,
    keys: std::process::ChildStdin,
    shown: mpsc::Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    fn open(up: &Up, home: &std::path::Path, kind: &str) -> Self {
        // The shell is replaced: one that waits for the program gets the signals of the terminal too, and may end with them.
        let line = format!("exec {} --server {} query", env!("CARGO_BIN_EXE_causeway"), up.url);
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env("SHELL", "/bin/sh");
        command.env("XDG_STATE_HOME", home).env("TERM", kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (send, shown) = mpsc::channel();
        let mut out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                let _ = send.send(piece[..n].to_vec());
            }
        });
        let keys = child.stdin.take().unwrap();
        Self { child, keys, shown, screen: String::new() }
    }

    /// Signals the program in the terminal, which is the only child of `script`.
    fn signal(&self, signal: &str) {
        let of = self.child.id().to_string();
        assert!(Command::new("pkill").args([signal, "--parent", &of]).status().unwrap().success());
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the terminal shows the text behind what was waited for before. Gives what it showed before the text.
    fn shows(&mut self, text: &str) -> String {
        let until = Instant::now() + TIME_LIMIT;
        while !self.screen.contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let piece = self.shown.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("`{text}` is not shown: {}", self.screen));
            self.screen += &String::from_utf8_lossy(&piece);
        }
        let at = self.screen.find(text).unwrap();
        let behind = self.screen.split_off(at + text.len());
        let mut before = std::mem::replace(&mut self.screen, behind);
        before.truncate(at);
        before
    }
}

#[test]
fn ctrl_c_cancels_the_statement_and_returns_to_the_prompt() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    for (nth, kind) in KINDS.into_iter().enumerate() {
        let mut terminal = Terminal::open(&up, home.path(), kind);
        terminal.shows("causeway> ");
        terminal.types(&format!("{ENDLESS};\r"));
        assert!(comes_true(|| is_running(&up)), "{}", up.metrics());
        terminal.types("\u{3}");
        terminal.shows("cancelled");
        assert!(comes_true(|| cancelled(&up, nth + 1)), "{}", up.metrics());
        // Two statements on a line, then one over two lines with a comment behind its end.
        terminal.types("SELECT 6 * 7 AS a; SELECT 'x;y' AS b;\r");
        terminal.shows("42");
        terminal.shows("x;y");
        terminal.types("SELECT 50 +\r");
        terminal.shows("       -> ");
        terminal.types("50; -- done\r");
        terminal.shows("100");
        terminal.types("\\nonsense\r");
        terminal.shows("there is no command `\\nonsense`");
        // What cannot be read ends at its semicolon all the same.
        terminal.types("SELECT U&'\\zzzz';\r");
        terminal.shows("error: ");
        terminal.types("exit\r");
        assert_eq!(exit_code(&mut terminal.child), Some(0), "{kind}");
    }
    let history = fs::read_to_string(home.path().join("causeway/history")).unwrap();
    assert!(history.contains("SELECT 6 * 7"), "{history}");
}

#[test]
fn a_prompt_that_waits_for_a_statement_ends_when_it_is_told_to() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(&up, home.path(), "xterm");
    terminal.shows("causeway> ");
    terminal.types("SELECT 6 * 7 AS a;\r");
    terminal.shows("42");
    terminal.shows("causeway> ");
    terminal.signal("-TERM");
    // The editor had the terminal quote what is pasted.
    terminal.shows("\u{1b}[?2004l");
    assert_eq!(exit_code(&mut terminal.child), Some(143));
    let history = fs::read_to_string(home.path().join("causeway/history")).unwrap();
    assert!(history.contains("SELECT 6 * 7"), "{history}");
}

#[test]
fn ctrl_c_ends_the_rest_of_the_line_too() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let mut terminal = Terminal::open(&up, home.path(), kind);
        terminal.shows("causeway> ");
        terminal.types(&format!("{ENDLESS}; SELECT 6 * 7 AS a; SELECT 50 +\r"));
        assert!(comes_true(|| is_running(&up)), "{}", up.metrics());
        terminal.types("\u{3}");
        terminal.shows("cancelled");
        let before = terminal.shows("causeway> ");
        assert!(!before.contains("42"), "{kind}: {before}");
        terminal.types("SELECT 'x' || 'y' AS b;\r");
        terminal.shows("xy");
        terminal.types("exit\r");
        assert_eq!(exit_code(&mut terminal.child), Some(0), "{kind}");
    }
}

#[test]
fn ctrl_c_drops_a_statement_that_is_not_finished() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let mut terminal = Terminal::open(&up, home.path(), kind);
        terminal.shows("causeway> ");
        terminal.types("SELECT 50 +\r");
        terminal.shows("       -> ");
        terminal.types("\u{3}");
        terminal.shows("causeway> ");
        terminal.types("SELECT 6 * 7 AS a;\r");
        let before = terminal.shows("42");
        assert!(!before.contains("error"), "{kind}: {before}");
        terminal.types("exit\r");
        assert_eq!(exit_code(&mut terminal.child), Some(0), "{kind}");
    }
}

#[test]
fn lines_that_are_typed_ahead_are_run() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    let lines = "SELECT 6 * 7 AS a;\rSELECT 'x' || 'y' AS b;\rSELECT 50 + 50 AS c;\r";
    for kind in KINDS {
        let mut terminal = Terminal::open(&up, home.path(), kind);
        terminal.shows("causeway> ");
        terminal.types(lines);
        for shown in ["42", "xy", "100", "causeway> "] {
            terminal.shows(shown);
        }
        // While a statement runs; Ctrl-C at the terminal would drop what was typed.
        terminal.types(&format!("{ENDLESS};\r"));
        assert!(comes_true(|| is_running(&up)), "{}", up.metrics());
        terminal.types(lines);
        terminal.shows("AS c;");
        terminal.signal("-INT");
        for shown in ["cancelled", "42", "xy", "100"] {
            terminal.shows(shown);
        }
        terminal.types("exit\r");
        assert_eq!(exit_code(&mut terminal.child), Some(0), "{kind}");
    }
}

#[test]
fn two_prompts_keep_the_history_of_both() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut terminals = [(); 2].map(|()| Terminal::open(&up, home.path(), "xterm"));
    for (terminal, sql) in terminals.iter_mut().zip(["SELECT 6 * 7 AS first;", "SELECT 6 * 7 AS second;"]) {
        terminal.shows("causeway> ");
        terminal.types(&format!("{sql}\r"));
        terminal.shows("42");
    }
    for terminal in &mut terminals {
        terminal.shows("causeway> ");
        terminal.types("SELECT 50 + 50;\rexit\r");
        assert_eq!(exit_code(&mut terminal.child), Some(0));
    }
    let history = fs::read_to_string(home.path().join("causeway/history")).unwrap();
    assert!(history.contains("AS first;") && history.contains("AS second;"), "{history}");
}
