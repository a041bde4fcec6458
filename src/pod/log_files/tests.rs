use std::time::{Duration, Instant};

use super::*;

const SMALL: Limits = Limits {
    size: 100,
    files: 5,
};

fn line(number: usize) -> Vec<u8> {
    format!("line number {number:07}\n").into_bytes()
}

fn read(segments: Vec<Segment>) -> Vec<u8> {
    let mut text = Vec::new();
    for segment in segments {
        segment.into_reader().read_to_end(&mut text).expect("read");
    }
    text
}

#[test]
fn the_last_five_files_stay_and_hold_every_line_once() {
    let pod = tempfile::tempdir().expect("tempdir");
    let mut log = Log::open(pod.path(), "c", 0, SMALL).expect("open");
    for number in 0..100 {
        log.append(&line(number)).expect("append");
    }
    assert_eq!(log.written(), 100 * 20);
    let directory = Directory::open(pod.path(), "c")
        .expect("open")
        .expect("there");
    let text = read(directory.segments(0, None).expect("segments"));
    let expected: Vec<u8> = (75..100).flat_map(line).collect();
    assert_eq!(
        String::from_utf8_lossy(&text),
        String::from_utf8_lossy(&expected)
    );

    let start = Instant::now();
    let compressed = || {
        let names = directory.names().expect("names");
        names.iter().filter(|name| name.ends_with(".gz")).count()
    };
    // Two rotations in quick succession may leave one for the next.
    while compressed() < 2 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            directory.names()
        );
        log.append(&line(100)).expect("append");
        std::thread::sleep(Duration::from_millis(20));
    }
    log.append(&line(101)).expect("append");
    let text = read(directory.segments(0, None).expect("segments"));
    assert!(text.ends_with(&line(101)) && text.len().is_multiple_of(20));
}

#[test]
fn a_reader_goes_on_after_a_file_that_was_rotated_and_compressed() {
    let pod = tempfile::tempdir().expect("tempdir");
    let mut log = Log::open(pod.path(), "c", 3, SMALL).expect("open");
    log.append(&line(0)).expect("append");
    let directory = Directory::open(pod.path(), "c")
        .expect("open")
        .expect("there");
    let growing = directory
        .segments(3, None)
        .expect("segments")
        .pop()
        .expect("one");
    let growing = growing.into_file().expect("not compressed");
    assert!(directory.is_growing(3, &growing).expect("is it?"));
    for number in 1..15 {
        log.append(&line(number)).expect("append");
    }
    assert!(!directory.is_growing(3, &growing).expect("is it?"));
    directory.compress(3).expect("compress");
    let name = present_name(&growing).expect("name");
    assert!(name.starts_with("3.log."), "{name}");
    let rest = read(directory.segments(3, Some(&name)).expect("segments"));
    assert_eq!(rest, (5..15).flat_map(line).collect::<Vec<u8>>());
}

#[test]
fn names_sort_by_age_even_when_the_clock_goes_back() {
    let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().expect("time");
    let first = next_name("0.log", None, now);
    assert_eq!(first, "0.log.20260102-030405");
    let second = next_name("0.log", Some(&first), now);
    assert_eq!(second, "0.log.20260102-030405.600000000");
    let third = next_name("0.log", Some(&second), Timestamp::UNIX_EPOCH);
    assert!(third > second, "{third}");
}

#[test]
fn of_earlier_starts_the_last_one_is_kept() {
    let pod = tempfile::tempdir().expect("tempdir");
    for attempt in 0..4 {
        let mut log = Log::open(pod.path(), "c", attempt, SMALL).expect("open");
        for number in 0..10 {
            log.append(&line(number)).expect("append");
        }
    }
    let directory = Directory::open(pod.path(), "c")
        .expect("open")
        .expect("there");
    let has = |attempt| directory.has(attempt).expect("has");
    assert_eq!([0, 1, 2, 3].map(has), [false, false, true, true]);
}
