//! Messages one way between processes: time for each message, by size, by way of calling, and by how many put
//! and get.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group};
use shmq_benches::{CONTENDERS, Contender, Cores, Session, Work, contender, play_role};
use std::time::Duration;

fn one_way(criterion: &mut Criterion, title: &str, work: Work, cores: Cores, contenders: &[&Contender]) {
    let mut group = criterion.benchmark_group(title);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for contender in contenders {
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: contender.size as u64 });
        group.bench_function(contender.label, |bencher| {
            let mut session = Session::start(contender, work, cores).expect("a session");
            bencher.iter_custom(|count| session.time(count).expect("every message, in order"));
        });
    }
    group.finish();
}

/// Everybody who carries messages of this size one way.
fn by_size(criterion: &mut Criterion) {
    let cores = Cores::two().expect("the kernel tells the cores");
    let Some(cores) = cores else {
        eprintln!("this process may run on one core only: nothing to measure by size");
        return;
    };
    for (size, name) in [
        (8, "8 B"),
        (64, "64 B"),
        (1 << 10, "1 KiB"),
        (8 << 10, "8 KiB"),
        (64 << 10, "64 KiB"),
        (1 << 20, "1 MiB"),
    ] {
        let of_this_size = CONTENDERS.iter().filter(|each| each.size == size && !each.is_for_round_trips());
        let contenders: Vec<_> = of_this_size.collect();
        let title = format!("one way, {name}, 1 x 1");
        one_way(criterion, &title, Work::STREAM, cores, &contenders);
    }
}

/// So many producers and as many consumers, wherever the kernel puts them.
fn by_processes(criterion: &mut Criterion) {
    let labels =
        ["shmq", "shmq, typed", "shmq, batches of 64", "textbook", "crossbeam-channel between threads"];
    let contenders: Vec<_> =
        labels.iter().map(|label| contender(label, 64).expect("one of these names")).collect();
    for each in [1, 2, 4, 16] {
        let work = Work::OneWay { producers: each, consumers: each };
        let title = format!("one way, 64 B, {each} x {each}, not pinned");
        one_way(criterion, &title, work, Cores::Free, &contenders);
    }
}

criterion_group!(benches, by_size, by_processes);

fn main() {
    play_role(&CONTENDERS);
    benches();
    Criterion::default().configure_from_args().final_summary();
}
