//! DescribeGroups and ListGroups (KIP-518, KIP-848, KIP-1043). Queries: they change nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::member::{LiveGroup, Member};
use super::{GroupCoordinator, GroupState};

/// The types of groups, as ListGroups names them.
const CLASSIC_GROUP_TYPE: &str = "classic";
const CONSUMER_GROUP_TYPE: &str = "consumer";
const SHARE_GROUP_TYPE: &str = "share";
/// Also their protocol type.
const STREAMS_GROUP_TYPE: &str = "streams";

/// A member of a described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
    /// The client's id.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Of the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Empty unless the group is stable.
    pub assignment: Bytes,
}

/// A described group. One that is not there is dead, with GROUP_ID_NOT_FOUND; before version 6 that code is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// GROUP_ID_NOT_FOUND or none.
    pub error: ErrorCode,
    /// Its state.
    pub state: GroupState,
    /// Empty for one that never had members.
    pub protocol_type: Text,
    /// The chosen protocol; empty unless the group is stable.
    pub protocol_data: Text,
    /// By member id.
    pub members: Vec<MemberDescription>,
}

/// Which groups to list. An empty list of states or types means all; names are compared without case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Names of states.
    pub states: Vec<Text>,
    /// Names of types.
    pub types: Vec<Text>,
}

/// A listed group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// The group.
    pub group_id: Text,
    /// Empty for one that never had members.
    pub protocol_type: Text,
    /// Its state, as Kafka prints it.
    pub state: &'static str,
    /// `classic`, `consumer`, `share` or `streams`.
    pub group_type: &'static str,
}

impl GroupCoordinator {
    /// A group as it is now.
    pub fn describe(&self, group_id: &str) -> Result<GroupDescription, ErrorCode> {
        if !self.leading {
            return Err(ErrorCode::NotCoordinator);
        }
        // Groups of other kinds are described by requests of their own only, and those as they are committed: one that is
        // on its way to be another kind is still what the log has.
        let is_classic =
            |group: &LiveGroup| group.consumer.is_none() && group.share.is_none() && group.streams.is_none();
        let live = self.groups.get(group_id).filter(|group| group.state != GroupState::Dead);
        let logged = || self.durable.group(group_id).filter(|durable| durable.metadata.is_some());
        let former = live
            .filter(|group| !is_classic(group))
            .and_then(|group| logged().map(|durable| LiveGroup::from_durable(group.id.clone(), durable)));
        let Some(group) = former.as_ref().or(live).filter(|group| is_classic(group)) else {
            return Ok(GroupDescription {
                error: ErrorCode::GroupIdNotFound,
                state: GroupState::Dead,
                protocol_type: Text::default(),
                protocol_data: Text::default(),
                members: Vec::new(),
            });
        };
        let stable = group.state == GroupState::Stable;
        let protocol_data = group.protocol_name.clone().filter(|_| stable);
        Ok(GroupDescription {
            error: ErrorCode::None,
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol_data.unwrap_or_default(),
            members: group.members.values().map(|member| described(group, member, stable)).collect(),
        })
    }

    /// How many groups there are by type and state.
    pub fn counts(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.state != GroupState::Dead) {
            *counts.entry(kind_of(group)).or_default() += 1;
        }
        counts
    }

    /// The groups that pass the filter, by id.
    pub fn list(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>, ErrorCode> {
        if !self.leading {
            return Err(ErrorCode::NotCoordinator);
        }
        let passes = |names: &[Text], name: &str| {
            names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let listing = |group: &LiveGroup| {
            let (group_type, state) = kind_of(group);
            let protocol_type = match group_type {
                CLASSIC_GROUP_TYPE => group.protocol_type.clone().unwrap_or_default(),
                // These have their type's name.
                other => Text::from_static(other),
            };
            GroupListing { group_id: group.id.clone(), protocol_type, state, group_type }
        };
        let there = self.groups.values().filter(|group| group.state != GroupState::Dead);
        let listed = |listing: &GroupListing| {
            passes(&filter.types, listing.group_type) && passes(&filter.states, listing.state)
        };
        Ok(there.map(listing).filter(listed).collect())
    }
}

/// Its type and state.
fn kind_of(group: &LiveGroup) -> (&'static str, &'static str) {
    match (&group.consumer, &group.share, &group.streams) {
        (Some(consumer), ..) => (CONSUMER_GROUP_TYPE, consumer.group.state().name()),
        (None, Some(share), _) => (SHARE_GROUP_TYPE, share.group.state().name()),
        (None, None, Some(streams)) => (STREAMS_GROUP_TYPE, streams.group.state().name()),
        (None, None, None) => (CLASSIC_GROUP_TYPE, group.state.name()),
    }
}

fn described(group: &LiveGroup, member: &Member, stable: bool) -> MemberDescription {
    MemberDescription {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: if stable { member.metadata(group.protocol_name.as_ref()) } else { Bytes::new() },
        assignment: if stable { member.assignment.clone() } else { Bytes::new() },
    }
}
