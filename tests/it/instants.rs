//! A process that is walked through one call, one instruction at a time, and killed or stopped on the way.
//!
//! The *victim* is a forked child that asks to be traced. It marks the beginning and the end of the call by a
//! breakpoint instruction each, so that the walk covers the call and nothing else. Its tracer has it execute
//! one instruction after the other and looks at the bytes that it shares with others after each.
//!
//! A [`Moment`] is a place to stop at: after so many instructions, or after so many *changes*. A change is
//! an instruction that altered the shared bytes, or a system call, or falling asleep in one. Between two
//! changes nothing happens that another process could see. Changes are counted while walking and not taken
//! from a record, because two walks need not take the same number of instructions: names are random, and a
//! loop may end by the clock.
//!
//! What is tried at each moment, and who watches, is in `instants_court`.

#![expect(unsafe_code, reason = "ptrace and the mark: what std does not offer")]

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::c_void;
use std::fmt;
use std::fs;
use std::io;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Forked, assert_prompt, exit_now, fork, nap, timed, until};

/// What the victim exits with when it may not be traced.
pub(crate) const REFUSED: i32 = 96;
/// The breakpoint instruction, which is the mark.
const MARK: u8 = 0xcc;
const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];
/// Where the registers lie in what `PTRACE_PEEKUSER` reads.
const RAX: usize = std::mem::offset_of!(libc::user_regs_struct, rax);
const RSI: usize = std::mem::offset_of!(libc::user_regs_struct, rsi);
const RIP: usize = std::mem::offset_of!(libc::user_regs_struct, rip);
/// In the processor's register 7: stop before the instruction whose address is in register 0.
const EXECUTION_OF_FIRST: usize = 1;
/// How long one that is in `futex` is given before it counts as asleep there.
const DROWSY: Duration = Duration::from_millis(1);
/// How long one instruction may take. System calls sleep for 75 ms at most.
const LONGEST_STEP: Duration = Duration::from_secs(20);

/// Where the call is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After so many instructions.
    Instruction(u64),
    /// After so many changes.
    Change(u64),
    /// After the call.
    End,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instruction(count) => write!(f, "after {count} instructions"),
            Self::Change(count) => write!(f, "after change {count}"),
            Self::End => write!(f, "after the call"),
        }
    }
}

/// How far a victim came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    pub(crate) instructions: u64,
    pub(crate) changes: u64,
    /// The call is over.
    pub(crate) ended: bool,
}

impl Walk {
    fn is_at(&self, moment: Moment) -> bool {
        match moment {
            Moment::Instruction(count) => self.instructions >= count,
            Moment::Change(count) => self.changes >= count,
            Moment::End => false,
        }
    }
}

/// One instruction of a walk.
#[derive(Clone, Copy)]
struct Step {
    address: u64,
    /// It is a change.
    changed: bool,
    /// Not an instruction, but the way out of the system call that the one before fell asleep in.
    inside: bool,
    /// The walk had not been at this address before.
    first: bool,
}

/// A walk through the whole call, which others take short cuts along: they run to an address by a breakpoint
/// instead of walking all the way.
#[derive(Default)]
pub(crate) struct Route {
    steps: Vec<Step>,
    seen: HashSet<u64>,
}

/// How much of the end of a call is walked, for the moment after it.
const LAST_STEPS: usize = 2000;

impl Route {
    fn add(&mut self, address: u64, changed: bool, inside: bool) {
        let first = self.seen.insert(address) && !inside;
        self.steps.push(Step { address, changed, inside, first });
    }

    pub(crate) fn walk(&self) -> Walk {
        self.walked(self.steps.len())
    }

    fn walked(&self, count: usize) -> Walk {
        let changes = self.steps[..count].iter().filter(|step| step.changed).count() as u64;
        Walk { instructions: count as u64, changes, ended: count == self.steps.len() }
    }

    /// How many steps of the route lead to the moment, or to just before it, where the next step is one
    /// that can be run to.
    fn run_to(&self, moment: Moment) -> usize {
        let mut count = match moment {
            Moment::Instruction(count) => usize::try_from(count).expect("64-bit"),
            Moment::Change(nth) => {
                let mut changed = (0..).zip(&self.steps).filter(|(_, step)| step.changed);
                let nth = usize::try_from(nth.saturating_sub(1)).expect("64-bit");
                changed.nth(nth).map_or(self.steps.len(), |(at, _)| at)
            }
            // Others are to be let in between the last changes, as they are on the way to any of these.
            Moment::End => {
                let first = self.steps.iter().position(|step| step.changed).unwrap_or(0);
                first.max(self.steps.len().saturating_sub(LAST_STEPS))
            }
        };
        count = count.min(self.steps.len());
        while count > 0 && self.steps.get(count).is_none_or(|step| step.inside) {
            count -= 1;
        }
        count
    }
}

// ---------------------------------------------------------------------------------------------------
// The victim

/// A traced process in the middle of one call.
pub(crate) struct Victim {
    forked: Forked,
    /// In a system call, and not standing still.
    asleep: bool,
    stopped: Cell<Stopped>,
}

/// Where a victim ran to.
#[derive(PartialEq, Eq)]
enum Run {
    There,
    /// It came to the end of the call before.
    PastTheEnd,
    /// The processor has no breakpoints for us.
    Nowhere,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    ByTracer,
    BySignal,
}

impl Victim {
    /// A forked child that prepares, is walked through `call` and, if it comes so far, exits with what `then`
    /// makes of the result.
    pub(crate) fn start<P, R>(
        prepare: impl FnOnce() -> P,
        call: impl FnOnce(P) -> R,
        then: impl FnOnce(R) -> i32,
    ) -> Self {
        let forked = fork(|| {
            let prepared = prepare();
            if !ask_to_be_traced() {
                return REFUSED;
            }
            mark();
            let returned = call(prepared);
            mark();
            then(returned)
        });
        let victim = Self { forked, asleep: false, stopped: Cell::new(Stopped::ByTracer) };
        victim.wait_for_trap();
        // It must not outlive its tracer.
        let kill = usize::try_from(libc::PTRACE_O_EXITKILL).expect("a small number");
        ptrace(libc::PTRACE_SETOPTIONS, victim.pid(), 0, kill).expect("the victim is ours");
        victim
    }

    fn pid(&self) -> i32 {
        self.forked.pid()
    }

    /// Walks through the whole call and writes down the route. `look` reads the shared bytes. If the call can
    /// sleep, `wake` is called when it does, and sees to it that it goes on.
    pub(crate) fn explore(&mut self, look: impl Fn(&mut Vec<u8>), wake: Option<&dyn Fn()>) -> Route {
        let mut route = Route::default();
        self.walk(Walk::default(), Moment::End, look, wake, |address, changed, inside| {
            route.add(address, changed, inside);
        });
        route
    }

    /// Goes on to `moment`, or to the end of the call; see `explore`.
    pub(crate) fn go(
        &mut self,
        route: &Route,
        moment: Moment,
        look: impl Fn(&mut Vec<u8>),
        wake: Option<&dyn Fn()>,
    ) -> Walk {
        let start = self.take_short_cut(route, route.run_to(moment), wake);
        self.walk(start, moment, look, wake, |_, _, _| {})
    }

    fn walk(
        &mut self,
        start: Walk,
        moment: Moment,
        look: impl Fn(&mut Vec<u8>),
        wake: Option<&dyn Fn()>,
        mut record: impl FnMut(u64, bool, bool),
    ) -> Walk {
        let mut walk = start;
        let (mut before, mut now) = (Vec::new(), Vec::new());
        look(&mut before);
        while !walk.ended && !walk.is_at(moment) {
            let address = self.address();
            let next = self.instruction_at(address);
            if next[0] == MARK {
                walk.ended = true;
                return walk;
            }
            let is_call = next[..2] == SYSTEM_CALL;
            let may_sleep = is_call && wake.is_some() && self.is_about_to_sleep();
            self.resume(libc::PTRACE_SINGLESTEP);
            let mut inside = false;
            if may_sleep && self.falls_asleep() {
                walk.instructions += 1;
                walk.changes += 1;
                record(address, true, false);
                if walk.is_at(moment) {
                    self.asleep = true;
                    return walk;
                }
                wake.expect("it may sleep")();
                self.wait_for_trap();
                inside = true;
            } else if !may_sleep {
                self.wait_for_trap();
            }
            look(&mut now);
            let changed = is_call || now != before;
            record(address, changed, inside);
            walk.instructions += 1;
            walk.changes += u64::from(changed);
            std::mem::swap(&mut now, &mut before);
        }
        walk
    }

    /// Runs along the route until `count` steps of it are done, or the few before that are left to walk. Where
    /// the processor has no breakpoints for us, all are.
    fn take_short_cut(&self, route: &Route, count: usize, wake: Option<&dyn Fn()>) -> Walk {
        const FEW: usize = 100;
        let Some(known) = (0..=count).rev().find(|at| route.steps.get(*at).is_some_and(|step| step.first))
        else {
            return Walk::default();
        };
        if known == 0 {
            return Walk::default();
        }
        match self.run_to(route.steps[known].address, 1, wake) {
            Run::There => {}
            Run::PastTheEnd => return Walk { ended: true, ..Walk::default() },
            Run::Nowhere => return Walk::default(),
        }
        if count - known <= FEW {
            return route.walked(known);
        }
        let address = route.steps[count].address;
        let times = route.steps[known + 1..=count].iter().filter(|step| step.address == address).count();
        let ended = self.run_to(address, times, wake) == Run::PastTheEnd;
        Walk { ended, ..route.walked(count) }
    }

    /// Runs until it has come to this address so many times.
    fn run_to(&self, address: u64, times: usize, wake: Option<&dyn Fn()>) -> Run {
        let address_word = usize::try_from(address).expect("64-bit");
        let set = |register: usize, value: usize| {
            let offset = std::mem::offset_of!(libc::user, u_debugreg) + register * size_of::<u64>();
            ptrace(libc::PTRACE_POKEUSER, self.pid(), offset, value)
        };
        if set(0, address_word).is_err() || set(7, EXECUTION_OF_FIRST).is_err() {
            return Run::Nowhere;
        }
        let there = (0..times).all(|_| {
            self.resume(libc::PTRACE_CONT);
            while self.falls_asleep_for(wake) {}
            self.address() == address
        });
        set(7, 0).expect("it could be set before");
        if there { Run::There } else { Run::PastTheEnd }
    }

    /// Waits for a trap while it runs. True if it fell asleep instead and has been woken.
    fn falls_asleep_for(&self, wake: Option<&dyn Fn()>) -> bool {
        let Some(wake) = wake else {
            self.wait_for_trap();
            return false;
        };
        let asleep = self.falls_asleep();
        if asleep {
            wake();
        }
        asleep
    }

    fn address(&self) -> u64 {
        self.register(RIP).cast_unsigned()
    }

    fn instruction_at(&self, address: u64) -> [u8; 8] {
        let address = usize::try_from(address).expect("64-bit");
        ptrace(libc::PTRACE_PEEKTEXT, self.pid(), address, 0)
            .expect("what it executes can be read")
            .to_ne_bytes()
    }

    fn register(&self, offset: usize) -> i64 {
        ptrace(libc::PTRACE_PEEKUSER, self.pid(), offset, 0).expect("it stands still")
    }

    /// Whether the system call that comes next is one that waits for a futex.
    fn is_about_to_sleep(&self) -> bool {
        let operation = self.register(RSI) & i64::from(libc::FUTEX_CMD_MASK);
        let waits = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].map(i64::from);
        self.register(RAX) == libc::SYS_futex && waits.contains(&operation)
    }

    fn resume(&self, request: libc::c_uint) {
        ptrace(request, self.pid(), 0, 0).expect("it stands still");
    }

    /// Waits for a trap. True if it fell asleep in `futex` instead.
    fn falls_asleep(&self) -> bool {
        let start = Instant::now();
        let mut looks = 0;
        while !self.has_trapped(libc::WNOHANG) {
            if start.elapsed() > DROWSY && is_asleep(self.pid()) {
                looks += 1;
                if looks == 2 {
                    return true;
                }
            }
            assert!(start.elapsed() < LONGEST_STEP, "it neither sleeps nor goes on");
            nap(Duration::from_micros(50));
        }
        false
    }

    fn wait_for_trap(&self) {
        self.has_trapped(0);
    }

    fn has_trapped(&self, options: i32) -> bool {
        let mut status = 0;
        // SAFETY: `status` is ours to write to.
        let changed = unsafe { libc::waitpid(self.pid(), &raw mut status, options) };
        assert!(changed >= 0, "cannot wait: {}", io::Error::last_os_error());
        if changed == 0 {
            return false;
        }
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == REFUSED {
            exit_now(REFUSED);
        }
        assert!(
            libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP,
            "the victim did something else than one instruction: {status:#x}"
        );
        true
    }

    /// Kills it where it is, and returns when the kernel has closed all its files.
    pub(crate) fn kill(&self) {
        self.forked.kill();
    }

    /// Leaves it stopped where it is: it stands still anyway, as the traced do, but `by_signal` it is stopped
    /// like any other process.
    pub(crate) fn stop(&self, by_signal: bool) {
        if self.asleep {
            send_stop(self.pid());
        }
        if by_signal || self.asleep {
            let signal = usize::try_from(libc::SIGSTOP).expect("a small number");
            ptrace(libc::PTRACE_DETACH, self.pid(), 0, signal).expect("it stands still");
            self.forked.stop();
            self.stopped.set(Stopped::BySignal);
        }
    }

    /// Lets it go on, untraced, after `stop`.
    pub(crate) fn go_on(&self) {
        match self.stopped.get() {
            Stopped::BySignal => self.forked.go_on(),
            Stopped::ByTracer => {
                ptrace(libc::PTRACE_DETACH, self.pid(), 0, 0).expect("it stands still");
            }
        }
    }

    /// Lets it go on after `stop`, does something `meanwhile` again and again, and sees to it that it ends well, and soon.
    pub(crate) fn goes_on_to_its_end(&self, mut meanwhile: impl FnMut()) {
        self.go_on();
        let ((), took) = timed(|| {
            until("the victim ends", || {
                meanwhile();
                nap(Duration::from_micros(100));
                self.has_ended().is_some_and(|code| {
                    assert_eq!(code, 0, "it did not go on");
                    true
                })
            });
        });
        assert_prompt(took);
    }

    /// After `go_on`: its exit code, if it has ended.
    pub(crate) fn has_ended(&self) -> Option<i32> {
        self.forked.has_ended()
    }
}

/// Stops a traced process that is not standing still, and waits until it does.
fn send_stop(pid: i32) {
    // SAFETY: no memory is passed. The process is our child and has not been reaped.
    let sent = unsafe { libc::kill(pid, libc::SIGSTOP) };
    assert_eq!(sent, 0, "cannot stop {pid}: {}", io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `status` is ours to write to.
    let changed = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert!(changed == pid && libc::WIFSTOPPED(status), "it did not stop: {status:#x}");
}

/// Whether the process sleeps in the kernel.
pub(crate) fn is_asleep(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Begins and ends the call.
fn mark() {
    // SAFETY: a breakpoint touches nothing. The tracer steps over it; without one the handler does.
    unsafe { std::arch::asm!("int3") };
}

/// In the victim. False if it may not.
fn ask_to_be_traced() -> bool {
    extern "C" fn pass_over(_: i32) {}

    // The end of the call is marked for the tracer, who may not be there any more.
    // SAFETY: a handler that does nothing.
    unsafe { libc::signal(libc::SIGTRAP, pass_over as *const () as libc::sighandler_t) };
    ptrace(libc::PTRACE_TRACEME, 0, 0, 0).is_ok()
}

fn ptrace(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<i64> {
    // A value of -1 that was read is to be told from an error.
    // SAFETY: the address of this thread's own error number.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *errno = 0 };
    let address: *mut c_void = ptr::without_provenance_mut(address);
    let data: *mut c_void = ptr::without_provenance_mut(data);
    // SAFETY: the requests made here write to no memory of this process.
    let returned = unsafe { libc::ptrace(request, pid, address, data) };
    let error = io::Error::last_os_error();
    if returned == -1 && error.raw_os_error() != Some(0) { Err(error) } else { Ok(returned) }
}

/// Has this process and its children run on one core only: a step is a change of process, which is
/// several times faster there.
pub(crate) fn pin(chance: u64) {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    // SAFETY: all zeroes is a valid, empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours to write to, and as long as we say.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) };
    assert_eq!(got, 0, "on which cores: {}", io::Error::last_os_error());
    // SAFETY: the set is valid, and the numbers are below its size.
    let is_allowed = |core: &usize| unsafe { libc::CPU_ISSET(*core, &allowed) };
    let size = usize::try_from(libc::CPU_SETSIZE).expect("a small number");
    let nth = usize::try_from(chance % cores).expect("64-bit");
    let Some(core) = (0..size).filter(is_allowed).nth(nth) else { return };
    // SAFETY: all zeroes is a valid, empty set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, and the number is below its size.
    unsafe { libc::CPU_SET(core, &mut one) };
    // SAFETY: the set is valid, and as long as we say.
    let set = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one) };
    assert_eq!(set, 0, "cannot be pinned: {}", io::Error::last_os_error());
}

/// Whether processes here may trace their children. Says so loudly if not.
pub(crate) fn can_trace() -> bool {
    let forked = fork(|| if ask_to_be_traced() { 0 } else { REFUSED });
    forked.wait() != REFUSED
}
