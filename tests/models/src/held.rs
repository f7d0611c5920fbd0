//! Ends held for longer than a call: no wake-up is lost, close ends them, and the dead leave them.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use crate::channel::Once;
use crate::deadline::Deadline;
use crate::error::{GetError, PutError};
use crate::harness::{Process, Segment, byte, explore, explore_with_deaths};

/// Holds the put end, puts until it is told that the channel is closed, lets go. What was accepted.
fn put_held(process: &Process, messages: &[u8]) -> Vec<u8> {
    let Some(turn) = process.hold_put() else { return Vec::new() };
    let mut accepted = Vec::new();
    for message in messages {
        match process.channel().put(turn, &[*message], Deadline::Never) {
            Ok(()) => accepted.push(*message),
            Err(PutError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    process.channel().release_put(process.me());
    accepted
}

/// Holds the get end for up to `count` messages. What came before the end.
fn get_held(process: &Process, count: usize) -> Vec<u8> {
    let turn = process.hold_get();
    let mut got = Vec::new();
    while got.len() < count {
        match process.channel().get(turn, Deadline::Never, byte) {
            Ok(message) => got.push(message),
            Err(GetError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    process.channel().release_get(process.me());
    got
}

fn holding_producer(segment: &Arc<Segment>, id: u32, messages: &'static [u8]) -> JoinHandle<Vec<u8>> {
    let process = Process::attach(segment, id);
    thread::spawn(move || put_held(&process, messages))
}

fn holding_consumer(segment: &Arc<Segment>, id: u32, count: usize) -> JoinHandle<Vec<u8>> {
    let process = Process::attach(segment, id);
    thread::spawn(move || get_held(&process, count))
}

fn consumer(segment: &Arc<Segment>, id: u32) -> JoinHandle<u8> {
    let process = Process::attach(segment, id);
    thread::spawn(move || process.get().unwrap())
}

fn producer(segment: &Arc<Segment>, id: u32, message: u8) -> JoinHandle<()> {
    let process = Process::attach(segment, id);
    thread::spawn(move || process.put(message).unwrap())
}

fn sorted<const N: usize>(mut got: [u8; N]) -> [u8; N] {
    got.sort_unstable();
    got
}

// Wake-ups

#[test]
fn a_held_producer_wakes_sleeping_consumers() {
    explore(2, || {
        let segment = Segment::new(2);
        let got = [consumer(&segment, 1), consumer(&segment, 2)];
        let put = put_held(&Process::attach(&segment, 3), &[7, 9]);
        assert_eq!(put, [7, 9]);
        assert_eq!(sorted(got.map(|thread| thread.join().unwrap())), [7, 9]);
    });
}

#[test]
fn a_held_consumer_wakes_sleeping_producers() {
    explore(2, || {
        let segment = Segment::new(1);
        let puts = [producer(&segment, 1, 7), producer(&segment, 2, 9)];
        let got = get_held(&Process::attach(&segment, 3), 2);
        assert_eq!(sorted([got[0], got[1]]), [7, 9]);
        for put in puts {
            put.join().unwrap();
        }
    });
}

#[test]
fn a_held_producer_and_a_held_consumer_wake_each_other() {
    explore(3, || {
        let segment = Segment::new(1);
        let put = holding_producer(&segment, 1, &[1, 2, 3]);
        assert_eq!(get_held(&Process::attach(&segment, 2), 3), [1, 2, 3]);
        assert_eq!(put.join().unwrap(), [1, 2, 3]);
    });
}

/// An ordinary consumer may be asleep before the end is held, and have the wake-up that the holder waits for.
#[test]
fn a_holder_and_an_ordinary_consumer_sleep_at_once() {
    explore(2, || {
        let segment = Segment::new(1);
        let ordinary = consumer(&segment, 1);
        let holder = holding_consumer(&segment, 2, 1);
        let process = Process::attach(&segment, 3);
        process.put(7).unwrap();
        process.put(9).unwrap();
        let got = [ordinary.join().unwrap(), holder.join().unwrap()[0]];
        assert_eq!(sorted(got), [7, 9]);
    });
}

/// The wake-up must come to the holder: no other comes before it lets go. Nothing is put before it holds the end,
/// so the ordinary one cannot be first.
#[test]
fn an_ordinary_consumer_does_not_keep_the_holders_wake_up() {
    explore(2, || {
        let segment = Segment::new(1);
        let ordinary = consumer(&segment, 1);
        let holder = Process::attach(&segment, 2);
        let held = holder.hold_get();
        let putting = Process::attach(&segment, 3);
        let put = thread::spawn(move || putting.put(7).unwrap());
        let first = holder.channel().get(held, Deadline::Never, byte);
        holder.channel().release_get(holder.me());
        put.join().unwrap();
        assert_eq!(first.unwrap(), 7);
        holder.put(9).unwrap();
        assert_eq!(ordinary.join().unwrap(), 9);
    });
}

#[test]
fn an_ordinary_producer_does_not_keep_the_holders_wake_up() {
    explore(2, || {
        let segment = Segment::new(1);
        let holder = Process::attach(&segment, 2);
        holder.put(1).unwrap();
        let ordinary = producer(&segment, 1, 9);
        let held = holder.hold_put().unwrap();
        let getting = Process::attach(&segment, 3);
        let got = thread::spawn(move || getting.get().unwrap());
        holder.channel().put(held, &[7], Deadline::Never).unwrap();
        holder.channel().release_put(holder.me());
        assert_eq!(got.join().unwrap(), 1);
        assert_eq!(holder.get().unwrap(), 7);
        ordinary.join().unwrap();
        assert_eq!(holder.get().unwrap(), 9);
    });
}

#[test]
fn whoever_waits_for_a_held_end_is_woken_when_it_is_free() {
    explore(2, || {
        let segment = Segment::new(2);
        let puts = [holding_producer(&segment, 1, &[7]), holding_producer(&segment, 2, &[9])];
        put_held(&Process::attach(&segment, 3), &[]);
        for put in puts {
            assert_eq!(put.join().unwrap().len(), 1);
        }
    });
}

// Batches

fn batch(process: &Process, messages: &[&[u8]]) {
    let put = process.channel().put_many(Once, messages.len(), |at| messages[at], Deadline::Never);
    assert!(put.is_ok());
}

#[test]
fn a_batch_of_two_wakes_two_sleepers() {
    explore(2, || {
        let segment = Segment::new(2);
        let got = [consumer(&segment, 1), consumer(&segment, 2)];
        batch(&Process::attach(&segment, 3), &[&[7], &[9]]);
        assert_eq!(sorted(got.map(|thread| thread.join().unwrap())), [7, 9]);
    });
}

#[test]
fn taking_two_at_once_wakes_two_sleeping_producers() {
    explore(2, || {
        let segment = Segment::new(2);
        let process = Process::attach(&segment, 3);
        batch(&process, &[&[1], &[2]]);
        let puts = [producer(&segment, 1, 7), producer(&segment, 2, 9)];
        let mut got = Vec::new();
        let count = process.channel().get_many(Once, 2, Deadline::Never, |message| {
            got.push(byte(message.bytes)?);
            Ok(())
        });
        assert_eq!((count.unwrap(), got), (2, vec![1, 2]));
        for put in puts {
            put.join().unwrap();
        }
    });
}

// Close

fn close_against_held_put(capacity: u32, messages: &'static [u8], preemptions: usize) {
    explore(preemptions, move || {
        let segment = Segment::new(capacity);
        let [putting, getting, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let put = thread::spawn(move || put_held(&putting, messages));
        let got = thread::spawn(move || get_held(&getting, usize::MAX));
        closing.channel().close();
        let put = put.join().unwrap();
        assert_eq!(got.join().unwrap(), put, "what was accepted is delivered, and nothing else");
        assert!(closing.hold_put().is_none(), "a closed channel stays closed");
    });
}

#[test]
fn what_a_held_put_accepted_is_delivered_before_the_end() {
    close_against_held_put(2, &[1, 2], 3);
}

#[test]
fn a_held_put_that_waits_for_room_is_woken_by_close() {
    close_against_held_put(1, &[1, 2], 3);
}

/// After close has returned no put of the holder's is accepted any more.
#[test]
fn a_held_put_after_close_is_refused() {
    explore(3, || {
        let segment = Segment::new(2);
        let [holder, closing] = [1, 2].map(|id| Process::attach(&segment, id));
        let closes = thread::spawn(move || closing.channel().close());
        let held = holder.hold_put();
        let before = held.and_then(|turn| holder.channel().put(turn, &[1], Deadline::Never).ok());
        closes.join().unwrap();
        if let Some(turn) = held {
            let after = holder.channel().put(turn, &[2], Deadline::Never);
            assert!(matches!(after, Err(PutError::Closed)));
            holder.channel().release_put(holder.me());
        }
        assert_eq!(holder.channel().ring().len(), usize::from(before.is_some()));
    });
}

// Death

/// A holder dies, before or after a commit: what it committed is there, and the end is taken over.
fn a_holder_of_the_put_end_dies(commits: &'static [u8]) {
    explore_with_deaths(4, move || {
        let segment = Segment::new(2);
        let [dying, putting] = [1, 2].map(|id| Process::attach(&segment, id));
        let held = thread::spawn(move || {
            let turn = dying.hold_put().unwrap();
            for message in commits {
                dying.channel().put(turn, &[*message], Deadline::Never).unwrap();
            }
            dying.lease.die();
        });
        putting.put(9).unwrap();
        held.join().unwrap();
        let mut got: Vec<_> = (0..=commits.len()).map(|_| putting.get().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [commits, &[9]].concat());
    });
}

#[test]
fn a_holder_dies_that_has_put_nothing() {
    a_holder_of_the_put_end_dies(&[]);
}

#[test]
fn what_a_holder_had_put_when_it_died_is_there() {
    a_holder_of_the_put_end_dies(&[7]);
}

#[test]
fn a_holder_of_the_get_end_dies_and_somebody_else_gets_the_rest() {
    explore_with_deaths(4, || {
        let segment = Segment::new(2);
        let [dying, getting] = [1, 2].map(|id| Process::attach(&segment, id));
        batch(&getting, &[&[1], &[2]]);
        let got = thread::spawn(move || {
            let turn = dying.hold_get();
            let got = dying.channel().get(turn, Deadline::Never, byte).unwrap();
            dying.lease.die();
            got
        });
        let other = getting.get().unwrap();
        assert_eq!(sorted([got.join().unwrap(), other]), [1, 2]);
    });
}

/// A dead holder does not hold up the end of a closed channel.
#[test]
fn a_holder_that_dies_in_a_closed_channel_does_not_hold_up_the_end() {
    explore_with_deaths(4, || {
        let segment = Segment::new(1);
        let [dying, getting, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let died = thread::spawn(move || {
            let turn = dying.hold_put();
            let put = turn.map(|turn| dying.channel().put(turn, &[7], Deadline::Never).is_ok());
            dying.lease.die();
            put.unwrap_or(false)
        });
        let got = thread::spawn(move || get_held(&getting, usize::MAX));
        closing.channel().close();
        let accepted: &[u8] = if died.join().unwrap() { &[7] } else { &[] };
        assert_eq!(got.join().unwrap(), accepted);
    });
}
