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
    ///
    /// ```
    /// let (here, there) = shmq::PipeOptions::new().pipe::<u32, u32>()?;
    /// here.send_nowait(&1)?;
    /// here.send_nowait(&2)?;
    /// assert!(matches!(here.send_nowait(&3), Err(shmq::PutError::Full)));
    /// there.send_nowait(&1)?; // the other way there is room
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(DEFAULT_CAPACITY, DEFAULT_MESSAGE) }
    }

    /// How many messages the pipe holds at most each way: 1 to 2^31 - 1. The default is 2.
    ///
    /// ```
    /// let (receiver, sender) = shmq::PipeOptions::new().capacity(1).simplex()?;
    /// sender.send_nowait(&1)?;
    /// assert!(matches!(sender.send_nowait(&2), Err(shmq::PutError::Full)));
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&mut self, messages: usize) -> &mut Self {
        self.settings.capacity = messages;
        self
    }

    /// The longest encoded message in bytes, up to 1 GiB. The default is 64 KiB.
    ///
    /// ```
    /// let (receiver, sender) = shmq::PipeOptions::new().max_message(4).simplex::<u32>()?;
    /// let long = sender.send_bytes(b"bytes");
    /// assert!(matches!(long, Err(shmq::PutError::TooLong { len: 5, max: 4 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_message(&mut self, bytes: usize) -> &mut Self {
        self.settings.max_message = bytes;
        self
    }

    /// A label of up to 64 bytes for what the messages mean; see
    /// [`QueueOptions::schema`](crate::QueueOptions::schema).
    ///
    /// ```
    /// let name = format!("labelled-line-{}", std::process::id());
    /// let here = shmq::PipeOptions::new().schema("version 2").create::<u32, ()>(&name)?;
    /// let other = shmq::PipeOptions::new().schema("version 1").open::<(), u32>(&name);
    /// assert!(matches!(other, Err(shmq::OpenError::Mismatch { field: "schema", .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schema(&mut self, label: &str) -> &mut Self {
        label.clone_into(&mut self.settings.schema);
        self
    }

    /// The permissions of the object in /dev/shm, whatever the umask. The default is 0600.
    ///
    /// ```
    /// let name = format!("group-line-{}", std::process::id());
    /// // Readable and writable for the group too.
    /// let here = shmq::PipeOptions::new().mode(0o660).create::<u32, u32>(&name)?;
    /// assert_eq!(shmq::inspect(&name)?.mode, 0o660);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.settings.mode = mode;
        self
    }

    /// Makes a pipe with two ends, each of which sends and receives.
    ///
    /// # Errors
    /// As [`pipe`], and `InvalidOptions`.
    ///
    /// ```
    /// let (client, server) = shmq::PipeOptions::new().capacity(16).pipe::<u32, String>()?;
    /// client.send(&7)?;
    /// server.send(&format!("got {}", server.recv()?))?;
    /// assert_eq!(client.recv()?, "got 7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (receiver, sender) = shmq::PipeOptions::new().capacity(16).simplex()?;
    /// for number in 0..16 {
    ///     sender.send(&number)?;
    /// }
    /// assert_eq!(receiver.recv()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let name = format!("wide-line-{}", std::process::id());
    /// let mut options = shmq::PipeOptions::new();
    /// let here = options.max_message(1 << 20).create::<Vec<u8>, ()>(&name)?;
    /// let there = shmq::Connection::<(), Vec<u8>>::open(&name)?; // as another process does
    /// here.send(&vec![0; 100_000])?;
    /// assert_eq!(there.recv()?.len(), 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create<S, R>(&self, name: &str) -> Result<Connection<S, R>, OpenError> {
        let plan = self.settings.plan(Kind::Pipe, false)?;
        let made = attachment::create_prepared(name, &plan, |segment| End::FIRST.open(segment));
        made.map(|(_, first)| Connection::from_halves(first))
    }

    /// Takes the second end of the pipe of this name, if its label is this one (or none was given here).
    ///
    /// # Errors
    /// As [`Connection::open`].
    ///
    /// ```
    /// let name = format!("checked-line-{}", std::process::id());
    /// let mut options = shmq::PipeOptions::new();
    /// options.schema("requests, version 2");
    /// let here = options.create::<u32, ()>(&name)?;
    /// let there = options.open::<(), u32>(&name)?; // as another process does
    /// here.send(&7)?;
    /// assert_eq!(there.recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
///
/// ```
/// let (here, there) = shmq::pipe::<u32, String>()?;
/// let clients = shmq::Queue::new(8)?;
/// clients.put(&there)?;
/// drop(there); // its duplicate is on the way
/// let client = clients.get()?; // as another process does
/// here.send(&7)?;
/// client.send(&format!("got {}", client.recv()?))?;
/// assert_eq!(here.recv()?, "got 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection<S, R> {
    // Dropped first: whoever has been told of the end of file finds that it cannot send any more either.
    receiver: Receiver<R>,
    sender: Sender<S>,
}

/// The sending end of a pipe, or the sending half of a [`Connection`].
///
/// ```
/// let (receiver, sender) = shmq::simplex::<String>()?;
/// let other = sender.clone();
/// sender.send(&"one".to_owned())?;
/// drop(sender);
/// other.send(&"two".to_owned())?; // the end is open until both are gone
/// drop(receiver);
/// assert!(matches!(other.send(&"three".to_owned()), Err(shmq::PutError::Closed)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sender<T> {
    half: Arc<Half>,
    item: PhantomData<fn(T)>,
}

/// The receiving end of a pipe, or the receiving half of a [`Connection`].
///
/// ```
/// let (receiver, sender) = shmq::simplex::<u32>()?;
/// std::thread::spawn(move || (1..=10).try_for_each(|number| sender.send(&number)));
/// let mut sum = 0;
/// while let Ok(number) = receiver.recv() {
///     sum += number;
/// }
/// assert_eq!(sum, 55);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// let name = format!("taken-line-{}", std::process::id());
    /// let here = shmq::Connection::<u32, String>::create(&name)?;
    /// let there = shmq::Connection::<String, u32>::open(&name)?; // the types mirrored
    /// let third = shmq::Connection::<String, u32>::open(&name);
    /// assert!(matches!(third, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &str) -> Result<Self, OpenError> {
        PipeOptions::new().open(name)
    }

    /// Blocks for at most `timeout` until a message, or the end of file, is there: whether it is.
    ///
    /// Zero only looks, [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Io`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = shmq::pipe::<u32, u32>()?;
    /// assert!(!here.poll(Duration::from_millis(10))?);
    /// there.send(&1)?;
    /// assert!(here.poll(Duration::MAX)?);
    /// assert_eq!(here.recv()?, 1); // it took nothing
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&self, timeout: Duration) -> Result<bool, GetError> {
        self.receiver.poll(timeout)
    }

    /// Sends a raw message. Blocks while the pipe is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<(), ()>()?;
    /// here.send_bytes(b"raw")?;
    /// assert_eq!(there.recv_bytes()?, b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_bytes(&self, message: &[u8]) -> Result<(), PutError> {
        self.sender.send_bytes(message)
    }

    /// Receives a raw message. Blocks while there is none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), but never `Decode`.
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<(), ()>()?;
    /// here.send_bytes(b"last")?;
    /// here.close();
    /// assert_eq!(there.recv_bytes()?, b"last");
    /// assert!(matches!(there.recv_bytes(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.receiver.recv_bytes()
    }

    /// Receives a raw message of at most `max` bytes.
    ///
    /// # Errors
    /// `TooLong` if it has more: it stays, and can be received with a larger `max`. Else as
    /// [`recv_bytes`](Self::recv_bytes).
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<(), ()>()?;
    /// here.send_bytes(b"long message")?;
    /// let long = there.recv_bytes_max(4);
    /// assert!(matches!(long, Err(shmq::GetError::TooLong { len: 12, max: 4 })));
    /// assert_eq!(there.recv_bytes_max(100)?, b"long message");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_max(&self, max: usize) -> Result<Vec<u8>, GetError> {
        self.receiver.recv_bytes_max(max)
    }

    /// Receives a raw message into `buffer` and returns its length.
    ///
    /// # Errors
    /// `BufferTooShort` with the whole message, which has been received. Else as [`recv_bytes`](Self::recv_bytes).
    ///
    /// ```
    /// use shmq::GetError::BufferTooShort;
    ///
    /// let (here, there) = shmq::pipe::<(), ()>()?;
    /// let mut buffer = [0; 4];
    /// here.send_bytes(b"raw")?;
    /// assert_eq!(there.recv_bytes_into(&mut buffer)?, 3);
    /// here.send_bytes(b"too long")?;
    /// let short = there.recv_bytes_into(&mut buffer);
    /// assert!(matches!(short, Err(BufferTooShort { message }) if message == b"too long"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.receiver.recv_bytes_into(buffer)
    }

    /// Drops this handle. The end is closed when its last handle is.
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<u32, u32>()?;
    /// here.close();
    /// assert!(matches!(there.recv(), Err(shmq::GetError::Closed)));
    /// assert!(matches!(there.send(&1), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(self) {}

    /// The two halves, each of which can be dropped, cloned and sent on its own.
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<u32, u32>()?;
    /// let (sender, receiver) = here.split();
    /// there.send(&1)?;
    /// drop(sender); // says that no more will come, and goes on receiving
    /// assert!(matches!(there.recv(), Err(shmq::GetError::Closed)));
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<u32, ()>()?;
    /// here.send(&7)?;
    /// assert_eq!(there.recv()?, 7);
    /// drop(there);
    /// assert!(matches!(here.send(&8), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "put")]
    pub fn send(&self, item: &S) -> Result<(), PutError> {
        self.sender.send(item)
    }

    /// Like [`send`](Self::send), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`send`](Self::send).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = shmq::PipeOptions::new().capacity(1).pipe::<u32, ()>()?;
    /// here.send(&1)?;
    /// let late = here.send_timeout(&2, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_timeout(&self, item: &S, timeout: Duration) -> Result<(), PutError> {
        self.sender.send_timeout(item, timeout)
    }

    /// Like [`send`](Self::send), but does not wait for room.
    ///
    /// # Errors
    /// `Full`, and those of [`send`](Self::send).
    ///
    /// ```
    /// let (here, there) = shmq::PipeOptions::new().capacity(1).pipe::<u32, ()>()?;
    /// here.send_nowait(&1)?;
    /// assert!(matches!(here.send_nowait(&2), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<String, ()>()?;
    /// here.send(&"last".to_owned())?;
    /// drop(here);
    /// assert_eq!(there.recv()?, "last");
    /// assert!(matches!(there.recv(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<R, GetError> {
        self.receiver.recv()
    }

    /// Like [`recv`](Self::recv), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`recv`](Self::recv).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = shmq::pipe::<u32, u32>()?;
    /// let late = here.recv_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R, GetError> {
        self.receiver.recv_timeout(timeout)
    }

    /// Like [`recv`](Self::recv), but does not wait for a message.
    ///
    /// # Errors
    /// `Empty`, and those of [`recv`](Self::recv).
    ///
    /// ```
    /// let (here, there) = shmq::pipe::<u32, u32>()?;
    /// assert!(matches!(here.recv_nowait(), Err(shmq::GetError::Empty)));
    /// there.send(&1)?;
    /// assert_eq!(here.recv_nowait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<()>()?;
    /// sender.send_bytes(b"raw")?;
    /// assert_eq!(receiver.recv_bytes()?, b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_bytes(&self, message: &[u8]) -> Result<(), PutError> {
        self.check()?;
        self.half.access().put(message, Deadline::Never)
    }

    /// Drops this handle. The end is closed when its last handle is.
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<u32>()?;
    /// sender.send(&1)?;
    /// sender.close();
    /// assert_eq!(receiver.recv()?, 1);
    /// assert!(matches!(receiver.recv(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex()?;
    /// sender.send(&"one".to_owned())?;
    /// assert_eq!(receiver.recv()?, "one");
    /// receiver.close();
    /// assert!(matches!(sender.send(&"two".to_owned()), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "put")]
    pub fn send(&self, item: &T) -> Result<(), PutError> {
        self.send_until(item, Deadline::Never)
    }

    /// Like [`send`](Self::send), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Connection::send_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (receiver, sender) = shmq::PipeOptions::new().capacity(1).simplex::<u32>()?;
    /// sender.send(&1)?;
    /// let late = sender.send_timeout(&2, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_timeout(&self, item: &T, timeout: Duration) -> Result<(), PutError> {
        self.send_until(item, Deadline::after(timeout))
    }

    /// Like [`send`](Self::send), but does not wait for room.
    ///
    /// # Errors
    /// As [`Connection::send_nowait`].
    ///
    /// ```
    /// let (receiver, sender) = shmq::PipeOptions::new().capacity(1).simplex::<u32>()?;
    /// sender.send_nowait(&1)?;
    /// assert!(matches!(sender.send_nowait(&2), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (receiver, sender) = shmq::simplex::<u32>()?;
    /// assert!(!receiver.poll(Duration::from_millis(10))?);
    /// drop(sender);
    /// assert!(receiver.poll(Duration::MAX)?); // the end of file is there to be received
    /// assert!(matches!(receiver.recv(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&self, timeout: Duration) -> Result<bool, GetError> {
        self.half.channel().poll(Deadline::after(timeout)).map_err(GetError::Io)
    }

    /// Receives a raw message. Blocks while there is none.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes`].
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<()>()?;
    /// sender.send_bytes(b"last")?;
    /// drop(sender);
    /// assert_eq!(receiver.recv_bytes()?, b"last");
    /// assert!(matches!(receiver.recv_bytes(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>, GetError> {
        self.half.access().get(Deadline::Never)
    }

    /// Receives a raw message of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes_max`].
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<()>()?;
    /// sender.send_bytes(b"long message")?;
    /// let long = receiver.recv_bytes_max(4);
    /// assert!(matches!(long, Err(shmq::GetError::TooLong { len: 12, max: 4 })));
    /// assert_eq!(receiver.recv_bytes_max(100)?, b"long message");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_max(&self, max: usize) -> Result<Vec<u8>, GetError> {
        self.half.access().get_max(max, Deadline::Never)
    }

    /// Receives a raw message into `buffer` and returns its length.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes_into`].
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<()>()?;
    /// sender.send_bytes(b"raw")?;
    /// let mut buffer = [0; 16];
    /// let len = receiver.recv_bytes_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.half.access().get_into(buffer, Deadline::Never)
    }

    /// Drops this handle. The end is closed when its last handle is.
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<u32>()?;
    /// receiver.close();
    /// assert!(matches!(sender.send(&1), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex()?;
    /// sender.send(&"last".to_owned())?;
    /// drop(sender);
    /// assert_eq!(receiver.recv()?, "last");
    /// assert!(matches!(receiver.recv(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<T, GetError> {
        self.recv_until(Deadline::Never)
    }

    /// Like [`recv`](Self::recv), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Connection::recv_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (receiver, sender) = shmq::simplex::<u32>()?;
    /// let late = receiver.recv_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.recv_until(Deadline::after(timeout))
    }

    /// Like [`recv`](Self::recv), but does not wait for a message.
    ///
    /// # Errors
    /// As [`Connection::recv_nowait`].
    ///
    /// ```
    /// let (receiver, sender) = shmq::simplex::<u32>()?;
    /// assert!(matches!(receiver.recv_nowait(), Err(shmq::GetError::Empty)));
    /// sender.send(&1)?;
    /// assert_eq!(receiver.recv_nowait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
