//! Where a node's settings come from: the file, the environment, `--set`; the later wins over the earlier.

use std::collections::BTreeMap;
use std::fmt;

use ottla_metadata::config::{ConfigKind, definition, nearest, replacement_note, validate};
use ottla_metadata::properties;

use super::pod::{self, Pod};

/// What stands in front of a variable that sets a property: `OTTLA_LOG_SEGMENT_BYTES`.
const PREFIX: &str = "OTTLA_";
/// Variables that are something else: flags of the command line, the log's filter, and what our own tests use.
const OTHER_VARIABLES: [&str; 19] = [
    "OTTLA_SERVER",
    "OTTLA_BOOTSTRAP",
    "OTTLA_BOOTSTRAP_USER",
    "OTTLA_TLS_CA",
    "OTTLA_TLS_CERT",
    "OTTLA_TLS_KEY",
    "OTTLA_SASL_MECHANISM",
    "OTTLA_SASL_USER",
    "OTTLA_SASL_PASSWORD",
    "OTTLA_SASL_PASSWORD_FILE",
    "OTTLA_SASL_TOKEN_FILE",
    "OTTLA_COMMAND_CONFIG",
    "OTTLA_SERVER_PROTOCOL",
    "OTTLA_PROFILE",
    "OTTLA_LOG",
    "OTTLA_BINARY",
    "OTTLA_CONFIG",
    pod::NAME,
    pod::NODE_ID_OFFSET,
];

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the file.
    Line(usize),
    /// A variable of the environment.
    Variable(String),
    /// `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// Something that is wrong, or of which the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `None`: nobody made the setting.
    pub(crate) origin: Option<Origin>,
    /// The property.
    pub(crate) name: String,
    /// What is wrong with it and what to do.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// A setting and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    value: String,
    origin: Origin,
}

/// All settings that were made, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<String, Setting>);

/// What is wrong so far, and what is only worth a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The node must not start.
    pub(crate) problems: Vec<Problem>,
    /// It may.
    pub(crate) warnings: Vec<Problem>,
    /// The log is to be JSON, whatever else is wrong.
    pub(crate) wants_json: bool,
}

impl Findings {
    /// Notes that a property is wrong.
    pub(super) fn problem(&mut self, settings: &Settings, name: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            origin: settings.origin(name),
            name: name.to_owned(),
            message: message.into(),
        });
    }

    /// Whether something was wrong with a property by itself.
    pub(super) fn have(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| problem.name == name)
    }

    /// Lines in their order, then the rest.
    pub(super) fn sort(&mut self) {
        let place = |problem: &Problem| match &problem.origin {
            Some(Origin::Line(line)) => (0, *line),
            Some(Origin::Variable(_)) => (1, 0),
            Some(Origin::Flag) => (2, 0),
            None => (3, 0),
        };
        self.problems.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }
}

impl Settings {
    /// Puts the three together and checks every name and value by itself.
    pub(super) fn gather(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
        findings: &mut Findings,
    ) -> Self {
        let mut settings = Self::default();
        for property in properties::parse(text) {
            let origin = Origin::Line(property.line);
            if let Some(Setting { origin: Origin::Line(before), .. }) = settings.0.get(&property.name) {
                let message = format!("is given twice; this line counts, line {before} does not");
                let name = property.name.clone();
                findings.warnings.push(Problem { origin: Some(origin.clone()), name, message });
            }
            settings.0.insert(property.name, Setting { value: property.value, origin });
        }
        let environment: Vec<_> = environment.into_iter().collect();
        let pod = Pod::read(&environment).unwrap_or_else(|problem| {
            findings.problems.push(problem);
            None
        });
        for (variable, value) in environment {
            let value = pod.as_ref().map_or(value.clone(), |pod| pod.fill(&value));
            settings.take_variable(variable, value, findings);
        }
        for (name, value) in flags {
            settings.0.insert(name.clone(), Setting { value: value.clone(), origin: Origin::Flag });
        }
        if let Some(pod) = pod {
            settings.place_pod(pod);
        }
        settings.check_values(findings);
        settings
    }

    /// A pod's node id is its ordinal unless somebody has set one; a pod beyond the voters is a broker only, so that one
    /// StatefulSet of combined nodes can have more replicas than controllers.
    fn place_pod(&mut self, pod: Pod) {
        let origin = Origin::Variable(pod::NAME.to_owned());
        if self.filled("node.id").is_none() && self.filled("broker.id").is_none() {
            let value = pod.node_id.to_string();
            self.0.insert("node.id".to_owned(), Setting { value, origin: origin.clone() });
        }
        let id = self.filled("node.id").unwrap_or_default();
        let is_voter = self.filled("controller.quorum.voters").is_none_or(|voters| {
            voters.split(',').any(|voter| voter.split_once('@').is_some_and(|(voter, _)| voter.trim() == id))
        });
        let both = self.filled("process.roles").is_some_and(|roles| {
            ["broker", "controller"].iter().all(|role| roles.split(',').any(|item| item.trim() == *role))
        });
        if both && !is_voter {
            self.0.insert("process.roles".to_owned(), Setting { value: "broker".to_owned(), origin });
        }
    }

    fn take_variable(&mut self, variable: String, value: String, findings: &mut Findings) {
        let Some(words) = variable.strip_prefix(PREFIX) else { return };
        if OTHER_VARIABLES.contains(&variable.as_str()) {
            return;
        }
        let name = words.to_ascii_lowercase().replace('_', ".");
        let own = format!("ottla.{name}");
        let all = listener_property(words).into_iter().chain([own, name.clone()]);
        let known = all.into_iter().find(|name| definition(ConfigKind::Broker, name).is_some());
        match known {
            Some(name) => {
                self.0.insert(name, Setting { value, origin: Origin::Variable(variable) });
            }
            // Only a warning: container platforms put variables of their own into the environment, among them
            // OTTLA_SERVICE_HOST for a service of the name "ottla".
            None => findings.warnings.push(Problem {
                origin: Some(Origin::Variable(variable)),
                message: format!("no such property{}; the variable has no effect", suggestion(&name)),
                name,
            }),
        }
    }

    /// Drops what is wrong, so that the checks across properties do not report it a second time.
    fn check_values(&mut self, findings: &mut Findings) {
        let all = std::mem::take(&mut self.0);
        for (name, setting) in all {
            let origin = Some(setting.origin.clone());
            let note = replacement_note(&name);
            let Some(found) = definition(ConfigKind::Broker, &name) else {
                match note {
                    Some(note) => findings.warnings.push(no_effect(origin, name, note)),
                    None => {
                        let message = format!("no such property{}", suggestion(&name));
                        findings.problems.push(Problem { origin, name, message });
                    }
                }
                continue;
            };
            match validate(ConfigKind::Broker, &name, &setting.value) {
                Ok(value) => {
                    if let Some(note) = note.filter(|_| !value.is_empty() && found.default != Some(&value)) {
                        findings.warnings.push(no_effect(origin, name.clone(), note));
                    }
                    self.0.insert(name, Setting { value, ..setting });
                }
                Err(message) => {
                    let range = if found.valid.is_empty() {
                        String::new()
                    } else {
                        format!("; allowed: {}", found.valid)
                    };
                    findings.problems.push(Problem { origin, name, message: message + &range });
                }
            }
        }
    }

    /// What was set, if it was.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|setting| setting.value.as_str())
    }

    /// What was set, if it is not empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Who set it.
    pub(super) fn origin(&self, name: &str) -> Option<Origin> {
        self.0.get(name).map(|setting| setting.origin.clone())
    }

    /// Names and values.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, setting)| (name.clone(), setting.value.clone())).collect()
    }
}

/// SASL mechanisms that may stand between a listener and its property, as variables spell them and as properties do.
const MECHANISMS: [(&str, &str); 4] = [
    ("plain_", "plain."),
    ("scram_sha_256_", "scram-sha-256."),
    ("scram_sha_512_", "scram-sha-512."),
    ("oauthbearer_", "oauthbearer."),
];

/// `LISTENER_NAME_SASL_SSL_SCRAM_SHA_256_SASL_JAAS_CONFIG` is `listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config`: names of
/// listeners and of mechanisms have lines of their own. The first place where a property begins ends the listener's name.
fn listener_property(words: &str) -> Option<String> {
    let words = words.to_ascii_lowercase();
    let rest = words.strip_prefix("listener_name_")?;
    rest.match_indices('_').find_map(|(at, _)| {
        let (listener, property) = (&rest[..at], &rest[at + 1..]);
        let (mechanism, property) = MECHANISMS
            .iter()
            .find_map(|(word, name)| Some((*name, property.strip_prefix(word)?)))
            .unwrap_or(("", property));
        let property = property.replace('_', ".");
        // By itself first: else "ssl" of SASL_SSL would pass for a mechanism.
        definition(ConfigKind::Broker, &property)?;
        let name = format!("listener.name.{listener}.{mechanism}{property}");
        definition(ConfigKind::Broker, &name).map(|_| name)
    })
}

fn no_effect(origin: Option<Origin>, name: String, note: &str) -> Problem {
    Problem { origin, name, message: format!("has no effect here: {note}") }
}

fn suggestion(name: &str) -> String {
    nearest(ConfigKind::Broker, name).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> (Settings, Findings) {
        let mut findings = Findings::default();
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let settings = Settings::gather(text, owned(environment), &owned(flags), &mut findings);
        findings.sort();
        (settings, findings)
    }

    fn shown(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
        let text = "log.segment.bytes=1048576\nnum.partitions=1\nnode.id=1\n";
        let environment = [("OTTLA_LOG_SEGMENT_BYTES", "2097152"), ("OTTLA_NUM_PARTITIONS", "2")];
        let (settings, findings) = gather(text, &environment, &[("num.partitions", "3")]);
        assert_eq!(findings, Findings::default());
        assert_eq!(settings.get("node.id"), Some("1"));
        assert_eq!(settings.get("log.segment.bytes"), Some("2097152"));
        assert_eq!(settings.get("num.partitions"), Some("3"));
        assert_eq!(settings.origin("num.partitions"), Some(Origin::Flag));
    }

    #[test]
    fn our_own_properties_need_no_second_prefix_in_the_environment() {
        let (settings, _) =
            gather("", &[("OTTLA_HTTP_LISTENER", "127.0.0.1:1"), ("OTTLA_LOG", "debug")], &[]);
        assert_eq!(settings.get("ottla.http.listener"), Some("127.0.0.1:1"));
        assert_eq!(settings.values().len(), 1);
    }

    #[test]
    fn an_unknown_name_is_a_problem_with_its_line_and_the_nearest_name() {
        let (_, findings) =
            gather("# a comment\nlog.segment.byte=1048576\n\nxyzzy=1\n", &[], &[("nod.id", "1")]);
        assert_eq!(
            shown(&findings.problems),
            [
                "line 2: log.segment.byte: no such property; did you mean log.segment.bytes?",
                "line 4: xyzzy: no such property",
                "--set: nod.id: no such property; did you mean node.id?",
            ]
        );
    }

    #[test]
    fn an_unknown_variable_is_only_a_warning() {
        let (_, findings) = gather("", &[("OTTLA_SERVICE_HOST", "10.0.0.1")], &[]);
        assert_eq!(findings.problems, []);
        assert_eq!(findings.warnings.len(), 1);
    }

    #[test]
    fn a_wrong_value_is_a_problem_that_tells_the_range() {
        let (settings, findings) =
            gather("log.segment.bytes=10\nauto.create.topics.enable=maybe\n", &[], &[]);
        let problems = shown(&findings.problems);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("line 1: log.segment.bytes: Invalid value 10"), "{}", problems[0]);
        assert!(problems[0].contains("1048576"), "{}", problems[0]);
        assert!(problems[1].contains("either true or false"), "{}", problems[1]);
        assert_eq!(settings.get("log.segment.bytes"), None);
    }

    #[test]
    fn names_of_the_java_world_are_taken_with_a_warning_each() {
        let (_, findings) = gather("zookeeper.connect=a:2181\nmetric.reporters=com.example.R\n", &[], &[]);
        assert_eq!(findings.problems, []);
        let warnings = shown(&findings.warnings);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with("line 1: zookeeper.connect: has no effect here: there is no ZooKeeper")
        );
    }

    #[test]
    fn a_pod_is_the_node_of_its_ordinal_unless_a_node_id_is_set() {
        let pod = ("OTTLA_POD_NAME", "ottla-2");
        let listeners = ("OTTLA_ADVERTISED_LISTENERS", "PLAINTEXT://ottla-{ordinal}.ottla:{ordinal+9000}");
        let (settings, findings) = gather("", &[listeners, pod, ("OTTLA_NODE_ID_OFFSET", "10")], &[]);
        assert_eq!(findings, Findings::default());
        assert_eq!(settings.get("node.id"), Some("12"));
        assert_eq!(settings.get("advertised.listeners"), Some("PLAINTEXT://ottla-2.ottla:9002"));
        assert_eq!(gather("node.id=7", &[pod], &[]).0.get("node.id"), Some("7"));
        assert_eq!(gather("", &[("OTTLA_POD_NAME", "x")], &[]).1.problems.len(), 1);
        // Where no pod is named, braces are what they are.
        let (settings, _) = gather("", &[listeners], &[]);
        assert_eq!(settings.get("advertised.listeners"), Some(listeners.1));
    }

    #[test]
    fn a_pod_beyond_the_voters_is_a_broker_only() {
        let roles = |pod: &str| {
            let environment = [
                ("OTTLA_POD_NAME", pod),
                ("OTTLA_PROCESS_ROLES", "broker,controller"),
                ("OTTLA_CONTROLLER_QUORUM_VOTERS", "0@a:1, 1@b:1,2@c:1"),
            ];
            gather("", &environment, &[]).0.get("process.roles").map(str::to_owned)
        };
        assert_eq!(roles("ottla-1").as_deref(), Some("broker,controller"));
        assert_eq!(roles("ottla-3").as_deref(), Some("broker"));
        // Only a pod is moved: anybody else is told that the voters do not name the node.
        let (settings, _) =
            gather("node.id=3\nprocess.roles=broker,controller\ncontroller.quorum.voters=1@a:1", &[], &[]);
        assert_eq!(settings.get("process.roles"), Some("broker,controller"));
    }

    #[test]
    fn every_property_can_be_set_by_its_variable() {
        for definition in ottla_metadata::config::definitions(ConfigKind::Broker) {
            let variable = format!("OTTLA_{}", definition.name.to_ascii_uppercase().replace('.', "_"));
            let mut settings = Settings::default();
            let mut findings = Findings::default();
            settings.take_variable(variable.clone(), "x".into(), &mut findings);
            let is_other = OTHER_VARIABLES.contains(&variable.as_str());
            assert_eq!(settings.get(definition.name), (!is_other).then_some("x"), "{variable}");
        }
    }

    #[test]
    fn properties_of_listeners_can_be_set_by_variables_too() {
        for (variable, name) in [
            ("OTTLA_LISTENER_NAME_INSIDE_SSL_KEYSTORE_TYPE", "listener.name.inside.ssl.keystore.type"),
            ("OTTLA_LISTENER_NAME_SASL_SSL_SSL_KEYSTORE_TYPE", "listener.name.sasl_ssl.ssl.keystore.type"),
            (
                "OTTLA_LISTENER_NAME_SASL_SSL_SASL_ENABLED_MECHANISMS",
                "listener.name.sasl_ssl.sasl.enabled.mechanisms",
            ),
            (
                "OTTLA_LISTENER_NAME_CLIENTS_PLAIN_SASL_JAAS_CONFIG",
                "listener.name.clients.plain.sasl.jaas.config",
            ),
            (
                "OTTLA_LISTENER_NAME_SASL_SSL_SCRAM_SHA_256_SASL_JAAS_CONFIG",
                "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config",
            ),
            ("OTTLA_LISTENER_NAME_HTTP_MAX_CONNECTIONS", "listener.name.http.max.connections"),
        ] {
            assert_eq!(listener_property(&variable[PREFIX.len()..]).as_deref(), Some(name), "{variable}");
            let (mut settings, mut findings) = (Settings::default(), Findings::default());
            settings.take_variable(variable.to_owned(), "x".into(), &mut findings);
            assert_eq!((settings.get(name), findings.warnings.len()), (Some("x"), 0), "{variable}");
        }
        for unknown in ["LISTENER_NAME_A_LOG_DIRS", "LISTENER_NAME_", "LISTENER_NAME_A", "LISTENER_NAMES"] {
            assert_eq!(listener_property(unknown), None);
        }
    }

    #[test]
    fn variables_of_the_command_line_are_no_properties() {
        use clap::CommandFactory;
        fn names(command: &clap::Command, all: &mut Vec<String>) {
            all.extend(command.get_arguments().filter_map(|one| Some(one.get_env()?.to_str()?.to_owned())));
            command.get_subcommands().for_each(|inner| names(inner, all));
        }
        let mut all = vec!["OTTLA_SASL_PASSWORD".to_owned()];
        names(&crate::arguments::Arguments::command(), &mut all);
        for variable in all {
            let (_, findings) = gather("", &[(&variable, "127.0.0.1:1")], &[]);
            assert_eq!(findings, Findings::default(), "{variable}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_told() {
        let (settings, findings) = gather("node.id=1\nnode.id=2\n", &[], &[]);
        assert_eq!(settings.get("node.id"), Some("2"));
        assert_eq!(
            shown(&findings.warnings),
            ["line 2: node.id: is given twice; this line counts, line 1 does not"]
        );
    }
}
