//! Files in /dev/shm and their mappings.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use super::fork::{Descriptor, identify, open_above_standard};
use super::{check, check_code};

/// Where the segments live.
const DIRECTORY: &str = "/dev/shm";
/// What their names begin with there.
const PREFIX: &str = "shmq.";
/// Allocation is done in steps, because some kernels give up a step when a signal comes, and take back what
/// they had allocated in it.
const LONGEST_STEP: u64 = 4 << 20;
/// So short that signals would have to come every few microseconds to keep it from being done.
const SHORTEST_STEP: u64 = 4096;

/// The path of an object: `name` is a queue's, or a queue's with a `+` and more.
pub(crate) fn path(name: &str) -> io::Result<CString> {
    Ok(CString::new(format!("{DIRECTORY}/{PREFIX}{name}"))?)
}

/// The names of all our objects.
pub(crate) fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(DIRECTORY)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether this process runs as the user that owns the object.
pub(crate) fn is_own(path: &CStr) -> bool {
    // SAFETY: no arguments, never fails.
    let user = unsafe { libc::geteuid() };
    fs::symlink_metadata(as_path(path)).is_ok_and(|object| object.is_file() && object.uid() == user)
}

/// Whether there is an object, of any kind.
pub(crate) fn exists(path: &CStr) -> bool {
    fs::symlink_metadata(as_path(path)).is_ok()
}

/// Opens an object without following a link.
pub(crate) fn open(path: &CStr) -> io::Result<Descriptor> {
    Descriptor::open(path, libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NOCTTY)
}

/// Opens an object for reading, without following a link.
pub(crate) fn open_to_look(path: &CStr) -> io::Result<File> {
    Ok(open_above_standard(path, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NOCTTY)?.into())
}

/// Opens a new object that has no name.
pub(crate) fn open_unnamed() -> io::Result<Descriptor> {
    Descriptor::open(&CString::new(DIRECTORY)?, libc::O_RDWR | libc::O_TMPFILE)
}

/// Makes a new object of this name, where nameless ones are refused.
pub(crate) fn open_new(path: &CStr) -> io::Result<Descriptor> {
    Descriptor::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW)
}

/// Another description of the file that `fd` refers to, for a lease.
pub(crate) fn reopen_leased(fd: RawFd) -> io::Result<Descriptor> {
    Descriptor::open(&CString::new(format!("/proc/self/fd/{fd}"))?, libc::O_RDWR)
}

/// Another description of the file that `fd` refers to.
pub(crate) fn reopen(fd: RawFd) -> io::Result<OwnedFd> {
    open_above_standard(&CString::new(format!("/proc/self/fd/{fd}"))?, libc::O_RDWR)
}

/// Another description of the file that `fd` refers to, by the name that it should still have. `None`
/// if the name is gone or somebody else's.
pub(crate) fn reopen_by_name(path: &CStr, fd: RawFd) -> io::Result<Option<OwnedFd>> {
    match open_above_standard(path, libc::O_RDWR | libc::O_NOFOLLOW) {
        Ok(new) => Ok(is_same_file(&identify(new.as_raw_fd())?, &identify(fd)?).then_some(new)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same_file(one: &libc::stat, other: &libc::stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Whether `path` still names the file that `fd` refers to.
pub(crate) fn is_named(path: &CStr, fd: RawFd) -> io::Result<bool> {
    let file = identify(fd)?;
    match fs::symlink_metadata(as_path(path)) {
        Ok(named) => Ok((named.dev(), named.ino()) == (file.st_dev, file.st_ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The length of a regular file; `None` for anything else.
pub(crate) fn file_len(fd: RawFd) -> io::Result<Option<u64>> {
    let stat = identify(fd)?;
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    Ok(regular.then(|| u64::try_from(stat.st_size).unwrap_or(0)))
}

/// As much of the beginning of the file as there is, up to the length of `buffer`.
pub(crate) fn read_start(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is ours, writable, and as long as we say.
    let got = unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes the beginning of the file.
pub(crate) fn write_start(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the bytes are readable for the length that we say.
    let written = unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(written) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Makes the file `len` bytes long, all of them allocated: touching them later cannot fail.
pub(crate) fn allocate(fd: RawFd, len: u64) -> io::Result<()> {
    // Past this limit the kernel would kill us with a signal instead of telling us.
    let limit = file_size_limit()?;
    if len > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "the segment needs {len} bytes, the limit on file size is {limit}; raise it (ulimit -f, RLIMIT_FSIZE)"
            ),
        ));
    }
    allocate_range(fd, 0, len)
}

/// Makes the file `len` bytes long without giving them memory.
pub(crate) fn set_len(fd: RawFd, len: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::ftruncate(fd, len.cast_signed()) }).map(drop)
}

/// Takes the memory of a range of the file away; it reads as zeroes then. What cannot be freed stays.
pub(crate) fn free_range(fd: RawFd, start: u64, len: u64) {
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is passed.
    unsafe { libc::fallocate(fd, how, start.cast_signed(), len.cast_signed()) };
}

/// Gives memory to a range of the file: touching it later cannot fail.
pub(crate) fn allocate_range(fd: RawFd, start: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    let mut next = LONGEST_STEP;
    while done < len {
        let step = next.min(len - done);
        // SAFETY: no memory is passed.
        match check_code(unsafe {
            libc::posix_fallocate(fd, (start + done).cast_signed(), step.cast_signed())
        }) {
            Ok(()) => {
                done += step;
                next = (step * 2).min(LONGEST_STEP);
            }
            // The next signal would find the same step undone.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => next = (step / 2).max(SHORTEST_STEP),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The longest file that this process may make.
pub(crate) fn file_size_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) })?;
    Ok(limit.rlim_cur)
}

/// What there has to be for segments to be made, and is not; for the end of an error's text.
pub(crate) fn what_is_missing() -> &'static str {
    if !Path::new(DIRECTORY).is_dir() {
        "; there is no directory /dev/shm: mount a tmpfs there"
    } else if !Path::new("/proc/self/fd").is_dir() {
        "; /proc is not mounted"
    } else {
        ""
    }
}

/// Bytes that are free in the file system of our objects.
pub(crate) fn free_space() -> u64 {
    let space = file_system();
    space.f_bavail.saturating_mul(space.f_frsize)
}

/// Bytes that the file system of our objects holds at most; as many as one can think of if it sets no limit.
pub(crate) fn whole_space() -> u64 {
    let space = file_system();
    if space.f_blocks == 0 { u64::MAX } else { space.f_blocks.saturating_mul(space.f_frsize) }
}

fn file_system() -> libc::statvfs {
    // SAFETY: all zeroes is a valid `statvfs`.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    if let Ok(directory) = CString::new(DIRECTORY) {
        // SAFETY: the path ends in a NUL, `space` is ours to write to; on an error it stays zero.
        unsafe { libc::statvfs(directory.as_ptr(), &raw mut space) };
    }
    space
}

/// Sets the mode to exactly this, whatever the umask.
pub(crate) fn set_mode(fd: RawFd, mode: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchmod(fd, mode) }).map(drop)
}

/// Gives the nameless file a name that nobody has: `AlreadyExists` if somebody does.
pub(crate) fn link(fd: RawFd, path: &CStr) -> io::Result<()> {
    let file = CString::new(format!("/proc/self/fd/{fd}"))?;
    // SAFETY: both paths end in a NUL.
    check(unsafe {
        libc::linkat(libc::AT_FDCWD, file.as_ptr(), libc::AT_FDCWD, path.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    })
    .map(drop)
}

/// Renames `from` to a name that nobody has: `AlreadyExists` if somebody does.
pub(crate) fn rename_new(from: &CStr, to: &CStr) -> io::Result<()> {
    // SAFETY: both paths end in a NUL.
    check(unsafe {
        libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_NOREPLACE)
    })
    .map(drop)
}

pub(crate) fn unlink(path: &CStr) -> io::Result<()> {
    fs::remove_file(as_path(path))
}

fn as_path(path: &CStr) -> PathBuf {
    Path::new(OsStr::from_bytes(path.to_bytes())).to_owned()
}

/// A file mapped whole, shared, readable and writable.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives out an address and a length only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, which the file must have. The description is closed again: it is another than
    /// the lease's, because a mapping would keep the lease's locks alive.
    pub(crate) fn new(file: &OwnedFd, len: usize) -> io::Result<Self> {
        Self::with(file.as_raw_fd(), len, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps `len` bytes, which the file must have, not to be written.
    pub(crate) fn read_only(file: &File, len: usize) -> io::Result<Self> {
        Self::with(file.as_raw_fd(), len, libc::PROT_READ)
    }

    fn with(fd: RawFd, len: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Gives memory to a range of the file and maps it, all at once instead of page by page when it is touched. False if
    /// some of it has none: then nothing says why.
    pub(crate) fn populate(&self, start: usize, len: usize) -> bool {
        if start >= self.len || len > self.len - start {
            return false;
        }
        // SAFETY: in the mapping, as just checked.
        let range = unsafe { self.base.add(start) };
        // SAFETY: mapped by `new`; it changes no bytes. Where a touch would end in a signal, it returns an error.
        unsafe { libc::madvise(range.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) == 0 }
    }

    /// The first byte, aligned to a page.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; whoever borrowed from it is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
