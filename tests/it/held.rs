//! Ends held for longer than a call: who waits meanwhile, who is woken, what close does to them, and who would wait
//! for itself. What becomes of them when their holder dies is in `holders`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use shmq::{ByteConsumer, ByteProducer, ByteQueue, Consumer, GetError, Producer, PutError, Queue};

use crate::harness::{Random, Role, Stage, assert_about, assert_prompt, assert_woken, ms, nap, say, timed};

pub(crate) const ROLES: &[(&str, Role)] =
    &[("held::waits_to_put", waits_to_put), ("held::waits_to_get", waits_to_get), ("held::echoes", echoes)];

pub(crate) const BRIEFLY: Duration = Duration::from_millis(40);

pub(crate) fn is_deadlock(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EDEADLK)
}

#[expect(clippy::needless_pass_by_value, reason = "so that a call can stand in it")]
#[track_caller]
fn assert_put_deadlock(put: Result<(), PutError>) {
    assert!(matches!(&put, Err(PutError::Io(error)) if is_deadlock(error)), "{put:?}");
}

#[expect(clippy::needless_pass_by_value, reason = "so that a call can stand in it")]
#[track_caller]
fn assert_get_deadlock<R: std::fmt::Debug>(got: Result<R, GetError>) {
    assert!(matches!(&got, Err(GetError::Io(error)) if is_deadlock(error)), "{got:?}");
}

/// Nothing can be put through this handle, whatever it is given to wait.
pub(crate) fn cannot_put(queue: &ByteQueue) {
    let (put, took) = timed(|| queue.put_nowait(b"no"));
    assert!(matches!(put, Err(PutError::Full)), "{put:?}");
    assert_prompt(took);
    let (put, took) = timed(|| queue.put_timeout(b"no", BRIEFLY));
    assert!(matches!(put, Err(PutError::Full)), "{put:?}");
    assert_about(took, BRIEFLY);
    let (put, took) = timed(|| queue.put_many_timeout(&[b"no", b"no"], BRIEFLY).unwrap_err());
    assert!(matches!(put.error, PutError::Full) && put.put == 0, "{put:?}");
    assert_about(took, BRIEFLY);
    let (put, took) = timed(|| queue.put_with_timeout(1, BRIEFLY, |_| panic!("it has no end to write to")));
    assert!(matches!(put, Err(PutError::Full)), "{put:?}");
    assert_about(took, BRIEFLY);
    let (producer, took) = timed(|| queue.producer_timeout(BRIEFLY).map(drop));
    assert!(matches!(producer, Err(PutError::Full)), "{producer:?}");
    assert_about(took, BRIEFLY);
    let (producer, took) = timed(|| queue.producer_timeout(Duration::ZERO).map(drop));
    assert!(matches!(producer, Err(PutError::Full)), "{producer:?}");
    assert_prompt(took);
}

/// Nothing can be got through this handle, though there is something.
pub(crate) fn cannot_get(queue: &ByteQueue) {
    assert!(!queue.empty());
    let (got, took) = timed(|| queue.get_nowait());
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_prompt(took);
    let (got, took) = timed(|| queue.get_timeout(BRIEFLY));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_about(took, BRIEFLY);
    let (got, took) = timed(|| queue.get_many_timeout(9, BRIEFLY));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_about(took, BRIEFLY);
    let (got, took) = timed(|| queue.get_into_timeout(&mut [0; 99], BRIEFLY));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_about(took, BRIEFLY);
    let (got, took) =
        timed(|| queue.get_with_timeout(BRIEFLY, |_| -> u8 { panic!("it has no end to read from") }));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    assert_about(took, BRIEFLY);
    let (consumer, took) = timed(|| queue.consumer_timeout(BRIEFLY).map(drop));
    assert!(matches!(consumer, Err(GetError::Empty)), "{consumer:?}");
    assert_about(took, BRIEFLY);
    let (consumer, took) = timed(|| queue.consumer_timeout(Duration::ZERO).map(drop));
    assert!(matches!(consumer, Err(GetError::Empty)), "{consumer:?}");
    assert_prompt(took);
}

// Others wait their turn

#[test]
fn while_a_producer_lives_others_wait_their_turn_within_their_own_timeouts() {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), 8).unwrap();
    let producer = queue.producer().unwrap();
    let mut child = stage.child("held::waits_to_put", &[queue.name()]);
    child.heard("cannot");
    let (clone, second) = (queue.clone(), ByteQueue::open(queue.name()).unwrap());
    thread::scope(|scope| {
        for handle in [&queue, &clone, &second] {
            scope.spawn(|| cannot_put(handle));
        }
    });
    // Nobody is in the way of the one who holds it.
    producer.put_nowait(b"first").unwrap();
    producer.put(b"second").unwrap();
    // The other end is free.
    assert_eq!(queue.get().unwrap(), b"first");
    drop(producer);
    child.heard("put");
    child.finish();
    assert_eq!(queue.get_many(9).unwrap(), [&b"second"[..], b"third"]);
    for handle in [&queue, &clone, &second] {
        handle.put_nowait(b"free").unwrap();
    }
    assert_eq!(queue.stats().recoveries, 0);
}

fn waits_to_put(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    cannot_put(&queue);
    say("cannot");
    queue.put(b"third").unwrap();
    say("put");
}

#[test]
fn while_a_consumer_lives_others_wait_their_turn_within_their_own_timeouts() {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), 8).unwrap();
    queue.put_many(&[b"first", b"second", b"third"]).unwrap();
    let consumer = queue.consumer().unwrap();
    let mut child = stage.child("held::waits_to_get", &[queue.name()]);
    child.heard("cannot");
    let (clone, second) = (queue.clone(), ByteQueue::open(queue.name()).unwrap());
    thread::scope(|scope| {
        for handle in [&queue, &clone, &second] {
            scope.spawn(|| cannot_get(handle));
        }
    });
    assert_eq!(consumer.get_nowait().unwrap(), b"first");
    assert_eq!(consumer.get().unwrap(), b"second");
    // The other end is free.
    queue.put_nowait(b"fourth").unwrap();
    drop(consumer);
    child.heard("third");
    child.finish();
    assert_eq!(queue.get_nowait().unwrap(), b"fourth");
    assert_eq!(queue.stats().recoveries, 0);
}

fn waits_to_get(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    cannot_get(&queue);
    say("cannot");
    say(std::str::from_utf8(&queue.get().unwrap()).unwrap());
}

/// Whoever sleeps behind a held end looks for itself after 20 ms at the latest, so a wake-up must be much faster.
#[test]
fn whoever_waits_for_a_held_end_is_woken_when_it_is_dropped() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(8).unwrap();
    assert_woken(ms(5), || {
        let producer = queue.producer().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                queue.put(b"x").unwrap();
                Instant::now()
            });
            nap(ms(65)); // by now it sleeps for 20 ms at a time, and has just begun to
            let dropped = Instant::now();
            drop(producer);
            let took = waiter.join().unwrap().saturating_duration_since(dropped);
            queue.get().unwrap();
            took
        })
    });
    assert_woken(ms(5), || {
        queue.put(b"x").unwrap();
        let consumer = queue.consumer().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                queue.get().unwrap();
                Instant::now()
            });
            nap(ms(65));
            let dropped = Instant::now();
            drop(consumer);
            waiter.join().unwrap().saturating_duration_since(dropped)
        })
    });
}

/// One by one, and nobody is forgotten.
#[test]
fn several_holders_have_their_turns_one_after_the_other() {
    let _stage = Stage::new();
    let queue = Queue::<(u8, u8)>::new(1000).unwrap();
    thread::scope(|scope| {
        for id in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for round in 0..20 {
                    let producer = queue.producer().unwrap();
                    producer.put(&(id, 2 * round)).unwrap();
                    thread::yield_now();
                    producer.put(&(id, 2 * round + 1)).unwrap();
                }
            });
        }
    });
    let got = queue.get_many(1000).unwrap();
    assert_eq!(got.len(), 160);
    for pair in got.chunks(2) {
        assert_eq!((pair[0].0, pair[0].1 + 1), pair[1], "somebody came in between");
    }
}

#[test]
fn a_typed_end_does_what_the_queue_does() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(4).unwrap();
    let producer = queue.producer_timeout(ms(1000)).unwrap();
    let consumer = queue.consumer_timeout(ms(1000)).unwrap();
    producer.put(&1).unwrap();
    producer.put_timeout(&2, BRIEFLY).unwrap();
    producer.put_nowait(&3).unwrap();
    let partly = producer.put_many_timeout(&[4, 5, 6], BRIEFLY).unwrap_err();
    assert!(matches!(partly.error, PutError::Full) && partly.put == 1, "{partly:?}");
    assert!(matches!(producer.put_nowait(&5), Err(PutError::Full)));
    let (late, took) = timed(|| producer.put_timeout(&5, BRIEFLY));
    assert!(matches!(late, Err(PutError::Full)));
    assert_about(took, BRIEFLY);
    assert_eq!(consumer.get().unwrap(), 1);
    assert_eq!(consumer.get_timeout(BRIEFLY).unwrap(), 2);
    assert_eq!(consumer.get_nowait().unwrap(), 3);
    producer.put_many(&[7, 8]).unwrap();
    assert_eq!(consumer.get_many(2).unwrap(), [4, 7]);
    assert_eq!(consumer.get_many_timeout(9, BRIEFLY).unwrap(), [8]);
    assert!(matches!(consumer.get_nowait(), Err(GetError::Empty)));
    let (late, took) = timed(|| consumer.get_timeout(BRIEFLY));
    assert!(matches!(late, Err(GetError::Empty)));
    assert_about(took, BRIEFLY);
    // An undecodable message is removed here too.
    drop(producer);
    queue.bytes().put(b"\x05\x05").unwrap();
    assert!(matches!(consumer.get(), Err(GetError::Decode { message, .. }) if message == b"\x05\x05"));
    assert!(queue.empty());
    assert!(format!("{consumer:?}").contains("Consumer"));
}

#[test]
fn a_held_end_is_bound_to_its_thread() {
    /// Ambiguous, and so an error of the compiler, for a type that is `Send` (`Sync`).
    trait NotSend<Which> {
        fn holds() {}
    }
    trait NotSync<Which> {
        fn holds() {}
    }
    struct IfIt;
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<IfIt> for T {}
    impl<T: ?Sized> NotSync<()> for T {}
    impl<T: ?Sized + Sync> NotSync<IfIt> for T {}

    <Producer<'_, u8> as NotSend<_>>::holds();
    <Producer<'_, u8> as NotSync<_>>::holds();
    <Consumer<'_, u8> as NotSend<_>>::holds();
    <Consumer<'_, u8> as NotSync<_>>::holds();
    <ByteProducer<'_> as NotSend<_>>::holds();
    <ByteProducer<'_> as NotSync<_>>::holds();
    <ByteConsumer<'_> as NotSend<_>>::holds();
    <ByteConsumer<'_> as NotSync<_>>::holds();
}

// Wake-ups

/// How a side of the conversation has its ends.
fn is_held(word: &str) -> bool {
    word == "held"
}

/// Question and answer between two processes, both of which sleep each time, with ends held and not held on either
/// side. A wake-up that is lost shows as a time: a sleeper looks for itself only every 75 ms.
#[test]
fn held_and_ordinary_ends_wake_each_other() {
    let stage = Stage::new();
    for (here, there) in [("held", "once"), ("once", "held"), ("held", "held")] {
        let questions = ByteQueue::create(&stage.name(), 1).unwrap();
        let answers = ByteQueue::create(&stage.name(), 1).unwrap();
        let child = stage.child("held::echoes", &[questions.name(), answers.name(), there]);
        let ends = is_held(here).then(|| (questions.producer().unwrap(), answers.consumer().unwrap()));
        let ask = || {
            if let Some((producer, consumer)) = &ends {
                producer.put(b"?").unwrap();
                consumer.get().unwrap()
            } else {
                questions.put(b"?").unwrap();
                answers.get().unwrap()
            }
        };
        assert_woken(ms(20), || {
            nap(ms(6)); // the other side is asleep, far beyond any spinning
            let (answer, took) = timed(ask);
            assert_eq!(answer, b"?");
            took
        });
        // Without a pause, each sleeps or spins as it comes.
        let mut rounds: Vec<_> = (0..400).map(|_| timed(ask).1).collect();
        rounds.sort_unstable();
        assert!(rounds[rounds.len() / 2] < ms(10), "{here}, {there}: {:?}", rounds[rounds.len() / 2]);
        questions.close();
        drop(ends);
        child.finish();
    }
}

fn echoes(arguments: &[String]) {
    let [questions, answers, ends] = arguments else { panic!("{arguments:?}") };
    let questions = ByteQueue::open(questions).unwrap();
    let answers = ByteQueue::open(answers).unwrap();
    let held = is_held(ends).then(|| (questions.consumer().unwrap(), answers.producer().unwrap()));
    loop {
        let asked = held.as_ref().map_or_else(|| questions.get(), |(consumer, _)| consumer.get());
        match asked {
            Ok(question) => match &held {
                Some((_, producer)) => producer.put(&question).unwrap(),
                None => answers.put(&question).unwrap(),
            },
            Err(GetError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The same for those who wait for room.
#[test]
fn a_get_wakes_a_put_whichever_of_them_holds_its_end() {
    let _stage = Stage::new();
    for (puts, gets) in [("held", "once"), ("once", "held"), ("held", "held")] {
        let queue = ByteQueue::new(1).unwrap();
        queue.put(b"full").unwrap();
        thread::scope(|scope| {
            let (put, was_put) = mpsc::channel();
            let queue = &queue;
            scope.spawn(move || {
                let producer = is_held(puts).then(|| queue.producer().unwrap());
                loop {
                    let result = producer
                        .as_ref()
                        .map_or_else(|| queue.put(b"more"), |producer| producer.put(b"more"));
                    if result.is_err() || put.send(Instant::now()).is_err() {
                        return;
                    }
                }
            });
            let consumer = is_held(gets).then(|| queue.consumer().unwrap());
            assert_woken(ms(20), || {
                nap(ms(6)); // the producer is asleep
                let start = Instant::now();
                match &consumer {
                    Some(consumer) => consumer.get().unwrap(),
                    None => queue.get().unwrap(),
                };
                was_put.recv().unwrap().saturating_duration_since(start)
            });
            queue.close();
        });
    }
}

/// Somebody slept before the end was held: the wake-up that reaches it is no use to it, and the holder sleeps.
#[test]
fn a_sleeper_without_the_end_does_not_swallow_the_holders_wake_up() {
    let _stage = Stage::new();
    let queue = &ByteQueue::new(1).unwrap();
    assert_woken(ms(20), || {
        thread::scope(|scope| {
            let ordinary: Vec<_> = (0..2).map(|_| scope.spawn(|| queue.get().unwrap())).collect();
            nap(ms(6));
            let (holds, held) = mpsc::channel();
            let holder = scope.spawn(move || {
                let consumer = queue.consumer().unwrap();
                holds.send(()).unwrap();
                consumer.get().unwrap();
                Instant::now()
            });
            held.recv().unwrap();
            nap(ms(6));
            let start = Instant::now();
            queue.put(b"for the holder").unwrap();
            let took = holder.join().unwrap().saturating_duration_since(start);
            for _ in &ordinary {
                queue.put(b"for the others").unwrap();
            }
            for sleeper in ordinary {
                sleeper.join().unwrap();
            }
            took
        })
    });
    queue.put(b"full").unwrap();
    assert_woken(ms(20), || {
        thread::scope(|scope| {
            let ordinary: Vec<_> = (0..2).map(|_| scope.spawn(|| queue.put(b"full").unwrap())).collect();
            nap(ms(6));
            let (holds, held) = mpsc::channel();
            let holder = scope.spawn(move || {
                let producer = queue.producer().unwrap();
                holds.send(()).unwrap();
                producer.put(b"full").unwrap();
                Instant::now()
            });
            held.recv().unwrap();
            nap(ms(6));
            let start = Instant::now();
            queue.get().unwrap();
            let took = holder.join().unwrap().saturating_duration_since(start);
            for _ in &ordinary {
                queue.get().unwrap();
            }
            for sleeper in ordinary {
                sleeper.join().unwrap();
            }
            took
        })
    });
}

// Close

#[test]
fn close_ends_held_ends() {
    let _stage = Stage::new();
    let queue = Queue::<u8>::new(8).unwrap();
    let producer = queue.producer().unwrap();
    let consumer = queue.consumer().unwrap();
    producer.put(&1).unwrap();
    producer.put(&2).unwrap();
    queue.close();
    assert!(matches!(producer.put(&3), Err(PutError::Closed)));
    assert!(matches!(producer.put_nowait(&3), Err(PutError::Closed)));
    assert!(matches!(producer.put_timeout(&3, ms(1000)), Err(PutError::Closed)));
    let none = producer.put_many(&[3, 4]).unwrap_err();
    assert!(matches!(none.error, PutError::Closed) && none.put == 0, "{none:?}");
    assert_eq!(queue.qsize(), 2);
    assert_eq!(consumer.get().unwrap(), 1);
    assert_eq!(consumer.get_many(9).unwrap(), [2]);
    assert!(matches!(consumer.get(), Err(GetError::Closed)));
    assert!(matches!(consumer.get_nowait(), Err(GetError::Closed)));
    assert!(matches!(consumer.get_many(9).unwrap_err().error, GetError::Closed));
    drop((producer, consumer));
    assert!(queue.is_closed());
    assert!(matches!(queue.producer().map(drop), Err(PutError::Closed)));
    assert!(matches!(queue.put(&3), Err(PutError::Closed)));
    let again = queue.consumer().unwrap();
    assert!(matches!(again.get(), Err(GetError::Closed)));
}

/// Also where it is full, and where nothing has to be put any more.
#[test]
fn a_held_put_on_a_full_and_closed_queue_says_closed_and_its_closure_does_not_run() {
    let _stage = Stage::new();
    for full in [false, true] {
        let queue = ByteQueue::new(1).unwrap();
        let producer = queue.producer().unwrap();
        if full {
            producer.put(b"full").unwrap();
        }
        queue.close();
        assert!(matches!(producer.put_nowait(b"no"), Err(PutError::Closed)));
        assert!(matches!(producer.put_timeout(b"no", BRIEFLY), Err(PutError::Closed)));
        assert!(matches!(producer.put_with(1, |_| panic!("closed")), Err(PutError::Closed)));
        assert_eq!(queue.qsize(), usize::from(full));
    }
}

#[test]
fn close_wakes_a_holder_that_sleeps() {
    let _stage = Stage::new();
    for full in [false, true] {
        assert_woken(ms(20), || {
            let queue = ByteQueue::new(2).unwrap();
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    if full {
                        let producer = queue.producer().unwrap();
                        let partly = producer.put_many(&[b"1", b"2", b"3", b"4"]).unwrap_err();
                        assert!(matches!(partly.error, PutError::Closed) && partly.put == 2, "{partly:?}");
                    } else {
                        let consumer = queue.consumer().unwrap();
                        assert!(matches!(consumer.get(), Err(GetError::Closed)));
                    }
                });
                nap(ms(6));
                let ((), took) = timed(|| {
                    queue.close();
                    sleeper.join().unwrap();
                });
                assert_eq!(queue.qsize(), if full { 2 } else { 0 });
                took
            })
        });
    }
}

/// Whoever waits for a held put end has nothing to wait for any more.
#[test]
fn close_wakes_who_waits_for_a_held_put_end() {
    let _stage = Stage::new();
    assert_woken(ms(5), || {
        let queue = ByteQueue::new(2).unwrap();
        let _producer = queue.producer().unwrap();
        thread::scope(|scope| {
            let waiters = [
                scope.spawn(|| assert!(matches!(queue.put(b"x"), Err(PutError::Closed)))),
                scope.spawn(|| assert!(matches!(queue.producer().map(drop), Err(PutError::Closed)))),
            ];
            nap(ms(65));
            let ((), took) = timed(|| {
                queue.close();
                for waiter in waiters {
                    waiter.join().unwrap();
                }
            });
            took
        })
    });
}

/// Nor has whoever waits for a held get end once everything has been got, however long it stays held.
#[test]
fn the_end_of_a_queue_comes_for_those_behind_a_held_get_end_too() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(2).unwrap();
    queue.put(b"last").unwrap();
    let consumer = queue.consumer().unwrap();
    thread::scope(|scope| {
        let waiters = [
            scope.spawn(|| queue.get().map(drop)),
            scope.spawn(|| queue.get_many(9).map(drop)),
            scope.spawn(|| queue.get_timeout(ms(20_000)).map(drop)),
            scope.spawn(|| queue.consumer().map(drop)),
        ];
        nap(ms(6));
        queue.close();
        // There is something left: it is not the end yet.
        nap(ms(120));
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        assert_eq!(consumer.get().unwrap(), b"last");
        let (ends, took) = timed(|| waiters.map(|waiter| waiter.join().unwrap()));
        for end in ends {
            assert!(matches!(end, Err(GetError::Closed)), "{end:?}");
        }
        assert_prompt(took);
        let nowait = scope.spawn(|| queue.get_nowait()).join().unwrap();
        assert!(matches!(nowait, Err(GetError::Closed)), "{nowait:?}");
    });
    drop(consumer);
    assert!(matches!(queue.get(), Err(GetError::Closed)));
}

/// Close races a stream through a held end: exactly what the puts said `Ok` to is delivered.
#[test]
fn what_a_held_put_said_ok_to_is_delivered_and_nothing_else() {
    let _stage = Stage::new();
    let mut random = Random::new();
    for round in 0..150 {
        let queue = Queue::<u32>::new(64).unwrap();
        thread::scope(|scope| {
            let put = scope.spawn(|| {
                // Closed before it began: nothing was put.
                let Ok(producer) = queue.producer() else { return 0 };
                (0..u32::MAX).take_while(|number| producer.put(number).is_ok()).count()
            });
            let got = scope.spawn(|| {
                if round % 2 == 0 {
                    let consumer = queue.consumer().unwrap();
                    std::iter::from_fn(|| consumer.get().ok()).collect::<Vec<_>>()
                } else {
                    queue.iter().collect()
                }
            });
            nap(Duration::from_micros(random.below(600)));
            queue.close();
            let put = put.join().unwrap();
            assert!(got.join().unwrap().into_iter().eq(0..u32::try_from(put).unwrap()));
            assert!(queue.empty());
            assert_eq!(queue.stats().puts, put as u64);
        });
    }
}

// Waiting for oneself

/// The handle itself, a clone of it, and another one by name.
fn three_handles(stage: &Stage) -> [ByteQueue; 3] {
    let queue = ByteQueue::create(&stage.name(), 8).unwrap();
    let (clone, second) = (queue.clone(), ByteQueue::open(queue.name()).unwrap());
    [queue, clone, second]
}

pub(crate) fn every_put_is_a_deadlock(queue: &ByteQueue) {
    assert_put_deadlock(queue.put(b"no"));
    assert_put_deadlock(queue.put_nowait(b"no"));
    assert_put_deadlock(queue.put_timeout(b"no", ms(20_000)));
    assert_put_deadlock(queue.put_with(1, |_| panic!("it would be its own end")));
    let many = queue.put_many(&[b"no"]).unwrap_err();
    assert_eq!(many.put, 0);
    assert_put_deadlock(Err(many.error));
    assert_put_deadlock(queue.producer().map(drop));
    assert_put_deadlock(queue.producer_timeout(ms(20_000)).map(drop));
    let typed = Queue::<u8>::from(queue.clone());
    assert_put_deadlock(typed.put(&1));
    assert_put_deadlock(Err(typed.put_many(&[1]).unwrap_err().error));
}

pub(crate) fn every_get_is_a_deadlock(queue: &ByteQueue) {
    assert_get_deadlock(queue.get());
    assert_get_deadlock(queue.get_nowait());
    assert_get_deadlock(queue.get_timeout(ms(20_000)));
    assert_get_deadlock(queue.get_into(&mut [0; 9]));
    assert_get_deadlock(queue.get_many(9));
    assert_get_deadlock(queue.get_with(|_| -> u8 { panic!("it would be its own end") }));
    assert_get_deadlock(queue.consumer().map(drop));
    assert_get_deadlock(queue.consumer_timeout(ms(20_000)).map(drop));
    let typed = Queue::<u8>::from(queue.clone());
    assert_get_deadlock(typed.get());
    let mut items = typed.iter();
    assert_eq!(items.next(), None);
    assert!(matches!(items.error(), Some(GetError::Io(error)) if is_deadlock(error)));
}

#[test]
fn putting_while_one_holds_the_put_end_oneself_is_an_error_and_not_a_hang() {
    let stage = Stage::new();
    let handles = three_handles(&stage);
    let [queue, ..] = &handles;
    queue.put(b"1").unwrap();
    for holder in &handles {
        let producer = holder.producer().unwrap();
        for handle in &handles {
            every_put_is_a_deadlock(handle);
            // The other end is another one.
            assert_eq!(handle.get().unwrap(), b"1");
            producer.put(b"1").unwrap();
        }
        drop(producer);
        for handle in &handles {
            handle.put_nowait(b"2").unwrap();
            assert_eq!(handle.get_many(2).unwrap(), [b"1", b"2"]);
            handle.put_nowait(b"1").unwrap();
        }
        holder
            .put_with(1, |bytes| {
                handles.iter().for_each(every_put_is_a_deadlock);
                bytes[0] = b'1';
            })
            .unwrap();
        assert_eq!(holder.get().unwrap(), b"1");
    }
    assert_eq!(queue.get_nowait().unwrap(), b"1");
    assert_eq!(queue.stats().recoveries, 0);
}

#[test]
fn getting_while_one_holds_the_get_end_oneself_is_an_error_and_not_a_hang() {
    let stage = Stage::new();
    let handles = three_handles(&stage);
    let [queue, ..] = &handles;
    for holder in &handles {
        let consumer = holder.consumer().unwrap();
        for handle in &handles {
            // The other end is another one.
            handle.put(b"1").unwrap();
            every_get_is_a_deadlock(handle);
            assert_eq!(consumer.get().unwrap(), b"1");
        }
        drop(consumer);
        for handle in &handles {
            handle.put(b"2").unwrap();
            assert_eq!(handle.get_nowait().unwrap(), b"2");
        }
        queue.put(b"3").unwrap();
        holder
            .get_with(|bytes| {
                handles.iter().for_each(every_get_is_a_deadlock);
                assert_eq!(bytes, b"3");
            })
            .unwrap();
        assert!(queue.empty());
    }
}

/// Another thread, another queue, both ends of one queue: none of them waits for itself.
#[test]
fn only_who_would_wait_for_itself_is_refused() {
    let stage = Stage::new();
    let [queue, clone, second] = three_handles(&stage);
    let other = ByteQueue::new(8).unwrap();
    let producer = queue.producer().unwrap();
    other.put(b"another queue").unwrap();
    let others = other.producer().unwrap();
    assert_put_deadlock(queue.put(b"no"));
    assert_put_deadlock(other.put(b"no"));
    drop(producer);
    queue.put(b"free").unwrap();
    assert_put_deadlock(other.put(b"no"));
    drop(others);
    other.put(b"free").unwrap();

    let producer = queue.producer().unwrap();
    let _consumer = queue.consumer().unwrap();
    thread::scope(|scope| {
        for handle in [&queue, &clone, &second] {
            scope.spawn(move || {
                assert!(matches!(handle.put_timeout(b"x", BRIEFLY), Err(PutError::Full)));
                assert!(matches!(handle.get_timeout(BRIEFLY), Err(GetError::Empty)));
            });
        }
    });
    drop(producer);
    second.put(b"free").unwrap();
}

/// A held end takes no lock for a call, so a call on it inside of its own closure has to be refused otherwise: it
/// would write into the bytes that are lent, or move the cursor under the outer call.
#[test]
fn a_held_end_cannot_be_used_inside_of_its_own_closure() {
    let _stage = Stage::new();
    let queue = ByteQueue::new(4).unwrap();
    let producer = queue.producer().unwrap();
    for _ in 0..3 {
        producer
            .put_with(3, |bytes| {
                bytes.copy_from_slice(b"abc");
                assert_put_deadlock(producer.put(b"xyz"));
                assert_put_deadlock(producer.put_nowait(b"xyz"));
                assert_put_deadlock(producer.put_timeout(b"xyz", ms(20_000)));
                assert_put_deadlock(producer.put_with(3, |_| panic!("it is lent already")));
                assert_put_deadlock(Err(producer.put_many(&[b"xyz"]).unwrap_err().error));
                every_put_is_a_deadlock(&queue);
                assert_eq!(bytes, b"abc");
            })
            .unwrap();
    }
    let consumer = queue.consumer().unwrap();
    for left in (0..3).rev() {
        let read = consumer.get_with(|bytes| {
            assert_get_deadlock(consumer.get());
            assert_get_deadlock(consumer.get_nowait());
            assert_get_deadlock(consumer.get_timeout(ms(20_000)));
            assert_get_deadlock(consumer.get_into(&mut [0; 9]));
            assert_get_deadlock(consumer.get_many(9));
            assert_get_deadlock(consumer.get_with(|_| -> u8 { panic!("it is lent already") }));
            every_get_is_a_deadlock(&queue);
            bytes.to_vec()
        });
        assert_eq!(read.unwrap(), b"abc");
        assert_eq!(queue.qsize(), left);
    }
    // A panic gives the bytes back.
    let panicked = catch_unwind(AssertUnwindSafe(|| producer.put_with(3, |_| panic!("on purpose"))));
    assert!(panicked.is_err());
    producer.put(b"after").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| consumer.get_with(|_| -> u8 { panic!("on purpose") })));
    assert!(panicked.is_err());
    assert_eq!(consumer.get().unwrap(), b"after");
    // The other end may be used, held too.
    producer
        .put_with(1, |bytes| {
            bytes[0] = 7;
            assert!(matches!(consumer.get_nowait(), Err(GetError::Empty)));
        })
        .unwrap();
    consumer.get_with(|bytes| producer.put(bytes).unwrap()).unwrap();
    assert_eq!(consumer.get().unwrap(), [7]);
}

/// Guards of the same queue and thread, in any order of their drops.
#[test]
fn held_ends_may_be_dropped_in_any_order() {
    let _stage = Stage::new();
    let (one, two) = (ByteQueue::new(4).unwrap(), ByteQueue::new(4).unwrap());
    let (first, second) = (one.producer().unwrap(), two.producer().unwrap());
    let third = one.consumer().unwrap();
    drop(first);
    assert_put_deadlock(two.put(b"no"));
    one.put(b"yes").unwrap();
    assert_get_deadlock(one.get());
    drop(second);
    two.put(b"yes").unwrap();
    assert_get_deadlock(one.get());
    drop(third);
    assert_eq!((one.get().unwrap(), two.get().unwrap()), (b"yes".to_vec(), b"yes".to_vec()));
}

/// The user's code that runs inside of a held end's call is on the same thread.
#[test]
fn an_item_that_puts_while_it_is_encoded_for_a_held_end_is_told_that_it_waits_for_itself() {
    struct Nosy(Rc<Cell<bool>>, ByteQueue);

    impl serde::Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.set(matches!(self.1.put(b"no"), Err(PutError::Io(error)) if is_deadlock(&error)));
            serializer.serialize_u8(1)
        }
    }

    let _stage = Stage::new();
    let queue = Queue::<Nosy>::new(4).unwrap();
    let refused = Rc::new(Cell::new(false));
    let item = Nosy(refused.clone(), queue.bytes().clone());
    queue.producer().unwrap().put(&item).unwrap();
    assert!(refused.get());
    assert_eq!(queue.bytes().get_many(9).unwrap(), [[1]]);
}
