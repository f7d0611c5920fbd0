//! What a put and a get allocate: nothing, but for what the item itself needs.
//!
//! A test binary of its own, because it counts every allocation of the process.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde::{Deserialize, Serialize};
use shmq::{ByteQueue, Queue};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // While a thread ends there is nothing to count for.
    _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `call`, after a first time in which buffers grow.
fn allocations(mut call: impl FnMut()) -> u64 {
    call();
    let before = COUNT.get();
    for _ in 0..100 {
        call();
    }
    COUNT.get() - before
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    sensor: u32,
    values: [f64; 8],
    valid: bool,
}

fn reading() -> Reading {
    Reading { sensor: 7, values: [0.5; 8], valid: true }
}

#[test]
fn an_item_without_memory_of_its_own_costs_no_allocation() {
    let queue = Queue::new(8).expect("a queue");
    let item = reading();
    assert_eq!(
        allocations(|| {
            queue.put(&item).expect("room");
            assert_eq!(queue.get().expect("an item"), item);
        }),
        0
    );
}

#[test]
fn an_item_costs_on_get_what_it_is_made_of_and_on_put_nothing() {
    let queue = Queue::new(8).expect("a queue");
    let item = "a text that is longer than any small string could be".to_owned();
    assert_eq!(allocations(|| while queue.put_nowait(&item).is_ok() {}), 0, "put");
    let got = allocations(|| {
        queue.put_nowait(&item).ok();
        drop(queue.get().expect("an item"));
    });
    assert_eq!(got, 100, "one for each text");
}

#[test]
fn an_item_encoded_inside_of_another_put_costs_no_deadlock_but_a_buffer() {
    struct Nested<'a>(&'a Queue<u32>);

    impl Serialize for Nested<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.put(&1).map_err(serde::ser::Error::custom)?;
            serializer.serialize_u32(2)
        }
    }

    let inner = Queue::new(8).expect("a queue");
    let outer: Queue<Nested<'_>> = ByteQueue::new(8).expect("a queue").into();
    let nested = Nested(&inner);
    let count = allocations(|| {
        outer.put(&nested).expect("room");
        inner.get().expect("an item");
        outer.bytes().get_with(<[u8]>::len).expect("an item");
    });
    assert!(count <= 200, "{count}");
}

#[test]
fn bytes_cost_what_is_returned() {
    let queue = ByteQueue::new(8).expect("a queue");
    let mut buffer = [0; 64];
    let into = allocations(|| {
        queue.put(&[7; 64]).expect("room");
        assert_eq!(queue.get_into(&mut buffer).expect("a message"), 64);
    });
    assert_eq!(into, 0, "into a buffer");
    let in_place = allocations(|| {
        queue.put_with(64, |bytes| bytes.fill(7)).expect("room");
        assert_eq!(queue.get_with(<[u8]>::len).expect("a message"), 64);
    });
    assert_eq!(in_place, 0, "in place");
    let returned = allocations(|| {
        queue.put(&[7; 64]).expect("room");
        drop(queue.get().expect("a message"));
    });
    assert_eq!(returned, 100, "one for each message returned");
}

#[test]
fn ends_that_are_held_cost_no_allocation() {
    let queue = Queue::new(8).expect("a queue");
    let (producer, consumer) = (queue.producer().expect("free"), queue.consumer().expect("free"));
    let item = reading();
    assert_eq!(
        allocations(|| {
            producer.put(&item).expect("room");
            assert_eq!(consumer.get().expect("an item"), item);
        }),
        0
    );
}
