//! Counts the words of real files with several processes.
//!
//! ```text
//! cargo run --release --example word_count [-- PATH] [--workers N]
//! ```
//!
//! The parent puts the texts of the files into the queue `jobs` and closes it. The workers take them out and count;
//! when `jobs` is closed and empty, they put their counts into the queue `counts` and end. The parent adds them up,
//! counts the same texts by itself, and compares.
//!
//! Nobody waits for the dead. When a worker dies, the parent's thread that waits for the workers closes the queues.
//! When the parent dies, however it does, the pipe that every worker listens to is at end of file: then the workers
//! close the queues, and the memory goes with the last of them.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process, thread};

use shmq::{GetError, Queue, QueueOptions, Receiver};

type Counts = HashMap<String, u64>;
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A message is the text of a whole file. What is longer is skipped, and so is what goes beyond the whole amount.
const LONGEST_TEXT: u64 = 1 << 20;
const ALL_TEXTS: u64 = 32 << 20;

const USAGE: &str = "usage: word_count [PATH] [--workers N]

PATH is a text file or a directory of them; by default, the source of the crates that cargo has downloaded. N is 1 to
256. Files of up to 1 MiB are read, until it is 32 MiB; what is named target or .git is left out.";

fn main() {
    // A worker is this program again. It runs `work` in here, and does not come back.
    procspawn::init();
    // `Display`, with what to do about it; an error that `main` returns is printed with `Debug`.
    if let Err(error) = run() {
        eprintln!("word_count: {error}");
        process::exit(1);
    }
}

fn run() -> Result<()> {
    let (mut path, mut workers) = (None, thread::available_parallelism()?.get().clamp(2, 256));
    let mut args = env::args_os().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--workers" {
            let number = args.next().and_then(|number| number.to_str()?.parse().ok());
            workers = number.filter(|number| (1..=256).contains(number)).ok_or(USAGE)?;
        } else if path.is_some() || arg.as_encoded_bytes().starts_with(b"-") {
            return Err(USAGE.into());
        } else {
            path = Some(PathBuf::from(arg));
        }
    }
    let crates = || Some(env::home_dir()?.join(".cargo/registry/src")).filter(|crates| crates.is_dir());
    let path = path.or_else(crates).unwrap_or_else(|| PathBuf::from("."));
    let (mut texts, mut skipped) = (Vec::new(), 0);
    read(&path, &mut texts, &mut skipped)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;

    let start = Instant::now();
    let (counts, messages) = count_in_workers(&texts, workers)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut alone = Counts::new();
    for text in &texts {
        count(text, &mut alone);
    }
    if counts != alone {
        return Err("the counts differ from those of a single process for the same texts".into());
    }

    let mut words = Vec::from_iter(&counts);
    words.sort_by_key(|&(word, number)| (Reverse(number), word));
    for (word, number) in words.iter().take(20) {
        println!("{number:>9} {word}");
    }
    println!("\nfiles:    {} of {}, {skipped} skipped", texts.len(), path.display());
    println!("messages: {messages} in {seconds:.2} s, to and from {workers} workers");
    let (all, different) = (counts.values().sum::<u64>(), words.len());
    println!("words:    {all}, {different} of them different; equal to a single-process count");
    Ok(())
}

/// What the workers count, and how many messages that took.
fn count_in_workers(texts: &[String], workers: usize) -> Result<(Counts, u64)> {
    let mut options = QueueOptions::new();
    // Besides the text or the word, a message has a length or a count.
    options.capacity(10_000).max_message(usize::try_from(LONGEST_TEXT)? + 32);
    let (jobs, counts) = (options.anonymous::<String>()?, options.anonymous::<(String, u64)>()?);
    // Nothing is ever sent through it: it is at end of file when this process is no more.
    let (end_of_parent, _sender) = shmq::simplex::<()>()?;
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            procspawn::spawn((jobs.clone(), counts.clone(), end_of_parent.clone()), |(jobs, counts, end)| {
                work(&jobs, &counts, end).map_err(|error| error.to_string())
            })
        })
        .collect();

    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let ended = workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(error) => Err(format!("a worker died: {error}")),
            });
            jobs.close();
            counts.close();
            ended
        });
        let put = texts.iter().try_for_each(|text| jobs.put(text));
        jobs.close();
        let mut totals = Counts::new();
        for (word, number) in &counts {
            *totals.entry(word).or_default() += number;
        }
        // If a worker died, that is why a put failed.
        waiter.join().map_err(|_| "the thread that waits for the workers panicked")??;
        put?;
        Ok((totals, jobs.stats().puts + counts.stats().puts))
    })
}

fn work(jobs: &Queue<String>, counts: &Queue<(String, u64)>, end_of_parent: Receiver<()>) -> Result<()> {
    let (jobs_to_close, counts_to_close) = (jobs.clone(), counts.clone());
    thread::spawn(move || {
        _ = end_of_parent.recv();
        jobs_to_close.close();
        counts_to_close.close();
    });
    let mut totals = Counts::new();
    loop {
        match jobs.get() {
            Ok(text) => count(&text, &mut totals),
            Err(GetError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(counts.put_many(&totals.into_iter().collect::<Vec<_>>())?)
}

/// A word is a run of letters, digits and underscores.
fn count(text: &str, counts: &mut Counts) {
    for word in text.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
        match counts.get_mut(word) {
            _ if word.is_empty() => {}
            Some(number) => *number += 1,
            None => _ = counts.insert(word.to_owned(), 1),
        }
    }
}

/// Reads a file, or what is in a directory. Follows no links.
fn read(path: &Path, texts: &mut Vec<String>, skipped: &mut usize) -> std::io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    if data.is_dir() {
        let mut paths: Vec<_> = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort_unstable();
        for path in paths.iter().filter(|path| !path.ends_with("target") && !path.ends_with(".git")) {
            *skipped += usize::from(read(path, texts, skipped).is_err());
        }
        return Ok(());
    }
    let so_far: u64 = texts.iter().map(|text| text.len() as u64).sum();
    if !data.is_file() || data.len() > LONGEST_TEXT || so_far + data.len() > ALL_TEXTS {
        return Err(std::io::Error::other("not a file of up to 1 MiB, or beyond 32 MiB in all"));
    }
    texts.push(fs::read_to_string(path)?);
    Ok(())
}
