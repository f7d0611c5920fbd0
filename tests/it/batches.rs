//! Many messages at once.

use std::collections::BTreeSet;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use shmq::{ByteQueue, GetError, GetManyError, PutError, PutManyError, Queue, QueueOptions};

use crate::harness::{Random, Role, Stage, assert_about, assert_prompt, assert_woken, ms, nap, say, timed};

pub(crate) const ROLES: &[(&str, Role)] =
    &[("batches::takes", takes), ("batches::gives", gives), ("batches::crowd_puts", crowd_puts)];

const BRIEFLY: Duration = Duration::from_millis(40);

/// Exactly `items[..put]` went in, and this is why not more did.
#[track_caller]
fn assert_partly(result: Result<(), PutManyError>, put: usize, why: fn(&PutError) -> bool) {
    let partly = result.expect_err("not all can be in");
    assert_eq!(partly.put, put, "{partly:?}");
    assert!(why(&partly.error), "{partly:?}");
    assert!(partly.to_string().contains(&put.to_string()), "{partly}");
    assert!(partly.source().is_some());
}

fn is_full(error: &PutError) -> bool {
    matches!(error, PutError::Full)
}

fn is_closed(error: &PutError) -> bool {
    matches!(error, PutError::Closed)
}

// How far a batch comes

#[test]
fn a_batch_that_fits_goes_in_whole_and_in_order() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(10).unwrap();
    for round in 0..30 {
        // So that batches begin at every slot, and run past the end of the ring.
        queue.put_many(&[round, round + 1, round + 2]).unwrap();
        queue.put(&(round + 3)).unwrap();
        assert_eq!(queue.qsize(), 4);
        assert_eq!(queue.get_many(2).unwrap(), [round, round + 1]);
        assert_eq!(queue.get_many(usize::MAX).unwrap(), [round + 2, round + 3]);
    }
    let stats = queue.stats();
    assert_eq!((stats.puts, stats.gets), (120, 120));
    assert_eq!(stats.put_bytes, stats.get_bytes);
}

#[test]
fn an_empty_batch_is_put_at_once_even_where_nothing_can_be() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(1).unwrap();
    queue.put(&1).unwrap();
    let (put, took) = timed(|| queue.put_many(&[]));
    put.unwrap();
    assert_prompt(took);
    queue.bytes().put_many(&[]).unwrap();
    queue.put_many_timeout(&[], BRIEFLY).unwrap();
    assert_eq!((queue.qsize(), queue.stats().puts), (1, 1));
}

#[test]
fn none_at_all_are_got_at_once_even_from_an_empty_or_closed_queue() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(1).unwrap();
    for _ in 0..2 {
        let (got, took) = timed(|| queue.get_many(0));
        assert!(got.unwrap().is_empty());
        assert_prompt(took);
        assert!(queue.bytes().get_many(0).unwrap().is_empty());
        assert!(queue.get_many_timeout(0, BRIEFLY).unwrap().is_empty());
        queue.close();
    }
}

#[test]
fn exactly_so_many_are_in_when_it_is_full() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(4).unwrap();
    queue.put(&0).unwrap();
    let (partly, took) = timed(|| queue.put_many_timeout(&[1, 2, 3, 4, 5], Duration::ZERO));
    assert_partly(partly, 3, is_full);
    assert_prompt(took);
    let (partly, took) = timed(|| queue.put_many_timeout(&[4, 5], BRIEFLY));
    assert_partly(partly, 0, is_full);
    assert_about(took, BRIEFLY);
    assert_eq!(queue.get_many(9).unwrap(), [0, 1, 2, 3]);
    // The timeout is for all of it, not for each run.
    let (partly, took) = timed(|| queue.put_many_timeout(&[1, 2, 3, 4, 5], BRIEFLY));
    assert_partly(partly, 4, is_full);
    assert_about(took, BRIEFLY);
    queue.close();
    assert_partly(queue.put_many(&[5]), 0, is_closed);
    assert_eq!(queue.get_many(9).unwrap(), [1, 2, 3, 4]);
    assert!(matches!(queue.get_many(9).unwrap_err().error, GetError::Closed));
}

/// Room is asked for the longest message each time, so in a small ring a run is as long as the bytes allow.
#[test]
fn a_batch_in_a_small_ring_goes_in_as_far_as_single_messages_would() {
    let _stage = Stage::new();
    let mut options = QueueOptions::new();
    options.capacity(1000).max_message(64).ring_bytes(256);
    let mut random = Random::new();
    let [one, many] = [(); 2].map(|()| ByteQueue::from(options.anonymous::<()>().unwrap()));
    for _ in 0..300 {
        let messages: Vec<_> = (0..20_u8).map(|value| vec![value; random.index(65)]).collect();
        let slices: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let single = slices.iter().take_while(|message| one.put_nowait(message).is_ok()).count();
        assert_partly(many.put_many_timeout(&slices, Duration::ZERO), single, is_full);
        assert!(many.full());
        // A part of it, so that the next batch begins anywhere.
        let max = 1 + random.index(single);
        let got = many.get_many(max).unwrap();
        assert_eq!(got, messages[..got.len()]);
        assert_eq!(got.len(), max.min(single));
        for message in got {
            assert_eq!(one.get_nowait().unwrap(), message);
        }
        let rest = many.qsize();
        assert_eq!(rest, one.qsize());
        if rest > 0 {
            assert_eq!(many.get_many(rest).unwrap(), one.get_many(rest).unwrap());
        }
    }
}

#[test]
fn exactly_so_many_are_in_when_it_is_closed_meanwhile() {
    let _stage = Stage::new();
    for round in 0..20 {
        let queue = Queue::<u32>::new(3).unwrap();
        thread::scope(|scope| {
            let put = scope.spawn(|| {
                let items: Vec<_> = (0..1000).collect();
                queue.put_many(&items).unwrap_err()
            });
            let mut got = Vec::new();
            while got.len() < round * 5 {
                got.extend(queue.get_many(4).unwrap());
            }
            queue.close();
            got.extend(queue.iter());
            let partly = put.join().unwrap();
            assert!(is_closed(&partly.error), "{partly:?}");
            assert!(got.into_iter().eq(0..u32::try_from(partly.put).unwrap()));
        });
    }
}

#[test]
fn one_message_too_long_anywhere_means_that_nothing_went_in() {
    let _stage = Stage::new();
    let mut options = QueueOptions::new();
    options.capacity(9).max_message(4);
    let queue = options.anonymous::<String>().unwrap();
    for at in 0..5 {
        let mut items = vec!["abc".to_owned(); 5];
        items[at] = "abcd".to_owned();
        let partly = queue.put_many(&items).unwrap_err();
        assert!(matches!(partly.error, PutError::TooLong { len: 5, max: 4 }), "{partly:?}");
        assert_eq!(partly.put, 0);
        let messages: Vec<_> =
            items.iter().map(|item| if item.len() == 4 { &b"abcde"[..] } else { b"ab" }).collect();
        let partly = queue.bytes().put_many(&messages).unwrap_err();
        assert!(matches!(partly.error, PutError::TooLong { len: 5, max: 4 }), "{partly:?}");
        assert_eq!(partly.put, 0);
        assert_eq!(queue.qsize(), 0);
    }
    assert_eq!(queue.stats().puts, 0);
}

/// An item that cannot be encoded, or panics.
#[derive(Clone, Copy)]
enum Odd {
    Fine(u8),
    Refuses,
    Panics,
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine(value) => serializer.serialize_u8(*value),
            Self::Refuses => Err(serde::ser::Error::custom("it refuses")),
            Self::Panics => panic!("on purpose"),
        }
    }
}

#[test]
fn one_item_that_cannot_be_encoded_means_that_nothing_went_in() {
    let _stage = Stage::new();
    let queue = Queue::<Odd>::new(9).unwrap();
    for at in 0..3 {
        let mut items = [Odd::Fine(1); 3];
        items[at] = Odd::Refuses;
        let partly = queue.put_many(&items).unwrap_err();
        assert!(matches!(&partly.error, PutError::Encode(error) if error.to_string().contains("it refuses")));
        assert_eq!((partly.put, queue.qsize()), (0, 0));
        items[at] = Odd::Panics;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.put_many(&items)));
        assert!(panicked.is_err());
        assert_eq!(queue.qsize(), 0);
    }
    queue.put_many(&[Odd::Fine(1), Odd::Fine(2)]).unwrap();
    assert_eq!(queue.bytes().get_many(9).unwrap(), [[1], [2]]);
}

// What a batch takes

#[test]
fn a_batch_takes_what_is_there_up_to_its_limit() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(100).unwrap();
    queue.put_many(&[1, 2, 3]).unwrap();
    assert_eq!(queue.get_many(2).unwrap(), [1, 2]);
    assert_eq!(queue.get_many(2).unwrap(), [3]);
    let (late, took) = timed(|| queue.get_many_timeout(2, BRIEFLY));
    assert!(matches!(late.unwrap_err().error, GetError::Empty));
    assert_about(took, BRIEFLY);
    let (late, took) = timed(|| queue.get_many_timeout(2, Duration::ZERO));
    assert!(matches!(late.unwrap_err().error, GetError::Empty));
    assert_prompt(took);
}

/// Also what has come since the last get looked, through this handle or another.
#[test]
fn a_batch_takes_what_has_come_since_the_last_look_too() {
    let stage = Stage::new();
    let queue = Queue::<u32>::create(&stage.name(), 100).unwrap();
    let second = Queue::<u32>::open(queue.name()).unwrap();
    for getter in [&queue, &second] {
        queue.put_many(&[1, 2, 3]).unwrap();
        assert_eq!(getter.get().unwrap(), 1);
        second.put_many(&[4, 5]).unwrap();
        queue.put(&6).unwrap();
        assert_eq!(getter.get_many(99).unwrap(), [2, 3, 4, 5, 6]);
    }
    let consumer = queue.consumer().unwrap();
    queue.put_many(&[1, 2]).unwrap();
    assert_eq!(consumer.get().unwrap(), 1);
    queue.put_many(&[3, 4]).unwrap();
    assert_eq!(consumer.get_many(99).unwrap(), [2, 3, 4]);
}

#[test]
fn a_batch_waits_for_the_first_message_and_not_for_more() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(100).unwrap();
    thread::scope(|scope| {
        let got = scope.spawn(|| timed(|| queue.get_many_timeout(50, ms(20_000)).unwrap()));
        nap(ms(60));
        queue.put(&1).unwrap();
        let (got, took) = got.join().unwrap();
        assert_eq!(got, [1]);
        assert_prompt(took);
    });
}

#[test]
fn nothing_of_a_run_with_an_undecodable_message_is_lost() {
    let _stage = Stage::new();
    let queue = Queue::<u8>::new(9).unwrap();
    let run: [&[u8]; 5] = [b"\x01", b"\x02", b"\x03\x03", b"\x04", b"\x05\x05"];
    queue.bytes().put_many(&run).unwrap();
    let partly = queue.get_many(9).unwrap_err();
    assert!(format!("{partly:?}").contains("Decode"));
    assert!(partly.to_string().contains("after 2 items"), "{partly}");
    assert!(partly.source().is_some());
    let GetManyError { got, error, rest } = partly;
    assert_eq!(got, [1, 2]);
    assert!(matches!(error, GetError::Decode { message, .. } if message == b"\x03\x03"));
    assert_eq!(rest, [&b"\x04"[..], b"\x05\x05"]);
    assert!(queue.empty());
    // What lies beyond the limit stays.
    queue.bytes().put_many(&run).unwrap();
    let GetManyError { got, rest, .. } = queue.get_many(3).unwrap_err();
    assert_eq!((got, rest), (vec![1, 2], Vec::new()));
    assert_eq!(queue.get().unwrap(), 4);
    assert!(queue.get().is_err());
    queue.put_many(&[6, 7]).unwrap();
    assert_eq!(queue.get_many(9).unwrap(), [6, 7]);
}

// With others

/// More than the queue holds: it goes in as the other process makes room.
#[test]
fn a_batch_longer_than_the_queue_goes_through_to_another_process() {
    const COUNT: u64 = 5000;
    let stage = Stage::new();
    let queue = Queue::<u64>::create(&stage.name(), 7).unwrap();
    let replies = Queue::<u64>::create(&stage.name(), 7).unwrap();
    let child = stage.child("batches::takes", &[queue.name()]);
    let items: Vec<_> = (0..COUNT).collect();
    queue.put_many(&items).unwrap();
    queue.close();
    assert_eq!(child.finish(), [COUNT.to_string()]);
    let child = stage.child("batches::gives", &[replies.name(), &COUNT.to_string()]);
    let mut got = Vec::new();
    loop {
        match replies.get_many(5) {
            Ok(some) => {
                assert!((1..=5).contains(&some.len()));
                got.extend(some);
            }
            Err(end) => {
                assert!(matches!(end.error, GetError::Closed), "{end}");
                break;
            }
        }
    }
    assert_eq!(got, items);
    child.finish();
}

fn takes(arguments: &[String]) {
    let queue = Queue::<u64>::open(&arguments[0]).unwrap();
    let mut due = 0;
    for item in &queue {
        assert_eq!(item, due);
        due += 1;
    }
    say(&due.to_string());
}

fn gives(arguments: &[String]) {
    let queue = Queue::<u64>::open(&arguments[0]).unwrap();
    let items: Vec<_> = (0..arguments[1].parse().unwrap()).collect();
    queue.put_many(&items).unwrap();
    queue.close();
}

/// Batches of all lengths from and to several processes: each message comes once, and those of one producer in
/// order to each consumer.
#[test]
fn a_crowd_that_puts_and_gets_in_batches_loses_and_doubles_nothing() {
    const PRODUCERS: usize = 3;
    const COUNT: u64 = 4000;
    let stage = Stage::new();
    let queue = Queue::<(u64, u64)>::create(&stage.name(), 50).unwrap();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|id| stage.child("batches::crowd_puts", &[queue.name(), &id.to_string(), &COUNT.to_string()]))
        .collect();
    let got: Vec<_> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..3)
            .map(|id| {
                let queue = &queue;
                scope.spawn(move || {
                    let queue = if id == 0 { queue.clone() } else { Queue::open(queue.name()).unwrap() };
                    let mut last = [None; PRODUCERS];
                    let mut all = Vec::new();
                    while let Ok(some) = queue.get_many(1 + id * 20) {
                        for (producer, number) in some {
                            let last = &mut last[usize::try_from(producer).unwrap()];
                            assert!(last.is_none_or(|last| last < number), "not in order");
                            *last = Some(number);
                            all.push((producer, number));
                        }
                    }
                    all
                })
            })
            .collect();
        for producer in producers {
            producer.finish();
        }
        queue.close();
        consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
    });
    assert_eq!(got.len() as u64, PRODUCERS as u64 * COUNT);
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len(), "some came twice");
    assert_eq!(queue.stats().gets, PRODUCERS as u64 * COUNT);
}

fn crowd_puts(arguments: &[String]) {
    let [name, id, count] = arguments else { panic!("{arguments:?}") };
    let queue = Queue::<(u64, u64)>::open(name).unwrap();
    let (id, count): (u64, u64) = (id.parse().unwrap(), count.parse().unwrap());
    let mut random = Random::new();
    let mut next = 0;
    while next < count {
        let end = count.min(next + 1 + random.below(120));
        let batch: Vec<_> = (next..end).map(|number| (id, number)).collect();
        queue.put_many(&batch).unwrap();
        next = end;
    }
}

/// A sleeper looks for itself only every 75 ms: all of several are woken by one batch.
#[test]
fn one_batch_wakes_as_many_sleepers_as_it_has_messages() {
    const SLEEPERS: usize = 4;
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(SLEEPERS).unwrap();
    assert_woken(ms(20), || {
        thread::scope(|scope| {
            let sleepers: Vec<_> = (0..SLEEPERS)
                .map(|_| {
                    scope.spawn(|| {
                        queue.get().unwrap();
                        Instant::now()
                    })
                })
                .collect();
            nap(ms(8));
            let start = Instant::now();
            queue.put_many(&[1; SLEEPERS]).unwrap();
            let woken = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap());
            woken.max().unwrap().saturating_duration_since(start)
        })
    });
    queue.put_many(&[0; SLEEPERS]).unwrap();
    assert_woken(ms(20), || {
        let took = thread::scope(|scope| {
            let sleepers: Vec<_> = (0..SLEEPERS)
                .map(|_| {
                    scope.spawn(|| {
                        queue.put(&1).unwrap();
                        Instant::now()
                    })
                })
                .collect();
            nap(ms(8));
            let start = Instant::now();
            assert_eq!(queue.get_many(SLEEPERS).unwrap().len(), SLEEPERS);
            let woken = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap());
            woken.max().unwrap().saturating_duration_since(start)
        });
        assert!(queue.full());
        took
    });
}
