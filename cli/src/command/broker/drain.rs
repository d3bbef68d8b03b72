//! `ottla broker drain`, `undrain` and `decommission`: a broker gives all that it holds to others, and is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;
use ottla_proto::admin::{self, AlterConfigsRequest, ConfigScope, PartitionMove};
use serde::Serialize;

use crate::admin::Admin;
use crate::command::partition::{all, check, progress};
use crate::failure::Failure;
use crate::profile::Session;

/// Which of a broker's directories take no new replicas (KIP-1066).
const CORDONED: &str = "cordoned.log.dirs";
/// Pause between two looks at a broker that is to stop.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause between two looks at a broker that is to take nothing new.
const CORDON_PAUSE: Duration = Duration::from_millis(50);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla broker drain 3 --watch")]
pub(crate) struct Drain {
    /// Id of the broker
    id: i32,
    /// Wait until it holds nothing
    #[arg(long)]
    watch: bool,
    /// Show where its partitions would go, and move nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla broker undrain 3")]
pub(crate) struct Undrain {
    /// Id of the broker
    id: i32,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla broker decommission 3 --watch")]
pub(crate) struct Decommission {
    /// Id of the broker
    id: i32,
    /// Wait until it holds nothing and its node has stopped
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    broker: i32,
    /// `draining`, `drained`, `in_service` or `forgotten`.
    state: &'static str,
    moves: Vec<Planned>,
}

/// A partition and the brokers that are to hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Planned {
    topic: String,
    partition: i32,
    to: Vec<i32>,
}

/// A broker that can take replicas.
#[derive(Debug, Clone)]
struct Place {
    rack: String,
    replicas: i64,
}

impl Drain {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let moves = plan_of(&mut admin, self.id).await?;
        let mut document = Document { broker: self.id, state: "draining", moves };
        if self.dry_run {
            return session.output.show(&document, |document| {
                let row = |one: &Planned| {
                    vec![one.topic.clone(), one.partition.to_string(), crate::output::list(&one.to)]
                };
                crate::output::table(&["TOPIC", "PARTITION", "TO"], document.moves.iter().map(row))
            });
        }
        document.moves = drain(session, &mut admin, self.id, self.watch).await?;
        if self.watch || document.moves.is_empty() {
            document.state = "drained";
        }
        session.output.done(&document, |document| {
            let count = document.moves.len();
            match document.state {
                "drained" => format!("broker {} holds nothing; partitions moved: {count}", document.broker),
                _ => format!(
                    "partitions that leave broker {}: {count}; 'ottla partition list --moving' shows how far",
                    document.broker
                ),
            }
        })
    }
}

impl Undrain {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        known(&mut admin, self.id).await?;
        let request = AlterConfigsRequest {
            scope: ConfigScope::Broker.into(),
            name: self.id.to_string(),
            unset: vec![CORDONED.to_owned()],
            ..Default::default()
        };
        admin.alter_configs(request).await?;
        let document = Document { broker: self.id, state: "in_service", moves: Vec::new() };
        session.output.done(&document, |document| {
            format!(
                "broker {} takes new partitions again; 'ottla partition move' gives it some",
                document.broker
            )
        })
    }
}

impl Decommission {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        // Refused before anything changes, if nobody could take over.
        plan_of(&mut admin, self.id).await?;
        let moves = drain(session, &mut admin, self.id, self.watch).await?;
        let mut has_asked = false;
        loop {
            let broker = known(&mut admin, self.id).await?;
            if broker.replicas == 0 && broker.fenced {
                break;
            }
            if !self.watch {
                return Err(self.not_yet(&broker).into());
            }
            if broker.replicas == 0 && !std::mem::replace(&mut has_asked, true) {
                eprintln!("broker {} holds nothing: stop its node now; this command waits for it", self.id);
            }
            tokio::time::sleep(PAUSE).await;
        }
        admin.unregister_broker(self.id).await?;
        let document = Document { broker: self.id, state: "forgotten", moves };
        session.output.done(&document, |document| format!("broker {} is forgotten", document.broker))
    }

    fn not_yet(&self, broker: &admin::Broker) -> Failure {
        if broker.replicas > 0 {
            return Failure::new(format!("broker {} still holds {} replicas", self.id, broker.replicas))
                .hint("they are on their way: call this again, or wait with --watch");
        }
        Failure::new(format!("broker {} holds nothing, but its node runs", self.id))
            .hint("stop the node and call this again: a broker that runs would register anew")
    }
}

/// A broker that the cluster knows.
async fn known(admin: &mut Admin, id: i32) -> anyhow::Result<admin::Broker> {
    let brokers = admin.describe_cluster().await?.brokers;
    let found = brokers.into_iter().find(|broker| broker.id == id);
    Ok(found.ok_or_else(|| {
        Failure::new(format!("broker {id} is not registered"))
            .hint("'ottla broker list' shows those that are")
    })?)
}

async fn plan_of(admin: &mut Admin, id: i32) -> anyhow::Result<Vec<Planned>> {
    known(admin, id).await?;
    let cluster = admin.describe_cluster().await?;
    let mut places = BTreeMap::new();
    for broker in cluster.brokers.iter().filter(|broker| broker.id != id && !broker.fenced) {
        let request = admin::DescribeConfigsRequest {
            scope: ConfigScope::Broker.into(),
            name: broker.id.to_string(),
            keys: vec![CORDONED.to_owned()],
        };
        let cordoned = admin.describe_configs(request).await?;
        // Who is on its way out itself takes nothing in.
        if cordoned.iter().all(|config| config.value.as_deref() != Some("*")) {
            let place = Place { rack: broker.rack.clone(), replicas: i64::from(broker.replicas) };
            places.insert(broker.id, place);
        }
    }
    let topics = admin.describe_topics(Vec::new()).await?;
    let held: Vec<(String, admin::Partition)> = all(&topics)
        .filter(|(_, partition)| partition.replicas.contains(&id))
        .map(|(topic, partition)| (topic.to_owned(), partition.clone()))
        .collect();
    let racks = cluster.brokers.iter().map(|broker| (broker.id, broker.rack.clone())).collect();
    Ok(plan(id, &held, places, &racks)?)
}

/// Who takes each partition's place on a broker: one that does not have it yet, in a rack that does not either where there is
/// one, and of those the one with the fewest replicas.
fn plan(
    id: i32,
    held: &[(String, admin::Partition)],
    mut places: BTreeMap<i32, Place>,
    racks: &BTreeMap<i32, String>,
) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    for (topic, partition) in held {
        let staying: Vec<i32> = partition
            .replicas
            .iter()
            .copied()
            .filter(|replica| !partition.removing_replicas.contains(replica))
            .collect();
        if !staying.contains(&id) {
            continue;
        }
        let used: BTreeSet<&str> = staying
            .iter()
            .filter(|replica| **replica != id)
            .filter_map(|replica| racks.get(replica))
            .map(String::as_str)
            .collect();
        let candidates = places.iter().filter(|(broker, _)| !staying.contains(broker));
        let best = candidates
            .min_by_key(|(broker, place)| (used.contains(place.rack.as_str()), place.replicas, **broker))
            .map(|(broker, _)| *broker);
        let Some(best) = best else {
            return Err(Failure::new(format!(
                "no broker is left that could take partition {topic}:{}",
                partition.partition
            ))
            .hint("add a broker, or lower the topic's number of replicas with 'ottla partition move'"));
        };
        if let Some(place) = places.get_mut(&best) {
            place.replicas += 1;
        }
        let to = staying.into_iter().map(|replica| if replica == id { best } else { replica }).collect();
        planned.push(Planned { topic: topic.clone(), partition: partition.partition, to });
    }
    Ok(planned)
}

/// Nothing new comes to the broker, and what it has leaves.
async fn drain(session: &Session, admin: &mut Admin, id: i32, watch: bool) -> anyhow::Result<Vec<Planned>> {
    cordon(session, admin, id).await?;
    // Only now: what was created until a moment ago may lie there too.
    let moves = plan_of(admin, id).await?;
    if moves.is_empty() {
        return Ok(moves);
    }
    let asked = moves.iter().map(|one| PartitionMove {
        topic: one.topic.clone(),
        partition: one.partition,
        brokers: one.to.clone(),
        cancel: false,
    });
    let outcomes = admin.move_partitions(asked.collect()).await?;
    check(&outcomes, "moved")?;
    if watch {
        let partitions: Vec<_> = moves.iter().map(|one| (one.topic.clone(), one.partition)).collect();
        progress::watch(session, admin, &partitions).await?;
    }
    Ok(moves)
}

/// The broker takes nothing new from here on. It has to hear of that and tell the controllers: what is created before then may still
/// be given to it. One that is away hears of nothing, and is given nothing while there are others.
async fn cordon(session: &Session, admin: &mut Admin, id: i32) -> anyhow::Result<()> {
    let cordon = AlterConfigsRequest {
        scope: ConfigScope::Broker.into(),
        name: id.to_string(),
        set: [(CORDONED.to_owned(), "*".to_owned())].into(),
        ..Default::default()
    };
    admin.alter_configs(cordon).await?;
    let deadline = Instant::now() + session.timeout;
    loop {
        let broker = known(admin, id).await?;
        if broker.cordoned || broker.fenced {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("broker {id} has not said that it takes nothing new"))
                .hint("call this again; its log says what keeps it from reaching the controllers")
                .into());
        }
        tokio::time::sleep(CORDON_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32, replicas: &[i32], removing: &[i32]) -> (String, admin::Partition) {
        let partition = admin::Partition {
            partition: index,
            replicas: replicas.to_vec(),
            removing_replicas: removing.to_vec(),
            ..Default::default()
        };
        ("t".to_owned(), partition)
    }

    fn place(rack: &str, replicas: i64) -> Place {
        Place { rack: rack.to_owned(), replicas }
    }

    #[test]
    fn partitions_go_to_other_racks_first_and_to_the_emptiest_broker() {
        let places = BTreeMap::from([(2, place("a", 0)), (3, place("b", 5)), (4, place("b", 4))]);
        let racks = [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "a")];
        let racks = racks.into_iter().map(|(id, rack)| (id, rack.to_owned())).collect();
        let held = [partition(0, &[1, 5], &[]), partition(1, &[5, 1], &[]), partition(2, &[3, 1], &[1])];
        let planned = plan(1, &held, places, &racks).unwrap();
        let to: Vec<_> = planned.iter().map(|one| (one.partition, one.to.clone())).collect();
        assert_eq!(to, [(0, vec![4, 5]), (1, vec![5, 3])], "rack a has the other replica; 2 leaves already");
    }

    #[test]
    fn without_a_place_nothing_is_planned() {
        let held = [partition(0, &[1, 2], &[])];
        let places = BTreeMap::from([(2, place("", 0))]);
        let failure = plan(1, &held, places, &BTreeMap::new()).unwrap_err();
        assert_eq!(failure.to_string(), "no broker is left that could take partition t:0");
    }
}
