//! Names and lifetime: creating, attaching to, leaving and removing a segment.
//!
//! The rule that all of it rests on: **only the holder of the door of a file may take a name from it,
//! after checking under that lock that the name is still the file's own.** Whoever locks the whole
//! range holds the door too, and knows that nobody is attached and nobody can attach.
//!
//! Killed at any instruction, a process leaves at most: a nameless file (gone with it), a whole segment
//! that nobody is attached to (which `open` attaches to and `create` replaces), or no name at all.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::atomic::AtomicU32;
use crate::deadline::now;
use crate::error::{NOT_A_FILE, OpenError};
use crate::layout::{Ends, Expected, Geometry, HEADER, LIVE, Lane, Live, Place, UncheckedHeader};
use crate::sys::fork::Descriptor;
use crate::sys::lease::{Identity, Joined, Lease};
use crate::sys::region::Region;
use crate::sys::segment::{self, Mapping};
use crate::sys::{futex, random};

/// How long to wait for somebody who is in the middle of attaching, leaving or removing.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_NAME: usize = 200;
/// How often creation is tried where the space may only be taken for a moment; 10 ms apart on average.
const NO_SPACE_TRIES: u32 = 10;
/// What made-up names begin with; the header says for certain.
const MADE_UP: &str = "anon-";
/// What no user's name can hold.
const STOPGAP: &str = "+new-";

/// A segment that this process is attached to: mapped, and leased so that everybody can see it.
pub(crate) struct Attachment {
    mapping: Mapping,
    seat: Seat,
}

/// A place among those attached: as long as it is kept, nobody replaces or reclaims the segment. The
/// last one who gives it up takes the name away.
struct Seat {
    name: String,
    path: CString,
    geometry: Geometry,
    lease: Lease,
}

/// What to create.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) geometry: Geometry,
    pub(crate) mode: u32,
}

/// Checks a name against the rules.
pub(crate) fn check_name(name: &str) -> Result<(), OpenError> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("it is {} bytes long", name.len())
    } else if name.starts_with('.') {
        "it begins with a dot".to_owned()
    } else if let Some(character) = name.chars().find(|character| !allowed(*character)) {
        format!("it holds {character:?}")
    } else {
        return Ok(());
    };
    Err(OpenError::InvalidName { name: name.to_owned(), reason })
}

/// Attaches to an existing segment.
pub(crate) fn open(name: &str, expected: Expected<'_>) -> Result<Attachment, OpenError> {
    open_with(name, expected, Lease::new)
}

/// Attaches to an existing segment as a guest: leaving never takes its name away, not even as the last one, and
/// being attached does not keep others from taking it away when they leave. To everybody else who asks, a guest
/// is attached like any other: nobody replaces or reclaims the segment.
pub(crate) fn open_as_guest(name: &str, expected: Expected<'_>) -> Result<Attachment, OpenError> {
    open_with(name, expected, Lease::of_guest)
}

fn open_with(
    name: &str,
    expected: Expected<'_>,
    lease: fn(Descriptor) -> io::Result<Lease>,
) -> Result<Attachment, OpenError> {
    check_name(name)?;
    let path = path(name)?;
    let mut patience = Patience::new();
    loop {
        if let Some(attachment) = try_open(name, &path, expected, lease)? {
            return Ok(attachment);
        }
        patience.pause()?;
    }
}

/// Makes a segment of this name; one that a crash of everybody left behind is replaced.
pub(crate) fn create(name: &str, plan: &Plan) -> Result<Attachment, OpenError> {
    create_prepared(name, plan, |_| Ok(())).map(|(attachment, ())| attachment)
}

/// The same, prepared before anybody can see it.
pub(crate) fn create_prepared<P>(
    name: &str,
    plan: &Plan,
    prepare: impl FnOnce(&Attachment) -> Result<P, OpenError>,
) -> Result<(Attachment, P), OpenError> {
    check_name(name)?;
    let path = path(name)?;
    if is_in_use(name, &path)? {
        return Err(OpenError::AlreadyExists { name: name.to_owned() });
    }
    let nameless = make_room_for(name, &path, plan)?;
    let prepared = prepare(&nameless.attachment)?;
    let mut patience = Patience::new();
    loop {
        match nameless.link(&path) {
            Ok(()) => return Ok((nameless.named(path, plan), prepared)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(explain(name, "name the segment", error)),
        }
        match clear(name, &path)? {
            Standing::Gone => {}
            Standing::InUse => return Err(OpenError::AlreadyExists { name: name.to_owned() }),
            Standing::Unclear => patience.pause()?,
        }
    }
}

/// Makes the segment. Where there is no room for two, the one that a crash left under this name goes
/// first; and others who are making theirs, of whom one wins, soon give back what they have taken.
fn make_room_for(name: &str, path: &CStr, plan: &Plan) -> Result<Nameless, OpenError> {
    let mut tries = 0;
    loop {
        let refused = match Nameless::make(name, plan) {
            Err(refused @ OpenError::NoSpace { .. }) => refused,
            made => return made,
        };
        if clear(name, path)? == Standing::InUse {
            return Err(OpenError::AlreadyExists { name: name.to_owned() });
        }
        tries += 1;
        if tries == NO_SPACE_TRIES || plan.geometry.allocated_len() as u64 > segment::whole_space() {
            return Err(refused);
        }
        pause(Duration::from_micros(random().map_err(OpenError::Io)? % 20_000));
    }
}

/// Attaches to a segment, or makes it.
pub(crate) fn open_or_create(
    name: &str,
    expected: Expected<'_>,
    plan: &Plan,
) -> Result<Attachment, OpenError> {
    let mut patience = Patience::new();
    loop {
        match open(name, expected) {
            Err(OpenError::NotFound { .. }) => {}
            opened => return opened,
        }
        match create(name, plan) {
            Err(OpenError::AlreadyExists { .. }) => patience.pause()?,
            created => return created,
        }
    }
}

/// Makes a segment under a fresh name, after sweeping up what crashes left behind under such names.
pub(crate) fn create_made_up(plan: &Plan) -> Result<Attachment, OpenError> {
    create_made_up_prepared(plan, |_| Ok(())).map(|(attachment, ())| attachment)
}

/// The same, prepared before anybody can see it.
pub(crate) fn create_made_up_prepared<P>(
    plan: &Plan,
    prepare: impl Fn(&Attachment) -> Result<P, OpenError>,
) -> Result<(Attachment, P), OpenError> {
    sweep_if_due();
    let mut patience = Patience::new();
    loop {
        let name = format!("{MADE_UP}{:016x}", random().map_err(OpenError::Io)?);
        match create_prepared(&name, plan, &prepare) {
            Err(OpenError::AlreadyExists { .. }) => patience.pause()?,
            created => return created,
        }
    }
}

/// Takes the name away, even while the segment is in use. What is not ours is removed too, if it is a
/// file: it stands under a name of ours, and a segment damaged beyond recognition must not stay for ever.
pub(crate) fn remove(name: &str) -> Result<(), OpenError> {
    check_name(name)?;
    let path = path(name)?;
    let mut patience = Patience::new();
    loop {
        let file = segment::open(&path).map_err(|error| explain_open(name, error))?;
        let lease = Lease::new(file).map_err(OpenError::Io)?;
        if segment::file_len(lease.fd()).map_err(OpenError::Io)?.is_none() {
            return Err(not_a_file(name));
        }
        if lease.take_door().map_err(OpenError::Io)?
            && segment::is_named(&path, lease.fd()).map_err(OpenError::Io)?
        {
            return segment::unlink(&path).map_err(|error| explain(name, "remove the segment", error));
        }
        patience.pause()?;
    }
}

/// Opens what bears the name, to look at it only.
pub(crate) fn open_to_look(name: &str) -> Result<File, OpenError> {
    check_name(name)?;
    let file = segment::open_to_look(&path(name)?).map_err(|error| explain_open(name, error))?;
    let regular = file.metadata().map_err(OpenError::Io)?.is_file();
    if regular { Ok(file) } else { Err(not_a_file(name)) }
}

/// Removes what bears the name if it is a segment of ours that is not to be kept and that nobody is attached to.
/// `name` may be that of a stopgap, too.
pub(crate) fn remove_if_stale(name: &str) -> bool {
    let Ok(path) = path(name) else { return false };
    let stopgap = name.contains(STOPGAP);
    segment::exists(&path)
        && matches!(clear_if(name, &path, |header| stopgap || !header.is_persistent()), Ok(Standing::Gone))
}

/// Sweeps, but the more rarely the more there is to look at in vain.
fn sweep_if_due() {
    /// How many creations go by without a sweep.
    static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);
    let due = LEFT_OUT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err();
    if due {
        LEFT_OUT.store(sweep() / 8, Relaxed);
    }
}

/// Removes the made-up segments of this user that nobody is attached to, and says how many there were that
/// somebody is. What stands in the way of that is somebody else's business.
fn sweep() -> usize {
    let mut in_use = 0;
    for name in segment::names().unwrap_or_default() {
        let Ok(path) = path(&name) else { continue };
        let stopgap = name.contains(STOPGAP);
        if (stopgap || name.starts_with(MADE_UP)) && segment::is_own(&path) {
            let ours =
                |header: &UncheckedHeader| stopgap || (header.is_anonymous() && !header.is_persistent());
            if !matches!(clear_if(&name, &path, ours), Ok(Standing::Gone)) {
                in_use += 1;
            }
        }
    }
    in_use
}

/// What there is to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing bears it.
    Gone,
    /// Not to be replaced: somebody is attached, or it is persistent, or not ours.
    InUse,
    /// Somebody is in the middle of something.
    Unclear,
}

/// Whether `create` has no chance, without changing anything.
fn is_in_use(name: &str, path: &CStr) -> Result<bool, OpenError> {
    let Some((lease, header)) = look_into(name, path)? else { return Ok(false) };
    let replaceable = header.is_some_and(|header| !header.is_persistent());
    Ok(!replaceable || lease.somebody_attached().map_err(OpenError::Io)?)
}

/// Takes the name from a segment that is ours, not persistent, and that nobody is attached to.
fn clear(name: &str, path: &CStr) -> Result<Standing, OpenError> {
    clear_if(name, path, |header| !header.is_persistent())
}

fn clear_if(
    name: &str,
    path: &CStr,
    replaceable: impl Fn(&UncheckedHeader) -> bool,
) -> Result<Standing, OpenError> {
    let Some((lease, header)) = look_into(name, path)? else { return Ok(Standing::Gone) };
    if !header.is_some_and(|header| replaceable(&header)) {
        return Ok(Standing::InUse);
    }
    if lease.close_to_all().map_err(OpenError::Io)? {
        take_name(name, path, &lease)?;
        return Ok(Standing::Gone);
    }
    let in_use = lease.somebody_attached().map_err(OpenError::Io)?;
    Ok(if in_use { Standing::InUse } else { Standing::Unclear })
}

/// Unlinks the name if it is still this file's. The caller holds the door.
fn take_name(name: &str, path: &CStr, lease: &Lease) -> Result<(), OpenError> {
    if segment::is_named(path, lease.fd()).map_err(OpenError::Io)? {
        match segment::unlink(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(explain(name, "remove the segment", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The open file and its header, if it is ours; `None` if there is no file.
fn look_into(name: &str, path: &CStr) -> Result<Option<(Lease, Option<UncheckedHeader>)>, OpenError> {
    let file = match segment::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // If it exists, whose it is does not matter to somebody who wants to make it.
        Err(error) if is_foreign(&error) || segment::exists(path) => {
            return match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                    Err(explain(name, "open the segment", error))
                }
                _ => Err(OpenError::AlreadyExists { name: name.to_owned() }),
            };
        }
        Err(error) => return Err(explain(name, "open the segment", error)),
    };
    let lease = Lease::new(file).map_err(OpenError::Io)?;
    let header = read_header(&lease).map_err(OpenError::Io)?.and_then(|(header, _)| header);
    Ok(Some((lease, header)))
}

/// The header, if it is one of ours, and the length of the file; `None` if it is no regular file.
fn read_header(lease: &Lease) -> io::Result<Option<(Option<UncheckedHeader>, u64)>> {
    let Some(len) = segment::file_len(lease.fd())? else { return Ok(None) };
    let mut bytes = [0; HEADER];
    let got = segment::read_start(lease.fd(), &mut bytes)?;
    Ok(Some((UncheckedHeader::read(&bytes[..got]), len)))
}

/// `None` if somebody was in the way for a moment.
fn try_open(
    name: &str,
    path: &CStr,
    expected: Expected<'_>,
    lease: fn(Descriptor) -> io::Result<Lease>,
) -> Result<Option<Attachment>, OpenError> {
    let file = segment::open(path).map_err(|error| explain_open(name, error))?;
    let lease = lease(file).map_err(OpenError::Io)?;
    let (header, len) = read_header(&lease).map_err(OpenError::Io)?.ok_or_else(|| not_a_file(name))?;
    let Some(header) = header else {
        let reason = format!("its {len} bytes do not begin like one");
        return Err(OpenError::NotShmq { name: name.to_owned(), reason });
    };
    let geometry = header.check(len, expected).map_err(|disbelief| disbelief.about(name))?;
    if expected.nonce.is_some_and(|nonce| nonce != geometry.nonce) {
        return Err(OpenError::NotFound { name: name.to_owned() });
    }
    // Another description, since a mapping would keep the lease alive.
    let file = segment::reopen_by_name(path, lease.fd()).map_err(|error| explain_open(name, error))?;
    let Some(file) = file else { return Ok(None) };
    let mapping = Mapping::new(&file, geometry.segment_len())
        .map_err(|error| explain(name, "map the segment", error))?;
    // Last, so that nothing can fail between attaching and being attached: whoever attaches and gives up
    // leaves, and would take with it what a crash of everybody has left.
    let Joined::As(identity) = lease.join(|_| ()).map_err(OpenError::Io)? else { return Ok(None) };
    let seat = Seat { name: name.to_owned(), path: path.to_owned(), geometry, lease };
    if !segment::is_named(path, seat.lease.fd()).map_err(OpenError::Io)? {
        // The name was taken away, or given to another segment, before we had our seat.
        return Ok(None);
    }
    let attachment = Attachment { mapping, seat };
    attachment.bury(identity.id());
    Ok(Some(attachment))
}

/// A segment that is complete but for its name, and already leased.
struct Nameless {
    attachment: Attachment,
    /// It bears a stopgap name meanwhile, because nameless files are refused here.
    stopgap: bool,
}

impl Nameless {
    fn make(name: &str, plan: &Plan) -> Result<Self, OpenError> {
        Self::try_make(name, plan, segment::open_unnamed()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                let needed = plan.geometry.allocated_len() as u64;
                OpenError::NoSpace { needed, available: segment::free_space() }
            }
            _ => explain(name, "create the segment", error),
        })
    }

    fn try_make(name: &str, plan: &Plan, unnamed: io::Result<Descriptor>) -> io::Result<Self> {
        let (file, stopgap) = match unnamed {
            Ok(file) => (file, None),
            Err(error) if refuses_nameless(&error) => {
                let stopgap = segment::path(&format!("{name}{STOPGAP}{:016x}", random()?))?;
                (segment::open_new(&stopgap)?, Some(stopgap))
            }
            Err(error) => return Err(error),
        };
        // The seat keeps the options, but what has no name yet is not to be kept.
        let geometry = Geometry { nonce: random()?, persistent: false, ..plan.geometry.clone() };
        let len = geometry.segment_len();
        let header = Geometry { persistent: plan.geometry.persistent, ..geometry.clone() }.to_bytes();
        let path = stopgap.clone().unwrap_or_default();
        let seat = Seat { name: name.to_owned(), path, geometry, lease: Lease::new(file)? };
        // The umask may have taken from us what we need for opening it once more.
        segment::set_mode(seat.lease.fd(), 0o600)?;
        // First, so that nobody takes a stopgap for a leftover.
        let Joined::As(_) = seat.lease.join(|_| ())? else { return Err(io::ErrorKind::ResourceBusy.into()) };
        if seat.geometry.shape.is_sparse() {
            segment::set_len(seat.lease.fd(), len as u64)?;
        }
        segment::allocate(seat.lease.fd(), seat.geometry.allocated_len() as u64)?;
        segment::write_start(seat.lease.fd(), &header)?;
        let mapping = Mapping::new(&segment::reopen(seat.lease.fd())?, len)?;
        segment::set_mode(seat.lease.fd(), plan.mode)?;
        Ok(Self { attachment: Attachment { mapping, seat }, stopgap: stopgap.is_some() })
    }

    fn link(&self, path: &CStr) -> io::Result<()> {
        let seat = &self.attachment.seat;
        if self.stopgap {
            segment::rename_new(&seat.path, path)
        } else {
            segment::link(seat.lease.fd(), path)
        }
    }

    /// After `link`: from here on it is like any other attachment.
    fn named(mut self, path: CString, plan: &Plan) -> Attachment {
        self.attachment.seat.path = path;
        self.attachment.seat.geometry.persistent = plan.geometry.persistent;
        self.attachment
    }
}

fn refuses_nameless(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL))
}

impl Attachment {
    pub(crate) fn name(&self) -> &str {
        &self.seat.name
    }

    #[inline]
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.seat.geometry
    }

    /// What tells this segment from all others that bear or bore its name.
    pub(crate) fn nonce(&self) -> u64 {
        self.seat.geometry.nonce
    }

    #[inline]
    pub(crate) fn lease(&self) -> &Lease {
        &self.seat.lease
    }

    /// One more attachment of this process to the same segment, whatever its name has become.
    pub(crate) fn again(&self) -> Result<Self, OpenError> {
        let Seat { name, geometry, lease, .. } = &self.seat;
        let explain = |error| explain(name, "open the segment once more", error);
        let file = segment::reopen_leased(lease.verified_fd().map_err(explain)?).map_err(explain)?;
        let path = path(name)?;
        let seat = Seat {
            name: name.clone(),
            path,
            geometry: geometry.clone(),
            lease: Lease::new(file).map_err(OpenError::Io)?,
        };
        let mapping =
            Mapping::new(&segment::reopen(seat.lease.fd()).map_err(explain)?, geometry.segment_len())
                .map_err(explain)?;
        let again = Self { mapping, seat };
        again.identity().map_err(OpenError::Io)?;
        Ok(again)
    }

    /// Gives memory to part of a sparse ring: offset and length. What has memory keeps it and its bytes.
    pub(crate) fn allocate(&self, lane: Lane, (offset, len): (usize, usize)) -> io::Result<()> {
        let start = self.geometry().ring_offset(lane) + offset;
        if self.mapping.populate(start, len) {
            return Ok(());
        }
        segment::allocate_range(self.seat.lease.verified_fd()?, start as u64, len as u64)
    }

    /// Takes the memory of part of a sparse ring away. False if the file is lost.
    pub(crate) fn free(&self, lane: Lane, (offset, len): (usize, usize)) -> bool {
        let start = self.geometry().ring_offset(lane) + offset;
        let Ok(fd) = self.seat.lease.verified_fd() else { return false };
        if len > 0 {
            segment::free_range(fd, start as u64, len as u64);
        }
        true
    }

    /// Whether the name is gone and nobody is attached any more but guests: nothing will ever come of this segment.
    /// Cannot tell: no.
    pub(crate) fn is_abandoned(&self) -> bool {
        let Seat { path, lease, .. } = &self.seat;
        let named = lease.verified_fd().and_then(|fd| segment::is_named(path, fd));
        !named.unwrap_or(true) && !lease.is_used().unwrap_or(true)
    }

    /// Leaves before it is dropped: others see that it is gone, while its words can still be written. It must
    /// not be used for anything else afterwards.
    pub(crate) fn leave(&self) {
        self.seat.leave();
    }

    /// The identity to act under. In a forked child the first call takes one of its own.
    #[inline]
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        match self.seat.lease.identity() {
            Some(identity) => Ok(identity),
            None => self.join(),
        }
    }

    #[cold]
    fn join(&self) -> io::Result<Identity> {
        let mut patience = Patience::new();
        loop {
            match self.seat.lease.join(|id| self.bury(id))? {
                Joined::As(identity) => return Ok(identity),
                Joined::Refused => patience.pause()?,
            }
        }
    }

    /// Every lock word still owned by `id` is made one of the unknown dead.
    fn bury(&self, id: u32) {
        for lane in self.geometry().lanes() {
            self.ends(*lane).bury(id);
        }
    }

    /// The words of a channel, and the bytes of its ring. The place is one of this segment's geometry.
    #[inline]
    pub(crate) fn channel(&self, place: Place) -> (&Ends, Region<'_>) {
        channel_in(&self.mapping, place)
    }

    /// The words of a channel.
    pub(crate) fn ends(&self, lane: Lane) -> &Ends {
        self.channel(self.geometry().place(lane)).0
    }

    /// The words that are not on a hot path.
    #[inline]
    pub(crate) fn live(&self) -> &Live {
        live_in(&self.mapping)
    }

    /// The bytes of a channel's ring.
    pub(crate) fn ring(&self, lane: Lane) -> Region<'_> {
        self.channel(self.geometry().place(lane)).1
    }
}

/// The words of a channel in a mapped segment, and the bytes of its ring. The place is one of the segment's
/// geometry.
#[expect(unsafe_code, reason = "the one place where mapped bytes become references")]
#[inline]
pub(crate) fn channel_in(mapping: &Mapping, place: Place) -> (&Ends, Region<'_>) {
    let words = byte_in(mapping, place.ends).cast();
    // SAFETY: mapped below RING, as long as the mapping lives, and aligned as CHANNEL is (asserted in
    // `layout`); `Ends` is made of atomics and of bytes that nobody touches, for which any bytes
    // are valid and any writes no data race. Of a read-only mapping they are only ever loaded.
    let ends = unsafe { words.as_ref() };
    let base = byte_in(mapping, place.ring);
    // SAFETY: the mapping is as long as the geometry says (`segment_len`); rings begin at multiples of 128. Of a
    // read-only mapping the region is only named.
    (ends, unsafe { Region::new(base, place.room) })
}

/// The words of a mapped segment that are not on a hot path.
#[expect(unsafe_code, reason = "the one place where mapped bytes become references")]
#[inline]
pub(crate) fn live_in(mapping: &Mapping) -> &Live {
    let words = byte_in(mapping, LIVE).cast();
    // SAFETY: as in `channel_in`.
    unsafe { words.as_ref() }
}

/// The byte at an offset that lies in the segment.
#[expect(unsafe_code, reason = "the one place where mapped bytes become references")]
#[inline]
fn byte_in(mapping: &Mapping, offset: usize) -> NonNull<u8> {
    // SAFETY: every mapping is as long as the geometry says (`segment_len`), which is more than RING, and the
    // offsets asked for are those of words below RING and of rings.
    unsafe { mapping.base().add(offset) }
}

impl Seat {
    /// Leaves: gives the id back, and *then* looks whether nobody else is there. Two who leave at once:
    /// whoever gives its id back last finds the other's gone. The second time it does nothing.
    ///
    /// Killed before or after the id is given back: a segment that nobody is attached to.
    /// Stopped with the range locked: others pause for at most 5 s.
    fn leave(&self) {
        self.lease.leave();
        let goes_with_the_last = !self.geometry.persistent && !self.lease.is_guest();
        if goes_with_the_last && self.lease.close_to_all_but_guests().unwrap_or(false) {
            _ = take_name(&self.name, &self.path, &self.lease);
        }
        self.lease.close();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waiting for somebody who is in the middle of attaching, leaving or removing.
pub(crate) struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { end: now() + PATIENCE, pause: Duration::from_micros(100) }
    }

    pub(crate) fn pause(&mut self) -> Result<(), OpenError> {
        let now = now();
        if now >= self.end {
            return Err(OpenError::Io(io::Error::new(
                io::ErrorKind::TimedOut,
                "another process has been in the middle of opening, leaving or removing this segment for 5 s: is it \
                 stopped?",
            )));
        }
        pause(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(5));
        Ok(())
    }
}

/// For who has to try again and cannot say when.
pub(crate) fn pause_a_while() {
    pause(Duration::from_millis(5));
}

fn pause(time: Duration) {
    let nobody = AtomicU32::new(0);
    futex::wait(&nobody, 0, now() + time);
}

fn path(name: &str) -> Result<CString, OpenError> {
    segment::path(name).map_err(OpenError::Io)
}

fn not_a_file(name: &str) -> OpenError {
    OpenError::NotShmq { name: name.to_owned(), reason: NOT_A_FILE.to_owned() }
}

/// What `open` says of something that can be no segment of ours: a link, a directory, a socket.
fn is_foreign(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::ENODEV))
}

fn explain_open(name: &str, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound { name: name.to_owned() },
        _ if is_foreign(&error) => not_a_file(name),
        _ => explain(name, "open the segment", error),
    }
}

/// What the kernel's refusal means for the caller, and what to do about it.
#[expect(clippy::needless_pass_by_value, reason = "so that it can stand in map_err")]
fn explain(name: &str, doing: &str, error: io::Error) -> OpenError {
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => return OpenError::PermissionDenied { name: name.to_owned() },
        Some(libc::EMFILE) => "; raise the limit on open files (ulimit -n, RLIMIT_NOFILE)",
        Some(libc::ENFILE) => "; the whole system is out of open files (sysctl fs.file-max)",
        Some(libc::ENOMEM) => {
            "; raise the limit on address space (ulimit -v, RLIMIT_AS) or on mappings (sysctl vm.max_map_count)"
        }
        Some(libc::EROFS) => "; /dev/shm is mounted read-only",
        Some(libc::ENOENT | libc::ENOTDIR) => segment::what_is_missing(),
        _ => "",
    };
    OpenError::Io(io::Error::new(error.kind(), format!("cannot {doing} {name:?}: {error}{remedy}")))
}

#[cfg(test)]
#[path = "attachment/tests.rs"]
mod tests;
