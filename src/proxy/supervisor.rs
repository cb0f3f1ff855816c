//! The task that owns everything running and takes commands: reload, kill, drain, stop.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use smol::Task;
use smol::channel::Receiver;
use smol::future::FutureExt;

use super::accounting::Accounting;
use super::admin::{Admin, Configured};
use super::bind::BindError;
use super::capacity::Capacity;
use super::checks::Checks;
use super::commands::{Command, Commander, ConfigSource, End, Reloaded};
use super::ground::Ground;
use super::hand_over::HandOver;
use super::pacing::Pacing;
use super::running::{Removed, Running};
use super::{by_hand, ceiling, checks, history, kill, log_level, sweep, watch};
use crate::config::{Changes, Config, Diagnostic, Location, OnRemoved};
use crate::logging;
use crate::state::{CloseReason, Pauses, Shared};

/// Owns everything that runs.
pub(super) struct Supervisor {
    pub(super) ground: Ground,
    pub(super) running: Running,
    pub(super) admin: Admin,
    pub(super) source: Option<Box<dyn ConfigSource>>,
    /// For tasks that send commands.
    pub(super) commander: Commander,
    pub(super) commands: Receiver<Command>,
    pub(super) tasks: Tasks,
    pub(super) accounting: Accounting,
    pub(super) pacing: Pacing,
}

/// The tasks besides the accept loops. Dropping one ends it.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pauses: Rc<RefCell<Pauses>>,
    /// The sweeping task and its tick.
    sweeping: Option<(Duration, Task<()>)>,
    /// The task that keeps the program below its memory ceiling, and that ceiling.
    ceiling: Option<(u64, Task<()>)>,
    /// The task that watches files, and which ones.
    watching: Option<(Vec<PathBuf>, Task<()>)>,
    looking_up: Option<Task<()>>,
    checks: Checks,
    /// Records the last hour.
    recording: Option<Task<()>>,
    /// Sends the service manager what it has not received yet.
    pub(super) telling: Option<Task<()>>,
    /// Sends it watchdog notifications.
    living: Option<Task<()>>,
    /// Each of these ends the connections of a removed entrypoint.
    ending: Vec<Task<()>>,
}

/// What happens next.
enum Event {
    Command(Command),
    /// Names have other addresses.
    Resolved(u64),
}

impl Supervisor {
    /// Obeys commands until one of them ends the program. Returns itself, to be drained, and how to
    /// end.
    ///
    /// # Errors
    /// Returns an error if open files or memory leave no room for a single connection.
    pub(super) async fn run(mut self) -> Result<(Self, End), BindError> {
        self.start()?;
        let mut seen = 0;
        loop {
            let names = self.ground.names.clone();
            let command = async { Event::Command(self.next_command().await) };
            let resolved = async { Event::Resolved(names.changed(seen).await) };
            match command.or(resolved).await {
                Event::Command(command) => {
                    if let Some(end) = self.obey(command).await {
                        return Ok((self, end));
                    }
                }
                Event::Resolved(now) => {
                    seen = now;
                    self.resolve();
                }
            }
        }
    }

    /// Starts everything that depends on the capacity.
    fn start(&mut self) -> Result<(), BindError> {
        let ground = self.ground.clone();
        let capacity = Capacity::of_this_process(self.running.config.limits)?;
        ground.reactor.limit_pipes(capacity.pipes);
        ground.reactor.limit_memory(capacity.limits);
        // Only now, so that it takes no descriptor before we know that there are enough.
        self.admin.start(&ground)?;
        let configured = self.running.config.accounting.as_ref();
        let next = self.accounting.prepare(configured)?;
        self.accounting.adopt(&ground, configured, next);
        self.pacing.adopt(&ground, &self.running.config);
        let more = self.admin.control_clients() + self.checks_at_once(capacity.open_files);
        let capacity = capacity.with_more_open(more as isize);
        ground.capacity.set(capacity);
        ground.shared.conns.offer_places();
        self.running.listeners.limit(&capacity);
        self.tasks.follow(&ground, &self.running);
        self.tasks.record(&ground, self.admin.is_serving());
        self.watch();
        log::info!(
            connections_at_most = capacity.connections, by = capacity.by.name(),
            memory_limit = capacity.memory_text().as_str(), open_files = capacity.open_files; "ready");
        let kept = self.running.listeners.kept();
        let telling = ground.manager.ready(&ground.reactor, kept);
        self.tasks.telling = telling.map(|rest| ground.spawn(rest));
        let living = ground.manager.signs_of_life(&ground.reactor);
        self.tasks.living = living.map(|living| ground.spawn(living));
        Ok(())
    }

    /// Waits for the next command.
    pub(super) async fn next_command(&self) -> Command {
        match self.commands.recv().await {
            Ok(command) => command,
            // Impossible: this task has a sender itself.
            Err(_) => std::future::pending().await,
        }
    }

    /// Obeys a command. Returns how to end, if the command says so.
    async fn obey(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Reload { by, answer } => {
                let reloaded = self.reload(by).await;
                if let Some(answer) = answer {
                    // The receiver may be gone.
                    let _ = answer.try_send(reloaded);
                }
            }
            Command::DryRun { text, answer } => {
                let _ = answer.try_send(self.dry_run(text));
            }
            Command::Server {
                service,
                server,
                state,
                by,
                answer,
            } => {
                let (ground, running) = (&self.ground, &self.running);
                let ordered = by_hand::order(ground, running, &service, &server, state, by);
                let _ = answer.try_send(ordered);
            }
            Command::Kill {
                which,
                is_dry_run,
                by,
                answer,
            } => {
                let killed = kill::obey(&self.ground, &which, is_dry_run, by).await;
                let _ = answer.try_send(killed);
            }
            Command::LogLevel { level, by, answer } => {
                let _ =
                    answer.try_send(Ok(log_level::obey(&self.ground, &self.running, level, by)));
            }
            Command::Drain { by, answer } => {
                let is_now = false;
                return Some(End { by, is_now, answer });
            }
            Command::Stop { by, answer } => {
                let is_now = true;
                return Some(End { by, is_now, answer });
            }
        }
        None
    }

    fn source(&self) -> Result<&dyn ConfigSource, String> {
        let without = "coracle: no configuration to reload: started without a file".to_owned();
        let source = self.source.as_deref().filter(|it| it.file().is_some());
        source.ok_or(without)
    }

    fn dry_run(&self, text: Option<(String, String)>) -> Reloaded {
        let source = self.source()?;
        match text {
            // It may be for another machine, which has the token.
            Some((name, text)) => Ok(self.changes(&source.parse(&name, &text)?, None)),
            None => {
                let config = source.load()?;
                let admin = read_token(&config)?;
                Ok(self.changes(&config, Some(&admin)))
            }
        }
    }

    fn changes(&self, config: &Config, admin: Option<&Configured>) -> String {
        let mut changes = Changes::between(&self.running.config, config).to_string();
        if let Some(change) = admin.and_then(|admin| self.admin.change(admin)) {
            let end = if changes.is_empty() { "" } else { "\n" };
            changes = format!("{changes}{end}{change}");
        }
        changes
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
                // It may name a file that is not there yet.
                self.watch();
                let why = why.strip_prefix("coracle: ").unwrap_or(why);
                // If there is nothing to read, no reload has failed.
                if self.source().is_ok() {
                    self.ground.shared.config_loads.failed(why);
                }
                for line in why.lines().filter(|line| is_for_the_log(line)) {
                    log::error!(target: "setup", by; "not reloaded: {line}");
                }
            }
        }
        reloaded
    }

    async fn bring_into_force(&mut self, config: Config) -> Reloaded {
        let admin = read_token(&config)?;
        let changes = self.changes(&config, Some(&admin));
        let drain_timeout = config.drain_timeout;
        let before = self.running.listeners.numbers();
        let checks_before = self.checks_now();
        let accounting = self.accounting.prepare(config.accounting.as_ref());
        let accounting = accounting.map_err(|why| format!("coracle: {why}"))?;
        let admin = self.admin.prepare(&self.ground, admin).await;
        let admin = admin.map_err(|why| format!("coracle: {why}"))?;
        let removed = self
            .running
            .apply(&self.ground, config, HandOver::default())
            .await;
        let removed = match removed {
            Ok(removed) => removed,
            Err(why) => {
                drop(admin);
                self.admin.restore(&self.ground).await;
                // Listeners that were closed and reopened must be kept again.
                self.listeners_have_changed(0);
                return Err(format!("coracle: {why}"));
            }
        };
        if let Some(admin) = admin {
            self.admin.commit(admin);
        }
        self.tasks.ending.retain(|task| !task.is_finished());
        for it in removed {
            self.end_removed(it, drain_timeout);
        }
        let now = self.running.listeners.numbers();
        self.checks_have_changed(checks_before);
        let capacity = self.ground.capacity.get();
        let limited = capacity.within(self.running.config.limits);
        self.ground.capacity.set(limited);
        self.ground.reactor.limit_pipes(limited.pipes);
        self.ground.reactor.limit_memory(limited.limits);
        if now != before || limited != capacity {
            self.listeners_have_changed(now.len() as isize - before.len() as isize);
        }
        let config = &self.running.config;
        let configured = config.accounting.as_ref();
        self.accounting.adopt(&self.ground, configured, accounting);
        self.pacing.adopt(&self.ground, config);
        logging::set(config.log.level, config.log.access);
        adopt(&self.ground.shared, config);
        self.tasks.follow(&self.ground, &self.running);
        self.tasks.record(&self.ground, self.admin.is_serving());
        self.ground.shared.registry.forget_dead();
        self.watch();
        let loads = &self.ground.shared.config_loads;
        loads.succeeded(SystemTime::now(), &changes);
        Ok(changes)
    }

    /// Returns how many descriptors the health checks may have at once.
    fn checks_at_once(&self, open_files: usize) -> usize {
        let running = &self.running;
        checks::at_once(&running.config, running.targets(), open_files)
    }

    fn checks_now(&self) -> usize {
        self.checks_at_once(self.ground.capacity.get().open_files)
    }

    /// Adapts the capacity to the checks, of which there were as many as `before` at once.
    fn checks_have_changed(&self, before: usize) {
        let more = self.checks_now() as isize - before as isize;
        if more != 0 {
            self.more_is_open(more);
        }
    }

    /// Adapts the servers to names that have other addresses.
    fn resolve(&mut self) {
        let checks_before = self.checks_now();
        if self.running.resolve(&self.ground) {
            self.checks_have_changed(checks_before);
            self.tasks.follow(&self.ground, &self.running);
        }
    }

    /// Adapts the capacity to `more` descriptors that are or may be open.
    fn more_is_open(&self, more: isize) {
        let ground = &self.ground;
        let capacity = ground.capacity.get().with_more_open(more);
        ground.capacity.set(capacity);
        ground.shared.conns.offer_places();
        self.running.listeners.limit(&capacity);
    }

    /// Adapts the capacity and the kept sockets to changed listeners, of which there are `more`.
    fn listeners_have_changed(&mut self, more: isize) {
        self.more_is_open(more);
        let ground = &self.ground;
        let kept = self.running.listeners.kept();
        let telling = ground.manager.keep_instead(&ground.reactor, kept);
        self.tasks.telling = telling.map(|rest| ground.spawn(rest));
    }

    /// Starts or stops watching the files of the configuration.
    fn watch(&mut self) {
        let source = self.source.as_ref().filter(|it| it.file().is_some());
        let seen = source.map(|source| source.seen());
        let Some(seen) = seen.filter(|_| self.running.config.watch) else {
            self.tasks.watching = None;
            return;
        };
        let files: Vec<_> = seen.iter().map(|it| it.file.clone()).collect();
        if self
            .tasks
            .watching
            .as_ref()
            .is_some_and(|(watched, _)| *watched == files)
        {
            return;
        }
        let (reactor, commander) = (self.ground.reactor.clone(), self.commander.clone());
        let watching = watch::watch(reactor, seen, commander);
        self.tasks.watching = Some((files, self.ground.spawn(watching)));
    }

    /// Ends the connections of a removed entrypoint as its configuration says.
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
        // Only connections open now: the entrypoint may be added again meanwhile, with connections
        // that must stay.
        let ids = entrypoint.open.ids();
        drop(entrypoint);
        let ground = self.ground.clone();
        self.tasks.ending.push(self.ground.spawn(async move {
            ground.reactor.sleep(after).await;
            kill::end_each(&ground, &ids, CloseReason::Removed).await;
        }));
    }
}

fn read_token(config: &Config) -> Result<Configured, String> {
    Configured::read(config).map_err(|why| format!("coracle: {why}"))
}

impl Tasks {
    /// Starts, replaces or stops the task that keeps the memory below `most` bytes.
    fn keep_below(&mut self, ground: &Ground, most: Option<u64>) {
        if self.ceiling.as_ref().map(|(most, _)| *most) == most {
            return;
        }
        // Ended first, so that it does not act again.
        if self.ceiling.take().is_some() {
            ceiling::lift(ground);
        }
        self.ceiling = most.map(|most| {
            (
                most,
                ground.spawn(ceiling::keep_below(ground.clone(), most)),
            )
        });
    }

    /// Records the last hour if `is_wanted`.
    fn record(&mut self, ground: &Ground, is_wanted: bool) {
        if !is_wanted {
            self.recording = None;
        } else if self.recording.is_none() {
            let recording = history::record(ground.reactor.clone(), ground.shared.clone());
            self.recording = Some(ground.spawn(recording));
        }
    }

    /// Starts and stops tasks as the configuration in force requires.
    fn follow(&mut self, ground: &Ground, running: &Running) {
        let reactor = &ground.reactor;
        if self.looking_up.is_none() && !ground.names.is_empty() {
            let looking_up = ground.names.clone().keep_fresh(reactor.clone());
            self.looking_up = Some(ground.spawn(looking_up));
        }
        self.keep_below(ground, running.config.limits.memory);
        let tick = sweep::tick(&ground.shared);
        // A task whose tick is unchanged keeps running. Otherwise frequent reloads would keep it
        // from ever sweeping.
        if self.sweeping.as_ref().map(|(tick, _)| *tick) != tick {
            self.sweeping = tick.map(|tick| {
                let (shared, pauses) = (ground.shared.clone(), self.pauses.clone());
                let sweeping = sweep::sweep(reactor.clone(), shared, pauses, tick);
                (tick, ground.spawn(sweeping))
            });
        }
        self.checks
            .follow(ground, &running.config, running.targets());
    }
}

/// Returns whether a line of a report belongs in the log. The lines that show the place in the file
/// or the number of errors do not, because each log line names its place.
fn is_for_the_log(line: &str) -> bool {
    let line = line.trim_start();
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_sum = rest != line && matches!(rest, " error" | " errors");
    !rest.is_empty() && !rest.trim_start().starts_with('|') && !is_sum
}

/// Applies the configuration in force to the shared state.
pub(super) fn adopt(shared: &Shared, config: &Config) {
    shared.traefik_names.set(config.metrics.traefik);
    log_level::tell_leaving(shared, config.log);
}

/// Logs warnings about what a configuration may say but probably does not mean.
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
