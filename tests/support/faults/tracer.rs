//! strace attached to a running process: it makes calls fail, or counts them, until it detaches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::case::{Case, Counts};
use super::table;
use crate::support::until;

pub struct Tracer {
    strace: Child,
    trace: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tracer {
    /// Makes calls of this process fail, in all its threads, including later ones.
    pub fn inject(pid: u32, case: &Case) -> Self {
        let mut arguments = vec![
            "-e".to_owned(),
            format!("trace={}", case.call),
            "-e".to_owned(),
            format!("inject={}", case.injection()),
        ];
        if table::call_named(&case.call).is_some_and(|call| call.only_stderr) {
            let stderr = std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
            arguments.extend(["-P".to_owned(), stderr.to_str().unwrap().to_owned()]);
        }
        Self::attach(pid, &arguments)
    }

    /// Records all calls of this process.
    pub fn watch(pid: u32) -> Self {
        Self::attach(pid, &["-e".to_owned(), "signal=none".to_owned()])
    }

    fn attach(pid: u32, arguments: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let mut strace = Command::new("strace")
            .args(["-f", "-s", "0", "-o"])
            .arg(&trace)
            .args(arguments)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("strace has attached", || {
            // It ends by itself, with its tracee's exit code, if the first fault has ended the
            // process.
            let ended = strace.try_wait().unwrap().is_some();
            (ended || is_traced(pid)).then_some(())
        });
        Self {
            strace,
            trace,
            _dir: dir,
        }
    }

    /// Detaches from the process. Returns the trace.
    pub fn detach(mut self) -> String {
        self.let_go();
        String::from_utf8_lossy(&std::fs::read(&self.trace).unwrap()).into_owned()
    }

    fn let_go(&mut self) {
        let ended = |strace: &mut Child| strace.try_wait().unwrap();
        if ended(&mut self.strace).is_none() {
            // SIGINT makes it detach.
            let _ = kill_process(Pid::from_child(&self.strace), Signal::INT);
            until("strace has detached", || ended(&mut self.strace));
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        } else {
            self.let_go();
        }
    }
}

/// Whether all threads of the process have a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

/// How many injected failures a trace contains.
pub fn injected(trace: &str) -> usize {
    trace.matches("(INJECTED)").count()
}

/// The calls in a trace: for each, how often each thread has made it.
pub fn counts(trace: &str) -> Counts {
    let mut by_thread: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in trace.lines() {
        // `123  write(2, ""..., 80) = 80`; exits of threads and resumed halves of calls begin with
        // signs other than a name.
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, _)) = call.trim_start().split_once('(') else {
            continue;
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.is_empty() && name.chars().all(is_name) {
            *by_thread.entry((thread, name)).or_default() += 1;
        }
    }
    let mut counts = Counts::new();
    for ((_, name), n) in by_thread {
        counts.entry(name.to_owned()).or_default().insert(n);
    }
    counts
}
