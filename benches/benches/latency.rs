//! 64-byte round trips between two processes, on two cores and on one: mean time for each.

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

criterion_group!(benches, two_cores, one_core);

fn main() {
    play_role(&CONTENDERS);
    benches();
    Criterion::default().configure_from_args().final_summary();
}
