//! One file for each command word.

pub(crate) mod acl;
pub(crate) mod apply;
pub(crate) mod broker;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod debug;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod feature;
pub(crate) mod group;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod metadata;
pub(crate) mod partition;
pub(crate) mod perf;
pub(crate) mod produce;
pub(crate) mod producer;
pub(crate) mod quorum;
pub(crate) mod quota;
pub(crate) mod server;
pub(crate) mod token;
pub(crate) mod topic;
pub(crate) mod transaction;
pub(crate) mod user;
pub(crate) mod verify;

use std::pin::Pin;

use anyhow::Context;

use crate::arguments::{Arguments, Command, Global};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::profile::Session;

/// Does what was typed.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let global = arguments.global;
    let is_reference = matches!(arguments.command, Command::Config(config::Config::Reference(_)));
    if global.output == Format::Markdown && !is_reference {
        return Err(Failure::usage("only 'config reference' is shown as Markdown")
            .hint("--output table|json|yaml")
            .into());
    }
    let output = Output { format: global.output, quiet: global.quiet };
    match arguments.command {
        Command::Dev(dev) => dev.run(output),
        Command::Server(server) => server.run(),
        Command::Topic(topic) => with_session(&global, async |session| topic.run(&session).await),
        Command::Produce(produce) => with_session(&global, async |session| produce.run(&session).await),
        Command::Consume(consume) => with_session(&global, async |session| consume.run(&session).await),
        Command::Perf(perf) => with_session(&global, async |session| perf.run(&session).await),
        Command::Verify(verify) => match verify.check() {
            Some(check) => check.run(output),
            None => with_session(&global, async |session| verify.run(&session).await),
        },
        Command::Group(group) => with_session(&global, async |session| group.run(&session).await),
        Command::Transaction(transaction) => {
            with_session(&global, async |session| transaction.run(&session).await)
        }
        Command::Producer(producer) => with_session(&global, async |session| producer.run(&session).await),
        Command::Cluster(cluster) => with_session(&global, async |session| cluster.run(&session).await),
        Command::Quorum(quorum) => with_session(&global, async |session| quorum.run(&session).await),
        Command::Broker(broker) => with_session(&global, async |session| broker.run(&session).await),
        Command::Partition(partition) => with_session(&global, async |session| partition.run(&session).await),
        Command::Feature(feature) => with_session(&global, async |session| feature.run(&session).await),
        Command::Config(config::Config::Check(check)) => check.run(output),
        Command::Config(config::Config::Reference(reference)) => reference.run(output),
        Command::Config(config) => with_session(&global, async |session| config.run(&session).await),
        Command::Apply(apply) => with_session(&global, async |session| apply.run(&session).await),
        Command::Acl(acl) => with_session(&global, async |session| acl.run(&session).await),
        Command::User(user) => with_session(&global, async |session| user.run(&session).await),
        Command::Quota(quota) => with_session(&global, async |session| quota.run(&session).await),
        Command::Token(token) => with_session(&global, async |session| token.run(&session).await),
        Command::Log(log) => log.run(output),
        Command::Metadata(metadata) => metadata.run(output),
        Command::Debug(debug) => with_session(&global, async |session| debug.run(&session).await),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

/// Runs a command that talks to a cluster: one thread is enough for a client.
fn with_session(
    global: &Global,
    command: impl AsyncFnOnce(Session) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let session = Session::new(global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    // Behind one pointer: the runtime's loop is compiled once, and not once for every command.
    let command: Pin<Box<dyn Future<Output = anyhow::Result<()>>>> = Box::pin(command(session));
    let result = runtime.block_on(command);
    // A thread that still reads a terminal must not hold the process.
    runtime.shutdown_background();
    result
}
