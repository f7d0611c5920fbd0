//! The quick table: every contender beside the textbook design and the bare limit, in the same run.
//!
//! ```text
//! cargo run --release -p shmq-benches --bin compare [-- --check] [--rounds=7] [--only=TEXT]
//! ```
//!
//! It fails if a message is lost, torn or reordered; with `--check` also if this project's goals are
//! missed. `--only` measures the contenders of that name, or, if there is none, those whose names contain it.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use shmq_benches::{Contender, Cores, Session, Work, play_role};

/// How long each contender is measured in each round, about.
const TURN: Duration = Duration::from_millis(300);
/// Messages of the very first, unrecorded turn.
const FIRST_COUNT: u64 = 1000;

/// `--check`: at least so many times the textbook's messages per second, ...
const THROUGHPUT_GOAL: f64 = 5.0;
/// ... and at most so many times its round trip.
const ROUND_TRIP_GOAL: f64 = 0.1;

fn main() -> ExitCode {
    play_role();
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False if the goals were to be checked and are missed.
fn run() -> io::Result<bool> {
    let arguments = Arguments::parse()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", heading(&arguments))?;
    let mut tables = tables(&arguments)?;
    for _ in 0..arguments.rounds {
        for series in tables.iter_mut().flat_map(|table| &mut table.series) {
            series.measure()?;
        }
    }
    for table in &tables {
        table.print(&mut out)?;
    }
    let met = goals(&tables, &mut out)?;
    Ok(met || !arguments.check)
}

struct Arguments {
    check: bool,
    rounds: usize,
    only: String,
}

impl Arguments {
    fn parse() -> io::Result<Self> {
        let mut arguments = Self { check: false, rounds: 7, only: String::new() };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                None if argument == "--check" => arguments.check = true,
                Some(("--rounds", rounds)) => arguments.rounds = rounds.parse().map_err(io::Error::other)?,
                Some(("--only", only)) => only.clone_into(&mut arguments.only),
                _ => return Err(io::Error::other(format!("unknown argument {argument:?}"))),
            }
        }
        if arguments.rounds == 0 {
            return Err(io::Error::other("--rounds must be at least 1"));
        }
        Ok(arguments)
    }
}

fn heading(arguments: &Arguments) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let date = Command::new("date").arg("+%F %T %z").output().map(|date| date.stdout).unwrap_or_default();
    let own: Vec<String> = std::env::args().skip(1).collect();
    let own = if own.is_empty() { String::new() } else { format!(" -- {}", own.join(" ")) };
    format!(
        "date     {}\n\
         machine  {}, {cores} cores, Linux {}; load average before {}\n\
         command  cargo run --release -p shmq-benches --bin compare{own}\n\
         method   two processes, each pinned; every message checked; {} interleaved rounds of {TURN:?} each;\n\
         \x20        medians (least to most) of the rounds; ratios are medians of the ratios in each round",
        String::from_utf8_lossy(&date).trim(),
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        arguments.rounds,
    )
}

/// One contender at one kind of work.
struct Series {
    contender: Contender,
    work: Work,
    session: Session,
    /// Messages that take about one turn.
    count: u64,
    figures: Vec<Figure>,
}

#[derive(Clone, Copy)]
struct Figure {
    /// Million messages per second one way; the median round trip in microseconds.
    value: f64,
    /// Of round trips, the 99th percentile, and the mean.
    tail: f64,
    mean: f64,
}

impl Series {
    fn start(contender: Contender, work: Work, cores: Cores) -> io::Result<Self> {
        let mut session = Session::start(contender, work, cores)?;
        let short = scaled(FIRST_COUNT, session.time(FIRST_COUNT)?, TURN / 10);
        let count = scaled(short, session.time(short)?, TURN);
        Ok(Self { contender, work, session, count, figures: Vec::new() })
    }

    fn measure(&mut self) -> io::Result<()> {
        let mut trips = Vec::new();
        let elapsed = match self.work {
            Work::OneWay => self.session.time(self.count)?,
            Work::RoundTrip => self.session.time_each(self.count, &mut trips)?,
        };
        let count = u32::try_from(self.count).map_err(io::Error::other)?;
        self.figures.push(if self.work == Work::OneWay {
            Figure { value: f64::from(count) / elapsed.as_secs_f64() / 1e6, tail: 0.0, mean: 0.0 }
        } else {
            trips.sort_unstable();
            let mean = elapsed.as_secs_f64() * 1e6 / f64::from(count);
            Figure { value: percentile(&trips, 50), tail: percentile(&trips, 99), mean }
        });
        self.count = scaled(self.count, elapsed, TURN);
        Ok(())
    }
}

/// How many messages take `wanted`, if `count` took `elapsed`.
fn scaled(count: u64, elapsed: Duration, wanted: Duration) -> u64 {
    let scaled = u128::from(count) * wanted.as_nanos() / elapsed.as_nanos().max(1);
    u64::try_from(scaled).unwrap_or(u64::MAX).clamp(100, 100_000_000)
}

/// Of sorted nanoseconds, in microseconds.
fn percentile(sorted: &[u32], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |&nanoseconds| f64::from(nanoseconds) / 1e3)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Table {
    title: &'static str,
    work: Work,
    limit: Contender,
    series: Vec<Series>,
}

fn tables(arguments: &Arguments) -> io::Result<Vec<Table>> {
    use Contender::{PingPong, Shmq, ShmqDefault, ShmqTyped, Spinning, SpinningPaced, Textbook};
    let mut tables = Vec::new();
    if let Some(cores) = Cores::two()? {
        let title = "64 B one way, capacity 1024, two cores";
        let contenders = [Shmq, ShmqDefault, ShmqTyped, Textbook, Spinning, SpinningPaced];
        tables.push(Table::start(title, Work::OneWay, cores, &contenders, arguments)?);
        let title = "64 B round trip, capacity 2, two cores";
        let contenders = [Shmq, ShmqDefault, ShmqTyped, Textbook, PingPong, Spinning];
        tables.push(Table::start(title, Work::RoundTrip, cores, &contenders, arguments)?);
    }
    let title = "64 B round trip, capacity 2, one core";
    tables.push(Table::start(title, Work::RoundTrip, Cores::one()?, &[Shmq, Textbook, PingPong], arguments)?);
    Ok(tables)
}

impl Table {
    /// The last of the contenders is the limit for the others.
    fn start(
        title: &'static str,
        work: Work,
        cores: Cores,
        contenders: &[Contender],
        arguments: &Arguments,
    ) -> io::Result<Self> {
        let limit = *contenders.last().ok_or(io::ErrorKind::InvalidInput)?;
        let exact = contenders.iter().any(|contender| contender.label() == arguments.only);
        let wanted = contenders.iter().filter(|contender| {
            let label = contender.label();
            if exact { label == arguments.only } else { label.contains(&arguments.only) }
        });
        let series = wanted.map(|&contender| Series::start(contender, work, cores));
        Ok(Self { title, work, limit, series: series.collect::<io::Result<_>>()? })
    }

    fn series(&self, contender: Contender) -> Option<&Series> {
        self.series.iter().find(|series| series.contender == contender)
    }

    /// The median over the rounds of `one`'s figure divided by `other`'s.
    fn ratio(&self, one: Contender, other: Contender) -> Option<f64> {
        let rounds = self.series(one)?.figures.iter().zip(&self.series(other)?.figures);
        Some(median(rounds.map(|(one, other)| one.value / other.value)))
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { title, limit, work, .. } = self;
        let [unit, mean, tail] = match work {
            Work::OneWay => ["M msg/s", "", ""],
            Work::RoundTrip => ["p50 us", "mean", "p99"],
        };
        let against = format!("/ {}", limit.label());
        writeln!(
            out,
            "\n{title:<40} {unit:>8} {:>18} {mean:>7} {tail:>7} {:>10} {against:>22}",
            "", "/ textbook"
        )?;
        for series in &self.series {
            let values = || series.figures.iter().map(|figure| figure.value);
            let least = values().fold(f64::INFINITY, f64::min);
            let most = values().fold(0.0, f64::max);
            let range = format!("({least:.2} to {most:.2})");
            let of_trips = |pick: fn(&Figure) -> f64| match work {
                Work::OneWay => String::new(),
                Work::RoundTrip => format!("{:.2}", median(series.figures.iter().map(pick))),
            };
            let ratio =
                |to| self.ratio(series.contender, to).map_or(String::new(), |ratio| format!("{ratio:.3}"));
            writeln!(
                out,
                "  {:<38} {:>8.2} {range:>18} {:>7} {:>7} {:>10} {:>22}",
                series.contender.label(),
                median(values()),
                of_trips(|figure| figure.mean),
                of_trips(|figure| figure.tail),
                ratio(Contender::Textbook),
                ratio(*limit),
            )?;
        }
        Ok(())
    }
}

/// Prints the goals and whether all of them are met that were measured.
fn goals(tables: &[Table], out: &mut impl Write) -> io::Result<bool> {
    writeln!(out)?;
    let mut met = true;
    for contender in [Contender::Shmq, Contender::ShmqDefault] {
        let two_cores = tables.iter().filter(|table| table.limit != Contender::PingPong);
        for table in two_cores {
            let goal = if table.work == Work::OneWay { THROUGHPUT_GOAL } else { ROUND_TRIP_GOAL };
            let Some(ratio) = table.ratio(contender, Contender::Textbook) else { continue };
            let (good, sign) = match table.work {
                Work::OneWay => (ratio >= goal, "at least"),
                Work::RoundTrip => (ratio < goal, "under"),
            };
            let verdict = if good { "met" } else { "MISSED" };
            met &= good;
            let title = table.title;
            let label = contender.label();
            writeln!(out, "goal {verdict}: {title}, {label}: {ratio:.3} x the textbook, {sign} {goal}")?;
        }
    }
    Ok(met)
}
