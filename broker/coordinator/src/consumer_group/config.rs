//! The settings of consumer groups, of the node and of single groups.

use ottla_wire::text::Text;

use crate::streams_group::StreamsOverrides;

/// `group.consumer.migration.policy`: which groups may change between the classic and the consumer protocol while they
/// have members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// None.
    Disabled,
    /// Classic groups become consumer groups.
    Upgrade,
    /// Consumer groups become classic groups.
    Downgrade,
    /// Both.
    #[default]
    Bidirectional,
}

impl MigrationPolicy {
    /// The policy of a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            ("disabled", Self::Disabled),
            ("upgrade", Self::Upgrade),
            ("downgrade", Self::Downgrade),
            ("bidirectional", Self::Bidirectional),
        ];
        all.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, policy)| policy)
    }

    pub(crate) fn upgrades(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    pub(crate) fn downgrades(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// The settings of the node; Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`
    pub group_size_max: usize,
    /// `group.consumer.assignors`, the default first; of [`ASSIGNORS`](super::ASSIGNORS).
    pub assignors: Vec<Text>,
    /// `group.consumer.migration.policy`
    pub migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`
    pub regex_refresh_interval_ms: i64,
    /// `group.consumer.assignment.interval.ms`: the least time between two target assignments of a group that has
    /// members already.
    pub assignment_interval_ms: i64,
}

impl Default for ConsumerGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            group_size_max: usize::MAX,
            assignors: super::ASSIGNORS.into_iter().map(Text::from).collect(),
            migration_policy: MigrationPolicy::default(),
            regex_refresh_interval_ms: 600_000,
            assignment_interval_ms: 1_000,
        }
    }
}

/// What one group has set of its own, as the GROUP config resource says; None: as the node has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupOverrides {
    /// `consumer.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
    /// `consumer.assignment.interval.ms`
    pub assignment_interval_ms: Option<i64>,
    /// Of share groups.
    pub share: crate::share_group::ShareOverrides,
    /// `streams.*`
    pub streams: StreamsOverrides,
}
