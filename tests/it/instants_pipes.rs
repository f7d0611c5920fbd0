//! What a process does with an end of a pipe, killed and stopped at every change and at a stride of
//! instructions: the far end gets what was sent, and then the end of file, once nobody has the end any more.
//!
//! A call joins with an entry in [`CALLS`].

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shmq::{Connection, GetError, OpenError, PutError, Queue};

use crate::harness::{Forked, Record, Role, assert_prompt, exists, fork, ms, nap, object, timed, until};
use crate::instants::{Moment, Route, Victim};
use crate::instants_court::{Log, Place, Trial, hold_court, play};

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("instants_pipes::killed", |arguments| try_at_every_instant(Trial::Kill, arguments)),
    ("instants_pipes::stopped", |arguments| try_at_every_instant(Trial::Stop, arguments)),
];

type Far = Connection<u64, u64>;

/// What the victim has.
struct Has {
    name: String,
    here: Connection<u64, u64>,
    there: Option<Far>,
    ends: Queue<Far>,
}

impl Has {
    fn there(&self) -> &Far {
        self.there.as_ref().expect("it has it from the start")
    }
}

/// Who has the far end when the call begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The victim.
    Has,
    /// Nobody: it was never opened.
    Unopened,
    /// It is on its way to the victim, from a process that has nothing else of it.
    OnItsWay,
    /// Nobody any more, and nobody has found that out.
    Gone,
    /// Somebody else, who sends a last message and goes while the victim is stopped.
    Other,
}

/// A call to be killed and stopped in.
struct Call {
    name: &'static str,
    before: Before,
    run: fn(&mut Has),
    /// What it sends.
    sends: &'static [u64],
    /// Somebody sleeps at the near end from the start.
    asleep: bool,
}

const HAS: Call = Call { name: "", before: Before::Has, run: |_| (), sends: &[], asleep: false };

const CALLS: &[Call] = &[
    Call { name: "send", run: |has| has.there().send(&10).expect("there is room"), sends: &[10], ..HAS },
    Call {
        name: "send that wakes a sleeper",
        run: |has| has.there().send(&10).expect("there is room"),
        sends: &[10],
        asleep: true,
        ..HAS
    },
    Call { name: "recv", run: |has| assert_eq!(has.there().recv().expect("there is a message"), 20), ..HAS },
    Call {
        name: "drop of an end that wakes a sleeper",
        run: |has| drop(has.there.take()),
        asleep: true,
        ..HAS
    },
    Call {
        name: "sending an end on its way",
        run: |has| {
            has.ends.put(has.there()).expect("there is room");
            drop(has.there.take());
        },
        ..HAS
    },
    Call {
        name: "an end that arrives",
        before: Before::OnItsWay,
        run: |has| has.there = Some(has.ends.get().expect("it is on its way")),
        ..HAS
    },
    Call {
        name: "open of an end",
        before: Before::Unopened,
        run: |has| has.there = Some(Far::open(&has.name).expect("it is free")),
        ..HAS
    },
    Call {
        name: "finding the end of file",
        before: Before::Gone,
        run: |has| assert!(matches!(has.here.recv_nowait(), Err(GetError::Closed))),
        ..HAS
    },
    Call {
        name: "recv_nowait amid the last message",
        before: Before::Other,
        run: |has| assert!(matches!(has.here.recv_nowait(), Ok(OLD) | Err(GetError::Empty))),
        ..HAS
    },
];

/// What was sent before the call.
const OLD: u64 = 1;

/// Places of the record: where those who were told something begin, and what others have done.
const READY: u64 = 1000;
const GO: u64 = 1001;

/// Everybody in one trial but the victim.
struct Scene<'a> {
    call: &'a Call,
    here: Connection<u64, u64>,
    file: File,
    ends: Queue<Far>,
    /// Writes down what it receives, until the end of file.
    reader: RefCell<Option<Forked>>,
    other: RefCell<Option<Forked>>,
    record: Record,
}

impl<'a> Scene<'a> {
    fn set(call: &'a Call, name: &str) -> Self {
        let here = Connection::<u64, u64>::create(name).expect("the name is free");
        here.send(&20).expect("there is room");
        let file = File::open(object(name)).expect("it has its name");
        let ends = Queue::new(1).expect("there is space");
        let record = Record::new();
        let other = matches!(call.before, Before::OnItsWay | Before::Other).then(|| {
            let other = fork(|| {
                let there = Far::open(name).expect("it is free");
                let send = || there.send(&OLD).expect("there is room");
                if call.before == Before::Other {
                    record.set(READY, 1);
                    until("it is told to go", || record.get(GO) == 1);
                    send();
                    return 0;
                }
                send();
                ends.put(&there).expect("there is room");
                drop(there);
                record.set(READY, 1);
                nap(ms(60_000));
                1
            });
            until("the other one is ready", || record.get(READY) == 1);
            other
        });
        if call.before == Before::Gone {
            drop(Far::open(name).expect("it is free"));
        }
        let scene =
            Self { call, here, file, ends, reader: RefCell::new(None), other: RefCell::new(other), record };
        if call.asleep {
            scene.read();
        }
        scene
    }

    /// Has somebody receive, if nobody does.
    fn read(&self) {
        self.reader.borrow_mut().get_or_insert_with(|| {
            let reader = fork(|| {
                for place in 0.. {
                    match self.here.recv() {
                        Ok(number) => self.record.set(place, number),
                        Err(GetError::Closed) => return 0,
                        Err(error) => panic!("{error}"),
                    }
                }
                1
            });
            if self.call.asleep {
                reader.falls_asleep();
            }
            reader
        });
    }

    fn victim(&self) -> Victim {
        Victim::start(
            || {
                let name = format!("{:?}", self.here).split('"').nth(1).expect("a name").to_owned();
                let there = (self.call.before == Before::Has).then(|| {
                    let there = Far::open(&name).expect("it is free");
                    there.send(&OLD).expect("there is room");
                    there
                });
                Has { name, here: self.here.clone(), there, ends: self.ends.clone() }
            },
            |mut has| {
                (self.call.run)(&mut has);
                has
            },
            |_| 0,
        )
    }

    fn look(&self, bytes: &mut Vec<u8>) {
        bytes.resize(4096, 0);
        self.file.read_exact_at(bytes, 0).expect("it can be read");
    }

    fn explore(call: &Call, name: &str) -> Route {
        let scene = Scene::set(call, name);
        let mut victim = scene.victim();
        let route = victim.explore(|bytes| scene.look(bytes), None);
        victim.kill();
        scene.audit(true, name, None);
        route
    }

    /// The victim is gone, and with it all that it had.
    fn audit(self, ended: bool, name: &str, log: Option<&Log>) {
        let mut sent = match self.call.before {
            Before::Has | Before::OnItsWay => vec![OLD],
            Before::Unopened | Before::Gone | Before::Other => vec![],
        };
        if let Some(other) = self.other.take() {
            // What has not arrived is the other one's.
            other.kill();
        }
        // Nor can it arrive any more.
        if let Ok(there) = self.ends.get_nowait() {
            panic!("{there:?} has come back from the dead");
        }
        if self.call.before == Before::Unopened {
            match Far::open(name) {
                Ok(there) => {
                    assert!(!ended, "it was open");
                    there.send(&30).expect("there is room");
                    assert_eq!(there.recv().expect("there is a message"), 20);
                    sent.push(30);
                }
                Err(OpenError::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let ((), took) = timed(|| {
            self.read();
            let reader = self.reader.take().expect("there is one now");
            assert_eq!(reader.wait(), 0, "it was not told");
        });
        assert_prompt(took);
        if let Some(log) = log {
            log.took(Place::Sleeper, took);
        }
        let got: Vec<_> = self.record.numbers().collect();
        let all = [&sent[..], self.call.sends].concat();
        // What the victim has not received.
        let last = self.call.before == Before::Other && got == [OLD];
        assert!(got == all || (got == sent && !ended) || last, "{got:?} instead of {all:?}");
        assert!(matches!(self.here.recv_nowait(), Err(GetError::Closed)));
        assert!(matches!(self.here.send_nowait(&1), Err(PutError::Closed)));
        drop(self);
        assert!(!exists(name), "it is still there");
    }
}

fn kill_at(call: &Call, route: &Route, moment: Moment, name: &str, log: &Log) {
    let scene = Scene::set(call, name);
    let mut victim = scene.victim();
    let walk = victim.go(route, moment, |bytes| scene.look(bytes), None);
    victim.kill();
    scene.audit(walk.ended, name, Some(log));
}

/// Stopped at this moment: nobody waits beyond the deadline, and nothing has ended that may go on.
fn stop_at(call: &Call, route: &Route, moment: Moment, number: u64, name: &str, log: &Log) {
    const TIMEOUT: Duration = Duration::from_millis(10);
    let scene = Scene::set(call, name);
    let mut victim = scene.victim();
    victim.go(route, moment, |bytes| scene.look(bytes), None);
    victim.stop(number.is_multiple_of(3));
    if call.before == Before::Other {
        scene.record.set(GO, 1);
        let other = scene.other.take().expect("it waits for that");
        assert_eq!(other.wait(), 0);
    } else if call.before == Before::Gone {
        // Whoever looks meanwhile finds it as well.
        assert!(matches!(scene.here.recv_nowait(), Err(GetError::Closed)));
        assert!(matches!(scene.here.send_nowait(&1), Err(PutError::Closed)));
    } else if !call.asleep {
        // The victim goes on from where it is, so it must find what it has sent and what it is to get.
        let (polled, took) = timed(|| scene.here.poll(TIMEOUT));
        log.deadline(TIMEOUT, took);
        polled.expect("it can be looked at");
        let (sent, took) = timed(|| scene.here.send_timeout(&21, TIMEOUT));
        log.deadline(TIMEOUT, took);
        assert!(!matches!(sent, Err(PutError::Closed)), "there is nobody, it said");
    }
    victim.goes_on_to_its_end(|| {});
    scene.audit(true, name, Some(log));
}

/// The role: one call, at every instant.
fn try_at_every_instant(trial: Trial, arguments: &[String]) {
    let find = |name: &str| CALLS.iter().find(|call| call.name == name).expect("it is in the table");
    hold_court(
        trial,
        arguments,
        |call, name| Scene::explore(find(call), name),
        |call, route, moment, number, name, log| match trial {
            Trial::Kill => kill_at(find(call), route, moment, name, log),
            Trial::Stop => stop_at(find(call), route, moment, number, name, log),
        },
    );
}

#[test]
fn killed_at_any_instant_a_process_leaves_neither_too_little_nor_too_much_of_its_end() {
    let wrong = play(&[], "instants_pipes::killed", CALLS.iter().map(|call| call.name), ms(10_000));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn stopped_at_any_instant_a_process_has_its_end_still() {
    let wrong = play(&[], "instants_pipes::stopped", CALLS.iter().map(|call| call.name), ms(10_000));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
