//! Every goal of this project: shmq beside the textbook design and the bare limits, in the same run.
//!
//! ```text
//! cargo run --release -p shmq-benches --bin compare -- [--only TEXT] [--quick] [--rounds N] [--check] [--write FILE]
//! ```
//!
//! It fails if a message is lost, torn or reordered; with `--check` also if a goal is missed. `--only` measures
//! what has that text in the title of its table or its label, and what the goals of those compare it with.
//! `--write` puts the report between its markers in a file. Goals against other projects' queues are
//! measured by `benches/rivals`.

use std::cell::RefCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use shmq::{ByteQueue, QueueOptions};
use shmq_benches::local::{BareLocks, Deep, DeepQueue, time_pairs};
use shmq_benches::{
    Bound, CONTENDERS, Cores, Figure, Goal, Options, Report, Series, Session, SpinningRing, Table, Textbook,
    Unit, Work, contender, play_role,
};

/// Messages in the deepest queue.
const MILLION: usize = 1_000_000;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const ONE_WAY: &str = "64 B one way";
const TRIP: &str = "64 B round trip, two cores";
const ONE_CORE: &str = "64 B round trip, one core";
const ASLEEP: &str = "64 B round trip after 1 s of silence";
const BLOCKED: &str = "processor used while blocked";
const TWO: &str = "64 B, 2 producers on one core, 2 consumers on the other";
const TWO_FREE: &str = "64 B, 2 producers, 2 consumers, not pinned";
const SIXTEEN: &str = "64 B, 16 producers on one core, 16 consumers on the other";
const SIXTEEN_FREE: &str = "64 B, 16 producers, 16 consumers, not pinned";
const LONG: &str = "64 KiB one way";
const LONGER: &str = "1 MiB one way";
const COST: &str = "64 B put and get, one process";
const DEPTH: &str = "64 B put and get, by messages waiting";

const SPINNING: &str = "spinning ring";
const PACED: &str = "spinning ring, paced";
const LONG_RING: &str = "spinning ring, paced, as long as shmq's";
const CROSSBEAM: &str = "crossbeam-channel between threads";
const PING_PONG: &str = "futex ping-pong";

fn main() -> ExitCode {
    play_role(&CONTENDERS);
    let done = Options::parse(7).and_then(|options| {
        let mut report = Report {
            name: "compare",
            command: "cargo run --release -p shmq-benches --bin compare",
            tables: tables()?,
            goals: goals(),
        };
        report.run(&options, &mut io::stdout().lock())
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn goals() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost, Under};
    // The better of the two: a longer ring leaves the other side's cache, a shorter one stays in one's own.
    const LIMIT: &[&str] = &[PACED, LONG_RING];
    let one_way = |who, against, times| Goal::new(ONE_WAY, who, against, AtLeast(times));
    vec![
        one_way("shmq", &["textbook"], 5.0),
        one_way("shmq", &[CROSSBEAM], 1.2),
        one_way("shmq, max_message 64", &[CROSSBEAM], 1.2),
        one_way("shmq, exclusive ends", LIMIT, 0.9),
        one_way("shmq, batches of 64", LIMIT, 1.1),
        one_way("shmq, typed", &["shmq"], 0.7),
        one_way("shmq, unbounded", &["shmq"], 0.7),
        Goal::new(TRIP, "shmq", &["textbook"], AtMost(0.1)),
        Goal::new(TRIP, "shmq", &[SPINNING], AtMost(1.8)),
        Goal::new(TRIP, "shmq", &[SPINNING], AtMost(3.0)).of_p99(),
        Goal::new(ASLEEP, "shmq", &[PING_PONG], AtMost(1.1)),
        Goal::new(ONE_CORE, "shmq", &[PING_PONG], AtMost(1.3)),
        Goal::new(LONG, "shmq", &[SPINNING], AtLeast(0.95)),
        Goal::new(LONGER, "shmq", &[SPINNING], AtLeast(0.95)),
        Goal::new(TWO, "shmq", &[CROSSBEAM], AtLeast(1.2)),
        Goal::new(TWO_FREE, "shmq", &[CROSSBEAM], AtLeast(1.2)),
        Goal { against: (ONE_WAY, &["shmq"]), ..Goal::new(SIXTEEN, "shmq", &[], AtLeast(0.5)) },
        Goal { against: (ONE_WAY, &["shmq"]), ..Goal::new(SIXTEEN_FREE, "shmq", &[], AtLeast(0.5)) },
        Goal::new(COST, "shmq", &["two locks and a copy"], AtMost(2.5)),
        Goal::new(BLOCKED, "shmq", &[], Under(0.1)),
        Goal::new(DEPTH, "shmq, 1000000 waiting", &["shmq, 1 waiting"], AtMost(1.1)),
    ]
}

fn tables() -> io::Result<Vec<Table<'static>>> {
    let one_core = Cores::one()?;
    let Some(two_cores) = Cores::two()? else {
        return Err(io::Error::other("this process may run on one core only: most goals need two"));
    };
    let series = |size, work, cores, unit, labels: &[&'static str]| {
        let series = labels.iter().map(|label| {
            let contender = contender(label, size)?;
            Ok(Series::of(contender, work, cores, unit))
        });
        series.collect::<io::Result<Vec<_>>>()
    };
    let stream = |title, size, unit, labels: &[&'static str]| {
        Ok::<_, io::Error>(Table::new(title, unit, series(size, Work::STREAM, two_cores, unit, labels)?))
    };
    let many = |title, each, cores| {
        let work = Work::OneWay { producers: each, consumers: each };
        let labels = ["shmq", "shmq, batches of 64", "textbook", CROSSBEAM];
        let series = series(64, work, cores, Unit::Messages, &labels)?;
        Ok::<_, io::Error>(Table::new(title, Unit::Messages, series))
    };
    let trips = |title, cores, labels: &[&'static str]| {
        let series = series(64, Work::RoundTrip, cores, Unit::Trip, labels)?;
        Ok::<_, io::Error>(Table::new(title, Unit::Trip, series))
    };
    let streams = [
        "shmq",
        "shmq, max_message 64",
        "shmq, typed",
        "shmq, unbounded",
        "shmq, exclusive ends",
        "shmq, batches of 64",
        "shmq, exclusive ends, batches of 64",
        "shmq, in place",
        "textbook",
        CROSSBEAM,
        SPINNING,
        PACED,
        LONG_RING,
    ];
    let lengthy = ["shmq", "shmq, exclusive ends", "shmq, in place", SPINNING];
    let asked = ["shmq", "shmq, max_message 64", "shmq, typed", "textbook", CROSSBEAM, PING_PONG, SPINNING];
    let [asleep, blocked] = silent(two_cores);
    Ok(vec![
        stream(ONE_WAY, 64, Unit::Messages, &streams)?,
        stream(LONG, 64 * KIB, Unit::Gigabytes, &lengthy)?,
        stream(LONGER, MIB, Unit::Gigabytes, &lengthy)?,
        many(TWO, 2, two_cores)?,
        many(TWO_FREE, 2, Cores::Free)?,
        many(SIXTEEN, 16, two_cores)?,
        many(SIXTEEN_FREE, 16, Cores::Free)?,
        trips(TRIP, two_cores, &asked)?,
        trips(ONE_CORE, one_core, &["shmq", "textbook", CROSSBEAM, PING_PONG])?,
        asleep,
        blocked,
        costs(),
        depths(),
    ])
}

/// Who is silent for a second, and then asks and is answered. Several are silent at once, but each is asked by
/// itself: nobody finds a core awake that the one before it has woken.
struct Silence {
    sessions: Vec<Silent>,
    cores: Cores,
    /// How many rounds there were.
    rounds: usize,
}

struct Silent {
    label: &'static str,
    session: Session,
    /// The figures of the last round, for each of the two tables.
    found: [Figure; 2],
    /// The round that each of the two tables has last taken its figure of.
    taken: [usize; 2],
}

const SILENCE: Duration = Duration::from_secs(1);
/// How many silences one round has.
const SILENCES: usize = 3;

impl Silence {
    fn measure(&mut self) -> io::Result<()> {
        let parts = u32::try_from(self.sessions.len()).map_err(io::Error::other)?;
        let mut trips = vec![Vec::new(); self.sessions.len()];
        // For each, what its other process used so far, and when, once that is waiting for sure.
        let mut since: Vec<Option<(Duration, Instant)>> = vec![None; self.sessions.len()];
        let mut used = vec![(Duration::ZERO, Duration::ZERO); self.sessions.len()];
        for silent in &mut self.sessions {
            silent.session.begin(SILENCES as u64 + 1)?;
        }
        for round in 0..=SILENCES {
            for at in 0..self.sessions.len() {
                be_silent(SILENCE / parts);
                if let Some((before, start)) = since[at].take() {
                    used[at].0 += self.sessions[at].session.processor_time()?.saturating_sub(before);
                    used[at].1 += start.elapsed();
                }
                let previous = if at == 0 { self.sessions.len() - 1 } else { at - 1 };
                since[previous] = Some((self.sessions[previous].session.processor_time()?, Instant::now()));
                let trip = self.sessions[at].session.ask_once()?;
                // The first found the other process on its way into the call.
                if round > 0 {
                    trips[at].push(trip);
                }
            }
        }
        for (silent, (mut trips, (used, time))) in self.sessions.iter_mut().zip(trips.into_iter().zip(used)) {
            trips.sort_unstable();
            let microseconds = |at: usize| trips[at].as_secs_f64() * 1e6;
            let (middle, last) = (microseconds(trips.len() / 2), microseconds(trips.len() - 1));
            let percent = used.as_secs_f64() / time.as_secs_f64() * 100.0;
            silent.found = [
                Figure { value: middle, p99: last, p999: last },
                Figure { value: percent, ..Figure::default() },
            ];
        }
        self.rounds += 1;
        Ok(())
    }

    /// Starts a session, unless the other table has.
    fn add(&mut self, label: &'static str) -> io::Result<()> {
        if self.sessions.iter().all(|silent| silent.label != label) {
            let session = Session::start(contender(label, 64)?, Work::RoundTrip, self.cores)?;
            self.sessions.push(Silent { label, session, found: Default::default(), taken: [0; 2] });
        }
        Ok(())
    }

    /// The figure for one of the two tables. Measures all first if it was taken before.
    fn take(&mut self, label: &str, table: usize) -> io::Result<Figure> {
        let at = self.sessions.iter().position(|silent| silent.label == label);
        let at = at.ok_or(io::ErrorKind::NotFound)?;
        if self.sessions[at].taken[table] == self.rounds {
            self.measure()?;
        }
        self.sessions[at].taken[table] = self.rounds;
        Ok(self.sessions[at].found[table])
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for: the silence itself is what is wanted")]
fn be_silent(time: Duration) {
    std::thread::sleep(time);
}

/// Round trips after a second of silence, and what the other process used during it.
fn silent(cores: Cores) -> [Table<'static>; 2] {
    let empty = Silence { sessions: Vec::new(), cores, rounds: 0 };
    let silence = Rc::new(RefCell::new(empty));
    let labels = ["shmq", "textbook", PING_PONG];
    let series = |table: usize| {
        let silence = Rc::clone(&silence);
        labels.map(move |label| {
            let silence = Rc::clone(&silence);
            Series::new(label, move || {
                silence.borrow_mut().add(label)?;
                Ok(Box::new(move |_| silence.borrow_mut().take(label, table)))
            })
        })
    };
    [Table::new(ASLEEP, Unit::Trip, series(0)), Table::new(BLOCKED, Unit::Percent, series(1))]
}

/// A series of pairs of calls: `start` makes what times so many of them.
fn pairs<F>(label: String, start: impl FnOnce() -> io::Result<F> + 'static) -> Series<'static>
where
    F: FnMut(u64) -> io::Result<Duration> + 'static,
{
    Series::new(label, move || {
        let mut time = start()?;
        Ok(Box::new(move |turn| {
            Cores::one()?.pin()?;
            let (mut count, mut elapsed) = (0_u32, Duration::ZERO);
            while elapsed < turn {
                elapsed += time(u64::from(PAIRS))?;
                count += 1;
            }
            let pairs = f64::from(count) * f64::from(PAIRS);
            Ok(Figure { value: elapsed.as_secs_f64() * 1e9 / pairs, ..Figure::default() })
        }))
    })
}

/// Pairs of calls between two looks at the clock.
const PAIRS: u32 = 20_000;

fn costs() -> Table<'static> {
    let queue = |max: Option<usize>| {
        move || {
            let mut options = QueueOptions::new();
            options.capacity(1024);
            if let Some(max) = max {
                options.max_message(max);
            }
            let queue: ByteQueue = options.anonymous::<()>()?.into();
            Ok(move |count| {
                time_pairs(count, |message, got| {
                    queue.put(message)?;
                    Ok(queue.get_into(got).map(drop)?)
                })
            })
        }
    };
    let held = || {
        let queue = ByteQueue::new(1024)?;
        Ok(move |count| {
            let (producer, consumer) = (queue.producer()?, queue.consumer()?);
            time_pairs(count, |message, got| {
                producer.put(message)?;
                Ok(consumer.get_into(got).map(drop)?)
            })
        })
    };
    let limit = || {
        let locks = BareLocks::new()?;
        Ok(move |count| time_pairs(count, |message, got| locks.put_and_get(message, got)))
    };
    let textbook = || {
        let mut textbook = Textbook::create(&format!("cost-{}", std::process::id()), 1024, 64)?;
        textbook.unlink()?;
        Ok(move |count| {
            time_pairs(count, |message, got| {
                textbook.put(message)?;
                textbook.get_into(got).map(drop)
            })
        })
    };
    let series = [
        pairs("shmq".to_owned(), queue(None)),
        pairs("shmq, max_message 64".to_owned(), queue(Some(64))),
        pairs("shmq, exclusive ends".to_owned(), held),
        pairs("textbook".to_owned(), textbook),
        pairs("two locks and a copy".to_owned(), limit),
    ];
    Table::new(COST, Unit::Cost, series)
}

fn depths() -> Table<'static> {
    fn depth<Q: DeepQueue + 'static>(name: &str, waiting: usize) -> Series<'static> {
        pairs(format!("{name}, {waiting} waiting"), move || {
            let mut deep = Deep::<Q>::new(MILLION + 1, waiting)?;
            Ok(move |count| deep.time(count))
        })
    }
    let series = [
        depth::<ByteQueue>("shmq", 1),
        depth::<ByteQueue>("shmq", 1000),
        depth::<ByteQueue>("shmq", MILLION),
        depth::<SpinningRing>(SPINNING, 1),
        depth::<SpinningRing>(SPINNING, MILLION),
    ];
    Table::new(DEPTH, Unit::Cost, series)
}
