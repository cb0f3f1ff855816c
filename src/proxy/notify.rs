//! Tells the service manager (systemd's `NOTIFY_SOCKET`) how the proxy is, and has it keep the listening sockets for the next process.
//!
//! Nothing here makes the loop wait: a manager that does not read is told again later, a bounded number of times.

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

/// Has the manager close what it keeps under that name.
const FORGET: &str = "FDSTOREREMOVE=1\nFDNAME=entrypoint\n";

/// The kernel takes 253 descriptors with one message (SCM_MAX_FD).
const DESCRIPTORS_AT_ONCE: usize = 64;

/// How often, and how many times, a manager that does not read is told again: for half a minute.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: u32 = 300;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    channel: Option<Channel>,
    /// Whether the last thing said did not get through, which is logged once.
    is_deaf: Cell<bool>,
}

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// Something to say, perhaps with descriptors.
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
    /// The one that started this process, if it wants to be told anything.
    #[must_use]
    pub(super) fn from_env() -> Rc<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let channel = name.and_then(|name| {
            let opened = Channel::open(name.as_bytes());
            if let Err(error) = &opened {
                log::warn!("NOTIFY_SOCKET={}: {error}", name.display());
            }
            opened.ok()
        });
        Rc::new(Self {
            channel,
            is_deaf: Cell::new(false),
        })
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.channel.is_some()
    }

    /// All listeners are open, and `kept` are to be kept for the next process. The future, if any, says what could not be said
    /// at once.
    pub(super) fn ready(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        kept: Vec<OwnedFd>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut messages = to_be_kept(kept);
        messages.push_back(Message::text("READY=1\n"));
        self.say(reactor, messages)
    }

    /// Other listeners are open now: `kept` are to be kept, and no others.
    pub(super) fn keep_instead(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        kept: Vec<OwnedFd>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut messages = to_be_kept(kept);
        messages.push_front(Message::text(FORGET));
        self.say(reactor, messages)
    }

    /// Has the manager close the listening sockets that it keeps, as soon as it hears of it.
    pub(super) fn release(&self) {
        // One that does not hear keeps them, and the address is found in use.
        let _ = self.send(&Message::text(FORGET));
    }

    /// The drain has begun; it may take `drain_timeout`, however short the manager's own patience is.
    pub(super) fn stopping(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        drain_timeout: Duration,
    ) -> Option<impl Future<Output = ()> + use<>> {
        /// For cutting what is left and writing the last lines of the log.
        const MARGIN: Duration = Duration::from_secs(5);
        let patience = drain_timeout.saturating_add(MARGIN).as_micros();
        let text = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={patience}\n");
        self.say(reactor, VecDeque::from([Message::text(text)]))
    }

    /// Gives a sign of life from the loop that moves the data, so that a loop that hangs is noticed; `None` if no manager waits
    /// for one (`WATCHDOG_USEC`).
    pub(super) fn signs_of_life(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let patience = watchdog().filter(|_| self.is_there())?;
        let (manager, reactor) = (self.clone(), reactor.clone());
        Some(async move {
            let alive = Message::text("WATCHDOG=1\n");
            loop {
                // What does not get through is dropped: the next one says the same.
                let _ = manager.send(&alive);
                // A third, so that there is a second chance.
                reactor.sleep(patience / 3).await;
            }
        })
    }

    /// Has the manager close the listening sockets that it keeps, and waits until it has, or for some seconds. For the start:
    /// their addresses may be needed.
    pub(super) fn forget(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let until = Instant::now() + PATIENCE;
        let Ok((reading, writing)) = pipe_with(PipeFlags::CLOEXEC) else {
            return;
        };
        let messages = [
            Message::text(FORGET),
            // The manager closes it when it has done everything that it was told before.
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

    /// Says all of it, now as far as possible, the rest in the future that is returned.
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

    /// Sends what the manager takes; true if nothing is left to be sent.
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
                    Errno::AGAIN => "it does not read".to_owned(),
                    error => error.to_string(),
                };
                log::warn!("the service manager cannot be told {text}: {why}");
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
            // An abstract name is written with an @ for its leading zero.
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
        // To the address each time: a manager that was started anew has another socket there.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg_addr(&self.socket, &self.address, &text, &mut control, flags).map(drop)
    }
}

/// The interval within which the manager wants a sign of life of this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let is_ours = std::env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID").and_then(|pid| i32::try_from(pid).ok()) == Some(own);
    let patience = Duration::from_micros(number("WATCHDOG_USEC")?);
    (is_ours && !patience.is_zero()).then_some(patience)
}
