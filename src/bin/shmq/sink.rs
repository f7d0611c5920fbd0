//! Standard output as the place that messages go to: nothing is taken for delivered that nobody has read.
//!
//! A pipe holds 64 KiB that its reader has not read. Whoever writes into it and goes on does not know whether the
//! reader (`head -n 1`) will ever read it. So of a pipe it is asked how much lies in it unread, and a message
//! counts as delivered when that is nothing.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::ioctl_fionread;

use crate::text::printable;

/// How long a message may be on its way to a slow reader while others wait for their turn to get.
const GRACE: Duration = Duration::from_millis(100);
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
    /// The last message was let go while it was still in the pipe.
    on_its_way: bool,
}

/// How far a message came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Done,
    /// Nobody has read it.
    ReaderGone,
}

impl Sink {
    /// Messages end with the byte `end`.
    pub(crate) fn new(end: u8) -> io::Result<Self> {
        // Past the buffer of `Stdout`: what is written is written.
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let is_pipe = FileType::from_raw_mode(fstat(&output)?.st_mode) == FileType::Fifo;
        let is_terminal = output.is_terminal();
        Ok(Self { output, is_pipe, is_terminal, end, line: Vec::new(), on_its_way: false })
    }

    /// Writes a message and waits until it has been read, for as long as `may_wait` allows after the grace.
    pub(crate) fn deliver(&mut self, message: &[u8], may_wait: impl Fn() -> bool) -> io::Result<Delivery> {
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
            if self.reader_is_gone(pace.next())? {
                // Once more: it may have read it before it went.
                return Ok(if self.unread() > 0 { Delivery::ReaderGone } else { Delivery::Done });
            }
            if start.elapsed() > GRACE && !may_wait() {
                self.on_its_way = true;
                break;
            }
        }
        Ok(Delivery::Done)
    }

    /// Waits until the reader has read everything and can take more. False when it has gone instead.
    pub(crate) fn wait_until_ready(&mut self) -> io::Result<bool> {
        let mut pace = Pace::default();
        while self.unread() > 0 {
            // Looked at once more: it may have read everything before it went.
            if self.reader_is_gone(pace.next())? && self.unread() > 0 {
                return Ok(false);
            }
        }
        self.on_its_way = false;
        // A terminal may have been stopped with Ctrl-S, a socket may be full. Not for ever: so that it is noticed
        // when a reader has gone without a sign of room.
        loop {
            let seen = self.poll(PollFlags::OUT, Some(Duration::from_millis(200)))?;
            if seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                return Ok(false);
            }
            if seen.contains(PollFlags::OUT) {
                return Ok(true);
            }
        }
    }

    /// The message that was let go while it was still in the pipe, if the reader goes without having read it.
    pub(crate) fn never_read(&mut self) -> Option<&[u8]> {
        if self.on_its_way {
            _ = self.wait_until_ready();
        }
        self.on_its_way.then(|| self.line.strip_suffix(&[self.end])).flatten()
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
