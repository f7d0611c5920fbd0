//! Trying every moment of a call, and watching whether it goes well.
//!
//! What is tried runs in a *worker*, a forked child of the process that plays the role, and is watched by a
//! [`Judge`]: a survivor that hangs, or that is wrong, is a [`Verdict`] about a moment and not the end of
//! the run.
//!
//! An ordinary run tries every change and a stride of the instructions between, which begins at a random
//! place. Every instruction, with what was found, in release mode so that there are fewer of them:
//!
//! ```text
//! SHMQ_INSTANTS=all cargo test --release --test it instants -- --nocapture --test-threads=1
//! ```
//!
//! `SHMQ_INSTANTS_OF=...` tries only the calls whose name holds this text.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::harness::{
    Forked, Random, Record, Stage, assert_prompt, exit_now, fork, is_thorough, ms, nap, say,
};
use crate::instants::{Moment, REFUSED, Route, Walk, can_trace, pin};

/// What is wrong with a moment.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A survivor did not come back.
    Hung(Moment),
    /// Something was not as it has to be; the panic said what.
    Wrong(Moment),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hung(moment) => write!(f, "hung {moment}"),
            Self::Wrong(moment) => write!(f, "wrong {moment}"),
        }
    }
}

/// What workers write down for their judge.
pub(crate) struct Log(Record);

/// Places of a [`Log`]. The times are in nanoseconds, the longest there was.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Place {
    Trial,
    /// Of a survivor's next call.
    Call,
    /// Of a survivor that slept.
    Sleeper,
    /// By how much a deadline was missed.
    Overrun,
    /// How many times it was missed by more than 20 ms.
    Missed,
    /// How many times there was a deadline to keep.
    Kept,
    /// How many came to the end of a call that was to wake a sleeper.
    Ended,
    /// How many of these found it awake before it would have looked for itself.
    Woken,
    /// How many trials took seconds.
    Slow,
}

impl Log {
    pub(crate) fn get(&self, place: Place) -> u64 {
        self.0.get(place as u64)
    }

    pub(crate) fn set(&self, place: Place, number: u64) {
        self.0.set(place as u64, number);
    }

    pub(crate) fn add(&self, place: Place, count: u64) {
        self.set(place, self.get(place) + count);
    }

    pub(crate) fn took(&self, place: Place, time: Duration) {
        let time = u64::try_from(time.as_nanos()).expect("not centuries");
        self.set(place, self.get(place).max(time));
    }

    /// Somebody's call with this timeout ended after that time.
    pub(crate) fn deadline(&self, timeout: Duration, took: Duration) {
        let over = took.saturating_sub(timeout);
        self.add(Place::Kept, 1);
        self.add(Place::Missed, u64::from(over > ms(20)));
        self.took(Place::Overrun, over);
        assert_prompt(took);
    }

    pub(crate) fn longest(&self, place: Place) -> Duration {
        Duration::from_nanos(self.get(place))
    }
}

/// Has moments tried, and watches.
pub(crate) struct Judge {
    pub(crate) log: Log,
    pub(crate) tried: usize,
    pub(crate) verdicts: Vec<Verdict>,
    /// How long one trial may take.
    patience: Duration,
}

impl Judge {
    /// After this many bad verdicts it is enough.
    const ENOUGH: usize = 3;

    pub(crate) fn new(patience: Duration) -> Self {
        Self { log: Log(Record::new()), tried: 0, verdicts: Vec::new(), patience }
    }

    /// Tries each moment; `trial` panics if something is wrong. It gets a number of its own each time.
    pub(crate) fn hear(&mut self, moments: &[Moment], trial: impl Fn(Moment, u64, &Log)) {
        let mut rest = moments;
        while !rest.is_empty() && self.verdicts.len() < Self::ENOUGH {
            let first = self.log.get(Place::Trial);
            let worker = fork(|| {
                for moment in rest {
                    self.log.add(Place::Trial, 1);
                    trial(*moment, self.log.get(Place::Trial), &self.log);
                }
                0
            });
            let code = self.watch(&worker);
            let begun = usize::try_from(self.log.get(Place::Trial) - first).expect("64-bit");
            self.tried += begun;
            let moment = rest[begun.saturating_sub(1)];
            let verdict = match code {
                Some(0) => return,
                Some(REFUSED) => exit_now(REFUSED),
                Some(_) => Verdict::Wrong(moment),
                None => Verdict::Hung(moment),
            };
            say(&verdict.to_string());
            self.verdicts.push(verdict);
            rest = &rest[begun.max(1)..];
        }
    }

    /// The exit code of the worker; `None` if it hung, and was killed.
    fn watch(&self, worker: &Forked) -> Option<i32> {
        let (mut trial, mut since) = (0, Instant::now());
        loop {
            if let Some(code) = worker.has_ended() {
                return Some(code);
            }
            let now = self.log.get(Place::Trial);
            if now != trial {
                (trial, since) = (now, Instant::now());
            }
            if since.elapsed() > self.patience {
                worker.kill();
                return None;
            }
            nap(ms(2));
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// The session

/// What happens to the victim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    Kill,
    Stop,
}

/// How many strided instants of each call an ordinary run tries.
const MOST: u64 = 24;

/// Which moments of a recorded walk are tried: all changes, and instructions at a stride that begins at a
/// random place; `most` of these, or with `SHMQ_INSTANTS=all` every one.
fn moments(walk: &Walk, most: u64, random: &mut Random) -> Vec<Moment> {
    let stride = if is_thorough() { 1 } else { (walk.instructions / most).max(1) };
    let changes = (1..=walk.changes).map(Moment::Change);
    let instructions =
        (random.below(stride)..=walk.instructions).step_by(usize::try_from(stride).expect("64-bit"));
    changes.chain(instructions.map(Moment::Instruction)).chain([Moment::End; 6]).collect()
}

/// The role of one call: explores it, has every moment of it tried, and says how that went. Both functions get
/// a name of their own each time, `act` a number too.
pub(crate) fn hold_court(
    trial: Trial,
    arguments: &[String],
    explore: impl Fn(&str, &str) -> Route,
    act: impl Fn(&str, &Route, Moment, u64, &str, &Log),
) {
    let [name, call, patience, seed] = arguments else { panic!("{arguments:?}") };
    if !can_trace() {
        say("refused");
        return;
    }
    let mut random = Random::from_seed(seed.parse().expect("a number"));
    pin(random.next());
    let mut judge = Judge::new(ms(patience.parse().expect("a number")));
    let route = explore(call, &format!("{name}0"));
    let walk = route.walk();
    let most = if trial == Trial::Kill { MOST } else { MOST / 3 };
    for part in moments(&walk, most, &mut random).chunks(200) {
        judge.hear(part, |moment, number, log| {
            act(call, &route, moment, number, &format!("{name}{number}"), log);
        });
        // Somebody waits for a sign of life.
        say("...");
    }
    let (kept, missed) = (judge.log.get(Place::Kept), judge.log.get(Place::Missed));
    if missed > kept / 4 {
        say(&format!("{missed} of {kept} deadlines were missed by more than 20 ms"));
    }
    let (ended, woken) = (judge.log.get(Place::Ended), judge.log.get(Place::Woken));
    if woken < ended / 2 {
        say(&format!("of {ended} sleepers only {woken} were woken, others woke by themselves"));
    }
    say(&format!("tried {call}: {}", Tried { judge, walk, trial }));
}

struct Tried {
    judge: Judge,
    walk: Walk,
    trial: Trial,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { judge, walk, trial } = self;
        let log = &judge.log;
        write!(f, "{} instants", judge.tried)?;
        write!(f, " of {} instructions, {} changes", walk.instructions, walk.changes)?;
        write!(f, "; longest next call {:?}", log.longest(Place::Call))?;
        if log.get(Place::Sleeper) > 0 {
            write!(f, ", longest sleeper {:?}", log.longest(Place::Sleeper))?;
        }
        if *trial == Trial::Stop && log.get(Place::Kept) > 0 {
            let (kept, missed) = (log.get(Place::Kept), log.get(Place::Missed));
            write!(f, "; deadlines missed by at most {:?}", log.longest(Place::Overrun))?;
            write!(f, ", {missed} of {kept} by more than 20 ms")?;
        }
        if log.get(Place::Slow) > 0 {
            write!(f, "; {} waited for the stopped one", log.get(Place::Slow))?;
        }
        Ok(())
    }
}

/// Has the role played for each call, under a launcher if there is one; what it found to be wrong.
pub(crate) fn play<'a>(
    launcher: &[&str],
    role: &str,
    calls: impl Iterator<Item = &'a str>,
    patience: Duration,
) -> Vec<String> {
    let stage = Stage::new();
    let mut random = Random::new();
    let mut wrong = Vec::new();
    let only = env::var("SHMQ_INSTANTS_OF").unwrap_or_default();
    for call in calls.filter(|call| call.contains(&only)) {
        let patience = patience.as_millis().to_string();
        let seed = random.next().to_string();
        let mut child = stage.child_under(launcher, role, &[&stage.name(), call, &patience, &seed]);
        loop {
            let said = child.next();
            if said == "refused" {
                // Past the test runner, which would keep it to itself.
                _ = writeln!(
                    io::stderr(),
                    "SKIPPED: tracing is refused here, so nothing was killed or stopped"
                );
                return wrong;
            }
            if let Some(tried) = said.strip_prefix("tried ") {
                println!("{tried}");
                break;
            }
            if said != "..." {
                println!("{call}: {said}");
                wrong.push(format!("{call}: {said}"));
            }
        }
        child.finish();
    }
    wrong
}
