//! What each call costs where nobody else is there, also by how many messages wait.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, criterion_group};
use shmq::{ByteQueue, Queue};
use shmq_benches::local::{BareLocks, Deep, DeepQueue, time_pairs};
use shmq_benches::{BATCH, CONTENDERS, Payload, Reading, SpinningRing, play_role};

const MESSAGE: [u8; 64] = [7; 64];
const CAPACITY: usize = 1024;

/// A queue that is half full: neither a put nor a get has to wait.
fn half_full() -> ByteQueue {
    let queue = ByteQueue::new(CAPACITY).expect("a queue");
    for _ in 0..CAPACITY / 2 {
        queue.put(&MESSAGE).expect("room");
    }
    queue
}

/// Each pair of calls leaves the queue as it was.
fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put and get, 64 B, one process");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let queue = half_full();
    let mut got = [0; 64];
    let long = Duration::from_mins(1);
    group.bench_function("put, get_into", |bencher| {
        bencher.iter(|| {
            queue.put(black_box(&MESSAGE)).expect("room");
            queue.get_into(&mut got).expect("a message")
        });
    });
    group.bench_function("put, get", |bencher| {
        bencher.iter(|| {
            queue.put(black_box(&MESSAGE)).expect("room");
            queue.get().expect("a message")
        });
    });
    group.bench_function("put_nowait, get_nowait", |bencher| {
        bencher.iter(|| {
            queue.put_nowait(black_box(&MESSAGE)).expect("room");
            queue.get_nowait().expect("a message")
        });
    });
    group.bench_function("put_timeout, get_timeout", |bencher| {
        bencher.iter(|| {
            queue.put_timeout(black_box(&MESSAGE), long).expect("room");
            queue.get_timeout(long).expect("a message")
        });
    });
    group.bench_function("put_with, get_with", |bencher| {
        bencher.iter(|| {
            queue.put_with(64, |bytes| bytes.copy_from_slice(black_box(&MESSAGE))).expect("room");
            queue.get_with(|bytes| got.copy_from_slice(bytes)).expect("a message");
        });
    });
    let batch = [MESSAGE.as_slice(); BATCH];
    group.bench_function("put_many, get_many of 64", |bencher| {
        bencher.iter(|| {
            queue.put_many(black_box(&batch)).expect("room");
            queue.get_many(BATCH).expect("messages")
        });
    });
    group.bench_function("exclusive ends: put, get_into", |bencher| {
        let (producer, consumer) = (queue.producer().expect("free"), queue.consumer().expect("free"));
        bencher.iter(|| {
            producer.put(black_box(&MESSAGE)).expect("room");
            consumer.get_into(&mut got).expect("a message")
        });
    });
    let typed = Queue::<Reading>::new(CAPACITY).expect("a queue");
    let reading = Reading::blank();
    group.bench_function("typed: put, get", |bencher| {
        bencher.iter(|| {
            typed.put(black_box(&reading)).expect("room");
            typed.get().expect("a message")
        });
    });
    group.bench_function("limit: two locks and a copy", |bencher| {
        let locks = BareLocks::new().expect("shared memory");
        bencher
            .iter_custom(|count| time_pairs(count, |put, got| locks.put_and_get(put, got)).expect("copies"));
    });
    group.finish();
}

fn others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("other calls, one process");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let queue = half_full();
    let empty = ByteQueue::new(CAPACITY).expect("a queue");
    group.bench_function("qsize", |bencher| bencher.iter(|| queue.qsize()));
    group.bench_function("empty", |bencher| bencher.iter(|| queue.empty()));
    group.bench_function("full", |bencher| bencher.iter(|| queue.full()));
    group.bench_function("is_closed", |bencher| bencher.iter(|| queue.is_closed()));
    group.bench_function("stats", |bencher| bencher.iter(|| queue.stats()));
    group.bench_function("clone", |bencher| bencher.iter(|| queue.clone()));
    group.bench_function("get_nowait of an empty queue", |bencher| {
        bencher.iter(|| empty.get_nowait().is_err());
    });
    group.bench_function("producer and its drop", |bencher| {
        bencher.iter(|| drop(queue.producer().expect("free")));
    });
    group.bench_function("consumer and its drop", |bencher| {
        bencher.iter(|| drop(queue.consumer().expect("free")));
    });
    group.bench_function("wait for one of two", |bencher| {
        bencher.iter(|| shmq::wait(&[&empty, &queue], None).expect("one is ready"));
    });
    group.bench_function("new and drop", |bencher| {
        bencher.iter_batched(|| (), |()| ByteQueue::new(16).expect("a queue"), BatchSize::PerIteration);
    });
    group.bench_function("open and drop", |bencher| {
        bencher.iter(|| ByteQueue::open(queue.name()).expect("it is there"));
    });
    group.finish();
}

fn depth_of<Q: DeepQueue>(criterion: &mut Criterion, name: &str, waiting: &[usize]) {
    let mut group = criterion.benchmark_group("put and get, 64 B, by messages waiting");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for &waiting in waiting {
        group.bench_function(format!("{name}, {waiting}"), |bencher| {
            let mut deep = Deep::<Q>::new(1_000_001, waiting).expect("room");
            bencher.iter_custom(|count| deep.time(count).expect("every message, in order"));
        });
    }
    group.finish();
}

fn depth(criterion: &mut Criterion) {
    depth_of::<ByteQueue>(criterion, "shmq", &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000]);
    depth_of::<SpinningRing>(criterion, "spinning ring", &[1, 1_000_000]);
}

criterion_group!(benches, pairs, others, depth);

fn main() {
    play_role(&CONTENDERS);
    benches();
    Criterion::default().configure_from_args().final_summary();
}
