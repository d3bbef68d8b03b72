//! `ottla debug bundle`: everything that whoever helps will ask for, in one archive: no secrets, no records.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use ottla_metadata::config::{ConfigKind, definition};
use ottla_proto::admin::{Broker, Config, ConfigScope, DescribeConfigsRequest};
use serde::Serialize;
use serde_json::json;

use crate::admin::Admin;
use crate::doctor::{self, reader};
use crate::failure::Failure;
use crate::http_client;
use crate::node_config::{self, HttpAddress, NodeConfig};
use crate::output::{self, counted};
use crate::profile::Session;

/// Of each log file its end is taken: what is older seldom helps, and an archive has to be sent somewhere.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Metrics of one node.
const METRICS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A node that does not answer in this time is left out.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// What stands for a secret.
const SECRET: &str = "(secret)";

/// What can be done to find a fault.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Gather settings without secrets, metadata, metrics and logs in one tar.gz archive
    Bundle(Bundle),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla debug bundle
  ottla debug bundle fault.tar.gz --node-config server.properties --log /var/log/ottla.log

What cannot be had is left out and named in bundle.json. Secrets are left out everywhere; names of topics, users, hosts and
groups are not.")]
pub(crate) struct Bundle {
    /// The archive to write [default: ottla-debug-SECONDS.tar.gz]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A node's property file: it is added without its secrets, and 'ottla doctor' looks at what it names
    #[arg(long, value_name = "FILE")]
    node_config: Vec<PathBuf>,
    /// A log file, of which the last 16 MiB are added
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Document {
    file: String,
    files: Vec<String>,
    /// What could not be had, and why.
    missing: BTreeMap<String, String>,
}

/// What has been gathered.
struct Gathered {
    files: Vec<(String, Vec<u8>)>,
    missing: BTreeMap<String, String>,
}

impl Gathered {
    fn add(&mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.files.push((name.into(), content.into()));
    }

    /// An answer as text, or why there is none.
    fn answer<T: Debug, E: std::fmt::Display>(&mut self, name: &str, answer: &Result<T, E>) {
        match answer {
            Ok(answer) => self.add(format!("{name}.txt"), format!("{answer:#?}\n")),
            Err(error) => self.miss(name, error),
        }
    }

    fn miss(&mut self, name: &str, why: &impl std::fmt::Display) {
        self.missing.insert(name.to_owned(), why.to_string());
    }
}

impl DebugCommand {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let Self::Bundle(bundle) = self;
        bundle.run(session).await
    }
}

impl Bundle {
    async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let file = self.file.clone().unwrap_or_else(|| format!("ottla-debug-{now_s}.tar.gz").into());
        let mut gathered = Gathered { files: Vec::new(), missing: BTreeMap::new() };
        match Admin::connect(session).await {
            Ok(mut admin) => cluster(&mut admin, session, &mut gathered).await,
            // Then the cluster is what is broken: what this machine has is all the more wanted.
            Err(failure) => gathered.miss("cluster", &failure),
        }
        self.machine(&mut gathered).await;
        for path in &self.log {
            let name = name_of("logs", path);
            match end_of(path) {
                Ok(end) => gathered.add(name, end),
                Err(error) => gathered.miss(&name, &error),
            }
        }
        let about = json!({
            "ottla": env!("CARGO_PKG_VERSION"),
            "written_at_s": now_s,
            "servers": session.servers,
            "missing": gathered.missing,
        });
        gathered.add("bundle.json", serde_json::to_vec_pretty(&about)?);
        write(&file, &gathered.files, now_s).with_context(|| format!("cannot write {}", file.display()))?;
        let document = Document {
            file: file.display().to_string(),
            files: gathered.files.into_iter().map(|(name, _)| name).collect(),
            missing: gathered.missing,
        };
        session.output.done(&document, |document| {
            let missing = document.missing.iter().map(|(name, why)| format!("missing: {name}: {why}"));
            let head = format!("{} with {}", document.file, counted(document.files.len(), "file"));
            output::lines(std::iter::once(head).chain(missing))
        })
    }

    /// What this machine has to say: its own readings, and the property files that were named.
    async fn machine(&self, gathered: &mut Gathered) {
        let mut texts: Vec<Option<String>> = vec![None];
        for path in &self.node_config {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    gathered.add(name_of("properties", path), without_secrets(&text));
                    texts.push(Some(text));
                }
                Err(error) => gathered.miss(&name_of("properties", path), &error),
            }
        }
        // Of a machine without a named file its settings alone are judged.
        if texts.len() > 1 {
            texts.remove(0);
        }
        for (at, text) in texts.into_iter().enumerate() {
            let judge = move || {
                let loaded = text.map(|text| NodeConfig::load(&text, node_config::environment(), &[]));
                doctor::examine(&reader::read(loaded))
            };
            match tokio::task::spawn_blocking(judge)
                .await
                .map(|findings| serde_json::to_vec_pretty(&findings))
            {
                Ok(Ok(findings)) => gathered.add(format!("doctor-{}.json", at + 1), findings),
                Ok(Err(error)) => gathered.miss("doctor", &error),
                Err(error) => gathered.miss("doctor", &error),
            }
        }
    }
}

/// What the cluster has to say, over the admin plane and the HTTP ports of its nodes.
async fn cluster(admin: &mut Admin, session: &Session, gathered: &mut Gathered) {
    let described = admin.describe_cluster().await;
    gathered.answer("cluster", &described);
    gathered.answer("quorum", &admin.describe_quorum().await);
    gathered.answer("features", &admin.describe_features().await);
    gathered.answer("topics", &admin.describe_topics(Vec::new()).await);
    gathered.answer("quotas", &admin.list_quotas().await);
    gathered.answer("users", &admin.list_users().await);
    gathered.answer("acls", &admin.list_acls(ottla_proto::admin::AclFilter::default()).await);
    let request = DescribeConfigsRequest { scope: ConfigScope::Cluster.into(), ..Default::default() };
    let configs = admin.describe_configs(request).await;
    match configs {
        Ok(configs) => gathered.add("configs/cluster.properties", properties(&configs)),
        Err(failure) => gathered.miss("configs/cluster", &failure),
    }
    for broker in described.map(|cluster| cluster.brokers).unwrap_or_default() {
        let name = format!("node-{}", broker.id);
        if let Err(why) = node(&broker, session, gathered).await {
            gathered.miss(&name, &why);
        }
    }
}

/// One node, asked itself: nobody else knows its property file.
async fn node(broker: &Broker, session: &Session, gathered: &mut Gathered) -> Result<(), String> {
    if broker.grpc_endpoint.is_empty() {
        return Err("it has no gRPC listener".to_owned());
    }
    let session = Session { timeout: session.timeout.min(NODE_TIMEOUT), ..session.clone() };
    let mut admin = Admin::connect_to(&broker.grpc_endpoint, &session).await?;
    gathered.answer(&format!("replicas/node-{}", broker.id), &admin.describe_replicas(Vec::new()).await);
    let scope = ConfigScope::Broker.into();
    let request = DescribeConfigsRequest { scope, name: broker.id.to_string(), keys: Vec::new() };
    let configs = admin.describe_configs(request).await.map_err(|failure| failure.to_string())?;
    gathered.add(format!("configs/node-{}.properties", broker.id), properties(&configs));
    let bound = configs.iter().find(|config| config.name == "ottla.http.listener");
    let bound = bound.and_then(|config| config.value.clone()).filter(|value| !value.is_empty());
    let bound = bound.ok_or("it has no HTTP port")?;
    let mut target = HttpAddress::parse(&bound)?;
    if target.address.is_wildcard() {
        let host = broker.grpc_endpoint.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
        host.unwrap_or("127.0.0.1").clone_into(&mut target.address.host);
    }
    // Whoever named authorities wants servers checked by them.
    let tls = session.access.server().map_err(|failure| failure.to_string())?.tls();
    for path in ["metrics", "readyz"] {
        let (target, url, tls) = (target.clone(), format!("/{path}"), tls.clone());
        let ask = move || http_client::get_up_to(&target, &url, NODE_TIMEOUT, METRICS_BYTES_MAX, tls);
        let answer = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
        let answer = answer.map_err(|error| format!("{path}: {error}"))?;
        gathered.add(format!("{path}/node-{}.txt", broker.id), answer.body + "\n");
    }
    Ok(())
}

/// Settings with where they come from; what is secret came without its value.
fn properties(configs: &[Config]) -> String {
    let mut lines: Vec<String> = configs
        .iter()
        .map(|config| {
            let value = match (&config.value, config.sensitive) {
                (_, true) => SECRET,
                (Some(value), false) => value,
                (None, false) => "",
            };
            format!("{}={value}  # {}\n", config.name, config.source)
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// A property file line by line: a value stays only where its name is known to be no secret's.
fn without_secrets(text: &str) -> String {
    let mut out = String::new();
    let mut is_continued = false;
    for line in text.lines() {
        let continues = line.ends_with('\\');
        if is_continued {
            // The rest of a value over several lines: a certificate, a JAAS line. Nothing is lost that helps.
            is_continued = continues;
            continue;
        }
        is_continued = continues;
        let trimmed = line.trim_start();
        let shown = match trimmed.split_once(['=', ':']) {
            // A comment may hold what was once set.
            _ if trimmed.starts_with(['#', '!']) => String::new(),
            Some((name, value)) => {
                let name = name.trim();
                let is_open = definition(ConfigKind::Broker, name).is_some_and(|found| !found.sensitive);
                format!("{name}={}", if is_open && !continues { value.trim() } else { SECRET })
            }
            None if trimmed.is_empty() => String::new(),
            None => SECRET.to_owned(),
        };
        out.push_str(&shown);
        out.push('\n');
    }
    out
}

fn name_of(folder: &str, path: &Path) -> String {
    // The whole path: files of several nodes have one name.
    let flat = path.display().to_string().replace(['/', '\\'], "_");
    format!("{folder}/{}", flat.trim_start_matches('_'))
}

fn end_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut end)?;
    Ok(end)
}

fn write(path: &Path, files: &[(String, Vec<u8>)], now_s: u64) -> anyhow::Result<()> {
    let file =
        std::fs::File::options().write(true).create_new(true).open(path).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    anyhow::Error::from(Failure::new("it is there already").hint("name another file"))
                }
                _ => error.into(),
            }
        })?;
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::default()));
    let folder = path.file_name().and_then(|name| name.to_str()).unwrap_or("ottla-debug");
    let folder = folder.strip_suffix(".tar.gz").unwrap_or(folder);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(0o600);
        header.set_mtime(now_s);
        archive.append_data(&mut header, format!("{folder}/{name}"), content.as_slice())?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_file_keeps_what_is_known_to_be_no_secret() {
        let text = "# ssl.key.password=old\nnode.id=1\n  log.dirs : /data\nssl.key.password=hunter2\n\
                    listener.name.x.plain.sasl.jaas.config=Module required \\\n  password=\"hunter2\";\n\
                    my.own.key=hunter2\nbroker.rack=a\nnonsense hunter2\n";
        let shown = without_secrets(text);
        assert!(!shown.contains("hunter2") && !shown.contains("old"), "{shown}");
        for line in ["node.id=1", "log.dirs=/data", "ssl.key.password=(secret)", "broker.rack=a"] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
    }

    #[test]
    fn an_archive_holds_its_files_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar.gz");
        let files = [("a/b.txt".to_owned(), b"hello".to_vec()), ("c".to_owned(), Vec::new())];
        write(&path, &files, 1).unwrap();
        let decoder = flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap());
        let mut archive = tar::Archive::new(decoder);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content));
        }
        assert_eq!(found, [("x/a/b.txt".to_owned(), "hello".to_owned()), ("x/c".to_owned(), String::new())]);
        assert!(format!("{:#}", write(&path, &files, 1).unwrap_err()).contains("there already"));
    }

    #[test]
    fn of_a_log_its_end_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        assert_eq!(end_of(file.path()).unwrap(), b"0123456789");
        assert_eq!(name_of("logs", Path::new("/var/log/x.log")), "logs/var_log_x.log");
    }
}
