//! The binary as scripts see it: exit codes, stdout, stderr. No cluster is needed.

use std::path::Path;
use std::process::{Command, Output};

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:1";

const GOOD: &str = "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
";

fn ottla(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    // The tester's own settings must not matter.
    for name in ["OTTLA_SERVER", "OTTLA_BOOTSTRAP", "OTTLA_PROFILE", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a temporary file");
    path.display().to_string()
}

#[test]
fn help_and_version_go_to_stdout_with_0() {
    for arguments in [&["--help"][..], &["--version"], &["topic", "create", "--help"]] {
        let output = ottla(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn a_wrong_call_is_2_and_says_so_on_stderr() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["topic", "create"],
        &["topic", "list", "--server", "no-port"],
        &["topic", "list", "--output", "markdown"],
        &["topic", "list", "--profile", "nowhere"],
        &["produce", "t", "--acks", "2"],
        &["consume", "t", "--from", "tomorrow"],
        &["config", "get", "a"],
    ] {
        let output = ottla(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_1_with_an_error_and_a_hint() {
    for arguments in [
        &["topic", "list"][..],
        &["topic", "delete", "t", "--yes"],
        &["cluster", "status"],
        &["quorum", "status"],
        &["broker", "list"],
        &["config", "get", "--cluster"],
        &["consume", "t"],
        &["produce", "t"],
        &["cluster", "await", "--timeout", "100ms"],
    ] {
        let output = ottla(&[&["--server", NOBODY], arguments].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{stderr}");
    }
}

#[test]
fn deleting_where_nobody_can_be_asked_needs_yes() {
    let output = ottla(&["--server", NOBODY, "topic", "delete", "t"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--yes"));
}

#[test]
fn config_check_tells_all_problems_and_gives_0_or_1() {
    let directory = tempfile::tempdir().unwrap();
    let good = written(directory.path(), "good.properties", GOOD);
    let output = ottla(&["config", "check", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let bad =
        written(directory.path(), "bad.properties", &format!("{GOOD}log.segment.byte=1\nnum.partitions=0\n"));
    let output = ottla(&["config", "check", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains(":6: log.segment.byte: no such property; did you mean log.segment.bytes?"),
        "{stdout}"
    );
    assert!(stdout.contains(":7: num.partitions: ") && stdout.contains("2 problems"), "{stdout}");
    let output = ottla(&["--output", "json", "config", "check", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["valid"].as_bool(), json["problems"][0]["line"].as_u64()), (Some(false), Some(6)));
    assert_eq!(ottla(&["config", "check", "/no/such/file"]).status.code(), Some(1));
}

#[test]
fn a_server_with_a_bad_file_is_2_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = format!("{GOOD}log.dirs={}\nnod.id=1\nlog.segment.bytes=1\n", data.display());
    let file = written(directory.path(), "bad.properties", &file);
    let output = ottla(&["server", "--config", &file]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr).lines().filter(|line| line.starts_with("error: ")).count(), 2);
    assert!(!data.exists());
    assert_eq!(ottla(&["server", "--config", "/no/such/file"]).status.code(), Some(2));
}

#[test]
fn the_reference_comes_as_table_json_and_markdown() {
    for (format, part) in [("table", "NAME"), ("markdown", "| Property |"), ("json", "\"properties\"")] {
        let output = ottla(&["config", "reference", "--output", format]);
        assert_eq!(output.status.code(), Some(0), "{format}");
        let stdout = text(&output.stdout);
        assert!(stdout.contains(part) && stdout.contains("log.segment.bytes"), "{format}");
    }
}

#[test]
fn completions_and_the_manual_are_printed() {
    for arguments in [&["completion", "bash"][..], &["completion", "zsh"], &["completion", "fish"], &["man"]]
    {
        let output = ottla(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("ottla"), "{arguments:?}");
    }
}

#[test]
fn log_dump_is_1_when_something_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), "00000000000000000000.log", "");
    assert_eq!(ottla(&["log", "dump", &path]).status.code(), Some(0));
    let path = written(directory.path(), "00000000000000000007.log", "this is no batch at all");
    let output = ottla(&["log", "dump", &path, "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (json["files"][0]["kind"].as_str(), json["files"][0]["problems"].as_array().map(Vec::len)),
        (Some("segment"), Some(1))
    );
    assert_eq!(ottla(&["log", "dump", "/no/such/path"]).status.code(), Some(1));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["config", "reference", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_health_check_of_a_node_that_is_not_there_is_1() {
    let output = ottla(&["cluster", "await", "--local", "--http", NOBODY, "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: not ready within 200ms: 127.0.0.1:1: "), "{message}");
    let output = ottla(&["cluster", "await", "--local", "--brokers", "3"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_server_without_a_file_is_told_by_the_environment() {
    let output = ottla(&["server"]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: process.roles: is missing"), "{message}");
    assert!(message.contains("hint: name a property file with --config, or set properties as"), "{message}");
}

#[test]
fn a_history_is_judged_by_the_exit_code() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let history = |runs: &str| {
        [
            r#"{"e":"history","version":1,"topics":[{"name":"t","partitions":1}],"idempotent":true,"transactions":false,"seed":1,"started_ms":0}"#,
            r#"{"e":"reader","r":0,"committed":false}"#,
            r#"{"e":"send","t":1,"op":0,"w":0,"p":0,"n":0,"c":2}"#,
            r#"{"e":"sent","t":2,"op":0,"o":0}"#,
            &format!(r#"{{"e":"poll","s":3,"t":4,"r":0,"p":0,"from":0,"next":2,"hw":2,"epoch":0,"runs":{runs}}}"#),
            r#"{"e":"final","t":5,"ends":[2]}"#,
            "",
        ]
        .join("\n")
    };
    let sound = written(directory.path(), "sound", &history("[[0,0,0,2]]"));
    let output = ottla(&["verify", "check", &sound]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = directory.path().join("report.json").display().to_string();
    let broken = written(directory.path(), "broken", &history("[[0,0,0,1]]"));
    let output = ottla(&["verify", "check", &broken, "--report", &report]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("REFUTED   no acknowledged record is lost: once"));
    let report = std::fs::read_to_string(report).expect("a report");
    assert!(report.contains("\"held\": false") && report.contains("\"no_loss\""), "{report}");
    let nonsense = written(directory.path(), "nonsense", "hello\n");
    let output = ottla(&["verify", "check", &nonsense]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("line 1"), "{}", text(&output.stderr));
    assert_eq!(ottla(&["verify", "--duration", "1s", "--records", "5"]).status.code(), Some(2));
}
