//! The metadata quorum on real processes: controllers that come, go, lose their disks, hand over and stand still.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, eventually, ottla};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn status(cluster: &Cluster) -> Option<Value> {
    cluster.ottla(&["quorum", "status", "--output", "json"]).ok()?.ok().ok()?.json().ok()
}

fn ids(members: &Value) -> Vec<i64> {
    let mut ids: Vec<i64> =
        members.as_array().unwrap().iter().map(|member| member["node_id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn await_members(cluster: &Cluster, voters: &[i64], observers: &[i64]) -> Value {
    let what = format!("voters {voters:?} and observers {observers:?}");
    eventually(LIMIT, &what, || {
        Ok(status(cluster)
            .filter(|quorum| ids(&quorum["voters"]) == voters && ids(&quorum["observers"]) == observers))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{:?}\n{}", status(cluster), logs(cluster)))
}

fn leader(cluster: &Cluster) -> i32 {
    let found = eventually(LIMIT, "a Raft leader", || {
        Ok(status(cluster).and_then(|quorum| quorum["leader_id"].as_i64()).filter(|id| *id >= 0))
    });
    i32::try_from(found.unwrap()).unwrap()
}

fn logs(cluster: &Cluster) -> String {
    let of = |node: &ottla_tests::Node| format!("--- node {}\n{}", node.id, node.log());
    cluster.nodes.iter().map(of).collect()
}

fn change(cluster: &Cluster, arguments: &[&str]) {
    let all: Vec<&str> = ["--timeout", "40s", "quorum"].iter().chain(arguments).copied().collect();
    cluster.ottla(&all).unwrap().ok().unwrap_or_else(|error| panic!("{error:#}\n{}", logs(cluster)));
}

fn start(cluster: &Cluster, arguments: &[&str]) -> Child {
    Command::new(ottla_tests::binary())
        .args(["--server", &cluster.server(), "--timeout", "40s"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Creates a topic, and it stays known.
fn topic(cluster: &Cluster, topics: &mut Vec<String>, name: &str) {
    cluster.create_topic(name, 3, 1, &[]).unwrap_or_else(|error| panic!("{error:#}\n{}", logs(cluster)));
    topics.push(name.to_owned());
}

fn assert_topics(cluster: &Cluster, topics: &[String]) {
    let listed = cluster.ottla(&["topic", "list", "--output", "json"]).unwrap().ok().unwrap().stdout;
    for topic in topics {
        assert!(listed.contains(&format!("\"{topic}\"")), "{topic} was acknowledged and is not in {listed}");
    }
}

/// Three controllers become four, five while the leader is killed in the midst of the change, and three others.
#[test]
fn controllers_come_and_go_while_topics_are_created_and_the_leader_dies() {
    let mut topics = Vec::new();
    let mut cluster = Cluster::start(3, &[]).unwrap();
    topic(&cluster, &mut topics, "three");
    let four = cluster.add_newcomer(&[]).unwrap();
    cluster.node(four).unwrap().start().unwrap();
    await_members(&cluster, &[1, 2, 3], &[4]);
    change(&cluster, &["add", "4"]);
    await_members(&cluster, &[1, 2, 3, 4], &[]);
    topic(&cluster, &mut topics, "four");

    let five = cluster.add_newcomer(&[]).unwrap();
    cluster.node(five).unwrap().start().unwrap();
    await_members(&cluster, &[1, 2, 3, 4], &[5]);
    let dead = leader(&cluster);
    let mut adding = start(&cluster, &["quorum", "add", "5"]);
    let mut creating = start(&cluster, &["topic", "create", "meanwhile", "--partitions", "1"]);
    std::thread::sleep(Duration::from_millis(60));
    cluster.node(dead).unwrap().kill().unwrap();
    adding.wait().unwrap();
    if creating.wait().unwrap().success() {
        topics.push("meanwhile".to_owned());
    }
    cluster.node(dead).unwrap().start().unwrap();
    // Whatever came of the first attempt: a second one ends with five voters, or finds them.
    eventually(LIMIT, "five voters", || {
        let again = cluster.ottla(&["quorum", "add", "5"])?;
        Ok((again.code == Some(0) || again.stderr.contains("votes already")).then_some(()))
    })
    .unwrap();
    await_members(&cluster, &[1, 2, 3, 4, 5], &[]);
    topic(&cluster, &mut topics, "five");

    change(&cluster, &["remove", "1"]);
    change(&cluster, &["remove", "2"]);
    await_members(&cluster, &[3, 4, 5], &[1, 2]);
    cluster.node(1).unwrap().stop().unwrap();
    cluster.node(2).unwrap().kill().unwrap();
    topic(&cluster, &mut topics, "other-three");
    // Of five voters three would have been needed; of these three two are enough.
    cluster.node(3).unwrap().kill().unwrap();
    eventually(LIMIT, "a leader among the newcomers", || {
        Ok([4, 5].contains(&leader(&cluster)).then_some(()))
    })
    .unwrap();
    eventually(LIMIT, "a topic of two controllers", || {
        Ok(cluster.create_topic("two", 1, 1, &[]).is_ok().then_some(()))
    })
    .unwrap();
    for id in [1, 2, 3] {
        cluster.node(id).unwrap().start().unwrap();
    }
    cluster.await_brokers(5).unwrap();
    await_members(&cluster, &[3, 4, 5], &[1, 2]);
    assert_topics(&cluster, &topics);
}

/// A voter that was removed holds no election: neither as it runs on nor when it comes back.
#[test]
fn a_controller_that_was_removed_disturbs_nobody() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    let removed = leader(&cluster);
    change(&cluster, &["remove", &removed.to_string()]);
    let others: Vec<i64> = (1..=3).filter(|id| *id != i64::from(removed)).collect();
    let before = await_members(&cluster, &others, &[removed.into()]);
    assert_ne!(before["leader_id"].as_i64(), Some(removed.into()));
    cluster.node(removed).unwrap().kill().unwrap();
    cluster.node(removed).unwrap().start().unwrap();
    cluster.await_brokers(3).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let after = await_members(&cluster, &others, &[removed.into()]);
    assert_eq!(after["leader_epoch"], before["leader_epoch"], "{}", logs(&cluster));
    // Two voters are left: without one of them nothing is decided, and that is said before.
    let follower = others.iter().find(|id| after["leader_id"].as_i64() != Some(**id)).unwrap();
    cluster.node(i32::try_from(*follower).unwrap()).unwrap().kill().unwrap();
    let last = after["leader_id"].to_string();
    let refused = cluster.ottla(&["quorum", "remove", &last]).unwrap();
    assert_ne!(refused.code, Some(0));
    cluster.node(i32::try_from(*follower).unwrap()).unwrap().start().unwrap();
    change(&cluster, &["add", &removed.to_string()]);
    await_members(&cluster, &[1, 2, 3], &[]);
}

/// A disk that was wiped is another member, with another directory id; what it had voted as is gone.
#[test]
fn a_wiped_disk_is_a_new_member() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    let mut topics = Vec::new();
    topic(&cluster, &mut topics, "before");
    let of = |quorum: &Value, id: i32| -> Vec<String> {
        let voters = quorum["voters"].as_array().unwrap().iter();
        voters
            .filter(|voter| voter["node_id"] == id)
            .map(|voter| voter["directory_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let quorum = await_members(&cluster, &[1, 2, 3], &[]);
    let wiped = i32::try_from(quorum["leader_id"].as_i64().unwrap()).unwrap();
    let old = of(&quorum, wiped);
    cluster.node(wiped).unwrap().kill().unwrap();
    std::fs::remove_dir_all(cluster.node(wiped).unwrap().data_directory()).unwrap();
    cluster.node(wiped).unwrap().start().unwrap();
    cluster.await_brokers(3).unwrap();
    eventually(LIMIT, "the new disk votes", || {
        let Some(quorum) = status(&cluster) else { return Ok(None) };
        let now = of(&quorum, wiped);
        Ok((now.len() == 1 && now != old && ids(&quorum["voters"]) == [1, 2, 3]).then_some(()))
    })
    .unwrap();
    assert_topics(&cluster, &topics);
}

/// `quorum transfer` has the node lead that is named; a leader that is stopped hands over before it ends.
#[test]
fn leadership_goes_where_it_is_sent_and_a_leader_that_stops_hands_over() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    for to in [1, 2, 3, 1] {
        let began = Instant::now();
        change(&cluster, &["transfer", &to.to_string()]);
        eventually(LIMIT, "the node that was named leads", || Ok((leader(&cluster) == to).then_some(())))
            .unwrap();
        println!("transfer to {to}: {:?}", began.elapsed());
    }
    cluster.node(1).unwrap().stop().unwrap();
    let began = Instant::now();
    assert_ne!(leader(&cluster), 1);
    println!("after a stop another leads within {:?}", began.elapsed());
    let refused = cluster.ottla(&["quorum", "transfer", "1"]).unwrap();
    assert!(refused.code != Some(0) && refused.stderr.contains("start it first"), "{}", refused.stderr);
}

/// Nodes that are controllers only and nodes that are brokers only. The brokers' files name controllers that are gone later.
#[test]
fn brokers_follow_controllers_that_their_files_do_not_name() {
    let mut cluster = Cluster::prepare(5, &[]).unwrap();
    let voters: Vec<String> =
        cluster.nodes[..3].iter().map(|node| format!("{}@{}", node.id, node.grpc())).collect();
    let voters = voters.join(",");
    for id in 1..=5 {
        let node = cluster.node(id).unwrap();
        let (kafka, grpc) = (node.kafka(), node.grpc());
        let (role, listeners) = if id <= 3 {
            ("controller", format!("CONTROLLER://{grpc}"))
        } else {
            ("broker", format!("PLAINTEXT://{kafka},CONTROLLER://{grpc}"))
        };
        let extra =
            [("process.roles", role), ("listeners", &*listeners), ("controller.quorum.voters", &*voters)];
        cluster.rewrite(id, &extra).unwrap();
    }
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    cluster.await_brokers(2).unwrap();
    let mut topics = Vec::new();
    topic(&cluster, &mut topics, "founders");
    for _ in 0..2 {
        let id = cluster.add_controller().unwrap();
        cluster.node(id).unwrap().start().unwrap();
        eventually(LIMIT, "the newcomer follows", || {
            Ok(status(&cluster).filter(|quorum| ids(&quorum["observers"]) == [i64::from(id)]))
        })
        .unwrap();
        change(&cluster, &["add", &id.to_string()]);
    }
    await_members(&cluster, &[1, 2, 3, 6, 7], &[]);
    for id in ["1", "2", "3"] {
        change(&cluster, &["remove", id]);
    }
    await_members(&cluster, &[6, 7], &[1, 2, 3]);
    for id in 1..=3 {
        cluster.node(id).unwrap().kill().unwrap();
    }
    let broker = cluster.node(4).unwrap().grpc();
    eventually(LIMIT, "a topic by the newcomers", || {
        let created =
            ottla(&["--server", &broker, "topic", "create", "newcomers", "--partitions", "2"], b"")?;
        Ok((created.code == Some(0) || created.stderr.contains("exists")).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", logs(&cluster)));
    let produced = ottla(
        &["--bootstrap", &cluster.node(4).unwrap().kafka(), "--server", &broker, "produce", "newcomers", "-"],
        b"a\nb\n",
    );
    produced.unwrap().ok().unwrap();
}

/// A leader that stood still learns soon after who leads now, and its node says so.
#[test]
fn a_leader_that_stood_still_soon_knows_who_leads() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    for round in 0..3 {
        let paused = leader(&cluster);
        cluster.node(paused).unwrap().pause().unwrap();
        let others: Vec<String> =
            cluster.nodes.iter().filter(|node| node.id != paused).map(ottla_tests::Node::grpc).collect();
        let server = others.join(",");
        let now = eventually(LIMIT, "another leads", || {
            let quorum = ottla(&["--server", &server, "quorum", "status", "--output", "json"], b"")?.ok()?;
            let leader = quorum.json()?["leader_id"].as_i64().unwrap_or(-1);
            Ok((leader >= 0 && leader != i64::from(paused)).then_some(leader))
        })
        .unwrap();
        // Shorter and longer than a broker's session.
        std::thread::sleep(Duration::from_secs(6 * round));
        cluster.node(paused).unwrap().resume().unwrap();
        let (own, began) = (cluster.node(paused).unwrap().grpc(), Instant::now());
        let mut missing = Duration::ZERO;
        let mut known = 0;
        // Known, and known for good: two seconds without a gap.
        while known < 20 {
            let asked =
                ottla(&["--server", &own, "--timeout", "2s", "cluster", "status", "--output", "json"], b"");
            let answer = asked.unwrap().json().unwrap_or_default();
            let controller = answer["controller_id"].as_i64().unwrap_or(-1);
            if controller == now {
                known += 1;
            } else {
                (known, missing) = (0, began.elapsed());
            }
            assert!(began.elapsed() < LIMIT, "round {round}: {answer}\n{}", logs(&cluster));
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("round {round}: the right one {missing:?} after it went on");
        assert!(missing < Duration::from_secs(5), "unknown until {missing:?}\n{}", logs(&cluster));
        cluster.await_brokers(3).unwrap();
    }
}
