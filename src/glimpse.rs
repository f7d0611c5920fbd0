//! A look at a segment without being attached to it: read-only, and seen by nobody.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering::Acquire, fence};

use crate::attachment::{self, channel_in, live_in};
use crate::error::OpenError;
use crate::layout::{Ends, Expected, Geometry, HEADER, Lane, Live, UncheckedHeader};
use crate::ring::Ring;
use crate::sys::ofd;
use crate::sys::segment::Mapping;

/// An object in /dev/shm that bears a name of ours, open for reading.
pub(crate) struct Glimpse {
    file: File,
}

/// What is in it, if it is a segment of ours.
pub(crate) struct Contents<'a> {
    glimpse: &'a Glimpse,
    geometry: Geometry,
    mapping: Mapping,
}

impl Glimpse {
    pub(crate) fn of(name: &str) -> Result<Self, OpenError> {
        Ok(Self { file: attachment::open_to_look(name)? })
    }

    pub(crate) fn object(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// How many handles are attached.
    pub(crate) fn attached(&self) -> io::Result<u64> {
        Ok(ofd::count_ids(self.file.as_raw_fd())? as u64)
    }

    /// What is in it, or why that cannot be told.
    pub(crate) fn contents(&self) -> Result<Result<Contents<'_>, String>, OpenError> {
        let mut bytes = [0; HEADER];
        let len = self.file.metadata().map_err(OpenError::Io)?.len();
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return Ok(Err(format!("its {len} bytes do not begin like a segment")));
        }
        let Some(header) = UncheckedHeader::read(&bytes) else {
            return Ok(Err(format!("its {len} bytes do not begin like a segment")));
        };
        let Some(kind) = header.kind() else {
            return Ok(Err("it is of a kind that this version of shmq does not know".to_owned()));
        };
        let geometry = match header.check(len, Expected { kind, schema: "", nonce: None }) {
            Ok(geometry) => geometry,
            Err(disbelief) => return Ok(Err(disbelief.to_string())),
        };
        let mapping = Mapping::read_only(&self.file, geometry.segment_len()).map_err(OpenError::Io)?;
        Ok(Ok(Contents { glimpse: self, geometry, mapping }))
    }
}

impl Contents<'_> {
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn ends(&self, lane: Lane) -> &Ends {
        channel_in(&self.mapping, self.geometry.place(lane)).0
    }

    pub(crate) fn live(&self) -> &Live {
        live_in(&self.mapping)
    }

    /// The ring, whose bytes must not be written, nor read but through [`read`](Self::read).
    pub(crate) fn ring(&self, lane: Lane) -> Ring<'_> {
        let (ends, bytes) = channel_in(&self.mapping, self.geometry.place(lane));
        Ring { shape: self.geometry.shape, bytes, put: &ends.put.side, get: &ends.get.side }
    }

    /// Copies bytes of a ring. They may be written at the same time: the kernel copies, so that is no data race.
    pub(crate) fn read(&self, lane: Lane, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        self.glimpse.file.read_exact_at(buffer, (self.geometry.ring_offset(lane) + offset) as u64)?;
        // What is loaded after this is loaded after the copy.
        fence(Acquire);
        Ok(())
    }
}
