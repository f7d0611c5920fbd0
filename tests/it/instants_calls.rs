//! Every call on a queue, killed and stopped at every instruction: the table, and what must hold then.
//!
//! A call joins with an entry in [`CALLS`]. Messages are numbers; which come from whom can be told by them.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shmq::{ByteQueue, GetError, PutError, QueueOptions};

use crate::harness::{Forked, Record, Role, assert_prompt, exists, fork, ms, object, timed, until};
use crate::instants::{Moment, Route, Victim, Walk, is_asleep};
use crate::instants_court::{Log, Place, Trial, hold_court, play};
use crate::textbook::Textbook;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("instants::killed", |arguments| try_at_every_instant::<Shmq>(CALLS, Trial::Kill, arguments)),
    ("instants::stopped", |arguments| try_at_every_instant::<Shmq>(CALLS, Trial::Stop, arguments)),
    ("instants::textbook", |arguments| try_at_every_instant::<Textbook>(TEXTBOOK, Trial::Kill, arguments)),
];

// ---------------------------------------------------------------------------------------------------
// The table

/// How many messages every queue here holds.
pub(crate) const CAPACITY: u64 = 4;

/// What the survivors put.
const LATE: u64 = 100;
/// What others are given who wait for something; counted up.
const WAITED_FOR: u64 = 1000;
/// What a sleeper puts.
const SLEEPERS: u64 = 70;

/// An end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Put,
    Get,
}

/// Why a put or a get did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    InTime,
    Closed,
}

/// A call to be killed and stopped in.
pub(crate) struct Call<S> {
    pub(crate) name: &'static str,
    /// What is in the queue.
    pub(crate) before: &'static [u64],
    /// An end that a process died with, which has not been taken over yet.
    pub(crate) orphaned: Option<Side>,
    /// Somebody else sleeps at this end, for lack of messages or of room.
    pub(crate) asleep: Option<Side>,
    /// What is called, and what it got.
    pub(crate) run: fn(&S) -> Result<Vec<u64>, Refused>,
    /// The end that it works on.
    pub(crate) side: Option<Side>,
    /// It sleeps until somebody else does something at the other end.
    pub(crate) blocks: bool,
    /// What it puts.
    pub(crate) puts: &'static [u64],
    /// How many messages may have been put and got when it is left in the middle; the last of these is when it
    /// has returned.
    pub(crate) progress: &'static [(usize, usize)],
}

const NOTHING: Call<Shmq> = Call {
    name: "",
    before: &[],
    orphaned: None,
    asleep: None,
    run: |_| Ok(Vec::new()),
    side: None,
    blocks: false,
    puts: &[],
    progress: &[(0, 0)],
};
const PUT: Call<Shmq> = Call {
    run: |queue| queue.put(10, Duration::MAX).map(|()| Vec::new()),
    side: Some(Side::Put),
    puts: &[10],
    progress: &[(0, 0), (1, 0)],
    ..NOTHING
};
const GET: Call<Shmq> = Call {
    run: |queue| queue.get(Duration::MAX).map(|got| vec![got]),
    side: Some(Side::Get),
    progress: &[(0, 0), (0, 1)],
    ..NOTHING
};
const CLOSE: Call<Shmq> = Call {
    run: |queue| {
        queue.queue.close();
        Ok(Vec::new())
    },
    ..NOTHING
};

const PUT_MANY: Call<Shmq> = Call { run: put_many, puts: &[10, 11, 12], ..PUT };

pub(crate) fn put_many(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let messages = [message(10), message(11), message(12)];
    let messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    queue.queue.put_many(&messages).map_err(|error| refused_put(&error.error))?;
    Ok(Vec::new())
}

pub(crate) fn put_with(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let put = queue.queue.put_with(16, |bytes| bytes.copy_from_slice(&message(10)));
    put.map(|()| Vec::new()).map_err(|error| refused_put(&error))
}

pub(crate) fn get_with(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    queue.queue.get_with(|bytes| vec![number(bytes)]).map_err(|error| refused_get(&error))
}

pub(crate) fn get_many(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let got = queue.queue.get_many(10).map_err(|error| refused_get(&error))?;
    Ok(got.iter().map(|bytes| number(bytes)).collect())
}

pub(crate) fn produce(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let producer = queue.queue.producer().map_err(|error| refused_put(&error))?;
    for number in [10, 11] {
        producer.put(&message(number)).map_err(|error| refused_put(&error))?;
    }
    Ok(Vec::new())
}

pub(crate) fn consume(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let consumer = queue.queue.consumer().map_err(|error| refused_get(&error))?;
    let get = |_| consumer.get().map(|bytes| number(&bytes)).map_err(|error| refused_get(&error));
    (0..2).map(get).collect()
}

fn get_and_report(queue: &Shmq) -> Result<Vec<u64>, Refused> {
    let got = queue.get(Duration::MAX)?;
    queue.queue.task_done().expect("there was one");
    Ok(vec![got])
}

const CALLS: &[Call<Shmq>] = &[
    Call { name: "put", before: &[1, 2], ..PUT },
    Call { name: "put that wakes a sleeper", asleep: Some(Side::Get), ..PUT },
    Call { name: "put of the last that there is room for", before: &[1, 2, 3], ..PUT },
    Call { name: "put that waits for room", before: &[1, 2, 3, 4], blocks: true, ..PUT },
    Call {
        name: "put that waits for room with another",
        before: &[1, 2, 3, 4],
        blocks: true,
        asleep: Some(Side::Put),
        ..PUT
    },
    Call { name: "put that takes over", before: &[1, 2], orphaned: Some(Side::Put), ..PUT },
    Call { name: "get", before: &[1, 2], ..GET },
    Call { name: "get of the last", before: &[1], ..GET },
    Call { name: "get that wakes a sleeper", before: &[1, 2, 3, 4], asleep: Some(Side::Put), ..GET },
    Call { name: "get that waits for a message", blocks: true, ..GET },
    Call { name: "get that waits for a message with another", blocks: true, asleep: Some(Side::Get), ..GET },
    Call { name: "get that takes over", before: &[1, 2], orphaned: Some(Side::Get), ..GET },
    Call { name: "put_with", before: &[1, 2], run: put_with, ..PUT },
    Call { name: "put_with that waits for room", before: &[1, 2, 3, 4], blocks: true, run: put_with, ..PUT },
    Call { name: "get_with", before: &[1, 2], run: get_with, ..GET },
    Call { name: "get_with that waits for a message", blocks: true, run: get_with, ..GET },
    // One run: all or nothing.
    Call { name: "put_many", before: &[1], progress: &[(0, 0), (3, 0)], ..PUT_MANY },
    Call {
        name: "put_many that wakes a sleeper",
        progress: &[(0, 0), (3, 0)],
        asleep: Some(Side::Get),
        ..PUT_MANY
    },
    Call {
        name: "put_many that waits for room",
        before: &[1, 2, 3],
        progress: &[(0, 0), (1, 0), (2, 0), (3, 0)],
        blocks: true,
        ..PUT_MANY
    },
    Call { name: "get_many", before: &[1, 2, 3], progress: &[(0, 0), (0, 3)], run: get_many, ..GET },
    Call {
        name: "get_many that wakes a sleeper",
        before: &[1, 2, 3, 4],
        progress: &[(0, 0), (0, 4)],
        asleep: Some(Side::Put),
        run: get_many,
        ..GET
    },
    Call { name: "get_many that waits for a message", blocks: true, run: get_many, ..GET },
    Call {
        name: "producer",
        before: &[1],
        run: produce,
        puts: &[10, 11],
        progress: &[(0, 0), (1, 0), (2, 0)],
        ..PUT
    },
    Call {
        name: "producer that takes over",
        before: &[1],
        orphaned: Some(Side::Put),
        run: produce,
        puts: &[10, 11],
        progress: &[(0, 0), (1, 0), (2, 0)],
        ..PUT
    },
    Call { name: "consumer", before: &[1, 2], run: consume, progress: &[(0, 0), (0, 1), (0, 2)], ..GET },
    Call {
        name: "consumer that waits for messages",
        run: consume,
        blocks: true,
        progress: &[(0, 0), (0, 1), (0, 2)],
        ..GET
    },
    Call { name: "get and task_done", before: &[1, 2], run: get_and_report, ..GET },
    Call { name: "close", before: &[1, 2], ..CLOSE },
    Call { name: "close that wakes a consumer", asleep: Some(Side::Get), ..CLOSE },
    Call { name: "close that wakes a producer", before: &[1, 2, 3, 4], asleep: Some(Side::Put), ..CLOSE },
    Call { name: "close over a dead producer", before: &[1], orphaned: Some(Side::Put), ..CLOSE },
];

/// The textbook queue is to fail, so few calls do.
const TEXTBOOK: &[Call<Textbook>] = &[
    Call {
        name: "textbook get that waits for a message",
        before: &[],
        orphaned: None,
        asleep: None,
        run: |queue| queue.get(Duration::MAX).map(|got| vec![got]),
        side: Some(Side::Get),
        blocks: true,
        puts: &[],
        progress: &[(0, 0), (0, 1)],
    },
    Call {
        name: "textbook put that wakes a sleeper",
        before: &[],
        orphaned: None,
        asleep: Some(Side::Get),
        run: |queue| queue.put(10, Duration::MAX).map(|()| Vec::new()),
        side: Some(Side::Put),
        blocks: false,
        puts: &[10],
        progress: &[(0, 0), (1, 0)],
    },
];

// ---------------------------------------------------------------------------------------------------
// What is tried

/// How many messages have been put and got, by those words of the queue that decide it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) put: u64,
    pub(crate) got: u64,
}

impl Committed {
    fn pending(self) -> u64 {
        self.put - self.got
    }
}

/// A queue of numbers that the harness tries: this library's, or another to see whether the harness bites.
pub(crate) trait Subject: Sized {
    /// A new one, for [`CAPACITY`] messages.
    fn make(name: &str) -> Self;
    /// Once the messages are in it that are there before a call.
    fn ready(&self) {}
    /// As another process comes to it.
    fn attach(&self) -> Self;
    fn put(&self, number: u64, timeout: Duration) -> Result<(), Refused>;
    fn get(&self, timeout: Duration) -> Result<u64, Refused>;
    fn close(&self);
    fn is_closed(&self) -> bool;
    fn committed(&self) -> Committed;
    /// Whether somebody, dead or alive, is in the middle of a call at this end.
    fn is_owned(&self, side: Side) -> bool;
    /// Everything that is shared.
    fn look(&self, bytes: &mut Vec<u8>);
    /// Sizes and counters agree with what was committed, totals but for `deaths`. Nobody else is there.
    fn agrees(&self, deaths: u64);
    /// It is gone, and nothing is left of it.
    fn end(self);
}

/// This library's.
pub(crate) struct Shmq {
    pub(crate) queue: ByteQueue,
    pub(crate) file: File,
}

impl Shmq {
    fn word<const LEN: usize>(&self, offset: u64) -> [u8; LEN] {
        let mut word = [0; LEN];
        self.file.read_exact_at(&mut word, offset).expect("the segment can be read");
        word
    }

    pub(crate) fn of(queue: ByteQueue) -> Self {
        let file = File::open(object(queue.name())).expect("the segment has its name");
        Self { queue, file }
    }
}

/// A message with its number at both ends.
pub(crate) fn message(number: u64) -> Vec<u8> {
    let number = number.to_ne_bytes();
    [number, number].concat()
}

pub(crate) fn number(message: &[u8]) -> u64 {
    assert!(message.len() >= 16, "the message is cut");
    let ends = (message.first_chunk().expect("8 bytes"), message.last_chunk().expect("8 bytes"));
    assert_eq!(ends.0, ends.1, "the message is torn");
    u64::from_ne_bytes(*ends.0)
}

pub(crate) fn refused_put(error: &PutError) -> Refused {
    match error {
        PutError::Full => Refused::InTime,
        PutError::Closed => Refused::Closed,
        error => panic!("{error}"),
    }
}

fn refused_get(error: &GetError) -> Refused {
    match error {
        GetError::Empty => Refused::InTime,
        GetError::Closed => Refused::Closed,
        error => panic!("{error}"),
    }
}

// Offsets as in the tables of docs/design.md.
const PUT_LOCK: u64 = 1024;
const GET_LOCK: u64 = 1280;
const TAIL: u64 = 1152;
const HEAD: u64 = 1408;

impl Subject for Shmq {
    fn make(name: &str) -> Self {
        let mut options = QueueOptions::new();
        let options = options.capacity(CAPACITY.try_into().unwrap()).max_message(16);
        Self::of(options.create::<()>(name).expect("the name is free").into())
    }

    fn attach(&self) -> Self {
        Self::of(ByteQueue::open(self.queue.name()).expect("the queue is there"))
    }

    fn put(&self, number: u64, timeout: Duration) -> Result<(), Refused> {
        self.queue.put_timeout(&message(number), timeout).map_err(|error| refused_put(&error))
    }

    fn get(&self, timeout: Duration) -> Result<u64, Refused> {
        let got = self.queue.get_timeout(timeout).map_err(|error| refused_get(&error))?;
        Ok(number(&got))
    }

    fn close(&self) {
        self.queue.close();
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn committed(&self) -> Committed {
        let number = |offset| u64::from_ne_bytes(self.word(offset)) >> 32;
        let got = number(HEAD);
        Committed { put: number(TAIL), got }
    }

    fn is_owned(&self, side: Side) -> bool {
        let offset = if side == Side::Put { PUT_LOCK } else { GET_LOCK };
        u32::from_ne_bytes(self.word(offset)) & ((1 << 28) - 1) != 0
    }

    fn look(&self, bytes: &mut Vec<u8>) {
        bytes.resize(8192, 0);
        let got = self.file.read_at(bytes, 0).expect("the segment can be read");
        assert!(got > 4096 && got < 8192, "the whole of it");
    }

    fn agrees(&self, deaths: u64) {
        let Committed { put, got } = self.committed();
        let stats = self.queue.stats();
        assert_eq!(self.queue.qsize() as u64, put - got);
        assert_eq!(self.queue.empty(), put == got);
        assert!(stats.recoveries <= deaths, "{deaths} died: {stats:?}");
        let near = |total: u64, count: u64| total <= count && total + stats.recoveries >= count;
        assert!(near(stats.puts, put) && near(stats.gets, got), "{put} were put and {got} got: {stats:?}");
        let bytes = |bytes: u64, total: u64| bytes == 16 * total || stats.recoveries > 0;
        assert!(bytes(stats.put_bytes, stats.puts) && bytes(stats.get_bytes, stats.gets), "{stats:?}");
        assert_eq!(stats.attached, 1, "somebody else");
    }

    fn end(self) {
        let name = self.queue.name().to_owned();
        drop(self);
        assert!(!exists(&name), "it is still there");
    }
}

// ---------------------------------------------------------------------------------------------------
// One trial

/// How long a survivor waits before something is wrong.
const LONG: Duration = Duration::from_secs(6);

/// What the victim and the sleeper write down.
const VICTIM: u64 = 0;
const SLEEPER: u64 = 1;

/// Everybody in one trial but the victim.
struct Scene<'a, S> {
    call: &'a Call<S>,
    subject: S,
    deaths: u64,
    sleeper: Option<Forked>,
    /// What the victim and the sleeper did; see `outcome`.
    record: Record,
    /// Put by others than the victim, before or while it was in its call, and afterwards.
    early: RefCell<Vec<u64>>,
    late: RefCell<Vec<u64>>,
    /// The last message that somebody was given who waited for one.
    given: Cell<u64>,
    /// Got by others than the victim.
    got: RefCell<Vec<u64>>,
}

/// What became of the victim.
enum Fate {
    Died {
        /// At the end of its call.
        ended: bool,
        /// What it had put and got right then, if nobody else was at it.
        at_once: Option<(usize, usize)>,
    },
    Returned(Result<Vec<u64>, Refused>),
}

impl<'a, S: Subject> Scene<'a, S> {
    fn set(call: &'a Call<S>, name: &str) -> Self {
        let subject = S::make(name);
        for number in call.before {
            subject.put(*number, LONG).expect("there is room");
        }
        subject.ready();
        let record = Record::new();
        let mut deaths = 0;
        if let Some(side) = call.orphaned {
            let work = |subject: &S| match side {
                Side::Put => _ = subject.put(5, LONG),
                Side::Get => _ = subject.get(LONG),
            };
            let mut victim = Victim::start(|| subject.attach(), |subject| work(&subject), |()| 0);
            // The first thing that it changes is the lock.
            victim.go(&Route::default(), Moment::Change(1), |bytes| subject.look(bytes), None);
            victim.kill();
            deaths += 1;
            assert!(subject.is_owned(side), "it did not die with the end");
        }
        let sleeper = call.asleep.map(|side| {
            let sleeper = fork(|| {
                let subject = subject.attach();
                let done = match side {
                    Side::Put => subject.put(SLEEPERS, LONG).map(|()| Vec::new()),
                    Side::Get => subject.get(LONG).map(|got| vec![got]),
                };
                write_down(&record, SLEEPER, &done);
                0
            });
            until("the sleeper sleeps", || is_asleep(sleeper.pid()) && is_in_futex(sleeper.pid()));
            sleeper
        });
        let early = RefCell::new(call.before.to_vec());
        let (late, got) = Default::default();
        Self { call, subject, deaths, sleeper, record, early, late, given: Cell::new(WAITED_FOR), got }
    }

    /// A victim that has been walked to the moment.
    fn victim(&self) -> Victim {
        Victim::start(
            || self.subject.attach(),
            |subject| {
                let done = (self.call.run)(&subject);
                (subject, done)
            },
            |(_subject, done)| {
                write_down(&self.record, VICTIM, &done);
                0
            },
        )
    }

    fn go(&self, victim: &mut Victim, route: &Route, moment: Moment) -> Walk {
        let wake = || self.help(&self.early);
        let wake: Option<&dyn Fn()> = if self.call.blocks { Some(&wake) } else { None };
        victim.go(route, moment, |bytes| self.subject.look(bytes), wake)
    }

    /// The whole way.
    fn explore(call: &Call<S>, name: &str) -> Route {
        let scene = Scene::set(call, name);
        let mut victim = scene.victim();
        let wake = || scene.help(&scene.early);
        let wake: Option<&dyn Fn()> = if call.blocks { Some(&wake) } else { None };
        let route = victim.explore(|bytes| scene.subject.look(bytes), wake);
        victim.kill();
        let Scene { subject, sleeper, .. } = scene;
        drop(sleeper);
        subject.end();
        route
    }

    /// Does what somebody waits for who sleeps at the victim's end.
    fn help(&self, put: &RefCell<Vec<u64>>) {
        if let Some(side) = self.call.side {
            self.help_at(side, put);
        }
    }

    fn help_at(&self, side: Side, put: &RefCell<Vec<u64>>) {
        let pending = self.subject.committed().pending();
        match side {
            Side::Get if pending == 0 => {
                self.given.set(self.given.get() + 1);
                self.put(self.given.get(), put);
            }
            Side::Put if pending == CAPACITY => self.get(),
            _ => {}
        }
    }

    fn put(&self, number: u64, put: &RefCell<Vec<u64>>) {
        match self.subject.put(number, LONG) {
            Ok(()) => put.borrow_mut().push(number),
            Err(Refused::Closed) => {}
            Err(Refused::InTime) => panic!("there is room, and nobody is in the way"),
        }
    }

    fn get(&self) {
        match self.subject.get(LONG) {
            Ok(number) => self.got.borrow_mut().push(number),
            Err(Refused::Closed) => {}
            Err(Refused::InTime) => panic!("there is a message, and nobody is in the way"),
        }
    }

    /// The sleeper goes on: by itself if there is something for it, else after it has been given that.
    /// How long that took.
    fn awaken(&self, log: &Log) -> Option<Duration> {
        let (side, sleeper) = (self.call.asleep?, self.sleeper.as_ref()?);
        let ((), took) = timed(|| {
            if self.outcome(SLEEPER).is_none() && !self.subject.is_closed() {
                self.help_at(side, &self.late);
            }
            until("the sleeper goes on", || self.outcome(SLEEPER).is_some());
        });
        log.took(Place::Sleeper, took);
        assert_prompt(took);
        until("the sleeper ends", || sleeper.has_ended().is_some());
        match self.outcome(SLEEPER).expect("it has ended") {
            Ok(got) => {
                self.got.borrow_mut().extend(got);
                if side == Side::Put {
                    self.late.borrow_mut().push(SLEEPERS);
                }
            }
            Err(Refused::Closed) => assert!(self.subject.is_closed()),
            Err(Refused::InTime) => panic!("the sleeper was forgotten"),
        }
        Some(took)
    }

    /// The next put and get.
    fn go_on(&self, log: &Log) {
        let put = || self.put(LATE, &self.late);
        let get = || {
            if self.subject.committed().pending() > 0 {
                self.get();
            }
        };
        let is_full = self.subject.committed().pending() == CAPACITY;
        let first = timed(|| if is_full { get() } else { put() }).1;
        let second = timed(|| if is_full { put() } else { get() }).1;
        for took in [first, second] {
            log.took(Place::Call, took);
            assert_prompt(took);
        }
    }

    /// Takes everything out, and compares with what was committed.
    fn audit(&self, fate: &Fate) {
        while let Ok(number) = self.subject.get(Duration::ZERO) {
            self.got.borrow_mut().push(number);
        }
        assert_eq!(self.subject.committed().pending(), 0, "some cannot be got");
        let (early, late, got) = (self.early.borrow(), self.late.borrow(), self.got.borrow());
        let (put, taken) = self.victims();
        let progress = self.call.progress;
        let sent: Vec<_> = [&early, &self.call.puts[..put], &late].concat();
        let mut seen = got.clone();
        match fate {
            Fate::Died { ended, at_once } => {
                assert!(progress.contains(&(put, taken)), "it put {put} and got {taken}");
                if *ended {
                    assert_eq!(progress.last(), Some(&(put, taken)), "it had done all");
                }
                if let Some(at_once) = at_once {
                    assert_eq!((put, taken), *at_once, "the cursors said something else when it died");
                    assert_eq!(*got, sent[taken..], "in order");
                }
            }
            Fate::Returned(Ok(own)) => {
                // While it was stopped others may have put and got, so it gets what it finds then.
                assert_eq!((put, taken), (self.call.puts.len(), own.len()), "it returned {own:?}");
                seen.extend(own);
                assert_eq!(seen.len(), sent.len(), "{seen:?} of {sent:?}");
            }
            Fate::Returned(Err(refused)) => {
                assert_eq!(*refused, Refused::Closed);
                assert_ne!(progress.last(), Some(&(put, taken)), "it was refused");
            }
        }
        seen.sort_unstable();
        let total = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), total, "some came twice: {got:?} of {sent:?}");
        assert!(seen.iter().all(|number| sent.contains(number)), "{seen:?} of {sent:?}");
    }

    /// How many messages the victim has put and got, if nobody else is at it: those that no other did.
    fn victims(&self) -> (usize, usize) {
        let all = self.subject.committed();
        let others = [self.early.borrow().len() + self.late.borrow().len(), self.got.borrow().len()];
        let [put, got] = [all.put, all.got].map(|count| usize::try_from(count).unwrap());
        (put - others[0], got - others[1])
    }

    /// What the victim (the sleeper) did, if its call returned.
    fn outcome(&self, who: u64) -> Option<Result<Vec<u64>, Refused>> {
        let place = who * 100;
        match self.record.get(place) {
            0 => None,
            1 => Some(Err(Refused::InTime)),
            2 => Some(Err(Refused::Closed)),
            some => Some(Ok((1..=some - 3).map(|at| self.record.get(place + at)).collect())),
        }
    }
}

fn write_down(record: &Record, who: u64, done: &Result<Vec<u64>, Refused>) {
    let place = who * 100;
    let code = match done {
        Ok(got) => {
            for (at, number) in (1..).zip(got) {
                record.set(place + at, *number);
            }
            3 + got.len() as u64
        }
        Err(Refused::InTime) => 1,
        Err(Refused::Closed) => 2,
    };
    // Last: who reads it takes the rest for written.
    record.set(place, code);
}

fn is_in_futex(pid: i32) -> bool {
    let now = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    now.split(' ').next() == Some(&libc::SYS_futex.to_string())
}

/// Killed at this moment.
fn kill_at<S: Subject>(call: &Call<S>, route: &Route, moment: Moment, name: &str, log: &Log) {
    let mut scene = Scene::set(call, name);
    let mut victim = scene.victim();
    let walk = scene.go(&mut victim, route, moment);
    victim.kill();
    scene.deaths += 1;
    let at_once = scene.sleeper.is_none().then(|| scene.victims());
    if let Some(took) = scene.awaken(log)
        && walk.ended
    {
        log.add(Place::Ended, 1);
        // Walking to the end takes a part of the 75 ms after which it looks for itself.
        log.add(Place::Woken, u64::from(took < ms(5)));
    }
    scene.go_on(log);
    scene.audit(&Fate::Died { ended: walk.ended, at_once });
    scene.subject.agrees(scene.deaths);
    scene.subject.end();
}

/// Stopped at this moment. How, and whether the queue is closed meanwhile, changes with the trial's number.
fn stop_at<S: Subject>(call: &Call<S>, route: &Route, moment: Moment, number: u64, name: &str, log: &Log) {
    const TIMEOUT: Duration = Duration::from_millis(10);
    let scene = Scene::set(call, name);
    let mut victim = scene.victim();
    scene.go(&mut victim, route, moment);
    victim.stop(number.is_multiple_of(3));
    let alone = scene.sleeper.is_none();
    let in_the_way = scene.subject.is_owned(Side::Put) || scene.subject.committed().pending() == CAPACITY;
    let (put, took) = timed(|| scene.subject.put(LATE, TIMEOUT));
    log.deadline(TIMEOUT, took);
    match put {
        Ok(()) => scene.late.borrow_mut().push(LATE),
        Err(Refused::Closed) => assert!(scene.subject.is_closed()),
        Err(Refused::InTime) => assert!(in_the_way || !alone, "nothing was in the way of a put"),
    }
    let in_the_way = scene.subject.is_owned(Side::Get) || scene.subject.committed().pending() == 0;
    let (got, took) = timed(|| scene.subject.get(TIMEOUT));
    log.deadline(TIMEOUT, took);
    match got {
        Ok(number) => scene.got.borrow_mut().push(number),
        Err(Refused::Closed) => assert!(scene.subject.is_closed()),
        Err(Refused::InTime) => assert!(in_the_way || !alone, "nothing was in the way of a get"),
    }
    // Once around the ring: what the victim is reading or writing must not be among that.
    for _ in 0..=CAPACITY {
        scene.given.set(scene.given.get() + 1);
        if scene.subject.put(scene.given.get(), Duration::ZERO).is_ok() {
            scene.late.borrow_mut().push(scene.given.get());
        }
        if let Ok(number) = scene.subject.get(Duration::ZERO) {
            scene.got.borrow_mut().push(number);
        }
    }
    let ((), took) = timed(|| {
        scene.subject.is_closed();
        if number.is_multiple_of(2) {
            scene.subject.close();
        }
    });
    log.took(Place::Call, took);
    assert_prompt(took);

    victim.goes_on_to_its_end(|| scene.help(&scene.late));
    scene.awaken(log);
    scene.audit(&Fate::Returned(scene.outcome(VICTIM).expect("it has ended")));
    scene.subject.agrees(scene.deaths);
    scene.subject.end();
}

// ---------------------------------------------------------------------------------------------------
// All of them

/// The role: one call, at every instant.
pub(crate) fn try_at_every_instant<S: Subject>(calls: &[Call<S>], trial: Trial, arguments: &[String]) {
    let find = |name: &str| calls.iter().find(|call| call.name == name).expect("it is in the table");
    hold_court(
        trial,
        arguments,
        |call, name| Scene::explore(find(call), name),
        |call, route, moment, number, name, log| match trial {
            Trial::Kill => kill_at(find(call), route, moment, name, log),
            Trial::Stop => stop_at(find(call), route, moment, number, name, log),
        },
    );
}

/// Has every call tried that works on this end, and says what went wrong.
pub(crate) fn wrongs<S>(role: &str, calls: &[Call<S>], side: Option<Side>) -> Vec<String> {
    let calls = calls.iter().filter(|call| call.side == side).map(|call| call.name);
    play(&[], role, calls, ms(10_000))
}

fn try_all(role: &str, side: Option<Side>) {
    let wrong = wrongs(role, CALLS, side);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn killed_at_any_instruction_of_a_put_a_process_harms_nobody() {
    try_all("instants::killed", Some(Side::Put));
}

#[test]
fn killed_at_any_instruction_of_a_get_a_process_harms_nobody() {
    try_all("instants::killed", Some(Side::Get));
}

#[test]
fn killed_at_any_instruction_of_close_a_process_harms_nobody() {
    try_all("instants::killed", None);
}

#[test]
fn stopped_at_any_instruction_of_a_put_a_process_delays_nobody_beyond_the_deadline() {
    try_all("instants::stopped", Some(Side::Put));
}

#[test]
fn stopped_at_any_instruction_of_a_get_a_process_delays_nobody_beyond_the_deadline() {
    try_all("instants::stopped", Some(Side::Get));
}

#[test]
fn stopped_at_any_instruction_of_close_a_process_delays_nobody_beyond_the_deadline() {
    try_all("instants::stopped", None);
}

/// That the harness can say that something hangs: the textbook queue does.
#[test]
fn the_textbook_queue_hangs_when_a_process_is_killed_in_it() {
    let wrong = play(&[], "instants::textbook", TEXTBOOK.iter().map(|call| call.name), ms(1500));
    assert!(wrong.iter().any(|verdict| verdict.contains("hung")), "the harness found nothing: {wrong:?}");
}
