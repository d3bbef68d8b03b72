//! Joining, syncing, heartbeats, leaving: every state and refusal of a dynamic member.

use super::*;

#[test]
fn a_lone_member_joins_syncs_and_beats() {
    let mut h = Harness::new(config());
    let token = h.join("g", "");
    let reply = h.joined(token);
    assert_eq!((reply.error, reply.generation_id, &*reply.leader), (ErrorCode::None, 1, &*reply.member_id));
    assert_eq!((reply.protocol_type, reply.protocol_name), (Some(text("consumer")), Some(text("range"))));
    assert_eq!((reply.members.len(), reply.members[0].metadata.clone()), (1, subscription(&["t"])));
    assert_eq!(h.state("g"), GroupState::CompletingRebalance);
    let id = reply.member_id.to_string();
    let token = h.sync("g", &id, 1, &[&id]);
    let reply = h.synced(token);
    assert_eq!(
        (reply.error, reply.assignment, reply.protocol_name),
        (ErrorCode::None, Bytes::from(id.clone()), Some(text("range")))
    );
    assert_eq!((h.state("g"), h.beat("g", &id, 1)), (GroupState::Stable, ErrorCode::None));
}

#[test]
fn joins_are_refused_with_the_code_of_their_fault() {
    type Change = fn(&mut Join);
    let cases: [(&str, Change, ErrorCode); 9] = [
        ("empty group id", |j| j.group_id = text(""), ErrorCode::InvalidGroupId),
        ("session too short", |j| j.session_timeout_ms = 5_999, ErrorCode::InvalidSessionTimeout),
        ("session too long", |j| j.session_timeout_ms = 1_800_001, ErrorCode::InvalidSessionTimeout),
        ("no protocols", |j| j.protocols.clear(), ErrorCode::InconsistentGroupProtocol),
        ("no protocol type", |j| j.protocol_type = text(""), ErrorCode::InconsistentGroupProtocol),
        ("unknown member of an unknown group", |j| j.member_id = text("nobody"), ErrorCode::UnknownMemberId),
        (
            "metadata too large",
            |j| j.protocols[0].metadata = vec![0; MEMBER_PROTOCOLS_BYTES_MAX].into(),
            ErrorCode::InvalidRequest,
        ),
        ("needs a member id", |j| j.require_known_member_id = true, ErrorCode::MemberIdRequired),
        (
            "unknown static member",
            |j| {
                j.member_id = text("x");
                j.group_instance_id = Some(text("i"));
            },
            ErrorCode::UnknownMemberId,
        ),
    ];
    for (what, change, error) in cases {
        let mut h = Harness::new(config());
        let mut command = h.join_command("g", "");
        change(&mut command);
        let token = h.send(Command::Join(command));
        assert_eq!(h.joined(token).error, error, "{what}");
        assert!(
            error == ErrorCode::MemberIdRequired || h.listed().is_empty(),
            "{what} leaves no group behind"
        );
    }
}

#[test]
fn joins_that_do_not_fit_a_stable_group_are_refused_and_disturb_nobody() {
    let mut h = Harness::new(GroupConfig { group_size_max: 2, ..config() });
    let (ids, generation) = h.form("g", 1);
    let mut command = h.join_command("g", "");
    command.protocol_type = text("connect");
    let token = h.send(Command::Join(command));
    assert_eq!(h.joined(token).error, ErrorCode::InconsistentGroupProtocol);
    let mut command = h.join_command("g", "");
    command.protocols[0].name = text("sticky");
    let token = h.send(Command::Join(command));
    assert_eq!(h.joined(token).error, ErrorCode::InconsistentGroupProtocol);
    let token = h.join("g", "nobody");
    assert_eq!(h.joined(token).error, ErrorCode::UnknownMemberId);
    assert_eq!((h.state("g"), h.beat("g", &ids[0], generation)), (GroupState::Stable, ErrorCode::None));
    h.leave("g", &[(&ids[0], None)]);
    let (ids, generation) = h.form("g", 2);
    let token = h.join("g", "");
    assert_eq!(h.joined(token).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::None);
}

#[test]
fn the_last_to_come_is_kept_out_while_a_full_group_rebalances() {
    let mut h = Harness::new(GroupConfig { group_size_max: 2, ..config() });
    let (ids, _) = h.form("g", 2);
    h.leave("g", &[(&ids[1], None)]);
    let newcomer = h.join("g", "");
    let third = h.join("g", "");
    let leader = h.join("g", &ids[0]);
    assert!(h.waits(newcomer) || h.joined(newcomer).error == ErrorCode::None);
    // Two wait already, so the one that was a member all along is the last to come.
    let mut errors: Vec<ErrorCode> = Vec::new();
    for token in [third, leader] {
        if !h.waits(token) {
            errors.push(h.joined(token).error);
        }
    }
    assert!(errors.contains(&ErrorCode::GroupMaxSizeReached), "{errors:?}");
}

#[test]
fn a_given_member_id_is_used_once_in_time_or_forgotten() {
    let mut h = Harness::new(config());
    let mut command = h.join_command("g", "");
    command.require_known_member_id = true;
    let token = h.send(Command::Join(command));
    let reply = h.joined(token);
    assert_eq!((reply.error, reply.generation_id, &*reply.leader), (ErrorCode::MemberIdRequired, -1, ""));
    let used = reply.member_id.to_string();
    let mut command = h.join_command("g", "");
    command.require_known_member_id = true;
    let token = h.send(Command::Join(command));
    let unused = h.joined(token).member_id.to_string();
    let token = h.join("g", &used);
    h.pass(0);
    assert_eq!(h.joined(token).error, ErrorCode::None);
    h.pass(10_000);
    let token = h.join("g", &unused);
    assert_eq!(h.joined(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_a_given_member_id_to_be_used() {
    let mut h = Harness::new(config());
    let (ids, _) = h.form("g", 1);
    let mut command = h.join_command("g", "");
    command.require_known_member_id = true;
    let token = h.send(Command::Join(command));
    let pending = h.joined(token).member_id.to_string();
    let leader = h.join("g", &ids[0]);
    assert!(h.waits(leader));
    let other = h.join("g", &pending);
    assert_eq!((h.joined(leader).generation_id, h.joined(other).generation_id), (2, 2));
}

#[test]
fn members_that_come_during_the_initial_delay_share_the_first_generation() {
    let mut h = Harness::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..config() });
    let first = h.join("g", "");
    h.pass(2_000);
    let second = h.join("g", "");
    h.pass(1_500);
    assert!(h.waits(first), "extended, because somebody came");
    h.pass(2_500);
    let (first, second) = (h.joined(first), h.joined(second));
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(first.members.len() + second.members.len(), 2, "only the leader is told");
}

#[test]
fn the_initial_delay_is_extended_no_further_than_the_rebalance_timeout() {
    let mut h = Harness::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..config() });
    let first = h.join("g", "");
    for _ in 0..30 {
        h.pass(1_000);
        if !h.waits(first) {
            break;
        }
        h.join("g", "");
    }
    assert!(h.now.monotonic_ms <= 1_000 + 23_000 && !h.waits(first));
}

#[test]
fn the_chosen_protocol_is_known_to_all_and_preferred_by_most() {
    for (members, chosen) in [
        (vec![vec!["a", "b"], vec!["b", "c"]], "b"),
        (vec![vec!["a", "b"], vec!["b", "a"], vec!["b", "a"]], "b"),
        (vec![vec!["b", "a"], vec!["a", "b"]], "b"),
    ] {
        let mut h = Harness::new(GroupConfig { initial_rebalance_delay_ms: 10, ..config() });
        let mut tokens = Vec::new();
        for names in &members {
            let mut command = h.join_command("g", "");
            let protocol = |name: &&str| Protocol { name: text(name), metadata: Bytes::new() };
            command.protocols = names.iter().map(protocol).collect();
            tokens.push(h.send(Command::Join(command)));
        }
        h.pass(1_000);
        for token in tokens {
            assert_eq!(h.joined(token).protocol_name, Some(text(chosen)), "{members:?}");
        }
    }
}

#[test]
fn followers_wait_for_the_leader_and_all_for_the_log() {
    let mut h = Harness::new(config());
    let first = h.join("g", "");
    let leader = h.joined(first).member_id.to_string();
    let second = h.join("g", "");
    let again = h.join("g", &leader);
    let (generation, follower) = (h.joined(again).generation_id, h.joined(second).member_id.to_string());
    let waiting = h.sync("g", &follower, generation, &[]);
    assert!(h.waits(waiting));
    h.held = true;
    let leading = h.sync("g", &leader, generation, &[&leader]);
    assert!(h.waits(leading) && h.waits(waiting) && h.state("g") == GroupState::CompletingRebalance);
    h.commit();
    assert_eq!(h.synced(leading).assignment, leader.as_bytes());
    assert_eq!(h.synced(waiting).assignment, Bytes::new(), "left out by the leader");
    assert_eq!(h.state("g"), GroupState::Stable);
}

#[test]
fn an_assignment_that_cannot_be_logged_is_refused_and_begun_anew() {
    for (append, told) in [
        (ErrorCode::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
        (ErrorCode::MessageTooLarge, ErrorCode::UnknownServerError),
    ] {
        let mut h = Harness::new(config());
        let token = h.join("g", "");
        let id = h.joined(token).member_id.to_string();
        h.held = true;
        let token = h.sync("g", &id, 1, &[&id]);
        h.fail(append);
        assert_eq!((h.synced(token).error, h.state("g")), (told, GroupState::PreparingRebalance));
        h.held = false;
        let token = h.join("g", &id);
        assert_eq!(h.joined(token).generation_id, 2);
    }
}

#[test]
fn an_assignment_of_a_generation_that_ended_is_nobodys() {
    let mut h = Harness::new(config());
    let token = h.join("g", "");
    let id = h.joined(token).member_id.to_string();
    h.held = true;
    let old = h.sync("g", &id, 1, &[&id]);
    let newcomer = h.join("g", "");
    assert_eq!(h.synced(old).error, ErrorCode::RebalanceInProgress);
    let again = h.join("g", &id);
    assert_eq!((h.joined(again).generation_id, h.joined(newcomer).generation_id), (2, 2));
    h.commit();
    assert_eq!(h.state("g"), GroupState::CompletingRebalance);
}

#[test]
fn syncs_are_refused_with_the_code_of_their_fault() {
    type Change = fn(&mut Sync);
    let cases: [(Change, ErrorCode); 7] = [
        (|s| s.group_id = text(""), ErrorCode::InvalidGroupId),
        (|s| s.group_id = text("other"), ErrorCode::UnknownMemberId),
        (|s| s.member_id = text("nobody"), ErrorCode::UnknownMemberId),
        (|s| s.generation_id = 7, ErrorCode::IllegalGeneration),
        (|s| s.protocol_type = Some(text("connect")), ErrorCode::InconsistentGroupProtocol),
        (|s| s.protocol_name = Some(text("other")), ErrorCode::InconsistentGroupProtocol),
        (|s| s.protocol_required = true, ErrorCode::InconsistentGroupProtocol),
    ];
    let mut h = Harness::new(config());
    let token = h.join("g", "");
    let id = h.joined(token).member_id.to_string();
    for (change, error) in cases {
        let mut command = sync_command("g", &id, 1);
        change(&mut command);
        let token = h.send(Command::Sync(command));
        assert_eq!(h.synced(token).error, error);
    }
    let token = h.sync("g", &id, 1, &[]);
    assert_eq!(h.synced(token).error, ErrorCode::None);
}

#[test]
fn heartbeats_are_answered_by_the_state_of_the_group() {
    let mut h = Harness::new(config());
    assert_eq!(h.beat("", "m", 1), ErrorCode::InvalidGroupId);
    assert_eq!(h.beat("g", "m", 1), ErrorCode::UnknownMemberId);
    let (ids, generation) = h.form("g", 1);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::None);
    assert_eq!(h.beat("g", &ids[0], generation + 1), ErrorCode::IllegalGeneration);
    assert_eq!(h.beat("g", "", generation), ErrorCode::UnknownMemberId);
    let newcomer = h.join("g", "");
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::RebalanceInProgress);
    let token = h.sync("g", &ids[0], generation, &[]);
    assert_eq!(h.synced(token).error, ErrorCode::RebalanceInProgress);
    let token = h.join("g", &ids[0]);
    assert_eq!((h.joined(token).generation_id, h.joined(newcomer).error), (generation + 1, ErrorCode::None));
    assert_eq!(h.beat("g", &ids[0], generation + 1), ErrorCode::None);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::IllegalGeneration);
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody_but_a_leader_or_a_change_does() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("g", 2);
    let token = h.join("g", &ids[1]);
    let reply = h.joined(token);
    assert_eq!((reply.generation_id, reply.members.len(), h.state("g")), (generation, 0, GroupState::Stable));
    for who in [0, 1] {
        let mut h = Harness::new(config());
        let (ids, generation) = h.form("g", 2);
        let mut command = h.join_command("g", &ids[who]);
        if who == 1 {
            command.protocols[0].metadata = subscription(&["another"]);
        }
        let token = h.send(Command::Join(command));
        assert!(h.waits(token));
        let other = h.join("g", &ids[1 - who]);
        assert_eq!(
            (h.joined(token).generation_id, h.joined(other).generation_id),
            (generation + 1, generation + 1)
        );
    }
}

#[test]
fn a_join_whose_answer_was_lost_is_answered_again() {
    let mut h = Harness::new(config());
    let token = h.join("g", "");
    let first = h.joined(token);
    let token = h.join("g", &first.member_id);
    assert_eq!(h.joined(token), first);
}

#[test]
fn a_join_sent_twice_is_answered_twice() {
    let mut h = Harness::new(config());
    let (ids, _) = h.form("g", 2);
    let first = h.join("g", &ids[0]);
    let second = h.join("g", &ids[0]);
    assert_eq!((h.joined(first).error, h.waits(second)), (ErrorCode::RebalanceInProgress, true));
}

#[test]
fn a_member_that_does_not_join_again_is_dropped_at_the_rebalance_timeout() {
    let mut h = Harness::new(config());
    let mut command = h.join_command("g", "");
    command.session_timeout_ms = 60_000;
    let token = h.send(Command::Join(command));
    let slow = h.joined(token).member_id.to_string();
    let newcomer = h.join("g", "");
    h.pass(19_999);
    assert!(h.waits(newcomer));
    h.pass(1);
    let reply = h.joined(newcomer);
    assert_eq!((&*reply.leader, reply.members.len()), (&*reply.member_id, 1));
    assert_eq!(h.beat("g", &slow, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_leader_that_never_syncs_does_not_hold_the_group_for_ever() {
    let mut h = Harness::new(config());
    let first = h.join("g", "");
    let leader = h.joined(first).member_id.to_string();
    let mut command = h.join_command("g", "");
    command.session_timeout_ms = 60_000;
    let second = h.send(Command::Join(command));
    let mut command = h.join_command("g", &leader);
    command.session_timeout_ms = 60_000;
    let again = h.send(Command::Join(command));
    let (generation, follower) = (h.joined(again).generation_id, h.joined(second).member_id.to_string());
    let waiting = h.sync("g", &follower, generation, &[]);
    h.pass(20_000);
    assert_eq!(h.synced(waiting).error, ErrorCode::RebalanceInProgress);
    let token = h.join("g", &follower);
    let reply = h.joined(token);
    assert_eq!((reply.generation_id, &*reply.leader), (generation + 1, follower.as_str()));
    assert_eq!(h.beat("g", &leader, generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_removed_at_its_session_timeout_and_not_before() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("g", 2);
    h.pass(9_999);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::None);
    h.pass(1);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::RebalanceInProgress);
    let token = h.join("g", &ids[0]);
    assert_eq!(h.joined(token).members.len(), 1);
    assert_eq!(h.beat("g", &ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn heartbeats_and_commits_keep_a_member() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("g", 1);
    for round in 0..10 {
        h.pass(9_000);
        let error = if round % 2 == 0 {
            h.beat("g", &ids[0], generation)
        } else {
            h.commit_as("g", &ids[0], generation, 1)
        };
        assert_eq!(error, ErrorCode::None);
    }
    h.pass(10_000);
    assert_eq!((h.state("g"), h.machine.next_deadline_ms()), (GroupState::Empty, None));
}

#[test]
fn a_members_wait_for_the_others_is_not_its_silence() {
    let mut h = Harness::new(config());
    let mut ids = Vec::new();
    for session_timeout_ms in [6_000, 30_000] {
        let mut command = h.join_command("g", "");
        (command.session_timeout_ms, command.rebalance_timeout_ms) = (session_timeout_ms, 25_000);
        let token = h.send(Command::Join(command));
        if ids.is_empty() {
            ids.push(h.joined(token).member_id.to_string());
        } else {
            let mut command = h.join_command("g", &ids[0]);
            (command.session_timeout_ms, command.rebalance_timeout_ms) = (6_000, 25_000);
            let again = h.send(Command::Join(command));
            h.joined(again);
            ids.push(h.joined(token).member_id.to_string());
        }
    }
    let mut command = h.join_command("g", &ids[0]);
    (command.session_timeout_ms, command.rebalance_timeout_ms) = (6_000, 25_000);
    command.protocols[0].metadata = subscription(&["u"]);
    let waiting = h.send(Command::Join(command));
    h.pass(24_000);
    assert!(h.waits(waiting));
    h.pass(1_000);
    assert_eq!(h.joined(waiting).error, ErrorCode::None, "the other was dropped, not this one");
}

#[test]
fn a_new_members_client_that_is_gone_is_found_out() {
    let mut h = Harness::new(config());
    let mut command = h.join_command("g", "");
    (command.session_timeout_ms, command.rebalance_timeout_ms) = (1_800_000, 1_800_000);
    let token = h.send(Command::Join(command));
    h.joined(token);
    let newcomer = h.join("g", "");
    h.pass(NEW_MEMBER_JOIN_TIMEOUT_MS);
    assert_eq!(h.joined(newcomer).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_leaving_member_makes_the_others_rebalance_and_the_last_leaves_it_empty() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("g", 2);
    assert_eq!(
        h.leave("g", &[(&ids[1], None), ("nobody", None)]),
        [ErrorCode::None, ErrorCode::UnknownMemberId]
    );
    assert_eq!(h.leave("g", &[(&ids[1], None)]), [ErrorCode::UnknownMemberId]);
    assert_eq!(h.leave("no-group", &[("m", None)]), [ErrorCode::UnknownMemberId]);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::RebalanceInProgress);
    let token = h.join("g", &ids[0]);
    assert_eq!(h.joined(token).members.len(), 1);
    assert_eq!(h.leave("g", &[(&ids[0], None)]), [ErrorCode::None]);
    let description = h.machine.describe("g").unwrap();
    assert_eq!(
        (description.state, &*description.protocol_type, &*description.protocol_data),
        (GroupState::Empty, "consumer", "")
    );
    let token = h.join("g", &ids[0]);
    assert_eq!(h.joined(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn what_a_leaving_member_waits_for_is_refused() {
    let mut h = Harness::new(config());
    let (ids, _) = h.form("g", 2);
    let waiting = h.join("g", &ids[0]);
    h.leave("g", &[(&ids[0], None)]);
    assert_eq!(h.joined(waiting).error, ErrorCode::UnknownMemberId);
}

#[test]
fn groups_are_described_and_listed_by_state() {
    let mut h = Harness::new(config());
    let (ids, _) = h.form("stable", 1);
    h.commit_simple("empty", &[("t", 0, 1)]);
    let stable = h.machine.describe("stable").unwrap();
    assert_eq!(
        (stable.error, stable.state, &*stable.protocol_type, &*stable.protocol_data),
        (ErrorCode::None, GroupState::Stable, "consumer", "range")
    );
    let member = &stable.members[0];
    assert_eq!((&*member.client_id, &*member.client_host), ("client", "/127.0.0.1"));
    assert_eq!(
        (member.metadata.clone(), member.assignment.clone()),
        (subscription(&["t"]), Bytes::from(ids[0].clone()))
    );
    let gone = h.machine.describe("gone").unwrap();
    assert_eq!((gone.error, gone.state), (ErrorCode::GroupIdNotFound, GroupState::Dead));
    for (states, types, found) in [
        (vec![], vec![], vec!["empty", "stable"]),
        (vec!["sTaBle"], vec![], vec!["stable"]),
        (vec!["Empty", "Stable"], vec!["Classic"], vec!["empty", "stable"]),
        (vec!["Dead"], vec![], vec![]),
        (vec![], vec!["consumer"], vec![]),
    ] {
        let filter = GroupFilter {
            states: states.into_iter().map(text).collect(),
            types: types.into_iter().map(text).collect(),
        };
        let listed = h.machine.list(&filter).unwrap();
        assert_eq!(listed.iter().map(|group| &*group.group_id).collect::<Vec<_>>(), found);
    }
}

#[test]
fn nothing_is_answered_but_refusals_before_it_leads() {
    let mut machine = GroupCoordinator::new(config());
    let mut effects = Effects::default();
    let now = Now { monotonic_ms: 0, wall_ms: 0 };
    machine.step(now, RequestToken(1), Command::DeleteGroup { group_id: text("g") }, &mut effects);
    assert_eq!(effects.replies, [(RequestToken(1), Reply::DeleteGroup(ErrorCode::NotCoordinator))]);
    assert_eq!(machine.describe("g"), Err(ErrorCode::NotCoordinator));
    assert_eq!(machine.fetch_offsets(&text("g"), None, false), Err(ErrorCode::NotCoordinator));
}
