//! A sparse ring against a `VecDeque`: two processes that go on step by step in any order, and are killed anywhere.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::sparse::BASIN;
use super::tests::{Memory, message};
use super::*;

fn room_after(ring: &Ring<'_>, run: Run) -> Option<Run> {
    if ring.has_room_after(&run) {
        return Some(run);
    }
    let next = ring.look_for_room(run.next, true).expect("sound")?;
    Some(Run { next, ..run })
}

/// A part of the ring: offset and length.
type Part = (usize, usize);

/// How far the owner of the put end has come.
enum Putting {
    Idle,
    /// There is memory for the next of `lens`.
    Allocated(Run, Vec<usize>),
    Written(Run),
}

/// How far the owner of the get end has come.
enum Getting {
    Idle,
    Taken(Run),
    /// What is to be freed.
    Committed(VecDeque<Part>),
    /// It has been, and nobody has said so.
    Freed,
}

/// A ring, which of its chunks have memory, and who is in the middle of what.
struct World {
    memory: Memory,
    chunks: Vec<bool>,
    model: VecDeque<Vec<u8>>,
    putting: Putting,
    getting: Getting,
    /// Written and not committed.
    run: Vec<Vec<u8>>,
    number: usize,
    /// The last owner died: the next one takes over.
    dead_put: bool,
    dead_get: bool,
}

impl World {
    fn new(max_message: usize, slots: usize, spare: usize) -> Self {
        let least = Shape::new(UNBOUNDED, max_message, 0);
        let ring_len = least.origin() + 4 * CHUNK + slots * slot_len(max_message) + spare * UNIT;
        let memory = Memory::new(UNBOUNDED, max_message, ring_len);
        let chunks = vec![false; memory.shape.room().div_ceil(CHUNK)];
        Self {
            memory,
            chunks,
            model: VecDeque::new(),
            putting: Putting::Idle,
            getting: Getting::Idle,
            run: Vec::new(),
            number: 0,
            dead_put: false,
            dead_get: false,
        }
    }

    /// As the kernel does: whole chunks, and what had no memory reads as zeroes.
    fn set_memory(&mut self, (offset, len): Part, has: bool) {
        assert!(offset.is_multiple_of(CHUNK) && offset + len <= self.memory.shape.room(), "{offset} {len}");
        for chunk in offset / CHUNK..(offset + len).div_ceil(CHUNK) {
            self.chunks[chunk] = has;
        }
        if !has {
            self.memory.words[offset / UNIT..(offset + len) / UNIT].fill(0);
        }
    }

    fn assert_has_memory(&self, offset: usize, len: usize) {
        let touched = &self.chunks[offset / CHUNK..(offset + slot_len(len)).div_ceil(CHUNK)];
        assert!(touched.iter().all(|has| *has), "no memory for {len} at {offset}: {:?}", self.chunks);
    }

    /// Whoever goes on elsewhere leaves a word of that where it was.
    fn assert_could_leave(&self, run: Run, place: Option<Run>) {
        if place.is_some_and(|place| place.next != run.next) {
            self.assert_has_memory(run.next.offset(), 0);
        }
    }

    fn allocate(&mut self, run: Run, len: usize) {
        if let Some(part) = self.memory.ring().unallocated(&run, len) {
            self.set_memory(part, true);
            // Now and then the owner dies before it says so.
            if !self.number.is_multiple_of(3) {
                self.memory.ring().allocated(part);
            }
        }
    }

    /// One step of whoever puts; `lens` are those of the run that it begins.
    fn go_on_putting(&mut self, lens: &[usize]) {
        match std::mem::replace(&mut self.putting, Putting::Idle) {
            Putting::Idle => {
                let ring = self.memory.ring();
                if std::mem::take(&mut self.dead_put) {
                    ring.refresh_put();
                    let unused = ring.unused();
                    for part in unused {
                        self.set_memory(part, false);
                    }
                }
                let ring = self.memory.ring();
                let tail = ring.tail();
                let place = room_after(&ring, tail);
                self.assert_could_leave(tail, place);
                if let Some(place) = place {
                    self.allocate(place, lens[0]);
                    self.putting = Putting::Allocated(place, lens.to_vec());
                } else {
                    let waits =
                        !self.model.is_empty() || self.dead_get || !matches!(self.getting, Getting::Idle);
                    assert!(waits, "an empty ring has no room");
                }
            }
            Putting::Allocated(run, mut lens) => {
                let len = lens.remove(0);
                self.assert_has_memory(run.next.offset(), len);
                self.number += 1;
                let written = message(self.number, len);
                let ring = self.memory.ring();
                let run = ring.write(run, &written).expect("sound");
                let place = lens.first().and_then(|_| room_after(&ring, run));
                self.assert_could_leave(run, place);
                self.run.push(written);
                self.putting = if let (Some(place), Some(next)) = (place, lens.first()) {
                    self.allocate(place, *next);
                    Putting::Allocated(place, lens)
                } else {
                    Putting::Written(run)
                };
            }
            Putting::Written(run) => {
                self.memory.ring().commit_put(run);
                self.model.extend(self.run.drain(..));
            }
        }
    }

    /// One step of whoever gets, up to `count` at a time.
    fn go_on_getting(&mut self, count: u32) {
        match std::mem::replace(&mut self.getting, Getting::Idle) {
            Getting::Idle => {
                let ring = self.memory.ring();
                if std::mem::take(&mut self.dead_get) {
                    ring.refresh_get();
                    if let Some(parts) = ring.reclaimable() {
                        self.getting = Getting::Committed(parts.into());
                        return;
                    }
                }
                let known = ring.first_known();
                let first = if known.is_some() { known } else { ring.look_for_first().expect("sound") };
                let Some(mut last) = first else {
                    assert!(self.model.is_empty(), "messages are lost");
                    return;
                };
                let mut bytes = vec![Vec::new()];
                last.bytes.append_to(&mut bytes[0]);
                while last.run().messages() < count
                    && let Some(next) = ring.following(&last).expect("sound")
                {
                    last = next;
                    bytes.push(Vec::new());
                    last.bytes.append_to(bytes.last_mut().expect("just pushed"));
                }
                let expected: Vec<_> = self.model.iter().take(bytes.len()).cloned().collect();
                assert_eq!(bytes, expected);
                self.getting = Getting::Taken(last.run());
            }
            Getting::Taken(run) => {
                let ring = self.memory.ring();
                ring.commit_get(run);
                let parts = if ring.leaves_memory(&run) { ring.reclaimable() } else { None };
                self.model.drain(..run.messages() as usize);
                if let Some(parts) = parts {
                    self.getting = Getting::Committed(parts.into());
                }
            }
            Getting::Committed(mut parts) => {
                self.getting = match parts.pop_front() {
                    Some(part) => {
                        self.set_memory(part, false);
                        Getting::Committed(parts)
                    }
                    None => Getting::Freed,
                };
            }
            Getting::Freed => self.memory.ring().reclaimed(),
        }
    }

    fn kill_putter(&mut self) {
        self.putting = Putting::Idle;
        self.run.clear();
        self.dead_put = true;
    }

    fn kill_getter(&mut self) {
        self.getting = Getting::Idle;
        self.dead_get = true;
    }

    fn check_sizes(&mut self) {
        let ring = self.memory.ring();
        assert_eq!(ring.len(), self.model.len());
        assert_eq!(ring.looks_empty(), self.model.is_empty());
        assert!(!ring.looks_full());
        ring.check().expect("sound");
    }

    fn drain(&mut self) {
        while !self.model.is_empty() || self.dead_get || !matches!(self.getting, Getting::Idle) {
            self.go_on_getting(3);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<usize>),
    Get(u32),
    KillPutter,
    KillGetter,
}

fn steps(max_message: usize, deaths: u32) -> impl Strategy<Value = Vec<Step>> {
    // Lengths with which slots end at the same places in each lap, and such with which they do not.
    let len = prop_oneof![Just(0), Just(max_message), Just(8.min(max_message)), 0..=max_message];
    let step = prop_oneof![
        24 => vec(len, 1..4).prop_map(Step::Put),
        24 => (1_u32..6).prop_map(Step::Get),
        deaths => Just(Step::KillPutter),
        deaths => Just(Step::KillGetter),
    ];
    vec(step, 0..600)
}

/// Half of them so short that there is a basin.
fn max_message() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..=BASIN / 4 - PREFIX, 0_usize..200]
}

proptest! {
    #[test]
    fn what_is_written_and_read_has_memory_and_survives_every_death(
        (max, spare, steps) in max_message().prop_flat_map(|max| (Just(max), 0_usize..20, steps(max, 1)))
    ) {
        let mut world = World::new(max, 2, spare);
        for step in steps {
            match step {
                Step::Put(lens) => world.go_on_putting(&lens),
                Step::Get(count) => world.go_on_getting(count),
                Step::KillPutter => world.kill_putter(),
                Step::KillGetter => world.kill_getter(),
            }
            world.check_sizes();
        }
        world.drain();
        // It goes on as if nothing had been.
        world.kill_putter();
        for _ in 0..4 * world.chunks.len() {
            for _ in 0..3 {
                world.go_on_putting(&[max]);
            }
            world.drain();
        }
    }

    /// Nobody dies, and no run goes once around: an empty ring has no more memory than its basin and the chunk of its
    /// cursors, or the one that they will come to next.
    #[test]
    fn what_has_been_got_has_no_memory(
        (max, spare, steps) in max_message().prop_flat_map(|max| (Just(max), 0_usize..20, steps(max, 0)))
    ) {
        let mut world = World::new(max, 6, spare);
        for step in steps {
            match step {
                Step::Put(lens) => world.go_on_putting(&lens),
                Step::Get(count) => world.go_on_getting(count),
                Step::KillPutter | Step::KillGetter => {}
            }
        }
        while !matches!(world.putting, Putting::Idle) {
            world.go_on_putting(&[0]);
        }
        world.drain();
        let behind = &world.chunks[world.memory.shape.origin() / CHUNK..];
        prop_assert!(behind.iter().filter(|has| **has).count() <= 1, "{:?}", world.chunks);
    }

    #[test]
    fn any_words_whatever_are_an_error_or_an_ordinary_result(
        words in any::<[u64; 7]>(),
        max in prop_oneof![Just(40_usize), Just(100)],
        near: bool,
        fill: u64,
        len in 0_usize..=100,
    ) {
        let mut world = World::new(max, 2, 3);
        let len = len.min(max);
        world.memory.words.fill(fill);
        let mask = if near { 0x0000_0003_0000_007f } else { u64::MAX };
        let Memory { put, get, .. } = &world.memory;
        let places = [&put.cursor, &get.cursor, &put.other_seen, &get.other_seen, &get.extent, &put.basin_end, &put.beyond];
        for (place, word) in places.into_iter().zip(words) {
            place.store(word & mask, Ordering::Relaxed);
        }
        for _ in 0..10 {
            let ring = world.memory.ring();
            let (room, tail) = (ring.shape.room(), ring.tail());
            if let Some((offset, len)) = ring.unallocated(&tail, len) {
                prop_assert!(offset < room && len <= room - offset);
            }
            // Behind the end of the file there is nothing that could be freed.
            for (offset, len) in ring.reclaimable().into_iter().flatten() {
                prop_assert!(offset <= room && len <= LONGEST_RING);
            }
            ring.reclaimed();
            _ = world.memory.put(&message(1, len));
            _ = world.memory.get();
            let ring = world.memory.ring();
            _ = (ring.len(), ring.looks_empty(), ring.looks_full());
            ring.refresh_get();
            ring.refresh_put();
        }
    }
}

/// A batch that its owner died in has taken memory far behind the basin, and the next owner gives it back.
#[test]
fn memory_of_a_run_that_was_not_committed_is_given_back() {
    for drained in [false, true] {
        let mut world = World::new(40, 40, 0);
        let puts = |world: &mut World, count: usize| {
            for _ in 0..3 * count {
                if !matches!(world.putting, Putting::Idle) || world.memory.ring().len() < count {
                    world.go_on_putting(&[40]);
                }
            }
            assert_eq!(world.memory.ring().len(), count);
        };
        puts(&mut world, BASIN / 48 + usize::from(drained));
        if drained {
            world.drain();
        }
        for _ in 0..20 {
            world.go_on_putting(&[40; 100]);
        }
        let behind = &world.chunks[world.memory.shape.origin() / CHUNK..];
        assert!(behind.iter().filter(|has| **has).count() > 3, "{:?}", world.chunks);
        world.kill_putter();
        world.drain();
        puts(&mut world, 1);
        world.drain();
        let behind = &world.chunks[world.memory.shape.origin() / CHUNK..];
        assert!(behind.iter().filter(|has| **has).count() <= 1, "{:?}", world.chunks);
    }
}

/// A word of where a message is leads to a message, not to another word: else two of them could lead in a circle.
#[test]
fn a_word_that_leads_to_a_word_is_an_error() {
    let mut world = World::new(40, 4, 0);
    world.memory.put(&message(1, 16)).expect("sound");
    let ring = world.memory.ring();
    ring.bytes.set_numbers(64, (16, 0)).expect("inside");
    for (place, expected) in [(8, Ok(16)), (0, Err(())), (16, Err(()))] {
        ring.bytes.set_numbers(0, (sparse::ELSEWHERE, place)).expect("inside");
        ring.bytes.set_numbers(128, (sparse::ELSEWHERE, 8)).expect("inside");
        let first = ring.look_for_first().map(|first| first.expect("there is one").bytes.len());
        assert_eq!(first.map_err(drop), expected, "{place}");
    }
}

#[test]
fn messages_stay_in_the_basin_while_consumers_keep_up_and_come_back_to_it() {
    let mut world = World::new(40, 40, 0);
    for _ in 0..3 {
        for _ in 0..500 {
            world.memory.put(&[1; 40]).expect("sound");
            world.memory.get().expect("sound");
            assert!(world.memory.put.own().offset() < BASIN);
        }
        let mut backlog = 0;
        while world.memory.put.own().offset() < BASIN + 2 * CHUNK {
            world.memory.put(&[2; 40]).expect("sound");
            backlog += 1;
            assert!(backlog < CHUNK, "it does not leave the basin");
        }
        assert_eq!(world.memory.ring().len(), backlog);
        for _ in 0..backlog {
            assert_eq!(world.memory.get(), Ok(Some(vec![2; 40])));
        }
        assert_eq!(world.memory.get(), Ok(None));
        // A look at the other side comes with the next chunk at the latest.
        for _ in 0..CHUNK {
            world.memory.put(&[]).expect("sound");
            world.memory.get().expect("sound");
        }
    }
}
