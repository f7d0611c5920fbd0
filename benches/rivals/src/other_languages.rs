//! Queues of other languages, each measured by a program of that language; left out with a word where that
//! does not run.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use shmq_benches::{Figure, Series};

/// The program for Python's queues.
const QUEUES: &str = include_str!("queues.py");

fn python(kind: &str, work: &str, count: u64) -> io::Result<Vec<f64>> {
    let program = Command::new("python3")
        .args(["-c", QUEUES, kind, work, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("python3: {error}")))?;
    if !program.status.success() {
        let text = String::from_utf8_lossy(&program.stderr);
        let last = text.lines().last().unwrap_or("python3 failed");
        return Err(io::Error::other(last.to_owned()));
    }
    let text = String::from_utf8_lossy(&program.stdout);
    text.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
}

/// One of Python's queues, `kind` being the name of its module.
pub(crate) fn python_series<'a>(label: &'static str, kind: &'static str, work: &'static str) -> Series<'a> {
    let series = Series::new(label, move || {
        let first = if work == "one-way" { 5000 } else { 500 };
        let found = python(kind, work, first)?;
        // In one turn.
        let each = if work == "one-way" { 1.0 / found[0] } else { found[0] };
        Ok(Box::new(move |turn: Duration| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
            let count = (turn.as_secs_f64() * 1e6 / each).max(100.0) as u64;
            let found = python(kind, work, count)?;
            let figure = |at: usize| found.get(at).copied().unwrap_or_default();
            Ok(Figure { value: figure(0), p99: figure(1), p999: figure(2) })
        }))
    });
    series.optional()
}

/// There is no program for it here: it would need .NET.
pub(crate) fn cloudtoid<'a>() -> Series<'a> {
    let missing = || {
        let there = Command::new("dotnet").arg("--version").output().is_ok();
        let reason = if there { "no program for it has been written" } else { "dotnet is not installed" };
        Err(io::Error::other(reason))
    };
    Series::new("cloudtoid-interprocess (C#)", missing).optional()
}
