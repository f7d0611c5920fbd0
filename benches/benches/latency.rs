//! 64-byte round trips between two processes, on two cores, on one, and after a silence: mean time for each.
//! Medians and percentiles are what the `compare` command prints.

use criterion::{Criterion, SamplingMode, criterion_group};
use shmq_benches::{CONTENDERS, Cores, Session, Work, contender, play_role};
use std::time::Duration;

fn round_trips(criterion: &mut Criterion, title: &str, cores: Cores, contenders: &[&str]) {
    let mut group = criterion.benchmark_group(title);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for label in contenders {
        let contender = contender(label, 64).expect("one of these names");
        group.bench_function(contender.label, |bencher| {
            let mut session = Session::start(contender, Work::RoundTrip, cores).expect("a session");
            bencher.iter_custom(|count| session.time(count).expect("every message, in order"));
        });
    }
    group.finish();
}

fn two_cores(criterion: &mut Criterion) {
    let Some(cores) = Cores::two().expect("the kernel tells the cores") else {
        eprintln!("this process may run on one core only: no round trips between two");
        return;
    };
    let contenders =
        ["shmq", "shmq, max_message 64", "shmq, typed", "textbook", "futex ping-pong", "spinning ring"];
    round_trips(criterion, "round trip, 64 B, capacity 2, two cores", cores, &contenders);
}

fn one_core(criterion: &mut Criterion) {
    let cores = Cores::one().expect("the kernel tells the cores");
    round_trips(
        criterion,
        "round trip, 64 B, capacity 2, one core",
        cores,
        &["shmq", "textbook", "futex ping-pong"],
    );
}

/// Short, that Criterion may have its many samples; `compare` waits a second, and tells what blocked calls use.
const SILENCE: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "nothing is waited for: the silence itself is what is wanted")]
fn asleep(criterion: &mut Criterion) {
    let Some(cores) = Cores::two().expect("the kernel tells the cores") else { return };
    let mut group = criterion.benchmark_group("round trip, 64 B, after 20 ms of silence");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    for label in ["shmq", "textbook", "futex ping-pong"] {
        let contender = contender(label, 64).expect("one of these names");
        group.bench_function(label, |bencher| {
            let mut session = Session::start(contender, Work::RoundTrip, cores).expect("a session");
            bencher.iter_custom(|count| {
                session.begin(count).expect("a core of its own");
                (0..count)
                    .map(|_| {
                        std::thread::sleep(SILENCE);
                        session.ask_once().expect("every message, in order")
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, two_cores, one_core, asleep);

fn main() {
    play_role(&CONTENDERS);
    benches();
    Criterion::default().configure_from_args().final_summary();
}
