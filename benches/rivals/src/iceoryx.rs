//! iceoryx2: publish-subscribe, looking for samples without a pause, or woken by an event.
#![expect(unsafe_code, reason = "samples that are written in place")]

use std::error::Error;
use std::hint::spin_loop;
use std::io;
use std::ops::Range;

use iceoryx2::config::Config;
use iceoryx2::node::Node;
use iceoryx2::port::BackpressureAction;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use shmq_benches::{Checks, Link, Place, write_in_place};

fn other(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// What the files of a run begin with; they are removed at its end.
fn prefix(run: u32) -> String {
    format!("shmq_rivals_{run}_")
}

fn root(run: u32) -> String {
    format!("/tmp/shmq_rivals_{run}")
}

/// Removes what a run of this process id has left.
pub(crate) fn clean_up(run: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/dev/shm")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix(run)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    match std::fs::remove_dir_all(root(run)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The run is that of the process that makes the names.
fn run_of(place: &Place) -> io::Result<u32> {
    let run = place.name.split('-').nth(1).and_then(|run| run.parse().ok());
    run.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

enum End {
    Publisher(Publisher<ipc::Service, [u8], ()>, Option<Notifier<ipc::Service>>),
    Subscriber(Subscriber<ipc::Service, [u8], ()>, Option<Listener<ipc::Service>>),
}

/// One end. With `EVENT`, a consumer that finds nothing sleeps until it is notified, as each send does; without,
/// both sides look again at once. With `IN_PLACE`, samples are written and read where they lie.
pub(crate) struct Iceoryx<const N: usize, const EVENT: bool, const IN_PLACE: bool> {
    end: End,
    /// It must outlive the ports.
    _node: Node<ipc::Service>,
}

impl<const N: usize, const EVENT: bool, const IN_PLACE: bool> Iceoryx<N, EVENT, IN_PLACE> {
    fn attached(place: &Place) -> io::Result<Self> {
        let run = run_of(place)?;
        let mut config = Config::default();
        config.global.prefix = FileName::new(prefix(run).as_bytes()).map_err(other)?;
        config.global.set_root_path(&Path::new(root(run).as_bytes()).map_err(other)?);
        let node = NodeBuilder::new()
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .map_err(other)?;
        let name = place.name.as_str().try_into().map_err(other)?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(place.capacity)
            .max_publishers(1)
            .max_subscribers(1)
            .payload_alignment(Alignment::new(8).ok_or(io::ErrorKind::InvalidInput)?)
            .open_or_create()
            .map_err(other)?;
        let events = EVENT.then(|| node.service_builder(&name).event().open_or_create()).transpose();
        let events = events.map_err(other)?;
        let end = if place.puts {
            let publisher = service
                .publisher_builder()
                .initial_max_slice_len(N)
                .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
            // Where all spin, also the producer that finds no room: faster than its own growing pauses.
            let publisher = if EVENT {
                publisher
            } else {
                publisher.set_backpressure_handler(|_| {
                    spin_loop();
                    BackpressureAction::Retry
                })
            };
            let notifier = events.map(|events| events.notifier_builder().create()).transpose();
            End::Publisher(publisher.create().map_err(other)?, notifier.map_err(other)?)
        } else {
            let listener = events.map(|events| events.listener_builder().create()).transpose();
            End::Subscriber(service.subscriber_builder().create().map_err(other)?, listener.map_err(other)?)
        };
        Ok(Self { end, _node: node })
    }

    #[inline]
    fn publish(&self, write: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let End::Publisher(publisher, notifier) = &self.end else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let sample = publisher.loan_slice_uninit(N).map_err(other)?;
        // SAFETY: bytes of shared memory, which the kernel has zeroed: any are valid.
        let mut sample = unsafe { sample.assume_init() };
        write(sample.payload_mut());
        sample.send().map_err(other)?;
        if let Some(notifier) = notifier {
            notifier.notify().map_err(other)?;
        }
        Ok(())
    }

    #[inline]
    fn next(&self) -> io::Result<Sample<ipc::Service, [u8], ()>> {
        let End::Subscriber(subscriber, listener) = &self.end else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        loop {
            if let Some(sample) = subscriber.receive().map_err(other)? {
                return Ok(sample);
            }
            match listener {
                Some(listener) => drop(listener.blocking_wait(|_| {}).map_err(other)?),
                None => spin_loop(),
            }
        }
    }
}

impl<const N: usize, const EVENT: bool, const IN_PLACE: bool> Link for Iceoryx<N, EVENT, IN_PLACE> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        Self::attached(place)
    }

    fn open(place: &Place) -> io::Result<Self> {
        Self::attached(place)
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.publish(|bytes| bytes.copy_from_slice(item))
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        let sample = self.next()?;
        if sample.payload().len() != N {
            return Err(io::ErrorKind::InvalidData.into());
        }
        item.copy_from_slice(sample.payload());
        Ok(())
    }

    fn produce(&mut self, numbers: Range<u64>, item: &mut Self::Item) -> io::Result<()> {
        use shmq_benches::Payload;
        for number in numbers {
            if IN_PLACE {
                self.publish(|bytes| write_in_place(bytes, number))?;
            } else {
                item.set_number(number);
                self.send(item)?;
            }
        }
        Ok(())
    }

    fn consume(&mut self, count: u64, checks: &mut Checks, item: &mut Self::Item) -> io::Result<()> {
        for _ in 0..count {
            if IN_PLACE {
                checks.see_bytes::<N>(self.next()?.payload())?;
            } else {
                self.receive(item)?;
                checks.see(item)?;
            }
        }
        Ok(())
    }
}
