//! Pipes: what goes through them, and how one end learns that the other is gone.
//!
//! Most tests are roles that fork: the far end is a process that was forked and let go of our end, as with
//! pipes of the kernel. And whatever asks at once for the end of file is a role: the test process starts programs
//! all the time, and each has copies of all descriptors until it is executed.

use std::fmt::Debug;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shmq::{Connection, GetError, OpenError, PipeOptions, PutError, Queue, Receiver, Sender};

use crate::harness::{
    Forked, Random, Record, Role, Stage, assert_about, assert_prompt, assert_woken, exists, exit_now, fork,
    ms, nap, play, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("pipes::halves", halves),
    ("pipes::answers", answers),
    ("pipes::ends_in_every_way", ends_in_every_way),
    ("pipes::told_of_a_death", told_of_a_death),
    ("pipes::found_by_many", found_by_many),
    ("pipes::last_messages", last_messages),
    ("pipes::woken", woken),
    ("pipes::far_end_stopped", far_end_stopped),
    ("pipes::classical", classical),
    ("pipes::inherited", inherited),
    ("pipes::crowded", crowded),
];

/// The name in what is printed of an end: that of an anonymous pipe is told nowhere else.
pub(crate) fn name_of(end: &impl Debug) -> String {
    let text = format!("{end:?}");
    text.split('"').nth(1).expect("a name in quotation marks").to_owned()
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "so that the call can stand in it")]
pub(crate) fn assert_ended<T: Debug>(got: Result<T, GetError>) {
    assert!(matches!(got, Err(GetError::Closed)), "{got:?} instead of the end of file");
}

// What goes through

#[test]
fn items_of_two_types_and_bytes_go_both_ways() {
    let (here, there) = shmq::pipe::<String, (u32, bool)>().unwrap();
    here.send(&"a question".to_owned()).unwrap();
    here.send_bytes(b"and some bytes").unwrap();
    there.send(&(7, true)).unwrap();
    assert_eq!(there.recv().unwrap(), "a question");
    assert_eq!(there.recv_bytes().unwrap(), b"and some bytes");
    assert_eq!(here.recv().unwrap(), (7, true));
    assert!(matches!(here.recv_nowait(), Err(GetError::Empty)));
    assert!(matches!(there.recv_timeout(ms(5)), Err(GetError::Empty)));
}

#[test]
fn a_short_buffer_loses_nothing() {
    let (there, here) = PipeOptions::new().capacity(8).pipe::<(), u32>().unwrap();
    let mut buffer = [0xff; 8];
    there.send_bytes(b"12345678").unwrap();
    there.send_bytes(b"123").unwrap();
    there.send_bytes(b"").unwrap();
    there.send_bytes(b"123456789").unwrap();
    assert_eq!(here.recv_bytes_into(&mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"12345678");
    assert_eq!(here.recv_bytes_into(&mut buffer).unwrap(), 3);
    assert_eq!(&buffer, b"12345678");
    assert_eq!(here.recv_bytes_into(&mut []).unwrap(), 0);
    match here.recv_bytes_into(&mut buffer) {
        Err(GetError::BufferTooShort { message }) => assert_eq!(message, b"123456789"),
        other => panic!("{other:?}"),
    }
    assert!(!here.poll(Duration::ZERO).unwrap(), "it came whole in the error, and is gone");

    // A limit leaves it where it is.
    there.send_bytes(b"123456789").unwrap();
    for _ in 0..3 {
        let refused = here.recv_bytes_max(8);
        assert!(matches!(refused, Err(GetError::TooLong { len: 9, max: 8 })), "{refused:?}");
    }
    assert_eq!(here.recv_bytes_max(9).unwrap(), b"123456789");
    there.send_bytes(b"").unwrap();
    assert_eq!(here.recv_bytes_max(0).unwrap(), b"");
    // Nor does it lose what is no item.
    there.send_bytes(b"\xff\xff").unwrap();
    match here.recv_bytes_max(1) {
        Err(GetError::TooLong { len: 2, max: 1 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_item_comes_back_whole() {
    let (here, there) = shmq::pipe::<String, u32>().unwrap();
    here.send_bytes(b"\xff").unwrap();
    match there.recv() {
        Err(GetError::Decode { message, .. }) => assert_eq!(message, b"\xff"),
        other => panic!("{other:?}"),
    }
    assert!(!there.poll(Duration::ZERO).unwrap());
}

#[test]
fn a_pipe_has_two_slots_each_way() {
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    for end in [&here, &there] {
        end.send_nowait(&1).unwrap();
        end.send_nowait(&2).unwrap();
        assert!(matches!(end.send_nowait(&3), Err(PutError::Full)));
        let (full, took) = timed(|| end.send_timeout(&3, ms(20)));
        assert!(matches!(full, Err(PutError::Full)));
        assert_about(took, ms(20));
    }
    assert_eq!(here.recv().unwrap(), 1);
    there.send_nowait(&3).unwrap();
    assert!(matches!(here.send_nowait(&3), Err(PutError::Full)), "the other way is full all the same");
    assert_eq!([here.recv().unwrap(), here.recv().unwrap()], [2, 3]);
    let (empty, took) = timed(|| here.recv_timeout(ms(20)));
    assert!(matches!(empty, Err(GetError::Empty)));
    assert_about(took, ms(20));
    let (polled, took) = timed(|| here.poll(ms(20)));
    assert!(!polled.unwrap());
    assert_about(took, ms(20));
}

#[test]
fn options_are_kept() {
    let (here, there) = PipeOptions::new().capacity(3).max_message(10).pipe::<(), ()>().unwrap();
    assert!(matches!(here.send_bytes(&[0; 11]), Err(PutError::TooLong { len: 11, max: 10 })));
    for _ in 0..3 {
        here.send_bytes(&[1; 10]).unwrap();
    }
    assert!(matches!(here.send_nowait(&()), Err(PutError::Full)));
    assert_eq!(there.recv_bytes().unwrap(), [1; 10]);
    let long = vec![7; 64 << 10];
    let (here, there) = shmq::pipe::<(), ()>().unwrap();
    here.send_bytes(&long).unwrap();
    assert_eq!(there.recv_bytes().unwrap(), long);
    assert!(matches!(here.send_bytes(&vec![0; (64 << 10) + 1]), Err(PutError::TooLong { .. })));
    for bad in [PipeOptions::new().capacity(0), PipeOptions::new().max_message((1 << 30) + 1)] {
        assert!(matches!(bad.pipe::<(), ()>(), Err(OpenError::InvalidOptions { .. })));
        assert!(matches!(bad.simplex::<()>(), Err(OpenError::InvalidOptions { .. })));
    }
    let stage = Stage::new();
    let name = stage.name();
    let label = |label| PipeOptions::new().schema(label).clone();
    let _here = label("one").create::<(), ()>(&name).unwrap();
    let refused = label("two").open::<(), ()>(&name);
    assert!(matches!(refused, Err(OpenError::Mismatch { field: "schema", .. })), "{refused:?}");
    let refused = Queue::<()>::open(&name);
    assert!(matches!(refused, Err(OpenError::Mismatch { field: "kind", .. })), "{refused:?}");
    let _there = label("one").open::<(), ()>(&name).unwrap();
}

#[test]
fn another_process_answers() {
    let stage = Stage::new();
    let name = stage.name();
    let here = Connection::<Vec<u32>, u64>::create(&name).unwrap();
    let child = stage.child("pipes::answers", &[&name]);
    for round in 0..500_u32 {
        let question: Vec<_> = (0..round % 50).collect();
        here.send(&question).unwrap();
        assert_eq!(here.recv().unwrap(), question.iter().map(|number| u64::from(*number)).sum());
    }
    here.close();
    assert_eq!(child.finish(), ["500"]);
    assert!(!exists(&name));
}

fn answers(arguments: &[String]) {
    let there = Connection::<u64, Vec<u32>>::open(&arguments[0]).unwrap();
    let mut count = 0;
    let error = loop {
        match there.recv() {
            Ok(question) => there.send(&question.into_iter().map(u64::from).sum()).unwrap(),
            Err(error) => break error,
        }
        count += 1;
    };
    assert!(matches!(error, GetError::Closed));
    say(&count.to_string());
}

// The end of file

#[test]
fn each_way_of_going_is_the_end_of_file_after_the_last_message() {
    play("pipes::ends_in_every_way");
}

fn ends_in_every_way(arguments: &[String]) {
    const WAYS: [&str; 6] = ["closes", "drops", "exits", "crashes", "is killed", "executes"];
    for way in WAYS {
        let name = format!("{}{}", arguments[0], way.len());
        let done = Record::new();
        // Before there is a pipe, so that the child inherits nothing of our end.
        let child = fork(|| {
            until("there is a pipe", || done.get(1) == 1);
            let there = Connection::<u8, u8>::open(&name).unwrap();
            there.send(&1).unwrap();
            there.send(&2).unwrap();
            let go_on_until_killed = || {
                loop {
                    nap(ms(1000));
                }
            };
            match way {
                "closes" => {
                    there.close();
                    done.set(0, 1);
                    go_on_until_killed();
                }
                "drops" => {
                    let (sender, receiver) = there.split();
                    drop((receiver, sender));
                    done.set(0, 1);
                    go_on_until_killed();
                }
                "exits" => std::process::exit(0),
                "crashes" => exit_now(0),
                "is killed" => {
                    done.set(0, 1);
                    go_on_until_killed();
                }
                _ => {
                    let error = Command::new("sleep").arg("100").exec();
                    panic!("{error}");
                }
            }
            0
        });
        let here = Connection::<u8, u8>::create(&name).unwrap();
        done.set(1, 1);
        match way {
            "exits" | "crashes" => assert_eq!(child.wait(), 0),
            "executes" => until("another program runs", || {
                let command = format!("/proc/{}/comm", child.pid());
                fs::read_to_string(command).is_ok_and(|name| name.trim() == "sleep")
            }),
            _ => until("it is done", || done.get(0) == 1),
        }
        if way == "is killed" {
            child.kill();
        }
        // The child lives on in some of the ways, without the end.
        assert!(here.poll(Duration::ZERO).unwrap());
        assert_eq!([here.recv().unwrap(), here.recv().unwrap()], [1, 2], "{way}");
        assert_ended(here.recv());
        // The kernel may show the other program before it has closed everything.
        let told = || matches!(here.send_nowait(&3), Err(PutError::Closed));
        if way == "executes" {
            until("both directions have ended", told);
        }
        for _ in 0..2 {
            assert_ended(here.recv());
            assert_ended(here.recv_nowait());
            assert_ended(here.recv_bytes());
            assert_ended(here.recv_bytes_max(3));
            assert_ended(here.recv_bytes_into(&mut []));
            assert!(matches!(here.send(&3), Err(PutError::Closed)), "{way}");
            assert!(matches!(here.send_nowait(&3), Err(PutError::Closed)), "{way}");
            assert!(matches!(here.send_bytes(&[]), Err(PutError::Closed)), "{way}");
            assert!(here.poll(Duration::MAX).unwrap());
            assert_eq!(shmq::wait(&[&here], None).unwrap(), [0]);
        }
        drop(here);
        assert!(!exists(&name));
    }
}

#[test]
fn halves_end_on_their_own_and_clones_count() {
    play("pipes::halves");
}

fn halves(_: &[String]) {
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let (sender, receiver) = there.split();
    let another = sender.clone();
    sender.close();
    assert!(matches!(here.recv_nowait(), Err(GetError::Empty)), "there is a clone");
    another.send(&1).unwrap();
    drop(another);
    assert_eq!(here.recv().unwrap(), 1);
    assert_ended(here.recv());
    // The other direction is untouched.
    here.send(&2).unwrap();
    assert_eq!(receiver.recv().unwrap(), 2);
    let here_too = here.clone();
    drop(here);
    assert!(matches!(receiver.recv_nowait(), Err(GetError::Empty)));
    here_too.send(&3).unwrap();
    receiver.clone().close();
    here_too.send(&4).unwrap();
    drop(receiver);
    assert!(matches!(here_too.send(&5), Err(PutError::Closed)));

    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    sender.send(&1).unwrap();
    drop(receiver);
    assert!(matches!(sender.send(&2), Err(PutError::Closed)));
}

/// What we sleep in when the far end dies.
#[derive(Clone, Copy, Debug)]
enum Asleep {
    Recv,
    Send,
    Poll,
    Wait,
}

/// The far end is killed at a random moment of what it does all the time, which is now and then to let us
/// sleep.
#[test]
fn a_sleeper_is_told_of_the_death_of_the_far_end_wherever_that_was() {
    play("pipes::told_of_a_death");
}

fn told_of_a_death(_: &[String]) {
    const ROUNDS: u64 = 30;
    let mut random = Random::new();
    for asleep in [Asleep::Recv, Asleep::Send, Asleep::Poll, Asleep::Wait] {
        let mut all = Vec::new();
        for round in 0..ROUNDS {
            let (here, there) = shmq::pipe::<u64, u64>().unwrap();
            let ends = Mutex::new(Some((here, there)));
            let victim = fork(|| {
                let (here, there) = ends.lock().unwrap().take().unwrap();
                drop(here);
                // In a third of the rounds it does nothing, and we sleep for sure.
                if round % 3 == 0 {
                    nap(ms(60_000));
                }
                for number in 0.. {
                    match asleep {
                        Asleep::Send => _ = there.recv(),
                        _ => _ = there.send(&number),
                    }
                    if number % 16 == 0 {
                        nap(Duration::from_micros(100));
                    }
                }
                0
            });
            let (here, there) = ends.lock().unwrap().take().unwrap();
            drop(there);
            let delay = Duration::from_micros(2000 + random.below(3000));
            let (told, killed) = thread::scope(|scope| {
                let killer = scope.spawn(move || {
                    nap(delay);
                    victim.kill();
                    Instant::now()
                });
                until_told(&here, asleep);
                (Instant::now(), killer.join().unwrap())
            });
            // It may be told before the death has been waited for.
            all.push(told.saturating_duration_since(killed));
        }
        all.sort_unstable();
        let (median, worst) = (all[all.len() / 2], all[all.len() - 1]);
        assert!(median < ms(300), "{asleep:?}: {all:?}");
        assert_prompt(worst);
        say(&format!("{asleep:?}: told after {median:?}, at worst {worst:?}"));
    }
}

fn until_told(here: &Connection<u64, u64>, asleep: Asleep) {
    match asleep {
        Asleep::Recv => while here.recv().is_ok() {},
        Asleep::Send => while here.send(&1).is_ok() {},
        Asleep::Poll => loop {
            assert!(here.poll(Duration::MAX).unwrap());
            if matches!(here.recv_nowait(), Err(GetError::Closed)) {
                break;
            }
        },
        Asleep::Wait => loop {
            assert_eq!(shmq::wait(&[here], None).unwrap(), [0]);
            if matches!(here.recv_nowait(), Err(GetError::Closed)) {
                break;
            }
        },
    }
}

/// Whoever looks finds it, also if others look at the same moment.
#[test]
fn the_end_of_file_is_found_by_many_at_once() {
    play("pipes::found_by_many");
}

fn found_by_many(_: &[String]) {
    const ROUNDS: u64 = 150;
    const PROCESSES: u64 = 2;
    let pipes: Vec<_> = (0..ROUNDS).map(|_| shmq::pipe::<u8, u8>().unwrap()).collect();
    let pipes = Mutex::new(Some(pipes));
    let record = Record::new();
    let first = || {
        let pipes = pipes.lock().unwrap().take().unwrap();
        pipes.into_iter().map(|(here, there)| (here, Some(there))).collect::<Vec<_>>()
    };
    let spin_until = |round: u64| while record.get(0) <= round {};
    let look = |here: &Connection<u8, u8>, round: u64| {
        spin_until(round);
        let got = here.recv_nowait();
        let put = here.send_nowait(&1);
        assert!(matches!(got, Err(GetError::Closed)), "round {round}: {got:?}");
        assert!(matches!(put, Err(PutError::Closed)), "round {round}: {put:?}");
    };
    let lookers: Vec<_> = (0..PROCESSES)
        .map(|looker| {
            fork(|| {
                let mut pipes = first();
                for (_, there) in &mut pipes {
                    *there = None;
                }
                record.set(1 + looker, 1);
                // Two threads of one process, which share the handle.
                thread::scope(|scope| {
                    for _ in 0..2 {
                        let (pipes, look) = (&pipes, &look);
                        scope
                            .spawn(move || (0..).zip(pipes).for_each(|(round, (here, _))| look(here, round)));
                    }
                });
                0
            })
        })
        .collect();
    until("all are ready", || (0..PROCESSES).all(|looker| record.get(1 + looker) == 1));
    for (round, (here, there)) in (1..).zip(&mut first()) {
        drop(there.take());
        record.set(0, round);
        look(here, round - 1);
        if round % 10 == 0 {
            nap(ms(1));
        }
    }
    for looker in lookers {
        assert_eq!(looker.wait(), 0);
    }
}

#[test]
fn the_last_message_before_the_end_of_file_is_never_lost() {
    play("pipes::last_messages");
}

fn last_messages(_: &[String]) {
    let mut random = Random::new();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Something to preempt everybody.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        for round in 0..120_u64 {
            let count = 1 + random.below(5);
            let ends = Mutex::new(Some(shmq::simplex::<u64>().unwrap()));
            let sender = fork(|| {
                let (receiver, sender) = ends.lock().unwrap().take().unwrap();
                drop(receiver);
                for number in 0..count {
                    sender.send(&number).unwrap();
                }
                match round % 3 {
                    0 => drop(sender),
                    1 => exit_now(0),
                    // SAFETY: no memory is passed.
                    #[expect(unsafe_code, reason = "std cannot send signals")]
                    _ => _ = unsafe { libc::raise(libc::SIGKILL) },
                }
                0
            });
            let (receiver, kept) = ends.lock().unwrap().take().unwrap();
            drop(kept);
            let got: Vec<_> = if round % 2 == 0 {
                let drained = |receiver: Receiver<u64>| {
                    std::iter::from_fn(move || match receiver.recv() {
                        Ok(number) => Some(number),
                        Err(error) => {
                            assert!(matches!(error, GetError::Closed), "{error}");
                            None
                        }
                    })
                    .collect::<Vec<_>>()
                };
                let second = receiver.clone();
                let another = thread::spawn(move || drained(second));
                let mut got = drained(receiver);
                got.extend(another.join().unwrap());
                got.sort_unstable();
                got
            } else {
                std::iter::from_fn(|| {
                    while shmq::wait(&[&receiver], Some(ms(20_000))).unwrap().is_empty() {}
                    receiver.recv_nowait().ok()
                })
                .collect()
            };
            assert!(got.iter().copied().eq(0..count), "round {round}: {got:?} of {count}");
            sender.wait();
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn whoever_sleeps_is_woken_by_the_drop_of_the_far_end() {
    play("pipes::woken");
}

fn woken(_: &[String]) {
    let trial = |full: bool| {
        let ends = Mutex::new(Some(shmq::pipe::<u8, u8>().unwrap()));
        let sleeper = fork(|| {
            let (here, there) = ends.lock().unwrap().take().unwrap();
            drop(here);
            if full {
                there.send(&1).unwrap();
                there.send(&2).unwrap();
                i32::from(!matches!(there.send(&3), Err(PutError::Closed)))
            } else {
                i32::from(!matches!(there.recv(), Err(GetError::Closed)))
            }
        });
        let (here, there) = ends.lock().unwrap().take().unwrap();
        drop(there);
        sleeper.falls_asleep();
        let ((), took) = timed(|| {
            drop(here);
            assert_eq!(sleeper.wait(), 0);
        });
        took
    };
    assert_woken(ms(20), || trial(false));
    assert_woken(ms(20), || trial(true));
}

#[test]
fn a_far_end_that_is_stopped_is_no_end_of_file() {
    play("pipes::far_end_stopped");
}

fn far_end_stopped(_: &[String]) {
    let (here, child) = with_child(|there| {
        loop {
            match there.recv() {
                Ok(number) => there.send(&number).unwrap(),
                Err(error) => return i32::from(!matches!(error, GetError::Closed)),
            }
        }
    });
    here.send(&1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    child.falls_asleep();
    child.stop();
    let (got, took) = timed(|| here.recv_timeout(ms(120)));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_about(took, ms(120));
    here.send_nowait(&2).unwrap();
    here.send_nowait(&3).unwrap();
    let (put, took) = timed(|| here.send_timeout(&4, ms(120)));
    assert!(matches!(put, Err(PutError::Full)), "{put:?}");
    assert_about(took, ms(120));
    child.go_on();
    assert_eq!([here.recv().unwrap(), here.recv().unwrap()], [2, 3]);
    drop(here);
    assert_eq!(child.wait(), 0);
}

/// The parent's end, and a child at the other one.
fn with_child(work: impl FnOnce(Connection<u64, u64>) -> i32) -> (Connection<u64, u64>, Forked) {
    let ends = Mutex::new(Some(shmq::pipe::<u64, u64>().unwrap()));
    let child = fork(|| {
        let (here, there) = ends.lock().unwrap().take().unwrap();
        drop(here);
        work(there)
    });
    let (here, there) = ends.lock().unwrap().take().unwrap();
    drop(there);
    (here, child)
}

#[test]
fn parent_and_child_use_a_pipe_as_processes_have_always_done() {
    play("pipes::classical");
}

fn classical(_: &[String]) {
    for first_to_go_is_child in [false, true] {
        let record = Record::new();
        let (here, child) = with_child(|there| {
            assert!(matches!(there.recv_timeout(ms(30)), Err(GetError::Empty)), "no end of file yet");
            record.set(0, 1);
            assert_eq!(there.recv().unwrap(), 1);
            there.send(&2).unwrap();
            if first_to_go_is_child {
                return 0;
            }
            let got = there.recv();
            assert!(matches!(got, Err(GetError::Closed)), "{got:?}");
            i32::from(!matches!(there.send(&3), Err(PutError::Closed)))
        });
        assert!(matches!(here.recv_timeout(ms(30)), Err(GetError::Empty)), "no end of file yet");
        until("the child has looked", || record.get(0) == 1);
        here.send(&1).unwrap();
        assert_eq!(here.recv().unwrap(), 2);
        if first_to_go_is_child {
            assert_ended(here.recv());
            assert!(matches!(here.send(&3), Err(PutError::Closed)));
        }
        let name = name_of(&here);
        assert!(exists(&name));
        drop(here);
        assert_eq!(child.wait(), 0);
        assert!(!exists(&name) || !first_to_go_is_child);
        // Who was last and exited without a drop has left the name: the next anonymous one sweeps it up.
        drop(shmq::simplex::<u8>().unwrap());
        assert!(!exists(&name));
    }
}

/// As with descriptors: it does not matter whether the child ever uses it.
#[test]
fn a_child_that_inherited_an_end_keeps_it_open_until_it_exits() {
    play("pipes::inherited");
}

fn inherited(_: &[String]) {
    let (here, there) = shmq::pipe::<u64, u64>().unwrap();
    let record = Record::new();
    let child = fork(|| {
        let grandchild = fork(|| {
            until("told to end", || record.get(0) == 1);
            there.send(&7).unwrap();
            0
        });
        record.set(1, grandchild.pid().unsigned_abs().into());
        std::mem::forget(grandchild);
        until("told to go", || record.get(2) == 1);
        0
    });
    drop(there);
    until("there is a grandchild", || record.get(1) != 0);
    assert!(matches!(here.recv_timeout(ms(60)), Err(GetError::Empty)));
    here.send(&1).unwrap();
    assert!(!here.poll(ms(1)).unwrap());
    record.set(0, 1);
    assert_eq!(here.recv().unwrap(), 7);
    assert!(matches!(here.recv_timeout(ms(60)), Err(GetError::Empty)), "the child is still there");
    record.set(2, 1);
    assert_eq!(child.wait(), 0);
    assert_ended(here.recv());
}

// Many at an end

#[test]
fn an_end_is_used_by_several_threads_and_processes_at_once() {
    play("pipes::crowded");
}

const LONGEST: usize = 2000;

fn crowded(_: &[String]) {
    const PROCESSES: u64 = 2;
    const THREADS: u64 = 2;
    const COUNT: u64 = 1500;
    let ends = Mutex::new(Some(PipeOptions::new().max_message(LONGEST).simplex::<()>().unwrap()));
    let counts = Record::new();
    let sum = Record::new();
    let message = |number: u64| {
        let len = 8 + usize::try_from(number * 7919 % 1900).unwrap();
        let mut bytes = vec![number.to_le_bytes()[0]; len];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let receive = |receiver: &Receiver<()>| {
        let (mut count, mut total, mut last) = (0, 0, [0; 8]);
        loop {
            match receiver.recv_bytes() {
                Ok(bytes) => {
                    let number = u64::from_le_bytes(*bytes.first_chunk().unwrap());
                    assert_eq!(bytes, message(number), "torn");
                    let sender = usize::try_from(number / COUNT).unwrap();
                    assert!(last[sender] <= number, "out of its sender's order");
                    last[sender] = number;
                    count += 1;
                    total += number;
                }
                Err(GetError::Closed) => return (count, total),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let send = |sender: &Sender<()>, id: u64| {
        for number in id * COUNT..(id + 1) * COUNT {
            sender.send_bytes(&message(number)).unwrap();
        }
    };
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|process| {
            fork(|| {
                let (receiver, sender) = ends.lock().unwrap().take().unwrap();
                drop(receiver);
                thread::scope(|scope| {
                    for thread in 0..THREADS {
                        let (sender, send) = (&sender, &send);
                        scope.spawn(move || send(sender, process * THREADS + thread));
                    }
                });
                0
            })
        })
        .collect();
    children.extend((0..PROCESSES).map(|process| {
        fork(|| {
            let (receiver, sender) = ends.lock().unwrap().take().unwrap();
            drop(sender);
            let got: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| receive(&receiver))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            counts.set(process, got.iter().map(|(count, _)| count).sum());
            sum.set(process, got.iter().map(|(_, sum)| sum).sum());
            0
        })
    }));
    drop(ends.lock().unwrap().take());
    for child in children {
        assert_eq!(child.wait(), 0);
    }
    let all = PROCESSES * THREADS * COUNT;
    assert_eq!(counts.get(0) + counts.get(1), all);
    assert_eq!(sum.get(0) + sum.get(1), all * (all - 1) / 2);
}
