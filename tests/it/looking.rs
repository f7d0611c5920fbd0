//! Looking after segments: `list`, `inspect`, `peek`. (`remove_stale`, which concerns everything there is, is tested
//! where there is nothing else: in `tests/cli.rs`.)

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use shmq::{Array, ByteQueue, OpenError, QueueOptions, State, Value, inspect, list, peek};

use crate::harness::{Random, Stage, object};

/// Whatever has gone through the ring before, and however small it is.
#[test]
fn a_peek_is_what_a_get_would_get() {
    let stage = Stage::new();
    let name = stage.name();
    let mut random = Random::new();
    for round in 0..30 {
        let mut options = QueueOptions::new();
        options.capacity(random.index(20) + 1).max_message(100);
        if round % 2 == 0 {
            options.ring_bytes(100 + random.index(500));
        }
        let queue = ByteQueue::from(options.create::<()>(&name).unwrap());
        for _ in 0..200 {
            let message = vec![random.next().to_ne_bytes()[0]; random.index(101)];
            if random.below(2) == 0 {
                _ = queue.put_nowait(&message);
            } else {
                let first = peek(&name, 1).unwrap();
                assert_eq!(queue.get_nowait().ok().into_iter().collect::<Vec<_>>(), first);
            }
        }
        let all = peek(&name, usize::MAX).unwrap();
        assert_eq!(peek(&name, 3).unwrap(), all[..all.len().min(3)]);
        assert!(peek(&name, 0).unwrap().is_empty());
        assert_eq!(all.len(), queue.qsize());
        assert_eq!(queue.get_many(all.len()).unwrap(), all);
        assert!(peek(&name, 3).unwrap().is_empty());
    }
}

/// Longer than what is copied at first.
#[test]
fn a_peek_at_long_messages() {
    let stage = Stage::new();
    let name = stage.name();
    let unbounded = QueueOptions::new().max_message(1 << 20).create::<()>(&name).unwrap();
    let queue = unbounded.bytes();
    let messages: Vec<_> = (1..20_u8).map(|number| vec![number; usize::from(number) << 15]).collect();
    for message in &messages {
        queue.put(message).unwrap();
    }
    assert!(peek(&name, 100).unwrap() == messages);
    assert!(peek(&name, 7).unwrap() == messages[..7]);
}

/// A consumer at full speed leaves enough behind for a peek to find: the queue is never near empty here.
#[test]
fn a_peek_finds_what_consumers_leave() {
    const MESSAGES: u32 = 200_000;
    let stage = Stage::new();
    let queue = ByteQueue::create(&stage.name(), MESSAGES as usize).unwrap();
    for number in 0..MESSAGES {
        queue.put(&number.to_ne_bytes()).unwrap();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES / 2 {
                assert_eq!(queue.get().unwrap(), number.to_ne_bytes());
            }
            over.store(true, Relaxed);
        });
        let mut last = 0;
        while !over.load(Relaxed) {
            let messages = peek(queue.name(), 10).unwrap();
            let numbers: Vec<_> =
                messages.iter().map(|message| u32::from_ne_bytes(message[..].try_into().unwrap())).collect();
            assert_eq!(numbers.len(), 10);
            assert!(
                numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) && numbers[0] >= last,
                "{numbers:?}"
            );
            last = numbers[0];
        }
    });
}

#[test]
fn inspect_and_list_tell_what_a_segment_is() {
    let stage = Stage::new();
    let [queue, value, array, pipe] = [(); 4].map(|()| stage.name());
    let made =
        QueueOptions::new().capacity(5).max_message(64).schema("label").mode(0o640).create(&queue).unwrap();
    made.put(&1_u64).unwrap();
    made.put(&2_u64).unwrap();
    assert_eq!(made.get().unwrap(), 1);
    let _again = made.bytes().clone();
    let _other = ByteQueue::open(&queue).unwrap();
    let info = inspect(&queue).unwrap();
    assert_eq!((info.name.as_str(), info.kind, info.schema.as_str()), (queue.as_str(), "queue", "label"));
    assert_eq!((info.capacity, info.max_message, info.messages), (Some(5), 64, 1));
    assert_eq!((info.puts, info.gets, info.put_bytes, info.get_bytes, info.unfinished), (2, 1, 2, 1, 2));
    assert_eq!((info.attached, info.mode, info.persistent, info.closed), (2, 0o640, false, false));
    assert_eq!(info.state, State::Live);
    made.close();
    assert!(inspect(&queue).unwrap().closed);

    let _value = Value::create(&value, 7_u32).unwrap();
    let info = inspect(&value).unwrap();
    assert_eq!((info.kind, info.capacity, info.max_message, info.messages), ("value", Some(1), 4, 0));
    let _array = Array::create(&array, &[1_u16; 9]).unwrap();
    assert_eq!(inspect(&array).unwrap().capacity, Some(9));
    let _end = shmq::Connection::<u8, u8>::create(&pipe).unwrap();
    assert_eq!(inspect(&pipe).unwrap().kind, "pipe");
    assert!(matches!(peek(&array, 1), Err(OpenError::Mismatch { field: "kind", .. })));

    let all = list().unwrap();
    assert!(all.is_sorted_by(|one, other| one.name <= other.name));
    for name in [&queue, &value, &array, &pipe] {
        assert!(all.iter().any(|info| info.name == *name));
    }
}

#[test]
fn what_is_not_there_and_what_is_none() {
    let stage = Stage::new();
    let (missing, link, foreign) = (stage.name(), stage.litter(), stage.litter());
    assert!(matches!(inspect(&missing), Err(OpenError::NotFound { .. })));
    assert!(matches!(peek(&missing, 1), Err(OpenError::NotFound { .. })));
    assert!(matches!(inspect("a/b"), Err(OpenError::InvalidName { .. })));
    std::os::unix::fs::symlink("/dev/null", object(&link)).unwrap();
    assert!(matches!(inspect(&link), Err(OpenError::NotShmq { .. })));
    for text in [&b""[..], b"shmq seg", &[0; 9000]] {
        fs::write(object(&foreign), text).unwrap();
        assert!(matches!(inspect(&foreign).unwrap().state, State::Broken(_)));
        assert!(matches!(peek(&foreign, 1), Err(OpenError::NotShmq { .. })));
        assert!(list().unwrap().iter().any(|info| info.name == foreign));
    }
}

/// Any bytes whatever, anywhere behind the header.
#[test]
fn looking_at_nonsense() {
    let stage = Stage::new();
    let name = stage.litter();
    let mut random = Random::new();
    let queue =
        QueueOptions::new().capacity(9).max_message(100).persistent(true).create::<()>(&name).unwrap();
    for _ in 0..9 {
        queue.bytes().put(&[1; 100]).unwrap();
    }
    drop(queue);
    let whole = fs::read(object(&name)).unwrap();
    let file = OpenOptions::new().write(true).open(object(&name)).unwrap();
    for _ in 0..3000 {
        file.write_all_at(&whole, 0).unwrap();
        for _ in 0..=random.below(3) {
            let at = 512 + random.index(whole.len() - 512 - 8) / 8 * 8;
            // Often a small number, which looks more like something.
            let shift = random.below(64);
            file.write_all_at(&(random.next() >> shift).to_ne_bytes(), at as u64).unwrap();
        }
        _ = inspect(&name).unwrap();
        if let Ok(messages) = peek(&name, 20) {
            assert!(messages.len() <= 9 && messages.iter().all(|message| message.len() <= 100));
        }
    }
}
