//! The owner of a lock dies with it. Sleeps end by themselves here, as the library's slices do.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::harness::{Process, Segment, explore_with_deaths};
use crate::sync::mutex::Taken;

struct Counter(UnsafeCell<u32>);
unsafe impl Sync for Counter {}
unsafe impl Send for Counter {}

fn lock(process: &Process) -> Taken {
    process.lock_get()
}

fn unlock(process: &Process) {
    process.segment.ends.get.mutex.unlock(process.lease.identity().unwrap());
}

/// Locks, changes what the lock guards, unlocks. Says how it got the lock.
fn enter(process: &Process, counter: &Counter) -> Taken {
    let taken = lock(process);
    // SAFETY: guarded by the mutex; loom checks just that.
    counter.0.with_mut(|counter| unsafe { *counter += 1 });
    unlock(process);
    taken
}

fn count(counter: &Counter) -> u32 {
    // SAFETY: all other threads have ended.
    counter.0.with(|counter| unsafe { *counter })
}

/// A segment whose lock is owned by id 9, who is dead.
fn left_by_the_dead() -> (Arc<Segment>, Arc<Counter>) {
    let segment = Segment::new(1);
    let dead = Process::attach(&segment, 9);
    lock(&dead);
    dead.lease.die();
    (segment, Arc::new(Counter(UnsafeCell::new(0))))
}

fn spawn(process: &Arc<Process>, counter: &Arc<Counter>) -> thread::JoinHandle<Taken> {
    let (process, counter) = (process.clone(), counter.clone());
    thread::spawn(move || enter(&process, &counter))
}

fn from_the_dead(taken: &[Taken]) -> usize {
    taken.iter().filter(|taken| **taken == Taken::FromTheDead).count()
}

#[test]
fn the_owner_dies_while_somebody_waits() {
    explore_with_deaths(4, || {
        let segment = Segment::new(1);
        let counter = Arc::new(Counter(UnsafeCell::new(0)));
        let owner = Process::attach(&segment, 1);
        let waiter = Process::attach(&segment, 2);
        lock(&owner);
        let waits = spawn(&waiter, &counter);
        owner.lease.die();
        assert_eq!(waits.join().unwrap(), Taken::FromTheDead);
        assert_eq!(count(&counter), 1);
    });
}

#[test]
fn of_two_processes_that_take_over_at_once_one_does() {
    explore_with_deaths(3, || {
        let (segment, counter) = left_by_the_dead();
        let both = [1, 2].map(|id| spawn(&Process::attach(&segment, id), &counter));
        let taken = both.map(|thread| thread.join().unwrap());
        assert_eq!(from_the_dead(&taken), 1, "{taken:?}");
        assert_eq!(count(&counter), 2);
    });
}

#[test]
fn of_two_threads_of_one_process_that_take_over_at_once_one_does() {
    explore_with_deaths(3, || {
        let (segment, counter) = left_by_the_dead();
        let process = Process::attach(&segment, 1);
        let both = [(); 2].map(|()| spawn(&process, &counter));
        let taken = both.map(|thread| thread.join().unwrap());
        assert_eq!(from_the_dead(&taken), 1, "{taken:?}");
        assert_eq!(count(&counter), 2);
    });
}

#[test]
fn a_newcomer_may_be_given_the_dead_owners_id() {
    explore_with_deaths(3, || {
        let (segment, counter) = left_by_the_dead();
        let taker = spawn(&Process::attach(&segment, 1), &counter);
        let newcomer = {
            let (segment, counter) = (segment.clone(), counter.clone());
            // Refused while somebody takes over from the dead owner; then it would try another id.
            thread::spawn(move || {
                let process = Process::try_attach(&segment, 2, 9)
                    .unwrap_or_else(|| Process::try_attach(&segment, 2, 8).expect("a free id"));
                enter(&process, &counter)
            })
        };
        let taken = [taker.join().unwrap(), newcomer.join().unwrap()];
        assert_eq!(from_the_dead(&taken), 1, "{taken:?}");
        assert_eq!(count(&counter), 2);
    });
}

#[test]
fn the_taker_dies_with_the_lock_that_it_took() {
    explore_with_deaths(3, || {
        let (segment, counter) = left_by_the_dead();
        let taker = Process::attach(&segment, 1);
        let dies = thread::spawn(move || {
            lock(&taker);
            taker.lease.die();
        });
        let survivor = spawn(&Process::attach(&segment, 2), &counter);
        dies.join().unwrap();
        assert_eq!(survivor.join().unwrap(), Taken::FromTheDead);
        assert_eq!(count(&counter), 1);
    });
}

#[test]
fn the_taker_dies_in_the_middle_of_the_take_over() {
    explore_with_deaths(4, || {
        let (segment, counter) = left_by_the_dead();
        let taker = Process::attach(&segment, 1);
        let dies = thread::spawn(move || taker.die_in_take_over(9));
        let survivor = spawn(&Process::attach(&segment, 2), &counter);
        dies.join().unwrap();
        assert_eq!(survivor.join().unwrap(), Taken::FromTheDead);
        assert_eq!(count(&counter), 1);
    });
}

#[test]
fn an_unlock_never_frees_a_lock_that_was_taken_over() {
    explore_with_deaths(2, || {
        let (segment, counter) = left_by_the_dead();
        // The dead process's own unlock, had it been under way: the word is another's by then, or free.
        let ghost = segment.clone();
        let taker = spawn(&Process::attach(&segment, 1), &counter);
        let second = spawn(&Process::attach(&segment, 2), &counter);
        let buries = thread::spawn(move || ghost.ends.get.mutex.bury(9));
        buries.join().unwrap();
        taker.join().unwrap();
        second.join().unwrap();
        assert_eq!(count(&counter), 2);
    });
}
