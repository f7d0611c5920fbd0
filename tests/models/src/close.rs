//! Closing against puts: what a put said `Ok` to is delivered, and everybody comes to an end.

use loom::sync::Arc;
use loom::thread;

use crate::error::{GetError, PutError};
use crate::harness::{Process, Segment, explore, explore_with_deaths};

/// Gets until the end and says what came.
pub(crate) fn drain(process: &Process) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        match process.get() {
            Ok(message) => got.push(message),
            Err(GetError::Closed) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Puts until the channel is closed and says what was accepted.
pub(crate) fn fill(process: &Process, messages: &[u8]) -> Vec<u8> {
    let mut accepted = Vec::new();
    for message in messages {
        match process.put(*message) {
            Ok(()) => accepted.push(*message),
            Err(PutError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    accepted
}

fn close_against_put(capacity: u32, messages: &'static [u8], preemptions: usize) {
    explore(preemptions, move || {
        let segment = Segment::new(capacity);
        let [putting, getting, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let put = thread::spawn(move || fill(&putting, messages));
        let got = thread::spawn(move || drain(&getting));
        closing.close();
        let put = put.join().unwrap();
        assert_eq!(got.join().unwrap(), put);
        assert!(matches!(closing.put(0), Err(PutError::Closed)), "a closed channel stays closed");
    });
}

#[test]
fn what_was_accepted_is_delivered() {
    close_against_put(2, &[1], 4);
}

#[test]
fn a_put_that_waits_for_room_is_woken() {
    close_against_put(1, &[1, 2], 3);
}

#[test]
fn two_consumers_both_come_to_an_end() {
    explore(2, || {
        let segment = Segment::new(1);
        let first = Process::attach(&segment, 1);
        let second = Process::attach(&segment, 2);
        let both = [first, second].map(|process| thread::spawn(move || drain(&process)));
        let putting = Process::attach(&segment, 3);
        let accepted = fill(&putting, &[1]);
        putting.close();
        let got: Vec<u8> = both.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(got, accepted);
    });
}

/// A producer dies with the put end locked, before or after its commit.
fn a_put_dies_inside(commits: bool, preemptions: usize) {
    explore_with_deaths(preemptions, move || {
        let segment = Segment::new(1);
        let [dying, getting, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let died = thread::spawn(move || dying.die_in_put(commits.then_some(7)));
        let got = thread::spawn(move || drain(&getting));
        closing.close();
        let accepted = Vec::from_iter(died.join().unwrap());
        assert_eq!(got.join().unwrap(), accepted);
    });
}

#[test]
fn a_put_that_dies_inside_a_closed_channel_does_not_hold_up_the_end() {
    a_put_dies_inside(false, 3);
}

#[test]
fn what_a_put_had_committed_when_it_died_is_delivered() {
    a_put_dies_inside(true, 3);
}

/// A producer takes the put end over from a dead one while somebody closes: either it is too late and its put
/// fails, or its message is delivered.
#[test]
fn a_put_end_is_taken_over_before_the_end_or_not_at_all() {
    explore_with_deaths(3, || {
        let segment = Segment::new(1);
        let dead = Process::attach(&segment, 9);
        dead.die_in_put(None);
        let [putting, getting] = [1, 2].map(|id| Process::attach(&segment, id));
        let put = thread::spawn(move || fill(&putting, &[7]));
        getting.close();
        assert_eq!(drain(&getting), put.join().unwrap());
    });
}

#[test]
fn closing_from_everywhere_at_once_is_closing() {
    explore(3, || {
        let segment = Segment::new(1);
        let processes: Vec<Arc<Process>> = [1, 2].map(|id| Process::attach(&segment, id)).into();
        let closers: Vec<_> =
            processes.iter().cloned().map(|process| thread::spawn(move || process.close())).collect();
        assert_eq!(drain(&processes[0]), []);
        for closer in closers {
            closer.join().unwrap();
        }
    });
}
