//! Calls on a queue without a limit, killed and stopped at every instruction while it grows and shrinks.
//!
//! The queue is made so that the next message put lies over the end of a chunk: its put has to allocate the next
//! chunk, and whoever has got it has left the first one, which is freed.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use shmq::{ByteQueue, QueueOptions};

use crate::harness::{Role, exists, object};
use crate::instants_calls::{
    Call, Committed, Refused, Shmq, Side, Subject, consume, get_many, get_with, produce, put_many, put_with,
    try_at_every_instant, wrongs,
};
use crate::instants_court::Trial;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("instants_sparse::killed", |arguments| try_at_every_instant::<Sparse>(CALLS, Trial::Kill, arguments)),
    ("instants_sparse::stopped", |arguments| try_at_every_instant::<Sparse>(CALLS, Trial::Stop, arguments)),
];

const CHUNK: usize = 256 << 10;
const PREFIX: usize = 8;
/// Where the ring begins.
const RING: usize = 4096;

const PUT: Call<Sparse> = Call {
    name: "",
    before: &[],
    orphaned: None,
    asleep: None,
    run: |queue| queue.put(10, Duration::MAX).map(|()| Vec::new()),
    side: Some(Side::Put),
    blocks: false,
    puts: &[10],
    progress: &[(0, 0), (1, 0)],
};
const GET: Call<Sparse> = Call {
    before: &[1, 2],
    run: |queue| queue.get(Duration::MAX).map(|got| vec![got]),
    side: Some(Side::Get),
    puts: &[],
    progress: &[(0, 0), (0, 1)],
    ..PUT
};

const CALLS: &[Call<Sparse>] = &[
    Call { name: "put that grows", ..PUT },
    Call { name: "put that grows and wakes a sleeper", asleep: Some(Side::Get), ..PUT },
    Call { name: "put that takes over and grows", orphaned: Some(Side::Put), ..PUT },
    Call { name: "put_with that grows", run: |queue| put_with(&queue.0), ..PUT },
    Call {
        name: "put_many that grows",
        run: |queue| put_many(&queue.0),
        puts: &[10, 11, 12],
        progress: &[(0, 0), (3, 0)],
        ..PUT
    },
    Call {
        name: "producer that grows",
        run: |queue| produce(&queue.0),
        puts: &[10, 11],
        progress: &[(0, 0), (1, 0), (2, 0)],
        ..PUT
    },
    Call { name: "get that shrinks", ..GET },
    Call { name: "get of the last that shrinks", before: &[1], ..GET },
    Call { name: "get that takes over and shrinks", orphaned: Some(Side::Get), ..GET },
    Call { name: "get that waits for a message and shrinks", before: &[], blocks: true, ..GET },
    Call { name: "get_with that shrinks", run: |queue| get_with(&queue.0), ..GET },
    Call {
        name: "get_many that shrinks",
        run: |queue| get_many(&queue.0),
        progress: &[(0, 0), (0, 2)],
        ..GET
    },
    Call {
        name: "consumer that shrinks",
        run: |queue| consume(&queue.0),
        progress: &[(0, 0), (0, 1), (0, 2)],
        ..GET
    },
];

/// One whose cursors stand just before the end of the first chunk, after one message that is not counted.
struct Sparse(Shmq);

impl Subject for Sparse {
    fn make(name: &str) -> Self {
        let options = QueueOptions::new().max_message(CHUNK).clone();
        let queue = ByteQueue::from(options.create::<()>(name).expect("the name is free"));
        queue.put(&vec![0; CHUNK - 2 * PREFIX]).expect("there is memory");
        queue.get().expect("there is one");
        Self(Shmq::of(queue))
    }

    fn attach(&self) -> Self {
        Self(self.0.attach())
    }

    fn put(&self, number: u64, timeout: Duration) -> Result<(), Refused> {
        self.0.put(number, timeout)
    }

    fn get(&self, timeout: Duration) -> Result<u64, Refused> {
        self.0.get(timeout)
    }

    fn close(&self) {
        self.0.close();
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn committed(&self) -> Committed {
        let Committed { put, got } = self.0.committed();
        Committed { put: put - 1, got: got - 1 }
    }

    fn is_owned(&self, side: Side) -> bool {
        self.0.is_owned(side)
    }

    fn look(&self, bytes: &mut Vec<u8>) {
        // All words, and the end of the first chunk with what is put there.
        bytes.resize(RING + 256, 0);
        let (words, ring) = bytes.split_at_mut(RING);
        let file = &self.0.file;
        file.read_exact_at(words, 0).expect("the segment can be read");
        file.read_exact_at(ring, (RING + CHUNK - 64) as u64).expect("the ring can be read");
    }

    fn agrees(&self, deaths: u64) {
        let Committed { put, got } = self.committed();
        let queue = &self.0.queue;
        let stats = queue.stats();
        assert_eq!((queue.qsize() as u64, queue.empty(), queue.full()), (put - got, put == got, false));
        assert!(stats.recoveries <= deaths, "{deaths} died: {stats:?}");
        assert_eq!(stats.attached, 1, "somebody else");
        // The page of the words, the chunk that both cursors are in, and the one that was allocated for a message
        // that was not put, because its producer died or the queue was closed.
        let held = self.0.file.metadata().expect("it is open").blocks() * 512;
        assert!(put == got && held <= (RING + 2 * CHUNK) as u64, "{held} bytes are held");
    }

    fn end(self) {
        let name = self.0.queue.name().to_owned();
        drop(self);
        assert!(!exists(&name) && !object(&name).exists(), "it is still there");
    }
}

/// Has every call tried that works on this end.
fn try_all(role: &str, side: Side) {
    let wrong = wrongs(role, CALLS, Some(side));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn killed_at_any_instruction_of_a_put_that_grows_a_process_harms_nobody() {
    try_all("instants_sparse::killed", Side::Put);
}

#[test]
fn killed_at_any_instruction_of_a_get_that_shrinks_a_process_harms_nobody() {
    try_all("instants_sparse::killed", Side::Get);
}

#[test]
fn stopped_at_any_instruction_of_a_put_that_grows_a_process_delays_nobody_beyond_the_deadline() {
    try_all("instants_sparse::stopped", Side::Put);
}

#[test]
fn stopped_at_any_instruction_of_a_get_that_shrinks_a_process_delays_nobody_beyond_the_deadline() {
    try_all("instants_sparse::stopped", Side::Get);
}
