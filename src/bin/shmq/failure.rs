//! What ends the command early, and in which words.

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use shmq::{GetError, OpenError, PutError};

pub(crate) type Outcome = Result<(), Failure>;

#[derive(Debug)]
pub(crate) enum Failure {
    /// Told on standard error.
    Error(String),
    /// Nothing in the time that was given. Told on standard error, with an exit code of its own.
    TimedOut(String),
    /// The reader of our output has gone. That is how it ends a pipeline, and no error.
    ReaderGone,
}

const ERROR: u8 = 1;
const TIMED_OUT: u8 = 3;

impl Failure {
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Error(text) => (text, ERROR),
            Self::TimedOut(text) => (text, TIMED_OUT),
            Self::ReaderGone => return ExitCode::SUCCESS,
        };
        complain(&text);
        ExitCode::from(code)
    }

    /// What stands in the way of a command about `name`, in the words of who types commands.
    pub(crate) fn open(error: OpenError) -> Self {
        Self::Error(match error {
            OpenError::NotFound { name } => match similar(&name) {
                Some(similar) => format!(
                    "there is no queue named {name:?}\n\
                     did you mean {similar}? see which there are:  shmq ls\n\
                     or make one with:  shmq create {name} --capacity 1000"
                ),
                None => format!(
                    "there is no queue named {name:?}\n\
                     make one with:  shmq create {name} --capacity 1000\n\
                     or see which there are:  shmq ls"
                ),
            },
            OpenError::AlreadyExists { name } => format!(
                "{name:?} already exists\n\
                 use it as it is, see what it is with:  shmq stat {name}\n\
                 or remove it first, with its messages:  shmq rm {name}"
            ),
            OpenError::Mismatch { field: "kind", expected, found } => format!(
                "this is {}, not {}; put, get, drain and peek are for queues, ls and stat for everything",
                with_article(&found),
                with_article(&expected),
            ),
            OpenError::NotShmq { name, reason } if reason != "it is not a regular file" => format!(
                "{name:?} is broken: {}\n\
                 if nothing else needs it, remove it with:  shmq rm {name}",
                crate::text::safe(&reason),
            ),
            OpenError::PermissionDenied { name } => format!(
                "no permission to use {name:?}: see whose it is with:  ls -l /dev/shm/shmq.{name}\n\
                 run this command as that user; whoever makes a queue admits others with:  shmq create --mode 0660"
            ),
            other => other.to_string(),
        })
    }

    pub(crate) fn put(name: &str, error: &PutError) -> String {
        match error {
            PutError::Closed => format!("{name:?} is closed: nothing can be put into it any more"),
            PutError::Corrupt { reason } => corrupt(name, reason),
            other => other.to_string(),
        }
    }

    pub(crate) fn get(name: &str, error: &GetError) -> Self {
        Self::Error(match error {
            GetError::Corrupt { reason } => corrupt(name, reason),
            other => other.to_string(),
        })
    }
}

/// A name that there is and that may have been meant.
fn similar(name: &str) -> Option<String> {
    let wanted = name.strip_prefix("shmq.").unwrap_or(name).to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&wanted, &name.to_lowercase());
    let names = shmq::list().ok()?.into_iter().map(|info| info.name);
    let close = names.map(|name| (likeness(&name), name)).filter(|(likeness, _)| *likeness > 0.9);
    close.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}

fn corrupt(name: &str, reason: &str) -> String {
    format!(
        "{name:?} is corrupt: {reason}\n\
         no message can be got out of it; remove it with:  shmq rm {name}"
    )
}

fn with_article(kind: &str) -> String {
    let article =
        if kind.starts_with(['a', 'e', 'i', 'o', 'u']) && !kind.starts_with("one") { "an" } else { "a" };
    format!("{article} {kind}")
}

impl From<io::Error> for Failure {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Error(format!("cannot write to the output: {error}")),
        }
    }
}

/// Says what is wrong, on standard error.
pub(crate) fn complain(text: &str) {
    const RED: Style = AnsiColor::Red.on_default().bold();
    eprintln!("{RED}shmq:{RED:#} {text}");
}

/// Says what is worth knowing, on standard error.
pub(crate) fn note(text: &str) {
    eprintln!("shmq: {text}");
}
