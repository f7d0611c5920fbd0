//! What there is and what is in it: `ls`, `stat`, `peek`.

use std::fmt;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use anstyle::Style;
use serde_json::{Value, json};
use shmq::{Info, State};

use crate::arguments::{Ls, Peek, Stat};
use crate::failure::{Failure, Outcome, note};
use crate::text::{age, bytes, colour, counted, hex, printable, safe, state, table};

const DIRECTORY: &str = "/dev/shm";
const PREFIX: &str = "shmq.";

pub(crate) fn ls(ls: &Ls) -> Outcome {
    let infos = list()?;
    let mut output = anstream::stdout().lock();
    if ls.json {
        let all = infos.iter().map(object).collect();
        writeln!(output, "{:#}", Value::Array(all))?;
    } else if !infos.is_empty() {
        let rows: Vec<_> = infos.iter().map(row).collect();
        write!(output, "{}", table(HEAD, &rows))?;
    } else {
        note("there is nothing; make a queue with:  shmq create NAME --capacity 1000");
    }
    let hidden = hidden(&infos);
    if hidden > 0 {
        let what = counted(
            hidden as u64,
            "segment that this user may not read is",
            "segments that this user may not read are",
        );
        note(&format!("{what} not shown (ls -l {DIRECTORY}/{PREFIX}*)"));
    }
    Ok(())
}

pub(crate) fn list() -> Result<Vec<Info>, Failure> {
    shmq::list().map_err(|error| Failure::Error(format!("cannot look into {DIRECTORY}: {error}")))
}

/// How many segments there are that are not among those that could be read.
fn hidden(infos: &[Info]) -> usize {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return 0 };
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        Some(name.strip_prefix(PREFIX)?.to_owned())
    });
    let unread = names.filter(|name| !infos.iter().any(|info| info.name == *name));
    unread.filter(|name| matches!(shmq::inspect(name), Err(shmq::OpenError::PermissionDenied { .. }))).count()
}

const HEAD: &[(&str, bool)] = &[
    ("NAME", false),
    ("KIND", false),
    ("STATE", false),
    ("MESSAGES", true),
    ("CAPACITY", true),
    ("BYTES", true),
    ("ATTACHED", true),
    ("AGE", true),
    ("SCHEMA", false),
    ("NOTE", false),
];

fn row(info: &Info) -> Vec<(String, Style)> {
    let known = |text: String| if is_broken(info) { "-".to_owned() } else { text };
    let has_messages = !is_broken(info) && has_messages(info);
    let cells = [
        info.name.clone(),
        if info.kind.is_empty() { "-".to_owned() } else { info.kind.to_owned() },
        state(&info.state).to_owned(),
        if has_messages { info.messages.to_string() } else { "-".to_owned() },
        known(info.capacity.map_or_else(|| "unlimited".to_owned(), |capacity| capacity.to_string())),
        bytes(info.bytes),
        info.attached.to_string(),
        age(info.created),
        safe(&info.schema),
        remark(info),
    ];
    let mut row: Vec<_> = cells.into_iter().map(|cell| (cell, Style::new())).collect();
    row[2].1 = colour(&info.state);
    row
}

fn is_broken(info: &Info) -> bool {
    matches!(info.state, State::Broken(_))
}

fn has_messages(info: &Info) -> bool {
    !matches!(info.kind, "value" | "array" | "")
}

/// What else an operator should see at once.
fn remark(info: &Info) -> String {
    match &info.state {
        State::Broken(reason) => safe(reason),
        _ if info.closed => "closed".to_owned(),
        _ if info.kind == "queue" && info.capacity == Some(info.messages) => "full".to_owned(),
        _ => String::new(),
    }
}

pub(crate) fn stat(stat: &Stat) -> Outcome {
    let info = shmq::inspect(&stat.name).map_err(Failure::open)?;
    let users = users(&info.name);
    let mut output = anstream::stdout().lock();
    if stat.json {
        let mut object = object(&info);
        object["processes"] = users
            .iter()
            .map(|user| json!({ "pid": user.pid, "command": user.command, "stopped": user.stopped }))
            .collect();
        writeln!(output, "{object:#}")?;
        return Ok(());
    }
    for (what, is) in lines(&info) {
        writeln!(output, "{what:<16}{is}")?;
    }
    for (place, user) in users.iter().enumerate() {
        writeln!(output, "{:<16}{user}", if place == 0 { "processes" } else { "" })?;
    }
    Ok(())
}

/// Everything that is known, by the names of the fields of `shmq::Info`.
fn object(info: &Info) -> Value {
    let reason = match &info.state {
        State::Broken(reason) => Some(reason),
        _ => None,
    };
    let created = info.created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    json!({
        "name": info.name,
        "state": state(&info.state),
        "reason": reason,
        "kind": info.kind,
        "schema": info.schema,
        "persistent": info.persistent,
        "capacity": info.capacity,
        "max_message": info.max_message,
        "messages": info.messages,
        "puts": info.puts,
        "gets": info.gets,
        "put_bytes": info.put_bytes,
        "get_bytes": info.get_bytes,
        "unfinished": info.unfinished,
        "recoveries": info.recoveries,
        "closed": info.closed,
        "attached": info.attached,
        "bytes": info.bytes,
        "created": created.map(|time| time.as_secs()),
        "mode": info.mode,
        "owner": info.owner,
    })
}

fn lines(info: &Info) -> Vec<(&'static str, String)> {
    let style = colour(&info.state);
    let meaning = match &info.state {
        State::Live => "somebody is attached".to_owned(),
        State::Idle => "nobody is attached; it stays until it is removed with rm".to_owned(),
        State::Stale => "a crash of everybody left it; open attaches to it, gc removes it".to_owned(),
        State::Broken(reason) => format!("{}; rm removes it", safe(reason)),
        _ => String::new(),
    };
    let mut lines = vec![
        ("name", info.name.clone()),
        ("state", format!("{style}{}{style:#}: {meaning}", state(&info.state))),
    ];
    let known = !is_broken(info) || !info.kind.is_empty();
    if known {
        lines.push(("kind", info.kind.to_owned()));
        let schema = if info.schema.is_empty() { "no label".to_owned() } else { safe(&info.schema) };
        lines.push(("schema", schema));
        let kept = if info.persistent { "until it is removed with rm" } else { "until the last handle goes" };
        lines.push(("stays", kept.to_owned()));
    }
    if known && has_messages(info) {
        let most = match info.capacity {
            None => "no limit".to_owned(),
            Some(most) if info.kind == "pipe" => format!("at most {most} each way"),
            Some(most) => format!("at most {most}"),
        };
        lines.extend([
            ("messages", format!("{}, {most}, each of up to {} bytes", info.messages, info.max_message)),
            ("put", format!("{} messages of {} bytes", info.puts, info.put_bytes)),
            ("got", format!("{} messages of {} bytes", info.gets, info.get_bytes)),
        ]);
        if info.kind == "queue" {
            let text = if info.unfinished == info.puts {
                "no message was reported with task_done".to_owned()
            } else {
                format!("{} put and not reported with task_done", info.unfinished)
            };
            lines.push(("unfinished", text));
            lines.push((
                "closed",
                if info.closed { "yes: put fails, get takes what is left" } else { "no" }.to_owned(),
            ));
        }
    } else if known {
        let elements = info.capacity.unwrap_or(1);
        lines.push((
            "holds",
            format!("{} of {} bytes", counted(elements, "element", "elements"), info.max_message),
        ));
    }
    if known {
        lines.push(("recoveries", format!("{} locks taken over from processes that died", info.recoveries)));
    }
    lines.extend([
        ("attached", counted(info.attached, "handle", "handles")),
        ("memory", format!("{} ({} bytes)", bytes(info.bytes), info.bytes)),
        ("age", age(info.created)),
        ("owner", format!("user {}, mode {:04o}", info.owner, info.mode)),
    ]);
    lines
}

/// A process that has the segment mapped.
pub(crate) struct User {
    pid: u32,
    command: String,
    stopped: bool,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of the command line: enough to tell processes from each other.
        const SHOWN: usize = 60;
        let command: String = safe(&self.command).chars().take(SHOWN).collect();
        write!(f, "{} {command}", self.pid)?;
        if self.stopped { f.write_str(" (stopped: kill -CONT lets it go on)") } else { Ok(()) }
    }
}

/// The processes that use the segment of this name, as far as this user may see; without this one.
///
/// By the file, not by its name: what made the segment has mapped it when it had none.
pub(crate) fn users(name: &str) -> Vec<User> {
    let Ok(object) = fs::metadata(format!("{DIRECTORY}/{PREFIX}{name}")) else { return Vec::new() };
    let (device, inode) = (object.dev(), object.ino().to_string());
    let device = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    let maps_it = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        fields.next() == Some(&device) && fields.next() == Some(&inode)
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut users: Vec<_> = pids
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let maps = fs::read(process.join("maps")).ok()?;
            if !String::from_utf8_lossy(&maps).lines().any(maps_it) {
                return None;
            }
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            Some(User {
                pid,
                command: String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned(),
                stopped: status.lines().any(|line| line.starts_with("State:\tT")),
            })
        })
        .collect();
    users.sort_unstable_by_key(|user| user.pid);
    users
}

pub(crate) fn peek(peek: &Peek) -> Outcome {
    let messages = shmq::peek(&peek.name, peek.count).map_err(Failure::open)?;
    let mut output = std::io::stdout().lock();
    for message in &messages {
        let text = if peek.hex {
            hex(message)
        } else if peek.utf8 {
            String::from_utf8_lossy(message).into_owned()
        } else {
            printable(message)
        };
        writeln!(output, "{text}")?;
    }
    output.flush()?;
    if output.is_terminal()
        && let Ok(info) = shmq::inspect(&peek.name)
    {
        match info.messages {
            0 => note("there are no messages"),
            there if there > messages.len() as u64 => {
                note(&format!("{} of {there} messages; see more with --count", messages.len()));
            }
            _ => {}
        }
    }
    Ok(())
}
