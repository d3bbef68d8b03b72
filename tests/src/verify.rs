//! `ottla verify` while faults happen: started, looked at, ended, and its verdict.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::{Cluster, eventually};
use crate::command::{binary, ottla};

/// A run may take this long to come to its end once the faults are over.
const END_TIMEOUT: Duration = Duration::from_secs(400);
/// Until something is written.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A verify run under way. Dropped, it is killed.
#[derive(Debug)]
pub struct Verify {
    child: Child,
    seed: u64,
    /// Its topic.
    pub topic: String,
    /// What it wrote and read.
    pub history: PathBuf,
    /// Its verdicts.
    pub report: PathBuf,
    /// What it says.
    pub log: PathBuf,
    acknowledged: Acknowledged,
}

/// What of a history is known to be acknowledged; reads on where it stopped.
#[derive(Debug, Default)]
struct Acknowledged {
    position: u64,
    /// Operation -> partition, of what is under way.
    sent: HashMap<u64, u64>,
    /// Partition -> batches.
    batches: HashMap<u64, u64>,
}

impl Acknowledged {
    fn read_on(&mut self, path: &Path) -> Result<()> {
        let mut file = BufReader::new(File::open(path)?);
        file.seek(SeekFrom::Start(self.position))?;
        let mut line = String::new();
        loop {
            line.clear();
            let length = file.read_line(&mut line)?;
            // The last line may be half written.
            if !line.ends_with('\n') {
                return Ok(());
            }
            self.position += length as u64;
            if !line.contains(r#""e":"sen"#) {
                continue;
            }
            let event: Value = serde_json::from_str(&line).context("the history")?;
            let operation = event["op"].as_u64().unwrap_or(u64::MAX);
            if event["e"] == "send" {
                self.sent.insert(operation, event["p"].as_u64().unwrap_or(u64::MAX));
            } else if let Some(partition) = self.sent.remove(&operation) {
                *self.batches.entry(partition).or_default() += 1;
            }
        }
    }
}

impl Verify {
    /// Starts it with a topic of its own, and waits until records are acknowledged: faults begin when there is something to lose.
    pub fn start(cluster: &Cluster, seed: u64, extra: &[&str]) -> Result<Self> {
        let mut verify = Self::start_at_once(cluster, seed, extra)?;
        eventually(BEGIN_TIMEOUT, "records are acknowledged", || {
            Ok(verify.acknowledged().ok().filter(|batches| *batches > 0))
        })
        .with_context(|| format!("{}\n{}", verify.said(), cluster.logs()))?;
        Ok(verify)
    }

    fn start_at_once(cluster: &Cluster, seed: u64, extra: &[&str]) -> Result<Self> {
        let in_directory = |name: &str| cluster.directory().join(name);
        let (history, report, log) =
            (in_directory("verify.history"), in_directory("verify.json"), in_directory("verify.log"));
        let topic = format!("ottla-verify-{seed}");
        let out = File::create(&log)?;
        let child = Command::new(binary())
            .args(["--bootstrap", &cluster.bootstrap(), "verify", "--duration", "1d"])
            .args(["--seed", &seed.to_string(), "--topic", &topic])
            .arg("--history")
            .arg(&history)
            .arg("--report")
            .arg(&report)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { child, seed, topic, history, report, log, acknowledged: Acknowledged::default() })
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs: it ends by itself only when it gives up.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Batches that are acknowledged so far.
    pub fn acknowledged(&mut self) -> Result<u64> {
        self.acknowledged.read_on(&self.history)?;
        Ok(self.acknowledged.batches.values().sum())
    }

    /// The same for each of so many partitions.
    pub fn acknowledged_by_partition(&mut self, partitions: u64) -> Result<Vec<u64>> {
        self.acknowledged.read_on(&self.history)?;
        let of = |partition| self.acknowledged.batches.get(&partition).copied().unwrap_or(0);
        Ok((0..partitions).map(of).collect())
    }

    /// Waits until something that begins after this call is acknowledged in each of so many partitions; gives how long that took.
    pub fn await_writes(&mut self, partitions: u64, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        let before = self.acknowledged_by_partition(partitions)?;
        let mut now = before.clone();
        let outcome = eventually(limit, "every partition is written to", || {
            now = self.acknowledged_by_partition(partitions)?;
            // One more than what was under way at the start for each of the writers.
            Ok(before.iter().zip(&now).all(|(before, now)| *now > before + WRITERS).then_some(()))
        });
        outcome.with_context(|| format!("acknowledged: {before:?}, then {now:?}\n{}", self.said()))?;
        Ok(began.elapsed())
    }

    /// SIGINT: it stops writing, reads to the end and judges.
    pub fn finish(&mut self) -> Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("verify does not come to its end");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As [`Self::finish`]; it must have held, with so many records acknowledged, and hold when the history is checked again. A
    /// failure keeps the history, the report and the logs, and says where.
    pub fn finish_held(&mut self, cluster: &Cluster, acknowledged_min: u64) -> Result<Value> {
        let outcome = self.judge(acknowledged_min);
        println!("{}", self.said());
        outcome.with_context(|| {
            format!(
                "seed {}; history, report and logs are in {}\n{}",
                self.seed,
                self.keep(cluster),
                self.said()
            )
        })
    }

    fn judge(&mut self, acknowledged_min: u64) -> Result<Value> {
        if !self.is_running() {
            bail!("verify gave up");
        }
        let status = self.finish()?;
        if !status.success() {
            bail!("not held: {status}");
        }
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&self.report)?)?;
        if report["counts"]["acknowledged"].as_u64() < Some(acknowledged_min) {
            bail!("too little was written: {report}");
        }
        let history = self.history.display().to_string();
        ottla(&["verify", "check", &history], b"")?.ok().context("checked again")?;
        Ok(report)
    }

    /// Keeps what tells of a failure: the directory of the cluster goes with the test. Gives where.
    pub fn keep(&self, cluster: &Cluster) -> String {
        let kept = std::env::temp_dir().join(format!("ottla-verify-{}", self.seed));
        // What cannot be kept is lost: the failure itself is told in any case.
        drop(std::fs::create_dir_all(&kept));
        for file in [&self.history, &self.report, &self.log] {
            if let Some(name) = file.file_name() {
                // What was never written cannot be kept.
                drop(std::fs::copy(file, kept.join(name)));
            }
        }
        drop(std::fs::write(kept.join("servers.log"), cluster.logs()));
        kept.display().to_string()
    }
}

/// `ottla verify` has so many producers when nobody says.
const WRITERS: u64 = 3;

impl Drop for Verify {
    fn drop(&mut self) {
        // It has ended by itself when the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
