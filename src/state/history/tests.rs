#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::recorded::Sample;
use super::*;

/// An object as the model has it.
#[derive(Clone, Debug)]
struct Modelled {
    name: Arc<str>,
    open: u64,
    passed: Passed,
    /// What had passed at its last sample, or before the first one of all.
    before: Passed,
    /// By the number of the interval.
    samples: BTreeMap<u64, Sample>,
}

#[derive(Clone, Debug)]
enum Step {
    Add,
    Remove(usize),
    Pass {
        at: usize,
        open: u64,
        passed: Passed,
    },
    /// Time passes, and a sample is taken.
    Take {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || {
        prop_oneof![
            Just(0),
            0..200_u64,
            any::<u32>().prop_map(u64::from),
            any::<u64>()
        ]
    };
    let passed =
        (0..300_u64, number(), number()).prop_map(|(opened, to_server, to_client)| Passed {
            opened,
            bytes: [to_server, to_client],
        });
    let pass = (0..8_usize, number(), passed);
    let pass = pass.prop_map(|(at, open, passed)| Step::Pass { at, open, passed });
    let seconds = prop_oneof![6 => 0..25_u64, 1 => 25..400_u64, 1 => 3_000..9_000_u64];
    let step = prop_oneof![
        2 => Just(Step::Add),
        1 => (0..8_usize).prop_map(Step::Remove),
        6 => pass,
        9 => seconds.prop_map(|seconds| Step::Take { seconds }),
    ];
    prop::collection::vec(step, 0..200)
}

fn tallies(all: &[Modelled]) -> Vec<Tally> {
    let tally = |it: &Modelled| Tally {
        subject: Subject::Service(it.name.clone()),
        open: it.open,
        passed: it.passed,
    };
    all.iter().map(tally).collect()
}

proptest! {
    #[test]
    fn equals_a_model_that_keeps_everything(steps in steps()) {
        let (mut history, mut now) = (History::default(), Duration::from_secs(7));
        let mut all: Vec<Modelled> = Vec::new();
        let mut ended = None;
        for step in steps {
            match step {
                Step::Add => {
                    // All have the same name, and yet each is another one.
                    let new = Modelled {
                        name: "s".into(),
                        open: 0,
                        passed: Passed::default(),
                        before: Passed::default(),
                        samples: BTreeMap::new(),
                    };
                    all.insert(all.len() / 2, new);
                }
                Step::Remove(at) if at < all.len() => drop(all.remove(at)),
                Step::Pass { at, open, passed } if at < all.len() => {
                    all[at].open = open;
                    all[at].passed = all[at].passed.and(passed);
                }
                Step::Remove(_) | Step::Pass { .. } => {}
                Step::Take { seconds } => {
                    now += Duration::from_secs(seconds);
                    history.take(now, tallies(&all));
                    let number = now.as_secs() / 10;
                    let before = ended.replace(number);
                    for it in all.iter_mut().filter(|_| before != Some(number)) {
                        let (open, passed) = (it.open, it.passed.since(it.before));
                        it.before = it.passed;
                        if before.is_some() {
                            it.samples.insert(number, Sample { open, passed });
                        }
                    }
                    let end = ended.map(|ended| Duration::from_secs(ended * 10));
                    prop_assert_eq!(history.end(), end);
                    // A sample that is not due changes nothing, not even which objects there are.
                    if before != Some(number) {
                        prop_assert_eq!(history.tracks().len(), all.len());
                        for (track, it) in history.tracks().iter().zip(&all) {
                            agrees(track, it, number)?;
                        }
                    }
                }
            }
        }
    }
}

fn agrees(track: &Track, it: &Modelled, ended: u64) -> Result<(), TestCaseError> {
    let kept = (ended + 1).saturating_sub(History::MOST as u64)..=ended;
    let expected = kept.map(|number| it.samples.get(&number).copied());
    let expected: Vec<_> = expected.skip_while(Option::is_none).collect();
    let samples: Vec<_> = track.samples.iter().collect();
    prop_assert_eq!(samples.len(), track.samples.len());
    prop_assert_eq!(samples, expected);
    Ok(())
}

fn object() -> Subject {
    Subject::Service("s".into())
}

#[test]
fn hour_of_an_idle_object_takes_a_byte_per_sample() {
    let idle = Tally {
        subject: object(),
        open: 3,
        passed: Passed::default(),
    };
    let mut busy = Tally {
        subject: object(),
        ..idle.clone()
    };
    let mut history = History::default();
    for n in 0..1_000 {
        busy.open = 100 + n % 7;
        let more = Passed {
            opened: 1_000 + n,
            // A gigabit per second.
            bytes: [1_250_000_000 - n, 9_000_000 + n],
        };
        busy.passed = busy.passed.and(more);
        history.take(
            History::INTERVAL * n as u32,
            vec![idle.clone(), busy.clone()],
        );
    }
    let sizes: Vec<_> = history
        .tracks()
        .iter()
        .map(|it| it.samples.size())
        .collect();
    assert!(sizes[0] <= 512, "{sizes:?}");
    assert!(sizes[1] <= 8192, "{sizes:?}");
}

#[test]
fn too_many_objects_share_the_samples() {
    let all: Vec<_> = (0..History::MOST_OBJECTS * 4)
        .map(|_| Tally {
            subject: object(),
            open: 1,
            passed: Passed::default(),
        })
        .collect();
    let mut history = History::default();
    for n in 0..100 {
        history.take(History::INTERVAL * n, all.clone());
    }
    assert_eq!(history.tracks().len(), all.len());
    let len = |it: &Track| it.samples.len();
    assert!(
        history
            .tracks()
            .iter()
            .all(|it| len(it) == History::MOST / 4)
    );
}

#[test]
fn time_until_the_next_sample_is_at_most_an_interval() {
    for (now, left) in [
        (0, 10_000),
        (1, 9_999),
        (9_999, 1),
        (10_000, 10_000),
        (25_000, 5_000),
    ] {
        let left = Duration::from_millis(left);
        assert_eq!(History::until_due(Duration::from_millis(now)), left);
    }
}
