//! The storm: four producers and four consumers at one queue, any of them killed and made anew at any moment,
//! many times a second.
//!
//! The books are exact. Each message has a producer and a number, and a byte in memory that survives whoever
//! writes to it. The producer marks there what became of its put, and each consumer that gets the message adds
//! one. At the end there is nothing to estimate:
//!
//! | the put ...                       | the message was got                                     |
//! | --------------------------------- | ------------------------------------------------------- |
//! | returned `Ok`                     | once; or never, at most one for each consumer killed in a get |
//! | was refused                       | never                                                   |
//! | never returned: killed in the put | once or never; at most one such put for each kill       |
//!
//! Where only producers are killed nothing may be lost at all, and where only consumers are, no put is cut off.
//!
//! # The long form
//!
//! ```text
//! SHMQ_STORM_SECONDS=60 cargo test --release --test it storm:: -- --nocapture --test-threads=1
//! ```
//!
//! Each of the three storms then takes a minute, instead of a few seconds. Seeds are printed; `SHMQ_TEST_SEED`
//! gives one again.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shmq::{ByteQueue, GetError, PutError, QueueOptions};

use crate::faults::shared;
use crate::harness::{
    self, Forked, Random, Role, Stage, assert_prompt, fork, long_form, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[("storm::rages", rages)];

const PRODUCERS: usize = 4;
const CONSUMERS: usize = 4;
/// Messages that one producer, in all its lives, can put at most.
const NUMBERS: usize = 1 << 26;
const CAPACITY: usize = 16;
const LONGEST: usize = 2048;
/// Producer, number and seed of what follows, which must not be torn.
const SHORTEST: usize = 16;

// What a message's byte says. Below these marks it counts the gets.
const RETURNED: u8 = 0x80;
const REFUSED: u8 = 0x40;
const GETS: u8 = REFUSED - 1;

#[test]
fn a_storm_over_producers_loses_nothing_at_all() {
    storm("producers");
}

#[test]
fn a_storm_over_consumers_loses_at_most_one_message_for_each() {
    storm("consumers");
}

#[test]
fn a_storm_over_everybody_loses_at_most_one_message_for_each_consumer() {
    storm("everybody");
}

fn storm(whom: &str) {
    let stage = Stage::new();
    let name = stage.name();
    let seed = Random::new().next().to_string();
    let said = stage.child("storm::rages", &[&name, whom, &seed]).finish();
    println!("{whom}: {said:?}");
}

/// What the processes write down, each in its own place, whatever becomes of them.
struct Books {
    /// For each producer the number of the last put that it began, in any of its lives.
    begun: &'static [AtomicU64],
    /// For each producer and number what became of it.
    messages: &'static [AtomicU8],
    /// For each consumer how many messages it got, in all its lives.
    got: &'static [AtomicU64],
    /// For each consumer whether it is in a get.
    inside: &'static [AtomicU8],
}

impl Books {
    fn new() -> Self {
        Self {
            begun: shared(PRODUCERS),
            messages: shared(PRODUCERS * NUMBERS),
            got: shared(CONSUMERS),
            inside: shared(CONSUMERS),
        }
    }

    fn message(&self, producer: usize, number: u64) -> &AtomicU8 {
        let number = usize::try_from(number).unwrap();
        assert!(number < NUMBERS, "the books are full");
        &self.messages[producer * NUMBERS + number]
    }

    fn all_got(&self) -> u64 {
        self.got.iter().map(|got| got.load(Ordering::Relaxed)).sum()
    }
}

/// Writes a message into the buffer; its length differs from one number to the next.
fn write(buffer: &mut Vec<u8>, producer: usize, number: u64, random: &mut Random) {
    let len = match random.below(16) {
        0 => LONGEST,
        1 => SHORTEST + random.index(LONGEST - SHORTEST),
        _ => SHORTEST + random.index(64),
    };
    buffer.clear();
    buffer.extend_from_slice(&(producer as u64).to_ne_bytes());
    buffer.extend_from_slice(&number.to_ne_bytes());
    buffer.resize(len, filling(producer, number, len));
}

fn filling(producer: usize, number: u64, len: usize) -> u8 {
    (number ^ (producer as u64) << 6 ^ len as u64).to_le_bytes()[0]
}

/// Producer and number; panics if a byte is wrong.
fn read(message: &[u8]) -> (usize, u64) {
    let (producer, rest) = message.split_first_chunk().expect("no message is shorter");
    let (number, rest) = rest.split_first_chunk().expect("no message is shorter");
    let producer = usize::try_from(u64::from_ne_bytes(*producer)).unwrap();
    let number = u64::from_ne_bytes(*number);
    assert!(producer < PRODUCERS, "there is no producer {producer}");
    let filling = filling(producer, number, message.len());
    assert!(rest.iter().all(|byte| *byte == filling), "message {number} of {producer} is torn");
    (producer, number)
}

/// Handles come and go too: now and then this one does, and the call after it is made with another identity.
fn renewed(queue: ByteQueue, random: &mut Random) -> ByteQueue {
    match random.below(4096) {
        0 => {
            let name = queue.name().to_owned();
            drop(queue);
            ByteQueue::open(&name).unwrap()
        }
        1..4 => {
            nap(Duration::from_micros(random.below(2000)));
            queue
        }
        _ => queue,
    }
}

fn produce(queue: ByteQueue, books: &Books, producer: usize, seed: u64) -> i32 {
    let mut random = Random::from_seed(seed);
    let mut queue = queue;
    let mut message = Vec::new();
    // What the last life began may be in the queue or not: its number is not used again.
    let mut number = books.begun[producer].load(Ordering::Relaxed);
    loop {
        queue = renewed(queue, &mut random);
        number += 1;
        write(&mut message, producer, number, &mut random);
        let what_became_of_it = books.message(producer, number);
        books.begun[producer].store(number, Ordering::Relaxed);
        let put = match random.below(8) {
            0 => queue.put_nowait(&message),
            1 => queue.put_timeout(&message, Duration::from_micros(random.below(3000))),
            _ => queue.put(&message),
        };
        match put {
            Ok(()) => what_became_of_it.fetch_or(RETURNED, Ordering::Relaxed),
            Err(PutError::Full | PutError::Closed) => what_became_of_it.fetch_or(REFUSED, Ordering::Relaxed),
            Err(error) => panic!("{error}"),
        };
        if matches!(put, Err(PutError::Closed)) {
            return 0;
        }
    }
}

fn consume(queue: ByteQueue, books: &Books, consumer: usize, seed: u64) -> i32 {
    let mut random = Random::from_seed(seed);
    let mut queue = queue;
    let mut last = [0; PRODUCERS];
    let mut buffer = vec![0; LONGEST];
    loop {
        queue = renewed(queue, &mut random);
        books.inside[consumer].store(1, Ordering::Relaxed);
        let got = match random.below(8) {
            0 => queue.get_nowait(),
            1 => queue.get_timeout(Duration::from_micros(random.below(3000))),
            2 => queue.get(),
            _ => queue.get_into(&mut buffer).map(|len| buffer[..len].to_vec()),
        };
        match got {
            Ok(message) => {
                let (producer, number) = read(&message);
                books.message(producer, number).fetch_add(1, Ordering::Relaxed);
                books.inside[consumer].store(0, Ordering::Relaxed);
                books.got[consumer].fetch_add(1, Ordering::Relaxed);
                assert!(last[producer] < number, "{number} of {producer} came after {}", last[producer]);
                last[producer] = number;
            }
            Err(GetError::Empty) => {}
            Err(GetError::Closed) => return 0,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The eight, and how to make any of them anew.
struct Crowd<'a> {
    /// The supervisor's own handle, which keeps the queue; some use what they inherit of it.
    queue: &'a ByteQueue,
    books: &'a Books,
    members: Vec<Forked>,
    random: Random,
}

impl Crowd<'_> {
    fn make(&mut self, place: usize) -> Forked {
        let (queue, books, seed) = (self.queue, self.books, self.random.next());
        fork(|| {
            // Either by name, as a program does that was started, or with what was inherited.
            let queue = if seed % 4 == 0 { queue.clone() } else { ByteQueue::open(queue.name()).unwrap() };
            match place.checked_sub(PRODUCERS) {
                None => produce(queue, books, place, seed),
                Some(consumer) => consume(queue, books, consumer, seed),
            }
        })
    }

    /// Kills those at these places, and only then makes new ones. How many consumers died in a get.
    fn kill(&mut self, places: &[usize]) -> u64 {
        for place in places {
            // Whoever is stopped first stays for a while what it is: the owner of a lock, or asleep.
            if self.random.below(8) == 0 {
                self.members[*place].stop();
                nap(Duration::from_micros(self.random.below(3000)));
            }
            self.members[*place].kill();
        }
        let mut in_a_get = 0;
        for place in places {
            if let Some(consumer) = place.checked_sub(PRODUCERS) {
                in_a_get += u64::from(self.books.inside[consumer].swap(0, Ordering::Relaxed));
            }
            self.members[*place] = self.make(*place);
        }
        in_a_get
    }
}

/// Whom a storm may kill.
fn targets(whom: &str) -> std::ops::Range<usize> {
    match whom {
        "producers" => 0..PRODUCERS,
        "consumers" => PRODUCERS..PRODUCERS + CONSUMERS,
        _ => 0..PRODUCERS + CONSUMERS,
    }
}

fn rages(arguments: &[String]) {
    let [name, whom, seed] = arguments else { panic!("{arguments:?}") };
    let targets = targets(whom);
    let mut options = QueueOptions::new();
    let queue = options.capacity(CAPACITY).max_message(LONGEST).create::<()>(name).unwrap();
    let queue = ByteQueue::from(queue);
    let books = Books::new();
    let random = Random::from_seed(seed.parse().unwrap());
    let mut crowd = Crowd { queue: &queue, books: &books, members: Vec::new(), random };
    for place in 0..PRODUCERS + CONSUMERS {
        let member = crowd.make(place);
        crowd.members.push(member);
    }

    let mut kills = [0_u64; PRODUCERS + CONSUMERS];
    let mut in_a_get = 0;
    let mut longest_pause = Duration::ZERO;
    let start = Instant::now();
    while start.elapsed() < long_form().unwrap_or(ms(3000)) {
        nap(Duration::from_micros(crowd.random.below(8000)));
        let victims: Vec<_> = match crowd.random.below(24) {
            0 => targets.clone().collect(),
            1..4 => targets.clone().filter(|_| crowd.random.below(2) == 0).collect(),
            _ => vec![targets.start + crowd.random.index(targets.len())],
        };
        for place in &victims {
            kills[*place] += 1;
        }
        let before = books.all_got();
        in_a_get += crowd.kill(&victims);
        let ((), pause) = timed(|| until("messages still pass", || books.all_got() > before));
        longest_pause = longest_pause.max(pause);
    }
    let took = start.elapsed();

    let ((), closing) = timed(|| queue.close());
    assert_prompt(closing);
    for member in &crowd.members {
        assert_eq!(member.wait(), 0, "whoever is left goes when the queue is closed");
    }
    assert!(matches!(queue.get_timeout(ms(10_000)), Err(GetError::Closed)));
    let stats = queue.stats();
    assert_eq!(stats.attached, 1);
    // The whole life of the queue was in the hands of processes that were killed; it goes all the same.
    drop(queue);
    assert!(!harness::exists(name));

    let sums = settle(&books);
    let [of_producers, of_consumers]: [u64; 2] =
        [kills[..PRODUCERS].iter().sum(), kills[PRODUCERS..].iter().sum()];
    say(&format!(
        "{of_producers} producers and {of_consumers} consumers killed in {took:.1?} ({in_a_get} in a get), {sums:?}, {} \
         recoveries, longest pause {longest_pause:.1?}",
        stats.recoveries
    ));
    assert!(sums.lost <= in_a_get, "more lost than consumers died in a get");
    for (producer, cut_off) in sums.cut_off.iter().enumerate() {
        assert!(*cut_off <= kills[producer], "producer {producer} has more puts cut off than deaths");
    }
    // Nobody owns more than one end at a time.
    assert!(stats.recoveries <= of_producers + of_consumers);
}

/// What the books come to.
#[derive(Debug)]
struct Sums {
    got: u64,
    lost: u64,
    refused: u64,
    /// Puts that never returned, and how many of these messages came.
    cut_off: [u64; PRODUCERS],
    unannounced: u64,
}

fn settle(books: &Books) -> Sums {
    let mut sums = Sums { got: 0, lost: 0, refused: 0, cut_off: [0; PRODUCERS], unannounced: 0 };
    for producer in 0..PRODUCERS {
        for number in 1..=books.begun[producer].load(Ordering::Relaxed) {
            let mark = books.message(producer, number).load(Ordering::Relaxed);
            let gets = u64::from(mark & GETS);
            assert!(gets <= 1, "message {number} of {producer} came {gets} times");
            match mark & !GETS {
                RETURNED => sums.lost += 1 - gets,
                REFUSED => {
                    assert_eq!(gets, 0, "message {number} of {producer} was refused, and came");
                    sums.refused += 1;
                }
                0 => {
                    sums.cut_off[producer] += 1;
                    sums.unannounced += gets;
                }
                _ => panic!("message {number} of {producer} has marks {mark:x}"),
            }
            sums.got += gets;
        }
    }
    sums
}
