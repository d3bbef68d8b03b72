//! Properties that are valid one by one and yet not what anybody wants.

use ottla_metadata::config::{get_i32, get_list, get_string};

use super::{Finding, Level, Readings};

/// Judges the configuration, if there is one.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !readings.problems.is_empty() {
        findings.push(Finding::bad(
            Level::Problem,
            "configuration",
            readings.problems.join("; "),
            "the node does not start",
            "ottla config check FILE",
        ));
    }
    if !readings.properties.is_empty() {
        findings.extend(copies(readings));
        findings.extend(places(readings));
    }
    findings
}

fn copies(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "copies of records";
    let properties = &readings.properties;
    let nodes = get_list(properties, "controller.quorum.voters").len();
    let factor = get_i32(properties, "default.replication.factor");
    let minimum = get_i32(properties, "min.insync.replicas");
    let set = "in every node's properties; topics that are there already: ottla topic alter NAME --set min.insync.replicas=2";
    if nodes < 3 {
        return None;
    }
    Some(if factor < 2 {
        Finding::bad(
            Level::Warning,
            CHECK,
            "topics have one copy unless somebody asks for more (default.replication.factor=1)",
            "the loss of one disk is the loss of its partitions",
            format!("default.replication.factor=3 and min.insync.replicas=2 {set}"),
        )
    } else if minimum >= factor {
        Finding::bad(
            Level::Warning,
            CHECK,
            format!("min.insync.replicas={minimum} of {factor} copies"),
            "one node that is away, if only to be restarted, stops every producer with acks=all",
            format!("min.insync.replicas={} {set}", factor - 1),
        )
    } else if minimum < 2 {
        Finding::bad(
            Level::Warning,
            CHECK,
            format!("{factor} copies, but one is enough to acknowledge (min.insync.replicas=1)"),
            "a record acknowledged while the others were away is gone with the disk of that one",
            format!("min.insync.replicas=2 {set}"),
        )
    } else {
        Finding::ok(CHECK, format!("{factor}, of which {minimum} acknowledge"))
    })
}

fn places(readings: &Readings) -> Option<Finding> {
    let properties = &readings.properties;
    let mut directories = get_list(properties, "log.dirs");
    directories.push(get_string(properties, "metadata.log.dir"));
    let temporary =
        directories.into_iter().find(|path| path.starts_with("/tmp/") || path.starts_with("/var/tmp/"))?;
    Some(Finding::bad(
        Level::Warning,
        "log.dirs",
        temporary,
        "systems empty their directories for temporary files when they start, or by age",
        "install -d -o ottla -g ottla /var/lib/ottla, and name it in log.dirs",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: (&str, &str) = ("controller.quorum.voters", "1@a:1,2@b:1,3@c:1");

    fn levels(set: &[(&str, &str)]) -> Vec<Level> {
        let properties = set.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        check(&Readings { properties, ..Readings::default() })
            .into_iter()
            .map(|finding| finding.level)
            .collect()
    }

    #[test]
    fn copies_are_judged_where_there_are_nodes_for_them() {
        let dirs = ("log.dirs", "/data");
        let of = |factor: &str, minimum: &str| {
            levels(&[THREE, dirs, ("default.replication.factor", factor), ("min.insync.replicas", minimum)])
        };
        assert_eq!(of("3", "2"), [Level::Ok]);
        assert_eq!(of("3", "1"), [Level::Warning]);
        assert_eq!(of("3", "3"), [Level::Warning]);
        assert_eq!(of("1", "1"), [Level::Warning]);
        assert_eq!(levels(&[("controller.quorum.voters", "1@a:1"), dirs]), []);
    }

    #[test]
    fn temporary_directories_are_told() {
        assert_eq!(levels(&[("log.dirs", "/data,/tmp/kraft-logs")]), [Level::Warning]);
        assert_eq!(levels(&[("log.dirs", "/tmpfs")]), []);
    }

    #[test]
    fn a_configuration_with_problems_is_a_problem() {
        let readings = Readings { problems: vec!["a".into(), "b".into()], ..Readings::default() };
        let findings = check(&readings);
        assert_eq!((findings[0].level, findings[0].finding.as_str()), (Level::Problem, "a; b"));
    }
}
