//! What becomes of a held end whose holder is killed, stopped, forked, or leaks its guard.

use std::mem::forget;
use std::thread;
use std::time::Duration;

use shmq::{ByteQueue, GetError, PutError, QueueOptions};

use crate::harness::{
    Random, Record, Role, Stage, assert_prompt, assert_woken, crash, exit_now, fork, hear, ms, nap, say,
    timed, until,
};
use crate::held::{
    BRIEFLY, cannot_get, cannot_put, every_get_is_a_deadlock, every_put_is_a_deadlock, is_deadlock,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("holders::producer_dies", producer_dies),
    ("holders::consumer_dies", consumer_dies),
    ("holders::dies_before_a_waiter", dies_before_a_waiter),
    ("holders::stopped", stopped),
    ("holders::forks", forks),
    ("holders::leaks", leaks),
];

// A holder is killed

/// Plays the role on a queue of this capacity.
fn survive(role: &str, capacity: usize) {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), capacity).unwrap();
    let seed = Random::new().next().to_string();
    let said = stage.child(role, &[queue.name(), &seed]).finish();
    println!("{said:?}");
    assert_eq!(queue.stats().attached, 1);
}

fn survivor(arguments: &[String]) -> (ByteQueue, Random) {
    let [name, seed] = arguments else { panic!("{arguments:?}") };
    (ByteQueue::open(name).unwrap(), Random::from_seed(seed.parse().unwrap()))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_holder_killed_amid_puts_leaves_what_it_committed_and_a_free_end() {
    survive("holders::producer_dies", 4096);
}

fn producer_dies(arguments: &[String]) {
    let (queue, mut random) = survivor(arguments);
    let mut deaths = 0;
    // The promise is 1 ms; the machine may be busy.
    assert_woken(ms(10), || {
        let record = Record::new();
        let victim = fork(|| {
            let queue = ByteQueue::open(queue.name()).unwrap();
            let producer = queue.producer().unwrap();
            for number in 0..4000_u64 {
                producer.put(&number.to_ne_bytes()).unwrap();
                record.set(0, number + 1);
            }
            say("ready");
            nap(ms(100_000));
            1
        });
        let first = number(&queue.get_timeout(ms(20_000)).unwrap());
        assert_eq!(first, 0);
        nap(Duration::from_micros(random.below(2000)));
        assert!(matches!(queue.put_nowait(b"too soon"), Err(PutError::Full)));
        victim.kill();
        deaths += 1;
        let nowait = deaths % 2 == 0;
        let last = u64::MAX.to_ne_bytes();
        let (put, took) =
            timed(|| if nowait { queue.put_nowait(&last) } else { queue.put_timeout(&last, ms(20_000)) });
        put.unwrap();
        assert_eq!(queue.stats().recoveries, deaths);
        let mut rest: Vec<_> = queue.get_many(9999).unwrap().iter().map(|bytes| number(bytes)).collect();
        assert_eq!(rest.pop(), Some(u64::MAX));
        assert!(rest.iter().copied().eq(1..=rest.len() as u64), "not in order");
        let (there, returned) = (rest.len() as u64 + 1, record.get(0));
        assert!(there == returned || there == returned + 1, "{there} are there, {returned} returned");
        assert!(queue.empty());
        took
    });
    say(&format!("{deaths} holders died"));
}

#[test]
fn a_holder_killed_amid_gets_loses_at_most_the_one_in_its_hands() {
    survive("holders::consumer_dies", 4096);
}

fn consumer_dies(arguments: &[String]) {
    let (queue, mut random) = survivor(arguments);
    let mut deaths = 0;
    assert_woken(ms(10), || {
        let record = Record::new();
        let victim = fork(|| {
            let queue = ByteQueue::open(queue.name()).unwrap();
            let consumer = queue.consumer().unwrap();
            for place in 0.. {
                record.set(place, number(&consumer.get().unwrap()));
            }
            1
        });
        let end = 1000 + random.below(2000);
        for number in 1..=end {
            queue.put_timeout(&number.to_ne_bytes(), ms(20_000)).unwrap();
        }
        nap(Duration::from_micros(random.below(1000)));
        victim.kill();
        deaths += 1;
        let got = record.numbers().count() as u64;
        queue.put(&(end + 1).to_ne_bytes()).unwrap();
        let (next, took) = timed(|| queue.get_nowait().unwrap());
        let next = number(&next);
        assert!(next == got + 1 || next == got + 2, "{got} were got, then came {next}");
        let rest = if next <= end { queue.get_many(9999).unwrap() } else { Vec::new() };
        assert!(rest.iter().map(|bytes| number(bytes)).eq(next + 1..=end + 1), "not in order");
        assert!(queue.empty());
        assert!(queue.stats().recoveries <= deaths);
        took
    });
    say(&format!("{} of {deaths} held the end", queue.stats().recoveries));
}

/// Those who sleep behind a holder, on either end, go on when it is killed.
#[test]
fn whoever_waits_behind_a_holder_goes_on_when_it_is_killed() {
    survive("holders::dies_before_a_waiter", 4);
}

fn dies_before_a_waiter(arguments: &[String]) {
    let (queue, _) = survivor(arguments);
    let mut deaths = 0;
    assert_woken(ms(100), || {
        let held = Record::new();
        let victim = fork(|| {
            let queue = ByteQueue::open(queue.name()).unwrap();
            let (_producer, _consumer) = (queue.producer().unwrap(), queue.consumer().unwrap());
            held.set(0, 1);
            nap(ms(100_000));
            1
        });
        until("it holds both ends", || held.get(0) == 1);
        let open = || ByteQueue::open(queue.name()).unwrap();
        let putters = [0, 1].map(|_| fork(|| i32::from(open().put(b"x").is_err())));
        let getters = [0, 1].map(|_| fork(|| i32::from(open().get().is_err())));
        nap(ms(30));
        let ((), took) = timed(|| {
            victim.kill();
            for forked in putters.iter().chain(&getters) {
                assert_eq!(forked.wait(), 0);
            }
        });
        deaths += 2;
        assert_eq!(queue.stats().recoveries, deaths);
        took
    });
}

// A holder is stopped

#[test]
fn a_stopped_holder_holds_nobody_up_beyond_the_deadline() {
    let stage = Stage::new();
    let said = stage.child("holders::stopped", &[&stage.name()]).finish();
    println!("{said:?}");
}

fn stopped(arguments: &[String]) {
    for close in [false, true] {
        let queue = ByteQueue::create(&arguments[0], 8).unwrap();
        queue.put(b"1").unwrap();
        let (held, ended) = (Record::new(), Record::new());
        let victim = fork(|| {
            let queue = ByteQueue::open(&arguments[0]).unwrap();
            let (producer, consumer) = (queue.producer().unwrap(), queue.consumer().unwrap());
            held.set(0, 1);
            while !matches!(consumer.get_timeout(ms(1)), Err(GetError::Closed)) {
                if producer.put(b"1").is_err() {
                    ended.set(0, 1);
                }
            }
            i32::from(!matches!(producer.put(b"1"), Err(PutError::Closed)))
        });
        until("it holds both ends", || held.get(0) == 1);
        victim.stop();
        cannot_put(&queue);
        if !queue.empty() {
            cannot_get(&queue);
        }
        let (stats, took) = timed(|| (queue.stats(), queue.qsize(), queue.is_closed()));
        assert_prompt(took);
        assert_eq!(stats.0.attached, 2);
        if close {
            let ((), took) = timed(|| queue.close());
            assert_prompt(took);
            let (put, took) = timed(|| queue.put(b"2"));
            assert!(matches!(put, Err(PutError::Closed)), "{put:?}");
            assert_prompt(took);
            victim.go_on();
            assert_eq!(victim.wait(), 0);
            assert!(matches!(queue.get(), Err(GetError::Closed)));
            assert_eq!(queue.stats().recoveries, 0, "nobody died");
        } else {
            victim.go_on();
            victim.stop();
            victim.kill();
            queue.put_nowait(b"2").unwrap();
            assert!(queue.get_many(9).unwrap().ends_with(&[b"2".to_vec()]));
        }
    }
}

// A holder forks

#[test]
fn a_held_end_is_void_in_a_forked_child() {
    let stage = Stage::new();
    let said = stage.child("holders::forks", &[&stage.name()]).finish();
    println!("{said:?}");
}

fn forks(arguments: &[String]) {
    // One slot: the next message lies where the last one lay.
    let mut options = QueueOptions::new();
    options.capacity(1).max_message(64);
    let queue = ByteQueue::from(options.create::<()>(&arguments[0]).unwrap());
    let producer = queue.producer().unwrap();
    let consumer = queue.consumer().unwrap();
    for round in 0..5 {
        producer.put(&[1; 64]).unwrap();
        consumer.get().unwrap();
        let code = fork(|| {
            // Void: it fails, with an error of its own that is no deadlock.
            let puts = [
                producer.put(&[9; 64]),
                producer.put_nowait(&[9; 64]),
                producer.put_timeout(&[9; 64], ms(20_000)),
                producer.put_with(64, |_| exit_now(50)),
                producer.put_many(&[&[9; 64]]).map_err(|error| error.error),
            ];
            for put in puts {
                if !matches!(&put, Err(PutError::Io(error)) if !is_deadlock(error)) {
                    return 51;
                }
            }
            // The child's own waits for the parent's, and not for itself.
            let (put, took) = timed(|| queue.put_timeout(b"no", BRIEFLY));
            if !matches!(put, Err(PutError::Full)) || took < BRIEFLY {
                return 52;
            }
            if !matches!(queue.producer_timeout(BRIEFLY).map(drop), Err(PutError::Full)) {
                return 53;
            }
            // Its drop does nothing.
            // SAFETY: this process ends by `_exit`: nobody drops the original again.
            #[expect(unsafe_code, reason = "the drop of what a closure can only borrow")]
            drop(unsafe { std::ptr::read(&raw const producer) });
            i32::from(!matches!(queue.put_nowait(b"no"), Err(PutError::Full)))
        })
        .wait();
        assert_eq!(code, 0, "round {round}");
        // The parent goes on, and its child has not written where its next message lies.
        every_put_is_a_deadlock(&queue);
        producer
            .put_with(64, |bytes| assert_eq!(bytes, [1; 64], "a void end has written into the ring"))
            .unwrap();
        let code = fork(|| {
            let gets = [
                consumer.get().map(drop),
                consumer.get_nowait().map(drop),
                consumer.get_timeout(ms(20_000)).map(drop),
                consumer.get_many(9).map(drop),
                consumer.get_into(&mut [0; 64]).map(drop),
                consumer.get_with(|_| exit_now(60)),
            ];
            for got in gets {
                if !matches!(&got, Err(GetError::Io(error)) if !is_deadlock(error)) {
                    return 61;
                }
            }
            let (got, took) = timed(|| queue.get_timeout(BRIEFLY));
            if !matches!(got, Err(GetError::Empty)) || took < BRIEFLY {
                return 62;
            }
            if !matches!(queue.consumer_timeout(BRIEFLY).map(drop), Err(GetError::Empty)) {
                return 63;
            }
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "the drop of what a closure can only borrow")]
            drop(unsafe { std::ptr::read(&raw const consumer) });
            i32::from(!matches!(queue.get_nowait(), Err(GetError::Empty)))
        })
        .wait();
        assert_eq!(code, 0, "round {round}");
        every_get_is_a_deadlock(&queue);
        assert_eq!(consumer.get().unwrap(), [1; 64]);
        assert!(queue.empty());
    }
    // A child that waits for the end has it when the parent lets go, for itself and as its own.
    let child = fork(|| {
        let own = queue.producer().unwrap();
        own.put(b"the child's").unwrap();
        let deadlock = matches!(queue.put(b"no"), Err(PutError::Io(error)) if is_deadlock(&error));
        forget(own);
        i32::from(!deadlock)
    });
    child.falls_asleep();
    drop(producer);
    assert_eq!(child.wait(), 0);
    assert_eq!(consumer.get().unwrap(), b"the child's");
    // The child exited with its end held, which is a death like any other.
    queue.put_nowait(b"free").unwrap();
    assert_eq!(queue.stats().recoveries, 1);
}

// A guard is leaked

#[test]
fn a_leaked_end_is_held_until_its_handle_goes() {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), 8).unwrap();
    queue.put(b"1").unwrap();
    for (round, how) in ["drop", "exit"].into_iter().enumerate() {
        let mut child = stage.child("holders::leaks", &[queue.name(), how]);
        child.heard("leaked");
        cannot_put(&queue);
        cannot_get(&queue);
        child.tell("go");
        child.heard("gone");
        if how == "exit" {
            child.finish();
        }
        let (put, took) = timed(|| queue.put_nowait(b"2"));
        put.unwrap();
        assert_prompt(took);
        assert_eq!(queue.get_nowait().unwrap(), b"1");
        assert_eq!(queue.get_nowait().unwrap(), b"2");
        assert_eq!(queue.stats().recoveries, 2 * (round as u64 + 1));
        queue.put(b"1").unwrap();
    }
}

fn leaks(arguments: &[String]) {
    let [name, how] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(name).unwrap();
    forget(queue.producer().unwrap());
    forget(queue.consumer().unwrap());
    every_put_is_a_deadlock(&queue);
    every_get_is_a_deadlock(&queue);
    thread::scope(|scope| {
        scope.spawn(|| cannot_put(&queue));
        scope.spawn(|| cannot_get(&queue));
    });
    say("leaked");
    hear();
    if how == "exit" {
        say("gone");
        crash();
    }
    drop(queue);
    say("gone");
    // Another handle of this process has nothing to do with it, on this thread either.
    let queue = ByteQueue::open(name).unwrap();
    assert!(!queue.is_closed());
}
