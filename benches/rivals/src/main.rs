//! shmq beside the other ways of getting messages from one process to another: rounds interleaved, the same
//! capacities, everybody waits for room, every message read and checked.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/Cargo.toml -- [--only TEXT] [--quick] [--rounds N] [--check]
//!     [--write FILE] (the plot goes beside that file, as rivals.svg)
//! ```

mod boost;
mod crates;
mod iceoryx;
mod kernel;
mod other_languages;
mod plot;

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use boost::Boost;
use crates::{IpcChannel, Ipmpsc, Rtrb};
use iceoryx::Iceoryx;
use kernel::{Pipe, PosixQueue, SocketPair, UNPRIVILEGED, may_make_long_posix_queues};
use other_languages::{cloudtoid, python_series};
use plot::Panel;
use shmq_benches::{
    Bound, CONTENDERS, Contender, Cores, Goal, Options, Report, Series, Table, Unit, Work, play_role,
};

const KIB64: usize = 64 << 10;
const MIB: usize = 1 << 20;

const ONE_WAY: &str = "64 B one way";
const TWO: &str = "64 B, 2 producers on one core, 2 consumers on the other";
const TWO_FREE: &str = "64 B, 2 producers, 2 consumers, not pinned";
const LONG: &str = "64 KiB one way";
const LONGER: &str = "1 MiB one way";
const TRIP: &str = "64 B round trip, two cores";
const ONE_CORE: &str = "64 B round trip, one core";

const BOOST: &str = "Boost.Interprocess message_queue";
const IPMPSC: &str = "ipmpsc";
const POLLING: &str = "iceoryx2, polling";
const EVENT: &str = "iceoryx2, event";
const IN_PLACE: &str = "iceoryx2, in place";
const PIPE: &str = "pipe(2)";
const SOCKETS: &str = "socketpair(2)";
const POSIX: &str = "POSIX message queue";
const SHORT_POSIX: &str = "POSIX message queue of 10 messages";
const IPC_CHANNEL: &str = "ipc-channel";
const CROSSBEAM: &str = "crossbeam-channel between threads";
const RTRB: &str = "rtrb between threads";

const RIVALS: [Contender; 25] = [
    Contender::new::<Boost<64>>(BOOST),
    Contender::new::<Boost<KIB64>>(BOOST),
    Contender::new::<Boost<MIB>>(BOOST),
    Contender::new::<Ipmpsc<64>>(IPMPSC),
    Contender::new::<Ipmpsc<KIB64>>(IPMPSC),
    Contender::new::<Ipmpsc<MIB>>(IPMPSC),
    Contender::new::<Iceoryx<64, false, false>>(POLLING),
    Contender::new::<Iceoryx<64, true, false>>(EVENT),
    Contender::new::<Iceoryx<64, false, true>>(IN_PLACE),
    Contender::new::<Iceoryx<KIB64, false, false>>(POLLING),
    Contender::new::<Iceoryx<KIB64, false, true>>(IN_PLACE),
    Contender::new::<Iceoryx<MIB, false, false>>(POLLING),
    Contender::new::<Iceoryx<MIB, false, true>>(IN_PLACE),
    Contender::new::<Pipe<64>>(PIPE),
    Contender::new::<Pipe<KIB64>>(PIPE),
    Contender::new::<Pipe<MIB>>(PIPE),
    Contender::new::<SocketPair<64>>(SOCKETS),
    Contender::new::<SocketPair<KIB64>>(SOCKETS),
    Contender::new::<SocketPair<MIB>>(SOCKETS),
    Contender::new::<PosixQueue<64, { usize::MAX }>>(POSIX),
    Contender::new::<PosixQueue<64, UNPRIVILEGED>>(SHORT_POSIX),
    Contender::new::<IpcChannel<64>>(IPC_CHANNEL),
    Contender::new::<IpcChannel<KIB64>>(IPC_CHANNEL),
    Contender::new::<IpcChannel<MIB>>(IPC_CHANNEL),
    Contender::between_threads::<Rtrb>(RTRB),
];

fn main() -> ExitCode {
    let contenders: Vec<Contender> = CONTENDERS.iter().chain(&RIVALS).copied().collect();
    play_role(&contenders);
    let done = run(&contenders);
    let cleaned = iceoryx::clean_up(std::process::id());
    match done.and_then(|met| Ok(cleaned.map(|()| met)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rivals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(contenders: &[Contender]) -> Result<bool, Box<dyn Error>> {
    let options = Options::parse(5)?;
    let mut report = Report {
        name: "rivals",
        command: "cargo run --release --manifest-path benches/rivals/Cargo.toml",
        tables: tables(contenders)?,
        goals: goals(),
    };
    let met = report.run(&options, &mut io::stdout().lock())?;
    if let Some(path) = &options.write {
        let panels = [
            Panel {
                title: "64-byte messages one way, millions each second (bars by powers of ten)",
                unit: "M/s",
                bars: report.medians(ONE_WAY),
            },
            Panel {
                title: "64-byte round trip, median, microseconds (less is better; bars by powers of ten)",
                unit: "us",
                bars: report.medians(TRIP),
            },
        ];
        plot::draw(&Path::new(path).with_file_name("rivals.svg").to_string_lossy(), &panels)?;
    }
    Ok(met)
}

fn goals() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    vec![
        Goal::new(ONE_WAY, "shmq", &[BOOST, IPMPSC, POLLING, EVENT, IN_PLACE], AtLeast(8.0)),
        Goal::new(ONE_WAY, "shmq, max_message 64", &[BOOST, IPMPSC, POLLING, EVENT, IN_PLACE], AtLeast(8.0)),
        Goal::new(ONE_WAY, "shmq", &[CROSSBEAM], AtLeast(1.2)),
        Goal::new(TWO, "shmq", &[BOOST], AtLeast(5.0)),
        Goal::new(TWO, "shmq", &[CROSSBEAM], AtLeast(1.2)),
        Goal::new(TWO_FREE, "shmq", &[BOOST], AtLeast(5.0)),
        Goal::new(TWO_FREE, "shmq", &[CROSSBEAM], AtLeast(1.2)),
        Goal::new(LONG, "shmq, in place", &[IN_PLACE], AtLeast(1.0)),
        Goal::new(LONGER, "shmq, in place", &[IN_PLACE], AtLeast(1.0)),
        Goal::new(TRIP, "shmq", &[PIPE, SOCKETS, POSIX, BOOST, IPMPSC], AtMost(1.0)),
    ]
}

fn tables(contenders: &[Contender]) -> io::Result<Vec<Table<'_>>> {
    let one_core = Cores::one()?;
    let Some(two_cores) = Cores::two()? else {
        return Err(io::Error::other("this process may run on one core only: nothing to measure"));
    };
    let series = |size: usize, work: Work, cores: Cores, unit: Unit, labels: &[&str]| {
        let found = labels.iter().map(|label| {
            let found = contenders.iter().find(|each| each.label == *label && each.size == size);
            let contender = found.ok_or_else(|| io::Error::other(format!("nobody is called {label:?}")))?;
            let series = Series::of(contender, work, cores, unit);
            Ok(if label.starts_with("shmq") { series } else { series.optional() })
        });
        found.collect::<io::Result<Vec<_>>>()
    };
    let posix = if may_make_long_posix_queues() { POSIX } else { SHORT_POSIX };
    let mut one_way = series(
        64,
        Work::STREAM,
        two_cores,
        Unit::Messages,
        &[
            "shmq",
            "shmq, max_message 64",
            "shmq, typed",
            "shmq, exclusive ends",
            "shmq, batches of 64",
            POLLING,
            EVENT,
            IN_PLACE,
            BOOST,
            IPMPSC,
            PIPE,
            posix,
            SOCKETS,
            IPC_CHANNEL,
            CROSSBEAM,
            RTRB,
        ],
    )?;
    one_way.push(python_series("multiprocessing.Queue (Python)", "multiprocessing", "one-way"));
    one_way.push(python_series("faster-fifo (Python), 64 at a time", "faster_fifo", "one-way"));
    one_way.push(cloudtoid());
    let work = Work::OneWay { producers: 2, consumers: 2 };
    let several = ["shmq", BOOST, PIPE, posix, CROSSBEAM];
    let two = series(64, work, two_cores, Unit::Messages, &several)?;
    let two_free = series(64, work, Cores::Free, Unit::Messages, &several)?;
    let lengthy = ["shmq", "shmq, in place", POLLING, IN_PLACE, BOOST, IPMPSC, PIPE, SOCKETS, IPC_CHANNEL];
    let long = series(KIB64, Work::STREAM, two_cores, Unit::Gigabytes, &lengthy)?;
    let longer = series(MIB, Work::STREAM, two_cores, Unit::Gigabytes, &lengthy)?;
    let mut trips = series(
        64,
        Work::RoundTrip,
        two_cores,
        Unit::Trip,
        &["shmq", POLLING, EVENT, BOOST, IPMPSC, PIPE, POSIX, SOCKETS, IPC_CHANNEL, CROSSBEAM, RTRB],
    )?;
    trips.push(python_series("multiprocessing.Queue (Python)", "multiprocessing", "round-trip"));
    trips.push(python_series("faster-fifo (Python)", "faster_fifo", "round-trip"));
    // Those who only spin would wait for the other's whole time slice.
    let one_core = series(
        64,
        Work::RoundTrip,
        one_core,
        Unit::Trip,
        &["shmq", EVENT, BOOST, IPMPSC, PIPE, POSIX, SOCKETS, IPC_CHANNEL, CROSSBEAM],
    )?;
    Ok(vec![
        Table::new(ONE_WAY, Unit::Messages, one_way),
        Table::new(TWO, Unit::Messages, two),
        Table::new(TWO_FREE, Unit::Messages, two_free),
        Table::new(LONG, Unit::Gigabytes, long),
        Table::new(LONGER, Unit::Gigabytes, longer),
        Table::new(TRIP, Unit::Trip, trips),
        Table::new(ONE_CORE, Unit::Trip, one_core),
    ])
}
