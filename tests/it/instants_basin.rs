//! Calls on a queue without a limit, killed and stopped at every instruction while they leave its basin, the first
//! mebibyte, which keeps its memory, and come back to it.
//!
//! A put leaves the basin when that is full, and comes back to it when the head has left it; a get follows. The slots of
//! the longest messages are a quarter of the basin, so that three of them fill it: whether there is room is asked for
//! the longest message, and for a word of where the next one is.

use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use shmq::{ByteQueue, QueueOptions};

use crate::harness::{Role, exists, object};
use crate::instants_calls::{
    Call, Committed, Refused, Shmq, Side, Subject, consume, get_many, get_with, message, produce, put_many,
    put_with, refused_put, try_at_every_instant, wrongs,
};
use crate::instants_court::Trial;

/// The roles, two for the calls on queues in each state.
macro_rules! roles {
    ($($state:ident $calls:ident $killed:literal $stopped:literal,)*) => {
        pub(crate) const ROLES: &[(&str, Role)] = &[$(
            ($killed, |arguments| try_at_every_instant::<Basin<$state>>($calls, Trial::Kill, arguments)),
            ($stopped, |arguments| try_at_every_instant::<Basin<$state>>($calls, Trial::Stop, arguments)),
        )*];

        /// Has every call tried that works on this end.
        fn try_all(trial: Trial, side: Side) {
            let mut wrong = Vec::new();
            $({
                let role = if trial == Trial::Kill { $killed } else { $stopped };
                wrong.extend(wrongs(role, $calls, Some(side)));
            })*
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    };
}

roles! {
    Full FROM_FULL "instants_basin::full_killed" "instants_basin::full_stopped",
    Gone FROM_GONE "instants_basin::gone_killed" "instants_basin::gone_stopped",
    Edge FROM_EDGE "instants_basin::edge_killed" "instants_basin::edge_stopped",
    Left FROM_LEFT "instants_basin::left_killed" "instants_basin::left_stopped",
}

const CHUNK: usize = 256 << 10;
const BASIN: usize = 4 * CHUNK;
const PREFIX: usize = 8;
/// The longest message that such a queue may have.
const LONGEST: usize = BASIN / 4 - PREFIX;
/// Where in the ring messages go that the basin has no room for.
const ORIGIN: usize = BASIN + CHUNK;
/// Where the ring begins.
const RING: usize = 4096;
/// Messages with numbers up to this one are of the greatest length.
const LAST_LONG: u64 = 4;

fn put<S: State>(queue: &Basin<S>) -> Result<Vec<u64>, Refused> {
    queue.put(10, Duration::MAX).map(|()| Vec::new())
}

fn get<S: State>(queue: &Basin<S>) -> Result<Vec<u64>, Refused> {
    queue.get(Duration::MAX).map(|got| vec![got])
}

const fn a_put<S: State>(name: &'static str) -> Call<Basin<S>> {
    Call {
        name,
        before: &[],
        orphaned: None,
        asleep: None,
        run: put,
        side: Some(Side::Put),
        blocks: false,
        puts: &[10],
        progress: &[(0, 0), (1, 0)],
    }
}

const fn a_get<S: State>(name: &'static str, before: &'static [u64]) -> Call<Basin<S>> {
    Call { before, run: get, side: Some(Side::Get), puts: &[], progress: &[(0, 0), (0, 1)], ..a_put(name) }
}

/// Of a batch that goes in as one run.
const BATCH: (&[u64], &[(usize, usize)]) = (&[10, 11, 12], &[(0, 0), (3, 0)]);
/// Of a producer that is held for two messages.
const HELD: (&[u64], &[(usize, usize)]) = (&[10, 11], &[(0, 0), (1, 0), (2, 0)]);

/// Nothing is in the queue: with three long messages before the call the basin is full.
struct Full;

const FULL: &[u64] = &[1, 2, 3];

const FROM_FULL: &[Call<Basin<Full>>] = &[
    Call { before: FULL, ..a_put("put that leaves the basin") },
    Call { before: FULL, orphaned: Some(Side::Put), ..a_put("put that takes over and leaves the basin") },
    Call { before: FULL, run: |queue| put_with(&queue.queue), ..a_put("put_with that leaves the basin") },
    Call {
        before: FULL,
        run: |queue| put_many(&queue.queue),
        puts: BATCH.0,
        progress: BATCH.1,
        ..a_put("put_many that leaves the basin")
    },
    Call {
        before: FULL,
        run: |queue| produce(&queue.queue),
        puts: HELD.0,
        progress: HELD.1,
        ..a_put("producer that leaves the basin")
    },
    Call {
        before: FULL,
        orphaned: Some(Side::Put),
        run: |queue| produce(&queue.queue),
        puts: HELD.0,
        progress: HELD.1,
        ..a_put("producer that takes over and leaves the basin")
    },
];

impl State for Full {
    fn make(_: &ByteQueue) -> u64 {
        0
    }
}

/// The basin has been filled, and what was put behind it since is all that is in the queue: the head is where the basin
/// was left.
struct Gone;

const FROM_GONE: &[Call<Basin<Gone>>] = &[
    a_get("get out of the basin", &[11, 12]),
    a_get("get of the last, out of the basin", &[11]),
    Call { orphaned: Some(Side::Get), ..a_get("get that takes over, out of the basin", &[11, 12]) },
    Call { run: |queue| get_with(&queue.queue), ..a_get("get_with out of the basin", &[11, 12]) },
];

impl State for Gone {
    fn make(queue: &ByteQueue) -> u64 {
        fill(queue, 0)
    }

    fn ready(queue: &ByteQueue) {
        empty(queue, 3);
    }
}

/// Likewise, with a short message in the basin before that.
struct Edge;

const FROM_EDGE: &[Call<Basin<Edge>>] = &[
    Call {
        run: |queue| get_many(&queue.queue),
        progress: &[(0, 0), (0, 3)],
        ..a_get("get_many out of the basin", &[11, 12, 13])
    },
    Call {
        run: |queue| consume(&queue.queue),
        progress: &[(0, 0), (0, 1), (0, 2)],
        ..a_get("consumer that goes out of the basin", &[11, 12, 13])
    },
    Call {
        orphaned: Some(Side::Get),
        run: |queue| consume(&queue.queue),
        progress: &[(0, 0), (0, 1), (0, 2)],
        ..a_get("consumer that takes over and goes out of the basin", &[11, 12, 13])
    },
];

impl State for Edge {
    fn make(queue: &ByteQueue) -> u64 {
        fill(queue, PREFIX + 16)
    }

    fn ready(queue: &ByteQueue) {
        empty(queue, 3);
    }
}

/// Nothing is in the queue, and both cursors are behind the basin, just before the end of a chunk: the next put comes
/// back to the basin, and who gets that has left the chunk.
struct Left;

/// They come back, fill the basin, and leave it again.
const AROUND: &[u64] = &[11, 1, 2, 3, 12];

const FROM_LEFT: &[Call<Basin<Left>>] = &[
    a_put("put back into the basin"),
    Call { asleep: Some(Side::Get), ..a_put("put back into the basin that wakes a sleeper") },
    Call { orphaned: Some(Side::Put), ..a_put("put that takes over, back into the basin") },
    Call { run: |queue| put_with(&queue.queue), ..a_put("put_with back into the basin") },
    Call {
        run: |queue| put_many(&queue.queue),
        puts: BATCH.0,
        progress: BATCH.1,
        ..a_put("put_many back into the basin")
    },
    Call {
        run: |queue| produce(&queue.queue),
        puts: HELD.0,
        progress: HELD.1,
        ..a_put("producer that goes back into the basin")
    },
    // The head has not come back to it yet.
    Call { before: &[11, 1, 2, 3], ..a_put("put that leaves the basin ahead of the head") },
    a_get("get back into the basin", &[11, 12]),
    a_get("get of the last, back into the basin", &[11]),
    Call { blocks: true, ..a_get("get that waits for a message, back into the basin", &[]) },
    Call { orphaned: Some(Side::Get), ..a_get("get that takes over, back into the basin", &[11, 12]) },
    Call { run: |queue| get_with(&queue.queue), ..a_get("get_with back into the basin", &[11, 12]) },
    Call {
        run: |queue| get_many(&queue.queue),
        progress: &[(0, 0), (0, 2)],
        ..a_get("get_many back into the basin", &[11, 12])
    },
    Call {
        run: |queue| consume(&queue.queue),
        progress: &[(0, 0), (0, 1), (0, 2)],
        ..a_get("consumer that goes back into the basin", &[11, 12])
    },
    a_get("get back into a basin that the tail has left again", AROUND),
    Call {
        orphaned: Some(Side::Get),
        ..a_get("get that takes over, back into a basin that the tail has left again", AROUND)
    },
];

impl State for Left {
    fn make(queue: &ByteQueue) -> u64 {
        let count = fill(queue, 0);
        // The word of where the next message is takes the last 8 bytes of the chunk.
        queue.put(&vec![0; CHUNK - 2 * PREFIX]).expect("there is memory");
        empty(queue, count + 1);
        count + 1
    }
}

/// Puts three messages, and says how many that is. Behind them there is room for a message in the basin if they are
/// `short`er than the longest by anything.
fn fill(queue: &ByteQueue, short: usize) -> u64 {
    for len in [LONGEST, LONGEST, LONGEST - short] {
        queue.put(&vec![0; len]).expect("there is memory");
    }
    3
}

/// Gets as many.
fn empty(queue: &ByteQueue, count: u64) {
    for _ in 0..count {
        queue.get().expect("it was put");
    }
}

/// What a queue has been through before the messages of the call are in it, and after that.
trait State {
    /// How many messages were put and got for it, which are not counted.
    fn make(queue: &ByteQueue) -> u64;

    fn ready(_: &ByteQueue) {}
}

struct Basin<S> {
    queue: Shmq,
    uncounted: u64,
    state: PhantomData<S>,
}

impl<S: State> Subject for Basin<S> {
    fn make(name: &str) -> Self {
        let options = QueueOptions::new().max_message(LONGEST).clone();
        let queue = ByteQueue::from(options.create::<()>(name).expect("the name is free"));
        let uncounted = S::make(&queue);
        Self { queue: Shmq::of(queue), uncounted, state: PhantomData }
    }

    fn ready(&self) {
        S::ready(&self.queue.queue);
    }

    fn attach(&self) -> Self {
        Self { queue: self.queue.attach(), ..*self }
    }

    fn put(&self, number: u64, timeout: Duration) -> Result<(), Refused> {
        let mut message = message(number);
        if number <= LAST_LONG {
            message = message.repeat(LONGEST / 16);
            message.extend(number.to_ne_bytes());
            assert_eq!(message.len(), LONGEST);
        }
        self.queue.queue.put_timeout(&message, timeout).map_err(|error| refused_put(&error))
    }

    fn get(&self, timeout: Duration) -> Result<u64, Refused> {
        self.queue.get(timeout)
    }

    fn close(&self) {
        self.queue.close();
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn committed(&self) -> Committed {
        let Committed { put, got } = self.queue.committed();
        Committed { put: put - self.uncounted, got: got - self.uncounted }
    }

    fn is_owned(&self, side: Side) -> bool {
        self.queue.is_owned(side)
    }

    fn look(&self, bytes: &mut Vec<u8>) {
        const PART: usize = 64;
        // Where words and short messages are put: where the basin is left, where it begins, and behind it.
        const PARTS: [usize; 5] =
            [3 * CHUNK - 24, 0, ORIGIN, ORIGIN + CHUNK - PREFIX, 3 * CHUNK + PREFIX + 16];
        // With all words of the ends.
        bytes.resize(RING + PARTS.len() * PART, 0);
        let (words, ring) = bytes.split_at_mut(RING);
        let file = &self.queue.file;
        file.read_exact_at(words, 0).expect("the segment can be read");
        for (part, offset) in ring.chunks_mut(PART).zip(PARTS) {
            file.read_exact_at(part, (RING + offset) as u64).expect("the ring can be read");
        }
    }

    fn agrees(&self, deaths: u64) {
        let Committed { put, got } = self.committed();
        let queue = &self.queue.queue;
        let stats = queue.stats();
        assert_eq!((queue.qsize() as u64, queue.empty(), queue.full()), (put - got, put == got, false));
        assert!(stats.recoveries <= deaths, "{deaths} died: {stats:?}");
        assert_eq!(stats.attached, 1, "somebody else");
        // The page of the words, the basin and the end of its last slot, the chunk that messages come to next behind
        // it, and one that was allocated for a message that was not put.
        let held = self.queue.file.metadata().expect("it is open").blocks() * 512;
        let most = (RING + ORIGIN + 2 * CHUNK) as u64;
        assert!(put == got && held <= most && most < 2 << 20, "{held} bytes are held");
    }

    fn end(self) {
        let name = self.queue.queue.name().to_owned();
        drop(self);
        assert!(!exists(&name) && !object(&name).exists(), "it is still there");
    }
}

#[test]
fn killed_at_any_instruction_of_a_put_that_leaves_the_basin_or_comes_back_a_process_harms_nobody() {
    try_all(Trial::Kill, Side::Put);
}

#[test]
fn killed_at_any_instruction_of_a_get_that_leaves_the_basin_or_comes_back_a_process_harms_nobody() {
    try_all(Trial::Kill, Side::Get);
}

#[test]
fn stopped_at_any_instruction_of_a_put_that_leaves_the_basin_or_comes_back_a_process_delays_nobody_for_long()
{
    try_all(Trial::Stop, Side::Put);
}

#[test]
fn stopped_at_any_instruction_of_a_get_that_leaves_the_basin_or_comes_back_a_process_delays_nobody_for_long()
{
    try_all(Trial::Stop, Side::Get);
}
