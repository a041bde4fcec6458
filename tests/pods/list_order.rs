//! The order in which containers start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::common::{LIMIT, Machine, path};

const MANIFEST: &str = include_str!("../../specs/producer-consumer.yaml");

/// How often each case is run; `ORLOP_TEST_RUNS` says otherwise.
fn runs() -> u32 {
    let runs = std::env::var("ORLOP_TEST_RUNS").ok();
    runs.map_or(100, |runs| {
        runs.parse().expect("ORLOP_TEST_RUNS is a number")
    })
}

/// Runs the pod whose second container reads at once what the first one writes.
fn consume_again_and_again() {
    let machine = Machine::new();
    let file = machine.path("pod.yaml");
    std::fs::write(&file, MANIFEST).expect("write");
    let file = path(&file);
    for run in 0..runs() {
        machine.orlop(["apply", "--wait", "-f", file]).ok();
        let start = Instant::now();
        let printed = loop {
            let printed = machine
                .orlop(["logs", "producer-consumer", "consumer"])
                .ok();
            if !printed.is_empty() || start.elapsed() > LIMIT {
                break printed;
            }
        };
        assert_eq!(printed, "hello world\n", "in run {run}");
        machine.orlop(["delete", "-f", file, "--force"]).ok();
    }
    machine.assert_nothing_is_left();
}

#[test]
fn a_consumer_finds_what_the_producer_before_it_wrote() {
    consume_again_and_again();
}

#[test]
fn a_consumer_finds_what_the_producer_wrote_on_a_busy_machine() {
    let over = AtomicBool::new(false);
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        consume_again_and_again();
    });
}
