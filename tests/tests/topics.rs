//! `ottla topic offsets` and `ottla topic trim` on a real process.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use ottla_tests::{Cluster, Output};

fn run(cluster: &Cluster, line: &str) -> Output {
    cluster.ottla(&line.split(' ').collect::<Vec<_>>()).unwrap()
}

/// The offset of the one partition.
fn offset(cluster: &Cluster, time: &str) -> Option<i64> {
    let shown = run(cluster, &format!("topic offsets orders --time {time} --output json")).ok().unwrap();
    shown.json().unwrap()["offsets"][0]["offset"].as_i64()
}

#[test]
fn offsets_are_shown_and_the_oldest_records_go() {
    let cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    assert_eq!((offset(&cluster, "earliest"), offset(&cluster, "max-timestamp")), (Some(0), None));
    cluster.ottla_with_input(&["produce", "orders"], b"a\nb\nc\nd\ne\n").unwrap().ok().unwrap();
    assert_eq!((offset(&cluster, "earliest"), offset(&cluster, "latest")), (Some(0), Some(5)));
    assert!(offset(&cluster, "max-timestamp").is_some_and(|offset| (0..5).contains(&offset)));
    assert_eq!((offset(&cluster, "-1h"), offset(&cluster, "@99999999999999")), (Some(0), None));

    let trim = "topic trim orders --partition 0";
    let trimmed = run(&cluster, &format!("{trim} --before-offset 2 --yes")).ok().unwrap().stdout;
    assert!(trimmed.contains("orders:0 begins with offset 2"), "{trimmed}");
    assert_eq!(offset(&cluster, "earliest"), Some(2));
    let read = run(&cluster, "consume orders --from beginning --count 1").ok().unwrap().stdout;
    assert!(read.starts_with('c'), "{read}");
    // What is older than an hour: nothing. What is older than the far future: everything.
    run(&cluster, &format!("{trim} --before-time -1h --yes")).ok().unwrap();
    assert_eq!(offset(&cluster, "earliest"), Some(2));
    run(&cluster, &format!("{trim} --before-time @99999999999999 --yes")).ok().unwrap();
    assert_eq!(offset(&cluster, "earliest"), Some(5));

    for (line, code, why) in [
        (format!("{trim} --before-offset 99 --yes"), 1, "OFFSET_OUT_OF_RANGE"),
        ("topic trim orders --partition 7 --before-offset 0 --yes".to_owned(), 1, "no partition 7"),
        ("topic trim nothing --partition 0 --before-offset 0 --yes".to_owned(), 1, "does not exist"),
        (format!("{trim} --before-offset 0"), 2, "--yes"),
        (format!("{trim} --yes"), 2, "required"),
        ("topic offsets orders --time soon".to_owned(), 2, "no time"),
    ] {
        let refused = run(&cluster, &line);
        assert_eq!(refused.code, Some(code), "{line}: {}", refused.stderr);
        assert!(refused.stderr.contains(why), "{line}: {}", refused.stderr);
    }
}
