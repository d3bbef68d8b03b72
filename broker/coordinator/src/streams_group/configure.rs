//! How a topology fits the topics there are: how many tasks each subtopology has, which internal topics are missing and
//! how many partitions they need, or why it does not fit (KIP-1071).

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::TASKS_PER_GROUP_MAX;
use super::command::{MissingTopic, Status, StatusCode};
use super::topology::{CopartitionGroup, InternalTopic, Topology};
use crate::consumer_group::{Refusal, TopicsView};

/// Names of topics in one message.
const NAMES_SHOWN_MAX: usize = 5;

/// The tasks of a subtopology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubtopologyTasks {
    /// 0 to this minus one.
    pub(crate) count: i32,
    /// They keep state, so copies of them make sense.
    pub(crate) stateful: bool,
}

/// A topology beside the topics there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Configured {
    /// Why no task can run; none: they can.
    pub(crate) problem: Option<Status>,
    /// Internal topics to create.
    pub(crate) missing: Vec<MissingTopic>,
    /// By subtopology; nothing where the topics do not fit.
    pub(crate) tasks: BTreeMap<Text, SubtopologyTasks>,
}

impl Configured {
    pub(crate) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

/// Why a topology does not fit.
enum Misfit {
    /// Topics are missing or wrong: someone may mend that.
    Problem(StatusCode, String),
    /// The topology itself is wrong.
    Invalid(Refusal),
}

impl From<Refusal> for Misfit {
    fn from(refusal: Refusal) -> Self {
        Self::Invalid(refusal)
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::StreamsInvalidTopology, message)
}

fn incorrect(message: String) -> Misfit {
    Misfit::Problem(StatusCode::IncorrectlyPartitionedTopics, message)
}

/// Fits a topology to the topics.
pub(crate) fn configure(topology: &Topology, topics: &TopicsView) -> Result<Configured, Refusal> {
    match fit(topology, topics) {
        Ok(configured) => Ok(configured),
        Err(Misfit::Invalid(refusal)) => Err(refusal),
        Err(Misfit::Problem(code, detail)) => {
            let problem = Some(Status { code, detail: Text::from(detail) });
            Ok(Configured { problem, ..Configured::default() })
        }
    }
}

fn fit(topology: &Topology, topics: &TopicsView) -> Result<Configured, Misfit> {
    let sources = topology.subtopologies.values().flat_map(|subtopology| &subtopology.source_topics);
    let absent: BTreeSet<&Text> = sources.filter(|name| topics.by_name(name).is_none()).collect();
    if !absent.is_empty() {
        let message = format!("Source topics {} are missing.", summary(absent.into_iter()));
        return Err(Misfit::Problem(StatusCode::MissingSourceTopics, message));
    }
    let mut counts = Counts { topics, decided: BTreeMap::new(), fixed: BTreeSet::new() };
    counts.decide_repartition_topics(topology)?;
    for subtopology in topology.subtopologies.values() {
        for group in &subtopology.copartition_groups {
            counts.copartition(group)?;
        }
    }
    let tasks = counts.tasks(topology)?;
    let missing = counts.missing(topology, &tasks)?;
    let problem = (!missing.is_empty()).then(|| Status {
        code: StatusCode::MissingInternalTopics,
        detail: Text::from(format!(
            "Internal topics are missing: {}",
            summary(missing.iter().map(|topic| &topic.name))
        )),
    });
    Ok(Configured { problem, missing, tasks })
}

fn summary<'a>(names: impl Iterator<Item = &'a Text>) -> String {
    let names: Vec<&str> = names.map(|name| &**name).collect();
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} additional topics"),
    }
}

/// How many partitions topics have or shall have.
struct Counts<'a> {
    topics: &'a TopicsView,
    /// Of internal topics.
    decided: BTreeMap<&'a Text, i32>,
    /// Repartition topics of which the topology says it.
    fixed: BTreeSet<&'a Text>,
}

impl<'a> Counts<'a> {
    /// A topic that is there has what it has.
    fn of(&self, name: &Text) -> Option<i32> {
        let there = self.topics.by_name(name).map(|topic| topic.partitions);
        there.or_else(|| self.decided.get(name).copied())
    }

    /// What the topology says; else as many as what is written to the topic comes from.
    fn decide_repartition_topics(&mut self, topology: &'a Topology) -> Result<(), Misfit> {
        let read = || topology.subtopologies.values().flat_map(|one| &one.repartition_source_topics);
        for (name, topic) in read().filter(|(_, topic)| topic.partitions != 0) {
            self.decided.insert(name, topic.partitions);
            self.fixed.insert(name);
        }
        // Each round decides one topic at least, or is the last.
        loop {
            let (mut is_further, mut is_open) = (false, false);
            for subtopology in topology.subtopologies.values() {
                for sink in &subtopology.repartition_sink_topics {
                    if self.decided.contains_key(sink) {
                        continue;
                    }
                    let repartitioned = subtopology.repartition_source_topics.keys();
                    let repartitioned = repartitioned.filter_map(|name| self.decided.get(name).copied());
                    let sources = subtopology.source_topics.iter().filter_map(|name| self.of(name));
                    match repartitioned.chain(sources).max() {
                        Some(count) => {
                            self.decided.insert(sink, count);
                            is_further = true;
                        }
                        None => is_open = true,
                    }
                }
            }
            if !is_open {
                break;
            }
            if !is_further {
                return Err(invalid("The partitions of a repartition topic depend on themselves.").into());
            }
        }
        if read().any(|(name, _)| !self.decided.contains_key(name)) {
            let message = "The partitions of a repartition topic cannot be told: no subtopology writes it.";
            return Err(invalid(message).into());
        }
        Ok(())
    }

    /// Topics of one group have the same number: repartition topics get that of the others.
    fn copartition(&mut self, group: &'a CopartitionGroup) -> Result<(), Misfit> {
        let known = |names: &BTreeSet<Text>| -> Result<BTreeMap<Text, i32>, Misfit> {
            let one = |name: &Text| self.of(name).map(|count| (name.clone(), count));
            let counted: Option<_> = names.iter().map(one).collect();
            counted.ok_or_else(|| invalid("A copartitioned topic has no number of partitions.").into())
        };
        let sources = known(&group.source_topics)?;
        let repartitioned = known(&group.repartition_source_topics)?;
        let fixed: BTreeMap<Text, i32> = repartitioned
            .iter()
            .filter(|(name, _)| self.fixed.contains(name))
            .map(|(name, n)| (name.clone(), *n))
            .collect();
        let count = if !sources.is_empty() {
            all_the_same(&sources)?
        } else if !fixed.is_empty() {
            all_the_same(&fixed)?
        } else {
            repartitioned.values().max().copied()
        };
        let Some(count) = count else { return Ok(()) };
        for name in &group.repartition_source_topics {
            if let Some(has) = fixed.get(name).filter(|has| **has != count) {
                return Err(incorrect(format!(
                    "Number of partitions [{has}] of repartition topic [{name}] doesn't match number of partitions \
                     [{count}] of the source topic."
                )));
            }
            self.decided.insert(name, count);
        }
        Ok(())
    }

    /// A task for each partition of the widest topic that a subtopology reads.
    fn tasks(&self, topology: &Topology) -> Result<BTreeMap<Text, SubtopologyTasks>, Misfit> {
        let mut tasks = BTreeMap::new();
        let mut all = 0_i64;
        for (id, subtopology) in &topology.subtopologies {
            let count = subtopology.read_topics().filter_map(|name| self.of(name)).max();
            let count = count.filter(|count| *count > 0);
            let count =
                count.ok_or_else(|| invalid(format!("No source topics found for subtopology {id}")))?;
            all += i64::from(count);
            if all > TASKS_PER_GROUP_MAX {
                return Err(invalid(format!("More than {TASKS_PER_GROUP_MAX} tasks.")).into());
            }
            let stateful = !subtopology.state_changelog_topics.is_empty();
            tasks.insert(id.clone(), SubtopologyTasks { count, stateful });
        }
        Ok(tasks)
    }

    /// Internal topics that are not there; those that are have what they need.
    fn missing(
        &self,
        topology: &Topology,
        tasks: &BTreeMap<Text, SubtopologyTasks>,
    ) -> Result<Vec<MissingTopic>, Misfit> {
        let mut needed: BTreeMap<&Text, (i32, &InternalTopic)> = BTreeMap::new();
        for (id, subtopology) in &topology.subtopologies {
            for (name, topic) in &subtopology.repartition_source_topics {
                let declared = (topic.partitions != 0).then_some(topic.partitions);
                let count = declared.or_else(|| self.decided.get(name).copied()).unwrap_or(topic.partitions);
                needed.insert(name, (count, topic));
            }
            let count = tasks.get(id).map_or(0, |tasks| tasks.count);
            for (name, topic) in &subtopology.state_changelog_topics {
                needed.insert(name, (count, topic));
            }
        }
        let mut missing = Vec::new();
        for (name, (partitions, topic)) in needed {
            match self.topics.by_name(name).map(|there| there.partitions) {
                Some(has) if has != partitions => {
                    return Err(incorrect(format!(
                        "Existing topic {name} has different number of partitions: expected {partitions}, found {has}"
                    )));
                }
                Some(_) => {}
                None => missing.push(MissingTopic {
                    name: name.clone(),
                    partitions,
                    replication_factor: if topic.replication_factor == 0 {
                        -1
                    } else {
                        topic.replication_factor
                    },
                    configs: topic.configs.clone(),
                }),
            }
        }
        Ok(missing)
    }
}

fn all_the_same(counts: &BTreeMap<Text, i32>) -> Result<Option<i32>, Misfit> {
    let first = counts.values().next().copied();
    if counts.values().all(|count| Some(*count) == first) {
        return Ok(first);
    }
    let listed: Vec<String> = counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    let listed = listed.join(", ");
    Err(incorrect(format!("Following topics do not have the same number of partitions: [{{{listed}}}]")))
}
