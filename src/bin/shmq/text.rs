//! Numbers, times, messages and tables as people read them.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use shmq::State;

/// A number of bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024;
    while bytes / scale >= 1024 && unit + 1 < UNITS.len() {
        scale *= 1024;
        unit += 1;
    }
    let tenths = bytes / (scale / 8) * 10 / 8;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long ago something was.
#[expect(clippy::disallowed_methods, reason = "not a deadline: an age goes by the clock on the wall")]
pub(crate) fn age(since: Option<SystemTime>) -> String {
    since
        .and_then(|since| SystemTime::now().duration_since(since).ok())
        .map_or_else(|| "-".to_owned(), duration)
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

/// "1 message", "2 messages".
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Text of others that cannot do anything to a terminal.
pub(crate) fn safe(text: &str) -> String {
    printable(text.as_bytes())
}

/// A message on one line: what can be printed as it is, anything else as an escape.
pub(crate) fn printable(message: &[u8]) -> String {
    let mut text = String::new();
    for chunk in message.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

pub(crate) fn hex(message: &[u8]) -> String {
    let mut text = String::with_capacity(2 * message.len());
    for byte in message {
        _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn state(state: &State) -> &'static str {
    match state {
        State::Live => "live",
        State::Idle => "idle",
        State::Stale => "stale",
        State::Broken(_) => "broken",
        _ => "unknown",
    }
}

pub(crate) fn colour(state: &State) -> Style {
    match state {
        State::Live => AnsiColor::Green.on_default(),
        State::Idle => AnsiColor::Cyan.on_default(),
        State::Stale => AnsiColor::Yellow.on_default(),
        State::Broken(_) => AnsiColor::Red.on_default(),
        _ => Style::new(),
    }
}

/// A line of a table. The second number of a column's pair is its style.
pub(crate) type Row = Vec<(String, Style)>;

/// Lines with columns one under the other, those of numbers on the right. Columns that are empty but for their head
/// are left out.
pub(crate) fn table(head: &[(&str, bool)], rows: &[Row]) -> String {
    const HEAD: Style = Style::new().bold();
    let filled = |column: &usize| rows.iter().any(|row| !row[*column].0.is_empty());
    let columns: Vec<usize> = (0..head.len()).filter(filled).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].0.chars().count());
        cells.chain([head[column].0.len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let heading: Row = head.iter().map(|(title, _)| ((*title).to_owned(), HEAD)).collect();
    let mut text = String::new();
    for row in [&heading].into_iter().chain(rows) {
        for (place, column) in columns.iter().copied().enumerate() {
            let (cell, style) = &row[column];
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = match (head[column].1, place + 1 == columns.len()) {
                (true, _) => (padding.as_str(), ""),
                (false, false) => ("", padding.as_str()),
                (false, true) => ("", ""),
            };
            let gap = if place == 0 { "" } else { "  " };
            _ = write!(text, "{gap}{before}{style}{cell}{style:#}{after}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
