//! `task_done` and `join`.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shmq::{ByteQueue, PutError, Queue};

use crate::harness::{
    Role, Stage, assert_about, assert_prompt, assert_woken, fork, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("joinable::works", works),
    ("joinable::puts", puts),
    ("joinable::consumer_dies", consumer_dies),
    ("joinable::producer_dies", producer_dies),
];

const BRIEFLY: Duration = Duration::from_millis(40);

#[test]
fn there_is_nothing_to_wait_for_in_an_empty_queue() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(4).unwrap();
    let (joined, took) = timed(|| {
        queue.join();
        queue.join_timeout(Duration::ZERO) && queue.join_timeout(Duration::MAX)
    });
    assert!(joined);
    assert_prompt(took);
    assert_eq!(queue.stats().unfinished, 0);
    queue.close();
    queue.join();
}

#[test]
fn each_item_is_unfinished_until_its_task_is_done() {
    let stage = Stage::new();
    let queue = Queue::<u32>::create(&stage.name(), 9).unwrap();
    let second = ByteQueue::open(queue.name()).unwrap();
    queue.put_many(&[1, 2, 3]).unwrap();
    queue.bytes().put_with(1, |bytes| bytes[0] = 4).unwrap();
    queue.producer().unwrap().put(&5).unwrap();
    assert_eq!(queue.stats().unfinished, 5);
    queue.get().unwrap();
    queue.get_many(2).unwrap();
    queue.bytes().get_with(|_| ()).unwrap();
    queue.consumer().unwrap().get().unwrap();
    // Getting is not finishing.
    assert_eq!((queue.qsize(), second.stats().unfinished), (0, 5));
    for left in (0..5).rev() {
        let (joined, took) = timed(|| queue.join_timeout(BRIEFLY));
        assert!(!joined);
        assert_about(took, BRIEFLY);
        assert!(!second.join_timeout(Duration::ZERO));
        if left % 2 == 0 {
            queue.task_done().unwrap();
        } else {
            second.task_done().unwrap();
        }
        assert_eq!(queue.stats().unfinished, left);
    }
    queue.join();
    second.join();
}

#[test]
fn finishing_more_often_than_there_were_items_is_an_error_and_changes_nothing() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(4).unwrap();
    queue.task_done().unwrap_err();
    for round in 1..4 {
        queue.put(&1).unwrap();
        queue.get().unwrap();
        queue.task_done().unwrap();
        let error = queue.task_done().unwrap_err();
        assert!(error.to_string().contains(&round.to_string()), "{error}");
        assert!(error.source().is_none());
        assert_eq!(queue.stats().unfinished, 0);
    }
    queue.put(&1).unwrap();
    assert_eq!(queue.stats().unfinished, 1);
    assert!(!queue.join_timeout(Duration::ZERO));
}

/// Producers and workers in several processes, and somebody who joins in yet another: exact to the last one.
#[test]
fn the_count_is_exact_across_processes() {
    const COUNT: u64 = 3000;
    let stage = Stage::new();
    let queue = Queue::<u64>::create(&stage.name(), 20).unwrap();
    let workers: Vec<_> = (0..2).map(|_| stage.child("joinable::works", &[queue.name()])).collect();
    let producers: Vec<_> =
        (0..2).map(|_| stage.child("joinable::puts", &[queue.name(), &COUNT.to_string()])).collect();
    for producer in producers {
        producer.finish();
    }
    queue.join();
    let stats = queue.stats();
    assert_eq!((stats.puts, stats.gets, stats.unfinished), (2 * COUNT, 2 * COUNT, 0));
    queue.task_done().unwrap_err();
    queue.close();
    for worker in workers {
        let said = worker.finish();
        println!("{said:?}");
    }
}

fn works(arguments: &[String]) {
    let queue = Queue::<u64>::open(&arguments[0]).unwrap();
    let done = queue.iter().inspect(|_| queue.task_done().expect("it was got")).count();
    say(&done.to_string());
}

fn puts(arguments: &[String]) {
    let queue = Queue::<u64>::open(&arguments[0]).unwrap();
    for number in 0..arguments[1].parse().unwrap() {
        queue.put(&number).unwrap();
    }
}

/// Whoever joins looks for itself only every 75 ms.
#[test]
fn the_last_task_done_wakes_all_who_join() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(4).unwrap();
    assert_woken(ms(20), || {
        queue.put_many(&[1, 2]).unwrap();
        queue.get_many(2).unwrap();
        thread::scope(|scope| {
            let joins = [(); 3].map(|()| {
                scope.spawn(|| {
                    queue.join();
                    Instant::now()
                })
            });
            nap(ms(6));
            queue.task_done().unwrap();
            nap(ms(2));
            assert!(joins.iter().all(|join| !join.is_finished()));
            let start = Instant::now();
            queue.task_done().unwrap();
            joins.into_iter().map(|join| join.join().unwrap()).max().unwrap().saturating_duration_since(start)
        })
    });
}

/// What is put later does not keep those waiting who have begun to.
#[test]
fn join_ends_while_others_go_on_putting() {
    let _stage = Stage::new();
    let queue = Queue::<u32>::new(100).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if queue.qsize() < 50 {
                    queue.put(&1).unwrap();
                }
                thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // There is always something left.
                if queue.qsize() > 10 {
                    queue.get().unwrap();
                    queue.task_done().unwrap();
                }
                thread::yield_now();
            }
        });
        until("it streams", || queue.stats().gets > 10);
        for _ in 0..5 {
            let puts = queue.stats().puts;
            let (joined, took) = timed(|| queue.join_timeout(ms(20_000)));
            let finished = queue.stats().puts - queue.stats().unfinished;
            over.store(!joined, Ordering::Relaxed);
            assert!(joined && finished >= puts, "after {took:?}: {finished} of {puts}");
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Plays the role with a queue of this capacity.
fn survive(role: &str, capacity: usize) {
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), capacity).unwrap();
    let said = stage.child(role, &[queue.name()]).finish();
    println!("{said:?}");
}

#[test]
fn the_item_of_a_consumer_that_died_stays_unfinished() {
    survive("joinable::consumer_dies", 8);
}

fn consumer_dies(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    queue.put_many(&[b"1", b"2", b"3"]).unwrap();
    let victim = fork(|| {
        let queue = ByteQueue::open(&arguments[0]).unwrap();
        queue.get().unwrap();
        queue.task_done().unwrap();
        queue.get().unwrap();
        nap(ms(100_000));
        1
    });
    until("the victim has its second", || queue.qsize() == 1);
    victim.kill();
    assert_eq!(queue.stats().unfinished, 2);
    queue.get().unwrap();
    queue.task_done().unwrap();
    let (joined, took) = timed(|| queue.join_timeout(BRIEFLY));
    assert!(!joined);
    assert_about(took, BRIEFLY);
    assert_eq!(queue.stats().unfinished, 1);
    // Somebody who knows that it is lost may say so.
    queue.task_done().unwrap();
    queue.join();
    queue.task_done().unwrap_err();
}

/// Killed between the commit and the count of it, or anywhere else: what is there is counted.
#[test]
fn what_a_producer_left_behind_that_died_is_counted_exactly() {
    survive("joinable::producer_dies", 100_000);
}

fn producer_dies(arguments: &[String]) {
    let queue = ByteQueue::open(&arguments[0]).unwrap();
    let mut puts = 0;
    for round in 0..40 {
        let victim = fork(|| {
            let queue = ByteQueue::open(&arguments[0]).unwrap();
            let producer = (round % 2 == 0).then(|| queue.producer().unwrap());
            loop {
                match &producer {
                    Some(producer) => producer.put(b"x").unwrap(),
                    None => queue.put_many(&[b"x", b"x"]).unwrap(),
                }
            }
        });
        until("the victim puts", || !queue.empty());
        nap(Duration::from_micros(100 * (round % 7)));
        victim.kill();
        // Before anybody takes the end over, and after it.
        for _ in 0..2 {
            let there = queue.qsize() as u64;
            assert_eq!(queue.stats().unfinished, there);
            assert_eq!(queue.stats().puts, puts + there);
            // On a quick machine the victim has filled the queue.
            let put = queue.put_nowait(b"more");
            assert!(matches!(put, Ok(()) | Err(PutError::Full)), "{put:?}");
        }
        puts = queue.stats().puts;
        let got = queue.get_many(usize::MAX).unwrap();
        assert_eq!(queue.qsize(), 0);
        for _ in got {
            queue.task_done().unwrap();
        }
        queue.join();
        queue.task_done().unwrap_err();
    }
}
