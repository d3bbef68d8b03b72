//! The metadata image: one immutable value of everything that is committed.
//!
//! A new image shares what did not change with the one before: topics stand in shards behind reference counts, so that a
//! change costs its shard and its topic, not the cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use ottla_proto::metadata::ResourceType;
use uuid::Uuid;

use crate::acl::Acls;
use crate::configs::Configs;
use crate::credentials::{DelegationToken, ScramCredential, ScramMechanism};
use crate::quotas::ClientQuotas;

/// Topics are spread over this many maps.
pub(crate) const SHARDS: usize = 256;

macro_rules! number {
    ($(#[$doc:meta] $name:ident($inner:ty);)*) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

number! {
    /// A broker's node id.
    BrokerId(i32);
    /// One registration of a broker: the log index of its record.
    BrokerEpoch(i64);
    /// Rises with every change of a partition's leader.
    LeaderEpoch(i32);
    /// Rises with every change of a partition.
    PartitionEpoch(i32);
    /// A topic's id, never used twice.
    TopicId(Uuid);
    /// Position in the metadata log.
    LogIndex(i64);
}

/// An address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Listener name, upper case.
    pub name: String,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    pub security_protocol: String,
}

/// A broker that has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Node id.
    pub id: BrokerId,
    /// Index of the registration's record.
    pub epoch: BrokerEpoch,
    /// New at each start of the process.
    pub incarnation: Uuid,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Ids of its log directories that work.
    pub log_directories: Vec<Uuid>,
    /// Those of them that take no new replica (KIP-1066).
    pub cordoned_directories: Vec<Uuid>,
    /// Of its software.
    pub version: String,
    /// `host:port` of its gRPC listener; empty: none.
    pub grpc_endpoint: String,
    /// It may not lead, nor be in an ISR.
    pub fenced: bool,
    /// It is on its way out: it gives up leadership and enters no ISR.
    pub in_controlled_shutdown: bool,
}

impl BrokerRegistration {
    /// Whether it may be in an ISR and lead.
    pub fn is_eligible(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether it takes new replicas: one of its directories is not cordoned (KIP-1066).
    pub fn takes_replicas(&self) -> bool {
        self.log_directories.is_empty()
            || self.log_directories.iter().any(|directory| !self.cordoned_directories.contains(directory))
    }

    /// Whether a directory of its works. One that nobody has named yet counts as working.
    pub fn has_directory(&self, directory: Uuid) -> bool {
        is_unnamed(directory) || self.log_directories.is_empty() || self.log_directories.contains(&directory)
    }
}

/// Kafka's directory ids that name no directory: not assigned, and being moved. (The one between them, 1, is lost: it never
/// works.)
const UNNAMED_DIRECTORIES: [Uuid; 2] = [Uuid::from_u128(0), Uuid::from_u128(2)];

fn is_unnamed(directory: Uuid) -> bool {
    UNNAMED_DIRECTORIES.contains(&directory)
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct PartitionImage {
    /// Brokers that have a replica; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Replicas that are complete although they left the ISR: it was under min.insync.replicas (KIP-966).
    pub eligible_leader_replicas: Vec<BrokerId>,
    /// The last leader, when the ISR and the eligible replicas are empty.
    pub last_known_leader: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas that a reassignment removes.
    pub removing_replicas: Vec<BrokerId>,
    /// The directory of each replica, in their order (KIP-858); empty: none is known yet.
    pub directories: Vec<Uuid>,
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// See the type.
    pub leader_epoch: LeaderEpoch,
    /// See the type.
    pub partition_epoch: PartitionEpoch,
    /// An unclean leader has not yet confirmed that it recovered.
    pub recovering: bool,
}

impl PartitionImage {
    /// The directory of a replica; nil: not known.
    pub fn directory(&self, replica: BrokerId) -> Uuid {
        let at = self.replicas.iter().position(|id| *id == replica);
        at.and_then(|at| self.directories.get(at)).copied().unwrap_or_default()
    }

    /// Whether replicas are being added or removed.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }
}

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedCommand {
    /// Its id.
    pub id: bytes::Bytes,
    /// The encoded answer.
    pub reply: bytes::Bytes,
    /// The entry that carried it out.
    pub index: LogIndex,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// By partition number.
    pub partitions: Vec<Arc<PartitionImage>>,
}

/// What a config belongs to. Ordered as Kafka's numbers are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    /// Kafka's number of the kind.
    pub kind: i32,
    /// Topic, broker id, group; an empty broker id is the default of the cluster.
    pub name: String,
}

impl ConfigResource {
    /// A resource of a kind.
    pub fn new(kind: ResourceType, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }
}

type TopicShard = Arc<BTreeMap<TopicId, Arc<TopicImage>>>;
type NameShard = Arc<BTreeMap<Arc<str>, TopicId>>;

/// Everything that is committed, at one index of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataImage {
    pub(crate) index: LogIndex,
    pub(crate) cluster_id: Arc<str>,
    pub(crate) features: Arc<BTreeMap<String, i16>>,
    pub(crate) brokers: Arc<BTreeMap<BrokerId, Arc<BrokerRegistration>>>,
    topics: Vec<TopicShard>,
    names: Vec<NameShard>,
    pub(crate) configs: Configs,
    pub(crate) next_producer_id: i64,
    pub(crate) quotas: Arc<ClientQuotas>,
    pub(crate) acls: Arc<Acls>,
    pub(crate) scram: Arc<BTreeMap<(String, ScramMechanism), ScramCredential>>,
    pub(crate) tokens: Arc<BTreeMap<String, DelegationToken>>,
    pub(crate) completed: Arc<VecDeque<CompletedCommand>>,
}

impl Default for MetadataImage {
    fn default() -> Self {
        Self {
            index: LogIndex(-1),
            cluster_id: Arc::from(""),
            features: Arc::default(),
            brokers: Arc::default(),
            topics: vec![Arc::default(); SHARDS],
            names: vec![Arc::default(); SHARDS],
            configs: Configs::default(),
            next_producer_id: 0,
            quotas: Arc::default(),
            acls: Arc::default(),
            scram: Arc::default(),
            tokens: Arc::default(),
            completed: Arc::default(),
        }
    }
}

fn topic_shard(id: TopicId) -> usize {
    // Ids are random: any bits do.
    usize::from(id.0.as_bytes()[15]) % SHARDS
}

pub(crate) fn name_shard(name: &str) -> usize {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

impl MetadataImage {
    /// Index of the last applied entry; -1: none.
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// The cluster's id; empty: not written yet.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Finalised features and their levels.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// The finalised level of a feature; 0: it is off.
    pub fn feature_level(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// Limits of clients.
    pub fn client_quotas(&self) -> &ClientQuotas {
        &self.quotas
    }

    /// Who may do what.
    pub fn acls(&self) -> &Acls {
        &self.acls
    }

    /// A user's credential.
    pub fn scram_credential(&self, user: &str, mechanism: ScramMechanism) -> Option<&ScramCredential> {
        self.scram.get(&(user.to_owned(), mechanism))
    }

    /// Every credential, by user and mechanism.
    pub fn scram_credentials(&self) -> impl Iterator<Item = (&str, ScramMechanism, &ScramCredential)> {
        self.scram.iter().map(|((user, mechanism), credential)| (user.as_str(), *mechanism, credential))
    }

    /// A delegation token by its id, expired or not.
    pub fn delegation_token(&self, id: &str) -> Option<&DelegationToken> {
        self.tokens.get(id)
    }

    /// Every delegation token, by id.
    pub fn delegation_tokens(&self) -> impl Iterator<Item = &DelegationToken> {
        self.tokens.values()
    }

    /// What a command that was carried out lately was answered.
    pub fn completed_command(&self, id: &[u8]) -> Option<&CompletedCommand> {
        self.completed.iter().rev().find(|completed| completed.id == id)
    }

    /// Whether a replica can be written and read: its broker is there and its directory works.
    pub fn is_replica_online(&self, partition: &PartitionImage, replica: BrokerId) -> bool {
        self.broker(replica).is_some_and(|broker| broker.has_directory(partition.directory(replica)))
    }

    /// Partitions that are being reassigned, in no particular order.
    pub fn reassignments(&self) -> impl Iterator<Item = (&TopicImage, i32, &PartitionImage)> {
        self.topics().flat_map(|topic| {
            let partitions = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.is_reassigning());
            partitions.map(move |(index, partition)| (topic, index, &**partition))
        })
    }

    /// Registered brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerRegistration> {
        self.brokers.values().map(|broker| &**broker)
    }

    /// A registered broker.
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRegistration> {
        self.brokers.get(&id).map(|broker| &**broker)
    }

    /// All topics, in no particular order.
    pub fn topics(&self) -> impl Iterator<Item = &TopicImage> {
        self.topics.iter().flat_map(|shard| shard.values()).map(|topic| &**topic)
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.iter().map(|shard| shard.len()).sum()
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicImage> {
        self.topics[topic_shard(id)].get(&id).map(|topic| &**topic)
    }

    /// A topic by its name.
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicImage> {
        self.names[name_shard(name)].get(name).and_then(|id| self.topic_by_id(*id))
    }

    /// A partition.
    pub fn partition(&self, id: TopicId, partition: i32) -> Option<&PartitionImage> {
        let index = usize::try_from(partition).ok()?;
        self.topic_by_id(id)?.partitions.get(index).map(|partition| &**partition)
    }

    /// What is set on a resource itself.
    pub fn config(&self, kind: ResourceType, name: &str) -> Option<&BTreeMap<String, String>> {
        self.configs.get(&ConfigResource::new(kind, name))
    }

    /// Every resource of a kind on which something is set, by name.
    pub fn config_resources(&self, kind: ResourceType) -> impl Iterator<Item = &str> {
        self.configs.names(kind.into()).into_iter()
    }

    /// The next producer id that no broker has.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    pub(crate) fn put_topic(&mut self, topic: Arc<TopicImage>) {
        Arc::make_mut(&mut self.names[name_shard(&topic.name)]).insert(Arc::clone(&topic.name), topic.id);
        Arc::make_mut(&mut self.topics[topic_shard(topic.id)]).insert(topic.id, topic);
    }

    pub(crate) fn topic_mut(&mut self, id: TopicId) -> Option<&mut TopicImage> {
        Arc::make_mut(&mut self.topics[topic_shard(id)]).get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn remove_topic(&mut self, id: TopicId) -> Option<Arc<TopicImage>> {
        let topic = Arc::make_mut(&mut self.topics[topic_shard(id)]).remove(&id)?;
        Arc::make_mut(&mut self.names[name_shard(&topic.name)]).remove(&topic.name);
        Some(topic)
    }
}

/// What changed between two images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// Topics that are new, changed in a partition, or gone.
    pub topics: BTreeSet<TopicId>,
    /// Names of topics that are gone.
    pub deleted_topics: Vec<Arc<str>>,
    /// Brokers that are new, changed or gone.
    pub brokers: BTreeSet<BrokerId>,
    /// Resources of which a config changed.
    pub configs: BTreeSet<ConfigResource>,
    /// The cluster's id or a feature changed.
    pub cluster: bool,
    /// A limit of clients changed.
    pub quotas: bool,
    /// A rule of access came or went.
    pub acls: bool,
    /// Users whose SCRAM credentials changed.
    pub scram_users: BTreeSet<String>,
    /// Delegation tokens that are new, changed or gone.
    pub tokens: BTreeSet<String>,
}

impl MetadataDelta {
    /// Adds what a later delta changed.
    pub fn merge(&mut self, later: Self) {
        self.topics.extend(later.topics);
        self.deleted_topics.extend(later.deleted_topics);
        self.brokers.extend(later.brokers);
        self.configs.extend(later.configs);
        self.cluster |= later.cluster;
        self.quotas |= later.quotas;
        self.acls |= later.acls;
        self.scram_users.extend(later.scram_users);
        self.tokens.extend(later.tokens);
    }
}
