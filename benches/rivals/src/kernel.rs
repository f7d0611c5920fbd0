//! What the kernel offers: pipes, sockets, and POSIX message queues.
#![expect(unsafe_code, reason = "system calls, and descriptors that come from the parent")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

use shmq_benches::{Link, Place, Work};

fn check(returned: i32) -> io::Result<i32> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// `pipe(2)`, with room for as many bytes as the others' queues have, but at most a mebibyte.
///
/// Every process has the end that it uses; the maker keeps both.
pub(crate) struct Pipe<const N: usize> {
    reader: Option<File>,
    writer: Option<File>,
    ticket: String,
}

impl<const N: usize> Link for Pipe<N> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the two numbers are ours to write.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
        // SAFETY: just opened, and nobody else's.
        let reader = unsafe { File::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let writer = unsafe { File::from_raw_fd(ends[1]) };
        // More needs a privilege, or a higher /proc/sys/fs/pipe-max-size.
        let room = i32::try_from((place.capacity * N).min(1 << 20)).map_err(io::Error::other)?;
        // SAFETY: changes the size of a pipe of ours.
        check(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, room) })?;
        // The others open them by way of /proc.
        let ticket = format!("{}.{}", reader.as_raw_fd(), writer.as_raw_fd());
        Ok(Self { reader: Some(reader), writer: Some(writer), ticket })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let (reader, writer) = place.ticket.split_once('.').ok_or(io::ErrorKind::InvalidInput)?;
        let path = |number| format!("/proc/{}/fd/{number}", parent_id());
        let (mut opened, ticket) = ((None, None), String::new());
        if place.puts {
            opened.1 = Some(OpenOptions::new().write(true).open(path(writer))?);
        } else {
            opened.0 = Some(File::open(path(reader))?);
        }
        Ok(Self { reader: opened.0, writer: opened.1, ticket })
    }

    fn ticket(&self) -> String {
        self.ticket.clone()
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.writer.as_mut().ok_or(io::ErrorKind::InvalidInput)?.write_all(item)
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.reader.as_mut().ok_or(io::ErrorKind::InvalidInput)?.read_exact(item)
    }
}

/// `socketpair(2)`, a stream: it carries messages of every size here.
pub(crate) struct SocketPair<const N: usize> {
    near: UnixStream,
    far: Option<UnixStream>,
}

impl<const N: usize> Link for SocketPair<N> {
    type Item = [u8; N];

    fn create(_: &Place) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        // The other process inherits it.
        // SAFETY: changes a flag of a descriptor of ours.
        check(unsafe { libc::fcntl(far.as_raw_fd(), libc::F_SETFD, 0) })?;
        Ok(Self { near, far: Some(far) })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let number: RawFd = place.ticket.parse().map_err(io::Error::other)?;
        // SAFETY: inherited under this number, and nobody else's in this process.
        let near = unsafe { UnixStream::from_raw_fd(number) };
        // SAFETY: changes a flag of a descriptor of ours.
        check(unsafe { libc::fcntl(near.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
        Ok(Self { near, far: None })
    }

    fn ticket(&self) -> String {
        self.far.as_ref().map_or_else(String::new, |far| far.as_raw_fd().to_string())
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.far = None;
        Ok(())
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.near.write_all(item)
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.near.read_exact(item)
    }
}

/// A POSIX message queue of at most `MOST` messages: more than [`UNPRIVILEGED`] need a privilege, or a higher
/// `/proc/sys/fs/mqueue/msg_max`.
pub(crate) struct PosixQueue<const N: usize, const MOST: usize> {
    queue: libc::mqd_t,
    name: CString,
}

/// The messages of a POSIX queue that everybody may make.
pub(crate) const UNPRIVILEGED: usize = 10;

/// Whether this process may make a POSIX queue that holds as many messages as the others' queues.
pub(crate) fn may_make_long_posix_queues() -> bool {
    let place = Place {
        name: format!("bench-{}-probe", std::process::id()),
        work: Work::STREAM,
        capacity: Work::STREAM.capacity(64),
        puts: true,
        ticket: String::new(),
    };
    PosixQueue::<64, { usize::MAX }>::create(&place).and_then(|mut queue| queue.unlink()).is_ok()
}

impl<const N: usize, const MOST: usize> PosixQueue<N, MOST> {
    fn name(place: &Place) -> io::Result<CString> {
        Ok(CString::new(format!("/shmq-rivals-{}", place.name))?)
    }
}

impl<const N: usize, const MOST: usize> Link for PosixQueue<N, MOST> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        let name = Self::name(place)?;
        // SAFETY: a structure of numbers.
        let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
        attributes.mq_maxmsg = i64::try_from(place.capacity.min(MOST)).map_err(io::Error::other)?;
        attributes.mq_msgsize = i64::try_from(N).map_err(io::Error::other)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        let mode: libc::mode_t = 0o600;
        // SAFETY: the name ends with a zero, the attributes are borrowed for the call.
        let queue = check(unsafe { libc::mq_open(name.as_ptr(), flags, mode, &raw mut attributes) })?;
        Ok(Self { queue, name })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let name = Self::name(place)?;
        // SAFETY: the name ends with a zero.
        let queue = check(unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        Ok(Self { queue, name })
    }

    fn unlink(&mut self) -> io::Result<()> {
        // SAFETY: the name ends with a zero.
        check(unsafe { libc::mq_unlink(self.name.as_ptr()) }).map(drop)
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        // SAFETY: the queue is open as long as `self` lives, the message has this length.
        check(unsafe { libc::mq_send(self.queue, item.as_ptr().cast(), N, 0) }).map(drop)
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        // SAFETY: as above, and the buffer is ours to write.
        let received =
            unsafe { libc::mq_receive(self.queue, item.as_mut_ptr().cast(), N, std::ptr::null_mut()) };
        match usize::try_from(received) {
            Ok(length) if length == N => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl<const N: usize, const MOST: usize> Drop for PosixQueue<N, MOST> {
    fn drop(&mut self) {
        // SAFETY: opened by `self`, and not used again.
        unsafe { libc::mq_close(self.queue) };
    }
}
