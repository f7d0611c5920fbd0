//! `wait`: one sleep for many sources, with `futex_waitv` and where it is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shmq::{ByteQueue, Connection, GetError, Queue, Receiver, Source, WaitError, wait};

use crate::harness::{
    Record, Role, Stage, assert_about, assert_prompt, assert_woken, fork, ms, nap, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("waiting::ended", ended),
    ("waiting::woken_by_others", woken_by_others),
    ("waiting::passes_on", passes_on),
    ("waiting::refused", refused),
    ("waiting::in_a_child", in_a_child),
];

fn play(role: &str, arguments: &[&str]) {
    let said = Stage::new().child(role, arguments).finish();
    println!("{said:?}");
}

/// Which are ready now.
fn now(sources: &[&dyn Source]) -> Vec<usize> {
    wait(sources, Some(Duration::ZERO)).unwrap()
}

#[test]
fn it_tells_which_are_ready_in_ascending_order() {
    let numbers = Queue::<u32>::new(4).unwrap();
    let bytes = ByteQueue::new(4).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let sources: &[&dyn Source] = &[&numbers, &bytes, &receiver, &here];
    assert!(now(sources).is_empty());
    there.send(&1).unwrap();
    assert_eq!(wait(sources, None).unwrap(), [3]);
    bytes.put(b"x").unwrap();
    assert_eq!(wait(sources, None).unwrap(), [1, 3]);
    numbers.put(&1).unwrap();
    sender.send(&1).unwrap();
    assert_eq!(wait(sources, Some(ms(10_000))).unwrap(), [0, 1, 2, 3]);
    // It takes nothing, so it says the same again.
    assert_eq!(now(sources), [0, 1, 2, 3]);
    assert_eq!((numbers.get().unwrap(), bytes.get().unwrap()), (1, b"x".to_vec()));
    assert_eq!((receiver.recv().unwrap(), here.recv().unwrap()), (1, 1));
    assert!(now(sources).is_empty());
    // The other direction of a connection is not waited for.
    here.send(&1).unwrap();
    assert!(now(sources).is_empty());
    // The same one twice, in any order.
    numbers.put(&1).unwrap();
    assert_eq!(now(&[&numbers, &bytes, &numbers]), [0, 2]);
}

#[test]
fn what_is_closed_or_at_its_end_is_ready() {
    play("waiting::ended", &[]);
}

fn ended(_: &[String]) {
    let queue = Queue::<u32>::new(4).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let sources: &[&dyn Source] = &[&queue, &receiver, &here];
    queue.close();
    assert_eq!(wait(sources, None).unwrap(), [0]);
    drop(sender);
    assert_eq!(wait(sources, None).unwrap(), [0, 1]);
    let (sending, receiving) = there.split();
    drop(receiving);
    assert_eq!(wait(sources, None).unwrap(), [0, 1]);
    drop(sending);
    for _ in 0..3 {
        assert_eq!(wait(sources, None).unwrap(), [0, 1, 2]);
    }
}

#[test]
fn its_time_is_kept() {
    let queue = Queue::<u32>::new(4).unwrap();
    let (receiver, _sender) = shmq::simplex::<u8>().unwrap();
    let sources: &[&dyn Source] = &[&queue, &receiver, &queue];
    for timeout in [0, 1, 7, 60, 130].map(ms) {
        let (ready, took) = timed(|| wait(sources, Some(timeout)).unwrap());
        assert!(ready.is_empty());
        assert_about(took, timeout);
    }
    for nothing in [None, Some(Duration::MAX), Some(ms(60_000))] {
        let (ready, took) = timed(|| wait(&[], nothing).unwrap());
        assert!(ready.is_empty());
        assert_prompt(took);
    }
    queue.put(&1).unwrap();
    assert_eq!(wait(sources, Some(Duration::MAX)).unwrap(), [0, 2]);
}

#[test]
fn it_waits_on_128_and_not_on_129() {
    let queues: Vec<_> = (0..129).map(|_| Queue::<u32>::new(1).unwrap()).collect();
    let sources: Vec<&dyn Source> = queues.iter().map(|queue| queue as &dyn Source).collect();
    let (ready, took) = timed(|| wait(&sources[..128], Some(ms(30))).unwrap());
    assert!(ready.is_empty());
    assert_about(took, ms(30));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| wait(&sources[..128], None).unwrap());
        nap(ms(10));
        queues[127].put(&1).unwrap();
        assert_eq!(waiter.join().unwrap(), [127]);
    });
    for queue in &queues[..127] {
        queue.put(&1).unwrap();
    }
    assert!(wait(&sources[..128], None).unwrap().into_iter().eq(0..128));
    let (refused, took) = timed(|| wait(&sources, None));
    assert!(matches!(refused, Err(WaitError::TooMany { given: 129, max: 128 })), "{refused:?}");
    assert_prompt(took);
    let same = vec![&queues[128] as &dyn Source; 128];
    assert!(now(&same).is_empty());
    assert!(wait(&same, Some(ms(5))).unwrap().is_empty());
}

/// Each source once, by another process: a put, a close, a send, the end of a pipe.
#[test]
fn each_source_ends_the_sleep() {
    play("waiting::woken_by_others", &[]);
}

fn woken_by_others(_: &[String]) {
    let mut turn = 0;
    let mut trial = || {
        let numbers = Queue::<u32>::new(4).unwrap();
        let bytes = ByteQueue::new(4).unwrap();
        let (receiver, sender) = shmq::simplex::<u8>().unwrap();
        let mut ends = Some(shmq::pipe::<u8, u8>().unwrap());
        let (receiver, mut sender) = (Some(receiver), Some(sender));
        turn = (turn + 1) % 6;
        let due = [0, 1, 2, 3, 2, 3][turn];
        let waiter = fork(|| {
            drop(sender.take());
            let (here, there) = ends.take().unwrap();
            drop(there);
            let receiver = receiver.as_ref().unwrap();
            i32::from(wait(&[&numbers, &bytes, receiver, &here], None).unwrap() != [due])
        });
        let (here, there) = ends.take().unwrap();
        waiter.falls_asleep();
        let ((), took) = timed(|| {
            match turn {
                0 => numbers.put(&1).unwrap(),
                1 => bytes.close(),
                2 => sender.as_ref().unwrap().send(&1).unwrap(),
                3 => there.send(&1).unwrap(),
                4 => drop(sender.take()),
                _ => drop(there),
            }
            assert_eq!(waiter.wait(), 0);
        });
        drop(here);
        took
    };
    assert_woken(ms(20), &mut trial);
}

/// Several wait and one gets: a wake-up that reaches who takes nothing goes on to who does.
#[test]
fn who_waits_passes_the_wake_up_on_to_who_takes() {
    play("waiting::passes_on", &[]);
}

fn passes_on(_: &[String]) {
    const WAITERS: usize = 3;
    let queue = Queue::<u32>::new(4).unwrap();
    let other = Queue::<u32>::new(4).unwrap();
    let trial = || {
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                let waiter = fork(|| {
                    // It may find that it was taken before it looked.
                    let ready = wait(&[&other, &queue], Some(ms(20_000))).unwrap();
                    i32::from(ready != [1] && ready != [0, 1])
                });
                // One after the other, and the one who takes is last: the kernel wakes in that order.
                waiter.falls_asleep();
                waiter
            })
            .collect();
        let taker = fork(|| i32::from(queue.get().unwrap() != 7));
        taker.falls_asleep();
        let ((), took) = timed(|| {
            queue.put(&7).unwrap();
            assert_eq!(taker.wait(), 0);
        });
        assert!(queue.empty());
        // Whoever came too late to see it sleeps on.
        other.put(&1).unwrap();
        queue.put(&8).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.wait(), 0);
        }
        assert_eq!((other.get().unwrap(), queue.get().unwrap()), (1, 8));
        took
    };
    assert_woken(ms(20), trial);
}

/// A source that always has something does not keep another one from its turn.
#[test]
fn nobody_starves_in_a_loop() {
    let busy = Queue::<u64>::new(64).unwrap();
    let rare = Queue::<u64>::new(64).unwrap();
    let (receiver, sender) = shmq::simplex::<u64>().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if busy.put(&number).is_err() {
                    break;
                }
            }
        });
        scope.spawn(|| {
            for number in 0..100 {
                rare.put(&number).unwrap();
                sender.send(&number).unwrap();
                nap(Duration::from_micros(300));
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut due = [0; 3];
        // A message is there for so many turns at most before it is taken: one.
        while due[1] < 100 || due[2] < 100 {
            let waiting = [rare.empty(), !receiver.poll(Duration::ZERO).unwrap()];
            let ready = wait(&[&busy, &rare, &receiver], Some(ms(20_000))).unwrap();
            assert!(!ready.is_empty() && ready.is_sorted());
            assert!(waiting[0] || ready.contains(&1), "it was passed over");
            assert!(waiting[1] || ready.contains(&2), "it was passed over");
            for at in ready {
                let got = match at {
                    0 => busy.get_nowait(),
                    1 => rare.get_nowait(),
                    _ => receiver.recv_nowait(),
                };
                assert_eq!(got.unwrap(), due[at]);
                due[at] += 1;
            }
        }
        assert!(over.load(Ordering::Relaxed) || due[1] == 100);
        busy.close();
    });
}

/// A loop of `wait` and `get_nowait` over what several processes put loses and doubles nothing.
#[test]
fn several_who_wait_and_take_share_what_there_is() {
    const COUNT: u64 = 3000;
    let queue = Queue::<u64>::new(16).unwrap();
    let (receiver, sender) = shmq::simplex::<u64>().unwrap();
    let take = || {
        let mut sum = [0_u64; 2];
        let mut open = [true; 2];
        while open.contains(&true) {
            for at in wait(&[&queue, &receiver], Some(ms(20_000))).unwrap() {
                let got = if at == 0 { queue.get_nowait() } else { receiver.recv_nowait() };
                match got {
                    Ok(number) => sum[at] += number,
                    Err(GetError::Empty) => {}
                    Err(GetError::Closed) => open[at] = false,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        sum
    };
    let sums: Vec<_> = thread::scope(|scope| {
        let takers: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
        scope.spawn(|| {
            (1..=COUNT).for_each(|number| queue.put(&number).unwrap());
            queue.close();
        });
        (1..=COUNT).for_each(|number| sender.send(&number).unwrap());
        drop(sender);
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    let due = COUNT * (COUNT + 1) / 2;
    assert_eq!([0, 1].map(|at| sums.iter().map(|sum| sum[at]).sum::<u64>()), [due; 2]);
}

#[test]
fn a_forked_child_waits_on_what_it_inherited() {
    play("waiting::in_a_child", &[]);
}

fn in_a_child(_: &[String]) {
    let queue = Queue::<u32>::new(4).unwrap();
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let child = fork(|| {
        drop(there.clone());
        assert_eq!(wait(&[&queue, &here], None).unwrap(), [0]);
        assert_eq!(queue.get().unwrap(), 1);
        assert_eq!(wait(&[&queue, &here], None).unwrap(), [1]);
        i32::from(here.recv().unwrap() != 2)
    });
    child.falls_asleep();
    queue.put(&1).unwrap();
    child.falls_asleep();
    there.send(&2).unwrap();
    assert_eq!(child.wait(), 0);
}

// Where the kernel refuses

#[test]
fn where_the_kernel_is_too_old_it_works_as_well() {
    play("waiting::refused", &[&libc::ENOSYS.to_string()]);
}

#[test]
fn where_a_filter_refuses_it_works_as_well() {
    play("waiting::refused", &[&libc::EPERM.to_string()]);
}

fn refused(arguments: &[String]) {
    let error = arguments[0].parse().unwrap();
    refuse_futex_waitv(error);
    let queue = Queue::<u32>::new(4).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let sources: &[&dyn Source] = &[&queue, &receiver];
    for timeout in [0, 1, 7, 60].map(ms) {
        let (ready, took) = timed(|| wait(sources, Some(timeout)).unwrap());
        assert!(ready.is_empty());
        assert_about(took, timeout);
    }
    let mut turn = 0;
    assert_woken(ms(20), || {
        turn = (turn + 1) % 2;
        let record = Record::new();
        let waiter = fork(|| {
            record.set(0, 1);
            let ready = wait(sources, None).unwrap();
            record.set(0, 2);
            i32::from(ready != [turn])
        });
        until("it waits", || record.get(0) == 1);
        nap(ms(3));
        assert_eq!(record.get(0), 1, "it did not wait");
        let ((), took) = timed(|| {
            match turn {
                0 => queue.put(&1).unwrap(),
                _ => sender.send(&1).unwrap(),
            }
            assert_eq!(waiter.wait(), 0);
        });
        match turn {
            0 => assert_eq!(queue.get().unwrap(), 1),
            _ => assert_eq!(receiver.recv().unwrap(), 1),
        }
        took
    });
    drop(sender);
    assert_eq!(wait(sources, None).unwrap(), [1]);
    queue.close();
    assert_eq!(wait(sources, None).unwrap(), [0, 1]);
    // It sleeps between its looks: a wait for nothing costs little.
    let (nothing, _kept): (Receiver<u8>, _) = shmq::simplex().unwrap();
    let before = processor_time();
    assert!(wait(&[&nothing], Some(ms(300))).unwrap().is_empty());
    let used = processor_time().saturating_sub(before);
    assert!(used < ms(150), "it used {used:?} of the processor");
    say(&format!("used {used:?} in 300 ms"));
    // A connection, for the last kind of source.
    let (here, there): (Connection<u8, u8>, _) = shmq::pipe().unwrap();
    there.send(&1).unwrap();
    assert_eq!(wait(&[&here], None).unwrap(), [0]);
}

/// How long this thread has run.
#[expect(unsafe_code, reason = "std has no such clock")]
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write to.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(got, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// From here on the kernel answers `futex_waitv` with this error, to this thread and to those made from it.
#[expect(unsafe_code, reason = "prctl, and the call itself")]
fn refuse_futex_waitv(error: i32) {
    let number = u32::try_from(libc::SYS_futex_waitv).unwrap();
    let code = u32::try_from(error).unwrap();
    let step = |code: u32, value: u32, no: u8| libc::sock_filter {
        code: code.try_into().unwrap(),
        jt: 0,
        jf: no,
        k: value,
    };
    let mut program = [
        // The number of the system call is the first word of what the filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | code, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: no memory is passed.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    // SAFETY: the program is a valid one that lives until the call is over; the kernel copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "no filter: {}", std::io::Error::last_os_error());
    // SAFETY: an empty list is refused anyway.
    let called = unsafe { libc::syscall(libc::SYS_futex_waitv, 0, 0, 0, 0, 0) };
    let refused = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((called, refused), (-1, Some(error)), "the filter does nothing");
}
