//! No wake-up is lost while nobody dies: every sleeper here sleeps for ever unless it is woken, and loom
//! reports whoever is left asleep.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use crate::channel::Look;
use crate::deadline::{Deadline, now};
use crate::harness::{Process, Segment, explore};

fn producer(segment: &Arc<Segment>, id: u32, messages: &'static [u8]) -> JoinHandle<()> {
    let process = Process::attach(segment, id);
    thread::spawn(move || messages.iter().for_each(|message| process.put(*message).unwrap()))
}

fn consumer(segment: &Arc<Segment>, id: u32, count: usize) -> JoinHandle<Vec<u8>> {
    let process = Process::attach(segment, id);
    thread::spawn(move || (0..count).map(|_| process.get().unwrap()).collect())
}

/// Waits until there is a message and takes nothing, as `wait` on many does.
fn poller(segment: &Arc<Segment>, id: u32) -> JoinHandle<()> {
    let process = Process::attach(segment, id);
    thread::spawn(move || {
        let channel = process.channel();
        let not_empty = &process.segment.ends.not_empty.0;
        loop {
            let prepared = not_empty.prepare();
            if channel.look_for_message() != Look::Nothing {
                break;
            }
            not_empty.sleep(prepared, Deadline::Never.within(now() - now()));
        }
        // The baton: the wake-up that ended the sleep may have been the only one.
        not_empty.notify(1);
    })
}

#[test]
fn one_producer_one_consumer_one_slot() {
    explore(3, || {
        let segment = Segment::new(1);
        let put = producer(&segment, 1, &[1, 2]);
        let got = consumer(&segment, 2, 2);
        put.join().unwrap();
        assert_eq!(got.join().unwrap(), [1, 2]);
    });
}

#[test]
fn two_sleeping_consumers_each_get_one() {
    explore(2, || {
        let segment = Segment::new(2);
        let first = consumer(&segment, 1, 1);
        let second = consumer(&segment, 2, 1);
        let put = producer(&segment, 3, &[7, 9]);
        put.join().unwrap();
        let mut got = [first.join().unwrap()[0], second.join().unwrap()[0]];
        got.sort_unstable();
        assert_eq!(got, [7, 9]);
    });
}

#[test]
fn two_sleeping_producers_are_both_let_in() {
    explore(2, || {
        let segment = Segment::new(1);
        let first = producer(&segment, 1, &[7]);
        let second = producer(&segment, 2, &[9]);
        let mut got = consumer(&segment, 3, 2).join().unwrap();
        got.sort_unstable();
        assert_eq!(got, [7, 9]);
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_poller_does_not_swallow_the_wake_up_of_a_consumer() {
    explore(2, || {
        let segment = Segment::new(2);
        let polls = poller(&segment, 1);
        let got = consumer(&segment, 2, 1);
        // Two: the poller needs something left to see, whoever is first.
        let put = producer(&segment, 3, &[7, 9]);
        put.join().unwrap();
        assert_eq!(got.join().unwrap(), [7]);
        polls.join().unwrap();
    });
}

#[test]
fn two_threads_of_one_process_wait_like_two_processes() {
    explore(2, || {
        let segment = Segment::new(1);
        let process = Process::attach(&segment, 1);
        let threads =
            [process.clone(), process.clone()].map(|process| thread::spawn(move || process.get().unwrap()));
        let put = producer(&segment, 2, &[7, 9]);
        let mut got = threads.map(|thread| thread.join().unwrap());
        got.sort_unstable();
        assert_eq!(got, [7, 9]);
        put.join().unwrap();
    });
}
