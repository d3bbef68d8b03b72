//! DescribeTransactions and ListTransactions.

use super::*;

/// Ids in several states: `empty`, `open` (begun at 1 000 000), `ended`.
fn several() -> Harness {
    let mut harness = Harness::new(V2);
    for (id, step) in [("empty", 0), ("open", 1), ("ended", 2)] {
        let mut init = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        let Command::InitProducerId(command) = &mut init else { panic!("not an init") };
        command.transactional_id = Text::from(id);
        let Reply::InitProducerId(producer) = harness.call(&init) else { panic!("no reply of its kind") };
        if step > 0 {
            let partitions = [partition("t", 2), partition("s", 5), partition("t", 0)];
            let mut add = Harness::add_command(producer, &partitions, V2);
            let Command::AddPartitions(command) = &mut add else { panic!("not an add") };
            command.transactional_id = Text::from(id);
            harness.call(&add);
        }
        if step > 1 {
            let mut end = harness.end_command(producer, true, V2);
            let Command::EndTxn(command) = &mut end else { panic!("not an end") };
            command.transactional_id = Text::from(id);
            harness.call(&end);
            harness.written();
        }
    }
    harness
}

#[test]
fn a_description_has_state_producer_times_and_partitions_by_topic() {
    let harness = several();
    let found = harness.machine.describe("open").unwrap();
    assert_eq!(found.state.name(), "Ongoing");
    assert_eq!((found.timeout_ms, found.start_ms), (TIMEOUT_MS, harness.now.wall_ms));
    assert_eq!((found.producer_id, found.producer_epoch), (1002, 0));
    let topics: Vec<_> = found.topics.into_iter().collect();
    assert_eq!(topics, [(Text::from("s"), vec![5]), (Text::from("t"), vec![0, 2])]);
    let found = harness.machine.describe("empty").unwrap();
    assert_eq!((found.state, found.start_ms), (TransactionState::Empty, NO_TIME_MS));
    assert!(harness.machine.describe("ended").unwrap().topics.is_empty());
    assert_eq!(harness.machine.describe(""), Err(ErrorCode::InvalidRequest));
    assert_eq!(harness.machine.describe("nobody"), Err(ErrorCode::TransactionalIdNotFound));
}

#[test]
fn a_list_is_filtered_by_all_that_is_given() {
    let harness = several();
    let listed = |filter: TransactionFilter<'_>| {
        let found = harness.machine.list(harness.now.wall_ms + 100, &filter).unwrap();
        found.into_iter().map(|found| found.transactional_id.to_string()).collect::<Vec<_>>()
    };
    let any = TransactionFilter::default;
    assert_eq!(listed(any()), ["empty", "ended", "open"]);
    let ongoing = vec![TransactionState::Ongoing];
    assert_eq!(listed(TransactionFilter { states: ongoing.clone(), ..any() }), ["open"]);
    let both = vec![TransactionState::Ongoing, TransactionState::Empty];
    assert_eq!(listed(TransactionFilter { states: both, ..any() }), ["empty", "open"]);
    assert_eq!(listed(TransactionFilter { producer_ids: vec![1001, 7], ..any() }), ["empty"]);
    let neither = TransactionFilter { producer_ids: vec![1001], states: ongoing, ..any() };
    assert!(listed(neither).is_empty());
    assert_eq!(listed(TransactionFilter { duration_ms: Some(99), ..any() }), ["ended", "open"]);
    assert!(listed(TransactionFilter { duration_ms: Some(100), ..any() }).is_empty(), "longer, not as long");
    let begins_with_e = |id: &str| id.starts_with('e');
    assert_eq!(listed(TransactionFilter { matches: Some(&begins_with_e), ..any() }), ["empty", "ended"]);
    assert!(listed(TransactionFilter { only_unknown_states: true, ..any() }).is_empty());
}

#[test]
fn names_of_states_are_told_from_what_is_none() {
    let names = ["Ongoing", "ongoing", "NoSuchState", "CompleteAbort"].map(Text::from);
    let (states, unknown) = TransactionFilter::parse_states(&names);
    assert_eq!(states, [TransactionState::Ongoing, TransactionState::CompleteAbort]);
    assert_eq!(unknown, ["ongoing", "NoSuchState"]);
    for state in TransactionState::ALL {
        assert_eq!(TransactionState::from_name(state.name()), Some(state));
        assert_eq!(TransactionState::from_number(state.number()), Some(state));
    }
}
