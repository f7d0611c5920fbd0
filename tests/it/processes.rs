//! Messages between real processes: each arrives once, whole, and in its producer's order.

use std::num::NonZero;

use shmq::{ByteQueue, GetError, QueueOptions};

use crate::harness::{Role, Stage, hear, say};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("processes::produces", produces),
    ("processes::produces_until_closed", produces_until_closed),
    ("processes::consumes", consumes),
];

/// The longest message, so that some wrap around the end of every ring.
const MAX: usize = 120;

/// What the message of this number from this producer looks like: each byte depends on both.
fn message(producer: u32, number: u32) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(31) + producer) as usize % (MAX - 7);
    let mut bytes = [producer.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend((8_u32..).map(|at| (at ^ producer ^ number).to_le_bytes()[0]).take(len - 8));
    bytes
}

/// Producer and number; panics if a byte is wrong.
fn read(bytes: &[u8]) -> (u32, u32) {
    let (producer, rest) = bytes.split_first_chunk().expect("a producer");
    let (number, _) = rest.split_first_chunk().expect("a number");
    let (producer, number) = (u32::from_le_bytes(*producer), u32::from_le_bytes(*number));
    assert_eq!(bytes, message(producer, number), "message {number} of {producer} is torn");
    (producer, number)
}

fn produces(arguments: &[String]) {
    let [queue, producer, count] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(queue).unwrap();
    let (producer, count) = (producer.parse().unwrap(), count.parse().unwrap());
    say("ready");
    assert_eq!(hear(), "go");
    for number in 0..count {
        queue.put(&message(producer, number)).unwrap();
    }
}

fn produces_until_closed(arguments: &[String]) {
    let [queue, producer, _] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(queue).unwrap();
    let producer = producer.parse().unwrap();
    say("ready");
    assert_eq!(hear(), "go");
    let mut put = 0;
    while queue.put(&message(producer, put)).is_ok() {
        put += 1;
    }
    assert!(queue.is_closed());
    say(&put.to_string());
}

/// Takes until the queue is closed and says, for each producer, which numbers it got, as hexadecimal bits.
fn consumes(arguments: &[String]) {
    let [queue, producers, _] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(queue).unwrap();
    let mut got = vec![Numbers::default(); producers.parse().unwrap()];
    let mut last = vec![None; got.len()];
    say("ready");
    assert_eq!(hear(), "go");
    loop {
        match queue.get() {
            Ok(bytes) => {
                let (producer, number) = read(&bytes);
                let producer = producer as usize;
                assert!(
                    last[producer].is_none_or(|last| last < number),
                    "{number} of {producer} after {:?}",
                    last[producer]
                );
                last[producer] = Some(number);
                got[producer].insert(number);
            }
            Err(GetError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    for numbers in got {
        say(&numbers.to_hex());
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Numbers(Vec<u8>);

impl Numbers {
    fn up_to(count: u32) -> Self {
        let mut numbers = Self::default();
        (0..count).for_each(|number| numbers.insert(number));
        numbers
    }

    fn insert(&mut self, number: u32) {
        let byte = number as usize / 8;
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        let bit = 1 << (number % 8);
        assert_eq!(self.0[byte] & bit, 0, "{number} came twice");
        self.0[byte] |= bit;
    }

    /// Adds the other's; none may be in both.
    fn join(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (here, there) in self.0.iter_mut().zip(&other.0) {
            assert_eq!(*here & there, 0, "some came twice");
            *here |= there;
        }
    }

    fn to_hex(&self) -> String {
        self.0.iter().fold(String::from("="), |hex, byte| hex + &format!("{byte:02x}"))
    }

    fn from_hex(hex: &str) -> Self {
        let digits = hex.strip_prefix('=').expect("a set");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
        Self((0..digits.len()).step_by(2).map(byte).collect())
    }
}

/// Runs the processes and checks that what the producers say they put is what the consumers say they got.
fn exchange(capacity: usize, producers: u32, consumers: u32, count: Option<NonZero<u32>>) {
    let stage = Stage::new();
    let mut options = QueueOptions::new();
    options.capacity(capacity).max_message(MAX);
    let queue: ByteQueue = options.create::<()>(&stage.name()).unwrap().into();
    let role = if count.is_some() { "processes::produces" } else { "processes::produces_until_closed" };
    let limit = count.map_or(String::new(), |count| count.to_string());
    let mut putting: Vec<_> = (0..producers)
        .map(|producer| stage.child(role, &[queue.name(), &producer.to_string(), &limit]))
        .collect();
    let mut getting: Vec<_> = (0..consumers)
        .map(|_| stage.child("processes::consumes", &[queue.name(), &producers.to_string(), ""]))
        .collect();
    for child in putting.iter_mut().chain(&mut getting) {
        child.heard("ready");
    }
    assert_eq!(queue.stats().attached, u64::from(1 + producers + consumers));
    for child in putting.iter_mut().chain(&mut getting) {
        child.tell("go");
    }
    if count.is_none() {
        crate::harness::until("messages have passed", || queue.stats().gets > 1000);
        queue.close();
    }
    let put: Vec<u32> = putting
        .into_iter()
        .map(|child| child.finish().first().map_or(limit.clone(), String::clone).parse().unwrap())
        .collect();
    queue.close();
    let mut got = vec![Numbers::default(); producers as usize];
    for child in getting {
        let said = child.finish();
        assert_eq!(said.len(), got.len());
        for (got, said) in got.iter_mut().zip(said) {
            got.join(&Numbers::from_hex(&said));
        }
    }
    for (producer, (got, put)) in got.into_iter().zip(&put).enumerate() {
        assert_eq!(got, Numbers::up_to(*put), "of producer {producer}");
    }
    let sum = put.iter().copied().map(u64::from).sum();
    let stats = queue.stats();
    assert_eq!((stats.puts, stats.gets), (sum, sum));
    assert_eq!((stats.put_bytes, stats.recoveries, stats.attached), (stats.get_bytes, 0, 1));
}

// A small queue is full or empty at almost every call: both ends sleep and wake all the time.

#[test]
fn one_producer_and_one_consumer_through_a_queue_of_one() {
    exchange(1, 1, 1, NonZero::new(4000));
}

#[test]
fn one_producer_and_one_consumer_through_a_small_queue() {
    exchange(3, 1, 1, NonZero::new(10_000));
}

#[test]
fn four_producers_and_one_consumer_through_a_small_queue() {
    exchange(2, 4, 1, NonZero::new(2500));
}

#[test]
fn one_producer_and_four_consumers_through_a_small_queue() {
    exchange(2, 1, 4, NonZero::new(10_000));
}

#[test]
fn four_producers_and_four_consumers_through_a_small_queue() {
    exchange(2, 4, 4, NonZero::new(2500));
}

#[test]
fn four_producers_and_four_consumers_through_a_queue_of_one() {
    exchange(1, 4, 4, NonZero::new(1000));
}

#[test]
fn one_producer_and_one_consumer_through_a_large_queue() {
    exchange(4096, 1, 1, NonZero::new(100_000));
}

#[test]
fn four_producers_and_one_consumer_through_a_large_queue() {
    exchange(4096, 4, 1, NonZero::new(25_000));
}

#[test]
fn four_producers_and_four_consumers_through_a_large_queue() {
    exchange(4096, 4, 4, NonZero::new(25_000));
}

/// The close comes from outside while everybody is at it.
#[test]
fn what_processes_put_before_a_close_arrives_and_nothing_else() {
    exchange(2, 3, 3, None);
    exchange(256, 3, 3, None);
}
