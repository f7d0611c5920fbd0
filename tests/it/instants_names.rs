//! Every call that makes, attaches to, leaves or removes a queue, killed and stopped at every change and at a
//! stride of instructions: the name stays usable, and nothing is left behind.
//!
//! A call joins with an entry in [`CALLS`].

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shmq::{ByteQueue, GetError, OpenError};

use crate::harness::{
    Role, assert_prompt, fork, is_locked, is_thorough, ms, names_beginning_with, object, timed,
};
use crate::instants::{Moment, Route, Victim};
use crate::instants_court::{Log, Place, Trial, hold_court, play};
use crate::small_shm::private_shm;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("instants_names::killed", |arguments| try_at_every_instant(Trial::Kill, arguments)),
    ("instants_names::stopped", |arguments| try_at_every_instant(Trial::Stop, arguments)),
];

const CAPACITY: usize = 4;
/// The message that is in a queue before the call.
const OLD: &[u8] = b"old";
/// The message that a survivor puts.
const NEW: &[u8] = b"new";

/// A call to be killed and stopped in.
struct Call {
    name: &'static str,
    before: Before,
    /// What the victim has when the call begins.
    has: fn(&str) -> Option<ByteQueue>,
    run: fn(&str, Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError>,
    /// The name may be free afterwards, even while somebody is attached.
    removes: bool,
    /// It makes up a name of its own.
    made_up: bool,
}

/// What bears the name before the call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// What a crash of everybody left.
    Stale,
    /// A queue that a survivor uses.
    InUse,
}

fn nothing(_: &str) -> Option<ByteQueue> {
    None
}

#[expect(clippy::unnecessary_wraps, reason = "an entry of the table")]
fn a_handle(name: &str) -> Option<ByteQueue> {
    Some(ByteQueue::open_or_create(name, CAPACITY).expect("it is there, or the name is free"))
}

const fn entry(
    name: &'static str,
    before: Before,
    run: fn(&str, Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError>,
) -> Call {
    Call { name, before, has: nothing, run, removes: false, made_up: false }
}

fn create(name: &str, _: Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    ByteQueue::create(name, CAPACITY).map(Some)
}

fn open(name: &str, _: Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    ByteQueue::open(name).map(Some)
}

fn open_or_create(name: &str, _: Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    ByteQueue::open_or_create(name, CAPACITY).map(Some)
}

#[expect(clippy::unnecessary_wraps, reason = "an entry of the table")]
fn leave(_: &str, queue: Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    drop(queue);
    Ok(None)
}

fn remove(name: &str, queue: Option<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    shmq::remove(name).map(|()| queue)
}

const CALLS: &[Call] = &[
    entry("create", Before::Nothing, create),
    entry("create over what a crash left", Before::Stale, create),
    entry("open", Before::InUse, open),
    entry("open what a crash left", Before::Stale, open),
    entry("open_or_create that creates", Before::Nothing, open_or_create),
    entry("open_or_create that opens", Before::InUse, open_or_create),
    entry("open_or_create over what a crash left", Before::Stale, open_or_create),
    Call { has: a_handle, ..entry("drop", Before::InUse, leave) },
    Call { has: a_handle, ..entry("drop of the last", Before::Nothing, leave) },
    Call { removes: true, ..entry("remove", Before::InUse, remove) },
    Call { removes: true, ..entry("remove what a crash left", Before::Stale, remove) },
    Call { has: a_handle, removes: true, ..entry("remove what one has", Before::Nothing, remove) },
];

/// Its name is made up, so whether something was left can be told only where nobody else is.
const ALONE: &[Call] =
    &[Call { made_up: true, ..entry("new", Before::Nothing, |_, _| ByteQueue::new(CAPACITY).map(Some)) }];

// ---------------------------------------------------------------------------------------------------
// One trial

/// Puts the name into the state before the call. What a survivor has.
fn set(call: &Call, name: &str) -> Vec<ByteQueue> {
    let make = || {
        let queue = ByteQueue::create(name, CAPACITY).expect("the name is free");
        queue.put(OLD).expect("there is room");
        queue
    };
    match call.before {
        Before::Nothing => Vec::new(),
        Before::Stale => {
            let crashed = fork(|| {
                std::mem::forget(make());
                0
            });
            assert_eq!(crashed.wait(), 0);
            Vec::new()
        }
        Before::InUse => vec![make()],
    }
}

fn victim(call: &Call, name: &str) -> Victim {
    Victim::start(
        || (call.has)(name),
        |has| (call.run)(name, has),
        |done| match done {
            Ok(queue) => {
                drop(queue);
                0
            }
            Err(OpenError::NotFound { .. } | OpenError::AlreadyExists { .. }) => 0,
            Err(error) => panic!("{error}"),
        },
    )
}

/// The bytes of the queue that bears the name.
fn look(name: &str, bytes: &mut Vec<u8>) {
    bytes.resize(4096, 0);
    let read = File::open(object(name)).and_then(|file| file.read_at(bytes, 0));
    bytes.truncate(read.unwrap_or(0));
}

fn explore(call: &Call, name: &str) -> Route {
    let kept = set(call, name);
    let mut victim = victim(call, name);
    let route = victim.explore(|bytes| look(name, bytes), None);
    victim.kill();
    drop(kept);
    end(call, name);
    route
}

/// A whole queue: it works, and holds what was in it, or nothing.
fn use_it(queue: &ByteQueue) {
    const PATIENCE: Duration = Duration::from_secs(8);
    queue.put_timeout(NEW, PATIENCE).expect("there is room");
    let first = queue.get_timeout(PATIENCE).expect("there is a message");
    if first == OLD {
        assert_eq!(queue.get_timeout(PATIENCE).expect("there is another"), NEW);
    } else {
        assert_eq!(first, NEW);
    }
    assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
    assert_eq!(queue.qsize(), 0);
}

/// The name is usable, and when everybody has left nothing is left behind. Of a made-up name nothing is left
/// once somebody makes another one.
fn end(call: &Call, name: &str) {
    let (made, prefix) = if call.made_up {
        (ByteQueue::new(CAPACITY), "")
    } else {
        (ByteQueue::open_or_create(name, CAPACITY), name)
    };
    let queue = made.expect("that always works");
    use_it(&queue);
    assert_eq!(names_beginning_with(prefix), [queue.name()]);
    drop(queue);
    let left = names_beginning_with(prefix);
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// A survivor's call that has to be prompt.
fn promptly<R>(log: &Log, call: impl FnOnce() -> R) -> R {
    let (returned, took) = timed(call);
    log.took(Place::Call, took);
    assert_prompt(took);
    returned
}

fn kill_at(call: &Call, route: &Route, moment: Moment, number: u64, name: &str, log: &Log) {
    let kept = set(call, name);
    let mut victim = victim(call, name);
    victim.go(route, moment, |bytes| look(name, bytes), None);
    victim.kill();

    let attached = !kept.is_empty();
    if number.is_multiple_of(2) {
        match promptly(log, || ByteQueue::open(name)) {
            Ok(queue) => use_it(&queue),
            Err(OpenError::NotFound { .. }) => assert!(!attached || call.removes, "it is in use"),
            Err(error) => panic!("{error}"),
        }
    } else {
        match promptly(log, || ByteQueue::create(name, CAPACITY)) {
            Ok(queue) => {
                assert!(!attached || call.removes, "it is in use");
                use_it(&queue);
            }
            Err(OpenError::AlreadyExists { .. }) => assert!(attached, "nobody is attached"),
            Err(error) => panic!("{error}"),
        }
    }
    kept.iter().for_each(use_it);
    drop(kept);
    promptly(log, || end(call, name));
}

/// Nobody waits for longer than this for one who is stopped, and a bit.
const PATIENCE: Duration = Duration::from_secs(5);

fn stop_at(call: &Call, route: &Route, moment: Moment, number: u64, name: &str, log: &Log) {
    let mut kept = set(call, name);
    let mut victim = victim(call, name);
    victim.go(route, moment, |bytes| look(name, bytes), None);
    victim.stop(number.is_multiple_of(3));

    // Where the door is locked, others wait for it with all of their patience: few such trials will do.
    let is_slow = File::open(object(name)).is_ok_and(|file| is_locked(&file, 0, 1));
    let enough = if is_thorough() { 8 } else { 1 };
    if !is_slow || log.get(Place::Slow) < enough {
        log.add(Place::Slow, u64::from(is_slow));
        let (met, took) = timed(|| meet(number, name, &mut kept));
        match met {
            Ok(queue) => queue.iter().for_each(use_it),
            Err(OpenError::NotFound { .. } | OpenError::AlreadyExists { .. }) => {}
            Err(OpenError::Io(error)) if is_slow && error.kind() == ErrorKind::TimedOut => {}
            Err(error) => panic!("{error}"),
        }
        let over = took.saturating_sub(if is_slow { PATIENCE } else { Duration::ZERO });
        log.took(if is_slow { Place::Overrun } else { Place::Call }, over);
        assert_prompt(over);
    }
    victim.goes_on_to_its_end(|| {});
    kept.iter().for_each(use_it);
    drop(kept);
    end(call, name);
}

/// Somebody else's call, another one each time.
fn meet(number: u64, name: &str, kept: &mut Vec<ByteQueue>) -> Result<Option<ByteQueue>, OpenError> {
    match number % 5 {
        0 => open(name, None),
        1 => create(name, None),
        2 => open_or_create(name, None),
        3 => remove(name, None),
        _ => {
            kept.clear();
            Ok(None)
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// All of them

/// The role: one call, at every instant.
fn try_at_every_instant(trial: Trial, arguments: &[String]) {
    let find = |name: &str| {
        let mut calls = CALLS.iter().chain(ALONE);
        calls.find(|call| call.name == name).expect("it is in the table")
    };
    hold_court(
        trial,
        arguments,
        |call, name| explore(find(call), name),
        |call, route, moment, number, name, log| match trial {
            Trial::Kill => kill_at(find(call), route, moment, number, name, log),
            Trial::Stop => stop_at(find(call), route, moment, number, name, log),
        },
    );
}

fn try_all(role: &str) {
    let patience = ms(30_000);
    let mut wrong = play(&[], role, CALLS.iter().map(|call| call.name), patience);
    match private_shm() {
        Some(launcher) => {
            let launcher: Vec<_> = launcher.iter().map(String::as_str).collect();
            wrong.extend(play(&launcher, role, ALONE.iter().map(|call| call.name), patience));
        }
        None => println!("skipped in part: not allowed to mount anything here"),
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn killed_at_any_instant_of_making_or_leaving_a_queue_a_process_leaves_the_name_usable() {
    try_all("instants_names::killed");
}

#[test]
fn stopped_at_any_instant_of_making_or_leaving_a_queue_a_process_delays_others_by_5_s_at_most() {
    try_all("instants_names::stopped");
}
