//! Messages written and read where they lie.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use shmq::{ByteQueue, GetError, PutError, QueueOptions};

use crate::harness::{
    Record, Role, Stage, assert_about, assert_prompt, assert_woken, fork, ms, nap, play, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("in_place::dies_reading", dies_reading),
    ("in_place::dies_writing", dies_writing),
    ("in_place::stopped_inside", stopped_inside),
];

const BRIEFLY: Duration = Duration::from_millis(40);

fn byte_queue(capacity: usize, max_message: usize) -> ByteQueue {
    QueueOptions::new().capacity(capacity).max_message(max_message).anonymous::<()>().unwrap().into()
}

#[test]
fn what_is_written_in_place_is_read_in_place() {
    let _stage = Stage::new();
    let queue = byte_queue(3, 100);
    // Every length at every place, past the end of the ring too.
    for len in (0..=100).chain((0..=100).rev()) {
        let value = u8::try_from(len).unwrap();
        queue
            .put_with(len, |bytes| {
                assert_eq!(bytes.len(), len);
                bytes.fill(value);
            })
            .unwrap();
        queue.put_with_timeout(1, BRIEFLY, |bytes| bytes[0] = value).unwrap();
        assert_eq!(queue.qsize(), 2);
        if len % 2 == 0 {
            let sum = queue.get_with(|bytes| {
                assert_eq!(queue.qsize(), 2, "it goes when it has been read");
                assert_eq!(bytes, vec![value; len]);
                bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>()
            });
            assert_eq!(sum.unwrap(), len * len);
        } else {
            // The other way is the same message.
            assert_eq!(queue.get().unwrap(), vec![value; len]);
        }
        assert_eq!(queue.get_with_timeout(BRIEFLY, <[u8]>::to_vec).unwrap(), [value]);
        assert!(queue.empty());
    }
    let stats = queue.stats();
    assert_eq!((stats.puts, stats.gets), (404, 404));
    assert_eq!(stats.put_bytes, stats.get_bytes);
}

#[test]
fn a_message_written_in_place_may_be_empty_or_the_longest_and_not_longer() {
    let _stage = Stage::new();
    let queue = byte_queue(2, 8);
    queue.put_with(0, |bytes| assert!(bytes.is_empty())).unwrap();
    assert_eq!(queue.get_with(<[u8]>::len).unwrap(), 0);
    queue.put_with(8, |bytes| bytes.fill(8)).unwrap();
    for len in [9, 10, usize::MAX] {
        let put = queue.put_with(len, |_| panic!("it has no place"));
        assert!(matches!(put, Err(PutError::TooLong { len: found, max: 8 }) if found == len), "{put:?}");
    }
    assert_eq!(queue.qsize(), 1);
    assert_eq!(queue.get_with(<[u8]>::to_vec).unwrap(), [8; 8]);
    let producer = queue.producer().unwrap();
    let put = producer.put_with(9, |_| panic!("it has no place"));
    assert!(matches!(put, Err(PutError::TooLong { len: 9, max: 8 })), "{put:?}");
    // For a queue of nothing but empty messages too.
    let empty = byte_queue(2, 0);
    empty.put_with(0, |bytes| assert!(bytes.is_empty())).unwrap();
    assert!(matches!(empty.put_with(1, |_| panic!("no")), Err(PutError::TooLong { len: 1, max: 0 })));
    assert_eq!(empty.get_with(<[u8]>::len).unwrap(), 0);
}

#[test]
fn a_closure_runs_only_when_it_is_its_turn() {
    let _stage = Stage::new();
    let queue = byte_queue(1, 8);
    let no_put = |_: &mut [u8]| panic!("there is no room");
    let no_get = |_: &[u8]| -> u8 { panic!("there is no message") };
    let (got, took) = timed(|| queue.get_with_timeout(BRIEFLY, no_get));
    assert!(matches!(got, Err(GetError::Empty)));
    assert_about(took, BRIEFLY);
    let (got, took) = timed(|| queue.get_with_timeout(Duration::ZERO, no_get));
    assert!(matches!(got, Err(GetError::Empty)));
    assert_prompt(took);
    queue.put(b"full").unwrap();
    let (put, took) = timed(|| queue.put_with_timeout(1, BRIEFLY, no_put));
    assert!(matches!(put, Err(PutError::Full)));
    assert_about(took, BRIEFLY);
    let (put, took) = timed(|| queue.put_with_timeout(1, Duration::ZERO, no_put));
    assert!(matches!(put, Err(PutError::Full)));
    assert_prompt(took);
    queue.close();
    assert!(matches!(queue.put_with(1, no_put), Err(PutError::Closed)));
    assert_eq!(queue.get_with(<[u8]>::to_vec).unwrap(), b"full");
    assert!(matches!(queue.put_with(1, no_put), Err(PutError::Closed)));
    assert!(matches!(queue.get_with(no_get), Err(GetError::Closed)));
}

#[test]
fn a_closure_that_waited_for_its_turn_is_woken() {
    let _stage = Stage::new();
    let queue = byte_queue(1, 8);
    assert_woken(ms(20), || {
        thread::scope(|scope| {
            let reader = scope.spawn(|| queue.get_with(<[u8]>::to_vec).unwrap());
            nap(ms(6));
            let (got, took) = timed(|| {
                queue.put_with(3, |bytes| bytes.copy_from_slice(b"abc")).unwrap();
                reader.join().unwrap()
            });
            assert_eq!(got, b"abc");
            took
        })
    });
    assert_woken(ms(20), || {
        queue.put(b"full").unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| queue.put_with(3, |bytes| bytes.fill(7)).unwrap());
            nap(ms(6));
            let ((), took) = timed(|| {
                queue.get_with(|_| ()).unwrap();
                writer.join().unwrap();
            });
            assert_eq!(queue.get().unwrap(), [7; 3]);
            took
        })
    });
}

/// A get inside of a put, a put inside of a get: they are at different ends.
#[test]
fn a_closure_may_use_the_other_end() {
    let _stage = Stage::new();
    let queue = byte_queue(2, 8);
    queue.put(b"old").unwrap();
    queue
        .put_with(3, |bytes| {
            assert_eq!(queue.get().unwrap(), b"old");
            assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
            bytes.copy_from_slice(b"new");
        })
        .unwrap();
    queue
        .get_with(|bytes| {
            queue.put(bytes).unwrap();
            // What is being read keeps its place.
            assert!(matches!(queue.put_nowait(b"no"), Err(PutError::Full)));
            assert_eq!(bytes, b"new");
        })
        .unwrap();
    queue.get_with(|bytes| queue.put_with(bytes.len(), |copy| copy.copy_from_slice(bytes)).unwrap()).unwrap();
    assert_eq!(queue.get_many(9).unwrap(), [b"new"]);
    // Close inside of either is an ordinary close: who is inside may finish.
    queue
        .put_with(1, |bytes| {
            bytes[0] = 1;
            queue.close();
        })
        .unwrap();
    assert_eq!(queue.get_with(<[u8]>::to_vec).unwrap(), [1]);
    assert!(matches!(queue.get(), Err(GetError::Closed)));
}

#[test]
fn a_panic_in_a_closure_leaves_the_queue_as_it_was() {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), 2).unwrap();
    let second = ByteQueue::open(queue.name()).unwrap();
    for round in 0..5_u8 {
        let message = [round; 9];
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            queue.put_with(9, |bytes| {
                bytes.fill(99);
                panic!("on purpose");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!((queue.qsize(), queue.stats().puts), (0, u64::from(round)));
        assert!(matches!(second.get_nowait(), Err(GetError::Empty)));
        // Others may put at once, and so may it.
        if round % 2 == 0 {
            second.put_nowait(&message).unwrap();
        } else {
            queue.put_nowait(&message).unwrap();
        }
        for _ in 0..3 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                queue.get_with(|bytes| -> u8 {
                    assert_eq!(bytes, message);
                    panic!("on purpose");
                })
            }));
            assert!(panicked.is_err());
            assert_eq!((queue.qsize(), queue.stats().gets), (1, u64::from(round)));
        }
        assert_eq!(second.get_with_timeout(Duration::ZERO, <[u8]>::to_vec).unwrap(), message);
    }
    assert_eq!(queue.stats().recoveries, 0, "nobody died");
}

/// A panic passes on the wake-up that it ended.
#[test]
fn a_panic_in_a_closure_wakes_the_next_sleeper() {
    let _stage = Stage::new();
    let queue = byte_queue(1, 8);
    assert_woken(ms(20), || {
        thread::scope(|scope| {
            let unlucky = scope.spawn(|| {
                catch_unwind(AssertUnwindSafe(|| queue.get_with(|_| -> u8 { panic!("on purpose") }))).is_err()
            });
            nap(ms(6));
            let sleeper = scope.spawn(|| queue.get().unwrap());
            nap(ms(6));
            let (panicked, took) = timed(|| {
                queue.put(b"x").unwrap();
                sleeper.join().unwrap();
                // Whichever was first.
                if !unlucky.is_finished() {
                    queue.put(b"y").unwrap();
                }
                unlucky.join().unwrap()
            });
            assert!(panicked);
            while queue.get_nowait().is_ok() {}
            took
        })
    });
}

/// At least once: the next one gets the same message.
#[test]
fn a_message_comes_again_when_its_reader_is_killed() {
    play("in_place::dies_reading");
}

fn dies_reading(arguments: &[String]) {
    let queue = ByteQueue::create(&arguments[0], 4).unwrap();
    queue.put_many(&[b"first", b"second"]).unwrap();
    for round in 1..=6 {
        let inside = Record::new();
        let victim = fork(|| {
            let queue = ByteQueue::open(&arguments[0]).unwrap();
            let consumer = (round % 2 == 0).then(|| queue.consumer().unwrap());
            let read = |bytes: &[u8]| {
                inside.set(0, u64::from(bytes == b"first") + 1);
                nap(ms(100_000));
            };
            match &consumer {
                Some(consumer) => consumer.get_with(read).unwrap(),
                None => queue.get_with(read).unwrap(),
            }
            1
        });
        until("the victim reads", || inside.get(0) != 0);
        assert_eq!(inside.get(0), 2, "it is the first one again");
        assert!(matches!(queue.get_timeout(ms(5)), Err(GetError::Empty)), "it is being read");
        // The other end is free meanwhile.
        queue.put_nowait(b"third").unwrap();
        victim.kill();
        assert_eq!(queue.qsize(), 3);
        if round % 3 == 0 {
            assert_eq!(queue.get_with_timeout(Duration::ZERO, <[u8]>::to_vec).unwrap(), b"first");
            assert_eq!(queue.get_many(9).unwrap().len(), 2);
            queue.put_many(&[b"first", b"second"]).unwrap();
        } else {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                queue.get_with(|bytes| {
                    assert_eq!(bytes, b"first");
                    panic!("on purpose")
                })
            }));
            assert!(panicked.is_err());
            // The third one goes again: only the last two of four stay for the next round.
            let got = queue.get_many(9).unwrap();
            assert_eq!(got, [&b"first"[..], b"second", b"third"]);
            queue.put_many(&[b"first", b"second"]).unwrap();
        }
        assert_eq!(queue.stats().recoveries, round);
    }
}

#[test]
fn a_writer_killed_inside_leaves_nothing() {
    play("in_place::dies_writing");
}

fn dies_writing(arguments: &[String]) {
    let queue = ByteQueue::create(&arguments[0], 2).unwrap();
    for round in 1..=6 {
        let inside = Record::new();
        let victim = fork(|| {
            let queue = ByteQueue::open(&arguments[0]).unwrap();
            let producer = (round % 2 == 0).then(|| queue.producer().unwrap());
            let fill = |bytes: &mut [u8]| {
                bytes.fill(99);
                inside.set(0, 1);
                nap(ms(100_000));
            };
            match &producer {
                Some(producer) => producer.put_with(100, fill).unwrap(),
                None => queue.put_with(100, fill).unwrap(),
            }
            1
        });
        until("the victim writes", || inside.get(0) != 0);
        assert!(queue.empty());
        assert!(matches!(queue.put_timeout(b"x", ms(5)), Err(PutError::Full)), "it is being written");
        victim.kill();
        assert!(queue.empty());
        let (put, took) = timed(|| queue.put_nowait(b"x"));
        put.unwrap();
        assert_prompt(took);
        assert_eq!(queue.get_many(9).unwrap(), [b"x"]);
        let stats = queue.stats();
        assert_eq!((stats.puts, stats.recoveries), (round, round));
    }
}

#[test]
fn a_process_stopped_inside_of_a_closure_delays_nobody_beyond_the_deadline() {
    play("in_place::stopped_inside");
}

fn stopped_inside(arguments: &[String]) {
    let queue = ByteQueue::create(&arguments[0], 4).unwrap();
    queue.put(b"message").unwrap();
    let inside = Record::new();
    let victim = fork(|| {
        let queue = ByteQueue::open(&arguments[0]).unwrap();
        let wait = || {
            while inside.get(9) == 0 {
                nap(ms(1));
            }
        };
        let got = queue.get_with(|bytes| {
            queue
                .put_with(bytes.len(), |copy| {
                    inside.set(0, 1);
                    wait();
                    copy.copy_from_slice(bytes);
                })
                .unwrap();
        });
        i32::from(got.is_err())
    });
    until("the victim is inside", || inside.get(0) != 0);
    victim.stop();
    let (put, took) = timed(|| queue.put_timeout(b"x", BRIEFLY));
    assert!(matches!(put, Err(PutError::Full)));
    assert_about(took, BRIEFLY);
    let (got, took) = timed(|| queue.get_timeout(BRIEFLY));
    assert!(matches!(got, Err(GetError::Empty)));
    assert_about(took, BRIEFLY);
    let (got, took) = timed(|| (queue.get_nowait(), queue.put_nowait(b"x")));
    assert!(matches!(got, (Err(GetError::Empty), Err(PutError::Full))));
    assert_prompt(took);
    let ((), took) = timed(|| queue.close());
    assert_prompt(took);
    victim.go_on();
    // Its put was under way when the queue was closed: it is delivered, and only then is the end.
    inside.set(9, 1);
    assert_eq!(victim.wait(), 0);
    assert_eq!(queue.get().unwrap(), b"message");
    assert!(matches!(queue.get(), Err(GetError::Closed)));
    assert_eq!(queue.stats().recoveries, 0, "nobody died");
}
