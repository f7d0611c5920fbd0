//! 64-byte round trips between two processes, on two cores and on one: mean time for each.

use criterion::{Criterion, SamplingMode, criterion_group};
use shmq_benches::{Contender, Cores, Session, Work, play_role};
use std::time::Duration;

fn round_trips(criterion: &mut Criterion, title: &str, cores: Cores, contenders: &[Contender]) {
    let mut group = criterion.benchmark_group(title);
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    for &contender in contenders {
        group.bench_function(contender.label(), |bencher| {
            let mut session = Session::start(contender, Work::RoundTrip, cores).expect("a session");
            bencher.iter_custom(|count| session.time(count).expect("every message, in order"));
        });
    }
    group.finish();
}

fn two_cores(criterion: &mut Criterion) {
    use Contender::{PingPong, Shmq, ShmqDefault, Spinning, Textbook};
    let Some(cores) = Cores::two().expect("the kernel tells the cores") else {
        eprintln!("this process may run on one core only: no round trips between two");
        return;
    };
    let contenders = [Shmq, ShmqDefault, Textbook, PingPong, Spinning];
    round_trips(criterion, "round trip, 64 B, capacity 2, two cores", cores, &contenders);
}

fn one_core(criterion: &mut Criterion) {
    use Contender::{PingPong, Shmq, Textbook};
    let cores = Cores::one().expect("the kernel tells the cores");
    round_trips(criterion, "round trip, 64 B, capacity 2, one core", cores, &[Shmq, Textbook, PingPong]);
}

criterion_group!(benches, two_cores, one_core);

fn main() {
    play_role();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
