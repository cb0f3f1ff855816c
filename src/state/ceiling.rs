//! What is done while the program takes more memory than it may: first it accepts nobody, then it
//! holds no more for blocked receivers, then it ends the connections that are idle the longest. Pure:
//! the memory is an argument.

use std::cell::Cell;

use super::counters::{CounterBy, label};
use super::metric::{Metric, Publish};

label! {
    /// What is done against a lack of memory. Each includes those before it.
    Pressure {
        /// New connections wait in the kernel's backlogs.
        StopAccepting = "stop_accepting",
        /// Nothing more is read for receivers that are blocked.
        StopReading = "stop_reading",
        /// The connections that are idle the longest are ended.
        EndIdle = "end_idle",
    }
}

/// How far the program is above its memory ceiling.
#[derive(Debug, Default)]
pub struct Ceiling {
    pressure: Cell<Option<Pressure>>,
    counters: CounterBy<Pressure>,
}

impl Ceiling {
    /// Records how much memory the program takes, and returns what to do. Each further look that
    /// finds it above `most` goes one step on. All ends once it takes a sixteenth less than `most`,
    /// so that it does not change at every look.
    pub fn look(&self, taken: u64, most: u64) -> Option<Pressure> {
        let before = self.pressure.get();
        let now = match before {
            _ if taken <= most - most / 16 => None,
            _ if taken <= most => before,
            None => Some(Pressure::StopAccepting),
            Some(Pressure::StopAccepting) => Some(Pressure::StopReading),
            Some(_) => Some(Pressure::EndIdle),
        };
        self.pressure.set(now);
        if let Some(pressure) = now.filter(|_| now != before) {
            self.counters.of(pressure).increment();
        }
        now
    }

    /// Records that there is no ceiling any more.
    pub fn lift(&self) {
        self.pressure.set(None);
    }

    /// Returns a copy of the counters.
    #[must_use]
    pub fn numbers(&self) -> CeilingNumbers {
        CeilingNumbers(self.counters.clone())
    }
}

/// How often each step was taken.
#[derive(Clone, Debug)]
pub struct CeilingNumbers(CounterBy<Pressure>);

impl Publish for CeilingNumbers {
    const METRICS: &'static [Metric<Self>] = &[Metric::counter(
        "coracle_memory_pressure_total",
        "How often the program went above its memory ceiling and took this step against it.",
        |it, out| out.by("action", &it.0),
    )];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use Pressure::{EndIdle, StopAccepting, StopReading};

    #[test]
    fn steps_follow_each_other_and_end_only_well_below() {
        let ceiling = Ceiling::default();
        let looks = [150, 161, 161, 160, 161, 170, 151, 150, 160, 161];
        let expected = [
            None,
            Some(StopAccepting),
            Some(StopReading),
            Some(StopReading),
            Some(EndIdle),
            Some(EndIdle),
            Some(EndIdle),
            None,
            None,
            Some(StopAccepting),
        ];
        assert_eq!(looks.map(|taken| ceiling.look(taken, 160)), expected);
        let counts =
            [StopAccepting, StopReading, EndIdle].map(|it| ceiling.counters.of(it).value());
        assert_eq!(counts, [2, 1, 1]);
        assert!(ceiling.pressure.get().is_some());
        ceiling.lift();
        assert_eq!(ceiling.pressure.get(), None);
    }
}
