//! What a program may do to its own calls: signals that interrupt every wait, a fork by a signal handler in the
//! middle of one, a thousand threads on one handle, a handle that is leaked, items whose code uses the queue that
//! they travel in.
//!
//! (Forks in a call and among threads are in `fork`; a panic in an item's code by itself is in `semantics`.)

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shmq::{GetError, OpenError, PutError, Queue, QueueOptions};

use crate::broken::{GET_LOCK, PUT_LOCK};
use crate::faults::{child_of_a_handler, fork_at_tick, is_child_of_a_handler, shared, stop_ticking, tick};
use crate::harness::{
    self, Forked, Role, Stage, assert_about, assert_prompt, exists, fork, ms, nap, object, play, say, timed,
    until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("stress::waits_under_signals", waits_under_signals),
    ("stress::owners_under_signals", owners_under_signals),
    ("stress::comes_under_signals", comes_under_signals),
    ("stress::handler_forks", handler_forks),
    ("stress::thousand_threads", thousand_threads),
    ("stress::thousand_behind_the_dead", thousand_behind_the_dead),
    ("stress::forgets", forgets),
];

/// A process that owns the lock of an end, as one does that was stopped in the middle of a call.
pub(crate) struct Owner {
    process: Forked,
}

impl Owner {
    /// Takes the lock at this place of the segment, which must be free.
    pub(crate) fn of(name: &str, lock: u64) -> Self {
        /// A lease id that nobody is likely to have drawn.
        const ID: u32 = 77_777;
        let words = shared::<AtomicU64>(1);
        let process = fork(|| {
            let file = fs::OpenOptions::new().read(true).write(true).open(object(name)).unwrap();
            harness::lock(&file, ID, Some(1));
            file.write_all_at(&ID.to_ne_bytes(), lock).unwrap();
            words[0].store(1, Ordering::SeqCst);
            loop {
                nap(ms(1000));
            }
        });
        until("the lock has an owner", || words[0].load(Ordering::SeqCst) == 1);
        Self { process }
    }

    pub(crate) fn dies(self) {
        self.process.kill();
    }
}

// ---------------------------------------------------------------------------------------------------
// Signals

// Places in the shared words.
/// How many signals came since the work began.
const SIGNALS: usize = 0;
/// Whether it is over.
const OVER: usize = 1;

fn clear(words: &[AtomicU64]) {
    for word in words {
        word.store(0, Ordering::SeqCst);
    }
}

/// A process that does this work while a signal comes every millisecond.
fn interrupted(words: &'static [AtomicU64], restart: bool, work: impl FnOnce()) -> Forked {
    clear(words);
    let process = fork(|| {
        tick(ms(1), restart, &words[SIGNALS]);
        work();
        stop_ticking();
        words[OVER].store(1, Ordering::SeqCst);
        0
    });
    // By then it waits, unless it is through already.
    until("there are signals", || {
        words[SIGNALS].load(Ordering::SeqCst) >= 80 || words[OVER].load(Ordering::SeqCst) == 1
    });
    process
}

/// Waits for its end, which is near. How long that took.
fn ends(process: &Forked, words: &[AtomicU64]) -> Duration {
    let (code, took) = timed(|| process.wait());
    assert_eq!(code, 0);
    assert_prompt(took);
    let signals = words[SIGNALS].load(Ordering::SeqCst);
    assert!(signals >= 10, "only {signals} signals came");
    took
}

#[test]
fn signals_neither_end_a_wait_early_nor_keep_it_from_ending() {
    play("stress::waits_under_signals");
}

fn waits_under_signals(arguments: &[String]) {
    let name = &arguments[0];
    let queue = Queue::<u64>::create(name, 1).unwrap();
    let words = shared(2);
    let mut longest = Duration::ZERO;
    for restart in [false, true] {
        // For a message.
        let waiter = interrupted(words, restart, || {
            assert_eq!(Queue::<u64>::open(name).unwrap().get().unwrap(), 7);
        });
        queue.put(&7).unwrap();
        longest = longest.max(ends(&waiter, words));
        // For one that does not come.
        let waiter = interrupted(words, restart, || {
            let queue = Queue::<u64>::open(name).unwrap();
            let (got, took) = timed(|| queue.get_timeout(ms(300)));
            assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
            assert_about(took, ms(300));
        });
        ends(&waiter, words);
        // For room.
        queue.put(&1).unwrap();
        let waiter = interrupted(words, restart, || Queue::<u64>::open(name).unwrap().put(&8).unwrap());
        assert_eq!(queue.get().unwrap(), 1);
        longest = longest.max(ends(&waiter, words));
        assert_eq!(queue.qsize(), 1);
        let waiter = interrupted(words, restart, || {
            let queue = Queue::<u64>::open(name).unwrap();
            let (put, took) = timed(|| queue.put_timeout(&9, ms(300)));
            assert!(matches!(put, Err(PutError::Full)), "{put:?}");
            assert_about(took, ms(300));
        });
        ends(&waiter, words);
        assert_eq!(queue.get().unwrap(), 8);
    }
    // For the end of the queue.
    let waiter = interrupted(words, false, || {
        assert!(matches!(Queue::<u64>::open(name).unwrap().get(), Err(GetError::Closed)));
    });
    queue.close();
    longest = longest.max(ends(&waiter, words));
    say(&format!("a wait ended at most {longest:.1?} after its reason"));
    assert_eq!(queue.stats().recoveries, 0);
}

/// Each wait behind an owner begins with short sleeps, after which it asks whether the owner lives. A signal
/// that ends each of them must not put that off for ever.
#[test]
fn signals_do_not_keep_a_waiter_from_noticing_that_the_owner_has_died() {
    play("stress::owners_under_signals");
}

fn owners_under_signals(arguments: &[String]) {
    let name = &arguments[0];
    let queue = Queue::<u64>::create(name, 4).unwrap();
    let words = shared(2);
    // As long as the owner lives, there is nothing to be had.
    for restart in [false, true] {
        let owner = Owner::of(name, PUT_LOCK);
        let waiter = interrupted(words, restart, || {
            let queue = Queue::<u64>::open(name).unwrap();
            let (put, took) = timed(|| queue.put_timeout(&9, ms(300)));
            assert!(matches!(put, Err(PutError::Full)), "{put:?}");
            assert_about(took, ms(300));
        });
        ends(&waiter, words);
        owner.dies();
        queue.put(&9).unwrap();
        assert_eq!(queue.get().unwrap(), 9);
    }
    // When it dies, it takes no longer than without signals: about as long as the longest sleep behind an owner,
    // 20 ms, of which a waiter that signals put off has to wait for many. A busy machine delays some of them, so
    // the middle one counts, and there are several goes.
    let mut middles = Vec::new();
    while middles.last().is_none_or(|middle| *middle > ms(60)) {
        assert!(middles.len() < 4, "taken over {middles:?} after the death");
        let mut delays: Vec<_> = [false, true]
            .repeat(3)
            .into_iter()
            .flat_map(|restart| delays_behind_the_dead(&queue, words, restart))
            .collect();
        delays.sort_unstable();
        middles.push(delays[delays.len() / 2]);
        say(&format!(
            "taken over {:.1?} after the death, at most {:.1?}",
            middles[middles.len() - 1],
            delays[delays.len() - 1]
        ));
    }
    assert_eq!(queue.stats().recoveries, 2 + 12 * middles.len() as u64);
}

/// How long after the death of an owner a put and a get that wait behind it end.
fn delays_behind_the_dead(queue: &Queue<u64>, words: &'static [AtomicU64], restart: bool) -> [Duration; 2] {
    let name = queue.name();
    let owner = Owner::of(name, PUT_LOCK);
    let waiter = interrupted(words, restart, || Queue::<u64>::open(name).unwrap().put(&1).unwrap());
    assert!(waiter.has_ended().is_none() && queue.empty());
    owner.dies();
    let put = ends(&waiter, words);

    let owner = Owner::of(name, GET_LOCK);
    let waiter = interrupted(words, restart, || {
        assert_eq!(Queue::<u64>::open(name).unwrap().get().unwrap(), 1);
    });
    assert!(waiter.has_ended().is_none() && !queue.empty());
    owner.dies();
    let get = ends(&waiter, words);
    assert!(queue.empty());
    [put, get]
}

/// Some kernels give up an allocation when a signal comes, and opening pauses while somebody is in the way.
#[test]
fn signals_keep_nobody_from_coming() {
    play("stress::comes_under_signals");
}

fn comes_under_signals(arguments: &[String]) {
    let name = &arguments[0];
    let words = shared::<AtomicU64>(2);
    let comer = fork(|| {
        // So often that no long step of an allocation ever gets done.
        tick(Duration::from_micros(150), true, &words[1]);
        let mut options = QueueOptions::new();
        options.capacity(64).max_message(1 << 20).ring_bytes(24 << 20);
        let (queue, took) = timed(|| options.create::<Vec<u8>>(name).unwrap());
        stop_ticking();
        words[0].store(u64::try_from(took.as_micros()).unwrap(), Ordering::SeqCst);
        queue.put(&vec![1; 1 << 19]).unwrap();
        assert_eq!(queue.get().unwrap().len(), 1 << 19);
        0
    });
    assert_eq!(comer.wait(), 0, "not even a segment can be made");
    say(&format!("made in {} us", words[0].load(Ordering::SeqCst)));

    // Somebody left it by a crash, and somebody else is stopped while it looks whether anybody is there.
    let crashed = fork(|| {
        std::mem::forget(Queue::<u64>::create(name, 1).unwrap());
        0
    });
    assert_eq!(crashed.wait(), 0);
    let file = fs::OpenOptions::new().read(true).write(true).open(object(name)).unwrap();
    harness::lock(&file, 0, Some(1 << 28));
    let waiter = fork(|| {
        tick(ms(1), false, &words[1]);
        let (opened, took) = timed(|| Queue::<u64>::open(name));
        let Err(OpenError::Io(error)) = opened else { panic!("{opened:?}") };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((ms(4900)..ms(9000)).contains(&took), "{took:?}");
        // And for a moment only.
        words[0].store(0, Ordering::SeqCst);
        drop(Queue::<u64>::open(name).unwrap());
        0
    });
    until("the first try is over", || words[0].load(Ordering::SeqCst) == 0);
    nap(ms(100));
    harness::unlock(&file, 0, Some(1 << 28));
    assert_eq!(waiter.wait(), 0);
    assert!(!exists(name));
}

// ---------------------------------------------------------------------------------------------------
// A fork by a signal handler

/// In the middle of a wait. In the parent the call goes on; in the child, which has the same call to return from, it
/// says that it has done nothing, and the child may call again.
#[test]
fn a_handler_may_fork_in_the_middle_of_any_wait() {
    play("stress::handler_forks");
}

/// A call with this handle, the first or another; what was put or got, or what an `Io` error says.
type Call = dyn Fn(&Queue<u64>, bool) -> Result<u64, String>;

fn handler_forks(arguments: &[String]) {
    let name = &arguments[0];
    let queue = Queue::<u64>::create(name, 2).unwrap();
    // What the parent and the child of the handler got; signals; whether the child is there.
    let words = shared::<AtomicU64>(4);
    let forks = |call: &Call| {
        clear(words);
        fork(|| {
            let queue = Queue::<u64>::open(name).unwrap();
            fork_at_tick(40, &words[3]);
            tick(ms(1), false, &words[2]);
            let first = call(&queue, false);
            stop_ticking();
            if is_child_of_a_handler() {
                let text = first.expect_err("the call is the parent's");
                assert!(text.contains("forked in the middle"), "{text}");
                words[1].store(call(&queue, true).unwrap(), Ordering::SeqCst);
                return 0;
            }
            words[0].store(first.unwrap(), Ordering::SeqCst);
            child_of_a_handler().expect("the wait was long enough").wait()
        })
    };
    let get = |queue: &Queue<u64>, _: bool| match queue.get_timeout(ms(20_000)) {
        Ok(number) => Ok(number),
        Err(GetError::Io(error)) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    };
    let put = |queue: &Queue<u64>, again: bool| {
        let number = if again { 11 } else { 10 };
        match queue.put_timeout(&number, ms(20_000)) {
            Ok(()) => Ok(number),
            Err(PutError::Io(error)) => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    };
    let got = || {
        let got: BTreeSet<_> = words[..2].iter().map(|word| word.swap(0, Ordering::SeqCst)).collect();
        got.into_iter().collect::<Vec<_>>()
    };
    let has_forked = || until("the handler forks", || words[3].load(Ordering::SeqCst) == 1);
    let put_two = || {
        for number in [1, 2] {
            queue.put(&number).unwrap();
        }
    };
    let drained = || {
        let all: BTreeSet<_> = std::iter::from_fn(|| queue.get_nowait().ok()).collect();
        all.into_iter().collect::<Vec<_>>()
    };
    for round in 0..3 {
        // Asleep for a message, and for room.
        let process = forks(&get);
        has_forked();
        put_two();
        assert_eq!(process.wait(), 0, "get, round {round}");
        assert_eq!(got(), [1, 2]);
        assert!(queue.empty());

        put_two();
        let process = forks(&put);
        has_forked();
        assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
        assert_eq!(process.wait(), 0, "put, round {round}");
        assert_eq!((got(), drained()), (vec![10, 11], vec![10, 11]));

        // Behind an owner who then dies.
        let owner = Owner::of(name, PUT_LOCK);
        let process = forks(&put);
        has_forked();
        owner.dies();
        assert_eq!(process.wait(), 0, "put behind an owner, round {round}");
        assert_eq!((got(), drained()), (vec![10, 11], vec![10, 11]));

        put_two();
        let owner = Owner::of(name, GET_LOCK);
        let process = forks(&get);
        has_forked();
        owner.dies();
        assert_eq!(process.wait(), 0, "get behind an owner, round {round}");
        assert_eq!(got(), [1, 2]);
    }
    assert_eq!((queue.stats().attached, queue.stats().recoveries), (1, 6));
}

// ---------------------------------------------------------------------------------------------------
// A thousand threads

const THREADS: u64 = 1000;

fn with_a_small_stack<'scope>(scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap();
}

#[test]
fn a_thousand_threads_share_one_handle() {
    play("stress::thousand_threads");
}

fn thousand_threads(arguments: &[String]) {
    const EACH: u64 = 20;
    let queue = Queue::<u64>::create(&arguments[0], 8).unwrap();
    let got = std::sync::Mutex::new(Vec::new());
    let left = AtomicU64::new(THREADS / 2);
    let ((), took) = timed(|| {
        thread::scope(|scope| {
            for thread in 0..THREADS / 2 {
                let (queue, got, left) = (&queue, &got, &left);
                with_a_small_stack(scope, move || {
                    (0..EACH).for_each(|number| queue.put(&(thread * EACH + number)).unwrap());
                    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                        queue.close();
                    }
                });
                with_a_small_stack(scope, move || {
                    let all: Vec<_> = queue.iter().collect();
                    got.lock().unwrap().extend(all);
                });
            }
        });
    });
    let mut got = got.into_inner().unwrap();
    got.sort_unstable();
    assert!(got.into_iter().eq(0..THREADS / 2 * EACH));
    assert_eq!((queue.stats().attached, queue.stats().recoveries), (1, 0));
    say(&format!("{} messages in {took:.1?}", THREADS / 2 * EACH));
}

/// Only one thread of a handle at a time can take over from a dead owner; the others wait behind that one.
#[test]
fn a_thousand_threads_of_one_handle_wait_behind_an_owner_who_dies() {
    play("stress::thousand_behind_the_dead");
}

fn thousand_behind_the_dead(arguments: &[String]) {
    let mut options = QueueOptions::new();
    let queue = options.capacity(2000).max_message(16).create::<u64>(&arguments[0]).unwrap();
    let owner = Owner::of(queue.name(), PUT_LOCK);
    let waiting = AtomicU64::new(0);
    let ((), took) = thread::scope(|scope| {
        for thread in 0..THREADS {
            let (queue, waiting) = (&queue, &waiting);
            with_a_small_stack(scope, move || {
                waiting.fetch_add(1, Ordering::SeqCst);
                queue.put(&thread).unwrap();
            });
        }
        until("everybody waits", || waiting.load(Ordering::SeqCst) == THREADS);
        nap(ms(100));
        assert!(queue.empty());
        owner.dies();
        timed(|| until("everybody has put", || queue.qsize() as u64 == THREADS))
    });
    assert_eq!(queue.stats().recoveries, 1);
    queue.close();
    let got: BTreeSet<_> = queue.iter().collect();
    assert!(got.into_iter().eq(0..THREADS));
    say(&format!("all had put {took:.1?} after the death"));
}

// ---------------------------------------------------------------------------------------------------
// Leaked

/// A handle that is never dropped stays attached until its process ends, and no longer; to the name it is a
/// crash then.
#[test]
fn a_leaked_handle_stays_attached_until_its_process_ends() {
    play("stress::forgets");
}

fn forgets(arguments: &[String]) {
    const FORGOTTEN: usize = 0;
    const GO: usize = 1;
    let name = &arguments[0];
    let words = shared::<AtomicU64>(2);
    for a_clone in [false, true] {
        clear(words);
        let leaky = fork(|| {
            let queue = Queue::<u64>::create(name, 4).unwrap();
            queue.put(&1).unwrap();
            if a_clone {
                // The clones share one handle: it goes when all of them have.
                std::mem::forget(queue.clone());
                drop(queue);
            } else {
                std::mem::forget(queue);
            }
            // In the same process it is as attached as any other.
            assert!(matches!(Queue::<u64>::create(name, 4), Err(OpenError::AlreadyExists { .. })));
            let another = Queue::<u64>::open(name).unwrap();
            assert_eq!(another.stats().attached, 2);
            drop(another);
            assert!(exists(name));
            words[FORGOTTEN].store(1, Ordering::SeqCst);
            until("it is over", || words[GO].load(Ordering::SeqCst) == 1);
            0
        });
        until("it is forgotten", || words[FORGOTTEN].load(Ordering::SeqCst) == 1);
        assert!(matches!(Queue::<u64>::create(name, 4), Err(OpenError::AlreadyExists { .. })));
        let opened = Queue::<u64>::open(name).unwrap();
        assert_eq!((opened.stats().attached, opened.get().unwrap()), (2, 1));
        drop(opened);
        assert!(exists(name), "the leaked one is attached");
        words[GO].store(1, Ordering::SeqCst);
        assert_eq!(leaky.wait(), 0);
        assert!(exists(name), "an end without drops is a crash");
        let new = Queue::<u64>::create(name, 4).unwrap();
        assert!(new.empty());
        drop(new);
        assert!(!exists(name));
    }
}

// ---------------------------------------------------------------------------------------------------
// Items that use the queue they travel in

thread_local! {
    /// The queue that items of this thread use.
    static QUEUE: RefCell<Option<Queue<Nested>>> = const { RefCell::new(None) };
}

/// Encoding it puts everything smaller first; decoding it gets what comes after it. `PANICS` panics.
#[derive(Debug, PartialEq)]
struct Nested(u32);

const PANICS: u32 = 1000;

fn same_queue() -> Queue<Nested> {
    QUEUE.with_borrow(|queue| queue.clone().expect("the test has set it"))
}

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 > 0 && self.0 < PANICS {
            same_queue().put(&Self(self.0 - 1)).expect("no end is held meanwhile");
        }
        assert!(self.0 != PANICS, "no way out");
        (self.0, "x".repeat(100)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, rest) = <(u32, String)>::deserialize(deserializer)?;
        assert_eq!(rest, "x".repeat(100));
        if number.is_multiple_of(2) {
            match same_queue().get_nowait() {
                Ok(Self(next)) => assert!(next > number, "{next} after {number}"),
                Err(GetError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(number != PANICS + 1, "no way in");
        Ok(Self(number))
    }
}

#[test]
fn an_item_may_use_its_own_queue_while_it_is_encoded_and_decoded() {
    let _stage = Stage::new();
    let queue = Queue::<Nested>::new(100).unwrap();
    QUEUE.set(Some(queue.clone()));
    // From the inside out.
    queue.put(&Nested(9)).unwrap();
    assert_eq!(queue.qsize(), 10);
    // 0 takes 1 with it, 2 takes 3, and so on.
    let got: Vec<_> = std::iter::from_fn(|| queue.get_nowait().ok()).map(|item| item.0).collect();
    assert_eq!(got, [0, 2, 4, 6, 8]);

    // A panic in the middle of it: what was put before it is in, and nothing else; the queue goes on.
    let panicked = catch_unwind(AssertUnwindSafe(|| queue.put(&Nested(PANICS))));
    assert!(panicked.is_err());
    assert!(queue.empty());
    for number in [PANICS + 1, 1, 3] {
        let raw = Queue::<(u32, String)>::open(queue.name()).unwrap();
        raw.put(&(number, "x".repeat(100))).unwrap();
    }
    assert!(catch_unwind(AssertUnwindSafe(|| queue.get())).is_err());
    assert_eq!(queue.get().unwrap(), Nested(1));
    assert_eq!(queue.get().unwrap(), Nested(3));
    assert!(queue.empty());
    queue.put(&Nested(2)).unwrap();
    assert_eq!(queue.qsize(), 3);
    QUEUE.set(None);
}
