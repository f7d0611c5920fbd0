//! The one face that all contenders show.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::payload::{Checks, Payload};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Some processes put, others get, over one queue.
    OneWay {
        /// How many put.
        producers: usize,
        /// How many get, this process among them.
        consumers: usize,
    },
    /// One process asks, the other answers: one queue there, one back.
    RoundTrip,
}

impl Work {
    /// One producer, one consumer.
    pub const STREAM: Self = Self::OneWay { producers: 1, consumers: 1 };

    /// How many messages of this size each queue holds: the same for every contender.
    ///
    /// Long messages have a queue of a mebibyte, or of four of them, as someone would choose for messages
    /// that are to stay in a processor's cache.
    pub fn capacity(self, message: usize) -> usize {
        match self {
            Self::OneWay { .. } => ((1 << 20) / message).clamp(4, 1024),
            Self::RoundTrip => 2,
        }
    }
}

/// Where processes meet.
#[derive(Clone, Debug)]
pub struct Place {
    /// A name that nobody else uses. For a round trip, each way has its own.
    pub name: String,
    /// What is to be done there.
    pub work: Work,
    /// How many messages a queue holds.
    pub capacity: usize,
    /// Whether this side puts into this queue, or gets from it.
    pub puts: bool,
    /// What the maker's [`Link::ticket`] was.
    pub ticket: String,
}

/// One end of a connection between processes, one way or both.
pub trait Link: Sized {
    /// The messages that it carries.
    type Item: Payload;

    /// Makes the connection.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn create(place: &Place) -> io::Result<Self>;

    /// Attaches to what another process has made.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn open(place: &Place) -> io::Result<Self>;

    /// What those who open need to know besides the name; one word.
    fn ticket(&self) -> String {
        String::new()
    }

    /// Deletes the name, once everybody is there.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn unlink(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Puts a message. Waits while the queue is full.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn send(&mut self, item: &Self::Item) -> io::Result<()>;

    /// Gets the next message. Waits while there is none.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()>;

    /// Puts messages of these numbers.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn produce(&mut self, numbers: Range<u64>, item: &mut Self::Item) -> io::Result<()> {
        for number in numbers {
            item.set_number(number);
            self.send(item)?;
        }
        Ok(())
    }

    /// Gets so many messages and shows each to `checks`.
    ///
    /// # Errors
    /// Whatever prevents it, also a message that is not as it should be.
    fn consume(&mut self, count: u64, checks: &mut Checks, item: &mut Self::Item) -> io::Result<()> {
        for _ in 0..count {
            self.receive(item)?;
            checks.see(item)?;
        }
        Ok(())
    }
}

/// What a process does at its end of a link.
pub(crate) trait Side {
    fn ticket(&self) -> String;
    fn unlink(&mut self) -> io::Result<()>;
    fn produce(&mut self, numbers: Range<u64>) -> io::Result<()>;
    fn consume(&mut self, count: u64, checks: &mut Checks) -> io::Result<()>;
    fn ask(&mut self, numbers: Range<u64>) -> io::Result<()>;
    fn ask_and_time(&mut self, numbers: Range<u64>, trips: &mut Vec<u32>) -> io::Result<()>;
    fn answer(&mut self, numbers: Range<u64>) -> io::Result<()>;
}

struct Player<L: Link> {
    link: L,
    out: Box<L::Item>,
    /// Another one than `out`, so that what is not written is seen.
    got: Box<L::Item>,
}

impl<L: Link> Player<L> {
    #[inline]
    fn send(&mut self, number: u64) -> io::Result<()> {
        self.out.set_number(number);
        self.link.send(&self.out)
    }

    #[inline]
    fn receive(&mut self, number: u64) -> io::Result<()> {
        self.link.receive(&mut self.got)?;
        if self.got.is_whole(number) { Ok(()) } else { Err(wrong(number)) }
    }
}

#[cold]
fn wrong(number: u64) -> io::Error {
    io::Error::other(format!("message {number} was lost, torn or reordered"))
}

impl<L: Link> Side for Player<L> {
    fn ticket(&self) -> String {
        self.link.ticket()
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.link.unlink()
    }

    fn produce(&mut self, numbers: Range<u64>) -> io::Result<()> {
        self.link.produce(numbers, &mut self.out)
    }

    fn consume(&mut self, count: u64, checks: &mut Checks) -> io::Result<()> {
        self.link.consume(count, checks, &mut self.got)
    }

    fn ask(&mut self, numbers: Range<u64>) -> io::Result<()> {
        for number in numbers {
            self.send(number)?;
            self.receive(number)?;
        }
        Ok(())
    }

    fn ask_and_time(&mut self, numbers: Range<u64>, trips: &mut Vec<u32>) -> io::Result<()> {
        let mut before = std::time::Instant::now();
        for number in numbers {
            self.send(number)?;
            self.receive(number)?;
            let after = std::time::Instant::now();
            trips.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
            before = after;
        }
        Ok(())
    }

    fn answer(&mut self, numbers: Range<u64>) -> io::Result<()> {
        for number in numbers {
            self.receive(number)?;
            self.send(number)?;
        }
        Ok(())
    }
}

/// Who is measured.
#[derive(Clone, Copy)]
pub struct Contender {
    /// Its name in tables.
    pub label: &'static str,
    /// Bytes of its messages.
    pub size: usize,
    /// Whether its other side is a thread of this process.
    pub(crate) threads: bool,
    duplex: bool,
    meet: fn(&Place, bool) -> io::Result<Box<dyn Side>>,
}

impl Contender {
    /// One whose queues go one way; a round trip takes two of them.
    pub const fn new<L>(label: &'static str) -> Self
    where
        L: Link + 'static,
    {
        Self { label, size: size_of::<L::Item>(), threads: false, duplex: false, meet: meet::<L> }
    }

    /// One whose single connection goes both ways, for round trips only.
    pub const fn duplex<L>(label: &'static str) -> Self
    where
        L: Link + 'static,
    {
        Self { label, size: size_of::<L::Item>(), threads: false, duplex: true, meet: join::<L> }
    }

    /// One between threads, for reference.
    pub const fn between_threads<L>(label: &'static str) -> Self
    where
        L: Link + 'static,
    {
        Self { label, size: size_of::<L::Item>(), threads: true, duplex: false, meet: meet::<L> }
    }

    /// Whether it can do nothing else.
    pub fn is_for_round_trips(&self) -> bool {
        self.duplex
    }

    pub(crate) fn meet(&self, place: &Place, create: bool) -> io::Result<Box<dyn Side>> {
        (self.meet)(place, create)
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.label, self.size)
    }
}

fn meet<L>(place: &Place, create: bool) -> io::Result<Box<dyn Side>>
where
    L: Link + 'static,
{
    match place.work {
        Work::OneWay { .. } => join::<L>(place, create),
        Work::RoundTrip => join::<Pair<L>>(place, create),
    }
}

fn join<L>(place: &Place, create: bool) -> io::Result<Box<dyn Side>>
where
    L: Link + 'static,
{
    let link = if create { L::create(place)? } else { L::open(place)? };
    Ok(Box::new(Player { link, out: L::Item::blank(), got: L::Item::blank() }))
}

/// Both ways: one link there and one back.
struct Pair<L> {
    out: L,
    back: L,
}

/// Between the two tickets.
const AND: char = '&';

impl<L: Link> Link for Pair<L> {
    type Item = L::Item;

    fn create(place: &Place) -> io::Result<Self> {
        let way = |way, puts| Place { name: format!("{}-{way}", place.name), puts, ..place.clone() };
        Ok(Self { out: L::create(&way("out", true))?, back: L::create(&way("back", false))? })
    }

    /// The other side's way out is our way back.
    fn open(place: &Place) -> io::Result<Self> {
        let (out, back) = place.ticket.split_once(AND).unwrap_or_default();
        let way = |way, puts, ticket: &str| Place {
            name: format!("{}-{way}", place.name),
            puts,
            ticket: ticket.to_owned(),
            ..place.clone()
        };
        let back_of_ours = L::open(&way("out", false, out))?;
        Ok(Self { out: L::open(&way("back", true, back))?, back: back_of_ours })
    }

    fn ticket(&self) -> String {
        format!("{}{AND}{}", self.out.ticket(), self.back.ticket())
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.out.unlink()?;
        self.back.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.out.send(item)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.back.receive(item)
    }
}
