//! Crates: ipc-channel, ipmpsc, and rtrb between threads.

use std::collections::HashMap;
use std::hint::spin_loop;
use std::io;
use std::sync::{Mutex, PoisonError};

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use shmq_benches::{Link, Place};

/// ipc-channel's channel of bytes. Its capacity is that of the kernel's socket buffer: there is no other.
pub(crate) struct IpcChannel<const N: usize> {
    /// Until the other process has sent our end.
    server: Option<IpcOneShotServer<End>>,
    ticket: String,
    end: Option<End>,
}

#[derive(Serialize, Deserialize)]
enum End {
    Sender(IpcBytesSender),
    Receiver(IpcBytesReceiver),
}

impl<const N: usize> Link for IpcChannel<N> {
    type Item = [u8; N];

    fn create(_: &Place) -> io::Result<Self> {
        let (server, ticket) = IpcOneShotServer::new()?;
        Ok(Self { server: Some(server), ticket, end: None })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let (sender, receiver) = bytes_channel()?;
        let (ours, theirs) = if place.puts {
            (End::Sender(sender), End::Receiver(receiver))
        } else {
            (End::Receiver(receiver), End::Sender(sender))
        };
        IpcSender::connect(place.ticket.clone())?.send(theirs).map_err(io::Error::other)?;
        Ok(Self { server: None, ticket: String::new(), end: Some(ours) })
    }

    fn ticket(&self) -> String {
        self.ticket.clone()
    }

    /// Everybody is there: the end that the other process has made for us is, too.
    fn unlink(&mut self) -> io::Result<()> {
        if let Some(server) = self.server.take() {
            let (_, end) = server.accept().map_err(io::Error::other)?;
            self.end = Some(end);
        }
        Ok(())
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        match &self.end {
            Some(End::Sender(sender)) => sender.send(item),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        let Some(End::Receiver(receiver)) = &self.end else { return Err(io::ErrorKind::InvalidInput.into()) };
        let message = receiver.recv().map_err(io::Error::other)?;
        copy(&message, item)
    }
}

fn copy(message: &[u8], item: &mut [u8]) -> io::Result<()> {
    if message.len() != item.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    item.copy_from_slice(message);
    Ok(())
}

/// ipmpsc, with its zero-copy receiver, which is what it is fastest with.
pub(crate) struct Ipmpsc<const N: usize> {
    path: String,
    sender: ipmpsc::Sender,
    receiver: ipmpsc::Receiver,
}

/// What it writes before the bytes of a message: its own length, and theirs.
const IPMPSC_PREFIX: usize = 12;

impl<const N: usize> Ipmpsc<N> {
    fn attached(path: String, ring: &ipmpsc::SharedRingBuffer) -> Self {
        Self {
            path,
            sender: ipmpsc::Sender::new(ring.clone()),
            receiver: ipmpsc::Receiver::new(ring.clone()),
        }
    }

    fn path(place: &Place) -> String {
        format!("/dev/shm/shmq-rivals-ipmpsc-{}", place.name)
    }
}

impl<const N: usize> Link for Ipmpsc<N> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        let path = Self::path(place);
        // One more than the capacity: it never fills its ring to the last byte.
        let size = u32::try_from((place.capacity + 1) * (N + IPMPSC_PREFIX)).map_err(io::Error::other)?;
        let ring = ipmpsc::SharedRingBuffer::create(&path, size).map_err(io::Error::other)?;
        Ok(Self::attached(path, &ring))
    }

    fn open(place: &Place) -> io::Result<Self> {
        let path = Self::path(place);
        let ring = ipmpsc::SharedRingBuffer::open(&path).map_err(io::Error::other)?;
        Ok(Self::attached(path, &ring))
    }

    fn unlink(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.sender.send(&Bytes::new(item)).map_err(io::Error::other)
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        let mut context = self.receiver.zero_copy_context();
        let message: &Bytes = context.recv().map_err(io::Error::other)?;
        copy(message, item)
    }
}

/// rtrb's ring between threads, which spins.
pub(crate) struct Rtrb {
    name: String,
    end: RtrbEnd,
}

enum RtrbEnd {
    Producer(rtrb::Producer<[u8; 64]>),
    Consumer(rtrb::Consumer<[u8; 64]>),
}

/// The other ends, for the other threads.
static ENDS: Mutex<Option<HashMap<String, RtrbEnd>>> = Mutex::new(None);

impl Link for Rtrb {
    type Item = [u8; 64];

    fn create(place: &Place) -> io::Result<Self> {
        let (producer, consumer) = rtrb::RingBuffer::new(place.capacity);
        let (producer, consumer) = (RtrbEnd::Producer(producer), RtrbEnd::Consumer(consumer));
        let (ours, theirs) = if place.puts { (producer, consumer) } else { (consumer, producer) };
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get_or_insert_default().insert(place.name.clone(), theirs);
        Ok(Self { name: place.name.clone(), end: ours })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.get_or_insert_default().remove(&place.name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { name: place.name.clone(), end })
    }

    fn unlink(&mut self) -> io::Result<()> {
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get_or_insert_default().remove(&self.name);
        Ok(())
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        let RtrbEnd::Producer(producer) = &mut self.end else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        while producer.push(*item).is_err() {
            spin_loop();
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        let RtrbEnd::Consumer(consumer) = &mut self.end else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        loop {
            if let Ok(message) = consumer.pop() {
                *item = message;
                return Ok(());
            }
            spin_loop();
        }
    }
}
