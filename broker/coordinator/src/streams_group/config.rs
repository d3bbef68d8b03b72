//! The settings of streams groups, of the node and of single groups.

/// The settings of the node; Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsGroupConfig {
    /// `group.streams.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.streams.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.streams.max.size`
    pub group_size_max: usize,
    /// `group.streams.num.standby.replicas`
    pub standby_replicas: i32,
    /// `group.streams.initial.rebalance.delay.ms`: how long the first members of a group wait for more.
    pub initial_rebalance_delay_ms: i32,
    /// `group.streams.assignment.interval.ms`: the least time between two target assignments of a group.
    pub assignment_interval_ms: i64,
}

impl Default for StreamsGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            group_size_max: usize::MAX,
            standby_replicas: 0,
            initial_rebalance_delay_ms: 3_000,
            assignment_interval_ms: 1_000,
        }
    }
}

/// What one group has set of its own, as the GROUP config resource says; None: as the node has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamsOverrides {
    /// `streams.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `streams.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
    /// `streams.num.standby.replicas`
    pub standby_replicas: Option<i32>,
    /// `streams.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: Option<i32>,
    /// `streams.assignment.interval.ms`
    pub assignment_interval_ms: Option<i64>,
}

impl StreamsGroupConfig {
    /// As they are for a group.
    pub(crate) fn of_group(&self, overrides: StreamsOverrides) -> Self {
        Self {
            session_timeout_ms: overrides.session_timeout_ms.unwrap_or(self.session_timeout_ms),
            heartbeat_interval_ms: overrides.heartbeat_interval_ms.unwrap_or(self.heartbeat_interval_ms),
            group_size_max: self.group_size_max,
            standby_replicas: overrides.standby_replicas.unwrap_or(self.standby_replicas),
            initial_rebalance_delay_ms: overrides
                .initial_rebalance_delay_ms
                .unwrap_or(self.initial_rebalance_delay_ms),
            assignment_interval_ms: overrides.assignment_interval_ms.unwrap_or(self.assignment_interval_ms),
        }
    }
}
