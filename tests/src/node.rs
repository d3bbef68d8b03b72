//! One `ottla server` process: its property file, its directory, its life.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::eventually;
use crate::command::binary;

/// A node may take this long to stop when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Its node id.
    pub id: i32,
    /// Port of its Kafka listener.
    pub kafka_port: u16,
    /// Port of its gRPC listener.
    pub grpc_port: u16,
    /// Port of its HTTP listener.
    pub http_port: u16,
    /// The address of its listeners.
    host: String,
    directory: PathBuf,
    /// What runs the binary: it is put before it, and replaces itself by it.
    runner: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    process: Option<Child>,
}

impl Node {
    pub(crate) fn new(id: i32, host: &str, ports: [u16; 3], directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let [kafka_port, grpc_port, http_port] = ports;
        Ok(Self {
            id,
            kafka_port,
            grpc_port,
            http_port,
            host: host.to_owned(),
            directory,
            runner: Vec::new(),
            environment: Vec::new(),
            process: None,
        })
    }

    /// From its next start on it is run by `runner ottla server …`. The runner must become the server (`exec`), so that signals
    /// reach it.
    pub fn run_by(&mut self, runner: &[&str]) {
        self.runner = runner.iter().map(OsString::from).collect();
    }

    /// From its next start on it has this variable in its environment.
    pub fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.into()));
    }

    /// The address of its listeners.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where its property file, data and log are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its `log.dirs`.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its Kafka address.
    pub fn kafka(&self) -> String {
        format!("{}:{}", self.host, self.kafka_port)
    }

    /// Its gRPC address.
    pub fn grpc(&self) -> String {
        format!("{}:{}", self.host, self.grpc_port)
    }

    /// Its HTTP address.
    pub fn http(&self) -> String {
        format!("{}:{}", self.host, self.http_port)
    }

    /// The number of its process.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    pub(crate) fn write_properties(&self, properties: &[(String, String)]) -> Result<()> {
        let text: String =
            properties.iter().fold(String::new(), |text, (name, value)| text + name + "=" + value + "\n");
        std::fs::write(self.directory.join("server.properties"), text)?;
        Ok(())
    }

    /// Starts the process.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("node {} runs already", self.id);
        }
        let log: File =
            OpenOptions::new().create(true).append(true).open(self.directory.join("server.log"))?;
        let mut words = self.runner.clone();
        words.push(binary().into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["server", "--config"])
            .arg(self.directory.join("server.properties"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", words[0].display()))?;
        self.process = Some(child);
        Ok(())
    }

    /// kill -9: no goodbye.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(STOP_TIMEOUT).map(drop)
    }

    /// SIGTERM: a controlled shutdown.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(STOP_TIMEOUT)
    }

    /// SIGSTOP: the process stands still, its sockets stay. Returns when every thread does.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.process_id().unwrap_or_default());
        let is_stopped = |stat: String| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'));
        eventually(STOP_TIMEOUT, "every thread stands still", || {
            for task in std::fs::read_dir(&tasks)? {
                // A thread that has just ended has no state.
                let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
                if !is_stopped(stat) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.process.as_ref().with_context(|| format!("node {} does not run", self.id))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("signal to node {}", self.id))
    }

    /// Waits for the process to end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut child = self.process.take().with_context(|| format!("node {} does not run", self.id))?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("node {} did not end within {limit:?}; its log ends:\n{}", self.id, self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // A paused process dies of SIGKILL too. It may have ended by itself: nothing to do then.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
