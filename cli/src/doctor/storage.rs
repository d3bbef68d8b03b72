//! The directories that a node writes.

use super::readings::Directory;
use super::{Finding, Level, Readings};
use crate::output::bytes;

/// File systems that keep a promise of fsync and are in use beneath Kafka everywhere.
const GOOD: [&str; 4] = ["xfs", "ext4", "ext3", "btrfs"];
/// Gone with the machine.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];
/// Over a network: locks and fsync mean less there, and a stall of the network is a stall of the disk.
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph"];
/// Percent of free space or inodes below which something must be done at once.
const FREE_PERCENT_MIN: u64 = 5;
/// Percent below which something must be done soon.
const FREE_PERCENT_GOOD: u64 = 15;

/// Judges all directories, each by itself and all together.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let mut findings: Vec<_> = readings.directories.iter().flat_map(judge).collect();
    findings.extend(shared(&readings.directories));
    findings
}

fn judge(directory: &Directory) -> Vec<Finding> {
    let path = directory.path.display().to_string();
    if let Some(reason) = &directory.refused {
        let why = "the node cannot write its logs there";
        let mend = format!("install -d -o ottla -g ottla {path}, with the user that the node runs as");
        return vec![Finding::bad(Level::Problem, path, reason.clone(), why, mend)];
    }
    vec![file_system(directory, &path), mount_options(directory, &path), space(directory, &path)]
}

fn file_system(directory: &Directory, path: &str) -> Finding {
    let kind = directory.file_system.as_str();
    let check = format!("file system of {path}");
    if VOLATILE.contains(&kind) {
        let why = "it is memory: a restart of the machine loses every record on it";
        return Finding::bad(
            Level::Problem,
            check,
            kind,
            why,
            "name a directory on a disk in log.dirs; mkfs.xfs DEVICE",
        );
    }
    if REMOTE.contains(&kind) || kind.starts_with("fuse") {
        let why =
            "locks and fsync mean less over a network, and a stall of the network is a stall of the log";
        let mend = "name a directory on a local disk in log.dirs: replication is what keeps records safe";
        return Finding::bad(Level::Warning, check, kind, why, mend);
    }
    if kind == "overlay" {
        let why = "it is the container's own layer: it goes with the container, and every write is slow";
        return Finding::bad(Level::Problem, check, kind, why, format!("mount a volume at {path}"));
    }
    if GOOD.contains(&kind) {
        return Finding::ok(check, kind);
    }
    let why = "Ottla is tested on ext4 and XFS";
    Finding::bad(Level::Advice, check, kind, why, "mkfs.xfs DEVICE, on an empty disk")
}

fn mount_options(directory: &Directory, path: &str) -> Finding {
    let check = format!("mount of {path}");
    let has = |option: &str| directory.options.iter().any(|one| one == option);
    let point = directory.mount_point.display();
    let remount = format!("mount -o remount,noatime {point}, and noatime in /etc/fstab");
    if has("noatime") {
        Finding::ok(check, "noatime")
    } else if has("relatime") {
        let why = "a read of a file writes its time of access once a day";
        Finding::bad(Level::Advice, check, "relatime", why, remount)
    } else {
        let why = "every read of a file writes its time of access";
        Finding::bad(Level::Warning, check, "times of access are written", why, remount)
    }
}

fn space(directory: &Directory, path: &str) -> Finding {
    let check = format!("space of {path}");
    let percent = |free: u64, total: u64| (total > 0).then(|| free.saturating_mul(100) / total);
    let shown = |count: u64| bytes(i64::try_from(count).unwrap_or(i64::MAX));
    let kinds = [
        (percent(directory.free_bytes, directory.total_bytes), "space"),
        // Some file systems have no fixed number of inodes and say 0.
        (percent(directory.free_inodes, directory.total_inodes), "inodes"),
    ];
    let least = kinds.into_iter().filter_map(|(percent, what)| Some((percent?, what))).min();
    match least {
        Some((percent, what)) if percent < FREE_PERCENT_GOOD => {
            let level = if percent < FREE_PERCENT_MIN { Level::Problem } else { Level::Warning };
            let why = "on a full disk producers are refused, and compaction stops";
            let mend = "'ottla broker describe ID' shows the largest replicas; lower retention.ms or retention.bytes of their topics";
            Finding::bad(level, check, format!("{percent} % of {what} free"), why, mend)
        }
        _ => Finding::ok(
            check,
            format!("{} of {} free", shown(directory.free_bytes), shown(directory.total_bytes)),
        ),
    }
}

/// Several directories on one disk share its space and its fate: naming both gains nothing.
fn shared(directories: &[Directory]) -> Vec<Finding> {
    let usable: Vec<_> = directories.iter().filter(|directory| directory.refused.is_none()).collect();
    let twin = |at: usize| usable[..at].iter().find(|other| other.mount_point == usable[at].mount_point);
    (0..usable.len())
        .filter_map(|at| {
            let (one, other) = (usable[at].path.display(), twin(at)?.path.display());
            let finding = format!("{one} and {other} are on one file system");
            let why = "partitions are spread over log.dirs as over disks; here the same disk seeks for both and fails for both";
            Some(Finding::bad(Level::Advice, "log.dirs", finding, why, "name one directory a disk in log.dirs"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(file_system: &str, options: &[&str], free_percent: u64) -> Directory {
        Directory {
            path: "/data".into(),
            refused: None,
            file_system: file_system.into(),
            mount_point: "/data".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            total_bytes: 100 << 30,
            free_bytes: free_percent << 30,
            total_inodes: 0,
            free_inodes: 0,
        }
    }

    fn levels(directory: Directory) -> Vec<Level> {
        let readings = Readings { directories: vec![directory], ..Readings::default() };
        check(&readings).into_iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_good_disk_is_good() {
        assert_eq!(levels(directory("xfs", &["rw", "noatime"], 50)), [Level::Ok; 3]);
    }

    #[test]
    fn file_systems_are_known() {
        for (kind, level) in [
            ("tmpfs", Level::Problem),
            ("overlay", Level::Problem),
            ("nfs4", Level::Warning),
            ("fuseblk", Level::Warning),
            ("zfs", Level::Advice),
            ("ext4", Level::Ok),
        ] {
            assert_eq!(levels(directory(kind, &["noatime"], 50))[0], level, "{kind}");
        }
    }

    #[test]
    fn times_of_access_and_space_are_judged() {
        assert_eq!(levels(directory("xfs", &["relatime"], 50))[1], Level::Advice);
        assert_eq!(levels(directory("xfs", &["rw"], 50))[1], Level::Warning);
        assert_eq!(levels(directory("xfs", &["noatime"], 15))[2], Level::Ok);
        assert_eq!(levels(directory("xfs", &["noatime"], 14))[2], Level::Warning);
        assert_eq!(levels(directory("xfs", &["noatime"], 4))[2], Level::Problem);
        let few = Directory { total_inodes: 1_000, free_inodes: 10, ..directory("ext4", &["noatime"], 50) };
        let finding = space(&few, "/data");
        assert_eq!((finding.level, finding.finding.as_str()), (Level::Problem, "1 % of inodes free"));
    }

    #[test]
    fn what_cannot_be_written_is_one_problem() {
        let refused = Directory { refused: Some("Permission denied".into()), ..directory("xfs", &[], 50) };
        assert_eq!(levels(refused), [Level::Problem]);
    }

    #[test]
    fn two_directories_on_one_disk_are_told() {
        let other = Directory { path: "/data/b".into(), ..directory("xfs", &["noatime"], 50) };
        let readings =
            Readings { directories: vec![directory("xfs", &["noatime"], 50), other], ..Readings::default() };
        let findings = check(&readings);
        assert_eq!(findings.last().unwrap().finding, "/data/b and /data are on one file system");
    }
}
