//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const AFTER: &str = "\
Examples:
  shmq create jobs --capacity 1000    make a queue that stays until it is removed
  seq 9 | shmq put jobs               put nine messages, one for each line
  shmq peek jobs                      look at the oldest ones without taking them
  shmq get jobs --count 1             take one
  shmq ls                             what there is

Exit codes:
  0  done
  1  an error, which is told on standard error
  2  the command line makes no sense
  3  the time given with --timeout passed, and get had got nothing, or put still had messages left

A program whose reader has gone (shmq get jobs | head -n 1) ends with 0.
Colours are for terminals only; NO_COLOR=1 turns them off.";

/// Look after queues between processes: make them, look into them, put and get messages.
///
/// A queue lies in shared memory (/dev/shm) under its name. Looking at one (ls, stat, peek, watch) never takes a
/// message and never delays those who use it. No command removes a queue, but for rm and gc.
#[derive(Debug, Parser)]
#[command(name = "shmq", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make a queue that stays until it is removed with rm
    Create(Create),
    /// List what there is: queues, pipes, values, arrays
    Ls(Ls),
    /// Tell everything about one of them, and which processes use it
    Stat(Stat),
    /// Show the oldest messages of a queue without taking them
    Peek(Peek),
    /// Draw how full a queue is and how fast messages come and go, once a second
    Watch(Watch),
    /// Put messages into a queue: each line of the input, or those given as arguments
    Put(Put),
    /// Take messages from a queue and print them, one a line, until the queue is closed
    ///
    /// A message is removed from the queue only when it has been written, and, if the output is a pipe, when its reader
    /// has read it: what is not printed stays in the queue. When the reader has gone, get ends. Killed in between, it
    /// leaves the message where it was, and the next one gets it again.
    ///
    /// A reader that takes its time does not hold up others who get from this queue for more than 100 ms: then the
    /// message is removed while it is still on its way. Should the reader go without reading it before get ends, it
    /// is printed on standard error.
    ///
    /// On a terminal what cannot be printed is shown as an escape (\n, \xNN); anywhere else messages come out as they are.
    Get(Get),
    /// Take all messages that are in a queue now, print them, and end
    ///
    /// It takes them as get does: what its reader does not read stays in the queue.
    Drain(Drain),
    /// Remove queues by name, even while they are used, and their messages
    Rm(Rm),
    /// Remove what crashes have left behind and nobody is attached to
    ///
    /// Queues that are to stay (made with shmq create, or persistent in a program) are not removed, nor is what is
    /// broken: that is for rm.
    Gc(Gc),
    /// Print a script that teaches a shell to complete this command
    ///
    /// For bash: shmq completions bash > ~/.local/share/bash-completion/completions/shmq
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The name: 1 to 200 of A-Z a-z 0-9 . _ - and no dot at the beginning
    pub(crate) name: String,
    /// How many messages it holds at most; or say --unbounded
    #[arg(long, value_name = "N", required_unless_present = "unbounded")]
    pub(crate) capacity: Option<usize>,
    /// No limit but memory
    #[arg(long, conflicts_with = "capacity")]
    pub(crate) unbounded: bool,
    /// The longest message in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8192)]
    pub(crate) max_message: usize,
    /// Shared memory for messages [default: room for N longest messages, at most 16 MiB]
    #[arg(long, value_name = "BYTES", conflicts_with = "unbounded")]
    pub(crate) ring_bytes: Option<usize>,
    /// A label of up to 64 bytes for what the messages mean; programs that open the queue with another one are told
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    pub(crate) schema: String,
    /// Who may use it, in octal as for chmod: 0660 for the group too
    #[arg(long, default_value = "0600", value_parser = octal)]
    pub(crate) mode: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// For programs: a list of what stat --json prints
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Stat {
    /// Which one
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// For programs: one object with the same field names, numbers as numbers
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Peek {
    /// Which queue
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// How many messages at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(crate) count: usize,
    /// Print the bytes of each message in hexadecimal
    ///
    /// Without --hex and --utf8, what can be printed is printed, and any other byte as \xNN.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Print each message as text: bytes that are none become U+FFFD, control characters stay
    #[arg(long, conflicts_with = "hex")]
    pub(crate) utf8: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Which one
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// End after having drawn N times [default: go on until Ctrl-C]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// Which queue
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Messages, one each [default: the lines of standard input]
    pub(crate) messages: Vec<String>,
    /// Messages in the input end with a NUL byte instead of a newline
    #[arg(short = '0', long, conflicts_with = "messages")]
    pub(crate) null: bool,
    /// All of the input is one message
    #[arg(long, conflicts_with_all = ["messages", "null"])]
    pub(crate) whole: bool,
    /// Give up when the queue has been full for this long [default: wait for room as long as it takes]
    #[arg(long, value_name = "S", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Which queue
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// End after N messages
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End when no message has come for this many seconds; 0 takes what is there
    ///
    /// If there was none at all, the exit code is 3.
    #[arg(long, value_name = "S", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Print a NUL byte after each message instead of a newline
    #[arg(short = '0', long)]
    pub(crate) null: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Which queue
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Print a NUL byte after each message instead of a newline
    #[arg(short = '0', long)]
    pub(crate) null: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Which ones; whoever is attached goes on, and the name is free at once
    #[arg(required = true, value_parser = name)]
    pub(crate) names: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// The name, also of who pastes a path.
#[expect(clippy::unnecessary_wraps, reason = "as a parser has to be")]
fn name(text: &str) -> Result<String, String> {
    Ok(text.strip_prefix("/dev/shm/shmq.").unwrap_or(text).to_owned())
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| "a mode is an octal number such as 0660".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "a time is a number of seconds such as 5 or 0.2".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "a time is 0 or more seconds".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if interval < Duration::from_millis(10) {
        return Err("an interval is at least 0.01 seconds".to_owned());
    }
    Ok(interval)
}
