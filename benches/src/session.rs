//! Two processes that do one piece of work together.

use std::env;
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::process::{Command, Stdio, exit};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use crate::link::{Bytes, Contender, Link, Pair, Spinning, Typed, Work};
use crate::payload::Payload;
use crate::pingpong::PingPong;
use crate::raw::{self, Segment, futex_wait, futex_wake};
use crate::textbook::Textbook;
use crate::watch::Watch;

/// Tells the other process what it is to do.
const ROLE: &str = "SHMQ_BENCHES_ROLE";

/// The cores of a session's two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    near: usize,
    far: usize,
}

impl Cores {
    /// Two different ones; `None` if this process may not run on two.
    ///
    /// # Errors
    /// The kernel does not say on which it may run.
    pub fn two() -> io::Result<Option<Self>> {
        let cores = allowed()?;
        Ok(cores.get(1).map(|&far| Self { near: cores[0], far }))
    }

    /// One for both.
    ///
    /// # Errors
    /// The kernel does not say on which this process may run.
    pub fn one() -> io::Result<Self> {
        let near = *allowed()?.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { near, far: near })
    }
}

/// As it was before this process was pinned to one of them.
fn allowed() -> io::Result<Vec<usize>> {
    static CORES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    match CORES.get() {
        Some(cores) => Ok(cores.clone()),
        None => raw::cores().map(|cores| CORES.get_or_init(|| cores).clone()),
    }
}

/// A contender at work between this process and another, which is started once and then does its half
/// of each measurement, from a common start.
///
/// One way, the other process puts and this one gets; in a round trip, this one asks and the other
/// answers. The drop ends the other process. Once both are there, all names are deleted: nothing is left
/// in /dev/shm even if this process is killed.
pub struct Session {
    near: Box<dyn Side>,
    control: Control,
    watch: Watch,
    work: Work,
    cores: Cores,
}

impl Session {
    /// Starts the other process: this program again, whose `main` begins with [`play_role`].
    ///
    /// # Errors
    /// Whatever prevents it; `InvalidInput` for a contender that cannot do the work.
    pub fn start(contender: Contender, work: Work, cores: Cores) -> io::Result<Self> {
        static SESSIONS: AtomicU32 = AtomicU32::new(0);
        let name = format!("bench-{}-{}", std::process::id(), SESSIONS.fetch_add(1, Relaxed));
        let mut near = meet(contender, Place { name: &name, work, create: true })?;
        let mut control = Control(Segment::create(&control_object(&name), Control::LEN)?);
        let role = Role { contender, work, core: cores.far, parent: std::process::id(), name };
        let child = Command::new(env::current_exe()?)
            .env(ROLE, role.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let watch = Watch::new(child)?;
        watch.during(|| control.await_attached());
        control.0.unlink()?;
        near.unlink()?;
        Ok(Self { near, control, watch, work, cores })
    }

    /// How long `count` messages take, from the common start to the last one got (or answered).
    ///
    /// # Errors
    /// A message was lost, torn or reordered, or a call failed. Ends the whole process if that happens to
    /// the other one.
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

    fn run(&mut self, count: u64, trips: Option<&mut Vec<u32>>) -> io::Result<Duration> {
        let Self { near, control, watch, work, cores } = self;
        raw::pin(cores.near)?;
        watch.during(|| {
            control.announce(count);
            let start = control.start();
            match (work, trips) {
                (Work::OneWay, _) => near.consume(count)?,
                (Work::RoundTrip, None) => near.ask(count)?,
                (Work::RoundTrip, Some(trips)) => near.ask_and_time(count, trips)?,
            }
            let elapsed = start.elapsed();
            control.await_done();
            Ok(elapsed)
        })
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

/// Does the other process's part and does not return, if that is what this process was started for.
/// Call it first in `main`.
pub fn play_role() {
    let Ok(text) = env::var(ROLE) else { return };
    let played = Role::parse(&text).ok_or_else(|| io::ErrorKind::InvalidInput.into()).and_then(Role::play);
    let Err(error) = played;
    eprintln!("shmq-benches, other process: {error}");
    exit(1);
}

/// What the other process is to do.
struct Role {
    contender: Contender,
    work: Work,
    core: usize,
    parent: u32,
    name: String,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contender, work, core, parent, name } = self;
        let contender = Contender::ALL.iter().position(|(each, _)| each == contender).unwrap_or(usize::MAX);
        let work = Work::ALL.iter().position(|each| each == work).unwrap_or(usize::MAX);
        write!(f, "{contender} {work} {core} {parent} {name}")
    }
}

impl Role {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let (contender, _) = *Contender::ALL.get(next()?.parse::<usize>().ok()?)?;
        let work = *Work::ALL.get(next()?.parse::<usize>().ok()?)?;
        let (core, parent) = (next()?.parse().ok()?, next()?.parse().ok()?);
        Some(Self { contender, work, core, parent, name: next()?.to_owned() })
    }

    /// Until this process is killed or something fails.
    fn play(self) -> io::Result<std::convert::Infallible> {
        let Self { contender, work, core, parent, name } = self;
        raw::die_with_parent(parent)?;
        raw::pin(core)?;
        let mut far = meet(contender, Place { name: &name, work, create: false })?;
        let control = Control(Segment::open(&control_object(&name))?);
        control.say_attached();
        let mut round = 0;
        loop {
            round = control.await_round(round);
            let count = control.0.long(Control::COUNT).load(Relaxed);
            control.await_start(round);
            match work {
                Work::OneWay => far.produce(count)?,
                Work::RoundTrip => far.answer(count)?,
            }
            control.say_done(round);
        }
    }
}

fn control_object(name: &str) -> String {
    format!("shmq-control-{name}")
}

/// How the two processes agree on when to begin and what has been done. A round is a measurement.
///
/// | word  | written by | meaning                                              |
/// | ----- | ---------- | ---------------------------------------------------- |
/// | ROUND | near       | the round that is to come; the far side sleeps on it |
/// | COUNT | near       | its messages                                         |
/// | READY | far        | the round that the far side is awake for             |
/// | START | near       | the round that has begun                             |
/// | DONE  | far        | the round that the far side has finished             |
struct Control(Segment);

impl Control {
    const LEN: usize = 640;
    const ROUND: usize = 0;
    const COUNT: usize = 8;
    const READY: usize = 128;
    const START: usize = 256;
    const DONE: usize = 384;
    const ATTACHED: usize = 512;

    fn say_attached(&self) {
        self.0.word(Self::ATTACHED).store(1, Release);
    }

    fn await_attached(&self) {
        self.await_value(Self::ATTACHED, 1);
    }

    /// Wakes the far side, and waits until it is awake.
    fn announce(&self, count: u64) {
        self.0.long(Self::COUNT).store(count, Relaxed);
        let word = self.0.word(Self::ROUND);
        let round = word.load(Relaxed).wrapping_add(1);
        word.store(round, Release);
        futex_wake(word);
        self.await_value(Self::READY, round);
    }

    fn start(&self) -> Instant {
        let round = self.0.word(Self::ROUND).load(Relaxed);
        let start = Instant::now();
        self.0.word(Self::START).store(round, Release);
        start
    }

    fn await_done(&self) {
        let round = self.0.word(Self::ROUND).load(Relaxed);
        self.await_value(Self::DONE, round);
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
        self.0.word(Self::READY).store(round, Release);
        self.await_value(Self::START, round);
    }

    fn say_done(&self, round: u32) {
        self.0.word(Self::DONE).store(round, Release);
    }

    /// Spins, and lets the other process run should it be on the same core. [`Watch`] sees to it that
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

/// Where two processes meet.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    work: Work,
    create: bool,
}

fn meet(contender: Contender, place: Place<'_>) -> io::Result<Box<dyn Side>> {
    match (place.work, contender) {
        (Work::OneWay, Contender::Shmq) => join::<Bytes<64>>(place),
        (Work::OneWay, Contender::ShmqDefault) => join::<Bytes<0>>(place),
        (Work::OneWay, Contender::ShmqTyped) => join::<Typed>(place),
        (Work::OneWay, Contender::Textbook) => join::<Textbook>(place),
        (Work::OneWay, Contender::Spinning) => join::<Spinning<false>>(place),
        (Work::OneWay, Contender::SpinningPaced) => join::<Spinning<true>>(place),
        (Work::RoundTrip, Contender::Shmq) => join::<Pair<Bytes<64>>>(place),
        (Work::RoundTrip, Contender::ShmqDefault) => join::<Pair<Bytes<0>>>(place),
        (Work::RoundTrip, Contender::ShmqTyped) => join::<Pair<Typed>>(place),
        (Work::RoundTrip, Contender::Textbook) => join::<Pair<Textbook>>(place),
        (Work::RoundTrip, Contender::Spinning) => join::<Pair<Spinning<false>>>(place),
        (Work::RoundTrip, Contender::PingPong) => join::<PingPong>(place),
        (Work::OneWay, Contender::PingPong) | (Work::RoundTrip, Contender::SpinningPaced) => {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}

fn join<L: Link + 'static>(place: Place<'_>) -> io::Result<Box<dyn Side>> {
    let Place { name, work, create } = place;
    let link = if create { L::create(name, work.capacity())? } else { L::open(name)? };
    Ok(Box::new(Player { link, out: L::Item::blank(), got: L::Item::blank(), next: 0 }))
}

/// What a process does at its end of a link, so many messages at a time.
trait Side {
    fn unlink(&mut self) -> io::Result<()>;
    fn produce(&mut self, count: u64) -> io::Result<()>;
    fn consume(&mut self, count: u64) -> io::Result<()>;
    fn ask(&mut self, count: u64) -> io::Result<()>;
    fn ask_and_time(&mut self, count: u64, trips: &mut Vec<u32>) -> io::Result<()>;
    fn answer(&mut self, count: u64) -> io::Result<()>;
}

struct Player<L: Link> {
    link: L,
    out: L::Item,
    /// Another one than `out`, so that what is not written is seen.
    got: L::Item,
    /// The number of the next message.
    next: u64,
}

impl<L: Link> Player<L> {
    #[inline]
    fn send(&mut self) -> io::Result<()> {
        self.out.set_number(self.next);
        self.link.send(&self.out)
    }

    #[inline]
    fn receive(&mut self) -> io::Result<()> {
        self.link.receive(&mut self.got)?;
        if self.got.is_whole(self.next) { Ok(()) } else { Err(wrong(self.next)) }
    }
}

#[cold]
fn wrong(number: u64) -> io::Error {
    io::Error::other(format!("message {number} was lost, torn or reordered"))
}

impl<L: Link> Side for Player<L> {
    fn unlink(&mut self) -> io::Result<()> {
        self.link.unlink()
    }

    fn produce(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.send()?;
            self.next += 1;
        }
        Ok(())
    }

    fn consume(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.receive()?;
            self.next += 1;
        }
        Ok(())
    }

    fn ask(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.send()?;
            self.receive()?;
            self.next += 1;
        }
        Ok(())
    }

    fn ask_and_time(&mut self, count: u64, trips: &mut Vec<u32>) -> io::Result<()> {
        let mut before = Instant::now();
        for _ in 0..count {
            self.send()?;
            self.receive()?;
            self.next += 1;
            let after = Instant::now();
            trips.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
            before = after;
        }
        Ok(())
    }

    fn answer(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.receive()?;
            self.send()?;
            self.next += 1;
        }
        Ok(())
    }
}
