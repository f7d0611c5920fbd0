//! Closing while an end is taken over from a dead owner. What a put said `Ok` to, and what the dead had
//! committed, is delivered once; then everybody is told that it is closed, and nobody waits for ever.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use crate::close::{drain, fill};
use crate::harness::{Process, Segment, explore_with_deaths};

/// The id of the owner who is dead.
const DEAD: u32 = 9;

fn spawn<R: 'static>(
    process: &Arc<Process>,
    act: impl FnOnce(&Process) -> R + Send + 'static,
) -> JoinHandle<R> {
    let process = process.clone();
    thread::spawn(move || act(&process))
}

/// Attaches with the dead owner's id; with another while somebody takes over from that one, as a newcomer that
/// is refused an id does.
fn newcomer(segment: &Arc<Segment>, description: u32) -> Arc<Process> {
    Process::try_attach(segment, description, DEAD)
        .unwrap_or_else(|| Process::try_attach(segment, description, DEAD - 1).expect("a free id"))
}

/// A channel whose put end is owned by somebody dead, who may have put the message 7.
fn put_end_of_the_dead(committed: bool) -> (Arc<Segment>, Vec<u8>) {
    let segment = Segment::new(3);
    let message = Process::attach(&segment, DEAD).die_in_put(committed.then_some(7));
    (segment, Vec::from_iter(message))
}

/// A channel with messages, 7 first, whose get end is owned by somebody dead, who may have taken the first.
/// What is left.
fn get_end_of_the_dead(messages: &[u8], taken: bool) -> (Arc<Segment>, Vec<u8>) {
    let segment = Segment::new(3);
    let putting = Process::attach(&segment, 4);
    assert_eq!(fill(&putting, messages), messages);
    let lost = Process::attach(&segment, DEAD).die_in_get(taken);
    (segment, messages[usize::from(lost.is_some())..].to_vec())
}

/// All that was accepted came, in the order of each producer, and nothing else.
fn assert_all_came(got: &[u8], first: &[u8], accepted: impl IntoIterator<Item = Vec<u8>>) {
    assert!(got.starts_with(first), "{got:?} instead of {first:?} first");
    let mut rest = got[first.len()..].to_vec();
    for accepted in accepted {
        let of_one: Vec<u8> = rest.iter().copied().filter(|message| accepted.contains(message)).collect();
        assert_eq!(of_one, accepted, "in {got:?}");
        rest.retain(|message| !accepted.contains(message));
    }
    assert!(rest.is_empty(), "{got:?} were not all accepted");
}

#[test]
fn two_processes_take_the_put_end_over() {
    for committed in [false, true] {
        explore_with_deaths(3, move || {
            let (segment, first) = put_end_of_the_dead(committed);
            let [one, two, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
            let puts = [spawn(&one, |it| fill(it, &[1])), spawn(&two, |it| fill(it, &[2]))];
            closing.close();
            let got = drain(&closing);
            assert_all_came(&got, &first, puts.map(|put| put.join().unwrap()));
        });
    }
}

#[test]
fn two_threads_of_one_process_take_the_put_end_over() {
    for committed in [false, true] {
        explore_with_deaths(3, move || {
            let (segment, first) = put_end_of_the_dead(committed);
            let [putting, closing] = [1, 3].map(|id| Process::attach(&segment, id));
            let puts = [spawn(&putting, |it| fill(it, &[1])), spawn(&putting, |it| fill(it, &[2]))];
            closing.close();
            let got = drain(&closing);
            assert_all_came(&got, &first, puts.map(|put| put.join().unwrap()));
        });
    }
}

#[test]
fn a_newcomer_is_given_the_id_of_who_died_in_a_put() {
    for committed in [false, true] {
        explore_with_deaths(2, move || {
            let (segment, first) = put_end_of_the_dead(committed);
            let [taker, closing] = [1, 3].map(|id| Process::attach(&segment, id));
            let take = spawn(&taker, |it| fill(it, &[1]));
            let comes = thread::spawn(move || fill(&newcomer(&segment, 2), &[2]));
            closing.close();
            let got = drain(&closing);
            assert_all_came(&got, &first, [take, comes].map(|put| put.join().unwrap()));
        });
    }
}

#[test]
fn the_taker_of_the_put_end_dies_before_it_owns_it() {
    explore_with_deaths(3, || {
        let (segment, first) = put_end_of_the_dead(true);
        let [taker, survivor, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let dies = spawn(&taker, |it| it.die_in_take_over(DEAD));
        let put = spawn(&survivor, |it| fill(it, &[2]));
        closing.close();
        let got = drain(&closing);
        dies.join().unwrap();
        assert_all_came(&got, &first, [put.join().unwrap()]);
    });
}

#[test]
fn the_taker_of_the_put_end_dies_in_its_own_put() {
    for message in [None, Some(1)] {
        explore_with_deaths(3, move || {
            let (segment, first) = put_end_of_the_dead(true);
            let [taker, survivor, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
            let died = spawn(&taker, move |it| it.die_in_put(message));
            let put = spawn(&survivor, |it| fill(it, &[2]));
            closing.close();
            let got = drain(&closing);
            let died = Vec::from_iter(died.join().unwrap());
            assert_all_came(&got, &first, [died, put.join().unwrap()]);
        });
    }
}

/// Both get what is left, one message each, and there is nothing more for the third. (Two who wait at once
/// for the end of a third can keep loom busy with each other for ever.)
fn two_take_the_get_end_over(getting: impl Fn(&Arc<Segment>) -> [Arc<Process>; 2] + Send + Sync + 'static) {
    explore_with_deaths(2, move || {
        let (segment, left) = get_end_of_the_dead(&[7, 8, 9], true);
        let closing = Process::attach(&segment, 3);
        let gets = getting(&segment).map(|it| spawn(&it, |it| it.get().unwrap()));
        closing.close();
        let mut got = gets.map(|get| get.join().unwrap());
        got.sort_unstable();
        assert_eq!(got[..], left);
        assert_eq!(drain(&closing), []);
    });
}

#[test]
fn two_processes_take_the_get_end_over() {
    two_take_the_get_end_over(|segment| [1, 2].map(|id| Process::attach(segment, id)));
}

#[test]
fn two_threads_of_one_process_take_the_get_end_over() {
    two_take_the_get_end_over(|segment| {
        let process = Process::attach(segment, 1);
        [process.clone(), process]
    });
}

#[test]
fn a_newcomer_is_given_the_id_of_who_died_in_a_get() {
    explore_with_deaths(2, || {
        let (segment, left) = get_end_of_the_dead(&[7, 8], false);
        let [taker, closing] = [1, 3].map(|id| Process::attach(&segment, id));
        let take = spawn(&taker, |it| it.get().unwrap());
        let comes = {
            let segment = segment.clone();
            thread::spawn(move || newcomer(&segment, 2).get().unwrap())
        };
        closing.close();
        let mut got = [take, comes].map(|get| get.join().unwrap());
        got.sort_unstable();
        assert_eq!(got[..], left);
        assert_eq!(drain(&closing), []);
    });
}

/// One waits for what comes and finds the end closed, the other closes it and then does the same.
#[test]
fn who_closes_and_who_waits_both_take_the_get_end_over() {
    for taken in [false, true] {
        explore_with_deaths(2, move || {
            let (segment, left) = get_end_of_the_dead(&[7], taken);
            let [getting, closing] = [1, 3].map(|id| Process::attach(&segment, id));
            let get = spawn(&getting, drain);
            closing.close();
            let got: Vec<u8> = drain(&closing).into_iter().chain(get.join().unwrap()).collect();
            assert_eq!(got, left);
        });
    }
}

#[test]
fn the_taker_of_the_get_end_dies_in_its_own_get() {
    for takes in [false, true] {
        explore_with_deaths(2, move || {
            let (segment, left) = get_end_of_the_dead(&[7], false);
            let [taker, survivor, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
            let died = spawn(&taker, move |it| it.die_in_get(takes));
            let get = spawn(&survivor, drain);
            closing.close();
            let got: Vec<u8> = died.join().unwrap().into_iter().chain(get.join().unwrap()).collect();
            assert_eq!(got, left);
        });
    }
}

/// One process died with both ends. Who puts and who gets take one each, and are in each other's way: both
/// need the dead one's byte.
#[test]
fn both_ends_are_taken_over() {
    explore_with_deaths(3, || {
        let segment = Segment::new(3);
        let dead = Process::attach(&segment, DEAD);
        dead.die_in_put(Some(7));
        dead.die_in_get(false);
        let [putting, getting, closing] = [1, 2, 3].map(|id| Process::attach(&segment, id));
        let put = spawn(&putting, |it| fill(it, &[1]));
        let get = spawn(&getting, drain);
        closing.close();
        assert_all_came(&get.join().unwrap(), &[7], [put.join().unwrap()]);
    });
}
