//! Processes that do one piece of work together.

use std::env;
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::process::{Child, Command, Stdio, exit};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::{self, JoinHandle, yield_now};
use std::time::{Duration, Instant};

use crate::link::{Contender, Place, Side, Work};
use crate::payload::{Checks, first_number};
use crate::raw::{self, Segment, futex_wait, futex_wake, futex_wake_all};
use crate::watch::Watch;

/// Tells another process what it is to do.
const ROLE: &str = "SHMQ_BENCHES_ROLE";

/// Where there are several producers or consumers, each takes so many messages to put (or get) at a time: all
/// are busy until the end, whoever is the fastest.
const PORTION: u64 = 256;

/// The cores of a session's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// This process on the first, with all others that get; those that put, and who answers, on the second.
    Pinned(usize, usize),
    /// Each process where the kernel puts it.
    Free,
}

impl Cores {
    /// Two different ones; `None` if this process may not run on two.
    ///
    /// # Errors
    /// The kernel does not say on which it may run.
    pub fn two() -> io::Result<Option<Self>> {
        let cores = allowed()?;
        Ok(cores.get(1).map(|&far| Self::Pinned(cores[0], far)))
    }

    /// One for all.
    ///
    /// # Errors
    /// The kernel does not say on which this process may run.
    pub fn one() -> io::Result<Self> {
        let near = *allowed()?.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::Pinned(near, near))
    }

    /// Pins this process to its core.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn pin(self) -> io::Result<()> {
        self.pin_near()
    }

    fn pin_near(self) -> io::Result<()> {
        match self {
            Self::Pinned(near, _) => raw::pin(&[near]),
            Self::Free => raw::pin(allowed()?),
        }
    }

    fn pin_other(self, place: &Place) -> io::Result<()> {
        match self {
            Self::Pinned(near, far) => {
                let with_near = matches!(place.work, Work::OneWay { .. }) && !place.puts;
                raw::pin(&[if with_near { near } else { far }])
            }
            Self::Free => Ok(()),
        }
    }
}

/// As it was before this process was pinned to one of them.
fn allowed() -> io::Result<&'static [usize]> {
    static CORES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    match CORES.get() {
        Some(cores) => Ok(cores),
        None => raw::cores().map(|cores| CORES.get_or_init(|| cores).as_slice()),
    }
}

/// A contender at work between this process and others, which are started once and then do their part of
/// each measurement, from a common start.
///
/// One way, this process is one of those that get; in a round trip, it asks and the other answers. The drop
/// ends the other processes, between measurements. Once all are there, all names are deleted: nothing is left in /dev/shm even if
/// this process is killed.
pub struct Session {
    near: Box<dyn Side>,
    control: Control,
    /// The number of the next message of a round trip.
    next: u64,
    checks: Checks,
    watch: Watch,
    threads: Vec<JoinHandle<()>>,
    work: Work,
    cores: Cores,
}

impl Session {
    /// Starts the other processes: this program again, whose `main` begins with [`play_role`].
    ///
    /// # Errors
    /// Whatever prevents it; for a contender that cannot do the work, what it says.
    pub fn start(contender: &Contender, work: Work, cores: Cores) -> io::Result<Self> {
        static SESSIONS: AtomicU32 = AtomicU32::new(0);
        // It must know all cores before it is pinned.
        allowed()?;
        cores.pin_near()?;
        let name = format!("bench-{}-{}", std::process::id(), SESSIONS.fetch_add(1, Relaxed));
        let capacity = work.capacity(contender.size);
        let mut place = Place { name, work, capacity, puts: false, ticket: String::new() };
        let mut near = contender.meet(&place, true)?;
        place.ticket = near.ticket();
        let mut control = Control(Segment::create(&control_object(&place.name), Control::LEN)?);
        let (producers, consumers) = match work {
            Work::OneWay { producers, consumers } => (producers, consumers),
            Work::RoundTrip => (1, 1),
        };
        let (mut children, mut threads) = (Vec::new(), Vec::new());
        for index in 0..producers + consumers - 1 {
            let place = Place { puts: index < producers, ..place.clone() };
            let role = Role { index, cores, parent: std::process::id(), place };
            if contender.threads {
                threads.push(role.start_thread(*contender)?);
            } else {
                children.push(role.start_process(contender)?);
            }
        }
        control.others().store(to_u32(producers + consumers - 1)?, Relaxed);
        let watch = Watch::new(children)?;
        watch.during(|| control.await_value(Control::ATTACHED, control.others().load(Relaxed)));
        control.0.unlink()?;
        near.unlink()?;
        let checks = Checks::new(producers, consumers == 1);
        Ok(Self { near, control, next: 0, checks, watch, threads, work, cores })
    }

    /// How long `count` messages take, from the common start to the last one got (or answered).
    ///
    /// # Errors
    /// A message was lost, torn or reordered, or a call failed. Ends the whole process if that happens to
    /// another one.
    pub fn time(&mut self, count: u64) -> io::Result<Duration> {
        self.run(count, None)
    }

    /// Like [`time`](Self::time), and adds how many nanoseconds each round trip took to `trips`; for
    /// round trips.
    ///
    /// # Errors
    /// Those of [`time`](Self::time).
    pub fn time_each(&mut self, count: u64, trips: &mut Vec<u32>) -> io::Result<Duration> {
        trips.reserve(usize::try_from(count).map_err(io::Error::other)?);
        self.run(count, Some(trips))
    }

    /// Begins a round of `count` round trips, each by [`ask_once`](Self::ask_once). Meanwhile the other process
    /// waits for the next question.
    ///
    /// # Errors
    /// This process cannot be pinned.
    pub fn begin(&mut self, count: u64) -> io::Result<()> {
        self.cores.pin_near()?;
        let Self { watch, control, .. } = self;
        watch.during(|| {
            control.announce(count);
            control.start();
        });
        Ok(())
    }

    /// One round trip of those that were begun.
    ///
    /// # Errors
    /// Those of [`time`](Self::time).
    pub fn ask_once(&mut self) -> io::Result<Duration> {
        self.cores.pin_near()?;
        let Self { watch, near, next, .. } = self;
        let start = Instant::now();
        watch.during(|| near.ask(*next..*next + 1))?;
        *next += 1;
        Ok(start.elapsed())
    }

    /// How long all other processes have used a processor so far.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn processor_time(&self) -> io::Result<Duration> {
        self.watch.ids().into_iter().map(raw::processor_time).sum()
    }

    fn run(&mut self, count: u64, trips: Option<&mut Vec<u32>>) -> io::Result<Duration> {
        let Self { near, control, next, checks, watch, work, cores, .. } = self;
        cores.pin_near()?;
        watch.during(|| {
            control.announce(count);
            let start = control.start();
            match (*work, trips) {
                (Work::OneWay { consumers, .. }, _) => {
                    control.consume(near.as_mut(), checks, consumers)?;
                }
                (Work::RoundTrip, None) => near.ask(*next..*next + count)?,
                (Work::RoundTrip, Some(trips)) => near.ask_and_time(*next..*next + count, trips)?,
            }
            *next += count;
            let alone = matches!(*work, Work::OneWay { consumers: 1, .. } | Work::RoundTrip);
            let elapsed = start.elapsed();
            control.await_done(alone);
            let elapsed = if alone { elapsed } else { start.elapsed() };
            control.compare_sums()?;
            Ok(elapsed)
        })
    }
}

/// Lets the others end by themselves: some leave files behind if they are killed.
impl Drop for Session {
    fn drop(&mut self) {
        self.control.announce(Control::OVER);
        for thread in self.threads.drain(..) {
            // It ends the process if it fails.
            _ = thread.join();
        }
        self.watch.await_end();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("work", &self.work)
            .field("cores", &self.cores)
            .finish_non_exhaustive()
    }
}

/// Does another process's part and does not return, if that is what this process was started for.
/// Call it first in `main`, with all contenders.
pub fn play_role(contenders: &[Contender]) {
    let Ok(text) = env::var(ROLE) else { return };
    let played = Role::parse(&text, contenders)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
        .and_then(|(role, contender)| role.play_process(contender));
    if let Err(error) = played {
        eprintln!("shmq-benches, other process: {error}");
        exit(1);
    }
    exit(0);
}

/// What another process is to do.
struct Role {
    /// Among the others: the producers come first.
    index: usize,
    cores: Cores,
    parent: u32,
    place: Place,
}

impl Role {
    fn start_process(&self, contender: &Contender) -> io::Result<Child> {
        Command::new(env::current_exe()?)
            .env(ROLE, self.text(contender))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    fn start_thread(self, contender: Contender) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().spawn(move || {
            if let Err(error) = self.play(&contender) {
                eprintln!("shmq-benches, other thread: {error}");
                exit(1);
            }
        })
    }

    fn text(&self, contender: &Contender) -> String {
        let Self { index, cores, parent, place } = self;
        let Place { name, work, capacity, puts, ticket } = place;
        let work = match work {
            Work::OneWay { producers, consumers } => format!("{producers} {consumers}"),
            Work::RoundTrip => "0 0".to_owned(),
        };
        let cores = match cores {
            Cores::Pinned(near, far) => format!("{near} {far}"),
            Cores::Free => "free free".to_owned(),
        };
        let (size, label) = (contender.size, contender.label);
        format!("{index} {cores} {parent} {name} {work} {capacity} {puts} {size} {ticket} {label}")
    }

    fn parse<'a>(text: &str, contenders: &'a [Contender]) -> Option<(Self, &'a Contender)> {
        let mut words = text.splitn(12, ' ');
        let mut next = || words.next();
        let index = next()?.parse().ok()?;
        let cores = match (next()?.parse(), next()?.parse()) {
            (Ok(near), Ok(far)) => Cores::Pinned(near, far),
            _ => Cores::Free,
        };
        let parent = next()?.parse().ok()?;
        let name = next()?.to_owned();
        let work = match (next()?.parse().ok()?, next()?.parse().ok()?) {
            (0, 0) => Work::RoundTrip,
            (producers, consumers) => Work::OneWay { producers, consumers },
        };
        let (capacity, puts) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let size: usize = next()?.parse().ok()?;
        let ticket = next()?.to_owned();
        let label = next()?;
        let contender = contenders.iter().find(|each| each.label == label && each.size == size)?;
        Some((Self { index, cores, parent, place: Place { name, work, capacity, puts, ticket } }, contender))
    }

    /// Until this process is killed or something fails.
    fn play_process(self, contender: &Contender) -> io::Result<()> {
        raw::die_with_parent(self.parent)?;
        self.play(contender)
    }

    fn play(self, contender: &Contender) -> io::Result<()> {
        let Self { index, cores, place, .. } = self;
        cores.pin_other(&place)?;
        let mut far = contender.meet(&place, false)?;
        let control = Control(Segment::open(&control_object(&place.name))?);
        control.0.word(Control::ATTACHED).fetch_add(1, Release);
        let (mut round, mut next) = (0, 0);
        let mut checks = match place.work {
            Work::OneWay { producers, consumers } => Checks::new(producers, consumers == 1),
            Work::RoundTrip => Checks::new(1, true),
        };
        if place.puts {
            next = first_number(index);
        }
        loop {
            round = control.await_round(round);
            let count = control.0.long(Control::COUNT).load(Relaxed);
            if count == Control::OVER {
                return Ok(());
            }
            control.await_start(round);
            match place.work {
                Work::OneWay { producers, .. } if place.puts => {
                    next = control.produce(far.as_mut(), next, producers)?;
                }
                Work::OneWay { consumers, .. } => control.consume(far.as_mut(), &mut checks, consumers)?,
                Work::RoundTrip => {
                    far.answer(next..next + count)?;
                    next += count;
                }
            }
            control.say_done();
        }
    }
}

fn control_object(name: &str) -> String {
    format!("shmq-control-{name}")
}

fn to_u32(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}

/// How the processes agree on when to begin and what has been done. A round is a measurement.
///
/// | word   | written by | meaning                                                 |
/// | ------ | ---------- | ------------------------------------------------------- |
/// | ROUND  | near       | the round that is to come; the others sleep on it       |
/// | COUNT  | near       | its messages                                            |
/// | OTHERS | near       | how many others there are                               |
/// | READY  | others     | how many of them are awake for the round                |
/// | START  | near       | the round that has begun                                |
/// | DONE   | others     | how many of them have finished the round                |
/// | TO_PUT, TO_GET | all | messages of the round that nobody has begun to put (get) |
/// | PUT_SUM, GOT_SUM | all | sums of the numbers of all messages put (got) so far |
struct Control(Segment);

impl Control {
    const LEN: usize = 1280;
    const ROUND: usize = 0;
    const COUNT: usize = 8;
    const OTHERS: usize = 16;
    const READY: usize = 128;
    const START: usize = 256;
    const DONE: usize = 384;
    const ATTACHED: usize = 512;
    const TO_PUT: usize = 640;
    const TO_GET: usize = 768;
    const PUT_SUM: usize = 896;
    const GOT_SUM: usize = 1024;

    /// A count that tells the others to end.
    const OVER: u64 = u64::MAX;

    fn others(&self) -> &AtomicU32 {
        self.0.word(Self::OTHERS)
    }

    /// Wakes the others, and waits until they are awake.
    fn announce(&self, count: u64) {
        for count_of in [Self::COUNT, Self::TO_PUT, Self::TO_GET] {
            self.0.long(count_of).store(count, Relaxed);
        }
        self.0.word(Self::READY).store(0, Relaxed);
        self.0.word(Self::DONE).store(0, Relaxed);
        let word = self.0.word(Self::ROUND);
        let round = word.load(Relaxed).wrapping_add(1);
        word.store(round, Release);
        futex_wake_all(word);
        if count != Self::OVER {
            self.await_value(Self::READY, self.others().load(Relaxed));
        }
    }

    fn start(&self) -> Instant {
        let round = self.0.word(Self::ROUND).load(Relaxed);
        let start = Instant::now();
        self.0.word(Self::START).store(round, Release);
        start
    }

    /// Sleeps instead of spinning where that would take a core away from those who are not done.
    fn await_done(&self, spin: bool) {
        let others = self.others().load(Relaxed);
        if spin {
            return self.await_value(Self::DONE, others);
        }
        let word = self.0.word(Self::DONE);
        loop {
            let done = word.load(Acquire);
            if done == others {
                return;
            }
            futex_wait(word, done);
        }
    }

    /// Sleeps until there is another round than `last`.
    fn await_round(&self, last: u32) -> u32 {
        let word = self.0.word(Self::ROUND);
        loop {
            let round = word.load(Acquire);
            if round != last {
                return round;
            }
            futex_wait(word, last);
        }
    }

    fn await_start(&self, round: u32) {
        self.0.word(Self::READY).fetch_add(1, Release);
        self.await_value(Self::START, round);
    }

    fn say_done(&self) {
        let done = self.0.word(Self::DONE);
        done.fetch_add(1, Release);
        futex_wake(done);
    }

    /// Puts its part of the round's messages, numbered from `next` on; returns the number after them.
    fn produce(&self, side: &mut dyn Side, mut next: u64, producers: usize) -> io::Result<u64> {
        let first = next;
        while let Some(portion) = self.portion(Self::TO_PUT, producers) {
            side.produce(next..next + portion)?;
            next += portion;
        }
        let sum = (first..next).fold(0, u64::wrapping_add);
        self.0.long(Self::PUT_SUM).fetch_add(sum, Relaxed);
        Ok(next)
    }

    /// Gets its part of the round's messages.
    fn consume(&self, side: &mut dyn Side, checks: &mut Checks, consumers: usize) -> io::Result<()> {
        let before = checks.sum();
        while let Some(portion) = self.portion(Self::TO_GET, consumers) {
            side.consume(portion, checks)?;
        }
        self.0.long(Self::GOT_SUM).fetch_add(checks.sum().wrapping_sub(before), Relaxed);
        Ok(())
    }

    /// The next messages of the round for one of so many sides to put (or get).
    fn portion(&self, left: usize, sides: usize) -> Option<u64> {
        let left = self.0.long(left);
        let mut seen = left.load(Relaxed);
        loop {
            let portion = if sides == 1 { seen } else { seen.min(PORTION) };
            if portion == 0 {
                return None;
            }
            match left.compare_exchange_weak(seen, seen - portion, Relaxed, Relaxed) {
                Ok(_) => return Some(portion),
                Err(now) => seen = now,
            }
        }
    }

    /// After a round.
    fn compare_sums(&self) -> io::Result<()> {
        let sum = |of| self.0.long(of).load(Relaxed);
        if sum(Self::PUT_SUM) == sum(Self::GOT_SUM) {
            return Ok(());
        }
        Err(io::Error::other("what was got is not what was put"))
    }

    /// Spins, and lets another process run should it be on the same core. [`Watch`] sees to it that
    /// this ends on the near side, the parent's death on the far side.
    fn await_value(&self, word: usize, value: u32) {
        let word = self.0.word(word);
        loop {
            for _ in 0..100 {
                if word.load(Acquire) == value {
                    return;
                }
                spin_loop();
            }
            yield_now();
        }
    }
}
