//! The other process, and a guard that nobody waits for it in vain.

use std::io;
use std::process::{Child, exit};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No measurement takes as long.
const LONGEST: Duration = Duration::from_mins(2);
/// How soon it is noticed that the other process is gone.
const LOOK: Duration = Duration::from_millis(200);

/// Owns the other process. While a measurement runs, a thread looks now and then whether that process
/// lives and the time has not run out, and else ends this one: its main thread may be asleep in a queue
/// that will never wake it. Dropped, it kills and reaps the other process.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    child: Child,
    /// The end of the measurement that runs now.
    until: Option<Instant>,
    over: bool,
}

impl Watch {
    pub(crate) fn new(child: Child) -> io::Result<Self> {
        let state = Mutex::new(State { child, until: None, over: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let mut watch = Self { shared: Arc::clone(&shared), thread: None };
        watch.thread = Some(thread::Builder::new().name("watch".to_owned()).spawn(move || shared.watch())?);
        Ok(watch)
    }

    /// Does `work`, which must not take long and needs the other process.
    pub(crate) fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        self.shared.set(Some(Instant::now() + LONGEST));
        let done = work();
        self.shared.set(None);
        done
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It cannot panic; and there would be nothing to do about it.
            _ = thread.join();
        }
        self.shared.lock().end_child();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        self.lock().until = until;
        self.changed.notify_all();
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.over {
            let Some(until) = state.until else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            match state.child.try_wait() {
                Ok(None) if Instant::now() < until => {}
                Ok(None) => state.give_up(&format!("a measurement took longer than {LONGEST:?}")),
                Ok(Some(status)) => state.give_up(&format!("the other process ended too early: {status}")),
                Err(error) => state.give_up(&format!("the other process cannot be watched: {error}")),
            }
            let (waited, _) = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = waited;
        }
    }
}

impl State {
    /// It is dead and reaped after this.
    fn end_child(&mut self) {
        // Both fail only for one who has ended and been reaped.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    fn give_up(&mut self, reason: &str) -> ! {
        self.end_child();
        eprintln!("shmq-benches: {reason}");
        exit(2);
    }
}
