//! Pipes that have a name, which is taken once, and what an end costs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use shmq::{Connection, GetError, OpenError, PutError, Queue};

use crate::harness::{
    Forked, Random, Record, Role, Stage, close_standard, exists, exit_now, fork, hear, ms, nap, play, say,
    until,
};
use crate::pipes::assert_ended;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("pipe_names::taken_once", taken_once),
    ("pipe_names::first_end_gone", first_end_gone),
    ("pipe_names::opened_by_many", opened_by_many),
    ("pipe_names::killed_at_opening", killed_at_opening),
    ("pipe_names::creates_and_dies", creates_and_dies),
    ("pipe_names::descriptors", descriptors),
    ("pipe_names::starts_and_drops", starts_and_drops),
];

#[test]
fn a_named_pipe_is_taken_once() {
    play("pipe_names::taken_once");
}

fn taken_once(arguments: &[String]) {
    let name = &arguments[0];
    assert!(matches!(Connection::<u8, u8>::open(name), Err(OpenError::NotFound { .. })));
    let here = Connection::<u8, u8>::create(name).unwrap();
    assert!(matches!(Connection::<u8, u8>::create(name), Err(OpenError::AlreadyExists { .. })));
    // Nobody has opened it: that is no end of file.
    assert!(matches!(here.recv_timeout(ms(5)), Err(GetError::Empty)));
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert!(shmq::wait(&[&here], Some(Duration::ZERO)).unwrap().is_empty());
    here.send(&1).unwrap();
    here.send(&2).unwrap();
    assert!(matches!(here.send_timeout(&3, ms(5)), Err(PutError::Full)));
    let there = Connection::<u8, u8>::open(name).unwrap();
    assert!(matches!(Connection::<u8, u8>::open(name), Err(OpenError::AlreadyExists { .. })));
    assert_eq!([there.recv().unwrap(), there.recv().unwrap()], [1, 2]);
    drop(there);
    assert_ended(here.recv());
    assert!(matches!(here.send(&3), Err(PutError::Closed)));
    assert!(matches!(Connection::<u8, u8>::open(name), Err(OpenError::AlreadyExists { .. })));
    drop(here);
    assert!(!exists(name));
    assert!(matches!(Connection::<u8, u8>::open(name), Err(OpenError::NotFound { .. })));
}

#[test]
fn a_pipe_whose_first_end_is_gone_cannot_be_opened() {
    play("pipe_names::first_end_gone");
}

fn first_end_gone(arguments: &[String]) {
    let name = &arguments[0];
    // One half is enough.
    let (sender, receiver) = Connection::<u8, u8>::create(name).unwrap().split();
    drop(receiver);
    let there = Connection::<u8, u8>::open(name).unwrap();
    assert!(matches!(there.send(&1), Err(PutError::Closed)));
    sender.send(&1).unwrap();
    drop(sender);
    assert_eq!(there.recv().unwrap(), 1);
    assert_ended(there.recv());
    assert!(matches!(Connection::<u8, u8>::open(name), Err(OpenError::NotFound { .. })));
    assert!(exists(name));
    drop(there);
    assert!(!exists(name));
}

#[test]
fn of_several_who_open_a_pipe_one_gets_it() {
    play("pipe_names::opened_by_many");
}

fn opened_by_many(arguments: &[String]) {
    const OPENERS: u64 = 4;
    for round in 0..25 {
        let name = format!("{}{round}", arguments[0]);
        let record = Record::new();
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| {
                let (name, record) = (&name, &record);
                fork(move || {
                    record.set(1 + opener, 1);
                    while record.get(0) == 0 {}
                    match Connection::<u8, u8>::open(name) {
                        Ok(there) => {
                            there.send(&7).unwrap();
                            assert_eq!(there.recv().unwrap(), 8);
                            1
                        }
                        Err(OpenError::AlreadyExists { .. }) => 2,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        until("all are ready", || (1..=OPENERS).all(|opener| record.get(opener) == 1));
        let here = Connection::<u8, u8>::create(&name).unwrap();
        record.set(0, 1);
        assert_eq!(here.recv().unwrap(), 7);
        here.send(&8).unwrap();
        let mut codes: Vec<_> = openers.iter().map(Forked::wait).collect();
        codes.sort_unstable();
        assert_eq!(codes, [1, 2, 2, 2], "round {round}");
        assert_ended(here.recv());
    }
}

#[test]
fn a_process_that_dies_while_it_opens_leaves_the_end_to_the_next() {
    play("pipe_names::killed_at_opening");
}

fn killed_at_opening(arguments: &[String]) {
    let mut random = Random::new();
    let [mut before, mut after] = [0, 0];
    for round in 0..60 {
        let name = format!("{}{round}", arguments[0]);
        let here = Connection::<u8, u8>::create(&name).unwrap();
        let victim = fork(|| {
            let _there = Connection::<u8, u8>::open(&name).unwrap();
            loop {
                nap(ms(1000));
            }
        });
        nap(Duration::from_micros(random.below(900)));
        victim.kill();
        // It was never there, or it has been and is gone.
        match Connection::<u8, u8>::open(&name) {
            Ok(there) => {
                before += 1;
                here.send(&1).unwrap();
                there.send(&2).unwrap();
                assert_eq!((here.recv().unwrap(), there.recv().unwrap()), (2, 1));
            }
            Err(OpenError::AlreadyExists { .. }) => {
                after += 1;
                assert_ended(here.recv_nowait());
                assert!(matches!(here.send_nowait(&1), Err(PutError::Closed)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    say(&format!("killed {before} times before and {after} times after it was open"));
}

#[test]
fn a_name_that_a_dead_creator_left_is_made_again() {
    let stage = Stage::new();
    let name = stage.name();
    for _ in 0..3 {
        let mut creator = stage.child("pipe_names::creates_and_dies", &[&name]);
        creator.heard("created");
        assert!(matches!(Connection::<u8, u8>::create(&name), Err(OpenError::AlreadyExists { .. })));
        creator.kill();
        assert!(exists(&name));
        let refused = Connection::<u8, u8>::open(&name);
        assert!(matches!(refused, Err(OpenError::NotFound { .. })), "{refused:?}");
        // Whoever looked was the last one, and took the name away; so leave another.
        let mut creator = stage.child("pipe_names::creates_and_dies", &[&name]);
        creator.heard("created");
        creator.kill();
        let here = Connection::<u8, u8>::create(&name).unwrap();
        let there = Connection::<u8, u8>::open(&name).unwrap();
        assert!(matches!(there.recv_nowait(), Err(GetError::Empty)), "what the dead one sent is gone");
        here.send(&1).unwrap();
        assert_eq!(there.recv().unwrap(), 1);
    }
}

fn creates_and_dies(arguments: &[String]) {
    let here = Connection::<u8, u8>::create(&arguments[0]).unwrap();
    here.send(&9).unwrap();
    say("created");
    hear();
}

// Descriptors

#[test]
fn a_name_goes_though_a_program_has_just_been_started() {
    play("pipe_names::starts_and_drops");
}

/// `spawn` returns before the kernel has closed the new program's copies of our descriptors.
fn starts_and_drops(arguments: &[String]) {
    let name = &arguments[0];
    let mut random = Random::new();
    for _ in 0..100 {
        let here = Connection::<u8, u8>::create(name).unwrap();
        let there = (random.below(2) == 0).then(|| Connection::<u8, u8>::open(name).unwrap());
        let mut started = Command::new("true").spawn().unwrap();
        drop((there, here));
        assert!(!exists(name), "the name is still there");
        assert!(started.wait().unwrap().success());
    }
}

#[test]
fn an_end_costs_few_descriptors_and_none_of_the_standard_ones() {
    let stage = Stage::new();
    let mut child = stage.child("pipe_names::descriptors", &[&stage.name()]);
    let said: Vec<_> = (0..4).map(|_| child.next()).collect();
    println!("{said:?}");
    child.heard("standard ones closed");
    child.tell("go");
}

fn descriptors(arguments: &[String]) {
    let count_of = |what: &str, most: usize, open: &dyn Fn() -> Box<dyn Send>| {
        // What is mapped or registered once is none of the handle's.
        drop(open());
        let before = open_descriptors();
        let handle = open();
        let new: Vec<_> = open_descriptors().into_iter().filter(|fd| !before.contains(fd)).collect();
        assert!(new.len() <= most, "{what} costs {new:?}");
        for descriptor in &new {
            assert!(*descriptor > 2);
            let flags = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let flags = i32::from_str_radix(flags, 8).unwrap();
            assert!(flags & libc::O_CLOEXEC != 0, "{what}: {descriptor} survives exec");
        }
        drop(handle);
        assert_eq!(open_descriptors(), before, "{what} leaves descriptors");
        say(&format!("{what}: {}", new.len()));
    };
    count_of("a queue", 2, &|| Box::new(Queue::<u8>::new(4).unwrap()));
    count_of("a named connection", 4, &|| Box::new(Connection::<u8, u8>::create(&arguments[0]).unwrap()));
    count_of("a pipe", 8, &|| Box::new(shmq::pipe::<u8, u8>().unwrap()));
    count_of("a one-way pipe", 4, &|| Box::new(shmq::simplex::<u8>().unwrap()));
    say("standard ones closed");
    hear();
    close_standard();
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    here.send(&1).unwrap();
    let standard = open_descriptors().iter().any(|fd| *fd <= 2);
    exit_now(i32::from(standard || there.recv().unwrap() != 1))
}

fn open_descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let mut open: Vec<i32> = numbers.collect();
    // The one that the directory itself was read through is closed by now.
    open.retain(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    open.sort_unstable();
    open
}
