//! Takes the readings: files below `/proc` and `/sys`, mounts, limits, ports, the other nodes. Judges nothing, and what cannot be
//! read is left out. Nothing is changed but for a file that is written to each log directory and removed again.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ottla_broker::security::own_certificates;
use ottla_broker::security::properties::ListenerProperties;

use super::certificate;
use super::kernel;
use super::readings::{
    Advertised, Certificate, Directory, Listening, Memory, Peer, PeerFailure, Port, Readings, SecretFile,
    TAKEN,
};
use crate::http_client;
use crate::node_config::{Address, Findings, HttpAddress, Listener, NodeConfig};

/// How long another node is waited for.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Processes that keep a machine's time, as the kernel names them: 15 characters at most.
const TIME_SERVICES: [&str; 5] = ["chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys"];
/// What process 1 is called where all of a machine's processes can be seen.
const INITS: [&str; 3] = ["systemd", "init", "openrc-init"];

/// Reads the machine; with a configuration also what that names.
pub(crate) fn read(config: Option<(Option<NodeConfig>, Findings)>) -> Readings {
    let mut readings = Readings {
        kernel: kernel::names().filter_map(|name| Some((name.to_owned(), setting(name)?))).collect(),
        open_files: Some(open_files()),
        memory: memory(),
        time_service: time_service(),
        clock_source: fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .ok(),
        huge_pages: fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .ok()
            .and_then(|text| chosen(&text).map(str::to_owned)),
        now_s: now_s(),
        ..Readings::default()
    };
    if let Some((config, findings)) = config {
        readings.problems = findings.problems.iter().map(ToString::to_string).collect();
        if let Some(config) = config {
            add_node(&mut readings, &config);
        }
    }
    readings
}

fn add_node(readings: &mut Readings, config: &NodeConfig) {
    readings.properties = BTreeMap::clone(&config.properties);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The metadata may have a disk of their own.
    let base = config.metadata_dir.parent().map(Path::to_owned);
    let base = base.filter(|base| !config.log_dirs.contains(base));
    readings.directories = config.log_dirs.iter().chain(&base).map(|path| directory(path, &mounts)).collect();
    let holder = config.log_dirs.iter().find_map(|path| holder(path));
    readings.node_runs = holder.is_some();
    if let Some(limit) = holder.and_then(|process| limits_of(&process)) {
        readings.open_files = Some(limit);
    }
    let names = config.advertised.iter().map(|listener| (&listener.name, &listener.address));
    readings.advertised = names.map(|(name, address)| advertised(name, address)).collect();
    let grpc = config.grpc.iter().map(|grpc| (&grpc.listener.name, &grpc.listener.address));
    let kafka = config.listeners.iter().map(|listener| (&listener.name, &listener.address));
    let http = "HTTP".to_owned();
    let all = kafka.chain(grpc).chain(config.http.iter().map(|bound| (&http, &bound.address)));
    readings.ports = all.map(|(name, address)| port(name, address)).collect();
    let own = config.voters.iter().find(|(id, _)| *id == config.node_id).map(|(_, address)| address);
    let others = config.controllers.iter().filter(|address| Some(*address) != own);
    // Every peer in a thread of its own: those that do not answer are waited for at the same time.
    let peers: Vec<_> = others
        .cloned()
        .map(|address| {
            let http = config.http.clone();
            std::thread::spawn(move || peer(&address, http))
        })
        .collect();
    readings.peers = peers.into_iter().filter_map(|peer| peer.join().ok()).collect();
    readings.certificates = certificates(&config.properties);
    let grpc = config.grpc.iter().map(|grpc| (&grpc.listener, true));
    let all = config.listeners.iter().map(|listener| (listener, false)).chain(grpc);
    let listening = |(listener, is_controller): (&Listener, bool)| Listening {
        name: listener.name.clone(),
        host: listener.address.host.clone(),
        protocol: config.protocol(&listener.name),
        is_controller,
    };
    readings.listeners = all.map(listening).collect();
    readings.secret_files = secret_files(&config.properties);
}

/// Key stores that the properties name, and files of tokens.
fn secret_files(properties: &BTreeMap<String, String>) -> Vec<SecretFile> {
    use std::os::unix::fs::MetadataExt;
    let read = |(name, path): (&String, &String)| {
        if !name.ends_with("ssl.keystore.location") {
            return None;
        }
        let mode = fs::metadata(path).ok()?.mode();
        Some(SecretFile { property: name.clone(), path: path.into(), mode })
    };
    properties.iter().filter_map(read).collect()
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn setting(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()
}

/// What a node started here may have: it takes the hard limit by itself.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// The process that holds a log directory, as the directory's lock tells; `None`: nobody does.
fn holder(log_dir: &Path) -> Option<String> {
    let path = log_dir.join(".lock");
    let lock = fs::File::open(&path).ok()?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).err()?;
    Some(fs::read_to_string(&path).unwrap_or_default().trim().to_owned())
}

/// How many files a node may have open. Its number may be one of a container, where this machine counts otherwise.
fn limits_of(process: &str) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(Path::new("/proc").join(process).join(file));
    let is_node = read("cmdline").ok()?.split('\0').any(|word| word == "server" || word == "dev");
    is_node.then(|| open_files_in(&read("limits").ok()?)).flatten()
}

/// Of `/proc/PID/limits` the soft limit, which is what counts.
fn open_files_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn advertised(name: &str, address: &Address) -> Advertised {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let unknown = match found {
        Ok(mut all) => all.next().is_none().then(|| "none".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    Advertised { name: name.to_owned(), address: address.to_string(), unknown }
}

/// The machine's memory, or a container's share of it.
fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1_024))
    };
    let (total, available) = (value("MemTotal")?, value("MemAvailable")?);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.into_iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let total_bytes = limit.map_or(total, |limit| limit.min(total));
    let swap_bytes = value("SwapTotal").unwrap_or(0);
    Some(Memory { total_bytes, available_bytes: available.min(total_bytes), swap_bytes })
}

fn time_service() -> Option<bool> {
    let name = |process: &Path| Some(fs::read_to_string(process.join("comm")).ok()?.trim().to_owned());
    if !INITS.contains(&name(Path::new("/proc/1"))?.as_str()) {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| name(&entry.path()));
    Some(processes.into_iter().any(|name| TIME_SERVICES.contains(&name.as_str())))
}

/// Of `always [madvise] never` the one in brackets.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen)
}

fn directory(path: &Path, mounts: &str) -> Directory {
    // What is not there yet is judged by the directory that it will be made in.
    let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let there = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    let mount = mount_of(mounts, &there).unwrap_or_default();
    let space = rustix::fs::statvfs(&there).ok();
    let space = space.as_ref();
    Directory {
        path: path.to_owned(),
        refused: write_refused(&there),
        file_system: mount.file_system,
        mount_point: mount.point,
        options: mount.options,
        total_bytes: space.map_or(0, |space| space.f_blocks.saturating_mul(space.f_frsize)),
        free_bytes: space.map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize)),
        total_inodes: space.map_or(0, |space| space.f_files),
        free_inodes: space.map_or(0, |space| space.f_favail),
    }
}

/// Tries it: neither mode nor owner tell what a read-only mount or a security module refuse.
fn write_refused(directory: &Path) -> Option<String> {
    let path = directory.join(format!(".ottla-doctor-{}", std::process::id()));
    let written = fs::write(&path, b"").and_then(|()| fs::remove_file(&path));
    written.err().map(|error| format!("cannot be written: {error}"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    options: Vec<String>,
    file_system: String,
}

/// The mount that a path lies on, out of `/proc/self/mountinfo`: the last of the longest, for mounts cover one another.
fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let all = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let point = PathBuf::from(left.next()?.replace("\\040", " "));
        let options = left.next()?.split(',').map(str::to_owned).collect();
        Some(Mount { point, options, file_system: right.split(' ').next()?.to_owned() })
    });
    all.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.as_os_str().len())
}

fn port(name: &str, address: &Address) -> Port {
    let host = if address.host.is_empty() { "0.0.0.0" } else { &address.host };
    let refused = TcpListener::bind((host, address.port)).err().map(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => TAKEN.to_owned(),
        _ => error.to_string(),
    });
    let address = Address { host: host.to_owned(), port: address.port }.to_string();
    Port { name: name.to_owned(), address, refused }
}

fn peer(address: &Address, http: Option<HttpAddress>) -> Peer {
    let reached = match (address.host.as_str(), address.port).to_socket_addrs() {
        Err(error) => Err(PeerFailure::Name(error.to_string())),
        Ok(all) => {
            let mut reached = Err(PeerFailure::Name("none".to_owned()));
            for one in all {
                reached = std::net::TcpStream::connect_timeout(&one, PEER_TIMEOUT)
                    .map(drop)
                    .map_err(|error| PeerFailure::Connection(error.to_string()));
                if reached.is_ok() {
                    break;
                }
            }
            reached
        }
    };
    // Nodes of one cluster mostly have their HTTP ports alike. Where not, there is no answer and nothing is said.
    let clock_ahead_s = http.filter(|_| reached.is_ok()).and_then(|mut http| {
        address.host.clone_into(&mut http.address.host);
        let answer = http_client::get(&http, "/livez", PEER_TIMEOUT).ok()?;
        Some(http_client::date_s(answer.date.as_deref()?)? - now_s())
    });
    Peer { address: address.to_string(), reached, clock_ahead_s }
}

/// The key stores that the properties name, opened as the node does it.
fn certificates(properties: &BTreeMap<String, String>) -> Vec<Certificate> {
    let all = std::sync::Arc::new(properties.clone());
    let read = |(name, value): (&String, &String)| {
        let is_store = ["ssl.keystore.location", "ssl.keystore.certificate.chain"]
            .into_iter()
            .any(|property| name.ends_with(property));
        if !is_store || value.trim().is_empty() {
            return None;
        }
        let listener = name.strip_prefix("listener.name.").and_then(|rest| rest.split_once('.'));
        let view = ListenerProperties::new(all.clone(), listener.map_or("", |(listener, _)| listener));
        let chain = own_certificates(&view).map_err(|error| {
            let text = error.to_string();
            // The finding names the property already.
            text.split_once(": ").map_or(text.clone(), |(_, reason)| reason.to_owned())
        });
        Some(Certificate {
            property: name.clone(),
            ends_s: chain.and_then(|chain| certificate::chain_ends_s(&chain)),
        })
    };
    properties.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_that_covers_a_path_is_its_mount() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:26 / /data rw,noatime - xfs /dev/vdb rw\n\
                      31 22 0:27 / /my\\040disk rw - btrfs /dev/vdc rw\n";
        let of = |path: &str| mount_of(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/data/a").file_system, "xfs");
        assert_eq!(of("/data/a").options, ["rw", "noatime"]);
        assert_eq!(of("/database").file_system, "ext4");
        assert_eq!(of("/my disk/x").file_system, "btrfs");
        assert_eq!(mount_of("", Path::new("/")), None);
        assert_eq!(mount_of("nonsense - \n - x\n", Path::new("/")), None);
    }

    #[test]
    fn a_running_node_is_known_by_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(holder(directory.path()), None);
        fs::write(directory.path().join(".lock"), "77\n").unwrap();
        assert_eq!(holder(directory.path()), None, "a file that a node left");
        let lock = fs::File::open(directory.path().join(".lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(holder(directory.path()).as_deref(), Some("77"));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files_in(limits), Some(1_024));
        assert_eq!(limits_of("self"), None, "no node");
    }

    #[test]
    fn the_chosen_of_several_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn a_directory_that_can_be_written_is_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(write_refused(directory.path()), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(write_refused(Path::new("/proc")).is_some());
    }

    #[test]
    fn certificates_of_every_form_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        fs::write(&file, include_str!("testdata/ends-2030-01-02.pem")).unwrap();
        let file = file.display().to_string();
        let of = |pairs: &[(&str, &str)]| {
            certificates(&pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
        };
        assert_eq!(of(&[("ssl.keystore.location", "")]), []);
        let found = of(&[("ssl.keystore.type", "PEM"), ("listener.name.x.ssl.keystore.location", &file)]);
        assert_eq!(found[0].ends_s, Ok(1_893_553_445));
        let missing = of(&[("ssl.keystore.type", "PEM"), ("ssl.keystore.location", "/no/such/file")]);
        assert!(missing[0].ends_s.is_err());
        // What Java's keytool makes, with its password and without.
        let store = concat!(env!("CARGO_MANIFEST_DIR"), "/../broker/src/security/tls/fixtures/key.p12");
        let open = [("ssl.keystore.location", store), ("ssl.keystore.password", "store-secret")];
        assert!(of(&open)[0].ends_s.as_ref().is_ok_and(|ends_s| *ends_s > 1_700_000_000));
        assert!(of(&open[..1])[0].ends_s.is_err());
    }

    #[test]
    fn this_machine_can_be_read() {
        let readings = read(None);
        assert!(readings.open_files.is_some() && readings.memory.is_some() && readings.now_s > 1_700_000_000);
    }
}
