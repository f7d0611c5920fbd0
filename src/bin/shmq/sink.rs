//! Standard output as the place that messages go to: nothing is taken for delivered that nobody has read.
//!
//! A pipe holds 64 KiB that its reader has not read. Whoever writes into it and goes on does not know whether the
//! reader (`head -n 1`) will ever read it. So of a pipe it is asked how much lies in it unread, and a message
//! counts as delivered when that is nothing. A reader that reads nothing at all for a long time (a program that reads
//! the output after the end) gets all that the pipe can take.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use rustix::io::ioctl_fionread;

use crate::text::printable;

/// How long a message may be on its way to a slow reader while others wait for their turn to get.
const GRACE: Duration = Duration::from_millis(100);
/// How long a reader may do something else than read before it gets more. Halved each time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same of a reader that has not read anything yet: it may be that it only reads when we have ended.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// The longest pause between two looks at the pipe.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// Looks that only give the processor away: a reader that was waiting needs no longer.
const YIELDS: u32 = 20;

pub(crate) struct Sink {
    output: File,
    is_pipe: bool,
    is_terminal: bool,
    end: u8,
    line: Vec<u8>,
    /// Those that were taken for delivered while they were still in the pipe.
    on_their_way: VecDeque<Vec<u8>>,
    /// Bytes in the pipe of a message that was not.
    undelivered: u64,
    patience: Duration,
}

/// How far a message came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Done,
    /// Nobody has read it.
    ReaderGone,
}

/// Whether there can be more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Yes,
    /// Not within that time.
    NotYet,
    ReaderGone,
}

impl Sink {
    /// Messages end with the byte `end`.
    pub(crate) fn new(end: u8) -> io::Result<Self> {
        // Past the buffer of `Stdout`: what is written is written.
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        if is_stand_in(&output)? {
            return Err(io::Error::other(
                "it was closed; no message has been taken (to throw them away: > /dev/null)",
            ));
        }
        let is_pipe = FileType::from_raw_mode(fstat(&output)?.st_mode) == FileType::Fifo;
        let is_terminal = output.is_terminal();
        Ok(Self {
            output,
            is_pipe,
            is_terminal,
            end,
            line: Vec::new(),
            on_their_way: VecDeque::new(),
            undelivered: 0,
            patience: FIRST_PATIENCE,
        })
    }

    /// Writes a message and waits until it has been read: not for longer than the grace if somebody else may be
    /// waiting.
    pub(crate) fn deliver(&mut self, message: &[u8], alone: impl Fn() -> bool) -> io::Result<Delivery> {
        self.line.clear();
        if self.is_terminal {
            // A message is somebody else's: it shall not move the cursor, or worse.
            self.line.extend_from_slice(printable(message).as_bytes());
        } else {
            self.line.extend_from_slice(message);
        }
        self.line.push(self.end);
        match self.write() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Delivery::ReaderGone),
            written => written?,
        }
        let start = Instant::now();
        let mut pace = Pace::default();
        while self.unread() > 0 {
            // Looked at once more: it may have read it before it went.
            if self.reader_is_gone(pace.next())? && self.unread() > 0 {
                self.undelivered = self.line.len() as u64;
                return Ok(Delivery::ReaderGone);
            }
            let waited = start.elapsed();
            if waited >= self.patience || (waited >= GRACE && !alone()) {
                self.patience = self.patience.saturating_sub(waited).max(self.patience / 2);
                self.on_their_way.push_back(self.line.clone());
                return Ok(Delivery::Done);
            }
        }
        self.has_read();
        Ok(Delivery::Done)
    }

    /// Waits until the reader has read everything, or is not to be waited for any longer, and there is room for more.
    pub(crate) fn wait_until_ready(&mut self, time: Duration) -> io::Result<Ready> {
        let start = Instant::now();
        let mut pace = Pace::default();
        loop {
            let unread = self.unread();
            self.forget_what_was_read(unread);
            if unread == 0 {
                self.has_read();
                break;
            }
            if self.reader_is_gone(pace.next())? && self.unread() > 0 {
                return Ok(Ready::ReaderGone);
            }
            let waited = start.elapsed();
            if waited >= self.patience {
                self.patience /= 2;
                break;
            }
            if waited >= time {
                self.patience -= waited;
                return Ok(Ready::NotYet);
            }
        }
        // A terminal may have been stopped with Ctrl-S; a pipe or a socket may be full.
        let seen = self.poll(PollFlags::OUT, Some(time))?;
        if seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Ok(Ready::ReaderGone);
        }
        Ok(if seen.contains(PollFlags::OUT) { Ready::Yes } else { Ready::NotYet })
    }

    /// The messages that were taken for delivered and never read, once the reader has gone.
    pub(crate) fn never_read(&mut self) -> impl Iterator<Item = &[u8]> {
        let gone = self.reader_is_gone(Duration::ZERO).unwrap_or(false);
        self.forget_what_was_read(self.unread().saturating_sub(self.undelivered));
        let end = self.end;
        self.on_their_way
            .iter()
            .filter(move |_| gone)
            .map(move |line| line.strip_suffix(&[end]).unwrap_or(line))
    }

    fn has_read(&mut self) {
        self.on_their_way.clear();
        if !self.line.is_empty() {
            self.patience = PATIENCE;
        }
    }

    /// Keeps those messages that lie in the pipe, at least in part.
    fn forget_what_was_read(&mut self, unread: u64) {
        let mut kept: u64 = self.on_their_way.iter().map(|line| line.len() as u64).sum();
        while let Some(first) = self.on_their_way.front()
            && kept - first.len() as u64 >= unread
        {
            kept -= first.len() as u64;
            self.on_their_way.pop_front();
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut rest = self.line.as_slice();
        while !rest.is_empty() {
            match (&self.output).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody else who has the same file has made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.poll(PollFlags::OUT, None)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes in the pipe that its reader has not read.
    fn unread(&self) -> u64 {
        if self.is_pipe { ioctl_fionread(&self.output).unwrap_or(0) } else { 0 }
    }

    /// Waits for that for a while.
    fn reader_is_gone(&self, time: Duration) -> io::Result<bool> {
        let seen = self.poll(PollFlags::empty(), Some(time))?;
        Ok(seen.intersects(PollFlags::ERR | PollFlags::HUP))
    }

    fn poll(&self, flags: PollFlags, time: Option<Duration>) -> io::Result<PollFlags> {
        let time = time.map(|time| Timespec::try_from(time).unwrap_or_default());
        let mut polled = [PollFd::new(&self.output, flags)];
        match poll(&mut polled, time.as_ref()) {
            Ok(_) => Ok(polled[0].revents()),
            Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the input or output was closed when the program was started: Rust then opens /dev/null in its place, for
/// reading and writing. Who wants messages thrown away opens it for writing.
pub(crate) fn is_stand_in(file: impl AsFd) -> io::Result<bool> {
    let stat = fstat(&file)?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    Ok(is_null && fcntl_getfl(&file)? & OFlags::RWMODE == OFlags::RDWR)
}

/// Whether the reader of standard output has gone, or goes within this time.
pub(crate) fn reader_goes_within(time: Duration) -> io::Result<bool> {
    Sink::new(b'\n')?.reader_is_gone(time)
}

/// How long to wait between two looks at the pipe.
#[derive(Default)]
struct Pace {
    looks: u32,
}

impl Pace {
    fn next(&mut self) -> Duration {
        self.looks += 1;
        if self.looks <= YIELDS {
            thread::yield_now();
            return Duration::ZERO;
        }
        let doublings = (self.looks - YIELDS).min(10);
        Duration::from_micros(10 << doublings).min(LONGEST_PAUSE)
    }
}
