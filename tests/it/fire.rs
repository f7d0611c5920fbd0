//! Names under fire: many processes create, open, leave and remove the same few names, and any of them is
//! killed at any moment.
//!
//! Each segment has a capacity of its own, so whoever attaches can tell which one it is; and all that is ever put
//! into it is that number. There are three kinds of names, and each has its law:
//!
//! | names           | law                                                                                     |
//! | --------------- | --------------------------------------------------------------------------------------- |
//! | two plain ones  | as long as somebody has a handle, the name leads to that very segment, for everybody     |
//! | a lasting one   | persistent, never removed: once it is there it is there, always the same                 |
//! | a removed one   | may go at any moment; whoever has a handle goes on with its own segment                  |
//!
//! No call ever fails but for the reason that the law allows, none hangs, and in the end every name is usable and
//! nothing is left.
//!
//! # The long form
//!
//! ```text
//! SHMQ_STORM_SECONDS=60 cargo test --release --test it fire:: -- --nocapture --test-threads=1
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shmq::{GetError, OpenError, PutError, Queue, QueueOptions};

use crate::faults::shared;
use crate::harness::{
    self, Forked, Random, Role, Stage, fork, long_form, ms, names_beginning_with, nap, say, until,
};
use crate::names::usable;
use crate::small_shm::play_with;

pub(crate) const ROLES: &[(&str, Role)] = &[("fire::burns", burns), ("fire::anonymous", anonymous)];

const CROWD: usize = 6;

// Places in the shared words.
/// The last capacity that was given out.
const LAST: usize = 0;
/// The capacity of the lasting segment, once there is one.
const LASTING: usize = 1;
/// Whoever reads a number above 0 here leaves everything and ends.
const OVER: usize = 2;
/// From here on, for each place in the crowd, how often somebody there has done something.
const DEEDS: usize = 3;

#[test]
fn names_under_fire_lead_to_the_right_segment_and_stay_usable() {
    let stage = Stage::new();
    let names = [stage.name(), stage.name(), stage.name(), stage.name()];
    let seed = Random::new().next().to_string();
    let arguments = [&names[0], &names[1], &names[2], &names[3], &seed].map(String::as_str);
    let said = stage.child("fire::burns", &arguments).finish();
    println!("{said:?}");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Lasting,
    Removed,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Plain, Kind::Lasting, Kind::Removed];

fn burns(arguments: &[String]) {
    let [names @ .., seed] = arguments else { panic!("{arguments:?}") };
    let mut random = Random::from_seed(seed.parse().unwrap());
    let words = shared::<AtomicU64>(DEEDS + CROWD);
    let make = |place: usize, random: &mut Random| {
        let seed = random.next();
        fork(|| {
            Visitor { names, words, place, random: Random::from_seed(seed), held: Vec::new() }
                .comes_and_goes()
        })
    };
    let mut crowd: Vec<Forked> = (0..CROWD).map(|place| make(place, &mut random)).collect();
    let deeds = |place: usize| words[DEEDS + place].load(Ordering::Relaxed);
    let (mut kills, mut massacres) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < long_form().unwrap_or(ms(4000)) {
        nap(Duration::from_micros(random.below(6000)));
        if random.below(48) == 0 {
            crowd.drain(..).for_each(|visitor| visitor.kill());
            kills += CROWD;
            massacres += 1;
            // Everybody is dead.
            for (name, kind) in names.iter().zip(KINDS) {
                if kind != Kind::Lasting {
                    usable(name);
                }
            }
            crowd = (0..CROWD).map(|place| make(place, &mut random)).collect();
        } else {
            let place = random.index(CROWD);
            if random.below(8) == 0 {
                // It is seen to be alive for as long as it is stopped, whatever it is in the middle of.
                crowd[place].stop();
                nap(Duration::from_micros(random.below(5000)));
            }
            crowd[place].kill();
            kills += 1;
            crowd[place] = make(place, &mut random);
        }
        // Nobody hangs: neither the new ones nor those who were there.
        if kills % 64 < CROWD {
            let before: Vec<_> = (0..CROWD).map(deeds).collect();
            until("everybody does something", || (0..CROWD).all(|place| deeds(place) > before[place]));
        }
    }
    words[OVER].store(1, Ordering::Relaxed);
    for visitor in &crowd {
        assert_eq!(visitor.wait(), 0, "whoever is left leaves");
    }
    let done: u64 = (0..CROWD).map(deeds).sum();
    let tried = words[LAST].load(Ordering::Relaxed);
    say(&format!(
        "{kills} kills, {massacres} times everybody, {done} deeds, {tried} segments tried to be made"
    ));

    let lasting = words[LASTING].load(Ordering::Relaxed);
    assert_eq!(Queue::<u64>::open(&names[2]).unwrap().capacity(), usize::try_from(lasting).ok());
    shmq::remove(&names[2]).unwrap();
    for name in names {
        usable(name);
        assert!(!harness::exists(name));
    }
}

/// One of the crowd.
struct Visitor<'a> {
    names: &'a [String],
    words: &'static [AtomicU64],
    place: usize,
    random: Random,
    /// Places of names, and what is attached under them.
    held: Vec<(usize, Queue<u64>)>,
}

/// Which segment it is.
fn mark(queue: &Queue<u64>) -> u64 {
    queue.capacity().unwrap() as u64
}

impl Visitor<'_> {
    fn comes_and_goes(mut self) -> i32 {
        while self.words[OVER].load(Ordering::Relaxed) == 0 {
            let name = self.random.index(self.names.len());
            match self.random.below(12) {
                0 | 1 => self.creates(name),
                2 | 3 => self.opens(name),
                4..7 => self.opens_or_creates(name),
                7 => self.removes(),
                8 => self.leaves(),
                _ => self.uses(),
            }
            if self.held.len() > 4 {
                self.leaves();
            }
            self.words[DEEDS + self.place].fetch_add(1, Ordering::Relaxed);
        }
        0
    }

    /// Options with a capacity that no segment has had.
    fn options(&mut self, name: usize) -> (u64, QueueOptions) {
        let mark = self.words[LAST].fetch_add(1, Ordering::Relaxed) + 1;
        let persistent = match KINDS[name] {
            Kind::Plain => false,
            Kind::Lasting => true,
            Kind::Removed => self.random.below(4) == 0,
        };
        let mut options = QueueOptions::new();
        options
            .capacity(usize::try_from(mark).unwrap())
            .max_message(16)
            .ring_bytes(256)
            .persistent(persistent);
        (mark, options)
    }

    /// What the law says of a name now: the mark of the segment that it must lead to, if it must.
    fn law(&self, name: usize) -> Option<u64> {
        match KINDS[name] {
            Kind::Plain => self.held.iter().find(|(at, _)| *at == name).map(|(_, queue)| mark(queue)),
            Kind::Lasting => Some(self.words[LASTING].load(Ordering::Relaxed)).filter(|mark| *mark != 0),
            Kind::Removed => None,
        }
    }

    /// Takes a new handle into the hands, if it is what it must be.
    fn takes(&mut self, name: usize, law: Option<u64>, queue: Queue<u64>) {
        let mark = mark(&queue);
        assert!(law.is_none_or(|law| law == mark), "{} is {mark} instead of {law:?}", self.names[name]);
        if KINDS[name] == Kind::Lasting {
            let first = self.words[LASTING].compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed);
            assert!(first.is_ok() || first == Err(mark), "{mark} instead of {first:?}");
        }
        self.held.push((name, queue));
    }

    fn creates(&mut self, name: usize) {
        let law = self.law(name);
        let (mark, options) = self.options(name);
        match options.create(&self.names[name]) {
            Ok(queue) => {
                assert!(law.is_none(), "{} was made anew over {law:?}", self.names[name]);
                assert_eq!(queue.capacity(), usize::try_from(mark).ok());
                self.takes(name, None, queue);
            }
            Err(OpenError::AlreadyExists { .. }) => {}
            Err(error) => panic!("create: {error}"),
        }
    }

    fn opens(&mut self, name: usize) {
        let law = self.law(name);
        match Queue::open(&self.names[name]) {
            Ok(queue) => self.takes(name, law, queue),
            Err(OpenError::NotFound { .. }) => {
                assert!(law.is_none(), "{} is not there, but {law:?} is in use", self.names[name]);
            }
            Err(error) => panic!("open: {error}"),
        }
    }

    fn opens_or_creates(&mut self, name: usize) {
        let law = self.law(name);
        let (_, options) = self.options(name);
        match options.open_or_create(&self.names[name]) {
            Ok(queue) => self.takes(name, law, queue),
            Err(error) => panic!("open_or_create: {error}"),
        }
    }

    fn removes(&mut self) {
        let name = KINDS.iter().position(|kind| *kind == Kind::Removed).unwrap();
        match shmq::remove(&self.names[name]) {
            Ok(()) | Err(OpenError::NotFound { .. }) => {}
            Err(error) => panic!("remove: {error}"),
        }
    }

    fn leaves(&mut self) {
        if !self.held.is_empty() {
            let place = self.random.index(self.held.len());
            self.held.swap_remove(place);
        }
    }

    /// Whatever became of its name, a segment works, and nothing but its own number is ever in it.
    fn uses(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (_, queue) = &self.held[self.random.index(self.held.len())];
        let mark = mark(queue);
        match queue.put_nowait(&mark) {
            Ok(()) | Err(PutError::Full) => {}
            Err(error) => panic!("put: {error}"),
        }
        match queue.get_timeout(Duration::from_micros(self.random.below(1000))) {
            Ok(number) => assert_eq!(number, mark, "from another segment"),
            Err(GetError::Empty) => {}
            Err(error) => panic!("get: {error}"),
        }
    }
}

/// In a shared memory of its own, where nobody else leaves anything.
#[test]
fn anonymous_queues_under_fire_leave_nothing_once_somebody_makes_another() {
    let seed = Random::new().next().to_string();
    play_with("-o size=16m tmpfs /dev/shm", "fire::anonymous", &[&seed]);
}

fn anonymous(arguments: &[String]) {
    let mut random = Random::from_seed(arguments[0].parse().unwrap());
    let mut kills = 0;
    let mut most = 0;
    for _ in 0..6 {
        let mut crowd: Vec<Forked> = Vec::new();
        for _ in 0..30 {
            while crowd.len() < 4 {
                let seed = random.next();
                crowd.push(fork(|| makes_and_leaves(seed)));
            }
            nap(Duration::from_micros(random.below(4000)));
            crowd.swap_remove(random.index(crowd.len())).kill();
            kills += 1;
        }
        kills += crowd.len();
        crowd.drain(..).for_each(|forked| forked.kill());
        most = most.max(names_beginning_with("").len());
        // Everybody is dead; the next one, a process that has made none yet, tidies up.
        let tidy = fork(|| {
            let queue = Queue::<u8>::new(1).unwrap();
            i32::from(names_beginning_with("") != [queue.name()])
        });
        assert_eq!(tidy.wait(), 0, "left behind: {:?}", names_beginning_with(""));
        // It left by `_exit`, but its queue was dropped before.
        assert_eq!(names_beginning_with(""), [""; 0]);
    }
    assert!(most > 0, "nobody was killed while it had a queue");
    say(&format!("{kills} kills, up to {most} left behind for a moment"));
}

fn makes_and_leaves(seed: u64) -> i32 {
    let mut random = Random::from_seed(seed);
    let mut held: Vec<Queue<u64>> = Vec::new();
    loop {
        let queue = Queue::new(4).unwrap();
        queue.put(&seed).unwrap();
        // Nobody takes it away while it is in use.
        let same = Queue::<u64>::open(queue.name()).unwrap();
        assert_eq!(same.get_timeout(ms(10_000)).unwrap(), seed);
        held.push(queue);
        if held.len() > 3 {
            held.swap_remove(random.index(4));
        }
    }
}
