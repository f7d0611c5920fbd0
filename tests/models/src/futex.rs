//! The kernel's futex: one queue of sleepers under one lock.

use std::cell::Cell;
use std::time::Instant;

use loom::sync::{Condvar, Mutex};

use crate::atomic::{AtomicU32, Ordering};

struct Sleeper {
    word: usize,
    ticket: usize,
    woken: bool,
}

#[derive(Default)]
struct Bucket {
    sleepers: Vec<Sleeper>,
    tickets: usize,
}

loom::lazy_static! {
    static ref BUCKET: Mutex<Bucket> = Mutex::new(Bucket::default());
    static ref CHANGED: Condvar = Condvar::new();
}

thread_local! {
    static TIME_PASSES: Cell<bool> = const { Cell::new(false) };
    static SHORT_SLEEPS: Cell<u32> = const { Cell::new(0) };
}

/// Whether sleeps end by themselves, as they do after a death. Without it a model shows that nobody
/// depends on that. To be set first in a model: it holds for the whole of it.
pub(crate) fn let_time_pass(yes: bool) {
    TIME_PASSES.set(yes);
    SHORT_SLEEPS.set(2);
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, _until: Instant) -> bool {
    let mut bucket = BUCKET.lock().unwrap();
    if word.load(Ordering::Relaxed) != expected {
        return false;
    }
    // loom runs all threads of a model on one thread of the machine.
    if TIME_PASSES.get() {
        drop(bucket);
        // Somebody who yields is not run again before everybody else has; so the first sleeps of an
        // execution are over at once, or a sleeper could never overtake who is in a narrow place.
        match SHORT_SLEEPS.get() {
            0 => loom::thread::yield_now(),
            left => SHORT_SLEEPS.set(left - 1),
        }
        return true;
    }
    bucket.tickets += 1;
    let ticket = bucket.tickets;
    bucket.sleepers.push(Sleeper { word: address(word), ticket, woken: false });
    loop {
        bucket = CHANGED.wait(bucket).unwrap();
        let at = bucket.sleepers.iter().position(|sleeper| sleeper.ticket == ticket).unwrap();
        if bucket.sleepers[at].woken {
            bucket.sleepers.remove(at);
            return false;
        }
    }
}

pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    let mut bucket = BUCKET.lock().unwrap();
    let mut woken = 0;
    for sleeper in &mut bucket.sleepers {
        if woken < count && !sleeper.woken && sleeper.word == address(word) {
            sleeper.woken = true;
            woken += 1;
        }
    }
    drop(bucket);
    if woken > 0 {
        CHANGED.notify_all();
    }
    woken
}

fn address(word: &AtomicU32) -> usize {
    std::ptr::from_ref(word).addr()
}

pub(crate) fn wait_any<'a>(_: impl Iterator<Item = (&'a AtomicU32, u32)>, _: Instant) -> std::io::Result<()> {
    unreachable!("the models wait on one word at a time")
}
