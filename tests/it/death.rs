//! Processes killed and stopped in the middle of what they do. The others go on.
//!
//! Each role here is a survivor: it forks the victims, which attach by name as any process does. What a
//! victim managed to do it wrote down ([`Record`]) before it was killed.
//!
//! Messages are numbered. A victim's long message takes about as long to copy as everything else together,
//! so that it is often killed or stopped while it holds an end.

use std::time::Duration;

use shmq::{ByteQueue, GetError, PutError, QueueOptions};

use crate::harness::{
    Random, Record, Role, Stage, assert_about, assert_prompt, assert_woken, fork, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("death::asleep_in_get", asleep_in_get),
    ("death::asleep_in_put", asleep_in_put),
    ("death::woken_and_killed", woken_and_killed),
    ("death::amid_puts", amid_puts),
    ("death::amid_gets", amid_gets),
    ("death::crowd", crowd),
    ("death::stopped_amid_puts", stopped_amid_puts),
    ("death::stopped_amid_gets", stopped_amid_gets),
    ("death::stopped_before_a_waiter", stopped_before_a_waiter),
    ("death::closed_over_a_stopped_put", closed_over_a_stopped_put),
];

const SHORT: usize = 16;
const LONG: usize = 4 << 20;

/// Plays the role on a queue of this capacity and longest message.
fn survive(role: &str, capacity: usize, max_message: usize) {
    let stage = Stage::new();
    let name = stage.name();
    let mut options = QueueOptions::new();
    let queue = options.capacity(capacity).max_message(max_message).create::<u64>(&name).unwrap();
    let seed = Random::new().next().to_string();
    let said = stage.child(role, &[&name, &max_message.to_string(), &seed]).finish();
    println!("{said:?}");
    assert_eq!(queue.stats().attached, 1);
}

/// The survivor's own handle, the length of messages, and chance.
fn survivor(arguments: &[String]) -> (ByteQueue, usize, Random) {
    let [name, len, seed] = arguments else { panic!("{arguments:?}") };
    let seed = Random::from_seed(seed.parse().unwrap());
    (ByteQueue::open(name).unwrap(), len.parse().unwrap(), seed)
}

/// A message with this number at both ends of it.
fn message(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    renumber(&mut bytes, number);
    bytes
}

fn renumber(bytes: &mut [u8], number: u64) {
    *bytes.first_chunk_mut().unwrap() = number.to_ne_bytes();
    *bytes.last_chunk_mut().unwrap() = number.to_ne_bytes();
}

fn number(bytes: &[u8]) -> u64 {
    let (first, last) = (bytes.first_chunk().unwrap(), bytes.last_chunk().unwrap());
    assert_eq!(first, last, "the message is torn");
    u64::from_ne_bytes(*first)
}

/// A victim that puts `first`, `first + step` and so on until the queue is closed; the record says how many
/// puts returned. It does little else, so that it mostly holds the end when something happens to it.
fn putter<'a>(
    name: &'a str,
    record: &'a Record,
    first: u64,
    step: u64,
    len: usize,
) -> impl FnOnce() -> i32 + 'a {
    move || {
        let queue = ByteQueue::open(name).unwrap();
        let mut bytes = message(first, len);
        for count in 1.. {
            match queue.put(&bytes) {
                Ok(()) => record.set(0, count),
                Err(PutError::Closed) => return 0,
                Err(error) => panic!("{error}"),
            }
            renumber(&mut bytes, first + count * step);
        }
        1
    }
}

/// A victim that gets until the queue is closed, and writes down what it got, one after the other.
fn getter<'a>(name: &'a str, record: &'a Record, len: usize) -> impl FnOnce() -> i32 + 'a {
    move || {
        let queue = ByteQueue::open(name).unwrap();
        let mut bytes = vec![0; len];
        for place in 0.. {
            match queue.get_into(&mut bytes) {
                Ok(len) => record.set(place, number(&bytes[..len])),
                Err(GetError::Closed) => return 0,
                Err(error) => panic!("{error}"),
            }
        }
        1
    }
}

/// Everything that is there now.
fn drain(queue: &ByteQueue) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        match timed(|| queue.get_nowait()) {
            (Ok(bytes), _) => got.push(number(&bytes)),
            (Err(GetError::Empty), took) => {
                assert_prompt(took);
                return got;
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
}

// Asleep

#[test]
fn a_process_killed_asleep_in_get_takes_no_message_and_no_wake_up_with_it() {
    survive("death::asleep_in_get", 4, SHORT);
}

fn asleep_in_get(arguments: &[String]) {
    let (queue, len, _) = survivor(arguments);
    for round in 0..12 {
        let getter = || {
            fork(|| {
                let queue = ByteQueue::open(queue.name()).unwrap();
                i32::from(number(&queue.get().unwrap()) != round)
            })
        };
        let (victim, sleeper) = (getter(), getter());
        victim.falls_asleep();
        sleeper.falls_asleep();
        victim.kill();
        let (code, took) = timed(|| {
            queue.put(&message(round, len)).unwrap();
            sleeper.wait()
        });
        assert_eq!(code, 0);
        assert_prompt(took);
        assert!(queue.empty());
    }
    assert_eq!(queue.stats().recoveries, 0, "nobody held anything");
}

#[test]
fn a_process_killed_asleep_in_put_leaves_no_message_and_takes_no_wake_up_with_it() {
    survive("death::asleep_in_put", 1, SHORT);
}

fn asleep_in_put(arguments: &[String]) {
    let (queue, len, _) = survivor(arguments);
    for round in 0..12 {
        queue.put(&message(round, len)).unwrap();
        let putter = |number| {
            fork(move || {
                let queue = ByteQueue::open(&arguments[0]).unwrap();
                queue.put(&message(number, len)).unwrap();
                0
            })
        };
        let (victim, sleeper) = (putter(1000), putter(2000));
        victim.falls_asleep();
        sleeper.falls_asleep();
        victim.kill();
        let (code, took) = timed(|| {
            assert_eq!(number(&queue.get().unwrap()), round);
            sleeper.wait()
        });
        assert_eq!(code, 0);
        assert_prompt(took);
        assert_eq!(drain(&queue), [2000]);
    }
    assert_eq!(queue.stats().recoveries, 0, "nobody held anything");
}

/// The victim is stopped in its sleep, so a wake-up that reaches it does no good; then it is killed. The
/// message is still there, and the other sleeper finds it.
#[test]
fn a_wake_up_that_dies_with_the_one_it_woke_is_made_up_for() {
    survive("death::woken_and_killed", 4, SHORT);
}

fn woken_and_killed(arguments: &[String]) {
    let (queue, len, mut random) = survivor(arguments);
    for round in 0..12 {
        let getter = || {
            fork(|| {
                let queue = ByteQueue::open(queue.name()).unwrap();
                i32::from(number(&queue.get().unwrap()) != round)
            })
        };
        let sleepers = [getter(), getter()];
        for sleeper in &sleepers {
            sleeper.falls_asleep();
        }
        let [first, second] = &sleepers;
        let (victim, survivor) = if random.below(2) == 0 { (first, second) } else { (second, first) };
        victim.stop();
        let (code, took) = timed(|| {
            queue.put(&message(round, len)).unwrap();
            victim.kill();
            survivor.wait()
        });
        assert_eq!(code, 0);
        assert_prompt(took);
    }
}

// In the middle of a stream

#[test]
fn a_process_killed_amid_short_puts_loses_at_most_the_one_in_its_hands() {
    survive("death::amid_puts", 100_000, SHORT);
}

#[test]
fn a_process_killed_amid_long_puts_loses_at_most_the_one_in_its_hands() {
    survive("death::amid_puts", 4, LONG);
}

fn amid_puts(arguments: &[String]) {
    let (queue, len, mut random) = survivor(arguments);
    let mut rounds = 0;
    let mut delayed = 0;
    while !enough(&queue, len, rounds) {
        rounds += 1;
        let before = queue.stats().recoveries;
        let record = Record::new();
        let victim = fork(putter(queue.name(), &record, 0, 1, len));
        let mut got: Vec<_> = (0..random.below(6))
            .map(|_| number(&queue.get_timeout(ms(20_000)).expect("the victim puts")))
            .collect();
        nap(Duration::from_micros(random.below(1500)));
        victim.kill();
        got.extend(drain(&queue));
        let returned = record.get(0);
        let there = got.len() as u64;
        assert!(there == returned || there == returned + 1, "{there} are there, {returned} returned");
        assert!(got.into_iter().eq(0..there), "not in order");
        let (put, took) = timed(|| queue.put_timeout(&message(there, len), ms(10_000)));
        put.expect("there is room, and nobody else");
        assert_prompt(took);
        assert_eq!(drain(&queue), [there]);
        // The copy alone takes some milliseconds.
        delayed += u64::from(queue.stats().recoveries > before && took > ms(25));
    }
    let recoveries = queue.stats().recoveries;
    assert!(delayed <= recoveries / 2, "{delayed} of {recoveries} were taken over late");
}

/// Some rounds, and with long messages as many as it takes for a victim to have been killed at it.
fn enough(queue: &ByteQueue, len: usize, rounds: u64) -> bool {
    let recoveries = queue.stats().recoveries;
    assert!(recoveries <= rounds, "{recoveries} recoveries and {rounds} deaths");
    assert!(rounds < 400, "none of {rounds} was killed while it held an end");
    let enough = if len == SHORT { rounds >= 60 } else { rounds >= 30 && recoveries >= 2 };
    if enough {
        say(&format!("{recoveries} of {rounds} held an end"));
    }
    enough
}

#[test]
fn a_process_killed_amid_short_gets_loses_at_most_the_one_in_its_hands() {
    survive("death::amid_gets", 100_000, SHORT);
}

#[test]
fn a_process_killed_amid_long_gets_loses_at_most_the_one_in_its_hands() {
    survive("death::amid_gets", 8, LONG);
}

fn amid_gets(arguments: &[String]) {
    let (queue, len, mut random) = survivor(arguments);
    let mut rounds = 0;
    while !enough(&queue, len, rounds) {
        rounds += 1;
        let record = Record::new();
        let victim = fork(getter(queue.name(), &record, len));
        let end = if len == SHORT { 4000 } else { 2 + random.below(8) };
        for number in 1..=end {
            queue.put_timeout(&message(number, len), ms(20_000)).expect("the victim gets");
        }
        nap(Duration::from_micros(random.below(1500)));
        victim.kill();
        let got: Vec<_> = record.numbers().collect();
        assert!(got.iter().copied().eq(1..=got.len() as u64), "not in order: {got:?}");
        let (left, took) = timed(|| drain(&queue));
        assert_prompt(took);
        let (got, left) = (got.len(), left.len());
        let gone = usize::try_from(end).unwrap() - left;
        assert!(gone == got || gone == got + 1, "{gone} are gone, {got} were got");
    }
}

/// Two producers and two consumers, one of them killed and replaced every few milliseconds. What was put is
/// got once; what is missing died in a consumer's hands, and what is there without a word of its producer
/// in a producer's: never more than one for each death.
#[test]
fn a_crowd_goes_on_whoever_of_it_is_killed() {
    survive("death::crowd", 3, 4096);
}

fn crowd(arguments: &[String]) {
    const KILLS: usize = 150;
    let (queue, len, mut random) = survivor(arguments);
    // Each producer has numbers of its own, from 1 on below its id.
    let producer = |id: u64| {
        let record = Record::new();
        let forked = fork(putter(queue.name(), &record, id << 32 | 1, 1, len));
        (id, record, forked)
    };
    let consumer = || {
        let record = Record::new();
        let forked = fork(getter(queue.name(), &record, len));
        (record, forked)
    };
    let mut producers: Vec<_> = (0..2).map(producer).collect();
    let mut consumers: Vec<_> = (0..2).map(|_| consumer()).collect();
    let (mut dead_producers, mut dead_consumers) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        let before = queue.stats().gets;
        nap(Duration::from_micros(random.below(4000)));
        let victim = random.index(2);
        if random.below(2) == 0 {
            producers[victim].2.kill();
            dead_producers.push(std::mem::replace(&mut producers[victim], producer(kill as u64 + 2)));
        } else {
            consumers[victim].1.kill();
            dead_consumers.push(std::mem::replace(&mut consumers[victim], consumer()));
        }
        until("messages still pass", || queue.stats().gets > before + 2);
    }
    let ((), took) = timed(|| queue.close());
    assert_prompt(took);
    for forked in
        producers.iter().map(|(.., forked)| forked).chain(consumers.iter().map(|(_, forked)| forked))
    {
        assert_eq!(forked.wait(), 0);
    }
    assert!(matches!(queue.get_nowait(), Err(GetError::Closed)));

    let kills = [dead_producers.len(), dead_consumers.len()];
    let mut got = Vec::new();
    for (record, _) in dead_consumers.iter().chain(&consumers) {
        let of_one: Vec<_> = record.numbers().collect();
        // In order, of each producer.
        let mut sorted = of_one.clone();
        sorted.sort_by_key(|number| number >> 32);
        assert!(sorted.is_sorted());
        got.extend(of_one);
    }
    let total = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), total, "some came twice");
    let mut lost = 0;
    let mut unannounced = 0;
    for (id, record, _) in dead_producers.iter().chain(&producers) {
        let of_one = got.iter().filter(|number| *number >> 32 == *id);
        let numbers: Vec<_> = of_one.map(|number| number & 0xffff_ffff).collect();
        let returned = record.get(0);
        let known = numbers.iter().filter(|number| **number <= returned).count() as u64;
        lost += returned - known;
        assert!(numbers.iter().all(|number| *number <= returned + 1));
        unannounced += numbers.len() as u64 - known;
    }
    say(&format!("{total} got, {lost} lost, {unannounced} unannounced, {kills:?} kills"));
    assert!(unannounced <= kills[0] as u64);
    assert!(lost <= kills[1] as u64);
    assert!(queue.stats().recoveries <= KILLS as u64);
}

// Stopped

#[test]
fn a_process_stopped_amid_puts_delays_nobody_beyond_the_deadline() {
    survive("death::stopped_amid_puts", 4, LONG);
}

/// Messages of the victim are even, ours are odd.
fn stopped_amid_puts(arguments: &[String]) {
    const TIMEOUT: Duration = Duration::from_millis(40);
    let (queue, len, mut random) = survivor(arguments);
    let record = Record::new();
    let victim = fork(putter(queue.name(), &record, 0, 2, len));
    let mut due = 0;
    let mut odd = 0;
    let mut take = |number: u64| {
        if number.is_multiple_of(2) {
            assert_eq!(number, 2 * due);
            due += 1;
        } else {
            odd += 1;
        }
    };
    let mut held = 0;
    let mut put = 0;
    let mut rounds = 0;
    while rounds < 12 || held < 2 {
        assert!(rounds < 200, "none of {rounds} was stopped while it held the end");
        rounds += 1;
        for _ in 0..=random.below(4) {
            take(number(&queue.get_timeout(ms(20_000)).expect("the victim puts")));
        }
        nap(Duration::from_micros(random.below(1000)));
        victim.stop();
        drain(&queue).into_iter().for_each(&mut take);
        // The queue is empty, so nothing but the victim can stand in the way of a put.
        let (nowait, took) = timed(|| queue.put_nowait(&message(1, len)));
        assert_prompt(took);
        let (within, took) = timed(|| queue.put_timeout(&message(1, len), TIMEOUT));
        match (nowait, within) {
            (Ok(()), Ok(())) => put += 2,
            (Err(PutError::Full), Err(PutError::Full)) => {
                assert_about(took, TIMEOUT);
                held += 1;
            }
            other => panic!("{other:?}"),
        }
        drain(&queue).into_iter().for_each(&mut take);
        let (got, took) = timed(|| queue.get_timeout(TIMEOUT));
        assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
        assert_about(took, TIMEOUT);
        victim.go_on();
    }
    queue.close();
    let code = until_some("the victim ends", || {
        drain_closed(&queue).into_iter().for_each(&mut take);
        victim.has_ended()
    });
    assert_eq!(code, 0);
    assert_eq!(odd, put);
    assert_eq!(queue.stats().recoveries, 0, "nobody died");
    say(&format!("{held} of {rounds} held the end"));
}

/// Whoever sleeps over a taken end is woken when it is free, and does not just find out some time later.
#[test]
fn a_process_that_leaves_an_end_wakes_the_one_who_waits_for_it() {
    survive("death::stopped_before_a_waiter", 4, LONG);
}

fn stopped_before_a_waiter(arguments: &[String]) {
    let (queue, len, mut random) = survivor(arguments);
    let mut rounds = 0;
    let mut held = 0;
    assert_woken(ms(4), || {
        loop {
            rounds += 1;
            assert!(rounds < 50 * (held + 4), "only {held} of {rounds} were stopped while they held the end");
            // It gets one message and no more, so that the end is free afterwards.
            let victim = fork(|| {
                let queue = ByteQueue::open(queue.name()).unwrap();
                assert_eq!(queue.get_into(&mut vec![0; len]).unwrap(), len);
                nap(ms(100_000));
                1
            });
            victim.falls_asleep();
            queue.put(&message(1, len)).unwrap();
            nap(Duration::from_micros(random.below(1000)));
            victim.stop();
            let is_there = queue.qsize() == 1;
            if queue.get_nowait().is_err() && is_there {
                held += 1;
                queue.put(&message(2, SHORT)).unwrap();
                let waiter = fork(|| {
                    let queue = ByteQueue::open(queue.name()).unwrap();
                    i32::from(number(&queue.get_timeout(ms(20_000)).unwrap()) != 2)
                });
                // A sleeper looks for itself ever more rarely; by now it does every 20 ms.
                nap(ms(130));
                let (code, took) = timed(|| {
                    victim.go_on();
                    until_some("the waiter has its message", || waiter.has_ended())
                });
                assert_eq!(code, 0);
                victim.kill();
                return took;
            }
            victim.kill();
            drain(&queue);
        }
    });
    say(&format!("{held} of {rounds} held the end"));
}

#[test]
fn a_process_stopped_amid_gets_delays_nobody_beyond_the_deadline() {
    survive("death::stopped_amid_gets", 4, LONG);
}

fn stopped_amid_gets(arguments: &[String]) {
    const TIMEOUT: Duration = Duration::from_millis(40);
    let (queue, len, mut random) = survivor(arguments);
    let record = Record::new();
    let victim = fork(getter(queue.name(), &record, len));
    let mut put = 0;
    let mut got = 0;
    let mut held = 0;
    let mut rounds = 0;
    while rounds < 12 || held < 2 {
        assert!(rounds < 200, "none of {rounds} was stopped while it held the end");
        rounds += 1;
        for _ in 0..=random.below(4) {
            put += 1;
            queue.put_timeout(&message(put, len), ms(20_000)).expect("the victim gets");
        }
        nap(Duration::from_micros(random.below(800)));
        victim.stop();
        while queue.put_nowait(&message(put + 1, len)).is_ok() {
            put += 1;
        }
        assert!(queue.full());
        // The queue is full, so nothing but the victim can stand in the way of a get.
        let (nowait, took) = timed(|| queue.get_nowait());
        assert_prompt(took);
        let (within, took) = timed(|| queue.get_timeout(TIMEOUT));
        match (nowait, within) {
            (Ok(_), Ok(_)) => got += 2,
            (Err(GetError::Empty), Err(GetError::Empty)) => {
                assert_about(took, TIMEOUT);
                held += 1;
                let (refused, took) = timed(|| queue.put_timeout(&message(put + 1, len), TIMEOUT));
                assert!(matches!(refused, Err(PutError::Full)), "{refused:?}");
                assert_about(took, TIMEOUT);
            }
            other => panic!("{other:?}"),
        }
        victim.go_on();
    }
    queue.close();
    assert_eq!(victim.wait(), 0);
    assert_eq!(record.numbers().count() as u64 + got, put);
    assert_eq!(queue.stats().recoveries, 0, "nobody died");
    say(&format!("{held} of {rounds} held the end"));
}

/// Close waits for nobody. What the stopped process is putting is delivered once it goes on, if its put says
/// `Ok`; until then no get says `Closed`; and if it never goes on but dies, the end of the queue is the end.
#[test]
fn closing_does_not_wait_for_a_process_stopped_amid_puts() {
    let stage = Stage::new();
    let seed = Random::new().next().to_string();
    let said = stage.child("death::closed_over_a_stopped_put", &[&seed]).finish();
    println!("{said:?}");
}

fn closed_over_a_stopped_put(arguments: &[String]) {
    let mut random = Random::from_seed(arguments[0].parse().unwrap());
    let mut held = 0;
    let mut rounds = 0;
    while rounds < 12 || held < 2 {
        assert!(rounds < 200, "none of {rounds} was stopped while it held the end");
        rounds += 1;
        let mut options = QueueOptions::new();
        let queue = options.capacity(4).max_message(LONG).anonymous::<()>().unwrap();
        let queue = ByteQueue::from(queue);
        let record = Record::new();
        let victim = fork(putter(queue.name(), &record, 0, 1, LONG));
        let mut got = 0;
        for _ in 0..=random.below(3) {
            assert_eq!(number(&queue.get_timeout(ms(20_000)).expect("the victim puts")), got);
            got += 1;
        }
        nap(Duration::from_micros(random.below(700)));
        victim.stop();
        let ((), took) = timed(|| queue.close());
        assert_prompt(took);
        assert!(queue.is_closed());
        let (refused, took) = timed(|| queue.put(b"more"));
        assert!(matches!(refused, Err(PutError::Closed)), "{refused:?}");
        assert_prompt(took);
        let (end, took) = timed(|| {
            loop {
                match queue.get_timeout(ms(30)) {
                    Ok(bytes) => {
                        assert_eq!(number(&bytes), got);
                        got += 1;
                    }
                    Err(error) => return error,
                }
            }
        });
        let is_inside = match end {
            GetError::Closed => false,
            GetError::Empty => true,
            error => panic!("{error}"),
        };
        assert!(took < ms(5000), "it took {took:?}");
        held += usize::from(is_inside);
        if rounds % 2 == 0 {
            victim.go_on();
            assert_eq!(victim.wait(), 0);
        } else {
            victim.kill();
        }
        let rest = drain_closed(&queue);
        assert!(is_inside || rest.is_empty(), "{} came after the end", rest.len());
        assert!(rest.len() <= 1);
        got += rest.len() as u64;
        let returned = record.get(0);
        assert!(got == returned || rounds % 2 == 1 && got == returned + 1, "{got} of {returned} came");
        assert!(matches!(queue.get_timeout(ms(5000)), Err(GetError::Closed)));
    }
    say(&format!("{held} of {rounds} held the end"));
}

/// Everything that is in a closed queue now.
fn drain_closed(queue: &ByteQueue) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        match queue.get_nowait() {
            Ok(bytes) => got.push(number(&bytes)),
            Err(GetError::Empty | GetError::Closed) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, || {
        found = look();
        found.is_some()
    });
    found.expect("it was found")
}
