//! Who gets in, and what others can read on the way: listeners, users, keys.

use ottla_broker::security::SecurityProtocol;
use ottla_metadata::config::{get_list, get_string};

use super::{Finding, Level, Readings};
use crate::node_config::HttpAddress;

const AUTHORIZER: &str = "authorizer.class.name";
/// Bits of a file's mode that let others than its owner and its group read it.
const READ_BY_OTHERS: u32 = 0o004;

/// Judges a node's security, if there is a configuration.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    if readings.listeners.is_empty() {
        return Vec::new();
    }
    let mut findings = listeners(readings);
    findings.extend(http(readings));
    findings.extend(rules(readings));
    findings.extend(files(readings));
    findings
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn listeners(readings: &Readings) -> Vec<Finding> {
    let offers_plain = get_list(&readings.properties, "sasl.enabled.mechanisms").contains(&"PLAIN");
    let judge = |listener: &super::readings::Listening| {
        let check = format!("listener {}", listener.name);
        let host = if listener.host.is_empty() { "every address" } else { &listener.host };
        let spoken = format!("{} on {host}", listener.protocol);
        if is_local(&listener.host) {
            return Finding::ok(check, format!("{spoken}: reached from this machine only"));
        }
        let map = "listener.security.protocol.map";
        match listener.protocol {
            SecurityProtocol::Plaintext if listener.is_controller => Finding::bad(
                Level::Warning,
                check,
                spoken,
                "whoever reaches it can change the cluster, and join its quorum: nobody is asked who they are",
                format!(
                    "{map}={}:SSL (or SASL_SSL) on every node, or a network that only nodes reach",
                    listener.name
                ),
            ),
            SecurityProtocol::Plaintext => Finding::bad(
                Level::Advice,
                check,
                spoken,
                "whoever reaches it reads and writes all topics, and every line can be listened to",
                format!("{map}={}:SASL_SSL, or a network that only clients you trust reach", listener.name),
            ),
            SecurityProtocol::SaslPlaintext => Finding::bad(
                if offers_plain { Level::Warning } else { Level::Advice },
                check,
                spoken,
                if offers_plain {
                    "passwords of PLAIN go over the network as they are, and so do all records"
                } else {
                    "records go over the network as they are"
                },
                format!("{map}={}:SASL_SSL", listener.name),
            ),
            SecurityProtocol::Ssl | SecurityProtocol::SaslSsl => Finding::ok(check, spoken),
        }
    };
    readings.listeners.iter().map(judge).collect()
}

/// The console takes the logins of Kafka listeners: they are no better kept than its port keeps them.
fn http(readings: &Readings) -> Option<Finding> {
    const NAME: &str = "ottla.http.listener";
    let takes_logins = readings.listeners.iter().any(|listener| listener.protocol.uses_sasl());
    let bound = HttpAddress::parse(get_string(&readings.properties, NAME)).ok()?;
    if !takes_logins || bound.is_tls || is_local(&bound.address.host) {
        return None;
    }
    Some(Finding::bad(
        Level::Advice,
        NAME,
        format!("plain on {}", bound.address),
        "passwords that are typed into the console go over the network as they are",
        format!("{NAME}=https://{}, or an address of this machine alone", bound.address),
    ))
}

fn rules(readings: &Readings) -> Vec<Finding> {
    let properties = &readings.properties;
    let mut findings = Vec::new();
    let knows_callers =
        readings.listeners.iter().any(|listener| listener.protocol != SecurityProtocol::Plaintext);
    let has_rules = !get_string(properties, AUTHORIZER).is_empty();
    if knows_callers && !has_rules {
        findings.push(Finding::bad(
            Level::Warning,
            "rules",
            "callers say who they are, and everybody may do everything",
            "a user, or a certificate, of the least of clients can delete every topic",
            format!(
                "{AUTHORIZER}=org.apache.kafka.metadata.authorizer.StandardAuthorizer and super.users on every node, then 'ottla acl add'"
            ),
        ));
    }
    let set =
        |name: &str| properties.get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if has_rules && set("allow.everyone.if.no.acl.found") {
        findings.push(Finding::bad(
            Level::Warning,
            "allow.everyone.if.no.acl.found",
            "what no rule names is open to everybody",
            "a new topic is readable and writable until somebody thinks of it",
            "take it out, and give rights by name: 'ottla acl add --topic orders- --prefixed …'",
        ));
    }
    let super_users = properties.get("super.users").map(String::as_str).unwrap_or_default();
    if has_rules && super_users.split(';').any(|user| user.trim() == "User:ANONYMOUS") {
        findings.push(Finding::bad(
            Level::Problem,
            "super.users",
            "User:ANONYMOUS is among them",
            "whoever does not say who they are may do everything: the rules hold only for the honest",
            "name the users of the nodes and of the administrators instead",
        ));
    }
    let is_unnamed = properties.get("ssl.endpoint.identification.algorithm").is_some_and(String::is_empty);
    if is_unnamed && readings.listeners.iter().any(|listener| listener.protocol.uses_tls()) {
        findings.push(Finding::bad(
            Level::Advice,
            "ssl.endpoint.identification.algorithm",
            "the names on certificates are not looked at",
            "any certificate of the same authority can stand for any node",
            "take the empty value out, and put each node's name on its certificate",
        ));
    }
    findings
}

fn files(readings: &Readings) -> Vec<Finding> {
    let judge = |file: &super::readings::SecretFile| {
        let check = file.property.clone();
        let path = file.path.display();
        if file.mode & READ_BY_OTHERS == 0 {
            return Finding::ok(check, format!("{path} is read by its owner and group"));
        }
        Finding::bad(
            Level::Warning,
            check,
            format!("{path} can be read by everybody on this machine (mode {:o})", file.mode & 0o777),
            "it holds keys or passwords",
            format!("chmod 640 {path}"),
        )
    };
    readings.secret_files.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::readings::{Listening, SecretFile};
    use super::*;

    fn listening(name: &str, host: &str, protocol: SecurityProtocol) -> Listening {
        Listening { name: name.into(), host: host.into(), protocol, is_controller: name == "CONTROLLER" }
    }

    fn readings(listeners: Vec<Listening>, set: &[(&str, &str)]) -> Readings {
        let pairs = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Readings { listeners, properties: pairs.collect::<BTreeMap<_, _>>(), ..Readings::default() }
    }

    fn levels(readings: &Readings) -> Vec<Level> {
        check(readings).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn what_is_open_is_told_by_how_bad_it_is() {
        use SecurityProtocol::{Plaintext, SaslPlaintext, SaslSsl, Ssl};
        assert_eq!(check(&Readings::default()), []);
        let of = |listeners: Vec<Listening>| levels(&readings(listeners, &[]));
        assert_eq!(of(vec![listening("PLAINTEXT", "127.0.0.1", Plaintext)]), [Level::Ok]);
        assert_eq!(of(vec![listening("PLAINTEXT", "0.0.0.0", Plaintext)]), [Level::Advice]);
        assert_eq!(of(vec![listening("CONTROLLER", "", Plaintext)]), [Level::Warning]);
        assert_eq!(
            of(vec![listening("A", "[::1]", Plaintext), listening("CONTROLLER", "::1", Plaintext)]),
            [Level::Ok; 2]
        );
        // Who says who they are without rules: a warning beside the listener's own.
        assert_eq!(of(vec![listening("A", "h", Ssl)]), [Level::Ok, Level::Warning]);
        let http = ("ottla.http.listener", "https://:9644");
        let rules = [(AUTHORIZER, "x"), ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256"), http];
        assert_eq!(levels(&readings(vec![listening("A", "h", SaslPlaintext)], &rules)), [Level::Warning]);
        assert_eq!(levels(&readings(vec![listening("A", "h", SaslSsl)], &rules)), [Level::Ok]);
        assert_eq!(
            levels(&readings(vec![listening("A", "h", SaslSsl)], &rules[..2])),
            [Level::Ok, Level::Advice]
        );
    }

    #[test]
    fn rules_that_rule_nothing_are_told() {
        let listeners = || vec![listening("A", "h", SecurityProtocol::Ssl)];
        let with = |name, value| levels(&readings(listeners(), &[(AUTHORIZER, "x"), (name, value)]));
        assert_eq!(with("allow.everyone.if.no.acl.found", "true"), [Level::Ok, Level::Warning]);
        assert_eq!(with("super.users", "User:a; User:ANONYMOUS"), [Level::Ok, Level::Problem]);
        assert_eq!(with("super.users", "User:a"), [Level::Ok]);
        assert_eq!(with("ssl.endpoint.identification.algorithm", ""), [Level::Ok, Level::Advice]);
    }

    #[test]
    fn keys_are_for_their_owner() {
        let file =
            |mode| SecretFile { property: "ssl.keystore.location".into(), path: "/k.pem".into(), mode };
        let mut readings = readings(vec![listening("A", "::1", SecurityProtocol::Plaintext)], &[]);
        readings.secret_files = vec![file(0o100_640), file(0o100_644)];
        assert_eq!(levels(&readings), [Level::Ok, Level::Ok, Level::Warning]);
    }
}
