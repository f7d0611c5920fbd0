//! The mutex lets one in at a time, and wakes who sleeps.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::harness::{Process, Segment, explore};

struct Counter(UnsafeCell<u32>);
unsafe impl Sync for Counter {}
unsafe impl Send for Counter {}

fn increment(process: &Process, counter: &Counter) {
    process.lock_get();
    // SAFETY: guarded by the mutex; loom checks just that.
    counter.0.with_mut(|counter| unsafe { *counter += 1 });
    process.segment.ends.get.mutex.unlock(process.me());
}

fn exclusion(ids: &'static [u32], rounds: u32, preemptions: usize) {
    explore(preemptions, move || {
        let segment = Segment::new(1);
        let counter = Arc::new(Counter(UnsafeCell::new(0)));
        let mut processes: Vec<Arc<Process>> = Vec::new();
        for id in ids {
            let known = processes.iter().find(|process| process.lease.identity().unwrap().id() == *id);
            let process = known.cloned().unwrap_or_else(|| Process::attach(&segment, *id));
            processes.push(process);
        }
        let threads: Vec<_> = processes
            .into_iter()
            .map(|process| {
                let counter = counter.clone();
                thread::spawn(move || (0..rounds).for_each(|_| increment(&process, &counter)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // SAFETY: all threads have ended.
        let total = counter.0.with(|counter| unsafe { *counter });
        assert_eq!(total, u32::try_from(ids.len()).unwrap() * rounds);
    });
}

#[test]
fn two_processes_exclude_each_other() {
    exclusion(&[1, 2], 2, 4);
}

#[test]
fn three_processes_exclude_each_other_and_none_sleeps_for_ever() {
    exclusion(&[1, 2, 3], 1, 3);
}

#[test]
fn two_threads_of_one_process_exclude_each_other() {
    exclusion(&[1, 1], 2, 4);
}
