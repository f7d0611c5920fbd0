//! Lock words of nonsense: healed where nobody alive owns them, waited for in time where somebody seems to.
//!
//! `broken` has the same with one process; here two meet at the word, and somebody may keep changing it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shmq::ByteQueue;

use crate::any_bytes::{User, all, options, watch};
use crate::broken::{CLOSED, GET_LOCK, PUT_LOCK, STARVED, TOMB, WAITERS, lease_ids};
use crate::hand::{Hand, Vandal};
use crate::harness::{Child, Random, Role, Stage, hear, ms, say};

pub(crate) const ROLES: &[(&str, Role)] =
    &[("lock_words::puts_and_gets", puts_and_gets), ("lock_words::holds_a_handle", holds_a_handle)];

/// Puts and gets one message, each within the time that it is told, and says how that went.
fn puts_and_gets(arguments: &[String]) {
    let [name] = arguments else { panic!("{arguments:?}") };
    let queue = ByteQueue::open(name).unwrap();
    watch(name);
    let mut user = User::new(name, Random::from_seed(0), queue.clone());
    say("attached");
    while let Ok(timeout) = hear().parse().map(ms) {
        let put = user.call("put_timeout", timeout, || queue.put_timeout(b"x", timeout)).0;
        let got = user.call("get_timeout", timeout, || queue.get_timeout(timeout)).0;
        // `Debug` begins with the variant.
        let variant = |debug: String| debug.split(':').next().unwrap_or_default().to_owned();
        let put = put.map_or_else(|error| variant(format!("{error:?}")), |()| "Ok".to_owned());
        let got = got.map_or_else(|error| variant(format!("{error:?}")), |_| "Ok".to_owned());
        say(&format!("{put} {got}"));
    }
    drop((queue, user));
    say("let go");
}

fn holds_a_handle(arguments: &[String]) {
    let _queue = ByteQueue::open(&arguments[0]).unwrap();
    say("attached");
    hear();
}

/// Has all of them put and get at once. What they said.
#[track_caller]
fn turn(children: &mut [Child], timeout: u64) -> Vec<String> {
    all(&mut *children, |child| child.tell(&timeout.to_string()));
    children.iter_mut().map(Child::next).collect()
}

/// A queue, a hand in it, and two processes that use it.
fn two_at_it(stage: &Stage) -> (ByteQueue, Vandal, [Child; 2]) {
    let queue = ByteQueue::from(options(4).create::<u8>(&stage.name()).unwrap());
    let vandal = Vandal::new(Hand::reach(queue.name()).unwrap(), Random::new());
    let mut children = [(); 2].map(|()| stage.child("lock_words::puts_and_gets", &[queue.name()]));
    all(&mut children, |child| child.heard("attached"));
    (queue, vandal, children)
}

const ENDS: [&[u64]; 3] = [&[PUT_LOCK], &[GET_LOCK], &[PUT_LOCK, GET_LOCK]];
/// For what takes no time, though the machine be busy.
const AMPLE: u64 = 20_000;

fn set(hand: &Hand, ends: &[u64], word: u32) {
    for end in ends {
        hand.set_u32(*end, word);
    }
}

/// Nobody alive owns the lock: two processes that find it so at once both get it, one after the other.
#[test]
fn lock_words_of_nonsense_heal() {
    let stage = Stage::new();
    let (queue, vandal, mut children) = two_at_it(&stage);
    let hand = &vandal.hand;
    let before: [u32; 3] = lease_ids(queue.name());
    let mut dies = stage.child("lock_words::holds_a_handle", &[queue.name()]);
    dies.heard("attached");
    let after: [u32; 4] = lease_ids(queue.name());
    dies.kill();
    let dead = after.into_iter().find(|id| !before.contains(id)).unwrap();
    let nobodys = (1..5).find(|id| !after.contains(id)).unwrap();
    for flags in (0..16).map(|flags| flags << 28) {
        for owner in [0, dead, nobodys, TOMB] {
            for ends in ENDS {
                let recoveries = queue.stats().recoveries;
                set(hand, ends, flags | owner);
                let closed = flags & CLOSED != 0 && ends.contains(&PUT_LOCK);
                let said = turn(&mut children, AMPLE);
                let expected = if closed { "Closed Closed" } else { "Ok Ok" };
                assert!(said.iter().all(|said| said == expected), "{:x}, {ends:?}: {said:?}", flags | owner);
                let taken = queue.stats().recoveries - recoveries;
                let dead = if owner == 0 { 0 } else { ends.len() - usize::from(closed) };
                assert_eq!(taken, dead as u64, "{:x}, {ends:?}", flags | owner);
                // Nothing but this clears a closed mark.
                hand.set_u32(PUT_LOCK, 0);
            }
        }
    }
    for child in &mut children {
        child.tell("over");
        child.heard("let go");
    }
}

/// The id of somebody alive who knows nothing of it: nobody can tell, so the lock is owned until that handle
/// goes. Everybody's timeouts hold meanwhile, its own too.
#[test]
fn a_lock_word_with_the_id_of_a_bystander_heals_when_that_one_goes() {
    let stage = Stage::new();
    let (queue, vandal, mut children) = two_at_it(&stage);
    let hand = &vandal.hand;
    let before: [u32; 3] = lease_ids(queue.name());
    let mut bystander = stage.child("lock_words::holds_a_handle", &[queue.name()]);
    bystander.heard("attached");
    let after: [u32; 4] = lease_ids(queue.name());
    let owner = after.into_iter().find(|id| !before.contains(id)).unwrap();
    for flags in (0..16).map(|flags| flags << 28) {
        for ends in ENDS {
            if flags & CLOSED != 0 && ends.contains(&PUT_LOCK) {
                continue;
            }
            set(hand, ends, flags | owner);
            for (said, timeout) in [0, 15].map(|timeout| (turn(&mut children, timeout), timeout)) {
                let put = if ends.contains(&PUT_LOCK) { "Full" } else { "Ok" };
                let got = if ends.contains(&GET_LOCK) || put != "Ok" { "Empty" } else { "Ok" };
                let expected = format!("{put} {got}");
                assert!(
                    said.iter().all(|said| *said == expected),
                    "{flags:x}, {ends:?}, {timeout}: {said:?}"
                );
            }
            // What is there now is not to be in the way of the next.
            set(hand, ENDS[2], 0);
            while queue.get_nowait().is_ok() {}
        }
    }
    set(hand, ENDS[2], owner | STARVED);
    bystander.tell("go");
    bystander.finish();
    assert_eq!(turn(&mut children, AMPLE), ["Ok Ok", "Ok Ok"]);
}

fn any_flags(random: &mut Random) -> u32 {
    u32::try_from(random.below(16)).unwrap() << 28
}

/// A word that never stays the same for long, whatever is in it.
#[test]
fn a_lock_word_that_keeps_changing_delays_nobody() {
    type Next = fn(&mut Vandal, &[u32]) -> u32;
    let stage = Stage::new();
    let (queue, mut vandal, mut children) = two_at_it(&stage);
    let ids: [u32; 3] = lease_ids(queue.name());
    let cases: [(&str, Next); 6] = [
        ("free", |vandal, _| any_flags(&mut vandal.random) & !CLOSED),
        ("starved", |vandal, _| if vandal.random.below(2) == 0 { STARVED } else { STARVED | WAITERS }),
        ("closed", |vandal, _| any_flags(&mut vandal.random) | CLOSED),
        ("dead", |vandal, _| any_flags(&mut vandal.random) & !CLOSED | [1, 2, TOMB][vandal.random.index(3)]),
        ("alive", |vandal, ids| any_flags(&mut vandal.random) & !CLOSED | ids[vandal.random.index(3)]),
        ("anything", |vandal, _| vandal.lock_word()),
    ];
    for (case, next) in cases {
        for ends in ENDS {
            for pause in [0, 3, 30] {
                let over = AtomicBool::new(false);
                let said = thread::scope(|scope| {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            for end in ends {
                                let word = next(&mut vandal, &ids);
                                vandal.hand.set_u32(*end, word);
                            }
                            let start = Instant::now();
                            while start.elapsed() < Duration::from_micros(pause) {
                                spin_loop();
                            }
                        }
                    });
                    let said = [0, 5, 20].map(|timeout| turn(&mut children, timeout));
                    over.store(true, Ordering::Relaxed);
                    said
                });
                println!("{case}, {ends:x?}, every {pause} us: {said:?}");
                // Two may have been inside at once, so the cursors may be anything; the word still heals.
                vandal.restore();
                set(&vandal.hand, ends, STARVED | 1);
                assert_eq!(turn(&mut children, AMPLE), ["Ok Ok", "Ok Ok"], "{case}, {ends:x?}");
            }
        }
    }
}
