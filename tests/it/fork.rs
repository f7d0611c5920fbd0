//! `fork` without `exec`: the child may use the handles that it inherited, and neither side hides the death of
//! the other or acts in its name.
//!
//! Every test is a role: the test process itself has threads of other tests.

use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::harness::{
    Forked, Record, Role, adopt_orphans, adopted, assert_about, assert_prompt, exists, exit_now, fork,
    fork_here, fork_orphan, ms, nap, play, say, slow_forks, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("fork::inherits", inherits),
    ("fork::inherits_twice", inherits_twice),
    ("fork::drops", drops),
    ("fork::outlives", outlives),
    ("fork::shows_a_death", shows_a_death),
    ("fork::leaves_a_name", leaves_a_name),
    ("fork::executes", executes),
    ("fork::parent_dies_at_it", parent_dies_at_it),
    ("fork::child_dies_at_it", child_dies_at_it),
    ("fork::while_encoding", while_encoding),
    ("fork::while_decoding", while_decoding),
    ("fork::amid_threads", amid_threads),
    ("fork::from_two_threads", from_two_threads),
    ("fork::slowly_from_two_threads", slowly_from_two_threads),
];

#[test]
fn a_child_puts_and_gets_with_the_handle_it_inherited() {
    play("fork::inherits");
}

fn inherits(arguments: &[String]) {
    let queue = Queue::<String>::create(&arguments[0], 2).unwrap();
    let replies = Queue::<String>::new(2).unwrap();
    let record = Record::new();
    for round in 0..20 {
        queue.put(&format!("question {round}")).unwrap();
        let child = fork(|| {
            assert_eq!(queue.name(), arguments[0]);
            assert_eq!(queue.get().unwrap(), format!("question {round}"));
            replies.put(&format!("answer {round}")).unwrap();
            // It counts for itself.
            record.set(0, queue.stats().attached);
            // Both are in use: sleep and be woken across the fork.
            assert_eq!(queue.get().unwrap(), "end");
            0
        });
        assert_eq!(replies.get().unwrap(), format!("answer {round}"));
        child.falls_asleep();
        assert_eq!(record.get(0), 2);
        queue.put(&"end".to_owned()).unwrap();
        assert_eq!(child.wait(), 0);
        assert_eq!((queue.stats().attached, replies.stats().attached), (1, 1));
    }
    assert_eq!(queue.stats().recoveries, 0);
}

#[test]
fn a_child_of_a_child_uses_the_handle_too() {
    play("fork::inherits_twice");
}

fn inherits_twice(arguments: &[String]) {
    let queue = Queue::<u8>::create(&arguments[0], 8).unwrap();
    let child = fork(|| {
        queue.put(&1).unwrap();
        let grandchild = fork(|| {
            queue.put(&2).unwrap();
            fork(|| i32::from(queue.put(&3).is_err())).wait()
        });
        let code = grandchild.wait();
        queue.put(&4).unwrap();
        code
    });
    assert_eq!(child.wait(), 0);
    queue.close();
    assert_eq!(queue.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn a_child_that_drops_what_it_inherited_removes_nothing_under_its_parent() {
    play("fork::drops");
}

fn drops(arguments: &[String]) {
    let name = &arguments[0];
    for uses_it in [false, true] {
        let mut queue = Some(Queue::<u8>::create(name, 8).unwrap());
        let child = fork(|| {
            let queue = queue.take().unwrap();
            if uses_it {
                queue.put(&1).unwrap();
            }
            drop(queue);
            i32::from(!exists(name))
        });
        assert_eq!(child.wait(), 0);
        let queue = queue.unwrap();
        assert!(exists(name));
        assert_eq!((queue.qsize(), queue.stats().attached), (usize::from(uses_it), 1));
        queue.put(&2).unwrap();
        let other = Queue::<u8>::open(name).unwrap();
        assert_eq!(other.stats().attached, 2);
        drop((queue, other));
        assert!(!exists(name));
    }
}

/// The parent leaves first. A child that has used the handle is the last one; one that has not does not count,
/// but what it has still works.
#[test]
fn a_child_may_use_the_handle_when_its_parent_has_left() {
    play("fork::outlives");
}

fn outlives(arguments: &[String]) {
    const USED: u64 = 0;
    const LEFT: u64 = 1;
    let name = &arguments[0];
    for uses_it in [false, true] {
        let record = Record::new();
        let queue = Cell::new(Some(Queue::<u8>::create(name, 8).unwrap()));
        let child = fork(|| {
            let queue = queue.take().unwrap();
            if uses_it {
                queue.put(&1).unwrap();
            }
            record.set(USED, 1);
            until("the parent has left", || record.get(LEFT) != 0);
            queue.put(&2).unwrap();
            assert_eq!(queue.stats().attached, 1);
            assert_eq!(queue.get().unwrap(), if uses_it { 1 } else { 2 });
            drop(queue);
            i32::from(exists(name))
        });
        until("the child has it", || record.get(USED) != 0);
        drop(queue.take());
        assert_eq!(exists(name), uses_it);
        record.set(LEFT, 1);
        assert_eq!(child.wait(), 0);
        assert!(!exists(name));
    }
}

/// What an orphan does: waits, and uses what it inherited when it is told to.
struct Orphan {
    record: Record,
}

impl Orphan {
    const PID: u64 = 0;
    const ORDERS: u64 = 1;
    const DONE: u64 = 2;
    const RUNS: u64 = 3;

    fn new() -> Self {
        Self { record: Record::new() }
    }

    /// In the process that is going to die: forks the orphan.
    fn fork(&self, work: impl Fn()) {
        let pid = fork_orphan(|| {
            // Not before its own first instruction does it let go of what is its parent's.
            self.record.set(Self::RUNS, 1);
            let end = Instant::now() + ms(60_000);
            let mut done = 0;
            while Instant::now() < end {
                match self.record.get(Self::ORDERS) {
                    u64::MAX => return 0,
                    orders if orders > done => {
                        work();
                        done += 1;
                        self.record.set(Self::DONE, done);
                    }
                    _ => nap(ms(1)),
                }
            }
            1
        });
        self.record.set(Self::PID, pid.unsigned_abs().into());
    }

    /// In the survivor, once the orphan is one. It is killed when this goes.
    fn adopt(&self) -> Forked {
        adopted(i32::try_from(self.record.get(Self::PID)).unwrap())
    }

    fn exists(&self) -> bool {
        self.record.get(Self::PID) != 0 && self.record.get(Self::RUNS) != 0
    }

    /// In the survivor: has the orphan do its work once more.
    fn work(&self) {
        let orders = self.record.get(Self::DONE) + 1;
        self.record.set(Self::ORDERS, orders);
        until("the orphan works", || self.record.get(Self::DONE) == orders);
    }

    fn end(&self, orphan: &Forked) {
        self.record.set(Self::ORDERS, u64::MAX);
        assert_eq!(orphan.wait(), 0);
    }
}

/// The handle's lock belongs to an open file description, which a child shares with its parent. If it kept
/// it, the parent would seem to be alive for as long as the child is.
#[test]
fn a_child_that_lives_does_not_hide_the_death_of_its_parent() {
    play("fork::shows_a_death");
}

fn shows_a_death(arguments: &[String]) {
    adopt_orphans();
    let queue = Queue::<u8>::create(&arguments[0], 8).unwrap();
    let orphan = Orphan::new();
    let parent = fork(|| {
        let queue = Queue::<u8>::open(&arguments[0]).unwrap();
        orphan.fork(|| queue.put(&7).unwrap());
        loop {
            nap(ms(1000));
        }
    });
    until("there is a child", || orphan.exists());
    assert_eq!(queue.stats().attached, 2, "we and the parent");
    parent.kill();
    assert_eq!(queue.stats().attached, 1, "we alone");
    let child = orphan.adopt();
    orphan.work();
    assert_eq!(queue.get().unwrap(), 7);
    assert_eq!(queue.stats().attached, 2, "the child counts from its first call on");
    orphan.end(&child);
    assert_eq!(queue.stats().attached, 1);
}

/// Nobody else is attached: the name can be taken over as soon as the parent is dead, unless the child has
/// become a user of its own.
#[test]
fn a_name_whose_users_all_died_can_be_made_again_whatever_children_they_left() {
    play("fork::leaves_a_name");
}

fn leaves_a_name(arguments: &[String]) {
    adopt_orphans();
    let name = &arguments[0];
    for uses_it in [false, true] {
        let orphan = Orphan::new();
        let parent = fork(|| {
            let queue = Queue::<u8>::create(name, 8).unwrap();
            orphan.fork(|| queue.put(&7).unwrap());
            loop {
                nap(ms(1000));
            }
        });
        until("there is a child", || orphan.exists());
        if uses_it {
            orphan.work();
        }
        assert!(matches!(Queue::<u8>::create(name, 8), Err(OpenError::AlreadyExists { .. })));
        parent.kill();
        let child = orphan.adopt();
        if uses_it {
            assert!(matches!(Queue::<u8>::create(name, 8), Err(OpenError::AlreadyExists { .. })));
            child.kill();
        }
        let queue = Queue::<u8>::create(name, 8).unwrap();
        assert!(queue.empty());
        if !uses_it {
            // Its own queue has no name any more, and works.
            orphan.work();
            assert!(queue.empty());
            orphan.end(&child);
        }
        assert!(exists(name));
        drop(queue);
        assert!(!exists(name));
    }
}

/// The descriptor is close-on-exec: a program that was started by the dead one knows nothing of the queue.
#[test]
fn a_program_that_was_executed_does_not_hide_the_death_of_its_parent() {
    play("fork::executes");
}

fn executes(arguments: &[String]) {
    adopt_orphans();
    let queue = Queue::<u8>::create(&arguments[0], 8).unwrap();
    let record = Record::new();
    let parent = fork(|| {
        let _queue = Queue::<u8>::open(&arguments[0]).unwrap();
        #[expect(clippy::zombie_processes, reason = "this process is killed, and the survivor reaps")]
        let program = Command::new("sleep").arg("60").spawn().unwrap();
        record.set(0, program.id().into());
        loop {
            nap(ms(1000));
        }
    });
    until("the program runs", || record.get(0) != 0);
    assert_eq!(queue.stats().attached, 2);
    parent.kill();
    let program = adopted(i32::try_from(record.get(0)).unwrap());
    assert_eq!(queue.stats().attached, 1);
    program.kill();
}

const LONG: usize = 4 << 20;

fn long_queue(name: &str) -> ByteQueue {
    QueueOptions::new().capacity(4).max_message(LONG).create::<()>(name).unwrap().into()
}

/// Killed while it holds an end, the parent is seen to be dead by its own child, which still has its memory,
/// and by everybody else.
#[test]
fn a_parent_killed_while_it_holds_an_end_holds_up_neither_its_child_nor_others() {
    play("fork::parent_dies_at_it");
}

fn parent_dies_at_it(arguments: &[String]) {
    adopt_orphans();
    let queue = long_queue(&arguments[0]);
    let mut rounds = 0;
    while rounds < 12 || queue.stats().recoveries < 2 {
        assert!(rounds < 200, "no parent was killed while it held the end");
        rounds += 1;
        let orphan = Orphan::new();
        let parent = fork(|| {
            let queue = ByteQueue::open(&arguments[0]).unwrap();
            orphan.fork(|| queue.put_timeout(b"from the child", ms(10_000)).unwrap());
            let message = vec![1; LONG];
            loop {
                queue.put(&message).unwrap();
            }
        });
        for _ in 0..=rounds % 3 {
            assert_eq!(queue.get_timeout(ms(20_000)).unwrap().len(), LONG);
        }
        until("there is a child", || orphan.exists());
        nap(Duration::from_micros(rounds * 37 % 500));
        parent.kill();
        let child = orphan.adopt();
        empty(&queue);
        let by_the_child = rounds % 2 == 0;
        let ((), took) = timed(|| {
            if by_the_child {
                orphan.work();
            } else {
                queue.put_timeout(b"from us", ms(10_000)).unwrap();
            }
        });
        assert_prompt(took);
        let due = if by_the_child { &b"from the child"[..] } else { b"from us" };
        assert_eq!(queue.get_timeout(ms(10_000)).unwrap(), due);
        orphan.end(&child);
    }
    say(&format!("{} of {rounds} held the end", queue.stats().recoveries));
}

fn empty(queue: &ByteQueue) {
    loop {
        match queue.get_nowait() {
            Ok(_) => {}
            Err(GetError::Empty) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The child acts under an identity of its own: its lock is not its parent's.
#[test]
fn a_child_killed_while_it_holds_an_end_does_not_hold_up_its_parent() {
    play("fork::child_dies_at_it");
}

fn child_dies_at_it(arguments: &[String]) {
    let queue = long_queue(&arguments[0]);
    let mut rounds = 0;
    while rounds < 12 || queue.stats().recoveries < 2 {
        assert!(rounds < 200, "no child was killed while it held the end");
        rounds += 1;
        let child = fork(|| {
            let message = vec![1; LONG];
            loop {
                queue.put(&message).unwrap();
            }
        });
        for _ in 0..=rounds % 3 {
            assert_eq!(queue.get_timeout(ms(20_000)).unwrap().len(), LONG);
        }
        nap(Duration::from_micros(rounds * 37 % 500));
        if rounds % 4 == 0 {
            // While it is stopped it is alive, and its lock its own.
            child.stop();
            empty(&queue);
            let recoveries = queue.stats().recoveries;
            match timed(|| queue.put_timeout(b"x", ms(30))) {
                (Ok(()), _) => assert_eq!(queue.get().unwrap(), b"x"),
                (Err(PutError::Full), took) => assert_about(took, ms(30)),
                (Err(error), _) => panic!("{error}"),
            }
            assert_eq!(queue.stats().recoveries, recoveries);
        }
        child.kill();
        empty(&queue);
        let (put, took) = timed(|| queue.put_timeout(b"from the parent", ms(10_000)));
        put.unwrap();
        assert_prompt(took);
        assert_eq!(queue.get().unwrap(), b"from the parent");
    }
    say(&format!("{} of {rounds} held the end", queue.stats().recoveries));
}

thread_local! {
    /// The child that an item forked in the middle of a call.
    static FORKED: Cell<Option<Forked>> = const { Cell::new(None) };
}

/// An item that forks when it is encoded or decoded; it is a process id.
struct Forking(u32);

impl Serialize for Forking {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FORKED.set(fork_here());
        std::process::id().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Forking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FORKED.set(fork_here());
        u32::deserialize(deserializer).map(Self)
    }
}

/// The put goes on on both sides of the fork: two messages.
#[test]
fn a_fork_in_the_middle_of_a_put_puts_twice() {
    play("fork::while_encoding");
}

fn while_encoding(arguments: &[String]) {
    let queue = Queue::<Forking>::create(&arguments[0], 8).unwrap();
    let ids = Queue::<u32>::open(&arguments[0]).unwrap();
    for _ in 0..10 {
        let put = queue.put(&Forking(0));
        let Some(child) = FORKED.take() else {
            // The child: another put, after the one that began in its parent.
            let again = queue.bytes().put(b"\x07");
            exit_now(i32::from(put.is_err()) + 2 * i32::from(again.is_err()));
        };
        put.unwrap();
        assert_eq!(child.wait(), 0);
        let got: Vec<_> = (0..3).map(|_| ids.get_timeout(ms(5000)).unwrap()).collect();
        assert!(ids.empty());
        assert!(got.contains(&std::process::id()) && got.contains(&7), "{got:?}");
        assert!(got.iter().any(|id| *id != std::process::id() && *id != 7), "{got:?}");
        assert_eq!(queue.stats().attached, 2);
    }
    assert_eq!(queue.stats().recoveries, 0);
}

/// The message was taken before it was decoded: both sides have it, and both go on.
#[test]
fn a_fork_in_the_middle_of_a_get_goes_on_on_both_sides() {
    play("fork::while_decoding");
}

fn while_decoding(arguments: &[String]) {
    let queue = Queue::<Forking>::create(&arguments[0], 8).unwrap();
    let ids = Queue::<u32>::open(&arguments[0]).unwrap();
    for round in 0..10 {
        ids.put(&round).unwrap();
        let got = queue.get();
        let Some(child) = FORKED.take() else {
            let again = ids.put(&(round + 100));
            exit_now(i32::from(!got.is_ok_and(|item| item.0 == round)) + 2 * i32::from(again.is_err()));
        };
        assert_eq!(got.unwrap().0, round);
        assert_eq!(child.wait(), 0);
        assert_eq!(ids.get_timeout(ms(5000)).unwrap(), round + 100);
        assert!(ids.empty());
    }
}

/// Threads of the parent are in the middle of puts and gets, hold the process's own locks, sleep and wake,
/// while it forks, many times. Each child puts and gets; nothing is lost in the parent.
#[test]
fn a_process_that_forks_amid_its_threads_loses_nothing() {
    play("fork::amid_threads");
}

fn amid_threads(arguments: &[String]) {
    const FORKS: u64 = 120;
    const CHILD: u64 = 1 << 32;
    let queue = Queue::<u64>::create(&arguments[0], 8).unwrap();
    let tickets = Queue::<u64>::new(4).unwrap();
    let record = Record::new();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..2)
            .map(|id| {
                let (queue, over) = (&queue, &over);
                scope.spawn(move || {
                    let mut next = 0;
                    while !over.load(Ordering::Relaxed) {
                        queue.put(&(id << 33 | next)).unwrap();
                        next += 1;
                    }
                    next
                })
            })
            .collect();
        let consumer = scope.spawn(|| {
            let mut next = [0; 2];
            let mut children = Vec::new();
            for number in &queue {
                if number & CHILD != 0 {
                    children.push(number & !CHILD);
                } else {
                    let id = usize::try_from(number >> 33).unwrap();
                    assert_eq!(number & (CHILD - 1), next[id], "of thread {id}");
                    next[id] += 1;
                }
            }
            (next, children)
        });
        // Comes and goes: the registry of descriptors changes all the time.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(ByteQueue::open(&arguments[0]).unwrap());
            }
        });
        let vendor = scope.spawn(|| {
            let mut ticket = 1;
            while !over.load(Ordering::Relaxed) {
                if tickets.put_timeout(&ticket, ms(5)).is_ok() {
                    ticket += 1;
                }
            }
            ticket
        });
        for number in 0..FORKS {
            let child = fork(|| {
                queue.put(&(CHILD | number)).unwrap();
                record.set(number, tickets.get().unwrap());
                0
            });
            assert_eq!(child.wait(), 0, "child {number}");
        }
        over.store(true, Ordering::Relaxed);
        let put: Vec<u64> = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
        queue.close();
        let (got, mut children) = consumer.join().unwrap();
        assert_eq!(got.as_slice(), put);
        children.sort_unstable();
        assert!(children.into_iter().eq(0..FORKS));
        // Each ticket to one child, or still there.
        let sold = vendor.join().unwrap();
        tickets.close();
        let mut all: Vec<_> = record.numbers().chain(&tickets).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..sold));
        say(&format!("{put:?} were put meanwhile"));
    });
    assert_eq!((queue.stats().attached, queue.stats().recoveries), (1, 0));
}

#[test]
fn two_threads_may_fork_at_the_same_time() {
    play("fork::from_two_threads");
}

fn from_two_threads(arguments: &[String]) {
    let queue = Queue::<u64>::create(&arguments[0], 1000).unwrap();
    thread::scope(|scope| {
        for thread in 0..2 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..60 {
                    let child = fork(|| i32::from(queue.put(&(thread * 1000 + number)).is_err()));
                    let _another = ByteQueue::open(queue.name()).unwrap();
                    assert_eq!(child.wait(), 0);
                }
            });
        }
    });
    queue.close();
    let mut got: Vec<_> = queue.iter().collect();
    got.sort_unstable();
    assert!(got.into_iter().eq((0..60).chain(1000..1060)));
    assert_eq!(queue.stats().attached, 1);
}

/// The kernel takes its time to copy the tables of much memory.
#[test]
fn two_threads_may_fork_at_the_same_time_however_long_it_takes() {
    play("fork::slowly_from_two_threads");
}

fn slowly_from_two_threads(arguments: &[String]) {
    // Before the first queue is made: handlers run in the reverse order.
    slow_forks();
    let queue = Queue::<u8>::create(&arguments[0], 8).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(fork(|| i32::from(queue.put(&1).is_err())).wait(), 0));
        }
    });
    say("forked");
    let (another, took) = timed(|| Queue::<u8>::open(queue.name()).unwrap());
    assert_prompt(took);
    assert_eq!((another.get().unwrap(), another.get().unwrap()), (1, 1));
}
