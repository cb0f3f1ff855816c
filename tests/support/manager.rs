//! A service manager, like systemd: it receives notifications, stores descriptors, and starts the
//! service with them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::process::{Coracle, binary};
use super::until;

/// Sources of descriptors are moved above those that the service receives, so that none is
/// overwritten.
const ABOVE: i32 = 200;

/// A service manager with a descriptor store.
pub struct Manager {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    told: Vec<String>,
    kept: Vec<(String, OwnedFd)>,
    /// What the service was started with, until it sends a notification.
    passed: Vec<OwnedFd>,
}

impl Manager {
    /// One that takes its time over each message, which exposes a service that does not wait for
    /// it.
    pub fn start(pause: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        thread::spawn(move || {
            loop {
                let (text, descriptors) = receive(&socket);
                thread::sleep(pause);
                shared.lock().unwrap().take(text, descriptors);
            }
        });
        Self { dir, state }
    }

    /// Everything it was told so far.
    pub fn told(&self) -> Vec<String> {
        self.state.lock().unwrap().told.clone()
    }

    /// The names of the stored descriptors.
    pub fn kept(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.kept.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The inodes of the stored descriptors.
    pub fn inodes(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state.kept.iter().map(|(_, fd)| inode(fd)).collect()
    }

    /// Closes everything stored, as at a full stop of the service.
    pub fn discard(&self) {
        self.state.lock().unwrap().kept.clear();
    }

    /// Adds a descriptor to what the service is started with, as a socket unit does.
    pub fn hand_over(&self, name: &str, fd: OwnedFd) {
        self.state.lock().unwrap().kept.push((name.to_owned(), fd));
    }

    /// Starts coracle with everything stored, and waits until it reports ready.
    pub fn run(&self, config: &str) -> Coracle {
        let ready = |manager: &Self| {
            let told = manager.told();
            told.iter().filter(|text| *text == "READY=1\n").count()
        };
        let before = ready(self);
        let mut state = self.state.lock().unwrap();
        // Without FD_CLOEXEC: they pass to the shell, which moves them to where the protocol wants
        // them.
        let passed: Vec<OwnedFd> = state
            .kept
            .iter()
            .map(|(_, fd)| {
                let fd = rustix::io::fcntl_dupfd_cloexec(fd, ABOVE).unwrap();
                fcntl_setfd(&fd, FdFlags::empty()).unwrap();
                fd
            })
            .collect();
        let names: Vec<&str> = state.kept.iter().map(|(name, _)| name.as_str()).collect();
        let numbers: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        // exec keeps the process, so the shell's PID is coracle's.
        let script = "n=3; for fd in $FDS; do eval \"exec $n<&$fd $fd<&-\"; n=$((n + 1)); done; unset FDS; \
             LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg(binary());
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        command.env("FDS", numbers.join(" "));
        command.env("LISTEN_FDS", passed.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        state.passed = passed;
        drop(state);
        let coracle = Coracle::start_by(command, config);
        until("the service reports ready", || {
            (ready(self) > before).then_some(())
        });
        coracle
    }
}

impl State {
    fn take(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        self.passed.clear();
        let has = |line: &str| text.lines().any(|it| it == line);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        if has("FDSTOREREMOVE=1") {
            self.kept.retain(|(kept, _)| Some(kept.as_str()) != name);
        }
        if has("FDSTORE=1") {
            for fd in descriptors {
                // Like systemd, which compares them with kcmp.
                if self.kept.iter().all(|(_, kept)| inode(kept) != inode(&fd)) {
                    self.kept.push((name.unwrap().to_owned(), fd));
                }
            }
        }
        // All others are closed, which BARRIER=1 waits for.
        self.told.push(text);
    }
}

fn inode(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_ino
}

fn receive(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut text)];
    let received = recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let text = String::from_utf8(text[..received.bytes].to_vec()).unwrap();
    (text, descriptors)
}
