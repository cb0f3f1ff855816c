//! Notifies the service manager (systemd's `NOTIFY_SOCKET`), and has it keep the listening sockets
//! for the next process.
//!
//! Nothing here makes the loop wait: if the manager does not read, sending is retried a bounded
//! number of times.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::net::Reactor;

/// The name under which the manager keeps our listening sockets (FDNAME).
pub(super) const KEPT: &str = "entrypoint";

/// Asks the manager to close the sockets kept under that name.
const FORGET: &str = "FDSTOREREMOVE=1\nFDNAME=entrypoint\n";

/// Descriptors per message. The kernel takes 253 (SCM_MAX_FD).
const DESCRIPTORS_AT_ONCE: usize = 64;

/// How often, and how many times, to retry if the manager does not read: for half a minute.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: u32 = 300;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    channel: Option<Channel>,
    /// Whether the last message failed. Only the first failure in a row is logged.
    is_deaf: Cell<bool>,
}

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// A message, possibly with descriptors.
#[derive(Debug)]
struct Message {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            descriptors: Vec::new(),
        }
    }
}

impl Manager {
    /// Connects to the manager that started this process, if it asked for notifications.
    #[must_use]
    pub(super) fn from_env() -> Rc<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let channel = name.and_then(|name| {
            let opened = Channel::open(name.as_bytes());
            if let Err(error) = &opened {
                log::warn!("NOTIFY_SOCKET={}: {error}; the service manager learns nothing: see Type= and NotifyAccess= of the unit", name.display());
            }
            opened.ok()
        });
        Rc::new(Self {
            channel,
            is_deaf: Cell::new(false),
        })
    }

    /// Returns whether there is a service manager.
    pub(super) fn is_there(&self) -> bool {
        self.channel.is_some()
    }

    /// Reports that all listeners are open, and hands over `kept` for the next process. The
    /// returned future, if any, sends what could not be sent immediately.
    pub(super) fn ready(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        kept: Vec<OwnedFd>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut messages = to_be_kept(kept);
        messages.push_back(Message::text("READY=1\n"));
        self.say(reactor, messages)
    }

    /// Hands over `kept` in place of the sockets that the manager keeps, because other listeners
    /// are open now.
    pub(super) fn keep_instead(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        kept: Vec<OwnedFd>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut messages = to_be_kept(kept);
        messages.push_front(Message::text(FORGET));
        self.say(reactor, messages)
    }

    /// Asks the manager to close the listening sockets that it keeps, without waiting for it.
    pub(super) fn release(&self) {
        // If the message is lost, the manager keeps the sockets and the address stays in use.
        let _ = self.send(&Message::text(FORGET));
    }

    /// Reports that the drain has begun, and extends the manager's own timeout to cover
    /// `drain_timeout`.
    pub(super) fn stopping(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        drain_timeout: Duration,
    ) -> Option<impl Future<Output = ()> + use<>> {
        /// Time to cut the remaining connections and write the last log lines.
        const MARGIN: Duration = Duration::from_secs(5);
        let patience = drain_timeout.saturating_add(MARGIN).as_micros();
        let text = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={patience}\n");
        self.say(reactor, VecDeque::from([Message::text(text)]))
    }

    /// Sends watchdog notifications from the loop that moves the data, so that the manager notices
    /// a loop that hangs. Returns `None` if the manager expects none (`WATCHDOG_USEC`).
    pub(super) fn signs_of_life(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let patience = watchdog().filter(|_| self.is_there())?;
        let (manager, reactor) = (self.clone(), reactor.clone());
        Some(async move {
            let alive = Message::text("WATCHDOG=1\n");
            loop {
                // A lost message does not matter: the next one says the same.
                let _ = manager.send(&alive);
                // A third, so that there is a second chance.
                reactor.sleep(patience / 3).await;
            }
        })
    }

    /// Asks the manager to close the listening sockets that it keeps, and waits until it has, for
    /// at most a few seconds. For startup, when their addresses may be needed.
    pub(super) fn forget(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let until = Instant::now() + PATIENCE;
        let Ok((reading, writing)) = pipe_with(PipeFlags::CLOEXEC) else {
            return;
        };
        let messages = [
            Message::text(FORGET),
            // The manager closes it once it has processed all earlier messages.
            Message {
                text: "BARRIER=1\n".to_owned(),
                descriptors: vec![writing],
            },
        ];
        for message in messages {
            while self.send(&message) == Err(Errno::AGAIN) && Instant::now() < until {
                thread::sleep(LOOK_AGAIN);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let _ = poll(
            &mut [PollFd::new(&reading, PollFlags::empty())],
            left.as_ref(),
        );
    }

    /// Sends as many messages as possible now, and the rest in the returned future.
    fn say(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        mut messages: VecDeque<Message>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        if self.send_all(&mut messages) {
            return None;
        }
        let (manager, reactor) = (self.clone(), reactor.clone());
        Some(async move {
            for _ in 0..TRIES {
                reactor.sleep(PAUSE).await;
                if manager.send_all(&mut messages) {
                    return;
                }
            }
        })
    }

    /// Sends the messages that the manager takes now. Returns `true` if none are left.
    fn send_all(&self, messages: &mut VecDeque<Message>) -> bool {
        while let Some(message) = messages.front() {
            if self.send(message) == Err(Errno::AGAIN) {
                return false;
            }
            messages.pop_front();
        }
        true
    }

    fn send(&self, message: &Message) -> Result<(), Errno> {
        let Some(channel) = &self.channel else {
            return Ok(());
        };
        let sent = channel.send(message);
        match sent {
            Ok(()) => self.is_deaf.set(false),
            Err(error) if !self.is_deaf.replace(true) => {
                let text = message.text.trim_end().replace('\n', " ");
                let why = match error {
                    Errno::AGAIN => "it is not reading".to_owned(),
                    error => error.to_string(),
                };
                log::warn!(
                    "cannot send {text} to the service manager: {why}; what matters is repeated; see that it is running"
                );
            }
            Err(_) => {}
        }
        sent
    }
}

fn to_be_kept(mut kept: Vec<OwnedFd>) -> VecDeque<Message> {
    let mut messages = VecDeque::new();
    while !kept.is_empty() {
        let rest = kept.split_off(kept.len().min(DESCRIPTORS_AT_ONCE));
        messages.push_back(Message {
            text: format!("FDSTORE=1\nFDNAME={KEPT}\n"),
            descriptors: std::mem::replace(&mut kept, rest),
        });
    }
    messages
}

impl Channel {
    fn open(name: &[u8]) -> Result<Self, Errno> {
        let address = match name {
            // An abstract name is written with an @ in place of its leading zero byte.
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(name)?,
            _ => return Err(Errno::AFNOSUPPORT),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, address })
    }

    fn send(&self, message: &Message) -> Result<(), Errno> {
        let descriptors: Vec<BorrowedFd<'_>> =
            message.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let text = [IoSlice::new(message.text.as_bytes())];
        // Sent to the address each time, because a restarted manager has a new socket there.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg_addr(&self.socket, &self.address, &text, &mut control, flags).map(drop)
    }
}

/// Returns the interval within which the manager expects a watchdog notification from this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let is_ours = std::env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID").and_then(|pid| i32::try_from(pid).ok()) == Some(own);
    let patience = Duration::from_micros(number("WATCHDOG_USEC")?);
    (is_ours && !patience.is_zero()).then_some(patience)
}
