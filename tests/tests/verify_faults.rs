//! `ottla verify` on real processes while they are killed, stopped and killed all at once. The long ones are ignored by default:
//! `cargo test -p ottla-tests --test verify_faults -- --ignored --nocapture --test-threads 1`, with a debug or release
//! `ottla` built before. `OTTLA_FAULT_ROUNDS` says how many faults, `OTTLA_FAULT_SEED` repeats their choice.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::Duration;

use ottla_tests::{Cluster, Dice, Verify, eventually, from_environment};

/// Longest time for which a process is stopped or down.
const DOWN_MS_MAX: u64 = 4_000;
/// Longest time between two faults.
const PAUSE_MS_MAX: u64 = 2_000;

/// What is done to the cluster in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9 of one, and its start a while later.
    Kill,
    /// SIGSTOP of one, SIGCONT a while later: it may take itself for a leader still.
    Pause,
    /// As [`Self::Pause`], killed while it stands still.
    PauseAndKill,
    /// kill -9 of one, and of another before the first is back.
    KillTwo,
    /// kill -9 of all at once.
    KillAll,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::Pause,
    Fault::Pause,
    Fault::PauseAndKill,
    Fault::KillTwo,
    Fault::KillAll,
];

impl Fault {
    fn inflict(self, cluster: &mut Cluster, dice: &mut Dice) {
        let node = dice.index(3);
        let down = dice.ms_up_to(DOWN_MS_MAX);
        println!("  {self:?} of node {} for {down:?}", node + 1);
        match self {
            Self::Kill => {
                cluster.nodes[node].kill().unwrap();
                std::thread::sleep(down);
                cluster.nodes[node].start().unwrap();
            }
            Self::Pause => {
                cluster.nodes[node].pause().unwrap();
                std::thread::sleep(down);
                cluster.nodes[node].resume().unwrap();
            }
            Self::PauseAndKill => {
                cluster.nodes[node].pause().unwrap();
                std::thread::sleep(down);
                cluster.nodes[node].kill().unwrap();
                cluster.nodes[node].start().unwrap();
            }
            Self::KillTwo => {
                let other = (node + 1) % 3;
                cluster.nodes[node].kill().unwrap();
                std::thread::sleep(down);
                cluster.nodes[other].kill().unwrap();
                std::thread::sleep(down);
                cluster.nodes[node].start().unwrap();
                cluster.nodes[other].start().unwrap();
            }
            Self::KillAll => {
                cluster.nodes.iter_mut().for_each(|node| node.kill().unwrap());
                std::thread::sleep(down);
                cluster.nodes.iter_mut().for_each(|node| node.start().unwrap());
            }
        }
    }
}

/// Waits until some node finds the cluster whole. A node that stood still may take long to learn who leads; that is not what
/// is judged here.
fn await_whole(cluster: &Cluster) {
    eventually(Duration::from_secs(60), "three brokers serve", || {
        for node in &cluster.nodes {
            let arguments =
                ["--server", &node.grpc(), "--timeout", "2s", "cluster", "await", "--brokers", "3"];
            let awaited = ottla_tests::ottla(&arguments, b"")?;
            if awaited.code == Some(0) {
                return Ok(Some(()));
            }
            println!("  node {}: {}", node.id, awaited.stderr.lines().next().unwrap_or_default());
        }
        Ok(None)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

fn run(rounds_default: u64, extra: &[&str]) {
    let rounds = from_environment("OTTLA_FAULT_ROUNDS").unwrap_or(rounds_default);
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed} OTTLA_FAULT_ROUNDS={rounds}");
    let mut dice = Dice::new(seed);
    let properties =
        [("transaction.state.log.num.partitions", "3"), ("transaction.state.log.replication.factor", "3")];
    let mut cluster = Cluster::start(3, &properties).unwrap();
    let mut verify = Verify::start(&cluster, seed, extra).unwrap();
    for round in 0..rounds {
        let fault = FAULTS[dice.index(FAULTS.len())];
        println!("round {round}");
        fault.inflict(&mut cluster, &mut dice);
        assert!(verify.is_running(), "verify gave up: {}", verify.keep(&cluster));
        await_whole(&cluster);
        std::thread::sleep(dice.ms_up_to(PAUSE_MS_MAX));
    }
    verify.finish_held(&cluster, rounds * 50 + 1).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Cuts the second half off every log of a node that does not run.
fn forget_half(node: &ottla_tests::Node) -> usize {
    let mut cut = 0;
    for entry in std::fs::read_dir(node.data_directory()).unwrap() {
        let directory = entry.unwrap().path();
        let is_ours =
            directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ottla-verify"));
        let log = directory.join("00000000000000000000.log");
        if is_ours && log.exists() {
            let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length / 2).unwrap();
            cut += usize::from(length > 1);
        }
    }
    cut
}

/// It must be able to fail: a broker that comes back without half of what it had acknowledged is refuted.
#[test]
fn verify_refutes_a_broker_that_forgets() {
    let mut cluster = Cluster::start(1, &[]).unwrap();
    let mut verify = Verify::start(&cluster, 1, &["--partitions", "2", "--rate", "500"]).unwrap();
    eventually(Duration::from_secs(60), "a hundred batches are acknowledged", || {
        Ok((verify.acknowledged()? > 100).then_some(()))
    })
    .unwrap();
    cluster.nodes[0].kill().unwrap();
    assert!(forget_half(&cluster.nodes[0]) > 0, "nothing was there to be forgotten");
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let status = verify.finish().unwrap();
    let said = verify.said();
    assert_eq!(status.code(), Some(1), "{said}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&verify.report).unwrap()).unwrap();
    let is_refuted = |name: &str| {
        report["verdicts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["invariant"] == name && one["state"] == "refuted")
    };
    assert!(is_refuted("no_loss"), "{said}");
    assert!(is_refuted("watermark_monotone"), "{said}");
}

/// S-L01 with three brokers, I25, I37, I41: kills, pauses and kills of all at once under writers and readers: nothing is lost, doubled or torn.
#[test]
#[ignore = "long"]
fn verify_holds_while_brokers_are_killed_and_paused() {
    run(20, &["--rate", "600"]);
}

/// The same with writers that give up soon: many outcomes are unknown, and what they gave up may land late.
#[test]
#[ignore = "long"]
fn verify_holds_when_writers_give_up_while_brokers_are_killed_and_paused() {
    run(20, &["--rate", "600", "--delivery-timeout", "300ms"]);
}

/// The same with transactions that consume, transform and produce.
#[test]
#[ignore = "long"]
fn transactional_verify_holds_while_brokers_are_killed_and_paused() {
    run(20, &["--transactions", "--rate", "200"]);
}

/// The same with transactions whose writers give up soon.
#[test]
#[ignore = "long"]
fn transactional_verify_holds_when_writers_give_up_while_brokers_are_killed_and_paused() {
    run(20, &["--transactions", "--rate", "200", "--delivery-timeout", "300ms"]);
}
