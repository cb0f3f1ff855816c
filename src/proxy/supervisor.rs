//! The one task that owns what runs, and takes commands: reload, drain, stop.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use smol::Task;
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::stream::{Stream, StreamExt};

use super::bind::BindError;
use super::capacity::Capacity;
use super::commands::{Command, Commander, Reloaded, Source};
use super::ground::Ground;
use super::hand_over::HandOver;
use super::running::{Removed, Running};
use super::{sweep, watch};
use crate::config::{Changes, Config, Diagnostic, Location, OnRemoved};
use crate::state::{CloseReason, Left, Pauses, Shared};
use crate::{admin, conn, logging};

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended by themselves after the request to stop.
    pub ended: usize,
    /// Connections that were cut.
    pub cut: usize,
}

/// What it owns.
pub(super) struct Supervisor {
    pub(super) ground: Ground,
    pub(super) running: Running,
    pub(super) admin: Option<admin::Endpoint>,
    pub(super) source: Option<Box<dyn Source>>,
    /// For the tasks that command.
    pub(super) commander: Commander,
    pub(super) commands: Receiver<Command>,
    pub(super) tasks: Tasks,
}

/// The tasks beside the accept loops. Dropping one ends it.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pauses: Rc<RefCell<Pauses>>,
    sweeping: Option<Task<()>>,
    watching: Option<Task<()>>,
    looking_up: Option<Task<()>>,
    /// Tells the service manager what it has not heard yet.
    telling: Option<Task<()>>,
    /// Tells it that the loop lives.
    living: Option<Task<()>>,
    /// Answers the admin endpoint.
    answering: Option<Task<()>>,
    /// Each ends the connections of an entrypoint that was removed.
    ending: Vec<Task<()>>,
}

/// What happens next.
enum Event {
    Stop(Option<&'static str>),
    Command(Command),
}

impl Supervisor {
    /// Runs until `stops` yields or ends, and then drains.
    ///
    /// # Errors
    /// When open files or memory leave no room for a single connection.
    pub(super) async fn run(
        mut self,
        mut stops: impl Stream<Item = &'static str> + Unpin,
    ) -> Result<Drained, BindError> {
        let _admin = self.start()?;
        let signal = loop {
            let stop = async { Event::Stop(stops.next().await) };
            let command = async {
                match self.commands.recv().await {
                    Ok(command) => Event::Command(command),
                    // Whoever could command has gone.
                    Err(_) => std::future::pending().await,
                }
            };
            match stop.or(command).await {
                Event::Stop(signal) => break signal,
                Event::Command(command) => self.obey(command).await,
            }
        };
        Ok(self.drain(signal, stops).await)
    }

    /// Starts what has to know how much room there is.
    fn start(&mut self) -> Result<Option<admin::Handle>, BindError> {
        let ground = self.ground.clone();
        let capacity = Capacity::of_this_process()?;
        ground.reactor.limit_pipes(capacity.pipes);
        ground.reactor.limit_memory(capacity.limits);
        // Only now, so that it asks for no descriptor before it is known whether there are enough.
        let admin = self.admin.take().map(admin::Endpoint::start).transpose();
        let admin = admin.map_err(|error| BindError::thread("admin", &error))?;
        let admin = admin.map(|(handle, answers)| {
            let answering = ground.executor.spawn(answers.answer(ground.shared.clone()));
            self.tasks.answering = Some(answering);
            handle
        });
        ground.capacity.set(capacity);
        self.running.listeners.limit(&capacity);
        self.tasks.follow(&ground);
        self.watch();
        log::info!(
            connections_at_most = capacity.connections, by = capacity.by.name(),
            memory_limit = capacity.memory_text().as_str(), open_files = capacity.open_files; "ready");
        let kept = self.running.listeners.kept();
        let telling = ground.manager.ready(&ground.reactor, kept);
        self.tasks.telling = telling.map(|rest| ground.executor.spawn(rest));
        let living = ground.manager.signs_of_life(&ground.reactor);
        self.tasks.living = living.map(|living| ground.executor.spawn(living));
        Ok(admin)
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Reload { by, answer } => {
                let reloaded = self.reload(by).await;
                if let Some(answer) = answer {
                    // Whoever asked may have gone.
                    let _ = answer.try_send(reloaded);
                }
            }
            Command::DryRun { text, answer } => {
                let _ = answer.try_send(self.dry_run(text));
            }
        }
    }

    fn source(&self) -> Result<&dyn Source, String> {
        let without = "coracle: there is no configuration to read anew: this coracle was started without a file".to_owned();
        let source = self.source.as_deref().filter(|it| it.file().is_some());
        source.ok_or(without)
    }

    fn dry_run(&self, text: Option<(String, String)>) -> Reloaded {
        let source = self.source()?;
        let config = match text {
            Some((name, text)) => source.parse(&name, &text)?,
            None => source.load()?,
        };
        Ok(self.changes(&config))
    }

    fn changes(&self, config: &Config) -> String {
        Changes::between(&self.running.config, config).to_string()
    }

    async fn reload(&mut self, by: &'static str) -> Reloaded {
        let loaded = self.source().and_then(|source| source.load());
        let reloaded = match loaded {
            Ok(config) => {
                log_warnings(&config);
                self.bring_into_force(config).await
            }
            Err(why) => Err(why),
        };
        match &reloaded {
            Ok(changes) if changes.is_empty() => {
                log::info!(target: "setup", by; "reloaded: nothing has changed")
            }
            Ok(changes) => {
                for change in changes.lines() {
                    log::info!(target: "setup", by; "reloaded: {change}");
                }
            }
            Err(why) => {
                self.ground.shared.config_loads.failed();
                for line in why.lines().filter(|line| is_for_the_log(line)) {
                    log::error!(target: "setup", by; "not reloaded: {line}");
                }
            }
        }
        reloaded
    }

    async fn bring_into_force(&mut self, config: Config) -> Reloaded {
        let changes = self.changes(&config);
        let drain_timeout = config.drain_timeout;
        let before = self.running.listeners.numbers();
        let removed = self
            .running
            .apply(&self.ground, config, HandOver::default())
            .await;
        let removed = removed.map_err(|why| format!("coracle: {why}"))?;
        self.tasks.ending.retain(|task| !task.is_finished());
        for it in removed {
            self.end_removed(it, drain_timeout);
        }
        let now = self.running.listeners.numbers();
        if now != before {
            self.listeners_have_changed(now.len() as isize - before.len() as isize);
        }
        let config = &self.running.config;
        adopt(&self.ground.shared, config);
        logging::set(config.log.level, config.log.access);
        self.tasks.follow(&self.ground);
        self.watch();
        self.ground.shared.config_loads.succeeded(SystemTime::now());
        Ok(changes)
    }

    /// Others are open, and so many more.
    fn listeners_have_changed(&mut self, more: isize) {
        let ground = &self.ground;
        let capacity = ground.capacity.get().with_more_open(more);
        ground.capacity.set(capacity);
        self.running.listeners.limit(&capacity);
        let kept = self.running.listeners.kept();
        let telling = ground.manager.keep_instead(&ground.reactor, kept);
        self.tasks.telling = telling.map(|rest| ground.executor.spawn(rest));
    }

    /// Watches the configuration's file, or no more.
    fn watch(&mut self) {
        let file = self.source.as_ref().and_then(|source| source.file());
        match file.filter(|_| self.running.config.watch) {
            None => self.tasks.watching = None,
            Some(_) if self.tasks.watching.is_some() => {}
            Some(file) => {
                let (reactor, commander) = (self.ground.reactor.clone(), self.commander.clone());
                let watching = watch::watch(reactor, file, commander);
                self.tasks.watching = Some(self.ground.executor.spawn(watching));
            }
        }
    }

    /// Does with the connections of an entrypoint that is gone what the configuration has said.
    fn end_removed(&mut self, removed: Removed, drain_timeout: Duration) {
        let Removed {
            entrypoint,
            configured,
        } = removed;
        let after = match configured.on_removed {
            OnRemoved::Keep => return,
            OnRemoved::Drain => drain_timeout,
            OnRemoved::Close => Duration::ZERO,
        };
        let ground = self.ground.clone();
        self.tasks
            .ending
            .push(self.ground.executor.spawn(async move {
                let late = ground.reactor.sleep(after);
                entrypoint.open.below(1).or(late).await;
                for id in entrypoint.open.ids() {
                    let now = ground.reactor.now();
                    ground.shared.conns.kill(id, CloseReason::Removed, now);
                }
            }));
    }

    /// Stops accepting, lets open connections end, and cuts what is left after `drain_timeout`, or when `stops` yields again.
    async fn drain(
        mut self,
        signal: Option<&'static str>,
        mut stops: impl Stream<Item = &'static str> + Unpin,
    ) -> Drained {
        let signal = signal.unwrap_or("the end of the signals");
        let (shared, reactor) = (&self.ground.shared, &self.ground.reactor);
        let drain_timeout = self.running.config.drain_timeout;
        shared.start_draining();
        // What has not been told by now is no longer so.
        let stopping = self.ground.manager.stopping(reactor, drain_timeout);
        self.tasks.telling = stopping.map(|rest| self.ground.executor.spawn(rest));
        self.running.listeners.retain(&Default::default()).await;
        let open = shared.conns.len();
        let limit = humantime::format_duration(drain_timeout);
        log::info!(signal, open, drain_timeout:% = limit; "draining; a second signal ends at once");
        let all_ended = shared.conns.below(1);
        let timed_out = reactor.sleep(drain_timeout);
        let told_again = async {
            if stops.next().await.is_none() {
                // Nobody can say it again; that is no second request.
                std::future::pending().await
            }
        };
        let refusing = async {
            while let Ok(command) = self.commands.recv().await {
                refuse(command);
            }
            std::future::pending().await
        };
        all_ended.or(timed_out).or(told_again).or(refusing).await;
        let cut = shared.conns.kill_all(CloseReason::Drain, reactor.now());
        shared.conns.below(1).await;
        let ended = open - cut;
        log::info!(ended, cut; "drained");
        Drained { ended, cut }
    }
}

impl Tasks {
    /// Starts and ends what the configuration in force asks for.
    fn follow(&mut self, ground: &Ground) {
        let (reactor, executor) = (&ground.reactor, &ground.executor);
        if self.looking_up.is_none() && !ground.names.is_empty() {
            let looking_up = ground.names.clone().keep_fresh(reactor.clone());
            self.looking_up = Some(executor.spawn(looking_up));
        }
        let (shared, pauses) = (ground.shared.clone(), self.pauses.clone());
        let sweeping = sweep::sweep(reactor.clone(), shared, pauses);
        self.sweeping = sweeping.map(|sweeping| executor.spawn(sweeping));
    }
}

/// Leaves out the lines of a report that show where in the file a mistake is: the log's lines name the place.
fn is_for_the_log(line: &str) -> bool {
    let line = line
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    !line.is_empty() && !line.trim_start().starts_with('|')
}

/// Has what is known to all follow the configuration in force.
pub(super) fn adopt(shared: &Shared, config: &Config) {
    shared.traefik_names.set(config.metrics.traefik);
    let access = config.log.access.then_some(conn::log_access as Left);
    shared.conns.tell_leaving(access);
}

/// Logs what a configuration says that is allowed, but probably not meant.
pub fn log_warnings(config: &Config) {
    let Some(warnings) = &config.warnings else {
        return;
    };
    for Diagnostic { location, message } in &warnings.told {
        match location {
            Some(Location { line, .. }) => {
                log::warn!(target: "setup", "{}:{line}: {message}", warnings.file);
            }
            None => log::warn!(target: "setup", "{}: {message}", warnings.file),
        }
    }
}

/// A proxy that drains takes no commands.
fn refuse(command: Command) {
    let why = "coracle: it drains, and takes no other configuration";
    let answer = match command {
        Command::Reload { by, answer } => {
            log::warn!(target: "setup", by; "not reloaded: it drains, and takes no other configuration");
            answer
        }
        Command::DryRun { answer, .. } => Some(answer),
    };
    if let Some(answer) = answer {
        let _ = answer.try_send(Err(why.to_owned()));
    }
}
