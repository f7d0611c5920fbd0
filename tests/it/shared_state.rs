//! `Value` and `Array`: nothing is torn, nothing is counted twice or lost, and a death with the guard is told once.

use std::fmt::Debug;
use std::fs::File;
use std::mem::forget;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use shmq::{Array, OpenError, Queue, QueueOptions, Value};

use crate::harness::{
    Random, Record, Role, Stage, assert_about, assert_prompt, crash, exists, fork, hear, ms, nap, object,
    say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("shared_state::counts", counts),
    ("shared_state::opens", opens),
    ("shared_state::flips", flips),
    ("shared_state::dies_with_the_guard", dies_with_the_guard),
    ("shared_state::dies_anywhere", dies_anywhere),
    ("shared_state::forks_with_the_guard", forks_with_the_guard),
    ("shared_state::stopped_with_the_guard", stopped_with_the_guard),
    #[cfg(target_arch = "x86_64")]
    ("shared_state::killed_at_every_instant", every_instant::killed),
];

/// Longer than what is read in one piece.
type Long = [u64; 16];

// ---------------------------------------------------------------------------------------------------
// What they are like

fn is_for_everybody<T: Clone + Send + Sync + Debug>(_: &T) {}

#[test]
fn a_value_is_what_was_written_last_whatever_its_size() {
    fn try_it<T: Pod + PartialEq + Debug>([first, second, third]: [T; 3]) {
        let value = Value::new(first).unwrap();
        is_for_everybody(&value);
        let there = Value::<T>::open(value.name()).unwrap();
        assert_eq!(there.get(), first);
        there.set(second);
        assert_eq!(value.get(), second);
        {
            let mut guard = value.lock();
            assert_eq!((*guard, guard.recovered()), (second, false));
            *guard = third;
            assert_eq!(*guard, third);
        }
        assert_eq!(there.get(), third);
        // Another size is another type.
        let other = Value::<[u8; 31]>::open(value.name()).unwrap_err();
        assert!(matches!(other, OpenError::Mismatch { .. }), "{other:?}");
        let text = other.to_string();
        assert!(text.contains("31 bytes") && text.contains(&format!("{} bytes", size_of::<T>())), "{text}");
    }
    try_it([[0_u8; 0]; 3]);
    try_it([1_u8, 2, 3]);
    try_it([[1_u8; 2], [2; 2], [3; 2]]);
    try_it([[1_u8; 3], [2; 3], [3; 3]]);
    try_it([1_u32, 2, u32::MAX]);
    try_it([[1_u8; 5], [2; 5], [3; 5]]);
    try_it([[1_u16; 3], [2; 3], [3; 3]]);
    try_it([[1_u8; 7], [2; 7], [3; 7]]);
    try_it([1_i64, -2, i64::MIN]);
    try_it([[1_u8; 9], [2; 9], [3; 9]]);
    try_it([1_u128, 2, u128::MAX]);
    try_it([[1_u64; 512], [2; 512], [3; 512]]);
    try_it([[[1_u8; 23]; 128], [[2; 23]; 128], [[3; 23]; 128]]);
    let number = Value::new(-1.5_f64).unwrap();
    *number.lock() *= 2.0;
    assert!((number.get() + 3.0).abs() < f64::EPSILON);
    assert!(format!("{number:?} {:?}", number.lock()).contains(number.name()));
}

#[test]
fn a_guard_that_is_only_read_overwrites_nothing() {
    let value = Value::new(1_u64).unwrap();
    let guard = value.lock();
    assert_eq!(*guard, 1);
    value.set(2);
    drop(guard);
    assert_eq!(value.get(), 2);
}

#[test]
fn an_array_has_the_length_and_the_elements_that_it_was_made_with() {
    let array = Array::new(&[1_u16, 2, 3]).unwrap();
    is_for_everybody(&array);
    let there = Array::<u16>::open(array.name()).unwrap();
    assert_eq!((there.len(), there.is_empty()), (3, false));
    assert_eq!((0..5).map(|at| there.get(at)).collect::<Vec<_>>(), [Some(1), Some(2), Some(3), None, None]);
    assert!(there.set(2, 7) && !there.set(3, 8) && !there.set(usize::MAX, 8));
    assert_eq!(*array.lock(), [1, 2, 7]);
    array.lock().reverse();
    assert_eq!(there.lock().to_vec(), [7, 2, 1]);
    assert!(format!("{array:?} {:?}", array.lock()).contains(array.name()));

    let empty = Array::<u64>::new(&[]).unwrap();
    assert_eq!((empty.len(), empty.is_empty(), empty.get(0), empty.set(0, 1)), (0, true, None, false));
    assert!(empty.lock().is_empty());
    assert_eq!(Array::<u64>::open(empty.name()).unwrap().len(), 0);

    // What has no size has nothing to be kept.
    let nothing = Array::new(&[[0_u8; 0]; 3]).unwrap();
    assert_eq!((nothing.len(), nothing.get(3)), (3, None));

    let long: Vec<u32> = (0..1_000_000).collect();
    let array = Array::new(&long).unwrap();
    assert_eq!(*Array::<u32>::open(array.name()).unwrap().lock(), long);
    let other = Array::<u64>::open(array.name()).unwrap_err();
    assert!(matches!(other, OpenError::Mismatch { .. }), "{other:?}");
}

#[test]
fn names_are_as_those_of_queues() {
    let stage = Stage::new();
    let name = stage.name();
    assert!(matches!(Value::<u8>::open(&name), Err(OpenError::NotFound { .. })));
    assert!(matches!(Array::<u8>::open(&name), Err(OpenError::NotFound { .. })));
    assert!(matches!(Value::create("not a name", 1), Err(OpenError::InvalidName { .. })));
    let value = Value::create(&name, 7_u32).unwrap();
    assert_eq!(value.name(), name);
    assert!(matches!(Value::create(&name, 8_u32), Err(OpenError::AlreadyExists { .. })));
    assert!(matches!(Array::create(&name, &[8_u32]), Err(OpenError::AlreadyExists { .. })));
    assert_eq!(value.get(), 7);
    // Neither is taken for something else.
    let array = Array::new(&[1_u32]).unwrap();
    let queue = Queue::<u32>::new(1).unwrap();
    let errors = [
        Array::<u32>::open(&name).map(drop).unwrap_err(),
        Queue::<u32>::open(&name).map(drop).unwrap_err(),
        QueueOptions::new().open_or_create::<u32>(&name).map(drop).unwrap_err(),
        Value::<u32>::open(array.name()).map(drop).unwrap_err(),
        Value::<u32>::open(queue.name()).map(drop).unwrap_err(),
        Array::<u32>::open(queue.name()).map(drop).unwrap_err(),
        shmq::peek(&name, 1).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::Mismatch { field: "kind", .. }), "{error:?}");
    }
    let info = shmq::inspect(array.name()).unwrap();
    assert_eq!((info.kind, info.capacity, info.max_message, info.attached), ("array", Some(1), 4, 1));

    // It goes with its last handle, not before.
    let clone = value.clone();
    drop(value);
    assert!(exists(&name));
    assert_eq!(Value::<u32>::open(&name).unwrap().get(), 7);
    drop(clone);
    assert!(!exists(&name));
    // What a crash left is replaced.
    stage.child("shared_state::opens", &["crash", &name]).finish();
    assert!(exists(&name));
    assert_eq!(Value::<u32>::open(&name).unwrap().get(), 9);
    let value = Value::create(&name, 1_u32).unwrap();
    assert_eq!(value.get(), 1);
}

#[test]
fn a_handle_travels_and_a_name_used_again_is_not_taken_for_it() {
    let stage = Stage::new();
    let (name, other) = (stage.name(), stage.name());
    let handles = Queue::<(Value<u64>, Array<u8>)>::create(&stage.name(), 4).unwrap();
    let (value, array) = (Value::create(&name, 1_u64).unwrap(), Array::create(&other, &[1_u8, 2]).unwrap());
    for _ in 0..2 {
        handles.put(&(value.clone(), array.clone())).unwrap();
    }
    let mut child = stage.child("shared_state::opens", &["receive", handles.name()]);
    child.heard("received");
    assert_eq!((value.get(), array.get(1)), (2, Some(9)));
    child.finish();
    drop((value, array));
    let _value = Value::create(&name, 1_u64).unwrap();
    let _array = Array::create(&other, &[1_u8, 2]).unwrap();
    let refused = handles.get();
    assert!(matches!(refused, Err(shmq::GetError::Decode { .. })), "{refused:?}");
}

fn opens(arguments: &[String]) {
    let [what, name] = arguments else { panic!("{arguments:?}") };
    if what == "crash" {
        let value = Value::create(name, 9_u32).unwrap();
        forget(value);
        crash();
    }
    let handles = Queue::<(Value<u64>, Array<u8>)>::open(name).unwrap();
    let (value, array) = handles.get().unwrap();
    *value.lock() += 1;
    assert!(array.set(1, 9));
    say("received");
}

// ---------------------------------------------------------------------------------------------------
// Exclusion

#[test]
fn increments_of_several_processes_are_all_counted() {
    const EACH: u64 = 3000;
    let stage = Stage::new();
    let short = Value::create(&stage.name(), 0_u64).unwrap();
    let long = Value::create(&stage.name(), [0_u64; 16]).unwrap();
    let array = Array::create(&stage.name(), &[0_u32; 3]).unwrap();
    let names = [short.name(), long.name(), array.name(), &EACH.to_string()];
    let children = [(); 3].map(|()| stage.child("shared_state::counts", &names));
    for child in children {
        child.finish();
    }
    assert_eq!((short.get(), long.get()), (3 * EACH, [3 * EACH; 16]));
    assert_eq!(array.lock().iter().map(|count| u64::from(*count)).sum::<u64>(), 3 * EACH);
}

fn counts(arguments: &[String]) {
    let each: usize = arguments[3].parse().unwrap();
    let short = Value::<u64>::open(&arguments[0]).unwrap();
    let long = Value::<Long>::open(&arguments[1]).unwrap();
    let array = Array::<u32>::open(&arguments[2]).unwrap();
    // Two threads, one of them with a timeout.
    thread::scope(|scope| {
        for thread in 0..2 {
            let (short, long, array) = (&short, &long, &array);
            scope.spawn(move || {
                for number in (thread..each).step_by(2) {
                    if thread == 0 {
                        *short.lock() += 1;
                    } else {
                        *short.lock_timeout(Duration::from_secs(30)).expect("nobody has it for long") += 1;
                    }
                    let mut guard = long.lock();
                    let next = guard[0] + 1;
                    assert_eq!(*guard, [next - 1; 16]);
                    *guard = [next; 16];
                    drop(guard);
                    array.lock()[number % 3] += 1;
                }
            });
        }
    });
}

/// Two values that differ in every byte, written and read by several at once.
#[test]
fn no_value_is_torn() {
    fn try_it<T: Pod + PartialEq + Debug>(stage: &Stage, values: [T; 2]) {
        let value = Value::create(&stage.name(), values[0]).unwrap();
        let mut child = stage.child("shared_state::flips", &[value.name(), &size_of::<T>().to_string()]);
        child.heard("flips");
        let start = Instant::now();
        for round in (0..usize::MAX).take_while(|_| start.elapsed() < ms(100)) {
            let seen = value.get();
            assert!(values.contains(&seen), "torn: {seen:?}");
            if round % 64 == 0 {
                value.set(values[round / 64 % 2]);
                let guard = value.lock();
                assert!(values.contains(&guard), "torn under the guard: {:?}", *guard);
            }
        }
        child.tell("enough");
        child.finish();
    }
    let stage = Stage::new();
    try_it(&stage, [[0x55_u8; 3], [0xaa; 3]]);
    try_it(&stage, [0x5555_5555_u32, 0xaaaa_aaaa]);
    try_it(&stage, [[0x55_u8; 5], [0xaa; 5]]);
    try_it(&stage, [[0x55_u8; 7], [0xaa; 7]]);
    try_it(&stage, [0x5555_5555_5555_5555_u64, 0xaaaa_aaaa_aaaa_aaaa]);
    try_it(&stage, [[0x55_u8; 9], [0xaa; 9]]);
    try_it(&stage, [[0x55_u8; 128], [0xaa; 128]]);
}

fn flips(arguments: &[String]) {
    fn flip<T: Pod>(name: &str) {
        let value = Value::<T>::open(name).unwrap();
        let [one, other] = [0x55, 0xaa].map(|byte| {
            let mut value = T::zeroed();
            bytemuck::bytes_of_mut(&mut value).fill(byte);
            value
        });
        say("flips");
        thread::scope(|scope| {
            let flipping = scope.spawn(hear);
            while !flipping.is_finished() {
                for _ in 0..100 {
                    value.set(one);
                    value.set(other);
                }
            }
        });
    }
    let flip = match &*arguments[1] {
        "3" => flip::<[u8; 3]>,
        "4" => flip::<u32>,
        "5" => flip::<[u8; 5]>,
        "7" => flip::<[u8; 7]>,
        "8" => flip::<u64>,
        "9" => flip::<[u8; 9]>,
        "128" => flip::<[u8; 128]>,
        size => panic!("{size}"),
    };
    flip(&arguments[0]);
}

#[test]
fn a_lock_is_waited_for_until_the_deadline_and_not_by_who_has_it() {
    let value = Value::new([0_u64; 4]).unwrap();
    let array = Array::new(&[0_u8; 4]).unwrap();
    let (guard, elements) = (value.lock(), array.lock());
    // The same thread, also by another handle.
    let again = Value::<[u64; 4]>::open(value.name()).unwrap();
    let (refused, took) = timed(|| {
        [
            value.lock_timeout(Duration::from_secs(100)).is_none(),
            again.lock_timeout(Duration::MAX).is_none(),
            array.lock_timeout(Duration::MAX).is_none(),
        ]
    });
    assert_prompt(took);
    assert_eq!(refused, [true; 3]);
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            for timeout in [Duration::ZERO, ms(20)] {
                let (refused, took) = timed(|| value.lock_timeout(timeout).is_none());
                assert!(refused);
                assert_about(took, timeout);
                let (refused, took) = timed(|| array.lock_timeout(timeout).is_none());
                assert!(refused);
                assert_about(took, timeout);
            }
        });
        waits.join().unwrap();
        let waits = scope.spawn(|| value.lock_timeout(Duration::from_secs(30)).is_some());
        nap(ms(5));
        drop(guard);
        assert!(waits.join().unwrap());
    });
    drop(elements);
    assert!(value.lock_timeout(Duration::ZERO).is_some() && array.lock_timeout(Duration::ZERO).is_some());
}

#[test]
fn a_stopped_owner_delays_nobody_beyond_the_deadline() {
    let stage = Stage::new();
    stage.child("shared_state::stopped_with_the_guard", &[&stage.name()]).finish();
}

fn stopped_with_the_guard(arguments: &[String]) {
    let value = Value::create(&arguments[0], [1_u64; 16]).unwrap();
    let record = Record::new();
    let owner = fork(|| {
        let value = Value::<Long>::open(value.name()).unwrap();
        let mut guard = value.lock();
        *guard = [2; 16];
        record.set(0, 1);
        nap(ms(100));
        drop(guard);
        0
    });
    until("it has the lock", || record.get(0) == 1);
    owner.stop();
    let (refused, took) = timed(|| value.lock_timeout(ms(30)).is_none());
    assert!(refused);
    assert_about(took, ms(30));
    owner.go_on();
    // It gives it back late, but it does.
    let guard = value.lock();
    assert_eq!((*guard, guard.recovered()), ([2; 16], false));
    assert_eq!(owner.wait(), 0);
}

// ---------------------------------------------------------------------------------------------------
// Deaths and forks

#[test]
fn a_death_with_the_guard_is_told_once() {
    let stage = Stage::new();
    stage.child("shared_state::dies_with_the_guard", &[&stage.name(), &stage.name()]).finish();
}

fn dies_with_the_guard(arguments: &[String]) {
    let value = Value::create(&arguments[0], [1_u64; 16]).unwrap();
    let array = Array::create(&arguments[1], &[1_u64; 16]).unwrap();
    let die = || {
        let victim = fork(|| {
            let value = Value::<Long>::open(value.name()).unwrap();
            let array = Array::<u64>::open(array.name()).unwrap();
            let (mut guard, mut elements) = (value.lock(), array.lock());
            *guard = [2; 16];
            elements[0] = 2;
            forget((guard, elements));
            0
        });
        assert_eq!(victim.wait(), 0);
    };
    for round in 0..5 {
        die();
        // Those who do not ask are not told, and do not keep it from those who do.
        assert_eq!(value.get(), [1; 16], "a copy that was never written back");
        array.set(15, 15);
        if round == 1 {
            // Several deaths are told once.
            die();
        }
        let (guard, took) = timed(|| value.lock_timeout(Duration::from_secs(10)).unwrap());
        assert_prompt(took);
        assert!(guard.recovered());
        drop(guard);
        let elements = array.lock();
        assert!(elements.recovered());
        // As it was left: the guard of an array writes at once.
        assert_eq!((elements[0], elements[15]), (2, 15));
        drop(elements);
        assert!(!value.lock().recovered() && !array.lock().recovered(), "once");
        array.set(0, 1);
    }
    assert!(shmq::inspect(value.name()).unwrap().recoveries >= 5);

    // Of several who wait, one is told.
    let record = Record::new();
    die();
    let waiting = [0, 1, 2].map(|place| {
        let (value, record) = (&value, &record);
        fork(move || {
            let value = Value::<Long>::open(value.name()).unwrap();
            for _ in 0..3 {
                if value.lock().recovered() {
                    record.set(place, record.get(place) + 1);
                }
            }
            0
        })
    });
    assert!(waiting.iter().all(|waiting| waiting.wait() == 0));
    assert_eq!((0..3).map(|place| record.get(place)).sum::<u64>(), 1);
    // Who is told and dies passes it on.
    die();
    let told = fork(|| {
        let value = Value::<Long>::open(value.name()).unwrap();
        let guard = value.lock();
        let recovered = guard.recovered();
        forget(guard);
        i32::from(!recovered)
    });
    assert_eq!(told.wait(), 0);
    assert!(value.lock().recovered());
}

/// Several who lock, killed at any moment: whole values, each increment counted once, every death with the
/// guard told.
#[test]
fn killed_at_random_owners_harm_nobody() {
    let stage = Stage::new();
    let seed = Random::new().next().to_string();
    let said = stage.child("shared_state::dies_anywhere", &[&stage.name(), &stage.name(), &seed]).finish();
    println!("{said:?}");
}

fn dies_anywhere(arguments: &[String]) {
    let value = Value::create(&arguments[0], [0_u64; 16]).unwrap();
    let array = Array::create(&arguments[1], &[0_u64; 512]).unwrap();
    let mut random = Random::from_seed(arguments[2].parse().unwrap());
    let mut told = [0, 0];
    for _ in 0..60 {
        let victims = [(); 2].map(|()| {
            fork(|| {
                let value = Value::<Long>::open(value.name()).unwrap();
                let array = Array::<u64>::open(array.name()).unwrap();
                loop {
                    let mut guard = value.lock();
                    // Whoever is told puts it right, and says so for the next.
                    let next = guard.iter().max().unwrap() + 1;
                    *guard = [next; 16];
                    drop(guard);
                    let mut guard = array.lock();
                    let next = guard[0] + 1;
                    guard.fill(next);
                }
            })
        });
        for victim in victims {
            nap(Duration::from_micros(random.below(3000)));
            victim.kill();
        }
        let (guard, took) = timed(|| value.lock_timeout(Duration::from_secs(10)).unwrap());
        assert_prompt(took);
        told[0] += u32::from(guard.recovered());
        let whole = guard.iter().all(|part| *part == guard[0]);
        assert!(whole || guard.recovered(), "{guard:?}");
        drop(guard);
        let mut guard = array.lock_timeout(Duration::from_secs(10)).unwrap();
        told[1] += u32::from(guard.recovered());
        let whole = guard.iter().all(|part| *part == guard[0]);
        assert!(whole || guard.recovered(), "{:?}", &guard[..3]);
        let next = guard[0];
        guard.fill(next);
        drop(guard);
        assert!(!value.lock().recovered() && !array.lock().recovered(), "told twice");
    }
    assert!(told.iter().sum::<u32>() > 0, "nobody ever died with the lock");
    say(&format!("{told:?} told of 60 rounds, counted to {}", value.get()[0]));
}

#[test]
fn an_inherited_guard_is_nothing_to_a_forked_child() {
    let stage = Stage::new();
    stage.child("shared_state::forks_with_the_guard", &[&stage.name()]).finish();
}

fn forks_with_the_guard(arguments: &[String]) {
    let value = Value::create(&arguments[0], [1_u64; 16]).unwrap();
    let mut guard = Some(value.lock());
    **guard.as_mut().unwrap() = [2; 16];
    let inherited = fork(|| {
        // Its drop neither writes nor unlocks; and it is the parent who has the lock, not this thread.
        let mut guard = guard.take().unwrap();
        *guard = [9; 16];
        drop(guard);
        let (refused, took) = timed(|| value.lock_timeout(ms(20)).is_none());
        i32::from(!(refused && took >= ms(20)))
    });
    assert_eq!(inherited.wait(), 0);
    let mut written = [0; 8];
    File::open(object(value.name())).unwrap().read_exact_at(&mut written, 4096).unwrap();
    assert_eq!(u64::from_ne_bytes(written), 1, "the child has written");
    let refused = fork(|| {
        let again = Value::<Long>::open(value.name()).unwrap();
        i32::from(again.lock_timeout(ms(5)).is_some())
    });
    assert_eq!(refused.wait(), 0, "the child has unlocked it");
    drop(guard);
    // The child of a child too, each under an identity of its own; and its death is seen.
    let child = fork(|| {
        assert_eq!(value.get(), [2; 16]);
        let mut guard = value.lock();
        *guard = [3; 16];
        drop(guard);
        forget(value.lock());
        0
    });
    assert_eq!(child.wait(), 0);
    let guard = value.lock();
    assert_eq!((*guard, guard.recovered()), ([3; 16], true));
}

/// A process walked through the change of a value, and killed at each instruction.
#[cfg(target_arch = "x86_64")]
mod every_instant {
    use super::*;
    use crate::instants::{Moment, Route, Victim};
    use crate::instants_court::{Log, Place, Trial, hold_court, play};

    const OLD: Long = [1; 16];
    const NEW: Long = [2; 16];

    type Call = fn(&Value<Long>);

    const CALLS: &[(&str, Call)] = &[
        ("change of a value under its guard", |value| {
            let mut guard = value.lock();
            assert_eq!(*guard, OLD);
            *guard = NEW;
        }),
        ("set of a value", |value| value.set(NEW)),
        ("get of a value", |value| _ = value.get()),
    ];

    pub(super) fn killed(arguments: &[String]) {
        let find = |call: &str| CALLS.iter().find(|(name, _)| *name == call).expect("it is in the table").1;
        let start = |call: &str, name: &str| {
            let value = Value::create(name, OLD).unwrap();
            let file = File::open(object(name)).unwrap();
            let victim = Victim::start(
                || Value::<Long>::open(name).unwrap(),
                |value| {
                    find(call)(&value);
                    value
                },
                |_value| 0,
            );
            let look = move |bytes: &mut Vec<u8>| {
                bytes.resize(4096 + 128, 0);
                file.read_exact_at(bytes, 0).unwrap();
            };
            (value, victim, look)
        };
        hold_court(
            Trial::Kill,
            arguments,
            |call, name| {
                let (_value, mut victim, look) = start(call, name);
                let route = victim.explore(look, None);
                victim.kill();
                route
            },
            |call, route: &Route, moment: Moment, _, name, log: &Log| {
                let (value, mut victim, look) = start(call, name);
                let walk = victim.go(route, moment, &look, None);
                victim.kill();
                let mut bytes = Vec::new();
                look(&mut bytes);
                let died_with_it = bytes[1024..1028] != [0; 4];
                let (guard, took) = timed(|| value.lock_timeout(Duration::from_secs(6)).expect("free"));
                log.took(Place::Call, took);
                assert_eq!(guard.recovered(), died_with_it);
                let whole = *guard == OLD || *guard == NEW;
                assert!(whole || guard.recovered(), "{guard:?}");
                if walk.ended {
                    assert_eq!((*guard == NEW, guard.recovered()), (!call.starts_with("get"), false));
                }
                drop(guard);
                assert!(!value.lock().recovered());
            },
        );
    }

    #[test]
    fn killed_at_any_instruction_of_a_change_a_process_leaves_a_whole_value_or_says_so() {
        let wrong =
            play(&[], "shared_state::killed_at_every_instant", CALLS.iter().map(|call| call.0), ms(10_000));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
