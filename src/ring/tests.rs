//! The ring against a `VecDeque`, and what a death in the middle of a put or get leaves behind.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A ring in ordinary memory.
pub(super) struct Memory {
    pub(super) words: Box<[u64]>,
    pub(super) put: Side,
    pub(super) get: Side,
    pub(super) shape: Shape,
}

impl Memory {
    pub(super) fn new(capacity: u32, max_message: usize, ring_len: usize) -> Self {
        let shape = Shape::new(capacity, max_message, ring_len);
        Self { words: vec![0; shape.room() / 8].into(), put: Side::new(), get: Side::new(), shape }
    }

    /// A ring of `capacity` longest messages and `spare` units more.
    fn whole(capacity: u32, max_message: usize, spare: usize) -> Self {
        Self::new(capacity, max_message, capacity as usize * slot_len(max_message) + spare * UNIT)
    }

    #[expect(unsafe_code, reason = "the ring's bytes are this test's")]
    pub(super) fn ring(&mut self) -> Ring<'_> {
        let base = NonNull::from(&mut *self.words).cast();
        // SAFETY: the words live as long as the ring borrows `self`, and are aligned to 8.
        let bytes = unsafe { Region::new(base, self.words.len() * 8) };
        Ring { shape: self.shape, bytes, put: &self.put, get: &self.get }
    }

    pub(super) fn put(&mut self, message: &[u8]) -> Result<bool, Corrupt> {
        let ring = self.ring();
        let mut run = ring.tail();
        if !ring.room_is_known() {
            let Some(place) = ring.look_for_room(run.next, true)? else { return Ok(false) };
            run.go_on_at(place);
        }
        let written = ring.write(run, message)?;
        ring.commit_put(written);
        Ok(true)
    }

    pub(super) fn get(&mut self) -> Result<Option<Vec<u8>>, Corrupt> {
        let ring = self.ring();
        let first = ring.first_known();
        let Some(message) = (if first.is_some() { first } else { ring.look_for_first()? }) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        message.bytes.append_to(&mut bytes);
        ring.commit_get(message.run());
        Ok(Some(bytes))
    }

    fn drain(&mut self) -> Result<Vec<Vec<u8>>, Corrupt> {
        std::iter::from_fn(|| self.get().transpose()).collect()
    }

    /// Every word that the two processes share.
    fn snapshot(&self) -> Vec<u64> {
        let sides = [&self.put, &self.get].map(|side| {
            [&side.cursor, &side.other_seen, &side.messages, &side.bytes].map(|word| word.load(Relaxed))
        });
        sides.iter().flatten().chain(self.words.iter()).copied().collect()
    }
}

/// Indices into a snapshot.
const PUT_CURSOR: usize = 0;
const PUT_SEEN: usize = 1;
const PUT_TOTALS: [usize; 2] = [2, 3];
const GET_CURSOR: usize = 4;
const GET_SEEN: usize = 5;
const GET_TOTALS: [usize; 2] = [6, 7];
const BYTES: usize = 8;

fn changed(before: &[u64], after: &[u64]) -> Vec<usize> {
    (0..before.len()).filter(|at| before[*at] != after[*at]).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Get,
    /// Written and never committed: the putter died.
    PutAndDie(usize),
    /// Copied out and never committed: the getter died.
    GetAndDie,
    /// The successor forgets what the dead one had seen.
    TakeOver,
}

fn steps(max_message: usize) -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![Just(0), Just(max_message.min(1)), Just(max_message), 0..=max_message];
    let step = prop_oneof![
        4 => len.clone().prop_map(Step::Put),
        4 => Just(Step::Get),
        1 => len.prop_map(Step::PutAndDie),
        1 => Just(Step::GetAndDie),
        1 => Just(Step::TakeOver),
    ];
    vec(step, 0..200)
}

pub(super) fn message(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((number * 31 + at) % 251).expect("a byte")).collect()
}

proptest! {
    #[test]
    fn it_is_a_bounded_queue(
        (capacity, max, spare, start, steps) in (1_u32..6, 0_usize..40).prop_flat_map(|(capacity, max)| {
            (Just(capacity), Just(max), 0_usize..4, any::<u32>(), steps(max))
        })
    ) {
        let mut memory = Memory::whole(capacity, max, spare);
        // Anywhere in the life of the ring, also where the number wraps.
        for side in [&memory.put, &memory.get] {
            side.cursor.store(Cursor::new(start, 0).0, Relaxed);
            side.other_seen.store(Cursor::new(start, 0).0, Relaxed);
        }
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(len) => {
                    let put = memory.put(&message(number, len)).expect("sound");
                    // The promise: a ring of `capacity` longest messages holds `capacity` of any length.
                    prop_assert_eq!(put, model.len() < capacity as usize);
                    if put {
                        model.push_back(message(number, len));
                    }
                }
                Step::Get => prop_assert_eq!(memory.get().expect("sound"), model.pop_front()),
                Step::PutAndDie(len) => {
                    let before = memory.snapshot();
                    let ring = memory.ring();
                    if ring.look_for_room(ring.tail().next, true).expect("sound").is_some() {
                        _ = ring.write(ring.tail(), &message(number, len)).expect("sound");
                    }
                    let touched = changed(&before, &memory.snapshot());
                    prop_assert!(touched.iter().all(|at| *at == PUT_SEEN || *at >= BYTES), "{:?}", touched);
                }
                Step::GetAndDie => {
                    let before = memory.snapshot();
                    _ = memory.ring().look_for_first().expect("sound");
                    let touched = changed(&before, &memory.snapshot());
                    prop_assert!(touched.iter().all(|at| *at == GET_SEEN), "{:?}", touched);
                }
                Step::TakeOver => {
                    memory.ring().refresh_put();
                    memory.ring().refresh_get();
                }
            }
            let ring = memory.ring();
            prop_assert_eq!(ring.len(), model.len());
            prop_assert_eq!(ring.looks_empty(), model.is_empty());
            prop_assert_eq!(ring.looks_full(), model.len() == capacity as usize);
        }
        prop_assert_eq!(memory.drain().expect("sound"), Vec::from(model));
    }

    /// Whatever a dying putter wrote where it was allowed to write, the queue is the old one; and the
    /// commit itself changes the cursor, and besides it the totals only.
    #[test]
    fn a_put_is_one_store(lens in vec(0_usize..=24, 0..4), len in 0_usize..=24, garbage: u64) {
        let mut memory = Memory::whole(4, 24, 0);
        for (number, len) in lens.iter().enumerate() {
            memory.put(&message(number, *len)).expect("sound");
        }
        let old: Vec<_> = lens.iter().enumerate().map(|(number, len)| message(number, *len)).collect();
        let at = Cursor(memory.put.cursor.load(Relaxed)).offset() / UNIT;
        if lens.len() < 4 {
            // Everything that a put may touch before its commit, in any state.
            for word in &mut memory.words[at..at + slot_len(24) / UNIT] {
                *word = garbage;
            }
            memory.put.messages.store(garbage, Relaxed);
            let ring = memory.ring();
            prop_assert_eq!(ring.len(), old.len());
            let written = ring.write(ring.tail(), &message(9, len)).expect("sound");
            let before = memory.snapshot();
            memory.ring().commit_put(written);
            let touched = changed(&before, &memory.snapshot());
            prop_assert!(touched.contains(&PUT_CURSOR));
            prop_assert!(touched.iter().all(|at| *at == PUT_CURSOR || PUT_TOTALS.contains(at)), "{:?}", touched);
            let mut new = old;
            new.push(message(9, len));
            prop_assert_eq!(memory.drain().expect("sound"), new);
        } else {
            let ring = memory.ring();
            prop_assert_eq!(ring.look_for_room(ring.tail().next, true), Ok(None));
            prop_assert_eq!(memory.drain().expect("sound"), old);
        }
    }

    #[test]
    fn a_get_is_one_store(lens in vec(0_usize..=24, 1..=4)) {
        let mut memory = Memory::whole(4, 24, 0);
        for (number, len) in lens.iter().enumerate() {
            memory.put(&message(number, *len)).expect("sound");
        }
        let ring = memory.ring();
        let next = ring.look_for_first().expect("sound").expect("a message").run().next;
        prop_assert_eq!(ring.len(), lens.len());
        let before = memory.snapshot();
        let ring = memory.ring();
        let first = ring.look_for_first().expect("sound").expect("a message");
        ring.commit_get(first.run());
        let touched = changed(&before, &memory.snapshot());
        prop_assert!(touched.contains(&GET_CURSOR));
        prop_assert!(touched.iter().all(|at| *at == GET_CURSOR || GET_TOTALS.contains(at)), "{:?}", touched);
        prop_assert_eq!(memory.get.own(), next);
        prop_assert_eq!(memory.drain().expect("sound").len(), lens.len() - 1);
    }

    /// A cursor seen long ago is a legal older queue: it may cost a look, never a message.
    #[test]
    fn a_stale_view_of_the_other_side_does_no_harm(steps in steps(16), staleness in 0_usize..8) {
        let mut memory = Memory::whole(3, 16, 1);
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut heads, mut tails) = (VecDeque::from([0]), VecDeque::from([0]));
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(len) | Step::PutAndDie(len) => {
                    if memory.put(&message(number, len)).expect("sound") {
                        model.push_back(message(number, len));
                    }
                }
                _ => prop_assert_eq!(memory.get().expect("sound"), model.pop_front()),
            }
            heads.push_back(memory.get.cursor.load(Relaxed));
            tails.push_back(memory.put.cursor.load(Relaxed));
            // Not older than `capacity` messages: those it has used up since, the owner has seen go.
            while heads.len() > staleness + 1 {
                heads.pop_front();
                tails.pop_front();
            }
            let behind = memory.put.own().number().wrapping_sub(Cursor(heads[0]).number());
            if behind <= 3 {
                memory.put.other_seen.store(heads[0], Relaxed);
            }
            let ahead = Cursor(tails[0]).number().wrapping_sub(memory.get.own().number());
            if ahead <= 3 {
                memory.get.other_seen.store(tails[0], Relaxed);
            }
        }
        prop_assert_eq!(memory.drain().expect("sound"), Vec::from(model));
    }

    #[test]
    fn any_bytes_whatever_are_an_error_or_an_ordinary_result(
        cursors in any::<[u64; 4]>(),
        near in any::<bool>(),
        fill in any::<u64>(),
        len in 0_usize..=16,
    ) {
        let mut memory = Memory::whole(4, 16, 0);
        memory.words.fill(fill);
        // Numbers that lie near each other, and offsets in the ring, get past the first checks.
        let mask = if near { 0x0000_0003_0000_000f } else { u64::MAX };
        memory.put.cursor.store(cursors[0] & mask, Relaxed);
        memory.get.cursor.store(cursors[1] & mask, Relaxed);
        memory.put.other_seen.store(cursors[2] & mask, Relaxed);
        memory.get.other_seen.store(cursors[3] & mask, Relaxed);
        for _ in 0..10 {
            _ = memory.put(&message(1, len));
            _ = memory.get();
            let ring = memory.ring();
            _ = (ring.len(), ring.looks_empty(), ring.looks_full());
            ring.refresh_get();
            ring.refresh_put();
        }
    }
}

/// Where the ring is longer than `capacity` longest messages need, bytes may still run out first; where it
/// is shorter, at least one longest message fits.
#[test]
fn a_short_ring_is_full_before_its_capacity() {
    let mut memory = Memory::new(1000, 24, slot_len(24) * 2);
    assert!(memory.put(&[1; 24]).expect("sound"));
    assert!(memory.put(&[2; 24]).expect("sound"));
    assert!(!memory.put(&[3; 24]).expect("sound"));
    assert!(memory.ring().looks_full());
    assert_eq!(memory.get().expect("sound").expect("a message"), [1; 24]);
    assert!(memory.put(&[3; 24]).expect("sound"));
}

/// Exhaustive for small sizes: whatever the lengths, `capacity` messages fit at every offset.
#[test]
fn a_whole_ring_always_holds_its_capacity() {
    let lens = [0, 8, 16];
    for capacity in 1..=3_u32 {
        let shape = Memory::whole(capacity, 16, 0).shape;
        let combinations = 3_usize.pow(capacity);
        for start in (0..shape.ring_len).step_by(UNIT) {
            for combination in 0..combinations {
                let mut memory = Memory::whole(capacity, 16, 0);
                for side in [&memory.put, &memory.get] {
                    side.cursor.store(Cursor::new(0, start).0, Relaxed);
                    side.other_seen.store(Cursor::new(0, start).0, Relaxed);
                }
                for place in 0..capacity {
                    let len = lens[combination / 3_usize.pow(place) % 3];
                    assert!(memory.put(&message(7, len)).expect("sound"), "{capacity} {start} {combination}");
                }
                assert!(memory.ring().looks_full());
                assert_eq!(memory.drain().expect("sound").len(), capacity as usize);
            }
        }
    }
}

#[test]
fn one_byte_beyond_the_longest_is_not_taken_for_a_message() {
    let mut memory = Memory::whole(2, 16, 0);
    memory.put(&[7; 16]).expect("sound");
    memory.words[0] = 17;
    assert_eq!(memory.get(), Err(Corrupt("a message is longer than the longest")));
}
