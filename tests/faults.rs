//! Every system call of the running program fails with every error that it can plausibly return:
//! once and repeatedly, at startup and under mixed traffic. No byte is lost silently, and after the
//! fault everything works as before.
//!
//! The default is a small sample. CORACLE_FAULTS selects another: a number of cases, `all`, or
//! comma-separated cases by name, as a failure prints them (`epoll_ctl:ENOMEM:when=3`,
//! `start:mmap:ENOMEM:when=1+`).

#![allow(clippy::unwrap_used)]

#[path = "support/faults/mod.rs"]
mod faults;
mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use faults::case::{self, Case, Counts, Phase};
use faults::server::Violations;
use faults::subject::{Descriptors, Subject};
use faults::table::{self, EXCEPTIONS};
use faults::tracer::{self, Tracer};
use faults::traffic::{self, Amount};
use support::metrics::Metrics;
use support::rng::{self, Rng};
use support::until;

/// How many cases are tried by default.
const SAMPLE: usize = 32;
/// Concurrent cases: most of their time is waiting.
const AT_ONCE: usize = 4;
/// How long a lasting fault lasts.
const LASTING: Duration = Duration::from_secs(2);

#[test]
fn every_fault_is_survived_without_lasting_effect() {
    if !can_attach() {
        return;
    }
    let mut rng = rng::from_env();
    let seed = rng.u64(..);
    let asked = std::env::var("CORACLE_FAULTS").unwrap_or_else(|_| SAMPLE.to_string());
    let cases: Vec<Case> = match (asked.as_str(), asked.parse()) {
        ("all", _) => case::all(&profile(&mut rng), &mut rng),
        (_, Ok(n)) => case::sample(case::all(&profile(&mut rng), &mut rng), n, &mut rng),
        (named, _) => named.split(',').map(|case| case.parse().unwrap()).collect(),
    };
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::<&str, usize>::new());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = attempt(case, seed);
                    let word = match &outcome {
                        Ok(outcome) => outcome.word(),
                        Err(_) => "FAILED",
                    };
                    println!("{case}: {word}");
                    *outcomes.lock().unwrap().entry(word).or_default() += 1;
                    if let Err(why) = outcome {
                        println!("{why}");
                        failures.lock().unwrap().push((case.to_string(), why));
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{} cases: {outcomes:?}", cases.len());
    let failures = failures.into_inner().unwrap();
    let names: Vec<_> = failures.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed; the first: {}\nRerun: CORACLE_FAULTS={:?} CORACLE_SEED=(as above) cargo test --test faults",
        failures.len(),
        cases.len(),
        failures[0].1,
        names.join(",")
    );
    let not_called = outcomes.get(Outcome::NotCalled.word()).copied();
    assert!(
        not_called.unwrap_or(0) * 4 <= cases.len(),
        "the call was not made in too many cases: {outcomes:?}"
    );
}

/// ARCHITECTURE.md lists what cannot be survived: exactly what is tolerated here.
#[test]
fn fatal_faults_are_documented() {
    let text = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    let (_, rest) = text
        .split_once("| call | error | when | why |\n|---|---|---|---|\n")
        .expect("the table of fatal faults");
    let documented: Vec<String> = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect();
    let in_code = EXCEPTIONS.iter().map(|exception| {
        let when = match exception.phase {
            Phase::Start => "at the start",
            Phase::Running => "while it runs",
        };
        let (call, error, why) = (exception.call, exception.error, exception.why);
        format!("| `{call}` | {error} | {when} | {why} |")
    });
    assert_eq!(documented, in_code.collect::<Vec<_>>());
}

/// How a case that has not failed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Survived,
    /// It ended at startup with exit code 1 and one line.
    Refused,
    /// It ended, as it may in this case.
    Excepted,
    NotCalled,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Survived => "survived",
            Self::Refused => "refused to start",
            Self::Excepted => "ended, an exception",
            Self::NotCalled => "not called",
        }
    }
}

/// Tries a case; if the call was not made that often, at its first.
fn attempt(case: &Case, seed: u64) -> Result<Outcome, String> {
    let caught = |case: &Case| {
        catch_unwind(AssertUnwindSafe(|| run(case, seed))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.unwrap_or_else(|| "a panic of the test".into()))
        })
    };
    match caught(case)? {
        Outcome::NotCalled if !case.lasts() && case.when != "1" => caught(&case.first()),
        outcome => Ok(outcome),
    }
}

fn run(case: &Case, seed: u64) -> Result<Outcome, String> {
    let mut rng = Rng::with_seed(seed);
    let violations = Violations::default();
    let mut subject = Subject::start(&violations, &mut rng);
    let outcome = faulted(case, &mut subject, &mut rng, &violations);
    let log = match subject.ended() {
        Some(_) => subject.last_words(),
        None => subject.log(),
    };
    let mut wrong = violations.all();
    let is_excepted = matches!(outcome, Ok(Outcome::Excepted));
    if let Some(line) = log.iter().find(|line| line.contains("panic"))
        && !is_excepted
    {
        wrong.push(format!("it panicked: {line}"));
    }
    if is_excepted {
        // The kernel closes what an aborted process leaves, which may look like EOF.
        wrong.retain(|what| !what.contains("a clean end"));
    }
    match outcome {
        Ok(outcome) if wrong.is_empty() => return Ok(outcome),
        Ok(_) => {}
        Err(why) => wrong.push(why),
    }
    wrong.truncate(10);
    let last = &log[log.len().saturating_sub(15)..];
    Err(format!("{case}: {}\nlog: {last:#?}", wrong.join("\n")))
}

/// Causes the fault and checks that it is survived.
fn faulted(
    case: &Case,
    subject: &mut Subject,
    rng: &mut Rng,
    violations: &Violations,
) -> Result<Outcome, String> {
    let targets = subject.targets.clone();
    let (before, trace) = match case.phase {
        Phase::Start => {
            let tracer = Tracer::inject(subject.pid(), case);
            subject.configure();
            let trace = under_fault(case, tracer, subject, rng, violations);
            // What the fault has not ended serves, or ends, afterwards.
            until("it serves, or ends", || {
                serves_or_ended(subject).then_some(())
            });
            (None, trace)
        }
        Phase::Running => {
            subject.configure();
            let before = warmed_up(subject, rng, violations)?;
            let held = traffic::hold(&targets, rng);
            let tracer = Tracer::inject(subject.pid(), case);
            let trace = under_fault(case, tracer, subject, rng, violations);
            held.probe(violations);
            (Some(before), trace)
        }
    };
    if let Some(status) = subject.ended() {
        let log = subject.last_words();
        let is_said = |what| log.iter().any(|line| line.contains(what));
        if case
            .exception()
            .is_some_and(|exception| exception.says.iter().any(is_said))
        {
            return Ok(Outcome::Excepted);
        }
        if case.phase == Phase::Running {
            return Err(format!("it ended: {status}"));
        }
        return refused(subject, status.code()).map(|()| Outcome::Refused);
    }
    works_as_before(subject, before, rng, violations)?;
    match tracer::injected(&trace) {
        0 => Ok(Outcome::NotCalled),
        _ => Ok(Outcome::Survived),
    }
}

/// Runs traffic until the fault has occurred, or for as long as it lasts. Returns the trace.
fn under_fault(
    case: &Case,
    tracer: Tracer,
    subject: &mut Subject,
    rng: &mut Rng,
    violations: &Violations,
) -> String {
    let targets = subject.targets.clone();
    if case.lasts() {
        let over = AtomicBool::new(false);
        let began = Instant::now();
        return thread::scope(|scope| {
            scope.spawn(|| traffic::run(&targets, Amount::Until(&over), rng, violations));
            while began.elapsed() < LASTING && subject.ended().is_none() {
                thread::sleep(Duration::from_millis(5));
            }
            let trace = tracer.detach();
            over.store(true, Ordering::Relaxed);
            trace
        });
    }
    match case.phase {
        Phase::Start => first_steps(subject, rng, violations),
        Phase::Running => drop(traffic::run(&targets, Amount::Fixed, rng, violations)),
    }
    tracer.detach()
}

/// Waits until it serves, and sends a request to each entrypoint; the response does not matter yet.
fn first_steps(subject: &mut Subject, rng: &mut Rng, violations: &Violations) {
    until("it serves, or ends", || {
        serves_or_ended(subject).then_some(())
    });
    for address in &subject.targets.served {
        if let Err(what) = traffic::exchange(*address, rng) {
            violations.note(format!("a client saw: {what}"));
        }
    }
}

fn serves_or_ended(subject: &mut Subject) -> bool {
    subject.ended().is_some() || traffic::get(subject.targets.admin, "/healthz").is_ok()
}

/// Whether the failed startup is exit code 1 and one clear line.
fn refused(subject: &Subject, code: Option<i32>) -> Result<(), String> {
    let log = subject.last_words();
    let said: Vec<_> = log
        .iter()
        .filter(|line| !line.starts_with("time="))
        .collect();
    match (code, &said[..]) {
        (Some(1), [line]) => {
            println!("{line}");
            Ok(())
        }
        _ => Err(format!(
            "it exited at startup with code {code:?} and output {said:?}"
        )),
    }
}

/// Makes every kind of connection once. Returns the descriptors that stay.
fn warmed_up(
    subject: &mut Subject,
    rng: &mut Rng,
    violations: &Violations,
) -> Result<Descriptors, String> {
    until("it serves", || {
        assert!(
            subject.ended().is_none(),
            "it did not start: {:?}",
            subject.log()
        );
        traffic::get(subject.targets.admin, "/healthz").ok()
    });
    serves(subject, rng)?;
    // The first long stream opens pipes, so that something is left to fail.
    traffic::run(&subject.targets, Amount::WithoutLong, rng, violations);
    settled(subject)
}

/// Everything that must hold after a fault.
fn works_as_before(
    subject: &mut Subject,
    before: Option<Descriptors>,
    rng: &mut Rng,
    violations: &Violations,
) -> Result<(), String> {
    serves(subject, rng)?;
    let before = match before {
        Some(before) => before,
        None => settled(subject)?,
    };
    let tally = traffic::run(&subject.targets, Amount::Fixed, rng, violations);
    let broken = tally.broken.into_inner();
    if broken > 0 {
        return Err(format!(
            "{broken} connections broke after the fault: {tally:?}",
            tally = tally.intact
        ));
    }
    if tally.scrapes.into_inner() == 0 {
        return Err("no scrape was answered after the fault".into());
    }
    let mut after = Descriptors::new();
    let restored = catch_unwind(AssertUnwindSafe(|| {
        until("the descriptors are as before", || {
            after = subject.descriptors();
            same(&before, &after).then_some(())
        });
    }));
    if restored.is_err() {
        return Err(format!("descriptors before: {before:?}, after: {after:?}"));
    }
    settled(subject)?;
    subject.rests();
    let status = subject.stop();
    if !status.success() {
        return Err(format!("asked to stop, it ended with {status}"));
    }
    if subject.targets.unix.exists() {
        return Err("the Unix socket's file was left behind".into());
    }
    Ok(())
}

/// Waits until each entrypoint serves a new connection.
fn serves(subject: &mut Subject, rng: &mut Rng) -> Result<(), String> {
    let targets = subject.targets.clone();
    for address in &targets.served {
        let mut last = Ok(false);
        let served = catch_unwind(AssertUnwindSafe(|| {
            until("a new connection is served", || {
                last = traffic::exchange(*address, rng);
                let ended = subject.ended().is_some();
                (ended || last != Ok(false)).then_some(())
            });
        }));
        match last {
            Ok(true) if served.is_ok() => {}
            _ => {
                let status = subject.ended();
                return Err(format!(
                    "no new connection is served at {address}: {last:?}, {status:?}"
                ));
            }
        }
    }
    match until("a new connection over the Unix socket", || {
        Some(traffic::exchange_unix(&targets, rng)).filter(|served| *served != Ok(false))
    }) {
        Err(what) => Err(what),
        Ok(_) => Ok(()),
    }
}

/// Waits until nothing is open and the kernel agrees. Returns the descriptors at that point.
fn settled(subject: &Subject) -> Result<Descriptors, String> {
    let admin = subject.targets.admin;
    let mut last = String::new();
    let wait = catch_unwind(AssertUnwindSafe(|| {
        until("nothing is open and the kernel agrees", || {
            let (status, body) = traffic::get(admin, "/metrics").ok()?;
            last = body;
            if status != 200 {
                return None;
            }
            let metrics = traffic::scraped(&Metrics::default(), &last).unwrap();
            let mut mismatches = metrics.series("coracle_connection_mismatch").peekable();
            let agrees = mismatches.peek().is_some() && mismatches.all(|(_, n)| n == 0.0);
            let is_empty = metrics.sum("coracle_open_connections") == 0.0
                && metrics.sum("coracle_service_open_connections") == 0.0;
            (agrees && is_empty).then_some(())
        });
        assert_eq!(traffic::get(admin, "/healthz").unwrap().0, 200);
        until("the admin clients are gone", || {
            (support::kernel::connections(admin) == 0).then_some(())
        });
    }));
    match wait {
        Ok(()) => Ok(steady_descriptors(subject)),
        Err(_) => {
            let is_told = |line: &&str| {
                line.starts_with("coracle_open") || line.starts_with("coracle_connection_mismatch")
            };
            let told: Vec<_> = last.lines().filter(is_told).collect();
            Err(format!("it did not settle: {told:#?}"))
        }
    }
}

/// Checks that no descriptor was lost or leaked. Pipes of long streams come and go, within their
/// limit.
fn same(before: &Descriptors, after: &Descriptors) -> bool {
    /// Eight pipes of two ends, and standard error.
    const PIPES: usize = 17;
    let but_pipes = |all: &Descriptors| {
        let mut all = all.clone();
        all.remove("pipe");
        // If getrandom fails, std opens this once and keeps it.
        all.remove("/dev/urandom");
        all
    };
    but_pipes(before) == but_pipes(after) && after.get("pipe").is_none_or(|&n| n <= PIPES)
}

/// Counts the calls of a run without faults. Fails on a call that the table does not know.
fn profile(rng: &mut Rng) -> BTreeMap<Phase, Counts> {
    let violations = Violations::default();
    let mut subject = Subject::start(&violations, rng);
    let tracer = Tracer::watch(subject.pid());
    subject.configure();
    first_steps(&mut subject, rng, &violations);
    let start = tracer::counts(&tracer.detach());
    warmed_up(&mut subject, rng, &violations).unwrap();
    let held = traffic::hold(&subject.targets, rng);
    let tracer = Tracer::watch(subject.pid());
    traffic::run(&subject.targets, Amount::Fixed, rng, &violations);
    let running = tracer::counts(&tracer.detach());
    held.probe(&violations);
    works_as_before(&mut subject, None, rng, &violations).unwrap();
    assert!(violations.all().is_empty(), "{:?}", violations.all());
    println!("calls at the start: {start:?}\ncalls while it runs: {running:?}");
    let unknown: Vec<_> = start
        .keys()
        .chain(running.keys())
        .filter(|name| table::call_named(name).is_none() && !table::is_left_out(name))
        .collect();
    assert!(
        unknown.is_empty(),
        "calls that are not in the table (tests/support/faults/table.rs): {unknown:?}"
    );
    BTreeMap::from([(Phase::Start, start), (Phase::Running, running)])
}

/// A container may forbid tracing, and a system may restrict it to parents.
fn can_attach() -> bool {
    if !support::has_tool("strace") {
        return false;
    }
    let mut tracee = Command::new("sleep").arg("60").spawn().unwrap();
    let tried = Command::new("timeout")
        .args(["-s", "INT", "0.1", "strace", "-o", "/dev/null", "-p"])
        .arg(tracee.id().to_string())
        .output()
        .unwrap();
    let _ = tracee.kill();
    let _ = tracee.wait();
    let refused = String::from_utf8_lossy(&tried.stderr).contains("ptrace");
    if refused {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "strace may not attach to a process here");
        eprintln!("skipped: strace may not attach to a process here");
    }
    !refused
}

/// Returns its descriptors once ten looks in a row have found the same: what a client has left behind
/// may still be closing.
fn steady_descriptors(subject: &Subject) -> Descriptors {
    let mut seen = subject.descriptors();
    let mut looks = 0;
    until("its descriptors stay the same", || {
        let now = subject.descriptors();
        looks = if same(&now, &seen) { looks + 1 } else { 0 };
        seen = now;
        (looks >= 10).then_some(())
    });
    seen
}
