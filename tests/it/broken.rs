//! Segments that are damaged, foreign, or scribbled over while they are in use: an error that says so or an
//! ordinary result; never a panic, never a wait past the deadline.
//!
//! Nothing here truncates a segment in use: that is the one thing that nobody can be protected from.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shmq::{ByteQueue, GetError, OpenError, PutError, Queue, QueueOptions};

use crate::harness::{
    self, Random, Role, Stage, assert_about, assert_prompt, exists, hear, ms, object, say, timed, until,
};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("broken::another_user", another_user),
    ("broken::holds_a_handle", holds_a_handle),
    ("broken::locked_by_somebody_else", locked_by_somebody_else),
];

// Where things lie: the byte tables of `src/layout.rs` and `src/ring.rs`.
const VERSION: usize = 8;
pub(crate) const FLAGS: usize = 12;
const NONCE: usize = 16;
const KIND: usize = 24;
pub(crate) const SCHEMA_LEN: usize = 28;
pub(crate) const CAPACITY: usize = 32;
pub(crate) const MAX_MESSAGE: usize = 40;
const RING_OFFSET: usize = 48;
pub(crate) const RING_LEN: usize = 56;
const SCHEMA: usize = 64;
/// The words that change.
pub(crate) const LIVE: std::ops::Range<u64> = 512..1792;
pub(crate) const PUT_LOCK: u64 = 1024;
pub(crate) const TAIL: u64 = 1152;
pub(crate) const GET_LOCK: u64 = 1280;
pub(crate) const HEAD: u64 = 1408;
pub(crate) const NOT_EMPTY: u64 = 1536;
pub(crate) const NOT_FULL: u64 = 1664;
pub(crate) const RING: u64 = 4096;

// Flags of a lock word.
pub(crate) const WAITERS: u32 = 1 << 31;
pub(crate) const CLOSED: u32 = 1 << 30;
const HELD: u32 = 1 << 29;
pub(crate) const STARVED: u32 = 1 << 28;
/// The owner whose id was given away.
pub(crate) const TOMB: u32 = (1 << 28) - 1;

/// The shape that all specimens have.
fn options() -> QueueOptions {
    QueueOptions::new().capacity(4).max_message(32).schema("label").clone()
}

/// The bytes of a segment with two messages in it.
fn specimen(stage: &Stage) -> Vec<u8> {
    let queue: Queue<u32> = options().create(&stage.name()).unwrap();
    queue.put(&1).unwrap();
    queue.put(&2).unwrap();
    fs::read(object(queue.name())).unwrap()
}

/// What every way of opening says; they agree.
#[track_caller]
fn refusals(name: &str) -> Vec<OpenError> {
    let refusals = vec![
        Queue::<u32>::open(name).unwrap_err(),
        ByteQueue::open(name).unwrap_err(),
        QueueOptions::new().open::<u32>(name).unwrap_err(),
        Queue::<u32>::open_or_create(name, 1).unwrap_err(),
        ByteQueue::open_or_create(name, 1).unwrap_err(),
    ];
    for refusal in &refusals {
        assert_eq!(refusal.to_string(), refusals[0].to_string());
    }
    refusals
}

#[track_caller]
fn is_not_shmq(name: &str, word: &str) {
    for refusal in refusals(name) {
        assert!(matches!(&refusal, OpenError::NotShmq { name: said, .. } if said == name), "{refusal:?}");
        let text = refusal.to_string();
        assert!(text.contains(&format!("/dev/shm/shmq.{name}")) && text.contains("shmq::remove"), "{text}");
        assert!(text.contains(word), "it does not say {word:?}: {text}");
    }
}

/// `create` leaves it alone, and says that the name is taken.
#[track_caller]
fn is_left_alone(name: &str) {
    let before = fs::symlink_metadata(object(name)).unwrap();
    let content = fs::read(object(name)).ok();
    let persistent = || QueueOptions::new().capacity(1).persistent(true).create::<u8>(name);
    for refused in [Queue::<u8>::create(name, 1), persistent()] {
        assert!(matches!(refused, Err(OpenError::AlreadyExists { .. })), "{refused:?}");
    }
    let after = fs::symlink_metadata(object(name)).unwrap();
    assert_eq!(
        (before.ino(), before.len(), before.mode(), before.mtime_nsec()),
        (after.ino(), after.len(), after.mode(), after.mtime_nsec())
    );
    assert_eq!(content, fs::read(object(name)).ok());
}

// Not ours

#[test]
fn a_file_that_is_not_a_segment_is_refused_and_left_alone_until_it_is_removed() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    let contents: [&[u8]; 7] = [
        b"",
        b"x",
        b"a note to myself\n",
        &[0; 8192],
        &[0xff; 8192],
        // The beginning of one of ours, too short to tell anything.
        &whole[..8],
        &whole[..127],
    ];
    for content in contents {
        fs::write(object(&name), content).unwrap();
        is_not_shmq(&name, &format!("{} bytes", content.len()));
        is_left_alone(&name);
        assert_eq!(fs::read(object(&name)).unwrap(), content);
        shmq::remove(&name).unwrap();
        Queue::<u8>::create(&name, 1).unwrap();
        assert!(!exists(&name));
    }
}

#[test]
fn what_is_not_a_file_is_refused_and_left_alone() {
    let stage = Stage::new();
    let name = stage.litter();
    let target = stage.name();
    let real: Queue<u8> = options().create(&target).unwrap();
    let kinds: [(&str, &dyn Fn()); 6] = [
        ("directory", &|| fs::create_dir(object(&name)).unwrap()),
        ("link to nowhere", &|| symlink("/dev/shm/shmq.it-is-nowhere", object(&name)).unwrap()),
        ("link to a queue", &|| symlink(object(&target), object(&name)).unwrap()),
        ("link to itself", &|| symlink(object(&name), object(&name)).unwrap()),
        ("fifo", &|| harness::make_fifo(&object(&name))),
        ("socket", &|| drop(UnixListener::bind(object(&name)).unwrap())),
    ];
    for (kind, make) in kinds {
        make();
        println!("{kind}");
        is_not_shmq(&name, "regular file");
        // Reading a FIFO would wait.
        if kind == "fifo" {
            assert!(matches!(Queue::<u8>::create(&name, 1), Err(OpenError::AlreadyExists { .. })));
        } else {
            is_left_alone(&name);
        }
        let removed = shmq::remove(&name);
        assert!(matches!(removed, Err(OpenError::NotShmq { .. })), "{removed:?}");
        assert!(exists(&name));
        _ = fs::remove_file(object(&name)).or_else(|_| fs::remove_dir(object(&name)));
    }
    assert!(!exists("it-is-nowhere"));
    assert_eq!(real.stats().attached, 1);
}

#[test]
fn a_queue_of_another_user_is_refused_unless_its_mode_admits_others() {
    let stage = Stage::new();
    let name = stage.name();
    if harness::is_root() {
        let mine = Queue::<u32>::create(&name, 4).unwrap();
        let open: Queue<u32> = QueueOptions::new().capacity(4).mode(0o666).create(&stage.name()).unwrap();
        open.put(&1).unwrap();
        stage.child("broken::another_user", &[mine.name(), open.name()]).finish();
        assert_eq!(open.get().unwrap(), 2);
        assert_eq!((mine.qsize(), open.stats().attached), (0, 1));
    } else {
        println!("not root: only a queue of this user's that admits nobody");
        let _mine: Queue<u32> = QueueOptions::new().capacity(4).mode(0).create(&name).unwrap();
        refused_by_mode(&name);
    }
}

fn another_user(arguments: &[String]) {
    let [closed, open] = arguments else { panic!("{arguments:?}") };
    harness::become_user(65_534);
    refused_by_mode(closed);
    assert!(matches!(shmq::remove(closed), Err(OpenError::PermissionDenied { .. })));
    let queue = Queue::<u32>::open(open).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    queue.put(&2).unwrap();
}

fn refused_by_mode(name: &str) {
    for refusal in refusals(name) {
        assert!(
            matches!(&refusal, OpenError::PermissionDenied { name: said } if said == name),
            "{refusal:?}"
        );
        assert!(refusal.to_string().contains("QueueOptions::mode"), "{refusal}");
    }
    assert!(matches!(Queue::<u32>::create(name, 1), Err(OpenError::AlreadyExists { .. })));
}

// Ours, but damaged

fn with_u32(bytes: &[u8], at: usize, value: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    bytes
}

fn with_u64(bytes: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    bytes
}

#[test]
fn a_segment_of_another_version_or_kind_is_a_mismatch() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    let cases = [
        (VERSION, 0, "format version", "0"),
        (VERSION, 2, "format version", "2"),
        (VERSION, u32::MAX, "format version", "4294967295"),
        (KIND, 0, "kind", "0"),
        (KIND, 7, "kind", "7"),
    ];
    for (at, value, said, number) in cases {
        fs::write(object(&name), with_u32(&whole, at, value)).unwrap();
        for refusal in refusals(&name) {
            let OpenError::Mismatch { field, expected, found } = &refusal else { panic!("{refusal:?}") };
            assert_eq!(*field, said);
            assert!(found.contains(number) && expected != found, "{expected}, {found}");
            assert!(refusal.to_string().contains(said));
        }
        // Nobody is attached to it: any version can tell, and replace it.
        Queue::<u8>::create(&name, 1).unwrap();
        assert!(!exists(&name));
    }
}

#[test]
fn a_segment_of_another_version_that_is_to_be_kept_is_not_replaced() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    let persistent = with_u32(&with_u32(&whole, VERSION, 2), FLAGS, 1);
    fs::write(object(&name), persistent).unwrap();
    is_left_alone(&name);
}

#[test]
fn nonsense_in_any_field_of_the_header_is_refused() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    let mut broken = vec![
        ("flags", with_u32(&whole, FLAGS, 8)),
        ("capacity", with_u32(&whole, FLAGS, 4)),
        ("flags", with_u32(&whole, FLAGS, u32::MAX)),
        ("label", with_u32(&whole, SCHEMA_LEN, 65)),
        ("label", with_u32(&whole, SCHEMA_LEN, u32::MAX)),
        ("label", with_u32(&whole, SCHEMA, u32::MAX)),
    ];
    for value in [0, 1 << 31, 1 << 32, u64::MAX] {
        broken.push(("capacity", with_u64(&whole, CAPACITY, value)));
    }
    for value in [(1 << 30) + 1, u64::MAX] {
        broken.push(("max_message", with_u64(&whole, MAX_MESSAGE, value)));
    }
    for value in [0, 1, 4095, 4104, 8192, u64::MAX] {
        broken.push(("ring offset", with_u64(&whole, RING_OFFSET, value)));
    }
    for value in [0, 8, 161, 1 << 40, u64::MAX - 7] {
        broken.push(("ring length", with_u64(&whole, RING_LEN, value)));
    }
    // Each by itself possible, but not in a file of this length.
    for (at, value) in [(MAX_MESSAGE, 0), (MAX_MESSAGE, 40), (RING_LEN, 168), (RING_LEN, 80)] {
        broken.push(("bytes long", with_u64(&whole, at, value)));
    }
    for (word, bytes) in broken {
        fs::write(object(&name), &bytes).unwrap();
        is_not_shmq(&name, word);
        if bytes[FLAGS] & 1 == 0 {
            Queue::<u8>::create(&name, 1).unwrap();
        } else {
            // It says that it is to be kept.
            is_left_alone(&name);
            shmq::remove(&name).unwrap();
        }
        assert!(!exists(&name));
    }
    // Any nonce will do.
    fs::write(object(&name), with_u64(&whole, NONCE, u64::MAX)).unwrap();
    assert_eq!(Queue::<u32>::open(&name).unwrap().qsize(), 2);
}

#[test]
fn a_segment_cut_short_or_drawn_out_is_refused() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    for len in [128, 511, 512, 4095, 4096, whole.len() - 1, whole.len() + 1, 2 * whole.len()] {
        let mut bytes = whole.clone();
        bytes.resize(len, 0);
        fs::write(object(&name), &bytes).unwrap();
        is_not_shmq(&name, &format!("{len} bytes long instead of {}", whole.len()));
        Queue::<u8>::create(&name, 1).unwrap();
    }
}

/// Any change of any byte of the header: it is refused, or the queue can be used.
#[test]
fn a_header_with_any_byte_changed_is_refused_or_works() {
    let stage = Stage::new();
    let whole = specimen(&stage);
    let name = stage.litter();
    let mut opened = 0;
    for at in 0..136 {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            fs::write(object(&name), &bytes).unwrap();
            match ByteQueue::open(&name) {
                Ok(queue) => {
                    opened += 1;
                    assert!(
                        (FLAGS..FLAGS + 4).contains(&at) || (NONCE..KIND).contains(&at) || at >= SCHEMA_LEN
                    );
                    use_it(&queue);
                }
                Err(OpenError::NotShmq { .. } | OpenError::Mismatch { .. }) => {}
                Err(error) => panic!("byte {at} changed by {change}: {error:?}"),
            }
            _ = fs::remove_file(object(&name));
        }
    }
    println!("{opened} of {} could be opened", 136 * 3);
}

// Scribbled over while it is open

/// A hand in the bytes of a queue.
struct Scribbler(fs::File);

impl Scribbler {
    fn new(name: &str) -> Self {
        Self(fs::OpenOptions::new().read(true).write(true).open(object(name)).unwrap())
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, at).unwrap();
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_ne_bytes(self.read(at, 8).try_into().unwrap())
    }

    fn u32(&self, at: u64) -> u32 {
        u32::from_ne_bytes(self.read(at, 4).try_into().unwrap())
    }

    fn set_u64(&self, at: u64, value: u64) {
        self.write(at, &value.to_ne_bytes());
    }

    fn set_u32(&self, at: u64, value: u32) {
        self.write(at, &value.to_ne_bytes());
    }

    /// A message number and an offset in bytes.
    fn set_cursor(&self, at: u64, number: u32, offset: u64) {
        self.set_u64(at, (u64::from(number) << 32) | (offset / 8));
    }
}

type Scribble = fn(&Scribbler);

/// Any result will do, but it comes in time.
#[track_caller]
fn in_time<T: Debug>(timeout: Duration, call: impl FnOnce() -> T) -> T {
    let (result, took) = timed(call);
    assert!(took < timeout * 10 + ms(3000), "{result:?} after {took:?} instead of {timeout:?}");
    result
}

/// Does everything to the queue that can be done with a deadline.
fn use_it(queue: &ByteQueue) {
    const SHORT: Duration = Duration::from_millis(2);
    let put = |result| {
        assert!(
            matches!(
                result,
                Ok(())
                    | Err(PutError::Full
                        | PutError::Closed
                        | PutError::Corrupt { .. }
                        | PutError::TooLong { .. })
            ),
            "{result:?}"
        );
    };
    let got = |result: Result<usize, GetError>| {
        assert!(
            matches!(
                result,
                Ok(_)
                    | Err(GetError::Empty
                        | GetError::Closed
                        | GetError::Corrupt { .. }
                        | GetError::BufferTooShort { .. })
            ),
            "{result:?}"
        );
    };
    put(in_time(Duration::ZERO, || queue.put_nowait(b"nowait")));
    got(in_time(Duration::ZERO, || queue.get_nowait().map(|message| message.len())));
    put(in_time(SHORT, || queue.put_timeout(b"a longer message", SHORT)));
    put(in_time(SHORT, || queue.put_timeout(b"", SHORT)));
    got(in_time(SHORT, || queue.get_timeout(SHORT).map(|message| message.len())));
    got(in_time(SHORT, || queue.get_into_timeout(&mut [0; 3], SHORT)));
    let typed = Queue::<(u8, String)>::from(queue.clone());
    let decoded = in_time(SHORT, || typed.get_timeout(SHORT));
    if !matches!(decoded, Err(GetError::Decode { .. })) {
        got(decoded.map(|(_, text)| text.len()));
    }
    in_time(Duration::ZERO, || {
        (queue.qsize(), queue.empty(), queue.full(), queue.is_closed(), queue.stats(), format!("{queue:?}"))
    });
}

/// Removed and made again, the queue is as good as new.
#[track_caller]
fn replace(queue: ByteQueue) -> ByteQueue {
    let name = queue.name().to_owned();
    shmq::remove(&name).unwrap();
    let new = ByteQueue::create(&name, 4).unwrap();
    drop(queue);
    assert!(exists(&name), "those of the old one leave the new one alone");
    new.put(b"new").unwrap();
    assert_eq!(new.get().unwrap(), b"new");
    new
}

#[test]
fn cursors_that_make_no_sense_are_corrupt_and_the_queue_can_be_made_again() {
    let stage = Stage::new();
    let cases: [(&str, Scribble); 7] = [
        ("tail outside", |hand| hand.set_cursor(TAIL, 1, 8 * 0x7fff_ffff)),
        ("tail at the end", |hand| hand.set_cursor(TAIL, 1, 160)),
        ("head outside", |hand| hand.set_cursor(HEAD, 0, 1 << 20)),
        ("more than the capacity", |hand| hand.set_cursor(TAIL, 5, 40)),
        ("fewer than none", |hand| hand.set_cursor(TAIL, u32::MAX, 40)),
        ("empty, but not at one place", |hand| hand.set_cursor(TAIL, 0, 40)),
        ("all ones", |hand| hand.set_u64(HEAD, u64::MAX)),
    ];
    for (case, scribble) in cases {
        println!("{case}");
        let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
        let late = ByteQueue::open(queue.name()).unwrap();
        scribble(&Scribbler::new(queue.name()));
        for queue in [&queue, &late, &ByteQueue::open(queue.name()).unwrap()] {
            // The put end knows how far the head had come before: it may have room without a new look.
            let put = || in_time(Duration::ZERO, || queue.put_timeout(b"x", ms(20_000)));
            let put = (0..5).map(|_| put()).find(Result::is_err).expect("a fifth has no room");
            let Err(PutError::Corrupt { .. }) = put else { panic!("{put:?}") };
            assert!(put.unwrap_err().to_string().contains("shmq::remove"));
            let got = in_time(Duration::ZERO, || queue.get_timeout(ms(20_000)));
            let Err(GetError::Corrupt { .. }) = got else { panic!("{got:?}") };
            assert!(got.unwrap_err().to_string().contains("shmq::remove"));
            use_it(queue);
        }
        drop(late);
        replace(queue);
    }
}

#[test]
fn a_length_that_makes_no_sense_is_corrupt() {
    let stage = Stage::new();
    for len in [33, 40, 1 << 20, u32::MAX] {
        let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
        queue.put(b"message").unwrap();
        queue.put(b"another").unwrap();
        let hand = Scribbler::new(queue.name());
        hand.set_u32(RING, len);
        for _ in 0..2 {
            assert!(matches!(queue.get_nowait(), Err(GetError::Corrupt { .. })));
            assert!(matches!(queue.get_into(&mut [0; 64]), Err(GetError::Corrupt { .. })));
        }
        assert_eq!(queue.qsize(), 2, "nothing was taken");
        // As long as nobody touches it, the rest works; put right, it goes on.
        queue.put(b"third").unwrap();
        hand.set_u32(RING, 7);
        for message in [&b"message"[..], b"another", b"third"] {
            assert_eq!(queue.get().unwrap(), message);
        }
    }
}

/// The id in a lock word decides who can unlock it. One that nobody has is taken over, one that somebody has
/// is waited for, and no flag stands in the way of anybody.
#[test]
fn a_lock_word_that_makes_no_sense_is_taken_over_or_waited_for_in_time() {
    let stage = Stage::new();
    let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
    let hand = Scribbler::new(queue.name());
    let [own] = lease_ids(queue.name());
    let mut other = stage.child("broken::holds_a_handle", &[queue.name()]);
    other.heard("attached");
    let ids: [u32; 2] = lease_ids(queue.name());
    let others = if ids[0] == own { ids[1] } else { ids[0] };
    let nobodys = (1..4).find(|id| !ids.contains(id)).unwrap();
    let dead = [0, nobodys, TOMB];
    let mut recoveries = 0;
    for flags in 0..16 {
        let flags = flags << 28;
        for owner in dead {
            hand.set_u32(GET_LOCK, flags | owner);
            if flags & CLOSED == 0 {
                hand.set_u32(PUT_LOCK, flags | owner);
            }
            let turn = in_time(Duration::ZERO, || {
                queue.put_timeout(b"x", ms(20_000)).unwrap();
                queue.get_timeout(ms(20_000)).unwrap()
            });
            assert_eq!(turn, b"x");
            let ends = if flags & CLOSED == 0 { 2 } else { 1 };
            recoveries += if owner == 0 { 0 } else { ends };
            assert_eq!(queue.stats().recoveries, recoveries, "flags {flags:x}, owner {owner:x}");
        }
        queue.put(b"y").unwrap();
        for owner in [own, others] {
            hand.set_u32(GET_LOCK, flags | owner);
            hand.set_u32(PUT_LOCK, flags & !CLOSED | owner);
            for timeout in [ms(0), ms(20)] {
                let (put, took) = timed(|| queue.put_timeout(b"z", timeout));
                assert!(matches!(put, Err(PutError::Full)), "{put:?}");
                assert_about(took, timeout);
                let (got, took) = timed(|| queue.get_timeout(timeout));
                assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
                assert_about(took, timeout);
            }
            assert_eq!(queue.qsize(), 1);
            hand.set_u32(GET_LOCK, 0);
            hand.set_u32(PUT_LOCK, 0);
        }
        assert_eq!(queue.get().unwrap(), b"y");
    }
    // The other one dies, and with it its claim.
    hand.set_u32(GET_LOCK, others | WAITERS);
    hand.set_u32(PUT_LOCK, others | HELD | STARVED);
    assert!(matches!(queue.put_nowait(b"z"), Err(PutError::Full)));
    other.kill();
    queue.put_timeout(b"z", ms(10_000)).unwrap();
    assert_eq!(queue.get_timeout(ms(10_000)).unwrap(), b"z");
    assert_eq!(queue.stats().recoveries, recoveries + 2);
}

fn holds_a_handle(arguments: &[String]) {
    let _queue = ByteQueue::open(&arguments[0]).unwrap();
    say("attached");
    hear();
}

/// Somebody alive is in the middle of a call, as it seems, and through with it a moment later: that is nothing
/// to give up for. (A moment may be long on a busy machine, so not all calls need succeed.)
#[test]
fn a_call_that_does_not_wait_waits_for_the_end_of_a_call_that_is_short() {
    const TRIALS: usize = 20;
    let stage = Stage::new();
    let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
    let hand = Scribbler::new(queue.name());
    let [own] = lease_ids(queue.name());
    let during = |lock: u64, call: &(dyn Fn() -> bool + Sync)| {
        hand.set_u32(lock, own);
        thread::scope(|scope| {
            let caller = scope.spawn(call);
            // It marks the word before it sleeps over it.
            while hand.u32(lock) & WAITERS == 0 && !caller.is_finished() {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            hand.set_u32(lock, 0);
            caller.join().unwrap()
        })
    };
    let mut counts: Vec<[usize; 2]> = Vec::new();
    while counts.last().is_none_or(|[put, got]| *put <= TRIALS / 2 || *got <= TRIALS / 2) {
        assert!(counts.len() < 10, "of {TRIALS} puts and {TRIALS} gets each {counts:?} did not give up");
        let mut count = [0, 0];
        for _ in 0..TRIALS {
            count[0] += usize::from(during(PUT_LOCK, &|| queue.put_nowait(b"x").is_ok()));
            _ = queue.put_nowait(b"x");
            count[1] += usize::from(during(GET_LOCK, &|| queue.get_nowait().is_ok()));
            while queue.get_nowait().is_ok() {}
        }
        counts.push(count);
    }
}

/// The longest timeout that leaves room for nothing more in the clock.
fn nearly_for_ever() -> Duration {
    let now = Instant::now();
    let mut longest = Duration::ZERO;
    let steps = (0..64).rev().map(|bit| Duration::from_secs(1 << bit));
    for step in steps.chain((0..30).rev().map(|bit| Duration::from_nanos(1 << bit))) {
        match longest.checked_add(step) {
            Some(longer) if now.checked_add(longer).is_some() => longest = longer,
            _ => {}
        }
    }
    longest.saturating_sub(Duration::from_micros(500))
}

#[test]
fn a_timeout_that_nearly_reaches_the_end_of_the_clock_is_a_timeout() {
    let stage = Stage::new();
    let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
    let hand = Scribbler::new(queue.name());
    let [own] = lease_ids(queue.name());
    for _ in 0..20 {
        // In the middle of a call of somebody alive, as it seems: this very handle.
        hand.set_u32(PUT_LOCK, own);
        hand.set_u32(GET_LOCK, own);
        thread::scope(|scope| {
            let put = scope.spawn(|| queue.put_timeout(b"x", nearly_for_ever()));
            let got = scope.spawn(|| queue.get_timeout(nearly_for_ever()));
            crate::harness::nap(ms(2));
            hand.set_u32(PUT_LOCK, 0);
            hand.set_u32(GET_LOCK, 0);
            assert!(put.join().is_ok_and(|put| put.is_ok()), "a panic");
            assert!(got.join().is_ok_and(|got| got.is_ok()), "a panic");
        });
    }
}

/// Which bytes of the segment are locked, one for each handle.
pub(crate) fn lease_ids<const HANDLES: usize>(name: &str) -> [u32; HANDLES] {
    let file = fs::metadata(object(name)).unwrap();
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", file.ino());
    // 1: OFDLCK ADVISORY  WRITE -1 00:1a:4711 12345 12345
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let place = fields.iter().position(|field| *field == file)?;
        fields.contains(&"OFDLCK").then(|| fields[place + 1].parse().unwrap())
    };
    let mut found = None;
    // While other locks come and go, some may be left out of the list or stand in it twice.
    until("each handle has its lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        found = locks.lines().filter_map(of_line).collect::<Vec<_>>().try_into().ok();
        found.is_some()
    });
    found.unwrap()
}

/// A lock to the end of the file, wherever that may be, has length 0. Nobody of ours holds such a one.
#[test]
fn a_lock_of_somebody_else_on_the_file_hangs_nobody() {
    let stage = Stage::new();
    stage.child("broken::locked_by_somebody_else", &[&stage.name()]).finish();
}

fn locked_by_somebody_else(arguments: &[String]) {
    let queue = ByteQueue::create(&arguments[0], 4).unwrap();
    let hand = Scribbler::new(&arguments[0]);
    harness::lock(&hand.0, TOMB - 1, None);
    in_time(Duration::ZERO, || queue.stats());
    queue.put_timeout(b"x", ms(10_000)).unwrap();
    assert_eq!(queue.get_timeout(ms(10_000)).unwrap(), b"x");
}

#[test]
fn scribbled_words_to_sleep_on_wake_and_delay_nobody() {
    let stage = Stage::new();
    let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
    let hand = Scribbler::new(queue.name());
    for word in [1, 2, 3, u32::MAX, u32::MAX - 1, 1 << 31] {
        hand.set_u32(NOT_EMPTY, word);
        hand.set_u32(NOT_FULL, word);
        for _ in 0..6 {
            in_time(Duration::ZERO, || queue.put(b"x").unwrap());
            assert_eq!(in_time(Duration::ZERO, || queue.get()).unwrap(), b"x");
        }
        let (got, took) = timed(|| queue.get_timeout(ms(20)));
        assert!(matches!(got, Err(GetError::Empty)));
        assert_about(took, ms(20));
        thread::scope(|scope| {
            let getter = scope.spawn(|| queue.get().unwrap());
            crate::harness::nap(ms(5));
            hand.set_u32(NOT_EMPTY, word.wrapping_add(4));
            queue.put(b"y").unwrap();
            assert_eq!(getter.join().unwrap(), b"y");
        });
    }
}

/// Message numbers are 32 bits wide and wrap.
#[test]
fn the_message_number_wraps_around() {
    let stage = Stage::new();
    let queue: Queue<u32> = options().create(&stage.name()).unwrap();
    let hand = Scribbler::new(queue.name());
    hand.set_cursor(HEAD, u32::MAX - 5, 80);
    hand.set_cursor(TAIL, u32::MAX - 5, 80);
    let mut next = 0;
    for item in 0..20 {
        queue.put_nowait(&item).unwrap();
        if queue.qsize() == 4 {
            assert!(queue.full());
            assert!(matches!(queue.put_nowait(&item), Err(PutError::Full)));
            for _ in 0..3 {
                assert_eq!(queue.get_nowait().unwrap(), next);
                next += 1;
            }
        }
    }
    assert!(hand.u64(TAIL) >> 32 < 20);
    for due in next..20 {
        assert_eq!(queue.get_nowait().unwrap(), due);
    }
    assert!(queue.empty());
}

/// Numbers that are more likely to do harm than any.
fn nasty(random: &mut Random) -> u64 {
    let small = random.below(64);
    match random.below(8) {
        0 => 0,
        1 => u64::MAX - small,
        2 => small,
        3 => small << 32 | random.below(32),
        4 => 1 << small,
        5 => u64::from(TOMB) | random.below(16) << 28,
        6 => random.next() & 0xffff_ffff,
        _ => random.next(),
    }
}

/// At rest, as it were: nobody writes meanwhile.
#[test]
fn a_queue_with_any_words_scribbled_over_comes_back_in_time() {
    let stage = Stage::new();
    let mut random = Random::new();
    for _ in 0..15 {
        let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
        let hand = Scribbler::new(queue.name());
        let fresh = hand.read(LIVE.start, 1280);
        for round in 0..20 {
            for _ in 0..=random.below(3) {
                let value = nasty(&mut random);
                // The words that mean something, and the slots.
                let places = [
                    PUT_LOCK,
                    TAIL,
                    PUT_LOCK + 8,
                    GET_LOCK,
                    HEAD,
                    GET_LOCK + 8,
                    NOT_EMPTY,
                    NOT_FULL,
                    LIVE.start,
                    RING,
                    RING + 8,
                    RING + 40,
                ];
                let place = places[random.index(places.len())];
                if random.below(2) == 0 {
                    hand.set_u64(place, value);
                } else {
                    hand.set_u32(place, u32::try_from(value & 0xffff_ffff).unwrap());
                }
            }
            use_it(&queue);
            if round % 5 == 4 {
                match ByteQueue::open(queue.name()) {
                    Ok(late) => use_it(&late),
                    Err(error) => panic!("the header is whole: {error}"),
                }
                in_time(Duration::ZERO, || queue.close());
                use_it(&queue);
                hand.write(LIVE.start, &fresh);
            }
        }
        replace(queue);
    }
}

/// While somebody keeps writing nonsense, calls still come back in time.
#[test]
fn a_queue_that_is_being_scribbled_over_comes_back_in_time() {
    let stage = Stage::new();
    let mut random = Random::new();
    let queue = ByteQueue::from(options().create::<u8>(&stage.name()).unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let hand = Scribbler::new(queue.name());
            let mut bytes = [0; 8];
            while !over.load(Ordering::Relaxed) {
                bytes.copy_from_slice(&nasty(&mut random).to_ne_bytes());
                let place = random.below(600) * 8;
                hand.write(LIVE.start + place % 3700, &bytes[..=random.index(8)]);
            }
        });
        let users: Vec<_> = (0..2).map(|_| scope.spawn(|| (0..60).for_each(|_| use_it(&queue)))).collect();
        let results: Vec<_> = users.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    let (again, took) = timed(|| replace(queue));
    assert_prompt(took);
    assert_eq!(again.stats().attached, 1);
}
