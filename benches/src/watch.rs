//! The other processes, and a guard that nobody waits for them in vain.

use std::io;
use std::process::{Child, exit};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No measurement takes as long.
const LONGEST: Duration = Duration::from_mins(2);
/// How soon it is noticed that another process is gone.
const LOOK: Duration = Duration::from_millis(200);

/// Owns the other processes. While a measurement runs, a thread looks now and then whether they all
/// live and the time has not run out, and else ends this one: its main thread may be asleep in a queue
/// that will never wake it. Dropped, it kills and reaps the other processes.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    children: Vec<Child>,
    /// The end of the measurement that runs now.
    until: Option<Instant>,
    over: bool,
}

impl Watch {
    /// The process ids.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.shared.lock().children.iter().map(Child::id).collect()
    }

    pub(crate) fn new(children: Vec<Child>) -> io::Result<Self> {
        let state = Mutex::new(State { children, until: None, over: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let mut watch = Self { shared: Arc::clone(&shared), thread: None };
        watch.thread = Some(thread::Builder::new().name("watch".to_owned()).spawn(move || shared.watch())?);
        Ok(watch)
    }

    /// Waits a moment for those who are about to end by themselves.
    pub(crate) fn await_end(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        let lives = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        while self.shared.lock().children.iter_mut().any(lives) && Instant::now() < until {
            thread::yield_now();
        }
    }

    /// Does `work`, which must not take long and needs the other processes.
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
        self.shared.lock().end_children();
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
            if Instant::now() >= until {
                state.give_up(&format!("a measurement took longer than {LONGEST:?}"));
            }
            match state.children.iter_mut().find_map(|child| child.try_wait().transpose()) {
                None => {}
                Some(Ok(status)) => state.give_up(&format!("another process ended too early: {status}")),
                Some(Err(error)) => state.give_up(&format!("another process cannot be watched: {error}")),
            }
            let (waited, _) = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = waited;
        }
    }
}

impl State {
    /// They are dead and reaped after this.
    fn end_children(&mut self) {
        for child in &mut self.children {
            // Both fail only for one who has ended and been reaped.
            _ = child.kill();
            _ = child.wait();
        }
    }

    fn give_up(&mut self, reason: &str) -> ! {
        self.end_children();
        eprintln!("shmq-benches: {reason}");
        exit(2);
    }
}
