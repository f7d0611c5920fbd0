//! Rounds, medians, tables and goals: what the commands that compare have in common.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use crate::link::{Contender, Work};
use crate::session::{Cores, Session};

/// How a command was asked to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each contender is measured.
    pub rounds: usize,
    /// About how long each time.
    pub turn: Duration,
    /// Only what has this in the title of its table, its label or its goal, and whatever it is compared with.
    pub only: String,
    /// Fail if a goal is missed.
    pub check: bool,
    /// Where to put the report between its markers.
    pub write: Option<String>,
}

impl Options {
    /// From the command line: `--only=TEXT` (or `--only TEXT`), `--quick`, `--rounds=N`, `--check`, `--write=FILE`.
    ///
    /// # Errors
    /// An argument that is none of these.
    pub fn parse(rounds: usize) -> io::Result<Self> {
        let turn = Duration::from_millis(300);
        let mut options = Self { rounds, turn, only: String::new(), check: false, write: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let (key, value) = match argument.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || {
                let value = value.clone().or_else(|| arguments.next());
                value.ok_or_else(|| io::Error::other(format!("{key} needs a value")))
            };
            match key {
                "--only" => options.only = value()?.to_lowercase(),
                "--rounds" => options.rounds = value()?.parse().map_err(io::Error::other)?,
                "--write" => options.write = Some(value()?),
                "--quick" => (options.rounds, options.turn) = (3, Duration::from_millis(100)),
                "--check" => options.check = true,
                _ => return Err(io::Error::other(format!("unknown argument {argument:?}"))),
            }
        }
        if options.rounds == 0 {
            return Err(io::Error::other("--rounds must be at least 1"));
        }
        Ok(options)
    }
}

/// The result of one turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// In the unit of the table.
    pub value: f64,
    /// The 99th percentile, for round trips.
    pub p99: f64,
    /// The 99.9th percentile, for round trips.
    pub p999: f64,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Million messages each second.
    Messages,
    /// Gigabytes each second.
    Gigabytes,
    /// Microseconds for a round trip, the median one.
    Trip,
    /// Nanoseconds for a call, or a pair of calls.
    Cost,
    /// Percent of a core.
    Percent,
}

impl Unit {
    /// The head of its columns.
    fn heads(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["M msg/s"],
            Self::Gigabytes => &["GB/s"],
            Self::Trip => &["p50 us", "p99 us", "p99.9 us"],
            Self::Cost => &["ns"],
            Self::Percent => &["% of a core"],
        }
    }
}

/// Does one turn, of about so long.
type Turn<'a> = Box<dyn FnMut(Duration) -> io::Result<Figure> + 'a>;

/// One contender in one table.
pub struct Series<'a> {
    label: String,
    start: Option<Box<dyn FnOnce() -> io::Result<Turn<'a>> + 'a>>,
    turn: Option<Turn<'a>>,
    figures: Vec<Figure>,
    skipped: Option<String>,
    /// May be missing on a machine: a failure to start is told in its row.
    optional: bool,
    wanted: bool,
}

impl std::fmt::Debug for Series<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<'a> Series<'a> {
    /// `start` prepares what is then measured; it is not called if nobody wants the series.
    pub fn new(
        label: impl Into<String>,
        start: impl FnOnce() -> io::Result<Box<dyn FnMut(Duration) -> io::Result<Figure> + 'a>> + 'a,
    ) -> Self {
        Self {
            label: label.into(),
            start: Some(Box::new(start)),
            turn: None,
            figures: Vec::new(),
            skipped: None,
            optional: false,
            wanted: true,
        }
    }

    /// A contender's messages one way, or its round trips.
    pub fn of(contender: &'a Contender, work: Work, cores: Cores, unit: Unit) -> Self {
        Self::new(contender.label, move || {
            let mut session = Session::start(contender, work, cores)?;
            let mut count = 200;
            // The first times are the slowest.
            for _ in 0..4 {
                count = scaled(count, session.time(count)?, Duration::from_millis(20));
            }
            let size = contender.size;
            Ok(Box::new(move |turn| {
                let (mut done, mut elapsed, mut trips) = (0, Duration::ZERO, Vec::new());
                // In parts: a count that was right a moment ago may take a hundred times as long when the machine
                // is busy.
                while elapsed < turn {
                    let part = match work {
                        Work::OneWay { .. } => session.time(count)?,
                        Work::RoundTrip => session.time_each(count, &mut trips)?,
                    };
                    (done, elapsed) = (done + count, elapsed + part);
                    count = scaled(count, part, turn / PARTS);
                }
                figure(unit, done, size, elapsed, &mut trips)
            }))
        })
    }

    /// If it cannot start, its row says why.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Prepares what is to be measured.
    fn start(&mut self) -> io::Result<()> {
        if let Some(start) = self.start.take() {
            match start() {
                Ok(turn) => self.turn = Some(turn),
                Err(error) if self.optional => self.skipped = Some(error.to_string()),
                Err(error) => return Err(context(&self.label, &error)),
            }
        }
        Ok(())
    }

    /// Does one turn.
    fn measure(&mut self, turn: Duration) -> io::Result<()> {
        if let Some(measure) = &mut self.turn {
            self.figures.push(measure(turn).map_err(|error| context(&self.label, &error))?);
        }
        Ok(())
    }

    fn median(&self, pick: impl Fn(&Figure) -> f64) -> f64 {
        median(self.figures.iter().map(pick))
    }
}

fn context(label: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{label}: {error}"))
}

fn figure(unit: Unit, count: u64, size: usize, elapsed: Duration, trips: &mut [u32]) -> io::Result<Figure> {
    let count = f64::from(u32::try_from(count).map_err(io::Error::other)?);
    let size = f64::from(u32::try_from(size).map_err(io::Error::other)?);
    let value = match unit {
        Unit::Messages => count / elapsed.as_secs_f64() / 1e6,
        Unit::Gigabytes => count * size / elapsed.as_secs_f64() / 1e9,
        Unit::Cost | Unit::Percent => elapsed.as_secs_f64() * 1e9 / count,
        Unit::Trip => {
            trips.sort_unstable();
            return Ok(Figure {
                value: percentile(trips, 500),
                p99: percentile(trips, 990),
                p999: percentile(trips, 999),
            });
        }
    };
    Ok(Figure { value, ..Figure::default() })
}

/// About how many parts a turn has.
const PARTS: u32 = 6;

/// How many messages take `wanted`, if `count` took `elapsed`.
fn scaled(count: u64, elapsed: Duration, wanted: Duration) -> u64 {
    let scaled = u128::from(count) * wanted.as_nanos() / elapsed.as_nanos().max(1);
    // No more than so many times: one fast moment says little.
    u64::try_from(scaled).unwrap_or(u64::MAX).clamp(20, count.saturating_mul(10).clamp(20, 100_000_000))
}

/// Of sorted nanoseconds, in microseconds.
fn percentile(sorted: &[u32], permille: usize) -> f64 {
    sorted.get(sorted.len() * permille / 1000).map_or(f64::NAN, |&nanoseconds| f64::from(nanoseconds) / 1e3)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Contenders at one kind of work.
#[derive(Debug)]
pub struct Table<'a> {
    title: String,
    unit: Unit,
    series: Vec<Series<'a>>,
}

impl<'a> Table<'a> {
    /// With the series in the order of its rows; the first is what the others are divided by.
    pub fn new(title: impl Into<String>, unit: Unit, series: impl IntoIterator<Item = Series<'a>>) -> Self {
        Self { title: title.into(), unit, series: series.into_iter().collect() }
    }

    fn series(&self, label: &str) -> Option<&Series<'a>> {
        self.series.iter().find(|series| series.label == label)
    }
}

/// Whether more is better.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// At least so many times the rival.
    AtLeast(f64),
    /// At most so many times the rival.
    AtMost(f64),
    /// At most so much, whoever else does what.
    Under(f64),
}

/// What is to be reached.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The title of the table.
    pub table: &'static str,
    /// The label of the series.
    pub who: &'static str,
    /// The table and the labels of the rivals: the best of them counts.
    pub against: (&'static str, &'static [&'static str]),
    /// How much of them.
    pub bound: Bound,
    /// Whether the 99th percentiles are compared.
    pub p99: bool,
}

impl Goal {
    /// Against rivals in the same table.
    pub const fn new(
        table: &'static str,
        who: &'static str,
        against: &'static [&'static str],
        bound: Bound,
    ) -> Self {
        Self { table, who, against: (table, against), bound, p99: false }
    }

    /// Of the 99th percentiles.
    #[must_use]
    pub const fn of_p99(self) -> Self {
        Self { p99: true, ..self }
    }

    fn pick(&self, figure: &Figure) -> f64 {
        if self.p99 { figure.p99 } else { figure.value }
    }

    fn text(&self) -> String {
        let rivals = self.against.1.join(", ");
        let what = if self.p99 { "p99 " } else { "" };
        let elsewhere =
            if self.against.0 == self.table { String::new() } else { format!(" ({})", self.against.0) };
        let best = if self.against.1.len() > 1 { "the best of " } else { "" };
        match self.bound {
            Bound::AtLeast(times) => format!("{what}at least {times} x {best}{rivals}{elsewhere}"),
            Bound::AtMost(times) => format!("{what}at most {times} x {best}{rivals}{elsewhere}"),
            Bound::Under(limit) => format!("{what}under {limit}"),
        }
    }
}

/// Tables, and the goals for them.
#[derive(Debug)]
pub struct Report<'a> {
    /// How the command is called that makes it, and the name of its markers.
    pub name: &'static str,
    /// Without its arguments.
    pub command: &'static str,
    /// Everything that is measured.
    pub tables: Vec<Table<'a>>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
}

impl<'a> Report<'a> {
    /// Measures, prints, and writes; false if the goals were to be checked and one was missed.
    ///
    /// # Errors
    /// A message was lost, torn or reordered, or something else failed.
    pub fn run(&mut self, options: &Options, out: &mut impl io::Write) -> io::Result<bool> {
        self.choose(&options.only);
        let heading = heading(self.command, options);
        let mut wanted: Vec<_> = self
            .tables
            .iter_mut()
            .flat_map(|table| &mut table.series)
            .filter(|series| series.wanted)
            .collect();
        for series in &mut wanted {
            series.start()?;
        }
        for round in 0..options.rounds {
            for series in &mut wanted {
                // So that it is known who is measured, should it take too long.
                eprint!("\r\x1b[Kround {} of {}: {}", round + 1, options.rounds, series.label);
                series.measure(options.turn)?;
            }
        }
        eprintln!();
        let (goals, met) = self.goals();
        let mut text = format!("{heading}\n");
        for table in &self.tables {
            if table.series.iter().any(|series| series.wanted) {
                text.push_str(&table.markdown());
            }
        }
        text.push_str(&goals);
        out.write_all(text.as_bytes())?;
        if let Some(path) = &options.write {
            write_between_markers(path, self.name, &text)?;
        }
        Ok(met || !options.check)
    }

    /// The medians of one table, with their labels: for a plot.
    pub fn medians(&self, title: &str) -> Vec<(String, f64)> {
        let table = self.tables.iter().find(|table| table.title == title);
        let series = table.into_iter().flat_map(|table| &table.series);
        let measured = series.filter(|series| !series.figures.is_empty());
        measured.map(|series| (series.label.clone(), series.median(|figure| figure.value))).collect()
    }

    /// Wanted is what matches, and all that the goals of what matches are about.
    fn choose(&mut self, only: &str) {
        let matches = |text: &str| text.to_lowercase().contains(only);
        for table in &mut self.tables {
            for series in &mut table.series {
                series.wanted = matches(&format!("{}: {}", table.title, series.label));
            }
        }
        for goal in self.goals.clone() {
            if !self.is_wanted(goal.table, goal.who) {
                continue;
            }
            for table in self.tables.iter_mut().filter(|table| table.title == goal.against.0) {
                let rivals = table.series.iter_mut();
                for series in rivals.filter(|series| goal.against.1.contains(&series.label.as_str())) {
                    series.wanted = true;
                }
            }
        }
    }

    fn find(&self, table: &str, label: &str) -> Option<&Series<'a>> {
        self.tables.iter().find(|each| each.title == table)?.series(label)
    }

    fn is_wanted(&self, table: &str, label: &str) -> bool {
        self.find(table, label).is_some_and(|series| series.wanted)
    }

    /// The table of the goals that were measured, and whether all are met.
    fn goals(&self) -> (String, bool) {
        let mut text = String::new();
        let mut met = true;
        for goal in &self.goals {
            let Some(who) = self.find(goal.table, goal.who) else { continue };
            let rivals: Vec<_> =
                goal.against.1.iter().filter_map(|label| self.find(goal.against.0, label)).collect();
            let higher = matches!(goal.bound, Bound::AtLeast(_));
            let rounds = who.figures.iter().enumerate().filter_map(|(round, figure)| {
                let value = goal.pick(figure);
                if let Bound::Under(_) = goal.bound {
                    return Some(value);
                }
                let rivals = rivals.iter().filter_map(|rival| rival.figures.get(round));
                let rivals = rivals.map(|figure| goal.pick(figure));
                let best = if higher { rivals.reduce(f64::max) } else { rivals.reduce(f64::min) };
                best.map(|best| value / best)
            });
            let ratios: Vec<f64> = rounds.collect();
            if ratios.is_empty() {
                continue;
            }
            let ratio = median(ratios.iter().copied());
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let reached = match goal.bound {
                Bound::AtLeast(times) => ratio >= times,
                Bound::AtMost(times) | Bound::Under(times) => ratio <= times,
            };
            met &= reached;
            let verdict = if reached { "reached" } else { "**missed**" };
            let (table, label, goal) = (goal.table, goal.who, goal.text());
            let [ratio, least, most] = [ratio, least, most].map(number);
            _ = writeln!(text, "| {table}: {label} | {goal} | {ratio} ({least} to {most}) | {verdict} |");
        }
        if !text.is_empty() {
            let head =
                "\n| goal | bound | reached: median of the rounds (least to most) | |\n|---|---|---|---|\n";
            text.insert_str(0, head);
        }
        (text, met)
    }
}

impl Table<'_> {
    fn markdown(&self) -> String {
        let heads = self.unit.heads();
        let first = self.series.iter().find(|series| series.wanted && !series.figures.is_empty());
        let mut text = format!("\n| {} |", self.title);
        for head in heads {
            _ = write!(text, " {head} |");
        }
        text.push_str(" least to most |");
        if let Some(first) = first {
            _ = write!(text, " x {} |", first.label);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(heads.len() + 1 + usize::from(first.is_some())));
        text.push('\n');
        for series in self.series.iter().filter(|series| series.wanted) {
            _ = write!(text, "| {} |", series.label);
            if let Some(reason) = &series.skipped {
                _ = writeln!(text, " skipped: {reason} |{}", " |".repeat(heads.len() + 1));
                continue;
            }
            let picks: [fn(&Figure) -> f64; 3] =
                [|figure| figure.value, |figure| figure.p99, |figure| figure.p999];
            for pick in picks.iter().take(heads.len()) {
                _ = write!(text, " {} |", number(series.median(pick)));
            }
            let values = || series.figures.iter().map(|figure| figure.value);
            let least = number(values().fold(f64::INFINITY, f64::min));
            let most = number(values().fold(0.0, f64::max));
            _ = write!(text, " {least} to {most} |");
            if let Some(first) = first {
                let pairs = series.figures.iter().zip(&first.figures);
                let ratio = median(pairs.map(|(one, other)| one.value / other.value));
                _ = write!(text, " {} |", number(ratio));
            }
            text.push('\n');
        }
        text
    }
}

/// With three digits that count.
fn number(value: f64) -> String {
    let digits: usize = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn heading(command: &str, options: &Options) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = thread_count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let said = |program: &str, argument| {
        let output = Command::new(program).arg(argument).output().map(|output| output.stdout);
        String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
    };
    let date = said("date", "+%F %H:%M %z");
    let compiler = said("rustc", "--version");
    let own: Vec<String> = std::env::args().skip(1).collect();
    let own = if own.is_empty() { String::new() } else { format!(" -- {}", own.join(" ")) };
    let Options { rounds, turn, .. } = options;
    format!(
        "- Date: {date}. Machine: {}, {cores} cores, Linux {}, {compiler}; load average before: {}.\n\
         - Command: `{command}{own}`.\n\
         - {rounds} interleaved rounds of about {turn:?} for each row; medians; ratios are medians of the ratios within \
         a round. Every message is read and checked: whole, in order, none lost.\n",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.split('-').next().unwrap_or_default().trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
///
/// # Errors
/// The file cannot be read or written, or has no such markers.
pub fn write_between_markers(path: &str, name: &str, text: &str) -> io::Result<()> {
    let old = fs::read_to_string(path)?;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- end of {name} -->"));
    let missing = || io::Error::other(format!("{path} has no {begin} or no {end} after it"));
    let (before, rest) = old.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    fs::write(path, format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}
