//! What Python's `multiprocessing.Queue` taught everybody to expect, and what is better here.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shmq::{ByteQueue, GetError, Iter, OpenError, PutError, Queue, QueueOptions, Stats};

use crate::harness::{
    self, Role, Stage, assert_about, assert_prompt, assert_woken, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("semantics::sleeps_in_get", sleeps_in_get),
    ("semantics::sleeps_in_put", sleeps_in_put),
    ("semantics::answers", answers),
    ("semantics::streams", streams),
];

// First in, first out; full and empty

#[test]
fn messages_come_out_in_the_order_they_went_in() {
    let _stage = Stage::new();
    let queue = Queue::new(100).unwrap();
    for item in 0..100 {
        queue.put(&item).unwrap();
    }
    for item in 0..100 {
        assert_eq!(queue.get().unwrap(), item);
    }
}

#[test]
fn a_queue_fills_up_to_its_capacity_and_empties_again() {
    let _stage = Stage::new();
    let queue = Queue::new(3).unwrap();
    assert_eq!(queue.capacity(), Some(3));
    // More than once around, so that every slot is the first and the last of a full queue.
    for round in 0..10 {
        for held in 0..3 {
            assert_eq!((queue.qsize(), queue.empty(), queue.full()), (held, held == 0, false));
            queue.put_nowait(&(round, held)).unwrap();
        }
        assert_eq!((queue.qsize(), queue.empty(), queue.full()), (3, false, true));
        assert!(matches!(queue.put_nowait(&(9, 9)), Err(PutError::Full)));
        for held in 0..3 {
            assert_eq!(queue.get_nowait().unwrap(), (round, held));
            assert!(!queue.full());
        }
        assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
        // One in between, so that the next round begins at another slot.
        queue.put(&(0, 0)).unwrap();
        assert_eq!(queue.get().unwrap(), (0, 0));
    }
    assert_eq!((queue.qsize(), queue.empty(), queue.full()), (0, true, false));
}

#[test]
fn a_queue_of_one_is_full_with_one() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    for item in 0..10 {
        queue.put_nowait(&item).unwrap();
        assert!(queue.full());
        assert!(matches!(queue.put_nowait(&item), Err(PutError::Full)));
        assert_eq!(queue.get_nowait().unwrap(), item);
        assert!(queue.empty());
    }
}

#[test]
fn a_message_that_did_not_get_in_is_not_in() {
    let _stage = Stage::new();
    let queue = Queue::new(2).unwrap();
    queue.put(&1).unwrap();
    queue.put(&2).unwrap();
    assert!(queue.put_nowait(&3).is_err());
    assert!(queue.put_timeout(&3, ms(1)).is_err());
    assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
    assert!(queue.empty());
}

/// The ring has room for one longest message and some short ones: it is the bytes that run out.
#[test]
fn a_ring_smaller_than_its_capacity_is_full_before_that() {
    let _stage = Stage::new();
    let queue: ByteQueue =
        QueueOptions::new().capacity(1000).max_message(64).ring_bytes(256).anonymous::<()>().unwrap().into();
    assert_eq!(queue.capacity(), Some(1000));
    let mut model = VecDeque::new();
    let mut most = 0;
    for round in 0..200_usize {
        while !queue.full() {
            let sent = round + model.len();
            let message = vec![u8::try_from(sent % 256).unwrap(); sent * 7 % 65];
            queue.put_nowait(&message).unwrap();
            model.push_back(message);
        }
        assert_eq!(queue.qsize(), model.len());
        most = most.max(model.len());
        assert!(matches!(queue.put_nowait(b"more"), Err(PutError::Full)));
        // All but one: the next round goes on in the middle of the ring.
        while model.len() > 1 {
            assert_eq!(queue.get_nowait().ok(), model.pop_front());
        }
        assert_eq!(queue.qsize(), 1);
    }
    assert!((4..20).contains(&most), "{most} messages in 256 bytes");
}

#[test]
fn a_ring_of_the_default_size_holds_its_capacity_of_longest_messages() {
    let _stage = Stage::new();
    for (capacity, max) in [(1, 0), (1, 1), (7, 13), (3, 4096)] {
        let queue: ByteQueue =
            QueueOptions::new().capacity(capacity).max_message(max).anonymous::<()>().unwrap().into();
        for _ in 0..3 {
            for _ in 0..capacity {
                queue.put_nowait(&vec![7; max]).unwrap();
            }
            assert!(queue.full());
            for _ in 0..capacity {
                assert_eq!(queue.get_nowait().unwrap(), vec![7; max]);
            }
        }
    }
}

// Time

#[test]
fn a_zero_timeout_does_not_wait() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    let (got, took) = timed(|| queue.get_timeout(Duration::ZERO));
    assert!(matches!(got, Err(GetError::Empty)));
    assert_prompt(took);
    queue.put_timeout(&1, Duration::ZERO).unwrap();
    let (put, took) = timed(|| queue.put_timeout(&2, Duration::ZERO));
    assert!(matches!(put, Err(PutError::Full)));
    assert_prompt(took);
    assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), 1);
}

#[test]
fn a_timeout_never_ends_early() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(1).unwrap();
    // The nanoseconds carry into the seconds somewhere in these.
    let timeouts = [1, 3, 7, 20, 50, 51, 200, 999, 1000].map(ms);
    for timeout in timeouts {
        let (got, took) = timed(|| queue.get_timeout(timeout));
        assert!(matches!(got, Err(GetError::Empty)));
        assert_about(took, timeout);
    }
    queue.put(b"full").unwrap();
    for timeout in timeouts {
        let (put, took) = timed(|| queue.put_timeout(b"late", timeout));
        assert!(matches!(put, Err(PutError::Full)));
        assert_about(took, timeout);
    }
    let (got, _) = timed(|| queue.get_into_timeout(&mut [0; 8], ms(1)));
    assert_eq!(got.unwrap(), 4);
    let (got, took) = timed(|| queue.get_into_timeout(&mut [0; 8], ms(30)));
    assert!(matches!(got, Err(GetError::Empty)));
    assert_about(took, ms(30));
}

#[test]
fn what_comes_within_the_timeout_is_returned_at_once() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            nap(ms(50));
            queue.put(&5).unwrap();
        });
        let (got, took) = timed(|| queue.get_timeout(ms(30_000)));
        assert_eq!(got.unwrap(), 5);
        assert_about(took, ms(49));
    });
    queue.put(&6).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            nap(ms(50));
            assert_eq!(queue.get().unwrap(), 6);
        });
        let (put, took) = timed(|| queue.put_timeout(&7, ms(30_000)));
        put.unwrap();
        assert_about(took, ms(49));
    });
}

#[test]
fn the_longest_timeout_waits_until_something_comes() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    thread::scope(|scope| {
        let getter = scope.spawn(|| queue.get_timeout(Duration::MAX).unwrap());
        nap(ms(120));
        assert!(!getter.is_finished());
        queue.put(&1).unwrap();
        assert_eq!(getter.join().unwrap(), 1);
    });
    queue.put(&2).unwrap();
    thread::scope(|scope| {
        let putter = scope.spawn(|| queue.put_timeout(&3, Duration::MAX).unwrap());
        nap(ms(120));
        assert!(!putter.is_finished());
        assert_eq!(queue.get().unwrap(), 2);
        putter.join().unwrap();
    });
    assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), 3);
}

/// Ping and pong between processes: each message has to wake the other side, since both sleep. A wake-up
/// that is lost shows as a time: a sleeper looks for itself only every 75 ms.
#[test]
fn a_sleeper_in_another_process_is_woken_by_each_message() {
    let stage = Stage::new();
    let questions = Queue::<u32>::create(&stage.name(), 1).unwrap();
    let answers = Queue::<u32>::create(&stage.name(), 1).unwrap();
    let child = stage.child("semantics::answers", &[questions.name(), answers.name()]);
    assert_woken(ms(20), || {
        nap(ms(6)); // both are asleep, far beyond any spinning
        let (answer, took) = timed(|| {
            questions.put(&1).unwrap();
            answers.get().unwrap()
        });
        assert_eq!(answer, 2);
        took
    });
    questions.close();
    child.finish();
}

fn answers(arguments: &[String]) {
    let [questions, answers] = arguments else { panic!("{arguments:?}") };
    let questions = Queue::<u32>::open(questions).unwrap();
    let answers = Queue::<u32>::open(answers).unwrap();
    for question in &questions {
        answers.put(&(question + 1)).unwrap();
    }
}

/// The same for a sleeper that waits for room.
#[test]
fn a_sleeper_in_another_process_is_woken_by_each_get() {
    let stage = Stage::new();
    let queue = Queue::<u32>::create(&stage.name(), 1).unwrap();
    let child = stage.child("semantics::streams", &[queue.name()]);
    let mut due = 0;
    assert_woken(ms(20), || {
        // One is there, and the child sleeps over the next.
        until("the child has put it", || queue.full());
        nap(ms(6));
        let ((), took) = timed(|| {
            assert_eq!(queue.get().unwrap(), due);
            while queue.empty() {
                thread::yield_now();
            }
        });
        due += 1;
        took
    });
    queue.close();
    child.finish();
}

fn streams(arguments: &[String]) {
    let queue = Queue::<u32>::open(&arguments[0]).unwrap();
    for number in 0.. {
        if queue.put(&number).is_err() {
            assert!(queue.is_closed());
            break;
        }
    }
}

// Close

#[test]
fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
    let _stage = Stage::new();
    let queue = Queue::new(4).unwrap();
    queue.put(&1).unwrap();
    queue.put(&2).unwrap();
    assert!(!queue.is_closed());
    queue.close();
    assert!(queue.is_closed());
    queue.close();
    assert!(matches!(queue.put(&3), Err(PutError::Closed)));
    assert!(matches!(queue.put_nowait(&3), Err(PutError::Closed)));
    assert!(matches!(queue.put_timeout(&3, ms(10_000)), Err(PutError::Closed)));
    assert_eq!(queue.qsize(), 2);
    assert_eq!(queue.get().unwrap(), 1);
    assert_eq!(queue.get_nowait().unwrap(), 2);
    for _ in 0..3 {
        assert!(matches!(queue.get(), Err(GetError::Closed)));
        assert!(matches!(queue.get_nowait(), Err(GetError::Closed)));
        assert!(matches!(queue.get_timeout(ms(10_000)), Err(GetError::Closed)));
        assert!(matches!(queue.bytes().get_into(&mut []), Err(GetError::Closed)));
    }
}

#[test]
fn a_full_and_closed_queue_says_closed() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    queue.put(&1).unwrap();
    queue.close();
    assert!(queue.full());
    assert!(matches!(queue.put_nowait(&2), Err(PutError::Closed)));
    assert!(matches!(queue.put_timeout(&2, ms(1)), Err(PutError::Closed)));
    assert!(matches!(queue.put(&2), Err(PutError::Closed)));
}

#[test]
fn a_queue_closed_while_a_put_waits_for_room_says_closed_and_not_full() {
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    queue.put(&1).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| timed(|| queue.put_timeout(&2, ms(30_000))));
        nap(ms(30));
        queue.close();
        let (put, took) = waits.join().unwrap();
        assert!(matches!(put, Err(PutError::Closed)));
        assert_prompt(took);
    });
    assert_eq!(queue.get().unwrap(), 1);
    assert!(matches!(queue.get(), Err(GetError::Closed)));
}

#[test]
fn close_wakes_every_sleeper_in_every_process() {
    let stage = Stage::new();
    let empty = ByteQueue::create(&stage.name(), 1).unwrap();
    let full = ByteQueue::create(&stage.name(), 1).unwrap();
    full.put(b"full").unwrap();
    let mut sleepers: Vec<_> = (0..2)
        .flat_map(|_| {
            [
                stage.child("semantics::sleeps_in_get", &[empty.name()]),
                stage.child("semantics::sleeps_in_put", &[full.name()]),
            ]
        })
        .collect();
    for sleeper in &mut sleepers {
        sleeper.heard("about to sleep");
    }
    nap(ms(100));
    let ((), took) = timed(|| {
        empty.close();
        full.close();
    });
    assert_prompt(took);
    for sleeper in sleepers {
        assert_eq!(sleeper.finish(), ["closed"]);
    }
    assert_eq!(full.get().unwrap(), b"full");
    assert!(matches!(full.get(), Err(GetError::Closed)));
}

/// Not only in the end: a sleeper that nobody wakes looks for itself, and then finds out too.
#[test]
fn close_wakes_sleepers_at_once() {
    let _stage = Stage::new();
    for full in [false, true] {
        assert_woken(ms(20), || {
            let queue = Queue::new(1).unwrap();
            if full {
                queue.put(&1).unwrap();
            }
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    if full {
                        assert!(matches!(queue.put(&2), Err(PutError::Closed)));
                    } else {
                        assert!(matches!(queue.get(), Err(GetError::Closed)));
                    }
                });
                nap(ms(6));
                let ((), took) = timed(|| {
                    queue.close();
                    sleeper.join().unwrap();
                });
                took
            })
        });
    }
}

fn sleeps_in_get(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    say("about to sleep");
    assert!(matches!(queue.get(), Err(GetError::Closed)));
    say("closed");
}

fn sleeps_in_put(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    say("about to sleep");
    assert!(matches!(queue.put(b"more"), Err(PutError::Closed)));
    say("closed");
}

#[test]
fn a_closed_queue_stays_closed_for_those_who_open_it_later() {
    let stage = Stage::new();
    let first = Queue::<u8>::create(&stage.name(), 2).unwrap();
    first.put(&1).unwrap();
    first.close();
    let second = Queue::<u8>::open(first.name()).unwrap();
    drop(first);
    assert!(second.is_closed());
    assert!(matches!(second.put(&2), Err(PutError::Closed)));
    let third = Queue::<u8>::open_or_create(second.name(), 2).unwrap();
    assert_eq!(third.get().unwrap(), 1);
    assert!(matches!(third.get(), Err(GetError::Closed)));
}

/// Whatever a put said `Ok` to before the close is delivered, and nothing else, however the close falls
/// between the puts.
#[test]
fn what_was_put_before_a_close_is_delivered_and_nothing_else() {
    let _stage = Stage::new();
    for round in 0..60 {
        let queue = Queue::<u32>::new(if round % 2 == 0 { 2 } else { 64 }).unwrap();
        thread::scope(|scope| {
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sent = 0;
                        while queue.put(&sent).is_ok() {
                            sent += 1;
                        }
                        sent
                    })
                })
                .collect();
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut items = queue.iter();
                        let got = items.by_ref().count();
                        assert!(matches!(items.error(), Some(GetError::Closed)));
                        got
                    })
                })
                .collect();
            nap(Duration::from_micros(100 * round));
            queue.close();
            let sent: u32 = producers.into_iter().map(|thread| thread.join().unwrap()).sum();
            let got: usize = consumers.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(got, sent as usize, "round {round}");
        });
        assert!(queue.empty());
    }
}

// Messages

#[test]
fn a_message_may_have_no_bytes_at_all() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(2).unwrap();
    queue.put(b"").unwrap();
    assert_eq!((queue.qsize(), queue.empty()), (1, false));
    queue.put_nowait(b"").unwrap();
    assert!(queue.full());
    assert_eq!(queue.get().unwrap(), b"");
    assert_eq!(queue.get_into(&mut []).unwrap(), 0);
    assert!(queue.empty());
    let units = Queue::new(1).unwrap();
    units.put(&()).unwrap();
    assert_eq!(units.bytes().qsize(), 1);
    units.get().unwrap();
}

#[test]
fn a_queue_for_messages_without_bytes_counts_them() {
    let _stage = Stage::new();
    let queue: Queue<()> = QueueOptions::new().capacity(5).max_message(0).anonymous().unwrap();
    for _ in 0..5 {
        queue.put_nowait(&()).unwrap();
    }
    assert!(queue.full());
    assert!(matches!(queue.bytes().put(b"x"), Err(PutError::TooLong { len: 1, max: 0 })));
    for _ in 0..5 {
        queue.get_nowait().unwrap();
    }
    assert!(queue.empty());
}

#[test]
fn the_longest_message_fits_and_one_byte_more_does_not() {
    let _stage = Stage::new();
    for max in [1, 7, 8, 9, 100, 8192] {
        let queue: ByteQueue =
            QueueOptions::new().capacity(2).max_message(max).anonymous::<()>().unwrap().into();
        let longest: Vec<u8> = (0..max).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for _ in 0..5 {
            queue.put(&longest).unwrap();
            let too_long = [longest.as_slice(), &[0]].concat();
            for put in
                [queue.put(&too_long), queue.put_nowait(&too_long), queue.put_timeout(&too_long, ms(1))]
            {
                let Err(PutError::TooLong { len, max: said }) = put else { panic!("{put:?}") };
                assert_eq!((len, said), (max + 1, max));
            }
            assert_eq!(queue.qsize(), 1);
            assert_eq!(queue.get().unwrap(), longest);
        }
    }
}

#[test]
fn the_default_longest_message_has_8_kib() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(1).unwrap();
    queue.put(&[1; 8192]).unwrap();
    assert_eq!(queue.get().unwrap(), [1; 8192]);
    assert!(matches!(queue.put(&[1; 8193]), Err(PutError::TooLong { len: 8193, max: 8192 })));
}

#[test]
fn a_buffer_too_short_gives_the_whole_message_and_the_queue_goes_on() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(4).unwrap();
    for message in [&b"first"[..], b"second", b"", b"fourth"] {
        queue.put(message).unwrap();
    }
    let mut buffer = [b'-'; 5];
    assert_eq!(queue.get_into(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer, b"first");
    let Err(GetError::BufferTooShort { message }) = queue.get_into(&mut buffer) else { panic!() };
    assert_eq!(message, b"second");
    assert_eq!(queue.qsize(), 2);
    assert_eq!(queue.get_into(&mut buffer).unwrap(), 0);
    assert_eq!(&buffer, b"first", "what lies beyond the message is not touched");
    let Err(GetError::BufferTooShort { message }) = queue.get_into_timeout(&mut [], ms(1)) else { panic!() };
    assert_eq!(message, b"fourth");
    assert!(queue.empty());
    queue.put(b"fifth").unwrap();
    assert_eq!(queue.get().unwrap(), b"fifth");
}

// Counters

#[test]
fn the_counters_count() {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), 4).unwrap();
    let zero = queue.stats();
    assert_eq!((zero.puts, zero.gets, zero.put_bytes, zero.get_bytes), (0, 0, 0, 0));
    assert_eq!((zero.recoveries, zero.attached), (0, 1));
    queue.put(b"abc").unwrap();
    queue.put(b"").unwrap();
    queue.put(b"defgh").unwrap();
    queue.get().unwrap();
    assert!(queue.get_into_timeout(&mut [], ms(1)).is_ok());
    assert!(queue.put(&[0; 10_000]).is_err());
    let Stats { puts, gets, put_bytes, get_bytes, recoveries, attached, .. } = queue.stats();
    assert_eq!((puts, gets, put_bytes, get_bytes, recoveries, attached), (3, 2, 8, 3, 0, 1));
    // Taken out, if only to be returned in the error.
    assert!(queue.get_into(&mut [0; 2]).is_err());
    assert_eq!((queue.stats().gets, queue.stats().get_bytes), (3, 8));
}

#[test]
fn attached_counts_handles_and_not_clones() {
    let stage = Stage::new();
    let first = ByteQueue::create(&stage.name(), 1).unwrap();
    let clone = first.clone();
    assert_eq!(clone.stats().attached, 1);
    let mut others: Vec<_> = (0..20).map(|_| ByteQueue::open(first.name()).unwrap()).collect();
    assert_eq!(first.stats().attached, 21);
    others.truncate(5);
    assert_eq!(clone.stats().attached, 6);
    drop(first);
    assert_eq!(clone.stats().attached, 6);
    let mut child = stage.child("semantics::sleeps_in_get", &[clone.name()]);
    child.heard("about to sleep");
    assert_eq!(clone.stats().attached, 7);
    child.kill();
    assert_eq!(clone.stats().attached, 6);
}

// Threads and clones

#[test]
fn clones_in_many_threads_share_the_messages_out() {
    const THREADS: u32 = 4;
    const EACH: u32 = 2000;
    let _stage = Stage::new();
    let queue = Queue::<(u32, u32)>::new(16).unwrap();
    let (sender, got) = mpsc::channel();
    let consumers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (queue, sender) = (queue.clone(), sender.clone());
            thread::spawn(move || {
                let mut last = [None; THREADS as usize];
                for (producer, number) in &queue {
                    let last = &mut last[producer as usize];
                    assert!(last.is_none_or(|last| last < number), "{producer}: {number} after {last:?}");
                    *last = Some(number);
                    sender.send((producer, number)).unwrap();
                }
            })
        })
        .collect();
    let producers: Vec<_> = (0..THREADS)
        .map(|producer| {
            let queue = queue.clone();
            thread::spawn(move || (0..EACH).for_each(|number| queue.put(&(producer, number)).unwrap()))
        })
        .collect();
    for thread in producers {
        thread.join().unwrap();
    }
    queue.close();
    for thread in consumers {
        thread.join().unwrap();
    }
    drop(sender);
    let got: Vec<_> = got.iter().collect();
    assert_eq!(got.len(), (THREADS * EACH) as usize);
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len(), "some came twice");
}

#[test]
fn a_handle_may_be_used_by_reference_from_several_threads() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| (0..500).for_each(|item| queue.put(&item).unwrap()));
        scope.spawn(|| (0..500).for_each(|item| assert_eq!(queue.get().unwrap(), item)));
    });
}

// Iteration

#[test]
fn iterating_takes_what_it_yields_and_no_more() {
    let _stage = Stage::new();
    let queue = Queue::new(8).unwrap();
    (0..6).for_each(|item| queue.put(&item).unwrap());
    assert_eq!(queue.iter().take(2).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(queue.qsize(), 4);
    for item in &queue {
        if item == 3 {
            break;
        }
    }
    assert_eq!(queue.qsize(), 2);
    let mut items = queue.iter();
    assert_eq!(items.next(), Some(4));
    assert!(items.error().is_none());
    drop(items);
    assert_eq!(queue.get().unwrap(), 5);
}

#[test]
fn iterating_ends_with_the_first_error_and_tells_it() {
    let _stage = Stage::new();
    let queue = Queue::<u16>::new(4).unwrap();
    queue.put(&1).unwrap();
    queue.bytes().put(b"\x01\x02\x03").unwrap();
    queue.put(&2).unwrap();
    queue.close();
    let mut items = queue.iter();
    assert_eq!(items.next(), Some(1));
    assert_eq!(items.next(), None);
    let Some(GetError::Decode { message, .. }) = items.error() else { panic!("{items:?}") };
    assert_eq!(message, b"\x01\x02\x03");
    assert_eq!(items.next(), None, "once it has ended it takes no more");
    assert_eq!(queue.iter().collect::<Vec<_>>(), [2]);
    let mut items = queue.iter();
    assert_eq!(items.next(), None);
    assert!(matches!(items.error(), Some(GetError::Closed)));
}

// The types themselves

#[test]
fn debug_shows_name_length_capacity_and_whether_it_is_closed() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = Queue::<u8>::create(&name, 4).unwrap();
    queue.put(&1).unwrap();
    assert_eq!(
        format!("{queue:?}"),
        format!("Queue {{ name: {name:?}, len: 1, capacity: Some(4), closed: false }}")
    );
    queue.close();
    assert_eq!(
        format!("{:?}", queue.bytes()),
        format!("ByteQueue {{ name: {name:?}, len: 1, capacity: Some(4), closed: true }}")
    );
    assert!(format!("{:?}", queue.iter()).contains(&name));
}

#[test]
fn a_typed_queue_and_a_raw_one_are_the_same_queue() {
    let stage = Stage::new();
    let typed = Queue::<String>::create(&stage.name(), 4).unwrap();
    typed.put(&"one".to_owned()).unwrap();
    assert_eq!(typed.bytes().name(), typed.name());
    assert_eq!(typed.bytes().get().unwrap(), b"\x03one");
    let raw = ByteQueue::from(typed);
    assert_eq!(raw.stats().attached, 1);
    raw.put(b"\x03two").unwrap();
    let typed = Queue::<String>::from(raw.clone());
    assert_eq!(typed.get().unwrap(), "two");
    // The type is not recorded.
    let other: Queue<(u8, u8)> = raw.into();
    typed.put(&"x".to_owned()).unwrap();
    assert_eq!(other.get().unwrap(), (1, b'x'));
}

#[test]
fn a_handle_is_everything_that_a_handle_should_be_whatever_its_items() {
    /// None of Send, Sync, Clone, Debug, Serialize, Deserialize, `UnwindSafe`.
    struct Nothing(#[expect(dead_code, reason = "for its type")] Rc<std::cell::Cell<*const u8>>);

    fn handle<T>()
    where
        T: Clone + Send + Sync + Debug + Serialize + DeserializeOwned + UnwindSafe + RefUnwindSafe + Unpin,
    {
    }
    fn options<T: Clone + Send + Sync + Debug + Default + UnwindSafe + RefUnwindSafe>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    fn iterator<T: Iterator + Debug + Send + Sync>() {}

    handle::<Queue<u8>>();
    handle::<Queue<Rc<u8>>>();
    handle::<Queue<*const u8>>();
    handle::<Queue<Nothing>>();
    handle::<ByteQueue>();
    options::<QueueOptions>();
    error::<OpenError>();
    error::<PutError>();
    error::<GetError>();
    iterator::<Iter<'_, u8>>();

    let _stage = Stage::new();
    let queue = Queue::<Nothing>::new(1).unwrap();
    assert!(format!("{:?}", queue.clone()).starts_with("Queue"));
}

// A handle travels

/// The other side never learns the name but from the queue that carries the handle.
#[test]
fn a_handle_travels_through_a_queue() {
    let stage = Stage::new();
    let carrier = Queue::<(u32, Queue<String>)>::new(1).unwrap();
    let sent = Queue::<String>::create(&stage.name(), 3).unwrap();
    sent.put(&"hello".to_owned()).unwrap();
    carrier.put(&(7, sent.clone())).unwrap();
    let (number, received) = carrier.get().unwrap();
    assert_eq!((number, received.name()), (7, sent.name()));
    assert_eq!(sent.stats().attached, 2);
    drop(sent);
    assert_eq!(received.get().unwrap(), "hello");

    let raw_carrier = Queue::<ByteQueue>::from(ByteQueue::new(1).unwrap());
    raw_carrier.put(received.bytes()).unwrap();
    received.put(&"again".to_owned()).unwrap();
    assert_eq!(raw_carrier.get().unwrap().get().unwrap(), b"\x05again");
}

#[test]
fn a_handle_whose_queue_is_gone_fails_to_arrive() {
    let _stage = Stage::new();
    let carrier = Queue::<Queue<u8>>::new(1).unwrap();
    carrier.put(&Queue::new(1).unwrap()).unwrap();
    assert!(matches!(carrier.get(), Err(GetError::Decode { .. })));
    assert!(carrier.empty());
}

/// A queue of the same name, even of the same shape, is not the queue that was sent.
#[test]
fn a_handle_whose_name_was_used_again_fails_to_arrive() {
    let stage = Stage::new();
    let name = stage.name();
    let carrier = Queue::<Queue<u8>>::new(2).unwrap();
    let old = Queue::<u8>::create(&name, 1).unwrap();
    carrier.put(&old).unwrap();
    carrier.put(&old).unwrap();
    drop(old);
    let new = Queue::<u8>::create(&name, 1).unwrap();
    new.put(&1).unwrap();
    assert!(matches!(carrier.get(), Err(GetError::Decode { .. })));
    assert_eq!(new.stats().attached, 1);
    assert_eq!(new.get().unwrap(), 1);
    drop(new);
    assert!(matches!(carrier.get(), Err(GetError::Decode { .. })));
    assert!(!harness::exists(&name));
}

/// What arrives may come from anybody who can write to the carrier.
#[test]
fn a_handle_with_a_name_that_is_none_fails_to_arrive() {
    let _stage = Stage::new();
    let carrier = Queue::<Queue<u8>>::new(1).unwrap();
    for name in ["", "../../etc/passwd", "a/b", ".", "x+new"] {
        Queue::from(carrier.bytes().clone()).put(&(name, 0_u64)).unwrap();
        assert!(matches!(carrier.get(), Err(GetError::Decode { .. })), "{name:?}");
    }
}

// Items whose code panics

/// Fails in the way that its number says.
struct Treacherous(u8);

impl Serialize for Treacherous {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 1, "no way out");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Treacherous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        assert!(number != 2, "no way in");
        Ok(Self(number))
    }
}

#[test]
fn a_panic_while_encoding_puts_nothing_and_while_decoding_loses_one_message() {
    let _stage = Stage::new();
    let queue = Queue::new(4).unwrap();
    queue.put(&Treacherous(0)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| queue.put(&Treacherous(1)))).is_err());
    assert_eq!(queue.qsize(), 1);
    queue.put(&Treacherous(2)).unwrap();
    queue.put(&Treacherous(3)).unwrap();
    assert_eq!(queue.get().unwrap().0, 0);
    assert!(catch_unwind(|| queue.get()).is_err());
    assert_eq!(queue.get().unwrap().0, 3);
    assert!(queue.empty());
}

/// Its encoding uses the queue that it is put into.
struct Nested<'a>(&'a Queue<u8>);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.put(&1).expect("no end is held meanwhile");
        2_u8.serialize(serializer)
    }
}

#[test]
fn an_item_may_use_the_queue_while_it_is_encoded() {
    let _stage = Stage::new();
    let queue = Queue::<u8>::new(4).unwrap();
    let nested = Queue::<Nested<'_>>::from(queue.bytes().clone());
    nested.put(&Nested(&queue)).unwrap();
    assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
}

// Errors

#[test]
fn errors_turn_into_io_errors_of_the_fitting_kind() {
    use std::error::Error;
    use std::io::{self, ErrorKind};

    let _stage = Stage::new();
    let queue = Queue::<u8>::new(1).unwrap();
    let empty = queue.get_nowait().unwrap_err();
    assert!(!empty.to_string().is_empty() && empty.source().is_none());
    assert_eq!(io::Error::from(empty).kind(), ErrorKind::WouldBlock);
    queue.bytes().put(b"xx").unwrap();
    assert_eq!(io::Error::from(queue.put_nowait(&1).unwrap_err()).kind(), ErrorKind::WouldBlock);
    let undecodable = queue.get().unwrap_err();
    assert!(undecodable.source().is_some());
    assert_eq!(io::Error::from(undecodable).kind(), ErrorKind::InvalidData);
    queue.close();
    assert_eq!(io::Error::from(queue.put(&1).unwrap_err()).kind(), ErrorKind::BrokenPipe);
    assert_eq!(io::Error::from(queue.get().unwrap_err()).kind(), ErrorKind::UnexpectedEof);
    let absent = Queue::<u8>::open("it-is-nowhere").unwrap_err();
    assert!(absent.to_string().contains("it-is-nowhere"));
    assert_eq!(io::Error::from(absent).kind(), ErrorKind::NotFound);
    let invalid = Queue::<u8>::open("/").unwrap_err();
    assert_eq!(io::Error::from(invalid).kind(), ErrorKind::InvalidInput);
}

/// The parent waits here for a child that waits for it: the handshake of the harness itself.
#[test]
fn a_child_that_never_ran_fails_the_test() {
    let stage = Stage::new();
    let failed = catch_unwind(AssertUnwindSafe(|| stage.child("there is no such role", &[]).finish()));
    assert!(failed.is_err());
}
