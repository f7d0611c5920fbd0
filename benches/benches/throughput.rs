//! 64-byte messages one way between two processes on two cores: time for each message.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group};
use shmq_benches::{Contender, Cores, Session, Work, play_role};
use std::time::Duration;

fn one_way(criterion: &mut Criterion) {
    let cores = Cores::two().expect("the kernel tells the cores");
    let Some(cores) = cores else {
        eprintln!("this process may run on one core only: nothing to measure");
        return;
    };
    let mut group = criterion.benchmark_group("one way, 64 B, capacity 1024");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    for contender in [
        Contender::Shmq,
        Contender::ShmqDefault,
        Contender::ShmqTyped,
        Contender::Textbook,
        Contender::Spinning,
        Contender::SpinningPaced,
    ] {
        group.bench_function(contender.label(), |bencher| {
            let mut session = Session::start(contender, Work::OneWay, cores).expect("a session");
            bencher.iter_custom(|count| session.time(count).expect("every message, in order"));
        });
    }
    group.finish();
}

criterion_group!(benches, one_way);

fn main() {
    play_role();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
