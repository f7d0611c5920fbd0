//! How full a queue is and how fast messages come and go, over time: `watch`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use shmq::{Info, OpenError};

use crate::arguments::Watch;
use crate::failure::{Failure, Outcome};
use crate::sink::reader_goes_within;
use crate::text::{counted, state};

/// Wider terminals show no more than this.
const LONGEST_HISTORY: usize = 1000;
/// The columns before a line over time: what it shows, and its newest value.
const LABELS: usize = 36;

pub(crate) fn watch(watch: &Watch) -> Outcome {
    let on_terminal =
        io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let mut screen = if on_terminal { Screen::Redrawn { lines: 0 } } else { Screen::Appended };
    let mut history = History::default();
    let mut next = Instant::now();
    let mut drawn = 0;
    loop {
        let info = shmq::inspect(&watch.name).map_err(|error| match error {
            OpenError::NotFound { .. } if drawn > 0 => Failure::Error(format!("{} has gone", watch.name)),
            other => Failure::open(other),
        })?;
        history.add(info);
        screen.draw(&history)?;
        drawn += 1;
        if watch.count.is_some_and(|count| drawn >= count) {
            return Ok(());
        }
        next += watch.interval;
        if reader_goes_within(next.saturating_duration_since(Instant::now()))? {
            return Err(Failure::ReaderGone);
        }
    }
}

#[derive(Default)]
struct History {
    last: Option<(Instant, Info)>,
    messages: VecDeque<f64>,
    puts: VecDeque<f64>,
    gets: VecDeque<f64>,
}

impl History {
    fn add(&mut self, info: Info) {
        let now = Instant::now();
        if let Some((then, before)) = &self.last {
            let time = now.duration_since(*then).max(Duration::from_micros(1));
            push(&mut self.puts, rate(before.puts, info.puts, time));
            push(&mut self.gets, rate(before.gets, info.gets, time));
        }
        push(&mut self.messages, number(info.messages));
        self.last = Some((now, info));
    }
}

fn push(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == LONGEST_HISTORY {
        values.pop_front();
    }
    values.push_back(value);
}

/// A queue that was replaced by another one of its name has counted less.
fn rate(before: u64, after: u64, time: Duration) -> f64 {
    number(after.saturating_sub(before)) / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "to be drawn")]
fn number(count: u64) -> f64 {
    count as f64
}

enum Screen {
    /// On a terminal: over what was drawn before, which took so many lines.
    Redrawn { lines: usize },
    /// Anywhere else: one line each time.
    Appended,
}

impl Screen {
    fn draw(&mut self, history: &History) -> io::Result<()> {
        let Some((_, info)) = &history.last else { return Ok(()) };
        let mut output = io::stdout().lock();
        match self {
            Self::Appended => {
                if history.messages.len() == 1 {
                    writeln!(output, "messages  puts/s  gets/s  attached  state")?;
                }
                writeln!(
                    output,
                    "{:>8}  {:>6}  {:>6}  {:>8}  {}",
                    info.messages,
                    newest(&history.puts),
                    newest(&history.gets),
                    info.attached,
                    standing(info)
                )?;
            }
            Self::Redrawn { lines } => {
                let width = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
                let width = if width == 0 { 80 } else { width };
                // Never the last column: some terminals go to the next line after it.
                let drawing = drawing(history, info, width - 1);
                let mut text = String::new();
                if *lines > 0 {
                    _ = write!(text, "\x1b[{lines}A\r\x1b[J");
                }
                for line in &drawing {
                    text += line;
                    text.push('\n');
                }
                *lines = drawing.len();
                output.write_all(text.as_bytes())?;
            }
        }
        output.flush()
    }
}

fn standing(info: &Info) -> String {
    let closed = if info.closed { ", closed" } else { "" };
    format!("{}{closed}", state(&info.state))
}

fn newest(values: &VecDeque<f64>) -> String {
    values.back().map_or("-".to_owned(), |value| format!("{value:.0}"))
}

fn drawing(history: &History, info: &Info, width: usize) -> Vec<String> {
    let attached = counted(info.attached, "handle", "handles");
    let title = format!("{}: {}, {attached}; Ctrl-C ends", info.name, standing(info));
    let messages = match info.capacity {
        Some(capacity) => format!("{} of {capacity}", info.messages),
        None => info.messages.to_string(),
    };
    let lines = [
        title,
        line("messages", &messages, &history.messages, width),
        line("puts/s", &newest(&history.puts), &history.puts, width),
        line("gets/s", &newest(&history.gets), &history.gets, width),
    ];
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

/// The newest value in figures, the highest in view, and the values as a line over time, the newest on the right.
fn line(what: &str, newest: &str, values: &VecDeque<f64>, width: usize) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let room = width.saturating_sub(LABELS + 1);
    let in_view = values.iter().skip(values.len().saturating_sub(room));
    let highest = in_view.clone().copied().fold(0.0, f64::max);
    let block = |value: &f64| {
        if highest <= 0.0 {
            return ' ';
        }
        // Anything but nothing is to be seen.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8")]
        let height = (value / highest * 8.0).ceil() as usize;
        BLOCKS[height.min(8)]
    };
    let drawn: String = in_view.map(block).collect();
    let labels = format!("{what:<9}{newest:<15}max {highest:<8.0}");
    format!("{labels:<LABELS$} {drawn}")
}
