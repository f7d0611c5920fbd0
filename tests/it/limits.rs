//! What a segment lives on is taken away or replaced: its name, its file, its descriptors, the inodes of
//! shared memory. (`small_shm` has what there can be too little of from the start.)

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::faults::{self, shared};
use crate::harness::{
    self, Role, Stage, assert_about, assert_prompt, exists, fork, hear, ms, nap, object, say, timed, until,
};
use crate::small_shm::play_with;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("limits::few_inodes", few_inodes),
    ("limits::attached", attached),
    ("limits::closes_every_descriptor", closes_every_descriptor),
    ("limits::many_handles", many_handles),
];

/// Bytes are not the problem, and the error does not say that they were.
#[test]
fn shared_memory_without_an_inode_left_is_an_error_that_says_so() {
    play_with("-o size=1m,nr_inodes=3 tmpfs /dev/shm", "limits::few_inodes", &[]);
}

fn few_inodes(_: &[String]) {
    // One is the directory's.
    let first = Queue::<u8>::create("first", 4).unwrap();
    fs::write("/dev/shm/somebody-else", b"").unwrap();
    for refusal in [Queue::<u8>::create("second", 4), Queue::open_or_create("second", 4), Queue::new(4)] {
        let refusal = refusal.unwrap_err();
        assert!(matches!(refusal, OpenError::NoSpace { .. }), "{refusal:?}");
        let text = refusal.to_string();
        for word in ["inode", "df -i /dev/shm", "nr_inodes"] {
            assert!(text.contains(word), "it does not say {word}: {text}");
        }
        assert!(!text.contains("make the queue smaller"), "{text}");
        assert_eq!(std::io::Error::from(refusal).kind(), std::io::ErrorKind::StorageFull);
    }
    first.put(&1).unwrap();
    assert_eq!(first.get().unwrap(), 1);
    fs::remove_file("/dev/shm/somebody-else").unwrap();
    drop(Queue::<u8>::create("second", 4).unwrap());
    drop(first);
    assert_eq!(harness::names_beginning_with(""), [""; 0]);
}

/// The remedy in the error has to be one that works: `shmq::remove` does not touch these.
#[test]
fn what_can_be_no_segment_is_refused_with_the_command_that_deletes_it() {
    let stage = Stage::new();
    let name = stage.litter();
    let kinds: [&dyn Fn(); 3] = [
        &|| fs::create_dir_all(object(&name).join("inner")).unwrap(),
        &|| symlink("/nowhere", object(&name)).unwrap(),
        &|| harness::make_fifo(&object(&name)),
    ];
    for make in kinds {
        make();
        for refusal in [shmq::remove(&name).unwrap_err(), Queue::<u8>::open(&name).unwrap_err()] {
            let text = refusal.to_string();
            let (_, command) =
                text.split_once("the command ").unwrap_or_else(|| panic!("no command: {text}"));
            assert_eq!(command, format!("rm -r {}", object(&name).display()));
            assert!(!text.contains("delete it with shmq::remove"), "{text}");
        }
        let refusal = Queue::<u8>::open(&name).unwrap_err().to_string();
        let mut command = refusal.split_once("the command ").unwrap().1.split(' ');
        let status = std::process::Command::new(command.next().unwrap()).args(command).status().unwrap();
        assert!(status.success());
        Queue::<u8>::create(&name, 1).unwrap();
        assert!(!exists(&name));
    }
}

// ---------------------------------------------------------------------------------------------------
// A name removed or replaced under running processes

/// Attached for as long as its parent says, and does what it is told.
fn attached(arguments: &[String]) {
    let queue = Queue::<u64>::open(&arguments[0]).unwrap();
    say("attached");
    loop {
        match hear().split_once(' ') {
            Some(("put", number)) => queue.put_timeout(&number.parse().unwrap(), ms(10_000)).unwrap(),
            Some(("get", number)) => {
                assert_eq!(queue.get_timeout(ms(10_000)).unwrap(), number.parse::<u64>().unwrap());
            }
            Some(("count", number)) => {
                assert_eq!(queue.stats().attached, number.parse::<u64>().unwrap());
            }
            _ => return,
        }
        say("done");
    }
}

#[test]
fn a_queue_whose_name_is_removed_or_replaced_under_its_processes_goes_on_apart_from_the_new_one() {
    let ways: [&dyn Fn(&str); 3] = [
        &|name| shmq::remove(name).unwrap(),
        &|name| fs::remove_file(object(name)).unwrap(),
        // As a script does that writes a file beside and renames it: what is there then is not ours.
        &|name| {
            let beside = object(&format!("{name}beside"));
            fs::write(&beside, "a note").unwrap();
            fs::rename(&beside, object(name)).unwrap();
        },
    ];
    for (way, take_away) in ways.iter().enumerate() {
        let stage = Stage::new();
        let name = stage.litter();
        let mine = Queue::<u64>::create(&name, 4).unwrap();
        let mut old = [0, 1].map(|_| stage.child("limits::attached", &[&name]));
        for child in &mut old {
            child.heard("attached");
        }
        drop(mine);
        let order = |child: &mut harness::Child, order: &str| {
            child.tell(order);
            child.heard("done");
        };
        order(&mut old[0], "put 1");
        take_away(&name);
        if way == 2 {
            assert!(matches!(Queue::<u64>::open(&name), Err(OpenError::NotShmq { .. })));
            assert!(matches!(Queue::<u64>::create(&name, 4), Err(OpenError::AlreadyExists { .. })));
            shmq::remove(&name).unwrap();
        }
        let new = Queue::<u64>::create(&name, 4).unwrap();
        let mut young = stage.child("limits::attached", &[&name]);
        young.heard("attached");
        order(&mut young, "put 10");
        order(&mut old[1], "get 1");
        order(&mut old[1], "put 2");
        order(&mut old[0], "get 2");
        order(&mut old[0], "count 2");
        order(&mut young, "count 2");
        assert_eq!(new.get().unwrap(), 10);

        // One of the old ones dies, the other sees that; both then are gone, and the name is the new one's.
        let [mut dies, mut leaves] = old;
        dies.kill();
        order(&mut leaves, "count 1");
        leaves.tell("leave");
        leaves.finish();
        assert!(exists(&name), "they took the name of the new one");
        order(&mut young, "put 11");
        assert_eq!(new.get().unwrap(), 11);
        young.tell("leave");
        young.finish();
        assert_eq!(new.stats().attached, 1);
        drop(new);
        assert!(!exists(&name));
    }
}

/// The last of the old ones leaves while nobody has the name, and while somebody is just taking it.
#[test]
fn leaving_a_removed_queue_while_its_name_is_made_anew_takes_nothing_away() {
    let stage = Stage::new();
    let name = stage.name();
    for _ in 0..300 {
        let old = Queue::<u8>::create(&name, 1).unwrap();
        shmq::remove(&name).unwrap();
        std::thread::scope(|scope| {
            let leaving = scope.spawn(move || drop(old));
            let new = Queue::<u8>::create(&name, 1).unwrap();
            leaving.join().unwrap();
            assert!(exists(&name));
            drop(Queue::<u8>::open(&name).unwrap());
            drop(new);
            assert!(!exists(&name));
        });
    }
}

// ---------------------------------------------------------------------------------------------------
// Descriptors closed from outside

/// A program that makes itself a daemon after it has attached, and closes every descriptor there is. The mapping
/// stays, the lock that showed that it is alive is gone:
///
/// * its own calls go on as long as nobody else owns an end; they never hang past a deadline, and never touch a
///   descriptor that has come to bear the number since;
/// * to the others it is dead: it does not count, and the name may be made anew over it;
/// * when it leaves it takes nothing along, and what it opens by name works as ever.
#[test]
fn a_program_that_closes_every_descriptor_harms_neither_its_own_files_nor_others() {
    let stage = Stage::new();
    let [name, second] = [stage.litter(), stage.litter()];
    stage.child("limits::closes_every_descriptor", &[&name, &second]).finish();
    // It was the last at one of them, but could not show that any more; the other went as by a crash.
    for name in [&name, &second] {
        assert!(exists(name));
        drop(Queue::<u8>::create(name, 1).unwrap());
        assert!(!exists(name));
    }
}

fn closes_every_descriptor(arguments: &[String]) {
    const READY: usize = 0;
    const GO: usize = 1;
    let [name, second] = arguments else { panic!("{arguments:?}") };
    let words = shared::<AtomicU64>(2);
    let wait_for = |word: usize, value: u64| {
        until("the other process", || words[word].load(Ordering::SeqCst) >= value);
    };
    let daemon = fork(|| {
        let queue = Queue::<u64>::create(name, 4).unwrap();
        let other = Queue::<u64>::create(second, 4).unwrap();
        faults::close_every_descriptor();
        words[READY].store(1, Ordering::SeqCst);
        wait_for(GO, 1);
        // Nobody is in the way.
        for number in 0..20 {
            queue.put_timeout(&number, ms(5000)).unwrap();
            assert_eq!(queue.get_timeout(ms(5000)).unwrap(), number);
        }
        assert!(matches!(queue.get_timeout(ms(20)), Err(GetError::Empty)));
        _ = (queue.qsize(), queue.full(), format!("{queue:?}"), queue.stats());

        // Its own files get the numbers that the handles had.
        let path = std::env::temp_dir().join(format!("shmq-daemon-{}", std::process::id()));
        let mut files: Vec<_> = (0..64)
            .map(|_| fs::OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap())
            .collect();
        fs::remove_file(&path).unwrap();
        queue.put_timeout(&1, ms(5000)).unwrap();
        assert_eq!(queue.get_timeout(ms(5000)).unwrap(), 1);
        drop(other);
        for file in &mut files {
            file.write_all(b"x").expect("a drop closed a file of the program's");
        }
        let mut all = vec![0; 100];
        let len = files[0].read_at(&mut all, 0).unwrap();
        assert_eq!(all[..len], [b'x'; 64], "something was written into a file of the program's");

        // Opened anew, it is as if nothing had happened; and what is not a lease descriptor is not replaced in a
        // forked child.
        let again = Queue::<u64>::open(name).unwrap();
        assert!(again.stats().attached >= 1);
        let child = fork(|| {
            for file in &mut files {
                file.write_all(b"y").unwrap();
            }
            // The broken handle cannot show that the child is alive, and says so.
            let text = queue.put_timeout(&2, ms(5000)).unwrap_err().to_string();
            assert!(text.contains("closed from outside") && text.contains("open the queue again"), "{text}");
            again.put_timeout(&3, ms(5000)).unwrap();
            0
        });
        assert_eq!(child.wait(), 0);
        assert_eq!(again.get_timeout(ms(5000)).unwrap(), 3);
        drop(again);

        words[READY].store(2, Ordering::SeqCst);
        wait_for(GO, 2);
        // Others are in the way: an end is held, by somebody who can or cannot be asked about.
        let (put, took) = timed(|| queue.put_timeout(&1, ms(100)));
        match put {
            Err(PutError::Full) => assert_about(took, ms(100)),
            Err(PutError::Io(_)) => {}
            other => panic!("{other:?}"),
        }
        let (put, took) = timed(|| queue.put_nowait(&1));
        assert!(put.is_err());
        assert_prompt(took);
        words[READY].store(3, Ordering::SeqCst);
        wait_for(GO, 3);
        queue.put_timeout(&5, ms(5000)).unwrap();
        queue.close();
        drop(queue);
        for file in &mut files {
            file.write_all(b"z").unwrap();
        }
        0
    });
    wait_for(READY, 1);
    // It seems to be dead: nobody is attached but us, and after us nobody.
    let seen = Queue::<u64>::open(name).unwrap();
    assert_eq!(seen.stats().attached, 1);
    words[GO].store(1, Ordering::SeqCst);
    until_ready(words, READY, 2, &daemon);

    // An end held by somebody who then dies. The daemon cannot tell, and waits for no longer than it was told.
    let owner = crate::stress::Owner::of(name, crate::broken::PUT_LOCK);
    words[GO].store(2, Ordering::SeqCst);
    nap(ms(20));
    owner.dies();
    until_ready(words, READY, 3, &daemon);
    // Somebody else takes the end over.
    let (put, took) = timed(|| seen.put_timeout(&4, ms(10_000)));
    put.unwrap();
    assert_prompt(took);
    assert_eq!(seen.get().unwrap(), 4);
    words[GO].store(3, Ordering::SeqCst);
    assert_eq!(daemon.wait(), 0);
    assert_eq!(seen.get().unwrap(), 5);
    assert!(matches!(seen.get_timeout(Duration::from_secs(5)), Err(GetError::Closed)));
    // Left by the way of a crash: the test wants to see that the name can be had again.
    std::mem::forget(seen);
}

fn until_ready(words: &[AtomicU64], word: usize, value: u64, daemon: &harness::Forked) {
    until("the daemon is ready", || {
        assert_eq!(daemon.has_ended(), None, "it ended too early");
        words[word].load(Ordering::SeqCst) >= value
    });
}

// ---------------------------------------------------------------------------------------------------
// Very many handles

/// All are counted, in a time that nobody notices.
#[test]
fn some_hundred_handles_are_counted_and_none_is_left_out() {
    let stage = Stage::new();
    let said = stage.child("limits::many_handles", &[&stage.name()]).finish();
    println!("{said:?}");
}

fn many_handles(arguments: &[String]) {
    const HANDLES: usize = 400;
    harness::limit_for_now(libc::RLIMIT_NOFILE, None);
    let mut options = QueueOptions::new();
    options.capacity(1).max_message(8);
    let first = options.create::<u8>(&arguments[0]).unwrap();
    let mut others: Vec<ByteQueue> = Vec::new();
    for handles in 2..=HANDLES {
        match ByteQueue::open(&arguments[0]) {
            Ok(queue) => others.push(queue),
            Err(error) => panic!("handle {handles}: {error}"),
        }
        if handles % 50 == 0 {
            assert_eq!(first.stats().attached, handles as u64);
        }
    }
    let (count, took) = timed(|| (0..10).map(|_| others[7].stats().attached).sum::<u64>());
    assert_eq!(count, 10 * HANDLES as u64);
    assert_prompt(took);
    say(&format!("{:?} for {HANDLES} handles", took / 10));
    // From the middle, so that there are gaps.
    for left in (1..HANDLES).rev().step_by(13) {
        others.swap_remove(left / 2);
        assert_eq!(others[0].stats().attached, others.len() as u64 + 1);
        if others.len() < 13 {
            break;
        }
    }
    drop(others);
    assert_eq!(first.stats().attached, 1);
}
