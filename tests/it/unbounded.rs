//! Queues without a limit: they grow while their consumers are behind, give memory back as those catch up, and say
//! `NoSpace` when there is none. The deaths at each instruction are in `instants_sparse` and
//! `instants_basin`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::broken::{HEAD, TAIL};
use crate::harness::{
    Random, Record, Role, Stage, assert_prompt, fork, hear, limit, ms, nap, object, say, timed, until,
};
use crate::small_shm::play_with;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("unbounded::uses", uses),
    ("unbounded::produces", produces),
    ("unbounded::consumes", consumes),
    ("unbounded::runs_out", runs_out),
    ("unbounded::laps", laps),
    ("unbounded::file_size", file_size),
    ("unbounded::few_addresses", few_addresses),
    ("unbounded::forks", forks),
    ("unbounded::rages", rages),
    ("unbounded::swings", swings),
];

const KIBI: usize = 1 << 10;
const MEBI: usize = 1 << 20;
/// Memory comes and goes in pieces of this.
const CHUNK: usize = 256 * KIBI;
/// A queue whose messages are not too long for that keeps its first mebibyte, and a little more.
const KEPT: usize = 7 * CHUNK;

/// Bytes of shared memory that the queue takes.
fn held(queue: &ByteQueue) -> usize {
    let blocks = fs::metadata(object(queue.name())).unwrap().blocks();
    usize::try_from(blocks * 512).unwrap()
}

/// A message that shows its number, and whether it is whole.
fn message(number: u64, len: usize) -> Vec<u8> {
    let mut message = number.to_ne_bytes().to_vec();
    message.resize(len.max(16), number.to_ne_bytes()[0]);
    message
}

#[track_caller]
fn number(message: &[u8]) -> u64 {
    let (number, rest) = message.split_first_chunk().expect("no message is shorter");
    assert!(rest.iter().all(|byte| *byte == number[0]), "message {number:?} is torn");
    u64::from_ne_bytes(*number)
}

fn longest(max_message: usize) -> QueueOptions {
    QueueOptions::new().max_message(max_message).clone()
}

// ---------------------------------------------------------------------------------------------------
// What it is like

#[test]
fn it_has_no_capacity_and_is_never_full() {
    let stage = Stage::new();
    let name = stage.name();
    let queue: Queue<String> = QueueOptions::new().create(&name).unwrap();
    assert_eq!((queue.capacity(), queue.full(), queue.empty(), queue.qsize()), (None, false, true, 0));
    // More than any bounded queue holds that nobody gave a capacity.
    for number in 0..100_000 {
        queue.put_nowait(&format!("item {number}")).unwrap();
    }
    assert_eq!((queue.full(), queue.empty(), queue.qsize()), (false, false, 100_000));
    assert_eq!(queue.stats().puts, 100_000);

    let mut child = stage.child("unbounded::uses", &[&name]);
    child.heard("in use");
    assert_eq!(queue.qsize(), 99_999, "exact, over the border of processes");
    let info = shmq::inspect(&name).unwrap();
    assert_eq!(
        (info.capacity, info.messages, info.puts, info.gets, info.attached),
        (None, 99_999, 100_000, 1, 2)
    );
    assert_eq!(info.bytes, held(queue.bytes()) as u64);
    assert!((100_000 * 16..8 << 20).contains(&info.bytes), "{}", info.bytes);
    let peeked = shmq::peek(&name, 3).unwrap();
    assert_eq!(peeked.len(), 3);
    assert!(peeked[0].ends_with(b"item 1") && peeked[2].ends_with(b"item 3"));
    assert_eq!(queue.qsize(), 99_999, "looking takes nothing");
    child.tell("go on");
    child.finish();

    // Closed: what is there can still be got.
    queue.close();
    assert!(matches!(queue.put(&String::new()), Err(PutError::Closed)));
    let got: Vec<_> = queue.iter().collect();
    assert_eq!(got.len(), 99_998);
    assert_eq!(got[0], "item 2");
    assert!(matches!(queue.get(), Err(GetError::Closed)));
    assert!(held(queue.bytes()) < KEPT, "{}", held(queue.bytes()));
}

fn uses(arguments: &[String]) {
    let queue = Queue::<String>::open(&arguments[0]).unwrap();
    assert_eq!((queue.capacity(), queue.full()), (None, false));
    assert_eq!(queue.get().unwrap(), "item 0");
    say("in use");
    hear();
    assert_eq!(queue.get().unwrap(), "item 1");
}

#[test]
fn a_persistent_one_keeps_its_messages_and_a_wait_ends_at_its_deadline() {
    let stage = Stage::new();
    let name = stage.litter();
    let options = longest(MEBI).persistent(true).schema("long").clone();
    let queue = ByteQueue::from(options.create::<()>(&name).unwrap());
    for number in 0..20 {
        queue.put(&message(number, 100 * KIBI)).unwrap();
    }
    drop(queue);
    let info = shmq::inspect(&name).unwrap();
    assert_eq!(
        (info.state, info.capacity, info.messages, info.persistent),
        (shmq::State::Idle, None, 20, true)
    );
    let queue = ByteQueue::from(options.open_or_create::<()>(&name).unwrap());
    for expected in 0..20 {
        assert_eq!(number(&queue.get().unwrap()), expected);
    }
    let (empty, took) = timed(|| queue.get_timeout(ms(30)));
    assert!(matches!(empty, Err(GetError::Empty)) && took >= ms(30), "{took:?}");
    assert!(matches!(ByteQueue::open_or_create(&name, 7), Ok(found) if found.capacity().is_none()));
    drop(queue);
    shmq::remove(&name).unwrap();
}

/// Slots that end exactly at, just before and just behind the end of a chunk, and some that take several.
#[test]
fn long_messages_lie_over_several_chunks() {
    let queue = ByteQueue::from(longest(4 * MEBI).anonymous::<()>().unwrap());
    let mut sizes = vec![0, 1, 2 * CHUNK, 4 * MEBI];
    for chunks in [1, 2, 9] {
        sizes.extend((chunks * CHUNK - 24..chunks * CHUNK + 24).step_by(4));
    }
    for behind in [0, 1, sizes.len() - 1] {
        for (at, size) in sizes.iter().enumerate() {
            queue.put(&vec![u8::try_from(at).unwrap(); *size]).unwrap();
            if at >= behind {
                let seen = at - behind;
                assert_eq!(queue.get().unwrap(), vec![u8::try_from(seen).unwrap(); sizes[seen]]);
            }
        }
        for (seen, size) in sizes.iter().enumerate().skip(sizes.len() - behind) {
            assert_eq!(queue.get().unwrap(), vec![u8::try_from(seen).unwrap(); *size]);
        }
        assert!(held(&queue) < 2 * CHUNK, "{}", held(&queue));
    }
    let too_long = queue.put(&vec![0; 4 * MEBI + 1]);
    assert!(
        matches!(too_long, Err(PutError::TooLong { len, max }) if (len, max) == (4 * MEBI + 1, 4 * MEBI))
    );
}

#[test]
fn batches_held_ends_and_messages_in_place_grow_and_shrink_too() {
    let queue = ByteQueue::from(longest(100 * KIBI).anonymous::<()>().unwrap());
    let messages: Vec<_> = (0..100).map(|number| message(number, 60 * KIBI)).collect();
    let messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    let full = 100 * 60 * KIBI;

    queue.put_many(&messages).unwrap();
    assert!(held(&queue) > full);
    let got = queue.get_many(1000).unwrap();
    assert_eq!(got, messages);
    assert!(held(&queue) < KEPT, "after a batch: {}", held(&queue));

    {
        let producer = queue.producer().unwrap();
        producer.put_many(&messages[..50]).unwrap();
        for message in &messages[50..] {
            producer.put_with(message.len(), |bytes| bytes.copy_from_slice(message)).unwrap();
        }
        assert!(held(&queue) > full);
        let consumer = queue.consumer().unwrap();
        for expected in 0..50 {
            assert_eq!(consumer.get_with(number).unwrap(), expected);
        }
        assert!(held(&queue) < full / 2 + KEPT, "with the end held: {}", held(&queue));
        assert_eq!(consumer.get_many(100).unwrap(), messages[50..]);
    }
    assert!(held(&queue) < KEPT, "after held ends: {}", held(&queue));

    // A closure that panics puts and gets nothing, however much had been allocated for it.
    for _ in 0..3 {
        let put = std::panic::catch_unwind(|| queue.put_with(100 * KIBI, |_| panic!("on purpose")));
        assert!(put.is_err() && queue.empty());
    }
    queue.put_with(100 * KIBI, |bytes| bytes.copy_from_slice(&message(7, 100 * KIBI))).unwrap();
    let got = std::panic::catch_unwind(|| queue.get_with(|_| panic!("on purpose")));
    assert!(got.is_err());
    assert_eq!(queue.get_with(number).unwrap(), 7);
    assert!(held(&queue) < KEPT, "after panics: {}", held(&queue));
}

/// In the manner of the promise: measured.
#[test]
fn after_a_gigabyte_it_holds_next_to_nothing() {
    const SIZE: usize = 64 * KIBI;
    // A quarter at a time: not every machine has a gigabyte to spare.
    const LAPS: usize = 4;
    let queue = ByteQueue::from(longest(SIZE).anonymous::<()>().unwrap());
    let mut buffer = vec![0; SIZE];
    let ((), took) = timed(|| {
        for _ in 0..LAPS {
            let count = 1024 * MEBI / SIZE / LAPS;
            for _ in 0..count {
                queue.put(&buffer).unwrap();
            }
            assert_eq!(queue.qsize(), count);
            let most = held(&queue);
            assert!(most >= count * SIZE, "{most}");
            for _ in 0..count / 2 {
                queue.get_into(&mut buffer).unwrap();
            }
            let rest = held(&queue);
            assert!(rest < most / 2 + 2 * MEBI, "{rest} of {most} with half of them gone");
            for _ in 0..count / 2 {
                queue.get_into(&mut buffer).unwrap();
            }
        }
    });
    let rest = held(&queue);
    println!("1 GiB in {took:?}, then {} KiB are held", rest / KIBI);
    assert!(rest < 2 * MEBI, "{rest}");
    assert_eq!(shmq::inspect(queue.name()).unwrap().bytes, rest as u64);
}

// ---------------------------------------------------------------------------------------------------
// Processes

#[test]
fn several_producers_and_consumers_share_one() {
    const EACH: u64 = 3000;
    let stage = Stage::new();
    let queue = ByteQueue::from(longest(64 * KIBI).create::<()>(&stage.name()).unwrap());
    let arguments = |first: u64| [queue.name().to_owned(), first.to_string(), EACH.to_string()];
    let producers = [0, 1, 2].map(|place| {
        let arguments = arguments(place * EACH);
        stage.child("unbounded::produces", &arguments.each_ref().map(String::as_str))
    });
    let consumers = [0, 1].map(|_| stage.child("unbounded::consumes", &[queue.name()]));
    for producer in producers {
        producer.finish();
    }
    queue.close();
    let mut all = Vec::new();
    for consumer in consumers {
        let said = consumer.finish();
        let got: Vec<u64> = said[0].split(' ').filter_map(|number| number.parse().ok()).collect();
        for producer in 0..3 {
            let of = got.iter().filter(|number| *number / EACH == producer);
            assert!(of.is_sorted(), "out of order");
        }
        all.extend(got);
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..3 * EACH), "{} of {}", all.len(), 3 * EACH);
    assert!(held(&queue) < KEPT, "{}", held(&queue));
}

fn produces(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    let [first, count] = [1, 2].map(|at| arguments[at].parse::<u64>().unwrap());
    let mut random = Random::from_seed(first);
    for number in first..first + count {
        queue.put(&message(number, random.index(64 * KIBI))).unwrap();
    }
}

fn consumes(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    let mut got = Vec::new();
    loop {
        match queue.get() {
            Ok(message) => got.push(number(&message).to_string()),
            Err(GetError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    say(&got.join(" "));
}

#[test]
fn a_forked_child_uses_what_it_inherited() {
    let stage = Stage::new();
    stage.child("unbounded::forks", &[&stage.name()]).finish();
}

fn forks(arguments: &[String]) {
    let queue = ByteQueue::from(longest(CHUNK).create::<()>(&arguments[0]).unwrap());
    queue.put(&message(0, CHUNK)).unwrap();
    let holder = queue.producer().unwrap();
    let child = fork(|| {
        // The parent's end is none of the child's: it must not even allocate for it.
        let before = held(&queue);
        assert!(matches!(holder.put(&message(1, CHUNK)), Err(PutError::Io(_))));
        assert_eq!(held(&queue), before);
        assert_eq!(number(&queue.get().unwrap()), 0);
        assert!(matches!(queue.put_timeout(&message(1, CHUNK), ms(5)), Err(PutError::Full)));
        0
    });
    assert_eq!(child.wait(), 0);
    drop(holder);
    let child = fork(|| {
        for number in 1..20 {
            queue.put(&message(number, CHUNK)).unwrap();
        }
        0
    });
    for expected in 1..20 {
        assert_eq!(number(&queue.get().unwrap()), expected);
    }
    assert_eq!(child.wait(), 0);
    assert!(held(&queue) < 3 * CHUNK, "{}", held(&queue));
}

// ---------------------------------------------------------------------------------------------------
// Too little memory

#[test]
fn when_memory_ends_a_put_says_so_and_nothing_else_happens() {
    play_with("-o size=8m tmpfs /dev/shm", "unbounded::runs_out", &[]);
}

/// Bytes that nobody has in /dev/shm.
fn free() -> usize {
    let script = "stat -f -c '%a %S' /dev/shm";
    let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|number| number.parse::<usize>().unwrap()).product()
}

/// Puts one after the other until there is no memory; how many.
fn fill(queue: &ByteQueue, first: u64, len: usize) -> u64 {
    for number in first.. {
        match queue.put(&message(number, len)) {
            Ok(()) => {}
            Err(PutError::NoSpace) => return number - first,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[track_caller]
fn drain(queue: &ByteQueue, expected: impl Iterator<Item = u64>) {
    for expected in expected {
        assert_eq!(number(&queue.get_nowait().unwrap()), expected);
    }
}

fn runs_out(_: &[String]) {
    let whole = free();
    let bounded = Queue::<u64>::new(4).unwrap();
    let queue = ByteQueue::from(longest(3 * MEBI).anonymous::<()>().unwrap());
    let text = PutError::NoSpace.to_string();
    assert!(text.contains("/dev/shm"), "{text}");

    // Short ones, each way of putting; none of the refusals takes or loses anything, and each is prompt.
    let count = fill(&queue, 0, KIBI);
    assert!(count > 6000, "{count}");
    assert!(free() < CHUNK);
    let left = free();
    let (refused, took) = timed(|| {
        let many = [message(1, KIBI), message(2, KIBI)];
        let many = queue.put_many(&many.each_ref().map(Vec::as_slice)).unwrap_err();
        assert!(matches!((many.put, many.error), (0, PutError::NoSpace)));
        let held = queue.producer().unwrap().put(&message(1, KIBI));
        [
            held,
            queue.put_nowait(&message(1, KIBI)),
            queue.put_timeout(&message(1, KIBI), Duration::from_secs(100)),
            queue.put_with(KIBI, |_| panic!("there is nothing to fill")),
            queue.put(&message(1, 3 * MEBI)),
        ]
    });
    assert_prompt(took);
    assert!(refused.iter().all(|refused| matches!(refused, Err(PutError::NoSpace))), "{refused:?}");
    assert_eq!((queue.qsize() as u64, queue.full(), free()), (count, false, left));
    // Others are not concerned.
    bounded.put(&7).unwrap();
    assert_eq!(bounded.get().unwrap(), 7);

    // What a consumer gives back is there for the next put; in a process of its own, with a put that was refused
    // in the middle of a batch.
    let child = fork(|| {
        let queue = ByteQueue::open(queue.name()).unwrap();
        drain(&queue, 0..1000);
        0
    });
    assert_eq!(child.wait(), 0);
    let more: Vec<_> = (count..count + 3000).map(|number| message(number, KIBI)).collect();
    let more: Vec<_> = more.iter().map(Vec::as_slice).collect();
    let partly = queue.put_many(&more).unwrap_err();
    assert!(matches!(partly.error, PutError::NoSpace));
    assert!((500..1100).contains(&partly.put), "{}", partly.put);
    let count = count + partly.put as u64;
    assert_eq!(queue.qsize() as u64, count - 1000);
    drain(&queue, 1000..count);
    assert!(queue.empty() && free() > whole - 2 * CHUNK, "{} of {whole}", free());

    // A long one that does not fit gives back what it had got, and whoever needs less has it.
    let long = ByteQueue::from(longest(7 * MEBI).anonymous::<()>().unwrap());
    queue.put(&message(0, 3 * MEBI)).unwrap();
    let left = free();
    assert!(left > 4 * MEBI, "{left}");
    assert!(matches!(long.put(&message(9, 7 * MEBI)), Err(PutError::NoSpace)));
    assert_eq!(free(), left, "it kept some");
    drop(long);
    queue.put(&message(1, 3 * MEBI)).unwrap();
    let small = QueueOptions::new().capacity(1).max_message(400 * KIBI).anonymous::<u8>();
    drop(small.expect("there is room for a small one"));
    let count = fill(&queue, 2, 100 * KIBI);
    assert!(count > 10, "{count}");
    drain(&queue, 0..2);

    // A failed creation, where there is not even a page, leaves the name free.
    let filler = ByteQueue::from(longest(4000).anonymous::<()>().unwrap());
    fill(&queue, 0, 200 * KIBI);
    fill(&filler, 0, 4000);
    let rest = free();
    fs::write("/dev/shm/rest", vec![1; rest]).unwrap();
    let refused = QueueOptions::new().create::<u8>("refused").unwrap_err();
    assert!(matches!(refused, OpenError::NoSpace { .. }), "{refused:?}");
    fs::remove_file("/dev/shm/rest").unwrap();
    QueueOptions::new().create::<u8>("refused").unwrap();
}

/// What is written has memory in each lap: else a page that cannot be had ends the process with a signal.
#[test]
fn a_lap_later_memory_still_ends_with_an_error() {
    play_with("-o size=2m tmpfs /dev/shm", "unbounded::laps", &[]);
}

fn laps(_: &[String]) {
    // Slots of which a whole number fits into a chunk and into the ring, and such of which it does not.
    for (len, max) in [(1016, 1016), (1016, 8 * KIBI), (1000, 300 * KIBI), (131_064, 300 * KIBI)] {
        let queue = ByteQueue::from(longest(max).anonymous::<()>().unwrap());
        let ring = fs::metadata(object(queue.name())).unwrap().len();
        let mut random = Random::new();
        let mut next = 0;
        // As far as the end of the ring and a little further, in steps that stop now here, now there.
        while next * (len as u64 + 8) < 2 * ring + 200_000 {
            let count = 1 + random.below(10);
            for number in next..next + count {
                queue.put(&message(number, len)).unwrap();
            }
            drain(&queue, next..next + count);
            next += count;
            if next * (len as u64 + 8) % ring < 30 * len as u64 {
                let count = fill(&queue, next, len);
                assert!(count * len as u64 > MEBI as u64, "{count} of {len}");
                drain(&queue, next..next + count);
                next += count;
            }
            assert!(held(&queue) < KEPT, "{}", held(&queue));
        }
    }
}

/// The ring is no longer than the limit allows, and may be full before memory ends.
#[test]
fn under_a_limit_on_file_size_its_ring_is_short() {
    let stage = Stage::new();
    stage.child("unbounded::file_size", &[&stage.name()]).finish();
}

fn file_size(arguments: &[String]) {
    limit(libc::RLIMIT_FSIZE, 4 << 20);
    let refused = longest(2 * MEBI).create::<u8>(&arguments[0]).unwrap_err();
    assert!(matches!(refused, OpenError::InvalidOptions { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("RLIMIT_FSIZE") && text.contains("4194304"), "{text}");
    let queue = ByteQueue::from(longest(100 * KIBI).create::<()>(&arguments[0]).unwrap());
    let mut next = 0;
    for _ in 0..10 {
        let count = fill(&queue, next, 30 * KIBI);
        assert!((80..140).contains(&count), "{count}");
        drain(&queue, next..next + count);
        next += count;
        assert!(held(&queue) < KEPT, "{}", held(&queue));
        // The next lap begins elsewhere.
        queue.put(&message(next, 7 * KIBI)).unwrap();
        drain(&queue, [next].into_iter());
    }
}

#[test]
fn too_little_address_space_is_an_error_that_names_it() {
    let stage = Stage::new();
    stage.child("unbounded::few_addresses", &[&stage.name()]).finish();
}

fn few_addresses(arguments: &[String]) {
    // The watchdog's thread takes some when it begins.
    nap(ms(50));
    let queue = QueueOptions::new().create::<u8>(&arguments[0]).unwrap();
    let other = format!("{}other", arguments[0]);
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, pages * 4096 + (12 << 20));
    let refusals = [QueueOptions::new().create::<u8>(&other), Queue::open(queue.name()), Queue::unbounded()];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("RLIMIT_AS"), "{refused}");
    }
    assert!(matches!(Queue::<u8>::open(&other), Err(OpenError::NotFound { .. })));
    queue.put(&7).unwrap();
    assert_eq!(queue.get().unwrap(), 7);
    Queue::<u8>::create(&other, 4).unwrap();
}

// ---------------------------------------------------------------------------------------------------
// Deaths

/// Plays the role with a name and a seed.
fn play_at_random(role: &str) {
    let stage = Stage::new();
    let seed = Random::new().next().to_string();
    let said = stage.child(role, &[&stage.name(), &seed]).finish();
    println!("{said:?}");
}

/// Producers and consumers killed at random while the queue grows and shrinks: each message that a put returned
/// for comes once, or was in the hands of a consumer that was killed.
#[test]
fn killed_while_it_grows_and_shrinks_nobody_loses_more_than_what_was_in_hand() {
    play_at_random("unbounded::rages");
}

fn rages(arguments: &[String]) {
    const LEN: usize = 150 * KIBI;
    let mut random = Random::from_seed(arguments[1].parse().unwrap());
    let queue = ByteQueue::from(longest(LEN).create::<()>(&arguments[0]).unwrap());
    let mut deaths = [0, 0];
    // How often each number was got, and the numbers whose puts returned.
    let mut got = BTreeMap::<u64, u32>::new();
    let mut returned = Vec::new();
    for round in 0..60_u64 {
        let put = Record::new();
        let taken = Record::new();
        let producer = fork(|| {
            let queue = ByteQueue::open(queue.name()).unwrap();
            for number in 1.. {
                queue.put(&message(round * 100_000 + number, LEN)).unwrap();
                put.set(number - 1, number);
            }
            0
        });
        let consumer = fork(|| {
            let queue = ByteQueue::open(queue.name()).unwrap();
            for place in 0.. {
                taken.set(place, number(&queue.get().unwrap()) + 1);
            }
            0
        });
        nap(ms(random.below(12)) + Duration::from_micros(random.below(1000)));
        let first = random.below(2) == 0;
        let victims = if first { [&producer, &consumer] } else { [&consumer, &producer] };
        victims[0].kill();
        nap(Duration::from_micros(random.below(500)));
        victims[1].kill();
        deaths[0] += 1;
        deaths[1] += 1;
        returned.extend(put.numbers().map(|number| round * 100_000 + number));
        for number in taken.numbers() {
            *got.entry(number - 1).or_default() += 1;
        }
        // The survivor is never kept waiting, and some of it is left for the next round.
        let (put, took) =
            timed(|| queue.put_timeout(&message(round * 100_000, LEN), Duration::from_secs(10)));
        put.unwrap();
        returned.push(round * 100_000);
        assert_prompt(took);
        while queue.qsize() as u64 > random.below(6) {
            *got.entry(number(&queue.get_timeout(Duration::from_secs(10)).unwrap())).or_default() += 1;
        }
    }
    while !queue.empty() {
        *got.entry(number(&queue.get().unwrap())).or_default() += 1;
    }
    assert!(got.values().all(|count| *count == 1), "some came twice");
    let lost = returned.iter().filter(|number| !got.contains_key(number)).count();
    assert!(lost <= deaths[1], "{lost} are lost");
    let cut_off = got.keys().filter(|number| !returned.contains(number)).count();
    assert!(cut_off <= deaths[0], "{cut_off} of puts that never returned");
    assert!(held(&queue) < 2 * MEBI, "{}", held(&queue));
    say(&format!("{} put, {lost} lost with their consumers, {:?}", returned.len(), queue.stats()));
}

/// The backlog of short messages grows beyond the basin and shrinks again many times, while producers and consumers, one
/// of each at a time, are killed at random.
#[test]
fn killed_while_messages_leave_the_basin_and_come_back_nobody_loses_more_than_what_was_in_hand() {
    play_at_random("unbounded::swings");
}

/// How many messages go in or out in one call, at most.
const BATCH: usize = 8;

fn swings(arguments: &[String]) {
    let mut random = Random::from_seed(arguments[1].parse().unwrap());
    let queue = ByteQueue::from(longest(4 * KIBI).create::<()>(&arguments[0]).unwrap());
    let end = Instant::now() + ms(3000);
    // How many puts of each producer have returned; how often the tail left the basin.
    let (returned, left) = (Record::new(), Record::new());
    let mut taken: Vec<Record> = Vec::new();
    let (mut producers, mut deaths) = (0, [0, 0]);
    let (mut producer, mut consumer) = (None, None);
    while Instant::now() < end {
        let seed = random.next();
        let producing = producer.take().unwrap_or_else(|| {
            producers += 1;
            fork(|| swing_out(&arguments[0], producers, seed, &returned, &left))
        });
        let consuming = consumer.take().unwrap_or_else(|| {
            taken.push(Record::new());
            fork(|| swing_in(&arguments[0], seed, &taken[taken.len() - 1]))
        });
        nap(ms(random.below(40)) + Duration::from_micros(random.below(1000)));
        if random.below(2) == 0 {
            producing.kill();
            deaths[0] += 1;
        } else {
            producer = Some(producing);
        }
        if random.below(2) == 0 {
            consuming.kill();
            deaths[1] += 1;
        } else {
            consumer = Some(consuming);
        }
    }
    for (side, child) in [producer, consumer].into_iter().enumerate() {
        deaths[side] += child.map_or(0, |child| {
            child.kill();
            1
        });
    }
    let mut got: Vec<_> = taken.iter().flat_map(Record::numbers).map(|number| number - 1).collect();
    let pending = queue.qsize();
    let rest = (0..pending).map(|_| number(&queue.get_timeout(Duration::from_secs(10)).unwrap()));
    got.extend(rest);
    assert!(queue.empty());
    let (mut newest, mut lost, mut cut_off) = (vec![0; usize::try_from(producers).unwrap() + 1], 0, 0);
    for number in &got {
        let newest = &mut newest[(number >> 32) as usize];
        let number = number & 0xffff_ffff;
        assert!(number > *newest, "{number} of a producer came after {newest}");
        lost += number - *newest - 1;
        *newest = number;
    }
    for (producer, newest) in (1..).zip(&newest[1..]) {
        let returned = returned.get(producer);
        lost += returned.saturating_sub(*newest);
        cut_off += newest.saturating_sub(returned);
    }
    let most = |deaths: u64| deaths * BATCH as u64;
    assert!(lost <= most(deaths[1]), "{lost} are lost with {deaths:?}");
    assert!(cut_off <= most(deaths[0]), "{cut_off} of puts that never returned with {deaths:?}");
    assert!(held(&queue) < 2 * MEBI, "{}", held(&queue));
    let (stats, left) = (queue.stats(), left.get(0));
    let text = format!("{deaths:?} died, {left} times out of the basin, {lost} lost in hand: {stats:?}");
    assert!(left > 10 && stats.put_bytes > 30 * MEBI as u64, "{text}");
    say(&text);
}

/// Puts without end: until so and so much is pending, and again when nearly nothing is.
fn swing_out(name: &str, producer: u64, seed: u64, returned: &Record, left: &Record) -> i32 {
    let mut random = Random::from_seed(seed);
    let queue = ByteQueue::open(name).unwrap();
    let file = fs::File::open(object(name)).unwrap();
    let mut was_in_basin = true;
    let mut next = 1;
    loop {
        let most = random.index(2000);
        while queue.qsize() < most {
            let count = 1 + random.index(BATCH);
            let messages: Vec<_> = (next..next + count as u64)
                .map(|number| message(producer << 32 | number, random.index(4 * KIBI)))
                .collect();
            let many: Vec<_> = messages.iter().map(Vec::as_slice).collect();
            match random.below(4) {
                0 => queue.put_many(&many).unwrap(),
                1 => queue.producer().unwrap().put_many(&many).unwrap(),
                2 => {
                    let producer = queue.producer().unwrap();
                    for message in &many {
                        producer.put(message).unwrap();
                    }
                }
                _ => many.iter().for_each(|message| queue.put(message).unwrap()),
            }
            next += count as u64;
            returned.set(producer, next - 1);
            let mut tail = [0; 8];
            file.read_exact_at(&mut tail, TAIL).unwrap();
            let is_in_basin = (u64::from_ne_bytes(tail) & 0x7fff_ffff) * 8 < MEBI as u64;
            left.set(0, left.get(0) + u64::from(was_in_basin && !is_in_basin));
            was_in_basin = is_in_basin;
        }
        let least = random.index(20);
        while queue.qsize() > least {
            nap(Duration::from_micros(random.below(100)));
        }
    }
}

/// Gets without end, now faster, now slower.
fn swing_in(name: &str, seed: u64, taken: &Record) -> i32 {
    let mut random = Random::from_seed(seed);
    let queue = ByteQueue::open(name).unwrap();
    let mut place = 0;
    let mut keep = |number: u64| {
        taken.set(place, number + 1);
        place += 1;
    };
    loop {
        for _ in 0..random.below(300) {
            match random.below(4) {
                0 => queue.get_many(BATCH).unwrap().iter().for_each(|message| keep(number(message))),
                1 => {
                    let consumer = queue.consumer().unwrap();
                    for _ in 0..BATCH {
                        keep(number(&consumer.get().unwrap()));
                    }
                }
                2 => keep(queue.get_with(number).unwrap()),
                _ => keep(number(&queue.get().unwrap())),
            }
        }
        nap(Duration::from_micros(random.below(1500)));
    }
}

/// A producer that died in the middle of a long batch behind the full basin: nobody may come there for long.
#[test]
fn memory_of_a_batch_that_a_dead_producer_did_not_commit_is_given_back_by_the_next() {
    const LEN: usize = 64 * KIBI;
    let stage = Stage::new();
    let mut came_in_time = false;
    for attempt in 0..10 {
        let name = format!("{}{attempt}", stage.name());
        let queue = ByteQueue::from(longest(LEN).create::<()>(&name).unwrap());
        while held(&queue) < KEPT - 2 * CHUNK {
            queue.put(&message(0, LEN)).unwrap();
        }
        let pending = queue.qsize();
        let many = message(1, LEN);
        let child = fork(|| {
            ByteQueue::open(&name).unwrap().put_many(&vec![&many[..]; 1500]).unwrap();
            0
        });
        until("it has begun", || held(&queue) > 6 * MEBI);
        child.kill();
        if queue.qsize() == pending {
            came_in_time = true;
            assert!(held(&queue) > 6 * MEBI);
            queue.put(&message(2, LEN)).unwrap();
            assert!(held(&queue) < KEPT + CHUNK, "{}", held(&queue));
            drain(&queue, std::iter::repeat_n(0, pending).chain([2]));
        }
    }
    assert!(came_in_time, "each batch was in before its producer died");
}

/// A consumer that died after it had taken a message and before it had given the memory back: the next one does.
#[test]
fn memory_that_a_dead_consumer_did_not_give_back_is_given_back_by_the_next() {
    let stage = Stage::new();
    let queue = ByteQueue::from(longest(MEBI).create::<()>(&stage.name()).unwrap());
    for number in 0..8 {
        queue.put(&message(number, MEBI)).unwrap();
    }
    // As it would have left it: all but the last message taken, and nothing freed.
    let file = fs::OpenOptions::new().read(true).write(true).open(object(queue.name())).unwrap();
    let word = |offset| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, offset).unwrap();
        u64::from_ne_bytes(word)
    };
    let slot = (MEBI + 8) as u64 / 8;
    assert_eq!(word(TAIL), (8 << 32) + 8 * slot);
    file.write_all_at(&((7 << 32) + 7 * slot).to_ne_bytes(), HEAD).unwrap();
    assert!(held(&queue) > 8 * MEBI);
    assert_eq!(number(&queue.get().unwrap()), 7);
    assert!(held(&queue) < 2 * CHUNK, "{}", held(&queue));
}

// ---------------------------------------------------------------------------------------------------
// Any bytes

/// Cursors and all other words of the ring set to anything between calls: errors or ordinary results, in time.
#[test]
fn any_words_whatever_are_an_error_or_an_ordinary_result() {
    /// The words of the ends, without their locks.
    const WORDS: [std::ops::Range<u64>; 2] = [1032..1280, 1288..1536];
    let stage = Stage::new();
    let mut random = Random::new();
    let name = stage.name();
    let queue = ByteQueue::from(longest(CHUNK).create::<()>(&name).unwrap());
    let file = fs::OpenOptions::new().read(true).write(true).open(object(&name)).unwrap();
    let mut errors = 0;
    for _ in 0..2000 {
        let place = WORDS[random.index(2)].clone().step_by(8).nth(random.index(31)).unwrap();
        let place = if random.below(2) == 0 { [HEAD, TAIL, 1056, 1312][random.index(4)] } else { place };
        let word = match random.below(4) {
            0 => random.next(),
            1 => random.below(1 << 20),
            2 => random.below(8) << 32 | random.below(1 << 17),
            _ => 0,
        };
        file.write_all_at(&word.to_ne_bytes(), place).unwrap();
        let message = vec![1; random.index(CHUNK)];
        let (calls, took) = timed(|| {
            let many = [&message[..], &message, &message];
            let put = [
                queue.put_nowait(&message),
                queue.put_timeout(&message, ms(1)),
                queue.put_many_timeout(&many, ms(1)).map_err(|partly| partly.error),
            ];
            for error in put.into_iter().filter_map(Result::err) {
                errors += 1;
                let known = matches!(error, PutError::Corrupt { .. } | PutError::NoSpace | PutError::Closed);
                assert!(known, "{error:?}");
            }
            let got = [
                queue.get_nowait().map(drop),
                queue.get_many_timeout(3, ms(1)).map(drop),
                queue.get_with_timeout(ms(1), |bytes| assert!(bytes.len() <= CHUNK)),
            ];
            for error in got.into_iter().filter_map(Result::err) {
                errors += 1;
                assert!(matches!(error, GetError::Corrupt { .. } | GetError::Empty), "{error:?}");
            }
            _ = (queue.qsize(), queue.full(), queue.stats(), shmq::inspect(&name).unwrap());
            let peeked = shmq::peek(&name, 2);
            assert!(matches!(peeked, Ok(_) | Err(OpenError::NotShmq { .. })), "{peeked:?}");
        });
        () = calls;
        assert_prompt(took);
    }
    assert!(errors > 100, "{errors}");
}
