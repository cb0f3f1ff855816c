//! A terminal that a test can read and type into: a pane of a tmux of its own.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{until, until_ok};

/// A terminal with a program in it. Dropping it ends both.
pub struct Screen {
    dir: TempDir,
}

impl Screen {
    /// Runs a command of the shell in a terminal of this size. What it writes goes to a file, too.
    pub fn start(columns: u16, rows: u16, command: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let screen = Self { dir };
        // It waits until its output goes to the file.
        let go = screen.dir.path().join("go");
        let script = format!(
            "while ! [ -e {} ]; do sleep 0.05; done; {command}",
            go.display()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let size = ["-x", &columns, "-y", &rows];
        let start = ["-f", "/dev/null", "new-session", "-d"];
        screen.tmux(&[&start[..], &size, &["sh", "-c", &script]].concat());
        let pipe = format!("cat >{}", screen.written_path().display());
        screen.tmux(&["pipe-pane", &pipe]);
        until("its output goes to the file", || {
            screen.written_path().exists().then_some(())
        });
        std::fs::write(go, "").unwrap();
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("tmux"));
        let output = command.args(arguments).env_remove("TMUX").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn written_path(&self) -> PathBuf {
        self.dir.path().join("written")
    }

    /// All that the program has written so far and that is in the file, which can be later than the
    /// screen.
    pub fn written(&self) -> Vec<u8> {
        std::fs::read(self.written_path()).unwrap()
    }

    /// All that the program has written, as soon as that has `text`.
    pub fn written_with(&self, text: &str) -> String {
        until(&format!("the file has {text:?}"), || {
            let written = String::from_utf8_lossy(&self.written()).into_owned();
            written.contains(text).then_some(written)
        })
    }

    /// The lines that it shows now.
    pub fn lines(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p"]);
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a line has `text`, and returns that line.
    pub fn has(&self, text: &str) -> String {
        until_ok(&format!("the screen has {text:?}:"), || {
            let lines = self.lines();
            let found = lines.iter().find(|line| line.contains(text)).cloned();
            found.ok_or_else(|| lines.join("\n"))
        })
    }

    /// Waits until no line has `text`.
    pub fn has_no(&self, text: &str) {
        until_ok(&format!("the screen has no {text:?}:"), || {
            let lines = self.lines().join("\n");
            match lines.contains(text) {
                true => Err(lines),
                false => Ok(()),
            }
        });
    }

    /// Types keys, as tmux calls them.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    pub fn write(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// The process that the shell in it waits for.
    pub fn child(&self) -> rustix::process::Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(path).unwrap();
        let child = children.split_whitespace().next().unwrap();
        rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("tmux"));
        let _ = command.arg("kill-server").output();
    }
}
