//! Too little of something: shared memory, file size, descriptors, addresses. An error that says which, never
//! a signal.

use std::fs;
use std::process::{Command, Stdio};

use shmq::{ByteQueue, OpenError, PutError, Queue, QueueOptions};

use crate::harness::{
    Role, Stage, become_user, crash, exists, fork, is_root, limit, limit_for_now, ms, names_beginning_with,
    nap, object,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("small_shm::one_mebibyte", one_mebibyte),
    ("small_shm::not_to_be_had", not_to_be_had),
    ("small_shm::for_others_only", for_others_only),
    ("small_shm::file_size", file_size),
    ("small_shm::few_descriptors", few_descriptors),
    ("small_shm::few_descriptors_for_what_a_crash_left", few_descriptors_for_what_a_crash_left),
    ("small_shm::few_addresses", few_addresses),
];

const MEBI: u64 = 1 << 20;

/// The beginning of a command that runs the rest of it with a /dev/shm of its own, mounted like this; `None` if
/// that is not allowed.
fn mounted(mount: &str) -> Option<Vec<String>> {
    let unshare = if is_root() { "-m" } else { "-Urm" };
    let script = format!("mount -t tmpfs {mount} && exec \"$0\" \"$@\"");
    let launcher = ["unshare", unshare, "sh", "-c", &script].map(str::to_owned);
    let trial = Command::new("unshare").args(&launcher[1..]).arg("true").stderr(Stdio::null()).status();
    trial.is_ok_and(|status| status.success()).then(|| launcher.to_vec())
}

/// See `mounted`: a /dev/shm that nobody else uses.
pub(crate) fn private_shm() -> Option<Vec<String>> {
    mounted("-o size=64m tmpfs /dev/shm")
}

/// Plays the role in a process with a /dev/shm of its own, mounted like this.
pub(crate) fn play_with(mount: &str, role: &str, arguments: &[&str]) {
    let Some(launcher) = mounted(mount) else {
        println!("skipped: not allowed to mount anything here");
        return;
    };
    let launcher: Vec<_> = launcher.iter().map(String::as_str).collect();
    let stage = Stage::new();
    let said = stage.child_under(&launcher, role, arguments).finish();
    println!("{said:?}");
}

#[test]
fn a_queue_larger_than_shared_memory_is_an_error_and_a_smaller_one_works_to_the_last_byte() {
    play_with("-o size=1m tmpfs /dev/shm", "small_shm::one_mebibyte", &[]);
}

/// As in a container without one, or without /proc, or with one that only root may use.
#[test]
fn without_a_usable_dev_shm_there_is_an_error_and_nothing_else() {
    play_with("tmpfs /dev", "small_shm::not_to_be_had", &["there is no directory /dev/shm"]);
    play_with("-o ro tmpfs /dev/shm", "small_shm::not_to_be_had", &["/dev/shm is mounted read-only"]);
    play_with("tmpfs /proc", "small_shm::not_to_be_had", &["/proc is not mounted"]);
    if is_root() {
        play_with("-o mode=755 tmpfs /dev/shm", "small_shm::for_others_only", &[]);
    } else {
        println!("skipped: root alone can become somebody else");
    }
}

fn not_to_be_had(arguments: &[String]) {
    for refusal in [Queue::<u8>::new(1), Queue::create("name", 1), Queue::open_or_create("name", 1)] {
        let refusal = refusal.unwrap_err();
        assert!(matches!(refusal, OpenError::Io(_)), "{refusal:?}");
        let text = refusal.to_string();
        for words in ["cannot create", &arguments[0]] {
            assert!(text.contains(words), "it does not say {words:?}: {text}");
        }
    }
    assert!(matches!(Queue::<u8>::open("name"), Err(OpenError::NotFound { .. })));
    assert!(matches!(shmq::remove("name"), Err(OpenError::NotFound { .. })));
}

fn for_others_only(_: &[String]) {
    let queue: Queue<u8> = QueueOptions::new().capacity(1).mode(0o666).create("open").unwrap();
    become_user(65_534);
    for refusal in [Queue::<u8>::new(1), Queue::create("name", 1), Queue::open_or_create("name", 1)] {
        let refusal = refusal.unwrap_err();
        assert!(matches!(refusal, OpenError::PermissionDenied { .. }), "{refusal:?}");
    }
    // What exists can be used, and left, but its name cannot be taken away.
    let opened = Queue::<u8>::open("open").unwrap();
    opened.put(&1).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    assert!(matches!(shmq::remove("open"), Err(OpenError::PermissionDenied { .. })));
    drop((queue, opened));
    assert_eq!(names_beginning_with(""), ["open"]);
}

fn one_mebibyte(_: &[String]) {
    let mut large = QueueOptions::new();
    large.capacity(4096).max_message(1016).ring_bytes(4 << 20);
    let refusals = [
        large.create::<u8>("large").unwrap_err(),
        large.open_or_create::<u8>("large").unwrap_err(),
        large.anonymous::<u8>().unwrap_err(),
        large.clone().persistent(true).create::<u8>("large").unwrap_err(),
    ];
    for refusal in refusals {
        let OpenError::NoSpace { needed, available, .. } = refusal else { panic!("{refusal:?}") };
        assert!((4 * MEBI..5 * MEBI).contains(&needed), "{needed}");
        assert!((MEBI / 2..=MEBI).contains(&available), "{available}");
        let text = refusal.to_string();
        for word in [&needed.to_string(), &available.to_string(), "/dev/shm", "shm-size", "ring_bytes"] {
            assert!(text.contains(word), "it does not say {word}: {text}");
        }
        assert_eq!(std::io::Error::from(refusal).kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(names_beginning_with(""), [""; 0], "the name is free");
    }

    // The largest that fits: whatever is free, but for the last page that does not.
    let ring = (1..=256).rev().map(|pages| pages * 4096).find(|ring| fits(*ring)).unwrap();
    assert!(ring > 900 << 10, "{ring}");
    let queue = ByteQueue::from(options(ring).create::<()>("fits").unwrap());
    let one_more = Queue::<u8>::create("one-more", 1);
    assert!(matches!(one_more, Err(OpenError::NoSpace { .. })), "{one_more:?}");
    for round in 0..3_u8 {
        let mut held = 0;
        while queue.put_nowait(&[round; 1016]).is_ok() {
            held += 1;
        }
        assert!(held >= ring / 1024 - 1, "{held} of {}", ring / 1024);
        assert!(queue.full());
        for _ in 0..held {
            assert_eq!(queue.get_nowait().unwrap(), [round; 1016]);
        }
        // Begins elsewhere next time.
        queue.put(&[round; 500]).unwrap();
        queue.get().unwrap();
    }
    assert!(matches!(queue.put(&[0; 1017]), Err(PutError::TooLong { .. })));
    drop(queue);

    // Somebody else fills shared memory up: those who have their queue do not notice.
    let queue = ByteQueue::from(options(ring / 2).create::<()>("half").unwrap());
    let filled = fs::write("/dev/shm/somebody-else", vec![1; 1 << 20]);
    assert!(filled.is_err(), "it is full now");
    while queue.put_nowait(&[7; 1016]).is_ok() {}
    while !queue.empty() {
        assert_eq!(queue.get().unwrap(), [7; 1016]);
    }
    let none = Queue::<u8>::new(1).unwrap_err();
    assert!(matches!(none, OpenError::NoSpace { available: 0..4096, .. }), "{none:?}");
    assert_eq!(names_beginning_with(""), ["half"]);
    drop(queue);
    Queue::<u8>::create("half", 1).unwrap();
    assert_eq!(names_beginning_with(""), [""; 0]);
}

fn options(ring: usize) -> QueueOptions {
    QueueOptions::new().capacity(4096).max_message(1016).ring_bytes(ring).clone()
}

fn fits(ring: usize) -> bool {
    match options(ring).create::<u8>("fits") {
        Ok(_) => true,
        Err(OpenError::NoSpace { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

// Limits of the process

/// Past this limit the kernel sends a signal, which would kill.
#[test]
fn a_queue_larger_than_the_limit_on_file_size_is_an_error() {
    let stage = Stage::new();
    stage.child("small_shm::file_size", &[&stage.name()]).finish();
}

fn file_size(arguments: &[String]) {
    let name = &arguments[0];
    let large = QueueOptions::new().capacity(100).max_message(1000).clone();
    let before: Queue<String> = large.create(name).unwrap();
    limit(libc::RLIMIT_FSIZE, 64 << 10);
    let refusals = [large.anonymous::<u8>().unwrap_err(), {
        shmq::remove(name).unwrap();
        large.open_or_create::<u8>(name).unwrap_err()
    }];
    for refusal in refusals {
        assert!(matches!(refusal, OpenError::Io(_)), "{refusal:?}");
        let text = refusal.to_string();
        assert!(text.contains("RLIMIT_FSIZE") && text.contains("65536"), "{text}");
        assert!(!exists(name));
    }
    let small = Queue::<String>::create(name, 4).unwrap();
    for queue in [small, before] {
        queue.put(&"x".repeat(900)).unwrap();
        assert_eq!(queue.get().unwrap(), "x".repeat(900));
    }
}

/// Each of these calls opens more than one file. Whichever it is that cannot be opened, the error says why,
/// and with more descriptors everything is as before.
#[test]
fn too_few_descriptors_are_an_error_that_names_the_limit() {
    let stage = Stage::new();
    stage.child("small_shm::few_descriptors", &[&stage.name(), &stage.name()]).finish();
}

fn few_descriptors(arguments: &[String]) {
    let [existing, new] = arguments else { panic!("{arguments:?}") };
    let queue = Queue::<u8>::create(existing, 4).unwrap();
    let mut failed = 0;
    let mut check = |refused: Result<Queue<u8>, OpenError>, free: u64| match refused {
        Ok(_) => assert!(free > 0, "nothing can be opened"),
        Err(OpenError::Io(error)) => {
            failed += 1;
            let text = error.to_string();
            assert!(text.contains("RLIMIT_NOFILE"), "it does not name the limit: {text}");
        }
        Err(error) => panic!("{error:?}"),
    };
    for free in 0..5 {
        let used = highest_descriptor() + 1;
        limit_for_now(libc::RLIMIT_NOFILE, Some(used + free));
        check(Queue::open(existing), free);
        check(Queue::open_or_create(existing, 1), free);
        check(Queue::create(new, 1), free);
        check(Queue::open_or_create(new, 1), free);
        check(Queue::new(1), free);
        queue.put(&1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        limit_for_now(libc::RLIMIT_NOFILE, None);
        assert!(!exists(new));
        assert_eq!(queue.stats().attached, 1);
    }
    assert!(failed >= 8, "only {failed} calls had too few");
    assert!(matches!(Queue::<u8>::create(existing, 1), Err(OpenError::AlreadyExists { .. })));
    Queue::<u8>::create(new, 1).unwrap();
}

fn highest_descriptor() -> u64 {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    // The directory itself is one of them, and closed again afterwards.
    let numbers = descriptors.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    // From 0 on without a gap, as far as it matters: the next one opened is the first that is free.
    (0..).zip(&numbers).take_while(|(at, number)| at == *number).count() as u64 - 2
}

/// A queue that a crash of everybody left keeps its messages for whoever opens it; somebody who tries and
/// fails for a reason of its own must not take them away.
#[test]
fn an_open_that_fails_takes_nothing_from_a_queue_that_a_crash_left() {
    let stage = Stage::new();
    let name = stage.name();
    stage.child("small_shm::few_descriptors_for_what_a_crash_left", &[&name]).finish();
}

fn few_descriptors_for_what_a_crash_left(arguments: &[String]) {
    let name = &arguments[0];
    let crashed = fork(|| {
        let queue = Queue::create(name, 4).unwrap();
        queue.put(&7_u8).unwrap();
        std::mem::forget(queue);
        0
    });
    assert_eq!(crashed.wait(), 0);
    assert!(exists(name));
    let mut refused = 0;
    for free in 0..2 {
        limit_for_now(libc::RLIMIT_NOFILE, Some(highest_descriptor() + 1 + free));
        refused += u32::from(Queue::<u8>::open(name).is_err());
        limit_for_now(libc::RLIMIT_NOFILE, None);
    }
    assert_eq!(refused, 2, "one descriptor is not enough");
    assert!(exists(name), "an open that failed has removed it");
    assert_eq!(Queue::<u8>::open(name).unwrap().get().unwrap(), 7);
}

#[test]
fn too_little_address_space_is_an_error_that_names_the_limit() {
    let stage = Stage::new();
    stage.child("small_shm::few_addresses", &[&stage.name()]).finish();
}

fn few_addresses(arguments: &[String]) {
    let name = &arguments[0];
    // The watchdog's thread takes some when it begins.
    nap(ms(50));
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, pages * 4096 + (12 << 20));
    let large = QueueOptions::new().capacity(100).max_message(1 << 20).ring_bytes(20 << 20).clone();
    for refusal in [large.create::<u8>(name).unwrap_err(), large.anonymous::<u8>().unwrap_err()] {
        assert!(matches!(refusal, OpenError::Io(_)), "{refusal:?}");
        assert!(refusal.to_string().contains("RLIMIT_AS"), "{refusal}");
        assert!(!exists(name));
    }
    let small = Queue::<u8>::create(name, 4).unwrap();
    small.put(&1).unwrap();
    assert_eq!(small.get().unwrap(), 1);
    assert!(fs::metadata(object(name)).unwrap().len() > 0);
    drop(small);
    crash();
}
