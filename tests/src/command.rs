//! Runs the `ottla` binary as a user would.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The binary under test: `OTTLA_BINARY`, or the one that cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OTTLA_BINARY") {
        return path.into();
    }
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("ottla")
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output as one JSON document.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }

    /// This output, if the command ended well.
    pub fn ok(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!("ottla ended with {:?}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs `ottla ARGUMENTS` with `input` on its standard input.
pub fn ottla(arguments: &[&str], input: &[u8]) -> Result<Output> {
    let path = binary();
    let mut child = Command::new(&path)
        .args(arguments)
        .env_remove("OTTLA_SERVER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", path.display()))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_vec();
    // From a thread of its own: the command may print more than a pipe holds before it has read everything. A command
    // that ends without reading its input breaks the pipe, which its exit code explains.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    drop(writer.join());
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
