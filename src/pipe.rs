//! Pipes: a connection between two ends, one way or both ways.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::attachment::{self, Attachment, Patience};
use crate::deadline::Deadline;
use crate::error::{GetError, OpenError, PutError};
use crate::half::{self, Half, Part};
use crate::items::Items;
use crate::layout::{Kind, Lane};
use crate::membership;
use crate::options::Settings;

/// The default number of messages that a pipe holds each way.
const DEFAULT_CAPACITY: usize = 2;
const DEFAULT_MESSAGE: usize = 64 << 10;

/// Makes a pipe with two ends, each of which sends and receives.
///
/// What Python knows as `multiprocessing.Pipe()`. Hand one of the ends to another process: through a queue, as
/// part of a message, by `fork`, or by name (see [`Connection::create`]).
///
/// # Errors
/// `NoSpace` if /dev/shm is too small, `PermissionDenied`, or `Io`.
///
/// ```
/// let (client, server) = shmq::pipe::<String, u32>()?;
/// std::thread::spawn(move || {
///     let request: String = server.recv()?;
///     server.send(&u32::try_from(request.len())?)?;
///     Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// });
/// client.send(&"how long?".to_owned())?;
/// assert_eq!(client.recv()?, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[expect(clippy::type_complexity, reason = "what a pipe is: two ends, mirrored")]
pub fn pipe<S, R>() -> Result<(Connection<S, R>, Connection<R, S>), OpenError> {
    PipeOptions::new().pipe()
}

/// Makes a pipe with one end that sends and one that receives.
///
/// # Errors
/// As [`pipe`].
///
/// ```
/// let (receiver, sender) = shmq::simplex()?;
/// sender.send(&1)?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, 1);
/// assert!(matches!(receiver.recv(), Err(shmq::GetError::Closed)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn simplex<T>() -> Result<(Receiver<T>, Sender<T>), OpenError> {
    PipeOptions::new().simplex()
}

/// Options for making a pipe, in the manner of [`std::fs::OpenOptions`].
///
/// ```
/// let (left, right) = shmq::PipeOptions::new().capacity(16).max_message(1 << 20).pipe::<Vec<u8>, ()>()?;
/// left.send(&vec![0; 100_000])?;
/// assert_eq!(right.recv()?.len(), 100_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PipeOptions {
    settings: Settings,
}

impl Default for PipeOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl PipeOptions {
    /// The defaults: 2 messages each way, of up to 64 KiB, mode 0600, no label.
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(DEFAULT_CAPACITY, DEFAULT_MESSAGE) }
    }

    /// How many messages the pipe holds at most each way: 1 to 2^31 - 1. The default is 2.
    pub fn capacity(&mut self, messages: usize) -> &mut Self {
        self.settings.capacity = messages;
        self
    }

    /// The longest encoded message in bytes, up to 1 GiB. The default is 64 KiB.
    pub fn max_message(&mut self, bytes: usize) -> &mut Self {
        self.settings.max_message = bytes;
        self
    }

    /// A label of up to 64 bytes for what the messages mean; see
    /// [`QueueOptions::schema`](crate::QueueOptions::schema).
    pub fn schema(&mut self, label: &str) -> &mut Self {
        label.clone_into(&mut self.settings.schema);
        self
    }

    /// The permissions of the object in /dev/shm, whatever the umask. The default is 0600.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.settings.mode = mode;
        self
    }

    /// Makes a pipe with two ends, each of which sends and receives.
    ///
    /// # Errors
    /// As [`pipe`], and `InvalidOptions`.
    #[expect(clippy::type_complexity, reason = "what a pipe is: two ends, mirrored")]
    pub fn pipe<S, R>(&self) -> Result<(Connection<S, R>, Connection<R, S>), OpenError> {
        let plan = self.settings.plan(Kind::Pipe, true)?;
        let made = attachment::create_made_up_prepared(&plan, |segment| {
            Ok((End::FIRST.open(segment)?, End::SECOND.open(segment)?))
        });
        made.map(|(_, (first, second))| (Connection::from_halves(first), Connection::from_halves(second)))
    }

    /// Makes a pipe with one end that sends and one that receives.
    ///
    /// # Errors
    /// As [`pipe`], and `InvalidOptions`.
    pub fn simplex<T>(&self) -> Result<(Receiver<T>, Sender<T>), OpenError> {
        let plan = self.settings.plan(Kind::Simplex, true)?;
        let made = attachment::create_made_up_prepared(&plan, |segment| {
            let receiving = Half::enter(segment.again()?, Lane::First, Part::Get)?;
            let sending = Half::enter(segment.again()?, Lane::First, Part::Put)?;
            membership::open(segment, &[Part::Get.class(Lane::First), Part::Put.class(Lane::First)]);
            Ok((receiving, sending))
        });
        made.map(|(_, (receiving, sending))| (Receiver::new(receiving), Sender::new(sending)))
    }

    /// Makes a pipe of this name and takes its first end.
    ///
    /// # Errors
    /// As [`Connection::create`], and `InvalidOptions`.
    pub fn create<S, R>(&self, name: &str) -> Result<Connection<S, R>, OpenError> {
        let plan = self.settings.plan(Kind::Pipe, false)?;
        let made = attachment::create_prepared(name, &plan, |segment| End::FIRST.open(segment));
        made.map(|(_, first)| Connection::from_halves(first))
    }

    /// Takes the second end of the pipe of this name, if its label is this one (or none was given here).
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open<S, R>(&self, name: &str) -> Result<Connection<S, R>, OpenError> {
        let segment = attachment::open(name, self.settings.expected(Kind::Pipe)?)?;
        // One at a time; whoever dies in between leaves the end to the next one.
        let mut patience = Patience::new();
        while !membership::begin_opening(&segment).map_err(OpenError::Io)? {
            patience.pause()?;
        }
        let [put, get] = End::FIRST.classes();
        if membership::has_ended(&segment, put) && membership::has_ended(&segment, get) {
            return Err(OpenError::NotFound { name: name.to_owned() });
        }
        if membership::was_opened(&segment, End::SECOND.classes()[0]) {
            return Err(OpenError::AlreadyExists { name: name.to_owned() });
        }
        End::SECOND.open(&segment).map(Connection::from_halves)
    }
}

/// One end of a pipe both ways: into which channel it sends, and from which it receives.
struct End {
    sends: Lane,
    receives: Lane,
}

impl End {
    const FIRST: Self = Self { sends: Lane::First, receives: Lane::Second };
    const SECOND: Self = Self { sends: Lane::Second, receives: Lane::First };

    fn classes(&self) -> [crate::sys::ofd::Class; 2] {
        [Part::Put.class(self.sends), Part::Get.class(self.receives)]
    }

    /// Enters both classes, and then marks both as opened with one store.
    ///
    /// Killed before it: the end was never opened, and the next one can. After it: the end is closed.
    fn open(&self, segment: &Attachment) -> Result<(Half, Half), OpenError> {
        let sending = Half::enter(segment.again()?, self.sends, Part::Put)?;
        let receiving = Half::enter(segment.again()?, self.receives, Part::Get)?;
        membership::open(segment, &self.classes());
        Ok((sending, receiving))
    }
}

/// One end of a pipe: sends items of type `S` and receives items of type `R`.
///
/// An end may be cloned, used by any number of threads and processes at once, inherited by `fork`, and sent to
/// another process, by serde, also as part of a message; a message never tears.
///
/// # End of file
///
/// An end is closed when its last handle, in any process, is closed, dropped, or dead with its process. At the far
/// end `recv` first delivers what was sent and then says [`Closed`](GetError::Closed), for ever, and `send` says
/// [`Closed`](PutError::Closed). As with file descriptors, a forked child that inherited a handle keeps the end
/// open. A far end that was never opened is no end of file: `recv` waits, and so does `send` once the pipe is full.
///
/// # Handing over
///
/// Serialising an end duplicates it. Until somebody deserialises the duplicate it belongs to this process: it ends
/// with it, or with the put that was to carry it, if that fails. A duplicate is deserialised once; another time
/// makes a further handle if the end is still open, and else fails.
pub struct Connection<S, R> {
    // Dropped first: whoever has been told of the end of file finds that it cannot send any more either.
    receiver: Receiver<R>,
    sender: Sender<S>,
}

/// The sending end of a pipe, or the sending half of a [`Connection`].
pub struct Sender<T> {
    half: Arc<Half>,
    item: PhantomData<fn(T)>,
}

/// The receiving end of a pipe, or the receiving half of a [`Connection`].
pub struct Receiver<T> {
    half: Arc<Half>,
    item: PhantomData<fn() -> T>,
}

impl<S, R> Connection<S, R> {
    fn from_halves((sending, receiving): (Half, Half)) -> Self {
        Self { sender: Sender::new(sending), receiver: Receiver::new(receiving) }
    }

    /// Makes a pipe of this name and takes its first end.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `NoSpace`, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("line-{}", std::process::id());
    /// let here = shmq::Connection::<String, u32>::create(&name)?;
    /// let there = shmq::Connection::<u32, String>::open(&name)?; // as another process does
    /// here.send(&"hello".to_owned())?;
    /// assert_eq!(there.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str) -> Result<Self, OpenError> {
        PipeOptions::new().create(name)
    }

    /// Takes the second end of the pipe of this name, which can be done once.
    ///
    /// # Errors
    /// `AlreadyExists` if it was taken before, `NotFound` if there is no such pipe or its first end is closed,
    /// `NotShmq` or `Mismatch` if there is something else, `InvalidName`, `PermissionDenied`, or `Io`.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        PipeOptions::new().open(name)
    }

    /// Blocks for at most `timeout` until a message, or the end of file, is there: whether it is.
    ///
    /// Zero only looks, [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Io`.
    pub fn poll(&self, timeout: Duration) -> Result<bool, GetError> {
        self.receiver.poll(timeout)
    }

    /// Sends a raw message. Blocks while the pipe is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&self, message: &[u8]) -> Result<(), PutError> {
        self.sender.send_bytes(message)
    }

    /// Receives a raw message. Blocks while there is none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), but never `Decode`.
    pub fn recv_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.receiver.recv_bytes()
    }

    /// Receives a raw message of at most `max` bytes.
    ///
    /// # Errors
    /// `TooLong` if it has more: it stays, and can be received with a larger `max`. Else as
    /// [`recv_bytes`](Self::recv_bytes).
    pub fn recv_bytes_max(&self, max: usize) -> Result<Vec<u8>, GetError> {
        self.receiver.recv_bytes_max(max)
    }

    /// Receives a raw message into `buffer` and returns its length.
    ///
    /// # Errors
    /// `BufferTooShort` with the whole message, which has been received. Else as [`recv_bytes`](Self::recv_bytes).
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.receiver.recv_bytes_into(buffer)
    }

    /// Drops this handle. The end is closed when its last handle is.
    pub fn close(self) {}

    /// The two halves, each of which can be dropped, cloned and sent on its own.
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        (self.sender, self.receiver)
    }

    pub(crate) fn receiver(&self) -> &Receiver<R> {
        &self.receiver
    }
}

impl<S: Serialize, R> Connection<S, R> {
    /// Sends an item. Blocks while the pipe is full.
    ///
    /// # Errors
    /// `Closed` if the far end cannot receive any more, `TooLong`, `Encode`, `Corrupt` or `Io`. After an error the
    /// item was not sent.
    #[doc(alias = "put")]
    pub fn send(&self, item: &S) -> Result<(), PutError> {
        self.sender.send(item)
    }

    /// Like [`send`](Self::send), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`send`](Self::send).
    pub fn send_timeout(&self, item: &S, timeout: Duration) -> Result<(), PutError> {
        self.sender.send_timeout(item, timeout)
    }

    /// Like [`send`](Self::send), but does not wait for room.
    ///
    /// # Errors
    /// `Full`, and those of [`send`](Self::send).
    #[doc(alias = "try_send")]
    pub fn send_nowait(&self, item: &S) -> Result<(), PutError> {
        self.sender.send_nowait(item)
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// Receives an item. Blocks while there is none.
    ///
    /// # Errors
    /// `Closed` at the end of file, `Decode` with the message's bytes, `Corrupt` or `Io`.
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<R, GetError> {
        self.receiver.recv()
    }

    /// Like [`recv`](Self::recv), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R, GetError> {
        self.receiver.recv_timeout(timeout)
    }

    /// Like [`recv`](Self::recv), but does not wait for a message.
    ///
    /// # Errors
    /// `Empty`, and those of [`recv`](Self::recv).
    #[doc(alias = "try_recv")]
    pub fn recv_nowait(&self) -> Result<R, GetError> {
        self.receiver.recv_nowait()
    }
}

impl<T> Sender<T> {
    fn new(half: Half) -> Self {
        Self { half: Arc::new(half), item: PhantomData }
    }

    /// Sends a raw message. Blocks while the pipe is full.
    ///
    /// # Errors
    /// As [`Connection::send_bytes`].
    pub fn send_bytes(&self, message: &[u8]) -> Result<(), PutError> {
        self.check()?;
        self.half.access().put(message, Deadline::Never)
    }

    /// Drops this handle. The end is closed when its last handle is.
    pub fn close(self) {}

    /// Room alone does not tell that somebody is there to receive.
    fn check(&self) -> Result<(), PutError> {
        if self.half.is_alone() { Err(PutError::Closed) } else { Ok(()) }
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends an item. Blocks while the pipe is full.
    ///
    /// # Errors
    /// As [`Connection::send`].
    #[doc(alias = "put")]
    pub fn send(&self, item: &T) -> Result<(), PutError> {
        self.send_until(item, Deadline::Never)
    }

    /// Like [`send`](Self::send), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Connection::send_timeout`].
    pub fn send_timeout(&self, item: &T, timeout: Duration) -> Result<(), PutError> {
        self.send_until(item, Deadline::after(timeout))
    }

    /// Like [`send`](Self::send), but does not wait for room.
    ///
    /// # Errors
    /// As [`Connection::send_nowait`].
    #[doc(alias = "try_send")]
    pub fn send_nowait(&self, item: &T) -> Result<(), PutError> {
        self.send_until(item, Deadline::Now)
    }

    fn send_until(&self, item: &T, deadline: Deadline) -> Result<(), PutError> {
        self.check()?;
        Items::new(self.half.access(), self.half.max_message()).put(item, deadline)
    }
}

impl<T> Receiver<T> {
    fn new(half: Half) -> Self {
        Self { half: Arc::new(half), item: PhantomData }
    }

    /// Blocks for at most `timeout` until a message, or the end of file, is there: whether it is.
    ///
    /// # Errors
    /// As [`Connection::poll`].
    pub fn poll(&self, timeout: Duration) -> Result<bool, GetError> {
        self.half.channel().poll(Deadline::after(timeout)).map_err(GetError::Io)
    }

    /// Receives a raw message. Blocks while there is none.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes`].
    pub fn recv_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.half.access().get(Deadline::Never)
    }

    /// Receives a raw message of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes_max`].
    pub fn recv_bytes_max(&self, max: usize) -> Result<Vec<u8>, GetError> {
        self.half.access().get_max(max, Deadline::Never)
    }

    /// Receives a raw message into `buffer` and returns its length.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes_into`].
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.half.access().get_into(buffer, Deadline::Never)
    }

    /// Drops this handle. The end is closed when its last handle is.
    pub fn close(self) {}

    pub(crate) fn half(&self) -> &Half {
        &self.half
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives an item. Blocks while there is none.
    ///
    /// # Errors
    /// As [`Connection::recv`].
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<T, GetError> {
        self.recv_until(Deadline::Never)
    }

    /// Like [`recv`](Self::recv), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Connection::recv_timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.recv_until(Deadline::after(timeout))
    }

    /// Like [`recv`](Self::recv), but does not wait for a message.
    ///
    /// # Errors
    /// As [`Connection::recv_nowait`].
    #[doc(alias = "try_recv")]
    pub fn recv_nowait(&self) -> Result<T, GetError> {
        self.recv_until(Deadline::Now)
    }

    fn recv_until(&self, deadline: Deadline) -> Result<T, GetError> {
        Items::new(self.half.access(), self.half.max_message()).get(deadline)
    }
}

impl<S, R> Clone for Connection<S, R> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone() }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { half: self.half.clone(), item: PhantomData }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { half: self.half.clone(), item: PhantomData }
    }
}

fn debug(type_name: &str, half: &Half, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(type_name)
        .field("name", &half.name())
        .field("len", &half.channel().ring().len())
        .field("capacity", &half.attachment().geometry().shape.capacity)
        .finish()
}

impl<S, R> fmt::Debug for Connection<S, R> {
    /// Name and capacity, and how many messages wait to be received. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Connection", &self.receiver.half, f)
    }
}

impl<T> fmt::Debug for Sender<T> {
    /// Name and capacity, and how many messages wait to be received. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Sender", &self.half, f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    /// Name and capacity, and how many messages wait to be received. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Receiver", &self.half, f)
    }
}

impl<S, R> Serialize for Connection<S, R> {
    /// Duplicates the end: see [Handing over](Connection#handing-over).
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        half::serialize_both(&self.sender.half, &self.receiver.half, serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    /// Takes the duplicate over; fails if the end is closed by now.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (sender, receiver) = Deserialize::deserialize(deserializer)?;
        Ok(Self { receiver, sender })
    }
}

impl<T> Serialize for Sender<T> {
    /// Duplicates the end: see [Handing over](Connection#handing-over).
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        half::serialize(&self.half, serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    /// Takes the duplicate over; fails if the end is closed by now.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        half::deserialize(deserializer, Part::Put).map(|half| Self { half, item: PhantomData })
    }
}

impl<T> Serialize for Receiver<T> {
    /// Duplicates the end: see [Handing over](Connection#handing-over).
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        half::serialize(&self.half, serializer)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    /// Takes the duplicate over; fails if the end is closed by now.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        half::deserialize(deserializer, Part::Get).map(|half| Self { half, item: PhantomData })
    }
}
