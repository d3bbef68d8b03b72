//! What can be typed: the flags of every command and the tree of commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{
    acl, apply, broker, cluster, completion, config, consume, debug, dev, doctor, feature, group, log, man,
    metadata, partition, perf, produce, producer, quorum, quota, server, token, topic, transaction, user,
    verify,
};
use crate::output::Format;
use crate::parse;

/// Event streaming that speaks the Kafka protocol: a cluster in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "ottla",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
#[command(after_help = "Examples:
  ottla dev                                    a whole cluster on this machine
  ottla topic create orders --partitions 6
  echo hello | ottla produce orders
  ottla consume orders --count 1")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// gRPC addresses of any nodes of the cluster [default: 127.0.0.1:9093]
    #[arg(long, global = true, env = "OTTLA_SERVER", value_name = "HOST:PORT[,…]", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// Kafka addresses for records, instead of the brokers that --server names
    #[arg(
        long,
        global = true,
        env = "OTTLA_BOOTSTRAP",
        value_name = "HOST:PORT[,…]",
        hide_env_values = true
    )]
    pub(crate) bootstrap: Option<String>,
    /// How results are shown
    #[arg(long, short, global = true, value_enum, default_value_t, hide_default_value = true)]
    pub(crate) output: Format,
    /// Say nothing when all went well
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// How long to wait for the cluster [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Which connection profile to use
    #[arg(long, global = true, env = "OTTLA_PROFILE", value_name = "NAME", hide_env_values = true)]
    pub(crate) profile: Option<String>,
    #[command(flatten)]
    pub(crate) access: crate::access::Flags,
    /// Put in by hand: see [`PROFILES`].
    #[arg(skip)]
    pub(crate) profiles: Option<PathBuf>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster in this process, for development
    Dev(dev::Dev),
    /// Run one node
    Server(server::Server),
    /// Create, look at, change and delete topics
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Write records, a line each
    Produce(produce::Produce),
    /// Read records
    Consume(consume::Consume),
    /// Groups of consumers: members, lag, offsets
    #[command(subcommand)]
    Group(group::Group),
    /// Transactional ids and their transactions
    #[command(subcommand)]
    Transaction(transaction::Transaction),
    /// The producers that partitions know
    #[command(subcommand)]
    Producer(producer::Producer),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// The nodes that keep the metadata
    #[command(subcommand)]
    Quorum(quorum::Quorum),
    /// The brokers
    #[command(subcommand)]
    Broker(broker::Broker),
    /// Where partitions lie and who leads them
    #[command(subcommand)]
    Partition(partition::Partition),
    /// What the cluster has agreed to do
    #[command(subcommand)]
    Feature(feature::Feature),
    /// Settings of topics, brokers and groups; checking of property files
    #[command(subcommand)]
    Config(config::Config),
    /// Write, read back and prove that nothing is lost, doubled or out of order
    Verify(Box<verify::Verify>),
    /// Measure rates and waiting times
    #[command(subcommand)]
    Perf(perf::Perf),
    /// Make the cluster be what files say: topics, settings, users, quotas, rules
    Apply(apply::Apply),
    /// Who may do what
    #[command(subcommand)]
    Acl(acl::Acl),
    /// Who signs in by SCRAM
    #[command(subcommand)]
    User(user::User),
    /// How fast clients may be
    #[command(subcommand)]
    Quota(quota::Quota),
    /// Passwords for a while, with the rights of whoever asks for them
    #[command(subcommand)]
    Token(token::Token),
    /// What is on disk
    #[command(subcommand)]
    Log(log::Log),
    /// What a stopped controller has on its disk
    #[command(subcommand)]
    Metadata(metadata::Metadata),
    /// What whoever helps will ask for
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// What of this machine would hurt a node, why, and the command that mends it
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completion(completion::Completion),
    /// Print the manual page
    Man(man::Man),
}

/// Id of the flag that names the file of connection profiles.
const PROFILES: &str = "profiles";

/// The command tree. `--config FILE` is put into every command that has no `--config` of its own: as a global flag it could
/// not stand beside `topic create --config name=value`.
pub(crate) fn tree() -> clap::Command {
    with_profiles(Arguments::command())
}

fn with_profiles(command: clap::Command) -> clap::Command {
    let has_own = command.get_arguments().any(|argument| argument.get_long() == Some("config"));
    let command = command.mut_subcommands(with_profiles);
    if has_own {
        return command;
    }
    command.arg(
        Arg::new(PROFILES)
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("File of connection profiles [default: ~/.config/ottla/config.toml]")
            .help_heading("Everywhere"),
    )
}

/// Reads what was typed.
pub(crate) fn read<I, T>(words: I) -> Result<Arguments, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let matches = tree().try_get_matches_from(words)?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    arguments.global.profiles = profiles(&matches);
    Ok(arguments)
}

/// The innermost `--config FILE` that means profiles.
fn profiles(matches: &ArgMatches) -> Option<PathBuf> {
    let inner = matches.subcommand().and_then(|(_, inner)| profiles(inner));
    inner.or_else(|| matches.try_get_one::<PathBuf>(PROFILES).ok().flatten().cloned())
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod documents;
#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Arguments, clap::Error> {
        read(std::iter::once("ottla").chain(line.split(' ').filter(|word| !word.is_empty())))
    }

    #[test]
    fn the_tree_is_sound() {
        tree().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "no help for{path}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "no help for{path} {}", argument.get_id());
            }
            if command.get_subcommands().next().is_none() {
                let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let first = path.trim();
                assert!(example.starts_with("Example"), "no example for{path}");
                assert!(example.contains(first), "the example does not show {first}");
            }
            command.get_subcommands().for_each(|inner| walk(inner, &path));
        }
        walk(&tree(), "");
    }

    #[test]
    fn global_flags_stand_before_or_behind_the_command() {
        for line in ["--server a:1 --output json topic list", "topic list --server a:1 --output json"] {
            let arguments = words(line).unwrap();
            assert_eq!(arguments.global.server.as_deref(), Some("a:1"));
            assert_eq!(arguments.global.output, Format::Json);
        }
    }

    #[test]
    fn config_means_profiles_but_where_the_command_has_its_own() {
        let arguments = words("--config p.toml topic create a --config x=y --config z=1").unwrap();
        assert_eq!(arguments.global.profiles, Some("p.toml".into()));
        let Command::Topic(topic::Topic::Create(create)) = arguments.command else { panic!("not a create") };
        assert_eq!(create.configs, [("x".into(), "y".into()), ("z".into(), "1".into())]);
        assert_eq!(words("topic list --config q.toml").unwrap().global.profiles, Some("q.toml".into()));
        assert_eq!(words("topic list").unwrap().global.profiles, None);
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        for line in [
            "",
            "nonsense",
            "topic",
            "topic create",
            "topic list --no-such",
            "--timeout 3x topic list",
            "produce",
        ] {
            let error = words(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(words("--help").unwrap_err().exit_code(), 0);
        assert_eq!(words("--version").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn negative_positions_are_values_of_from() {
        let Command::Consume(consume) = words("consume a --from -5").unwrap().command else {
            panic!("not a consume")
        };
        assert_eq!(consume.from, Some(consume::From::Last(5)));
    }
}
