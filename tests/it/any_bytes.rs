//! Any bytes whatever: several processes make every call there is, on a queue whose bytes somebody flips,
//! tears, exchanges and plays back, between their calls and during them.
//!
//! No result is wrong but these: a panic, a signal (SIGSEGV, SIGBUS), a call that is back late or early, an
//! error that has nothing to do with the bytes, a write to where the library never writes.
//!
//! The seed is printed, and `SHMQ_TEST_SEED` repeats it; what happens at the same time is up to the
//! machine. `SHMQ_ANY_BYTES_SECONDS=600 cargo test --test it any_bytes` takes ten minutes instead of some
//! seconds.
//!
//! With `AddressSanitizer`, where a nightly toolchain is installed:
//!
//! ```text
//! RUSTFLAGS=-Zsanitizer=address cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir target/asan \
//!     --test it any_bytes
//! ```

use std::collections::BTreeMap;
use std::env;
use std::fmt::Debug;
use std::hint::spin_loop;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::hand::{Hand, Part, Vandal};
use crate::harness::{Child, Random, Role, Stage, assert_about, exit_now, hear, ms, nap, say, timed, until};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("any_bytes::uses", uses),
    ("any_bytes::uses_in_rounds", uses_in_rounds),
    ("any_bytes::waits_for_ever", waits_for_ever),
    ("any_bytes::vandalises", vandalises),
];

const SECONDS: &str = "SHMQ_ANY_BYTES_SECONDS";
/// How much later than its timeout a call may be back on an idle machine, and far more than it ever is.
const LATEST: Duration = Duration::from_secs(2);
/// A call this much later than its timeout is counted: now and then the machine is the reason, but not often.
const LATE: Duration = Duration::from_millis(40);
/// `open`, `create` and `remove` may wait this long for somebody in the middle of one of them.
const OPENING: Duration = Duration::from_secs(5);

/// How long each of the tests that depend on chance goes on.
fn length() -> Duration {
    match env::var(SECONDS) {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("a number of seconds")),
        Err(_) => Duration::from_secs(4),
    }
}

// ---------------------------------------------------------------------------------------------------
// The verdict

/// Calls that are going on, by thread, and when they have to be back.
static GOING_ON: Mutex<BTreeMap<u64, (&'static str, Instant)>> = Mutex::new(BTreeMap::new());

/// By how much the watch itself has ever been late, in microseconds: then the machine is busy.
static BUSY: AtomicU64 = AtomicU64::new(0);
/// How often the watch has looked.
static LOOKS: AtomicU64 = AtomicU64::new(0);

fn busy() -> Duration {
    Duration::from_micros(BUSY.load(Ordering::Relaxed))
}

/// How much later than its timeout a call may be back, on a machine as busy as it has been.
fn latest() -> Duration {
    LATEST + 20 * busy()
}

/// Ends this process, with a word about the queue, when a call of it hangs.
pub(crate) fn watch(name: &str) {
    const PAUSE: Duration = Duration::from_millis(20);
    let name = name.to_owned();
    thread::spawn(move || {
        loop {
            let ((), took) = timed(|| nap(PAUSE));
            let late = u64::try_from(took.saturating_sub(PAUSE).as_micros()).expect("not for ever");
            BUSY.fetch_max(late, Ordering::Relaxed);
            LOOKS.fetch_add(1, Ordering::Relaxed);
            let calls = GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
            let hangs = calls.values().find(|(_, end)| Instant::now() > *end + latest());
            let Some((what, _)) = hangs else { continue };
            let words = Hand::reach(&name).map_or("it is gone".to_owned(), |hand| hand.words());
            _ = writeln!(io::stderr(), "{what} hangs, {name}: {words}");
            exit_now(96);
        }
    });
}

/// One thread of one user of the queue.
pub(crate) struct User<'a> {
    name: &'a str,
    random: Random,
    handles: Vec<ByteQueue>,
    thread: u64,
    calls: u64,
    late: u64,
    /// By how much the latest call was late, and which.
    longest: (Duration, &'static str),
}

impl<'a> User<'a> {
    pub(crate) fn new(name: &'a str, random: Random, handle: ByteQueue) -> Self {
        static THREADS: AtomicU64 = AtomicU64::new(0);
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        Self {
            name,
            random,
            handles: vec![handle],
            thread,
            calls: 0,
            late: 0,
            longest: (Duration::ZERO, "none"),
        }
    }

    /// Makes a call that has this long, and says how long it took.
    pub(crate) fn call<R>(
        &mut self,
        what: &'static str,
        timeout: Duration,
        call: impl FnOnce() -> R,
    ) -> (R, Duration) {
        let going_on = || GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
        going_on().insert(self.thread, (what, Instant::now() + timeout));
        let (returned, took) = timed(call);
        going_on().remove(&self.thread);
        let over = took.saturating_sub(timeout);
        if over > LATEST {
            // The watch may have been late by as much, and not know it yet.
            let looks = LOOKS.load(Ordering::Relaxed);
            until("the watch looks", || LOOKS.load(Ordering::Relaxed) > looks + 1);
            assert!(over < latest(), "{what} took {took:?} instead of {timeout:?}");
        }
        self.calls += 1;
        self.late += u64::from(over > LATE + busy());
        self.longest = self.longest.max((over, what));
        (returned, took)
    }

    /// A call that waits for nothing.
    fn at_once<R>(&mut self, what: &'static str, call: impl FnOnce() -> R) -> R {
        self.call(what, Duration::ZERO, call).0
    }

    fn put(&mut self, what: &'static str, timeout: Duration, call: impl FnOnce() -> Result<(), PutError>) {
        let (put, took) = self.call(what, timeout, call);
        match put {
            Ok(()) | Err(PutError::Closed | PutError::Corrupt { .. } | PutError::TooLong { .. }) => {}
            Err(PutError::Full) => assert!(took >= timeout, "{what} said Full after {took:?} of {timeout:?}"),
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    fn get<R>(
        &mut self,
        what: &'static str,
        timeout: Duration,
        call: impl FnOnce() -> Result<R, GetError>,
    ) -> Option<R> {
        let (got, took) = self.call(what, timeout, call);
        match got {
            Ok(got) => return Some(got),
            Err(
                GetError::Closed
                | GetError::Corrupt { .. }
                | GetError::Decode { .. }
                | GetError::BufferTooShort { .. },
            ) => {}
            Err(GetError::Empty) => {
                assert!(took >= timeout, "{what} said Empty after {took:?} of {timeout:?}");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
        None
    }

    /// A call that makes a handle. It is kept for a while.
    fn open<R: Debug + Into<ByteQueue>>(
        &mut self,
        what: &'static str,
        call: impl FnOnce() -> Result<R, OpenError>,
    ) {
        match self.call(what, OPENING, call).0 {
            Ok(queue) => self.handles.push(queue.into()),
            Err(
                OpenError::NotFound { .. }
                | OpenError::AlreadyExists { .. }
                | OpenError::NotShmq { .. }
                | OpenError::Mismatch { .. },
            ) => {}
            Err(error) => panic!("{what}: {error:?}"),
        }
        if self.handles.len() > 3 {
            let place = self.random.index(self.handles.len());
            let handle = self.handles.swap_remove(place);
            self.call("drop", OPENING, || drop(handle));
        }
    }

    fn handle(&mut self) -> ByteQueue {
        let place = self.random.index(self.handles.len());
        self.handles[place].clone()
    }

    fn timeout(&mut self) -> Duration {
        match self.random.below(16) {
            0 => ms(20),
            1..=3 => ms(5),
            4 => Duration::from_nanos(self.random.below(2_000_000)),
            5 => Duration::ZERO,
            _ => ms(1),
        }
    }

    fn message(&mut self) -> Vec<u8> {
        let len = match self.random.below(8) {
            0 => 0,
            1 => self.random.index(300),
            _ => self.random.index(33),
        };
        vec![self.random.next().to_ne_bytes()[0]; len]
    }

    fn done(&self) -> String {
        format!("{} {} {} {}", self.calls, self.late, self.longest.0.as_micros(), self.longest.1)
    }
}

/// The options that everybody gives, since they know of each other.
pub(crate) fn options(capacity: usize) -> QueueOptions {
    QueueOptions::new().capacity(capacity).max_message(96).schema("label").clone()
}

/// Everything that can be done to a queue.
const CALLS: &[fn(&mut User<'_>)] = &[
    |user| {
        let (queue, message) = (user.handle(), user.message());
        user.put("put_nowait", Duration::ZERO, || queue.put_nowait(&message));
    },
    |user| {
        let (queue, message, timeout) = (user.handle(), user.message(), user.timeout());
        user.put("put_timeout", timeout, || queue.put_timeout(&message, timeout));
    },
    |user| {
        let (queue, message, timeout) = (user.handle(), user.message(), user.timeout());
        user.put("put_timeout", timeout, || queue.put_timeout(&message, timeout));
    },
    |user| {
        let queue = user.handle();
        user.get("get_nowait", Duration::ZERO, || queue.get_nowait());
    },
    |user| {
        let (queue, timeout) = (user.handle(), user.timeout());
        user.get("get_timeout", timeout, || queue.get_timeout(timeout));
    },
    |user| {
        let (queue, timeout) = (user.handle(), user.timeout());
        user.get("get_timeout", timeout, || queue.get_timeout(timeout));
    },
    |user| {
        let (queue, timeout, len) = (user.handle(), user.timeout(), user.random.index(100));
        let mut buffer = vec![0; len];
        let got = user.get("get_into_timeout", timeout, || queue.get_into_timeout(&mut buffer, timeout));
        assert!(got.is_none_or(|got| got <= len));
    },
    // What has a type.
    |user| {
        let (queue, number) = (user.handle(), user.random.next());
        let (queue, item) = (Queue::from(queue), (number, "text".repeat(usize::from(number % 2 == 0))));
        user.put("typed put_nowait", Duration::ZERO, || queue.put_nowait(&item));
    },
    |user| {
        let (queue, timeout) = (user.handle(), user.timeout());
        let (queue, item) = (Queue::from(queue), vec![Some(1.5), None]);
        user.put("typed put_timeout", timeout, || queue.put_timeout(&item, timeout));
    },
    |user| {
        let (queue, timeout) = (Queue::<(u64, String)>::from(user.handle()), user.timeout());
        user.get("typed get_timeout", timeout, || queue.get_timeout(timeout));
    },
    |user| {
        let queue = Queue::<Vec<Option<f64>>>::from(user.handle());
        user.get("typed get_nowait", Duration::ZERO, || queue.get_nowait());
    },
    // Handles that travel. Making one of what came is like `open`, and takes as long.
    |user| {
        let (queue, handle, timeout) = (user.handle(), user.handle(), user.timeout());
        let queue = Queue::<ByteQueue>::from(queue);
        user.put("put_timeout of a handle", timeout, || queue.put_timeout(&handle, timeout));
    },
    |user| {
        let queue = Queue::<ByteQueue>::from(user.handle());
        let got = user.call("get_nowait of a handle", OPENING, || queue.get_nowait()).0;
        match got {
            Ok(handle) => user.open("keep", || Ok(handle)),
            Err(error) => assert!(!matches!(error, GetError::Io(_)), "{error}"),
        }
    },
    // What never waits.
    |user| {
        let queue = user.handle();
        let [len, capacity] = [user.at_once("qsize", || queue.qsize()), queue.capacity().unwrap()];
        assert!(len <= capacity, "{len} in {capacity}");
    },
    |user| {
        let queue = user.handle();
        user.at_once("empty", || queue.empty());
    },
    |user| {
        let queue = user.handle();
        user.at_once("full", || queue.full());
    },
    |user| {
        let queue = user.handle();
        let stats = user.at_once("stats", || queue.stats());
        assert!((1..100).contains(&stats.attached), "{stats:?}");
    },
    |user| {
        let queue = user.handle();
        user.at_once("is_closed", || queue.is_closed());
    },
    |user| {
        let queue = user.handle();
        let text = user.at_once("Debug", || format!("{queue:?} {:?}", Queue::<u8>::from(queue.clone())));
        assert!(text.contains(user.name), "{text}");
    },
    |user| {
        // Closed is closed: rarely, since it is for ever.
        let queue = user.handle();
        if user.random.below(32) == 0 {
            user.at_once("close", || queue.close());
        }
    },
    // Names.
    |user| {
        let name = user.name;
        user.open("open", || ByteQueue::open(name));
    },
    |user| {
        let name = user.name;
        user.open("open with a label", || options(1).open::<u8>(name));
    },
    |user| {
        let name = user.name;
        user.open("create", || options(4).create::<u8>(name));
    },
    |user| {
        let name = user.name;
        user.open("open_or_create", || options(4).open_or_create::<u8>(name));
    },
    |user| {
        if user.random.below(32) == 0 {
            let name = user.name;
            match user.call("remove", OPENING, || shmq::remove(name)).0 {
                Ok(()) | Err(OpenError::NotFound { .. }) => {}
                Err(error) => panic!("remove: {error:?}"),
            }
        }
    },
    |user| {
        let queue = user.handle();
        user.open("clone", || Ok::<_, OpenError>(queue.clone()));
    },
];

// ---------------------------------------------------------------------------------------------------
// Roles

/// Opens the queue and has two threads use it, each with its own idea of the order.
fn with_users(arguments: &[String], use_it: impl Fn(&mut User<'_>, u64) + Sync) {
    let [name, seed] = arguments else { panic!("{arguments:?}") };
    let handle = ByteQueue::open(name).unwrap();
    watch(name);
    say("attached");
    let use_it = &use_it;
    thread::scope(|scope| {
        let threads = [0, 1].map(|number| {
            let random = Random::from_seed(seed.parse::<u64>().unwrap().wrapping_add(number << 32));
            let mut user = User::new(name, random, handle.clone());
            scope.spawn(move || {
                use_it(&mut user, number);
                user.done()
            })
        });
        drop(handle);
        for thread in threads {
            // A panic has been reported where it happened.
            say(&thread.join().unwrap_or_else(|_| exit_now(95)));
        }
    });
}

/// Uses the queue from when it is told to until it is told not to.
fn uses(arguments: &[String]) {
    let begun = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            hear();
            begun.store(true, Ordering::Relaxed);
            hear();
            over.store(true, Ordering::Relaxed);
        });
        with_users(arguments, |user, _| {
            while !begun.load(Ordering::Relaxed) {
                nap(ms(1));
            }
            while !over.load(Ordering::Relaxed) {
                CALLS[user.random.index(CALLS.len())](user);
            }
        });
    });
}

/// Makes each call about once, as often as it is told to, and is at rest in between.
fn uses_in_rounds(arguments: &[String]) {
    let rounds = AtomicU64::new(0);
    // Threads that are still at it.
    let left = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while hear() == "go" {
                left.store(2, Ordering::Relaxed);
                rounds.fetch_add(1, Ordering::Release);
            }
            over.store(true, Ordering::Relaxed);
        });
        with_users(arguments, |user, number| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                if rounds.load(Ordering::Acquire) == seen {
                    nap(Duration::from_micros(200));
                    continue;
                }
                seen += 1;
                // The two threads share the work.
                for _ in 0..CALLS.len() / 2 + usize::from(number == 0) {
                    CALLS[user.random.index(CALLS.len())](user);
                }
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    say("round");
                }
            }
        });
    });
}

/// Makes the calls that may wait for ever, until it is killed.
fn waits_for_ever(arguments: &[String]) {
    let [name] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(name).unwrap();
    say("attached");
    let typed = Queue::<String>::from(queue.clone());
    thread::scope(|scope| {
        let callers: [fn(&ByteQueue, &Queue<String>); 4] = [
            |queue, _| drop(queue.put(b"for ever")),
            |queue, _| drop(queue.get()),
            |queue, _| drop(queue.get_into(&mut [0; 16])),
            |_, typed| drop((typed.put(&"for ever".to_owned()), typed.iter().take(2).count())),
        ];
        for call in callers {
            let (queue, typed) = (&queue, &typed);
            scope.spawn(move || {
                loop {
                    if panic::catch_unwind(AssertUnwindSafe(|| call(queue, typed))).is_err() {
                        exit_now(95);
                    }
                    // Not to be in the way where every call fails at once.
                    nap(Duration::from_micros(100));
                }
            });
        }
    });
}

/// Does harm to whatever bears the name, at some rate and to some part, until it is told not to.
fn vandalises(arguments: &[String]) {
    let [name, seed, part] = arguments else { panic!("{arguments:?}") };
    let random = Random::from_seed(seed.parse().unwrap());
    let part = Part::ALL.into_iter().find(|known| format!("{known:?}") == *part);
    let mut vandal = Vandal::new(Hand::reach(name).unwrap(), random);
    say("attached");
    hear();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            hear();
            over.store(true, Ordering::Relaxed);
        });
        let mut harms = 0_u64;
        // Half of them hardly ever leave anything broken.
        let flickers = vandal.random.below(2) == 0;
        while !over.load(Ordering::Relaxed) {
            let part = part.unwrap_or_else(|| Part::any(&mut vandal.random));
            let pause = Duration::from_micros([0, 0, 1, 20, 200, 1000][vandal.random.index(6)]);
            if flickers && vandal.random.below(16) != 0 {
                // Many, since a call looks at a word twice within some nanoseconds.
                (0..500).for_each(|_| vandal.flicker(part));
            } else {
                vandal.harm(part);
            }
            harms += 1;
            vandal.look_at_owners();
            match vandal.random.below(256) {
                0..4 => vandal.remember(),
                // So that not all is lost from the first harm on.
                4..8 => vandal.restore(),
                8 => {
                    // It may be another object by now; of the old one there is nothing more to see.
                    let next = Hand::reach(name).filter(|hand| hand.len() == vandal.hand.len());
                    vandal.hand = next.unwrap_or(vandal.hand);
                    nap(ms(1));
                }
                _ => {}
            }
            let start = Instant::now();
            while start.elapsed() < pause {
                spin_loop();
            }
        }
        assert!(vandal.hand.behind().iter().all(|byte| *byte == 0), "somebody wrote behind the end");
        say(&format!("{harms} harms"));
    });
}

// ---------------------------------------------------------------------------------------------------
// Any bytes

/// What the users of a campaign said at its end, added up.
#[derive(Default, Debug)]
struct Tally {
    calls: u64,
    late: u64,
    longest: (Duration, String),
}

impl Tally {
    fn add(&mut self, said: &[String]) {
        for line in said {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let [calls, late, longest, what] = words[..] else { continue };
            let [calls, late, longest] = [calls, late, longest].map(|word| word.parse::<u64>().unwrap());
            self.calls += calls;
            self.late += late;
            let longest = (Duration::from_micros(longest), what.to_owned());
            self.longest = self.longest.clone().max(longest);
        }
    }
}

impl Drop for Tally {
    /// A call may be late because the machine was busy for a moment, but not one in fifty.
    fn drop(&mut self) {
        println!("{self:?}");
        if !thread::panicking() {
            assert!(self.calls > 100 && self.late <= self.calls / 50, "{self:?}");
        }
    }
}

/// Does this with each of them.
pub(crate) fn all<'a>(children: impl IntoIterator<Item = &'a mut Child>, act: impl FnMut(&'a mut Child)) {
    children.into_iter().for_each(act);
}

/// Makes a queue of some shape. It stays when its last handle goes, and has to be removed.
fn some_queue(name: &str, random: &mut Random) -> ByteQueue {
    let capacity = [1, 2, 3, 8, 100][random.index(5)];
    let mut options = options(capacity);
    // The end of the ring is not a multiple of a slot.
    options.ring_bytes(120 + 8 * random.index(100)).persistent(true);
    let queue = ByteQueue::from(options.create::<u8>(name).unwrap());
    for _ in 0..random.index(4) {
        _ = queue.put_nowait(b"to be found");
    }
    queue
}

/// Nobody is attached any more and nothing more is written. The header is whole.
fn settle(name: &str) {
    let queue = ByteQueue::open(name).unwrap();
    assert_eq!(queue.stats().attached, 1);
    let mut last = Vec::new();
    // As often as it takes until nobody can rely on what he had seen before.
    for _ in 0..2 * queue.capacity().unwrap() + 4 {
        let put = match timed(|| queue.put_timeout(b"x", ms(10))) {
            (Err(PutError::Full), took) => {
                assert_about(took, ms(10));
                "Full"
            }
            (Ok(()), _) => "Ok",
            (Err(PutError::Closed), _) => "Closed",
            (Err(PutError::Corrupt { .. }), _) => "Corrupt",
            (Err(error), _) => panic!("{error:?}"),
        };
        let got = match timed(|| queue.get_timeout(ms(10))) {
            (Err(GetError::Empty), took) => {
                assert_about(took, ms(10));
                "Empty"
            }
            (Ok(_), _) => "Ok",
            (Err(GetError::Closed), _) => "Closed",
            (Err(GetError::Corrupt { .. }), _) => "Corrupt",
            (Err(error), _) => panic!("{error:?}"),
        };
        last.push((put, got));
    }
    let settled = &last[last.len() - 3..];
    // Never full and empty at once: that would be an end that nobody gets, though its owner is dead.
    let sane = [
        ("Ok", "Ok"),
        ("Closed", "Closed"),
        ("Closed", "Corrupt"),
        ("Corrupt", "Corrupt"),
        // A length that makes no sense, in the way of what came after it.
        ("Full", "Corrupt"),
    ];
    let words = || Hand::reach(name).map(|hand| hand.words());
    assert!(sane.iter().any(|sane| settled.iter().all(|end| end == sane)), "{last:?}, {:?}", words());
    drop(queue);
    shmq::remove(name).unwrap();
    let new = ByteQueue::create(name, 2).unwrap();
    new.put(b"new").unwrap();
    assert_eq!(new.get_timeout(ms(10_000)).unwrap(), b"new");
    assert_eq!((new.qsize(), new.is_closed(), new.stats().attached), (0, false, 1));
}

/// Whoever still has an old handle lets it go, and whatever bears the name has to be as it was made.
fn settle_after(name: &str, vandal: &Vandal) {
    assert!(vandal.hand.behind().iter().all(|byte| *byte == 0), "somebody wrote behind the end");
    vandal.restore_header();
    if !vandal.hand.bears(name) {
        // The users have removed it and made others, whose headers may be anything.
        _ = shmq::remove(name);
        drop(some_queue(name, &mut Random::from_seed(0)));
    }
    settle(name);
}

#[test]
fn a_queue_whose_bytes_are_damaged_between_calls_is_used_in_time() {
    let mut random = Random::new();
    let start = Instant::now();
    let mut tally = Tally::default();
    while start.elapsed() < length() {
        // One for each campaign: a stage has a deadline.
        let stage = Stage::new();
        let name = stage.litter();
        drop(some_queue(&name, &mut random));
        let mut vandal = Vandal::new(Hand::reach(&name).unwrap(), Random::from_seed(random.next()));
        let seeds = [(); 3].map(|()| random.next().to_string());
        let mut users = seeds.map(|seed| stage.child("any_bytes::uses_in_rounds", &[&name, &seed]));
        all(&mut users, |user| user.heard("attached"));
        let part = Part::any(&mut random);
        println!("{part:?}");
        for round in 0..8 {
            for _ in 0..=random.below(4) {
                vandal.harm(part);
            }
            all(&mut users, |user| user.tell("go"));
            vandal.look_at_owners();
            all(&mut users, |user| user.heard("round"));
            vandal.remember();
            if round == 4 {
                vandal.restore();
            }
        }
        if !part.has_header() {
            assert!(vandal.header_is_whole(), "somebody wrote into the header");
        }
        for mut user in users {
            user.tell("over");
            tally.add(&user.finish());
        }
        settle_after(&name, &vandal);
    }
}

#[test]
fn a_queue_whose_bytes_are_damaged_during_calls_is_used_in_time() {
    let mut random = Random::new();
    let start = Instant::now();
    let mut tally = Tally::default();
    while start.elapsed() < length() {
        let stage = Stage::new();
        let name = stage.litter();
        drop(some_queue(&name, &mut random));
        let watcher = Vandal::new(Hand::reach(&name).unwrap(), Random::from_seed(random.next()));
        // Half of them leave nothing alone, half do all to one thing.
        let part = Some(Part::any(&mut random)).filter(|_| random.below(2) == 0);
        let of = part.map_or("every".to_owned(), |part| format!("{part:?}"));
        let mut child = |role: &str, more: &[&str]| {
            let seed = random.next().to_string();
            let arguments: Vec<_> = [name.as_str(), &seed].iter().chain(more).copied().collect();
            let mut child = stage.child(role, &arguments);
            child.heard("attached");
            child
        };
        let mut vandal = child("any_bytes::vandalises", &[&of]);
        let mut users = [(); 2].map(|()| child("any_bytes::uses", &[]));
        let mut killed = child("any_bytes::uses", &[]);
        let mut waiting = stage.child("any_bytes::waits_for_ever", &[&name]);
        waiting.heard("attached");
        // Not before: the first thing that they do may be to remove it.
        all(users.iter_mut().chain([&mut vandal, &mut killed]), |child| child.tell("go"));
        nap(ms(100 + random.below(200)));
        killed.kill();
        nap(ms(200 + random.below(200)));
        waiting.kill();
        vandal.tell("over");
        let harms = vandal.finish();
        all(&mut users, |user| user.tell("over"));
        for user in users {
            tally.add(&user.finish());
        }
        println!("{of}: {harms:?}");
        if !part.is_none_or(Part::has_header) {
            assert!(watcher.header_is_whole(), "somebody wrote into the header");
        }
        settle_after(&name, &watcher);
    }
}
