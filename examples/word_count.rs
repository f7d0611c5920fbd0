//! Counts the words of real files with several processes.
//!
//! ```text
//! cargo run --release --example word_count [-- PATH] [--workers N]
//! ```
//!
//! - The *parent*, which you start, puts chunks of lines into the queue `jobs`.
//! - The *workers* take them out and count. When `jobs` is closed and empty, they put their totals into
//!   the queue `reports`, and the parent adds them up.
//! - The *guardian* makes the queues and takes them away.
//!
//! # How nothing stays behind, whoever dies
//!
//! The input of the guardian and of the workers is a pipe that only the parent can write to. However the
//! parent ends, by itself or killed, the kernel closes it. Then the workers exit, and the guardian removes
//! the names of the queues: the memory goes with the last process that uses it. Ctrl-C kills the workers
//! as well, but not the guardian: it is in a process group of its own.
//!
//! The parent removes the names even earlier, as soon as all workers are attached: from then on not even
//! `killall -9 word_count`, guardian and all, leaves anything behind. (Before, it does; the next process
//! that makes a queue without giving it a name sweeps that up.)
//!
//! Nobody waits for the dead: the parent has a thread for each worker, which waits for the worker's end
//! and, if that was not a good one, closes the queues.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Instant;
use std::{env, fs, iter, process, thread};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::{Deserialize, Serialize};
use shmq::{GetError, OpenError, PutError, Queue, QueueOptions};

/// Whole lines of one file, or a piece of a line that is longer than a message.
#[derive(Serialize, Deserialize)]
struct Chunk {
    text: String,
}

/// What a worker tells the parent, in this order.
#[derive(Serialize, Deserialize)]
enum Report {
    Ready,
    Words(Vec<(String, u64)>),
    Done,
}

type Totals = HashMap<String, u64>;
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How many messages a queue holds, and how many bytes a message.
const CAPACITY: usize = 500;
const MESSAGE: usize = 16 << 10;
/// Bytes of text in a chunk; the rest of the message is for the length of the text.
const CHUNK: usize = MESSAGE - 8;
/// A word of more bytes is counted in pieces, so that every word fits a message.
const LONGEST_WORD: usize = 64;
/// So many words, with their counts, fit a message.
const WORDS_IN_REPORT: usize = MESSAGE / (LONGEST_WORD + 16);

const USAGE: &str = "\
usage: word_count [PATH] [--workers N]

Counts the words of the text files at or below PATH with N worker processes (1 to 256).
By default PATH is the source of the crates that cargo has downloaded, and N the number of cores, but
at least 2. What is named target or .git is left out. At most 1 GiB is read, and 32 MiB by default.
";

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let outcome = match args.iter().map(|arg| arg.to_str().unwrap_or("")).collect::<Vec<_>>()[..] {
        ["--guardian"] => guard(),
        ["--worker", jobs, reports] => match work(jobs, reports) {
            Err(error) if is_end(&*error) => return ExitCode::FAILURE,
            outcome => outcome,
        },
        ref args if args.iter().any(|arg| ["--help", "-h"].contains(arg)) => print(USAGE),
        _ => match parse(args).and_then(|(path, workers)| Ok((Input::at(path)?, workers))) {
            Ok((input, workers)) => run(&input, workers),
            Err(error) => {
                eprintln!("word_count: {error} (see --help)");
                return ExitCode::from(2);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("word_count: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<(Option<PathBuf>, usize), String> {
    let (mut path, mut workers) =
        (None, thread::available_parallelism().map_or(2, usize::from).clamp(2, 256));
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--workers" {
            let given = args.next().unwrap_or_default();
            let number = given.to_str().and_then(|given| given.parse().ok());
            workers = number.filter(|number| (1..=256).contains(number)).ok_or_else(|| {
                format!("--workers needs a number from 1 to 256, not '{}'", given.display())
            })?;
        } else if arg.as_encoded_bytes().starts_with(b"-") {
            return Err(format!("there is no option '{}'", arg.display()));
        } else if path.replace(PathBuf::from(&arg)).is_some() {
            return Err(format!("one PATH is enough; '{}' is another", arg.display()));
        }
    }
    Ok((path, workers))
}

/// Whoever reads our output may stop reading, as `head` does.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

// ---- The guardian and the worker ----

fn guard() -> Result<()> {
    let mut options = QueueOptions::new();
    options.capacity(CAPACITY).max_message(MESSAGE);
    let (jobs, reports) = (options.anonymous::<Chunk>()?, options.anonymous::<Report>()?);
    // Fails if the parent is dead already.
    _ = writeln!(io::stdout(), "{} {}", jobs.name(), reports.name());
    wait_for_parent();
    end(&jobs, &reports);
    Ok(())
}

fn wait_for_parent() {
    _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// Ends the work, wherever it stands.
fn end(jobs: &Queue<Chunk>, reports: &Queue<Report>) {
    reports.close();
    jobs.close();
    remove_names(jobs, reports);
}

fn remove_names(jobs: &Queue<Chunk>, reports: &Queue<Report>) {
    // Somebody else may have done it before.
    _ = shmq::remove(jobs.name());
    _ = shmq::remove(reports.name());
}

fn work(jobs: &str, reports: &str) -> Result<()> {
    thread::Builder::new().spawn(|| {
        wait_for_parent();
        process::exit(1);
    })?;
    let jobs = Queue::<Chunk>::open(jobs)?;
    let reports = Queue::open(reports)?;
    reports.put(&Report::Ready)?;
    let mut totals = Totals::new();
    loop {
        match jobs.get() {
            Ok(chunk) => count(&chunk.text, &mut totals),
            Err(GetError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut totals = totals.into_iter().peekable();
    while totals.peek().is_some() {
        reports.put(&Report::Words(totals.by_ref().take(WORDS_IN_REPORT).collect()))?;
    }
    Ok(reports.put(&Report::Done)?)
}

/// Whether the parent has given up, which is not for a worker to complain of.
fn is_end(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(PutError::Closed))
        || matches!(error.downcast_ref(), Some(OpenError::NotFound { .. }))
}

// ---- The parent ----

fn run(input: &Input, workers: usize) -> Result<()> {
    let failure = OnceLock::new();
    // The scope lasts until all workers have ended.
    let counted = thread::scope(|scope| {
        let (mut guardian, jobs, reports) = start_guardian()?;
        for number in 1..=workers {
            let mut command = Command::new(env::current_exe()?);
            command.args(["--worker", jobs.name(), reports.name()]).stdin(Stdio::piped());
            let mut worker =
                command.spawn().map_err(|error| format!("cannot start worker {number}: {error}"))?;
            let (jobs, reports, failure) = (jobs.clone(), reports.clone(), &failure);
            thread::Builder::new().spawn_scoped(scope, move || {
                // `wait` would close it.
                let _input = worker.stdin.take();
                let how = match worker.wait() {
                    Ok(status) if status.success() => return,
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                // Only the first time: the others may die of it.
                _ = failure.set(format!("worker {number} (process {}) died: {how}", worker.id()));
                end(&jobs, &reports);
            })?;
        }
        let counted = count_in_workers(&input.texts, workers, &jobs, &reports);
        let cause = failure.get().cloned();
        end(&jobs, &reports);
        // This closes its input first.
        _ = guardian.wait();
        cause.map_or(counted, |cause: String| Err(cause.into()))
    });
    let (totals, rates) = counted?;
    let mut alone = Totals::new();
    let bar = progress("comparing", &input.texts);
    for text in &input.texts {
        count(text, &mut alone);
        bar.inc(text.len() as u64);
    }
    drop(bar);
    if totals != alone {
        return Err("the totals differ from those of a single process for the same text".into());
    }
    let mut words: Vec<_> = totals.iter().collect();
    words.sort_by_key(|&(word, number)| (Reverse(number), word));
    let top: Vec<_> = words.iter().take(20).map(|(word, number)| format!("{number:>9} {word}\n")).collect();
    let skipped: Vec<_> = input.skipped.iter().map(|(why, number)| format!("{number} {why}")).collect();
    print(&format!(
        "{}\nfiles:    {} of {}\nskipped:  {}\nworkers:  {workers}\nmessages: {rates}\n\
         words:    {}, {} of them different; equal to a single-process count\n",
        top.concat(),
        input.texts.len(),
        input.path.display(),
        if skipped.is_empty() { "nothing".to_owned() } else { skipped.join(", ") },
        totals.values().sum::<u64>(),
        totals.len(),
    ))
}

fn start_guardian() -> Result<(Child, Queue<Chunk>, Queue<Report>)> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--guardian").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut guardian = command.spawn()?;
    let mut names = String::new();
    if let Some(output) = &mut guardian.stdout {
        BufReader::new(output).read_line(&mut names)?;
    }
    let (jobs, reports) = names.trim_end().split_once(' ').ok_or("the guardian could not make the queues")?;
    Ok((guardian, Queue::open(jobs)?, Queue::open(reports)?))
}

/// The totals, and how fast they came.
fn count_in_workers(
    texts: &[String],
    workers: usize,
    jobs: &Queue<Chunk>,
    reports: &Queue<Report>,
) -> Result<(Totals, String)> {
    for _ in 0..workers {
        let _ready = reports.get()?;
    }
    remove_names(jobs, reports);

    let start = Instant::now();
    let bar = progress("counting", texts);
    for chunk in texts.iter().flat_map(|text| pieces(text, chunk_len)) {
        jobs.put(&Chunk { text: chunk.to_owned() })?;
        bar.inc(chunk.len() as u64);
    }
    jobs.close();
    let (mut totals, mut done) = (Totals::new(), 0);
    while done < workers {
        match reports.get()? {
            Report::Ready => {}
            Report::Words(words) => {
                for (word, number) in words {
                    *totals.entry(word).or_default() += number;
                }
            }
            Report::Done => done += 1,
        }
    }
    let (seconds, there, back) = (start.elapsed().as_secs_f64(), jobs.stats(), reports.stats());
    let (messages, bytes) = (there.puts + back.puts, there.put_bytes + back.put_bytes);
    #[expect(clippy::cast_precision_loss, reason = "rates")]
    let (rate, speed) = (messages as f64 / seconds, bytes as f64 / seconds / 1e6);
    Ok((totals, format!("{messages} in {seconds:.2} s: {rate:.0} messages/s, {speed:.1} MB/s")))
}

/// A bar on standard error, if that is a terminal. It goes when it is dropped.
fn progress(doing: &'static str, texts: &[String]) -> ProgressBar {
    let bytes = texts.iter().map(|text| text.len() as u64).sum();
    let style = ProgressStyle::with_template("{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(doing).with_finish(ProgressFinish::AndClear)
}

// ---- The files ----

#[derive(Default)]
struct Input {
    path: PathBuf,
    texts: Vec<String>,
    /// What was not read, and how often.
    skipped: BTreeMap<&'static str, usize>,
    /// How much more may be read.
    files_left: usize,
    bytes_left: u64,
}

impl Input {
    fn at(path: Option<PathBuf>) -> Result<Self, String> {
        let mut input = Self { files_left: 1_000_000, bytes_left: 1 << 30, ..Self::default() };
        let path = path.unwrap_or_else(|| {
            (input.files_left, input.bytes_left) = (10_000, 32 << 20);
            let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
            let cargo = cargo.or_else(|| Some(env::home_dir()?.join(".cargo"))).unwrap_or_default();
            let crates = cargo.join("registry/src");
            if fs::read_dir(&crates).is_ok_and(|mut entries| entries.next().is_some()) {
                return crates;
            }
            let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            if here.is_dir() { here } else { PathBuf::from(".") }
        });
        let cannot = |why: &dyn Display| format!("cannot read '{}': {why}", path.display());
        input.path = fs::canonicalize(&path).map_err(|error| cannot(&error))?;
        input.read(&input.path.clone()).map_err(|why| cannot(&why))?;
        Ok(input)
    }

    /// Reads a file, or what is in a directory, in the order of the names. Follows no links.
    fn read(&mut self, path: &Path) -> Result<(), &'static str> {
        let why = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "vanished",
            _ => "unreadable",
        };
        if self.files_left == 0 {
            return Err("beyond the limit (see --help)");
        }
        let data = fs::symlink_metadata(path).map_err(why)?;
        if data.is_dir() {
            let entries =
                fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(why)?;
            let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
            paths.sort_unstable();
            for path in paths {
                let is_left_out = path.ends_with("target") || path.ends_with(".git");
                let read = if is_left_out { Err("'target' or '.git'") } else { self.read(&path) };
                if let Err(why) = read {
                    *self.skipped.entry(why).or_default() += 1;
                }
            }
            return Ok(());
        }
        match data.len() {
            _ if !data.is_file() => return Err("neither file nor directory"),
            len if len > self.bytes_left => return Err("beyond the limit (see --help)"),
            // Also what /proc calls empty, some of which never ends.
            0 => return Ok(()),
            len => self.bytes_left -= len,
        }
        self.files_left -= 1;
        let bytes = fs::read(path).map_err(why)?;
        self.texts.push(String::from_utf8(bytes).or(Err("not UTF-8"))?);
        Ok(())
    }
}

// ---- Words ----

/// Adds the words of a text to the totals. A word is a run of letters, digits and underscores.
fn count(text: &str, totals: &mut Totals) {
    for run in text.split(|letter| !is_in_word(letter)) {
        for word in pieces(run, word_len) {
            match totals.get_mut(word) {
                Some(number) => *number += 1,
                None => _ = totals.insert(word.to_owned(), 1),
            }
        }
    }
}

fn is_in_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Cuts a text into pieces; `len` is how long the first one of a text is to be.
fn pieces(mut text: &str, len: fn(&str) -> usize) -> impl Iterator<Item = &str> {
    iter::from_fn(move || {
        let (piece, rest) = text.split_at(len(text));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn word_len(run: &str) -> usize {
    run.floor_char_boundary(LONGEST_WORD)
}

/// As many whole lines as fit a chunk. If not even one does: as many whole words. If not even one of
/// these does: as many of the pieces that it is counted in.
fn chunk_len(text: &str) -> usize {
    let head = &text[..text.floor_char_boundary(CHUNK)];
    if head.len() == text.len() {
        return text.len();
    }
    let lines = head.rfind('\n').map_or(0, |end| end + 1);
    let words = head.trim_end_matches(is_in_word).len();
    match if lines > 0 { lines } else { words } {
        0 => head.len() - pieces(head, word_len).last().map_or(0, str::len),
        len => len,
    }
}
