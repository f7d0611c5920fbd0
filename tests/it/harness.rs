//! Child processes, names and deadlines.
//!
//! A test makes a [`Stage`]. The stage gives out names and children, fails the whole run if the test
//! takes too long, and checks at the end that the test left nothing in /dev/shm.
//!
//! A child is this test binary again, told by an environment variable to run one *role* instead of the
//! tests. It talks to its parent by lines: [`say`] and [`hear`] in the child, [`Child::next`] and
//! [`Child::tell`] in the parent. The last line of a role that returned is `done`: a child that never ran
//! cannot be taken for one that did.
//!
//! A child cannot outlive its parent. `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends,
//! so all children are made by one thread that never does; and a child that lives too long ends itself.

#![expect(unsafe_code, reason = "signals, fork, limits: what std does not offer")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::env;
use std::ffi::CString;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a child does. It gets the arguments that the parent gave.
pub(crate) type Role = fn(&[String]);

/// How long one test may take. Far more than any needs: the machine may be busy.
const TEST_LIFE: Duration = Duration::from_mins(2);
/// How long one wait for a child may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a child may live, should everything else fail to end it.
const CHILD_LIFE: Duration = Duration::from_secs(130);

const ROLE: &str = "SHMQ_TEST_ROLE";
const ARGUMENTS: &str = "SHMQ_TEST_ARGUMENTS";
const PARENT: &str = "SHMQ_TEST_PARENT";
const SEED: &str = "SHMQ_TEST_SEED";
/// Between two arguments.
const SEPARATOR: &str = "\u{1f}";
const INSTANTS: &str = "SHMQ_INSTANTS";
const STORM_SECONDS: &str = "SHMQ_STORM_SECONDS";
/// What a line begins with that a role says, among those that the test runner prints.
const MARK: &str = "#> ";
const DONE: &str = "done";

// ---------------------------------------------------------------------------------------------------
// Time

/// Sleeps. Tests that wait for something use [`until`] instead, wherever there is something to look at.
#[expect(clippy::disallowed_methods, reason = "the tests have no futex to wait on")]
pub(crate) fn nap(time: Duration) {
    thread::sleep(time);
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How long each storm is to last, if the long form was asked for: see `storm` and `fire`.
pub(crate) fn long_form() -> Option<Duration> {
    let seconds = env::var(STORM_SECONDS).ok()?;
    Some(Duration::from_secs(seconds.parse().expect("a number of seconds")))
}

/// Whether every instant is to be tried: see `instants_court`.
pub(crate) fn is_thorough() -> bool {
    env::var(INSTANTS).is_ok_and(|which| which == "all")
}

/// A limit on the life of a test or a child: in the long form it is as much longer.
fn with_long_form(life: Duration) -> Duration {
    let every_instant = if is_thorough() { Duration::from_hours(1) } else { Duration::ZERO };
    life + long_form().unwrap_or_default() + every_instant
}

/// Looks again and again until `happened`; panics when that takes too long.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        nap(ms(1));
    }
}

/// What `call` returned, and how long it took.
pub(crate) fn timed<R>(call: impl FnOnce() -> R) -> (R, Duration) {
    let start = Instant::now();
    let returned = call();
    (returned, start.elapsed())
}

/// A call that had `timeout` to wait took that long: not less at all, and not more by an order of
/// magnitude.
#[track_caller]
pub(crate) fn assert_about(took: Duration, timeout: Duration) {
    assert!(took >= timeout, "it ended early: after {took:?} instead of {timeout:?}");
    assert!(took < timeout * 10 + ms(2000), "it took {took:?} instead of {timeout:?}");
}

/// A call that had nothing to wait for did not wait, by order of magnitude.
#[track_caller]
pub(crate) fn assert_prompt(took: Duration) {
    assert!(took < ms(3000), "it took {took:?}");
}

/// Most sleepers are woken: most trials take less than `limit`, which is well below the 75 ms after which a
/// sleeper looks for itself, woken or not. When the machine is busy nobody is quick, so there are several
/// goes.
pub(crate) fn assert_woken(limit: Duration, mut trial: impl FnMut() -> Duration) {
    const TRIALS: usize = 12;
    const GOES: usize = 8;
    let mut counts = Vec::new();
    for _ in 0..GOES {
        let woken = (0..TRIALS).filter(|_| trial() < limit).count();
        if woken > TRIALS / 2 {
            return;
        }
        counts.push(woken);
    }
    panic!("of {TRIALS} sleepers each only {counts:?} were woken within {limit:?}");
}

/// One test's claim on the watchdog.
struct Watched {
    id: u64,
}

static WATCHED: Mutex<BTreeMap<u64, (String, Instant)>> = Mutex::new(BTreeMap::new());
static COUNTER: AtomicU64 = AtomicU64::new(0);

fn count() -> u64 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

impl Watched {
    fn new() -> Self {
        static DOG: OnceLock<()> = OnceLock::new();
        DOG.get_or_init(|| {
            thread::spawn(|| {
                loop {
                    nap(ms(200));
                    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((name, _)) = watched.values().find(|(_, end)| Instant::now() > *end) {
                        give_up(&format!(
                            "test {name} is over its deadline of {:?}",
                            with_long_form(TEST_LIFE)
                        ));
                    }
                }
            });
        });
        let name = thread::current().name().unwrap_or("?").to_owned();
        let id = count();
        let end = Instant::now() + with_long_form(TEST_LIFE);
        WATCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (name, end));
        Self { id }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        WATCHED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Ends the whole run, which hangs, and leaves nothing behind: children die with this process.
fn give_up(why: &str) -> ! {
    // Past the test runner, which would keep it in the buffer of the test that hangs.
    _ = writeln!(io::stderr(), "\n{why}");
    for name in names_beginning_with(&prefix()) {
        _ = fs::remove_file(object(&name));
    }
    exit_now(101)
}

// ---------------------------------------------------------------------------------------------------
// Names

fn prefix() -> String {
    format!("it-{}-", process::id())
}

/// Where the queue of this name lies.
pub(crate) fn object(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmq.{name}"))
}

pub(crate) fn exists(name: &str) -> bool {
    fs::symlink_metadata(object(name)).is_ok()
}

/// The names of ours in /dev/shm that begin like this.
pub(crate) fn names_beginning_with(prefix: &str) -> Vec<String> {
    let whole = format!("shmq.{prefix}");
    let entries = fs::read_dir("/dev/shm").expect("/dev/shm can be read");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&whole)).map(|name| name["shmq.".len()..].to_owned()).collect()
}

fn delete(name: &str) {
    let object = object(name);
    _ = fs::remove_file(&object).or_else(|_| fs::remove_dir_all(&object));
}

/// Where one test happens.
pub(crate) struct Stage {
    names: RefCell<Vec<String>>,
    /// Names that may still be there at the end.
    litter: RefCell<Vec<String>>,
    _watched: Watched,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { names: RefCell::default(), litter: RefCell::default(), _watched: Watched::new() }
    }

    /// A name that nobody else uses. Whatever bears it, or begins with it, at the end of the test has been
    /// left behind: it is removed, and the test fails.
    pub(crate) fn name(&self) -> String {
        let name = format!("{}{}", prefix(), count());
        self.names.borrow_mut().push(format!("{name}."));
        name + "."
    }

    /// A name of which something may be left: the test puts it there itself, or kills who would tidy up.
    pub(crate) fn litter(&self) -> String {
        let name = self.name();
        self.litter.borrow_mut().push(name.clone());
        name
    }

    /// Somebody else's name (an anonymous queue of a child) that is to be gone at the end.
    pub(crate) fn adopt(&self, name: &str) {
        self.names.borrow_mut().push(name.to_owned());
    }

    /// A child process that plays `role`.
    pub(crate) fn child(&self, role: &str, arguments: &[&str]) -> Child {
        self.child_under(&[], role, arguments)
    }

    /// A child process that plays `role`, started by another program (`unshare ...`).
    #[expect(clippy::unused_self, reason = "no child without a deadline")]
    pub(crate) fn child_under(&self, launcher: &[&str], role: &str, arguments: &[&str]) -> Child {
        Child::spawn(launcher, role, arguments)
    }
}

/// Has a process of its own play the role, with a name of its own: one that starts no programs (see `pipes`).
pub(crate) fn play(role: &str) {
    let stage = Stage::new();
    let said = stage.child(role, &[&stage.name()]).finish();
    println!("{said:?}");
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for name in self.names.borrow().iter().flat_map(|name| names_beginning_with(name)) {
            delete(&name);
            if !self.litter.borrow().iter().any(|litter| name.starts_with(litter)) {
                left.push(name);
            }
        }
        if !thread::panicking() {
            assert!(left.is_empty(), "left behind in /dev/shm: {left:?}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Children

/// A child process. It is killed and reaped when this goes, whatever happens.
pub(crate) struct Child {
    process: process::Child,
    input: Option<process::ChildStdin>,
    said: Receiver<String>,
    role: String,
}

/// What to start, and whom to tell.
type Order = (Command, Sender<io::Result<process::Child>>);

/// Where children are made: by a thread that never ends.
fn nursery() -> &'static Mutex<Sender<Order>> {
    static NURSERY: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    NURSERY.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    })
}

impl Child {
    fn spawn(launcher: &[&str], role: &str, arguments: &[&str]) -> Self {
        let binary = env::current_exe().expect("the test binary has a path");
        let mut command = match launcher {
            [] => Command::new(&binary),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&binary);
                command
            }
        };
        command
            .args(["harness::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENTS, arguments.join(SEPARATOR))
            .env(PARENT, process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let (reply, spawned) = mpsc::channel();
        nursery()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, reply))
            .expect("the nursery never ends");
        let spawned = spawned.recv().expect("the nursery answers");
        let mut process = spawned.unwrap_or_else(|error| panic!("no child for {role}: {error}"));
        let input = process.stdin.take();
        let output = process.stdout.take().expect("its output is piped");
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, word)) = line.split_once(MARK)
                    && sender.send(word.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { process, input, said, role: role.to_owned() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("process ids are small")
    }

    /// The next thing that it says.
    #[track_caller]
    pub(crate) fn next(&mut self) -> String {
        match self.said.recv_timeout(with_long_form(PATIENCE)) {
            Ok(word) => word,
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing", self.role),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait();
                panic!("{} ended too early: {status}", self.role)
            }
        }
    }

    /// Waits for it to say exactly this.
    #[track_caller]
    pub(crate) fn heard(&mut self, word: &str) {
        let said = self.next();
        assert_eq!(said, word, "from {}", self.role);
    }

    /// Sends it a line; see [`hear`].
    #[track_caller]
    pub(crate) fn tell(&mut self, word: &str) {
        let input = self.input.as_mut().expect("nobody closes it");
        writeln!(input, "{word}").and_then(|()| input.flush()).expect("it listens");
    }

    /// Waits for the role to return, in a process that exits with 0. What it said before that.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        let status = self.wait();
        let mut said = Vec::new();
        while let Ok(word) = self.said.recv_timeout(PATIENCE) {
            said.push(word);
        }
        assert!(status.success(), "{} failed: {status}; it said {said:?}", self.role);
        assert_eq!(said.pop().as_deref(), Some(DONE), "{} never ran to its end", self.role);
        said
    }

    /// Kills it with SIGKILL, and returns when the kernel has closed all its files. It must be alive.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it can be killed");
        let status = self.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{} ended by itself: {status}", self.role);
    }

    /// Stops it, and returns when all its threads stand still.
    #[track_caller]
    pub(crate) fn stop(&self) {
        stop(self.pid());
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub(crate) fn go_on(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                return status;
            }
            assert!(start.elapsed() < with_long_form(PATIENCE), "{} does not end", self.role);
            nap(ms(1));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Of no effect if it has been reaped.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// The way into a child process. In an ordinary run it does nothing.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let parent = env::var(PARENT).expect("whoever names a role is its parent").parse().expect("a process id");
    die_with(parent);
    live_for(with_long_form(CHILD_LIFE));
    let arguments = env::var(ARGUMENTS).unwrap_or_default();
    let arguments: Vec<_> = arguments.split(SEPARATOR).map(str::to_owned).collect();
    let found = crate::ROLES.iter().copied().flatten().find(|(name, _)| *name == role);
    let Some((_, play)) = found else {
        eprintln!("there is no role {role}");
        exit_now(97)
    };
    play(&arguments);
    say(DONE);
}

/// In a child: tells the parent.
pub(crate) fn say(word: &str) {
    let mut output = io::stdout().lock();
    // On a line of its own, whatever the test runner has written.
    writeln!(output, "\n{MARK}{word}").and_then(|()| output.flush()).expect("the parent listens");
}

/// In a child: waits for the parent to tell something.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(1..) => line.trim_end().to_owned(),
        _ => panic!("the parent has nothing to say any more"),
    }
}

/// In a child: ends the process as a crash does, without any drop, after all has been said.
pub(crate) fn crash() -> ! {
    say(DONE);
    exit_now(0)
}

fn live_for(life: Duration) {
    thread::spawn(move || {
        nap(life);
        exit_now(98);
    });
}

/// Has this process killed when its parent ends. The parent may have ended before.
fn die_with(parent: i32) {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: no arguments, never fails.
    if unsafe { libc::getppid() } != parent {
        exit_now(99);
    }
}

/// Ends this process at once: no drops, no exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return; what other threads are doing does not matter any more.
    unsafe { libc::_exit(code) }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: no memory is passed. The process is our child and has not been reaped.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0, "cannot signal {pid}: {}", io::Error::last_os_error());
}

#[track_caller]
fn stop(pid: i32) {
    signal(pid, libc::SIGSTOP);
    until("the child has stopped", || {
        // SAFETY: all zeroes is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = libc::id_t::try_from(pid).expect("process ids are positive");
        let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        // SAFETY: `info` is ours to write to.
        unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) };
        match info.si_code {
            libc::CLD_STOPPED => true,
            0 => false,
            other => panic!("it ended instead of stopping: {other}"),
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// Forked children

/// A child made by `fork` alone. It is killed and reaped when this goes.
///
/// Only roles make them: the test process has threads of other tests, whose pipes a forked child would
/// keep open.
pub(crate) struct Forked {
    pid: i32,
    reaped: Cell<bool>,
}

/// Forks. The child runs `work`, which must do little, and exits with what it returns: no drops, no
/// exit handlers. A panic is 101.
pub(crate) fn fork(work: impl FnOnce() -> i32) -> Forked {
    fork_here().unwrap_or_else(|| exit_with(work))
}

/// Forks and returns twice: `None` in the child, which has to end by [`exit_now`].
pub(crate) fn fork_here() -> Option<Forked> {
    let parent = i32::try_from(process::id()).expect("process ids are small");
    match raw_fork() {
        0 => {
            die_with(parent);
            None
        }
        pid => Some(Forked { pid, reaped: Cell::new(false) }),
    }
}

/// Forks a child that may outlive this process, and has to see for itself that it does not live for ever.
/// Its process id.
pub(crate) fn fork_orphan(work: impl FnOnce() -> i32) -> i32 {
    match raw_fork() {
        0 => exit_with(work),
        pid => pid,
    }
}

fn raw_fork() -> i32 {
    // SAFETY: the child does what users' children do: it calls this library, and std where glibc makes
    // that good after fork, and it ends by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "cannot fork: {}", io::Error::last_os_error());
    pid
}

fn exit_with(work: impl FnOnce() -> i32) -> ! {
    exit_now(panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(101))
}

/// Makes this process the new parent of its descendants' orphans.
pub(crate) fn adopt_orphans() {
    // SAFETY: no memory is passed.
    let adopted = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    assert_eq!(adopted, 0, "cannot adopt orphans: {}", io::Error::last_os_error());
}

/// An orphan that this process has adopted.
pub(crate) fn adopted(pid: i32) -> Forked {
    Forked { pid, reaped: Cell::new(false) }
}

impl Forked {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it sleeps on a futex: in this library, since it does nothing else for long.
    pub(crate) fn falls_asleep(&self) {
        let system_call = format!("/proc/{}/syscall", self.pid);
        let sleeps = [libc::SYS_futex, libc::SYS_futex_waitv].map(|number| number.to_string());
        if fs::read_to_string(&system_call).is_err() {
            // Not to be told here.
            return nap(ms(50));
        }
        let mut looks = 0;
        until("the forked child sleeps", || {
            let now = fs::read_to_string(&system_call).unwrap_or_default();
            // More than one look: before it sleeps for long it may sleep for a moment.
            let asleep =
                now.split(' ').next().is_some_and(|number| sleeps.iter().any(|sleep| sleep == number));
            looks = if asleep { looks + 1 } else { 0 };
            looks == 3
        });
    }

    /// Waits for it to end; its exit code, or 128 and the signal.
    #[track_caller]
    pub(crate) fn wait(&self) -> i32 {
        let start = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            if let Some(code) = self.reap(libc::WNOHANG) {
                return code;
            }
            assert!(start.elapsed() < PATIENCE, "the forked child does not end");
            nap(pause);
            pause = (pause * 2).min(ms(2));
        }
    }

    /// Its exit code (see [`wait`](Self::wait)), if it has ended.
    pub(crate) fn has_ended(&self) -> Option<i32> {
        self.reap(libc::WNOHANG)
    }

    /// Kills it with SIGKILL, and returns when the kernel has closed all its files. It must be alive.
    #[track_caller]
    pub(crate) fn kill(&self) {
        signal(self.pid, libc::SIGKILL);
        let code = self.reap(0);
        assert_eq!(code, Some(128 + libc::SIGKILL), "the forked child ended by itself");
    }

    /// Stops it, and returns when all its threads stand still.
    #[track_caller]
    pub(crate) fn stop(&self) {
        stop(self.pid);
    }

    pub(crate) fn go_on(&self) {
        signal(self.pid, libc::SIGCONT);
    }

    fn reap(&self, options: i32) -> Option<i32> {
        let mut status = 0;
        // SAFETY: `status` is ours to write to.
        let reaped = unsafe { libc::waitpid(self.pid, &raw mut status, options) };
        assert!(reaped >= 0, "cannot wait: {}", io::Error::last_os_error());
        (reaped == self.pid).then(|| {
            self.reaped.set(true);
            let status = ExitStatus::from_raw(status);
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
        })
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.reaped.get() {
            // SAFETY: no memory is passed. The process is our child and has not been reaped.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            let mut status = 0;
            // SAFETY: `status` is ours to write to.
            unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        }
    }
}

/// Numbers that a forked child writes down one by one: they are there however it ends.
pub(crate) struct Record(fs::File);

impl Record {
    pub(crate) fn new() -> Self {
        // In memory: where the disk is busy, a file of its own takes seconds.
        // SAFETY: the name ends in a NUL.
        let memory = unsafe { libc::memfd_create(c"record".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(memory >= 0, "no memory for a record: {}", io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        Self(unsafe { fs::File::from_raw_fd(memory) })
    }

    pub(crate) fn set(&self, place: u64, number: u64) {
        self.0.write_all_at(&number.to_ne_bytes(), place * 8).expect("the record can be written");
    }

    /// Those set from place 0 on, up to the first that is 0.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        (0..).map(|place| self.get(place)).take_while(|number| *number != 0)
    }

    /// 0 if nobody has set it.
    pub(crate) fn get(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        match self.0.read_exact_at(&mut bytes, place * 8) {
            Ok(()) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// What else std does not offer

/// Sets a limit of this process, for good.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `limit` is a valid `rlimit` of ours.
    let set = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(set, 0, "cannot limit: {}", io::Error::last_os_error());
}

/// Sets a limit of this process that can be lifted again.
pub(crate) fn limit_for_now(resource: libc::__rlimit_resource_t, value: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to write to.
    let got = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(got, 0, "no limit to be had: {}", io::Error::last_os_error());
    limit.rlim_cur = value.unwrap_or(limit.rlim_max);
    // SAFETY: `limit` is a valid `rlimit` of ours.
    let set = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(set, 0, "cannot limit: {}", io::Error::last_os_error());
}

/// Locks bytes of a file against all others, for as long as it is open; without a length to its end,
/// wherever that will be.
pub(crate) fn lock(file: &fs::File, start: u32, len: Option<u32>) {
    set_lock(file, libc::F_WRLCK, start, len);
}

/// Gives bytes of a file back that were locked.
pub(crate) fn unlock(file: &fs::File, start: u32, len: Option<u32>) {
    set_lock(file, libc::F_UNLCK, start, len);
}

fn set_lock(file: &fs::File, kind: i32, start: u32, len: Option<u32>) {
    // SAFETY: all zeroes is a valid `flock`; length 0 is one without an end.
    let mut bytes: libc::flock = unsafe { std::mem::zeroed() };
    bytes.l_type = libc::c_short::try_from(kind).expect("a small number");
    bytes.l_start = start.into();
    bytes.l_len = len.unwrap_or(0).into();
    // SAFETY: `bytes` is a valid `flock` of ours.
    let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut bytes) };
    assert_eq!(locked, 0, "cannot lock: {}", io::Error::last_os_error());
}

/// Whether somebody else has locked bytes of a file; see [`lock`].
pub(crate) fn is_locked(file: &fs::File, start: u32, len: u32) -> bool {
    // SAFETY: all zeroes is a valid `flock`.
    let mut bytes: libc::flock = unsafe { std::mem::zeroed() };
    bytes.l_type = libc::c_short::try_from(libc::F_WRLCK).expect("a small number");
    bytes.l_start = start.into();
    bytes.l_len = len.into();
    // SAFETY: `bytes` is a valid `flock` of ours.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut bytes) };
    assert_eq!(asked, 0, "cannot ask: {}", io::Error::last_os_error());
    i32::from(bytes.l_type) != libc::F_UNLCK
}

/// Closes standard input, output and error, as some programs start others.
pub(crate) fn close_standard() {
    for descriptor in 0..3 {
        // SAFETY: whoever uses one of these in this process, which ends soon, gets an error.
        unsafe { libc::close(descriptor) };
    }
}

/// Has every fork of this process take this long, as it does in a process with very much memory.
pub(crate) fn slow_forks() {
    extern "C" fn prepare() {
        nap(SLOW);
    }

    const SLOW: Duration = Duration::from_millis(250);
    // SAFETY: the handler is a function of ours; in the thread that forks it may do anything.
    let registered = unsafe { libc::pthread_atfork(Some(prepare), None, None) };
    assert_eq!(registered, 0);
}

/// Sets this process's umask.
pub(crate) fn umask(mask: u32) {
    // SAFETY: no memory is passed, and it never fails.
    unsafe { libc::umask(mask) };
}

/// Makes a FIFO.
pub(crate) fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in it");
    // SAFETY: the path ends in a NUL.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "no FIFO: {}", io::Error::last_os_error());
}

pub(crate) fn is_root() -> bool {
    // SAFETY: no arguments, never fails.
    unsafe { libc::geteuid() == 0 }
}

/// Makes this process one of another user, for good. Only root can.
pub(crate) fn become_user(id: u32) {
    // SAFETY: no memory is passed; all threads change.
    let set = unsafe { libc::setgid(id) };
    assert_eq!(set, 0, "cannot become group {id}: {}", io::Error::last_os_error());
    // SAFETY: as above.
    let set = unsafe { libc::setuid(id) };
    assert_eq!(set, 0, "cannot become user {id}: {}", io::Error::last_os_error());
    // The kernel forgets this when the user changes.
    let parent = env::var(PARENT).expect("only roles do this").parse().expect("a process id");
    die_with(parent);
}

// ---------------------------------------------------------------------------------------------------
// Chance

/// Random numbers whose seed is printed, and can be given again in `SHMQ_TEST_SEED`.
pub(crate) struct Random(u64);

impl Random {
    /// A new seed, or the one from the environment.
    pub(crate) fn new() -> Self {
        let given = env::var(SEED).ok().map(|seed| seed.parse().expect("the seed is a number"));
        let seed: u64 = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("seed: {SEED}={seed}");
        Self::from_seed(seed)
    }

    /// Different numbers for each seed, the next one too.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number (`SplitMix64`).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An index below `end`.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("64-bit")
    }
}
