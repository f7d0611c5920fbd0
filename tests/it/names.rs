//! Names, options, and how long a queue lives.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::panic::catch_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::harness::{
    self, Forked, Random, Role, Stage, crash, exists, fork, hear, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("names::puts_and_crashes", puts_and_crashes),
    ("names::holds_a_handle", holds_a_handle),
    ("names::makes_modes", makes_modes),
    ("names::makes_an_anonymous_queue", makes_an_anonymous_queue),
    ("names::meets", meets),
    ("names::without_standard_output", without_standard_output),
    ("names::race_to_put", race_to_put),
    ("names::race_to_hold", race_to_hold),
    ("names::race_of_the_killed", race_of_the_killed),
];

// Names

#[test]
fn a_name_is_1_to_200_bytes_of_the_allowed_ones() {
    let stage = Stage::new();
    let own = stage.name();
    let longest = format!("{own}{}", "x".repeat(200 - own.len()));
    for name in [own.clone() + "AZaz09._-", own.clone() + "..", longest] {
        let made = Queue::<u8>::create(&name, 1).unwrap();
        assert_eq!(made.name(), name);
        assert!(exists(&name));
        made.put(&1).unwrap();
        assert_eq!(Queue::<u8>::open(&name).unwrap().get().unwrap(), 1);
    }
}

#[test]
fn any_other_name_is_refused_by_every_call() {
    let long = "x".repeat(201);
    let invalid = [
        "", ".", "..", ".hidden", "a/b", "/a", "../a", "a+b", "a b", "a\0b", "a\n", "ä", "a:b", "a*", "%",
        "~", &long,
    ];
    for name in invalid {
        let refusals = [
            Queue::<u8>::create(name, 1).unwrap_err(),
            Queue::<u8>::open(name).unwrap_err(),
            Queue::<u8>::open_or_create(name, 1).unwrap_err(),
            ByteQueue::create(name, 1).unwrap_err(),
            ByteQueue::open(name).unwrap_err(),
            ByteQueue::open_or_create(name, 1).unwrap_err(),
            QueueOptions::new().capacity(1).create::<u8>(name).unwrap_err(),
            QueueOptions::new().open::<u8>(name).unwrap_err(),
            QueueOptions::new().capacity(1).open_or_create::<u8>(name).unwrap_err(),
            shmq::remove(name).unwrap_err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, OpenError::InvalidName { .. }), "{name:?}: {refusal:?}");
            assert!(refusal.to_string().contains("1 to 200 bytes"), "{refusal}");
        }
    }
}

#[test]
fn fresh_names_differ_and_can_be_opened() {
    let _stage = Stage::new();
    let queues: Vec<_> = (0..20).map(|_| Queue::<u8>::new(1).unwrap()).collect();
    for (at, queue) in queues.iter().enumerate() {
        assert!(queues[..at].iter().all(|other| other.name() != queue.name()));
        queue.put(&1).unwrap();
        assert_eq!(Queue::<u8>::open(queue.name()).unwrap().get().unwrap(), 1);
    }
    let names: Vec<_> = queues.iter().map(|queue| queue.name().to_owned()).collect();
    drop(queues);
    assert!(names.iter().all(|name| !exists(name)));
}

// Options

#[test]
fn options_beyond_a_limit_are_refused_and_the_name_stays_free() {
    let stage = Stage::new();
    let name = stage.name();
    let mut options = QueueOptions::new();
    let base = options.capacity(1).max_message(16).clone();
    let with = |change: &dyn Fn(&mut QueueOptions)| {
        let mut options = base.clone();
        change(&mut options);
        options
    };
    let refused: [(&str, QueueOptions); 6] = [
        ("2147483648", with(&|options| _ = options.capacity(1 << 31))),
        ("18446744073709551615", with(&|options| _ = options.capacity(usize::MAX))),
        ("1073741825", with(&|options| _ = options.max_message((1 << 30) + 1))),
        ("65", with(&|options| _ = options.schema(&"x".repeat(65)))),
        ("66", with(&|options| _ = options.schema(&"ä".repeat(33)))),
        ("mode", with(&|options| _ = options.mode(0o1600))),
    ];
    for (number, options) in refused {
        let refusals = [
            options.create::<u8>(&name).unwrap_err(),
            options.open_or_create::<u8>(&name).unwrap_err(),
            options.anonymous::<u8>().unwrap_err(),
        ];
        for refusal in refusals {
            let OpenError::InvalidOptions { reason } = &refusal else { panic!("{refusal:?}") };
            assert!(reason.contains(number), "it does not name {number}: {refusal}");
        }
        assert!(!exists(&name));
    }
    assert!(matches!(Queue::<u8>::new(0), Err(OpenError::InvalidOptions { .. })));
    assert!(matches!(Queue::<u8>::create(&name, 0), Err(OpenError::InvalidOptions { .. })));
    assert!(matches!(ByteQueue::new(0), Err(OpenError::InvalidOptions { .. })));
    let label = "y".repeat(65);
    let refusal = QueueOptions::new().schema(&label).open::<u8>(&name).unwrap_err();
    assert!(matches!(refusal, OpenError::InvalidOptions { .. }), "{refusal:?}");
}

#[test]
fn options_up_to_a_limit_are_taken() {
    let _stage = Stage::new();
    let queue: Queue<u8> =
        QueueOptions::new().capacity((1 << 31) - 1).max_message(1).ring_bytes(4096).anonymous().unwrap();
    assert_eq!(queue.capacity(), Some((1 << 31) - 1));
    // More bytes than `capacity` longest messages take are never used, fewer than one neither.
    for ring_bytes in [0, 1, usize::MAX] {
        let queue: ByteQueue = QueueOptions::new()
            .capacity(2)
            .max_message(100)
            .ring_bytes(ring_bytes)
            .schema(&"z".repeat(64))
            .anonymous::<u8>()
            .unwrap()
            .into();
        let len = fs::metadata(harness::object(queue.name())).unwrap().len();
        assert!(len < 8192, "{len} bytes");
        queue.put_nowait(&[1; 100]).unwrap();
        assert_eq!(queue.get_nowait().unwrap(), [1; 100]);
    }
}

#[test]
fn what_exists_wins_over_the_options_of_those_who_open_it() {
    let stage = Stage::new();
    let name = stage.name();
    let made: Queue<u8> =
        QueueOptions::new().capacity(3).max_message(10).schema("a").mode(0o640).create(&name).unwrap();
    let mut other = QueueOptions::new();
    other.capacity(7).max_message(1000).persistent(true).mode(0o600);
    for opened in [other.open::<u8>(&name).unwrap(), other.open_or_create::<u8>(&name).unwrap()] {
        assert_eq!(opened.capacity(), Some(3));
        assert!(matches!(opened.bytes().put(&[0; 11]), Err(PutError::TooLong { len: 11, max: 10 })));
    }
    assert_eq!(mode_of(&name), 0o640);
    drop(made);
    assert!(!exists(&name), "opening does not make it persistent");
}

#[test]
fn a_label_is_compared_if_one_is_given() {
    let stage = Stage::new();
    let name = stage.name();
    let kept: Queue<u8> = QueueOptions::new().capacity(1).schema("label, version 2").create(&name).unwrap();
    assert!(Queue::<u8>::open(&name).is_ok());
    let with = |label: &str| QueueOptions::new().capacity(1).schema(label).open::<u8>(&name);
    assert!(with("label, version 2").is_ok());
    for other in ["label, version 1", "label", "label, version 22"] {
        let refused = [with(other), QueueOptions::new().capacity(1).schema(other).open_or_create(&name)];
        for refused in refused {
            let Err(OpenError::Mismatch { field, expected, found }) = refused else { panic!("{refused:?}") };
            assert_eq!(field, "schema");
            assert!(expected.contains(other) && found.contains("label, version 2"), "{expected}, {found}");
        }
    }
    assert_eq!(kept.stats().attached, 1);
    let unlabelled = Queue::<u8>::create(&stage.name(), 1).unwrap();
    let refused = QueueOptions::new().schema("any").open::<u8>(unlabelled.name());
    assert!(matches!(refused, Err(OpenError::Mismatch { field: "schema", .. })));
}

// Lifetime

#[test]
fn a_name_in_use_is_said_to_exist_and_a_free_one_not_to_be_found() {
    let stage = Stage::new();
    let name = stage.name();
    let absent = Queue::<u8>::open(&name).unwrap_err();
    assert!(matches!(&absent, OpenError::NotFound { name: said } if *said == name));
    assert!(absent.to_string().contains(&name));
    let queue = Queue::<u8>::create(&name, 1).unwrap();
    let taken = Queue::<u8>::create(&name, 1).unwrap_err();
    assert!(matches!(&taken, OpenError::AlreadyExists { name: said } if *said == name));
    assert!(taken.to_string().contains(&name));
    assert!(matches!(
        QueueOptions::new().capacity(9).create::<u8>(&name),
        Err(OpenError::AlreadyExists { .. })
    ));
    drop(queue);
    assert!(matches!(Queue::<u8>::open(&name), Err(OpenError::NotFound { .. })));
    assert!(matches!(shmq::remove(&name), Err(OpenError::NotFound { .. })));
    Queue::<u8>::create(&name, 1).unwrap();
}

#[test]
fn a_queue_goes_with_its_last_handle_and_not_before() {
    let stage = Stage::new();
    let name = stage.name();
    let first = Queue::<u8>::create(&name, 4).unwrap();
    first.put(&1).unwrap();
    let clone = first.clone();
    let second = Queue::<u8>::open(&name).unwrap();
    let raw = ByteQueue::from(Queue::<u8>::open(&name).unwrap());
    let mut child = stage.child("names::holds_a_handle", &[&name]);
    child.heard("attached");
    drop(first);
    assert!(exists(&name));
    drop(clone);
    drop(second);
    assert!(exists(&name));
    drop(raw);
    assert!(exists(&name), "the child still has a handle");
    let again = Queue::<u8>::open(&name).unwrap();
    assert_eq!(again.get().unwrap(), 1);
    drop(again);
    assert!(exists(&name));
    child.tell("drop it");
    child.heard("dropped");
    assert!(!exists(&name));
    child.finish();
}

fn holds_a_handle(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    say("attached");
    assert_eq!(hear(), "drop it");
    drop(queue);
    say("dropped");
}

#[test]
fn a_new_queue_of_an_old_name_is_empty_and_open() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = Queue::create(&name, 4).unwrap();
    queue.put(&1).unwrap();
    queue.close();
    drop(queue);
    let queue = Queue::<u8>::create(&name, 4).unwrap();
    assert!(queue.empty() && !queue.is_closed());
    assert_eq!(queue.stats().puts, 0);
}

/// An exit without drops is a crash: of everybody attached, since there was nobody else.
#[test]
fn a_queue_left_by_a_crash_of_everybody_can_be_opened_with_its_messages() {
    let stage = Stage::new();
    let name = stage.name();
    stage.child("names::puts_and_crashes", &[&name]).finish();
    assert!(exists(&name));
    for round in 0..2 {
        let queue = Queue::<u32>::open(&name).unwrap();
        assert_eq!(queue.stats().attached, 1);
        assert_eq!((queue.qsize(), queue.get().unwrap()), (3, 1));
        assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (2, 3));
        drop(queue);
        assert!(!exists(&name), "whoever opened it was the last to leave it");
        if round == 0 {
            stage.child("names::puts_and_crashes", &[&name]).finish();
        }
    }
}

/// The handle that was sent is of an older queue: it is told apart from what the crash left, which stays.
#[test]
fn a_handle_that_fails_to_arrive_takes_nothing_from_a_queue_that_a_crash_left() {
    let stage = Stage::new();
    let name = stage.name();
    let carrier = Queue::<Queue<u32>>::new(1).unwrap();
    let old = Queue::<u32>::create(&name, 1).unwrap();
    carrier.put(&old).unwrap();
    drop(old);
    stage.child("names::puts_and_crashes", &[&name]).finish();
    assert!(matches!(carrier.get(), Err(GetError::Decode { .. })));
    assert_eq!(Queue::<u32>::open(&name).unwrap().qsize(), 3);
}

fn puts_and_crashes(arguments: &[String]) {
    let queue = Queue::<u32>::open_or_create(&arguments[0], 8).unwrap();
    for item in 1..=3 {
        queue.put(&item).unwrap();
    }
    crash();
}

#[test]
fn a_queue_left_by_a_crash_of_everybody_is_replaced_by_create() {
    let stage = Stage::new();
    let name = stage.name();
    stage.child("names::puts_and_crashes", &[&name]).finish();
    let queue = Queue::<u32>::create(&name, 2).unwrap();
    assert_eq!((queue.qsize(), queue.capacity(), queue.stats().puts), (0, Some(2), 0));
    drop(queue);
    assert!(!exists(&name));
    stage.child("names::puts_and_crashes", &[&name]).finish();
    let queue = Queue::<u32>::open_or_create(&name, 2).unwrap();
    assert_eq!(queue.qsize(), 3, "open_or_create opens what there is");
    drop(queue);
    stage.child("names::puts_and_crashes", &[&name]).finish();
    shmq::remove(&name).unwrap();
    assert!(!exists(&name));
}

/// One process of several crashes; to the others it is as if it had left.
#[test]
fn a_queue_survives_the_crash_of_one_of_its_users() {
    let stage = Stage::new();
    let queue = Queue::<u32>::create(&stage.name(), 8).unwrap();
    stage.child("names::puts_and_crashes", &[queue.name()]).finish();
    assert!(matches!(Queue::<u32>::create(queue.name(), 8), Err(OpenError::AlreadyExists { .. })));
    assert_eq!((queue.qsize(), queue.stats().attached), (3, 1));
}

#[test]
fn a_persistent_queue_stays_until_it_is_removed() {
    let stage = Stage::new();
    let name = stage.litter();
    let mut options = QueueOptions::new();
    options.capacity(4).persistent(true);
    let queue = options.create(&name).unwrap();
    queue.put(&1).unwrap();
    drop(queue);
    assert!(exists(&name));
    assert!(matches!(Queue::<i32>::create(&name, 4), Err(OpenError::AlreadyExists { .. })));
    assert!(matches!(options.create::<i32>(&name), Err(OpenError::AlreadyExists { .. })));
    let queue = Queue::<i32>::open(&name).unwrap();
    queue.put(&2).unwrap();
    drop(queue);
    let queue = Queue::<i32>::open_or_create(&name, 1).unwrap();
    assert_eq!(queue.capacity(), Some(4));
    assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
    drop(queue);
    assert!(exists(&name));
    shmq::remove(&name).unwrap();
    assert!(!exists(&name));
    assert!(matches!(shmq::remove(&name), Err(OpenError::NotFound { .. })));
    Queue::<i32>::create(&name, 4).unwrap();
    assert!(!exists(&name), "the new one is not persistent");
}

#[test]
fn a_persistent_queue_that_fails_to_be_made_leaves_nothing() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = Queue::<u8>::create(&name, 1).unwrap();
    let refused = QueueOptions::new().capacity(1).persistent(true).create::<u8>(&name);
    assert!(matches!(refused, Err(OpenError::AlreadyExists { .. })));
    drop(queue);
    assert!(!exists(&name));
}

#[test]
fn a_queue_removed_while_it_is_used_goes_on_and_its_name_is_free() {
    let stage = Stage::new();
    let name = stage.name();
    let old = Queue::<u8>::create(&name, 2).unwrap();
    let same = Queue::<u8>::open(&name).unwrap();
    shmq::remove(&name).unwrap();
    assert!(!exists(&name));
    old.put(&1).unwrap();
    assert_eq!(same.get().unwrap(), 1);
    assert_eq!(old.stats().attached, 2);

    let new = Queue::<u8>::create(&name, 2).unwrap();
    new.put(&2).unwrap();
    old.put(&3).unwrap();
    assert_eq!((new.get().unwrap(), same.get().unwrap()), (2, 3));
    // Those who leave the old one leave the name of the new one alone.
    drop(old);
    drop(same);
    assert!(exists(&name));
    assert_eq!(new.stats().attached, 1);
    drop(new);
    assert!(!exists(&name));
}

#[test]
fn an_anonymous_queue_can_be_removed_too() {
    let _stage = Stage::new();
    let queue = Queue::<u8>::new(1).unwrap();
    shmq::remove(queue.name()).unwrap();
    queue.put(&1).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
}

// The mode

fn mode_of(name: &str) -> u32 {
    fs::metadata(harness::object(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_mode_is_what_was_asked_whatever_the_umask() {
    let stage = Stage::new();
    for umask in ["0", "22", "77", "777"] {
        stage.child("names::makes_modes", &[umask, &stage.name()]).finish();
    }
}

fn makes_modes(arguments: &[String]) {
    let [umask, name] = arguments else { panic!("{arguments:?}") };
    harness::umask(u32::from_str_radix(umask, 8).unwrap());
    let queue = Queue::<u8>::create(name, 1).unwrap();
    assert_eq!(mode_of(name), 0o600);
    drop(queue);
    for mode in [0o600, 0o666, 0o660, 0o644, 0o777, 0o400] {
        let queue: Queue<u8> = QueueOptions::new().capacity(1).mode(mode).create(name).unwrap();
        assert_eq!(mode_of(name), mode, "with umask {umask}");
        queue.put(&1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
    }
    let queue: Queue<u8> = QueueOptions::new().capacity(1).mode(0o640).anonymous().unwrap();
    assert_eq!(mode_of(queue.name()), 0o640);
}

// Anonymous queues that a crash left behind

#[test]
fn an_anonymous_queue_left_by_a_crash_goes_when_the_next_one_is_made() {
    let stage = Stage::new();
    // Also when this process has made one before.
    let earlier = Queue::<u8>::new(1).unwrap();
    for _ in 0..2 {
        let mut child = stage.child("names::makes_an_anonymous_queue", &[]);
        let name = child.next();
        stage.adopt(&name);
        assert!(exists(&name));
        let next = Queue::<u8>::new(1).unwrap();
        assert!(exists(&name), "its process lives");
        let opened = Queue::<u8>::open(&name).unwrap();
        child.kill();
        let other = Queue::<u8>::new(1).unwrap();
        assert!(exists(&name), "somebody else has a handle");
        assert_eq!(opened.get().unwrap(), 1);
        drop((next, other));
        drop(opened);
        assert!(!exists(&name));

        let crash = || {
            let mut child = stage.child("names::makes_an_anonymous_queue", &[]);
            let name = child.next();
            stage.adopt(&name);
            child.kill();
            name
        };
        // A process that makes its first one looks at once; later it does not look each time.
        let left = crash();
        assert!((0..200).any(|_| Queue::<u8>::new(1).is_ok() && !exists(&left)));
        let left = crash();
        let mut first = stage.child("names::makes_an_anonymous_queue", &[]);
        let its_own = first.next();
        assert!(!exists(&left));
        first.tell("end");
        first.finish();
        assert!(!exists(&its_own));
    }
    assert!(exists(earlier.name()));
}

fn makes_an_anonymous_queue(_: &[String]) {
    let queue = Queue::new(1).unwrap();
    queue.put(&1_u8).unwrap();
    say(queue.name());
    hear();
}

#[test]
fn a_named_queue_left_by_a_crash_stays_when_an_anonymous_one_is_made() {
    let stage = Stage::new();
    let plain = stage.name();
    // It looks made up, but was not: somebody will ask for it.
    let lookalike = format!("anon-{plain}");
    stage.adopt(&lookalike);
    stage.child("names::puts_and_crashes", &[&plain]).finish();
    stage.child("names::puts_and_crashes", &[&lookalike]).finish();
    let _next = Queue::<u8>::new(1).unwrap();
    for name in [plain, lookalike] {
        assert_eq!(Queue::<u32>::open(&name).unwrap().qsize(), 3);
    }
}

// Races

/// Processes that come at the same time to a name that nobody has meet in the same queue.
#[test]
fn those_who_open_or_create_at_the_same_time_meet_in_one_queue() {
    const PROCESSES: usize = 6;
    let stage = Stage::new();
    let name = stage.name();
    let mut children: Vec<_> = (0..PROCESSES).map(|_| stage.child("names::meets", &[&name])).collect();
    for round in 0..30 {
        for child in &mut children {
            child.tell("meet");
        }
        for child in &mut children {
            child.heard("there");
        }
        let queue = Queue::<u32>::open(&name).unwrap();
        assert_eq!(
            (queue.qsize(), queue.stats().attached),
            (PROCESSES, PROCESSES as u64 + 1),
            "round {round}"
        );
        let mut ids: Vec<_> = (0..PROCESSES).map(|_| queue.get().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), PROCESSES);
        drop(queue);
        for child in &mut children {
            child.tell("leave");
        }
        for child in &mut children {
            child.heard("gone");
        }
        assert!(!exists(&name), "round {round}");
    }
    for child in &mut children {
        child.tell("end");
    }
    for child in children {
        child.finish();
    }
}

fn meets(arguments: &[String]) {
    while hear() == "meet" {
        let queue = Queue::open_or_create(&arguments[0], 100).unwrap();
        queue.put(&std::process::id()).unwrap();
        say("there");
        assert_eq!(hear(), "leave");
        drop(queue);
        say("gone");
    }
}

/// Come, put and leave, as fast as possible, while somebody holds the queue: nothing is lost.
#[test]
fn nothing_is_lost_by_those_who_come_put_and_leave() {
    const PROCESSES: u32 = 5;
    const VISITS: u32 = 150;
    let stage = Stage::new();
    let queue = Queue::<u32>::create(&stage.name(), 1000).unwrap();
    let arguments = [queue.name(), &PROCESSES.to_string(), &VISITS.to_string()];
    let child = stage.child("names::race_to_put", &arguments);
    let mut sum = 0;
    for _ in 0..PROCESSES * VISITS {
        sum += queue.get_timeout(ms(30_000)).unwrap();
    }
    child.finish();
    assert_eq!(sum, PROCESSES * (0..VISITS).sum::<u32>());
    assert_eq!((queue.qsize(), queue.stats().attached), (0, 1));
}

fn race_to_put(arguments: &[String]) {
    let [name, processes, visits] = arguments else { panic!("{arguments:?}") };
    let (processes, visits): (u32, u32) = (processes.parse().unwrap(), visits.parse().unwrap());
    let visitors: Vec<_> = (0..processes)
        .map(|_| {
            fork(|| {
                (0..visits).for_each(|visit| Queue::open_or_create(name, 1).unwrap().put(&visit).unwrap());
                0
            })
        })
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.wait(), 0);
    }
}

/// Each may see the other still there, but not both.
#[test]
fn of_those_who_leave_at_the_same_time_one_takes_the_queue_along() {
    const ROUNDS: usize = 1500;
    let stage = Stage::new();
    let name = stage.name();
    let all = Barrier::new(3);
    let forgotten = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let queue = Queue::<u8>::open_or_create(&name, 1).unwrap();
                    all.wait();
                    drop(queue);
                    if all.wait().is_leader() {
                        forgotten.fetch_add(exists(&name).into(), Ordering::Relaxed);
                    }
                    all.wait();
                }
            });
        }
    });
    assert_eq!(forgotten.into_inner(), 0, "of {ROUNDS} stayed");
}

/// Nobody holds the queue for long: it comes and goes all the time. Whoever has a handle has a queue that
/// others who have the name find too.
#[test]
fn a_name_that_comes_and_goes_never_fails() {
    let stage = Stage::new();
    let name = stage.name();
    stage.child("names::race_to_hold", &[&name]).finish();
    assert!(!exists(&name));
    Queue::<u8>::create(&name, 1).unwrap();
    assert!(!exists(&name));
}

fn race_to_hold(arguments: &[String]) {
    let name = &arguments[0];
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            fork(|| {
                for _ in 0..300 {
                    let queue = Queue::<u32>::open_or_create(name, 1000).unwrap();
                    queue.put(&1).unwrap();
                    // It cannot have gone meanwhile: we have a handle.
                    let same = Queue::<u32>::open(name).unwrap();
                    assert!(same.stats().puts >= 1);
                    same.get().unwrap();
                }
                0
            })
        })
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.wait(), 0);
    }
}

/// Processes that create, open, use, leave and remove the same few names, killed at any moment. Whatever
/// they were in the middle of, the names stay usable, and nothing stays behind that could not be removed.
#[test]
fn no_kill_ever_makes_a_name_unusable() {
    let stage = Stage::new();
    let names = [stage.name(), stage.name()];
    let seed = Random::new().next().to_string();
    let (said, took) =
        timed(|| stage.child("names::race_of_the_killed", &[&names[0], &names[1], &seed]).finish());
    println!("{said:?} in {took:?}");
}

fn race_of_the_killed(arguments: &[String]) {
    const KILLS: usize = 400;
    let [first, second, seed] = arguments else { panic!("{arguments:?}") };
    let names = [first, second].map(String::as_str);
    let mut random = Random::from_seed(seed.parse().unwrap());
    let mut crowd: Vec<Forked> = Vec::new();
    for kill in 0..KILLS {
        while crowd.len() < 4 {
            let seed = random.next();
            crowd.push(fork(|| churn(names, seed)));
        }
        nap(Duration::from_micros(random.below(4000)));
        crowd.swap_remove(random.index(crowd.len())).kill();
        if kill % 50 == 49 {
            crowd.drain(..).for_each(|forked| forked.kill());
            // Everybody is dead.
            for name in names {
                usable(name);
            }
        }
    }
    say(&format!("{KILLS} kills"));
}

/// Comes, does something, leaves, for ever.
fn churn(names: [&str; 2], seed: u64) -> i32 {
    let mut random = Random::from_seed(seed);
    let mut held: Vec<Queue<u64>> = Vec::new();
    loop {
        let name = names[random.index(2)];
        let mut options = QueueOptions::new();
        options.capacity(4).max_message(16).persistent(random.below(8) == 0);
        let attempt = match random.below(8) {
            0 | 1 => options.create(name),
            2 | 3 => options.open(name),
            4 | 5 => options.open_or_create(name),
            6 => {
                match shmq::remove(name) {
                    Ok(()) | Err(OpenError::NotFound { .. }) => {}
                    Err(error) => panic!("remove: {error}"),
                }
                continue;
            }
            _ => {
                held.pop();
                continue;
            }
        };
        match attempt {
            Ok(queue) => {
                match queue.put_nowait(&seed) {
                    Ok(()) | Err(PutError::Full) => {}
                    Err(error) => panic!("put: {error}"),
                }
                match queue.get_nowait() {
                    Ok(_) | Err(GetError::Empty) => {}
                    Err(error) => panic!("get: {error}"),
                }
                held.push(queue);
                if held.len() > 3 {
                    held.remove(random.index(4));
                }
            }
            Err(OpenError::AlreadyExists { .. } | OpenError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whatever bears the name, and nobody is attached to it: it can be opened, removed and made.
pub(crate) fn usable(name: &str) {
    match Queue::<u64>::open(name) {
        Ok(queue) => {
            while queue.get_timeout(ms(100)).is_ok() {}
            queue.put_timeout(&7, ms(5000)).unwrap();
            assert_eq!(queue.get_timeout(ms(5000)).unwrap(), 7);
        }
        Err(OpenError::NotFound { .. }) => {}
        Err(error) => panic!("{name} is unusable: {error}"),
    }
    match Queue::<u64>::create(name, 1) {
        Ok(queue) => queue.put(&1).unwrap(),
        // It was persistent.
        Err(OpenError::AlreadyExists { .. }) => shmq::remove(name).unwrap(),
        Err(error) => panic!("{name} is unusable: {error}"),
    }
    let left = harness::names_beginning_with(name);
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// One who is attached and stopped hinders nobody who comes, leaves or removes.
#[test]
fn a_stopped_user_of_a_queue_hinders_nobody_else() {
    let stage = Stage::new();
    let name = stage.name();
    let mut child = stage.child("names::meets", &[&name]);
    child.tell("meet");
    child.heard("there");
    child.stop();
    let queue = Queue::<u32>::open(&name).unwrap();
    assert!(matches!(Queue::<u32>::create(&name, 1), Err(OpenError::AlreadyExists { .. })));
    queue.get().unwrap();
    let ((), took) = timed(|| drop(queue));
    harness::assert_prompt(took);
    assert!(exists(&name));
    let (removed, took) = timed(|| shmq::remove(&name));
    removed.unwrap();
    harness::assert_prompt(took);
    child.go_on();
    child.tell("leave");
    child.heard("gone");
    child.tell("end");
    child.finish();
    until("the name is free", || !exists(&name));
}

/// How many bytes there are to lock: the door, and one for each possible handle.
const ALL: u32 = 1 << 28;

/// Stopped while it holds everything, to see whether it was the last: nobody can tell what it will do.
#[test]
fn nobody_waits_for_longer_than_5_s_for_one_who_is_stopped_amid_leaving() {
    let stage = Stage::new();
    let name = stage.name();
    stage.child("names::puts_and_crashes", &[&name]).finish();
    let file = fs::OpenOptions::new().read(true).write(true).open(harness::object(&name)).unwrap();
    harness::lock(&file, 0, Some(ALL));
    let calls: [&(dyn Fn() -> Result<(), OpenError> + Sync); 4] = [
        &|| Queue::<u32>::open(&name).map(drop),
        &|| Queue::<u32>::create(&name, 1).map(drop),
        &|| Queue::<u32>::open_or_create(&name, 1).map(drop),
        &|| shmq::remove(&name),
    ];
    thread::scope(|scope| {
        let waiting = calls.map(|call| scope.spawn(move || timed(call)));
        for waits in waiting {
            let (refused, took) = waits.join().unwrap();
            let Err(OpenError::Io(error)) = refused else { panic!("{refused:?}") };
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let text = error.to_string();
            assert!(text.contains("stopped") && !text.contains("  "), "{text:?}");
            assert!((ms(4900)..ms(9000)).contains(&took), "{took:?}");
        }
    });
    drop(file);
    assert_eq!(Queue::<u32>::open(&name).unwrap().qsize(), 3);
    assert!(!exists(&name));
}

/// Somebody is stopped while it holds the door. Whoever leaves does not wait, and then nobody is attached.
#[test]
fn leaving_does_not_wait_for_one_who_is_stopped() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = Queue::<u32>::create(&name, 1).unwrap();
    queue.put(&1).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(harness::object(&name)).unwrap();
    harness::lock(&file, 0, Some(1));
    let (_, took) = timed(|| (queue.stats(), queue.qsize(), queue.close(), format!("{queue:?}")));
    harness::assert_prompt(took);
    let same = Queue::<u32>::open(&name).unwrap();
    assert_eq!(same.get().unwrap(), 1);
    drop(same);
    let ((), took) = timed(|| drop(queue));
    harness::assert_prompt(took);
    assert!(exists(&name));
    drop(file);
    let queue = Queue::<u32>::create(&name, 1).unwrap();
    assert!(queue.empty() && !queue.is_closed());
}

/// A program that was started without them would print into the queue.
#[test]
fn a_handle_never_takes_the_place_of_standard_output() {
    let stage = Stage::new();
    stage.child("names::without_standard_output", &[&stage.name()]).finish();
}

fn without_standard_output(arguments: &[String]) {
    let forked = fork(|| {
        harness::close_standard();
        let name = &arguments[0];
        let queues = [Queue::<u8>::create(name, 1), Queue::open(name), Queue::new(1)].map(Result::unwrap);
        let taken = |descriptor| fs::exists(format!("/proc/self/fd/{descriptor}")).unwrap();
        let works = queues.iter().all(|queue| queue.put(&1).is_ok() && queue.get().is_ok());
        i32::from((0..3).any(taken)) + 2 * i32::from(!works)
    });
    assert_eq!(forked.wait(), 0);
}

#[test]
fn handles_may_be_dropped_while_a_thread_panics() {
    let stage = Stage::new();
    let name = stage.name();
    let panicked = catch_unwind(|| {
        let queue = Queue::<u8>::create(&name, 1).unwrap();
        queue.put(&1).unwrap();
        std::panic::resume_unwind(Box::new("over"));
    });
    assert!(panicked.is_err());
    assert!(!exists(&name));
}
