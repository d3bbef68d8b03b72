//! Groups: all brokers are asked which they coordinate; members, committed offsets and lag are asked of coordinators and leaders, for a page at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use futures_util::future::join_all;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{DeleteGroupsRequest, ListGroupsRequest};
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::group_details::Detail;
use super::login::Caller;
use super::offsets::{LATEST, Offsets, Partitions, living};
use super::parameters::{PAGE_SIZE_MAX, Parameters};
use crate::api::authorization::{Access, Operation, Resource};
use crate::context::BrokerContext;
use crate::internal_topics::CONSUMER_OFFSETS;

/// The version that tells types of groups.
const LIST_GROUPS_VERSION: i16 = 5;
const DELETE_GROUPS_VERSION: i16 = 2;
/// Up to so many groups a list may be sorted by what only coordinators and leaders know.
const SORTED_BY_LAG_MAX: usize = PAGE_SIZE_MAX;
/// Bytes of a group's id.
const ID_BYTES_MAX: usize = 1_024;

/// A group as the broker lists it that coordinates it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) id: Text,
    pub(super) kind: Text,
    pub(super) state: Text,
    pub(super) protocol: Text,
    pub(super) coordinator: i32,
}

/// A group with what else is known of it.
struct Row {
    listed: Listed,
    members: Option<usize>,
    topics: Option<usize>,
    lag: Option<i64>,
}

/// `GET /groups?search=&state=&type=&sort=&order=&page=&size=`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = Parameters::parse(query.as_deref())?;
    let page = parameters.page()?;
    let mut sort = parameters.word("sort", &["name", "state", "type", "members", "lag"])?;
    let descends = parameters.word("order", &["ascending", "descending"])? == "descending";
    let search = parameters.text("search").unwrap_or_default().to_lowercase();
    let (state, kind) = (parameters.text("state"), parameters.text("type"));

    let context = console.context()?;
    let access = caller.access(&console);
    let sees_all = access.has_cluster(Operation::Describe);
    let (mut found, silent) = console.listed_groups(context).await;
    found.retain(|group| {
        (search.is_empty() || group.id.to_lowercase().contains(&search))
            && state.is_none_or(|state| group.state.eq_ignore_ascii_case(state))
            && kind.is_none_or(|kind| group.kind.eq_ignore_ascii_case(kind))
            && (sees_all || access.sees(Operation::Describe, Resource::Group, &group.id))
    });
    found.sort_by(|one, other| one.id.cmp(&other.id));
    let needs_details = matches!(sort, "members" | "lag");
    if needs_details && found.len() > SORTED_BY_LAG_MAX {
        sort = "name";
    }
    if !needs_details {
        let key = |group: &Listed| match sort {
            "state" => group.state.clone(),
            "type" => group.kind.clone(),
            _ => group.id.clone(),
        };
        found.sort_by_key(key);
        if descends {
            found.reverse();
        }
    }
    let (rows, page) = if needs_details && sort != "name" {
        let mut rows = console.rows(context, &access, found).await;
        rows.sort_by_key(|row| {
            if sort == "lag" { row.lag } else { row.members.and_then(|count| count.try_into().ok()) }
        });
        if descends {
            rows.reverse();
        }
        page.cut(rows)
    } else {
        let (found, page) = page.cut(found);
        (console.rows(context, &access, found).await, page)
    };
    let groups: Vec<Value> = rows.iter().map(Row::shown).collect();
    Ok(Json(json!({ "groups": groups, "page": page, "sort": sort, "silent": silent })))
}

impl Row {
    fn shown(&self) -> Value {
        json!({
            "id": &*self.listed.id,
            "type": self.listed.kind.to_lowercase(),
            "protocol": &*self.listed.protocol,
            "state": &*self.listed.state,
            "coordinator": self.listed.coordinator,
            "members": self.members,
            "topics": self.topics,
            "lag": self.lag,
        })
    }
}

impl Console {
    /// Every group, and the brokers that did not answer.
    async fn listed_groups(&self, context: &Arc<BrokerContext>) -> (Vec<Listed>, Vec<i32>) {
        let request = &ListGroupsRequest::default();
        let asked = living(&context.image.current()).into_iter().map(|broker| async move {
            (broker, self.peers.call(context, broker, request, LIST_GROUPS_VERSION).await)
        });
        let (mut groups, mut silent) = (Vec::new(), Vec::new());
        for (broker, answer) in join_all(asked).await {
            match answer {
                Ok(answer) if answer.error_code == 0 => {
                    groups.extend(answer.groups.into_iter().map(|group| Listed {
                        id: group.group_id,
                        kind: group.group_type,
                        state: group.group_state,
                        protocol: group.protocol_type,
                        coordinator: broker,
                    }));
                }
                // Its coordinators are loading.
                Ok(_) => silent.push(broker),
                Err(error) => {
                    tracing::debug!(broker, %error, "its groups are not known");
                    silent.push(broker);
                }
            }
        }
        // While a coordinator moves, two brokers may list the same group.
        groups.sort_by(|one, other| one.id.cmp(&other.id));
        groups.dedup_by(|one, other| one.id == other.id);
        (groups, silent)
    }

    /// Members and lag of these groups.
    async fn rows(&self, context: &Arc<BrokerContext>, access: &Access, groups: Vec<Listed>) -> Vec<Row> {
        let details = self.details(context, &groups).await;
        let read = details.values().filter_map(|detail| detail.committed.as_ref());
        let ends = self.ends(context, read.flat_map(BTreeMap::keys)).await;
        groups
            .into_iter()
            .map(|listed| {
                let detail = details.get(&listed.id);
                let committed = detail.and_then(|detail| detail.committed.as_ref()).map(|committed| {
                    committed.iter().filter(|((topic, _), _)| access.sees_topic(Operation::Describe, topic))
                });
                let topics = committed
                    .clone()
                    .map(|committed| committed.map(|((topic, _), _)| topic).collect::<BTreeSet<_>>().len());
                let lag = committed.map(|committed| {
                    committed.filter_map(|(key, committed)| committed.lag(ends.get(key).copied())).sum()
                });
                let members = detail.and_then(|detail| detail.members.as_ref()).map(Vec::len);
                Row { listed, members, topics, lag }
            })
            .collect()
    }

    /// Where these partitions end.
    async fn ends<'a>(
        &self,
        context: &Arc<BrokerContext>,
        partitions: impl Iterator<Item = &'a (Text, i32)>,
    ) -> Offsets {
        let mut wanted: BTreeMap<Text, BTreeSet<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            wanted.entry(topic.clone()).or_default().insert(*partition);
        }
        let wanted: Partitions =
            wanted.into_iter().map(|(topic, partitions)| (topic, partitions.into_iter().collect())).collect();
        self.offsets_at(context, &wanted, LATEST).await
    }
}

/// Who coordinates a group: the leader of its partition of the offsets topic.
fn coordinator(context: &BrokerContext, id: &str) -> Option<i32> {
    let index = usize::try_from(context.groups.partition_of(id)?).ok()?;
    let image = context.image.current();
    Some(image.topic_by_name(CONSUMER_OFFSETS)?.partitions.get(index)?.leader?.0)
}

/// `GET /groups/{id}?page=&size=`: its members, and a page of the partitions that it has committed in.
pub(super) async fn describe(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = Parameters::parse(query.as_deref())?.page()?;
    let access = caller.access(&console);
    check_id(&id)?;
    access.group(Operation::Describe, &id).map_err(ApiError::plain)?;
    let context = console.context()?;
    let (found, _) = console.listed_groups(context).await;
    let listed = found.into_iter().find(|group| *group.id == *id).ok_or_else(|| {
        ApiError::not_found(ErrorCode::GroupIdNotFound, format!("there is no group \"{id}\""))
    })?;
    let mut details = console.details(context, std::slice::from_ref(&listed)).await;
    let detail = details.remove(&listed.id).unwrap_or_default();
    let readers = detail.readers();
    let seen = |topic: &Text| access.sees_topic(Operation::Describe, topic);
    let committed = detail.committed.as_ref();
    // Partitions that somebody reads without having committed anything are told of as well.
    let partitions: BTreeSet<&(Text, i32)> =
        committed.into_iter().flat_map(BTreeMap::keys).chain(readers.keys()).collect();
    let ends = console.ends(context, partitions.iter().copied()).await;
    let (mut lag, mut committed_in) = (0, 0);
    let mut offsets: Vec<Value> = Vec::new();
    for key in partitions.into_iter().filter(|(topic, _)| seen(topic)) {
        let end = ends.get(key).copied();
        let committed = committed.and_then(|committed| committed.get(key));
        let behind = committed.and_then(|committed| committed.lag(end));
        lag += behind.unwrap_or(0);
        committed_in += usize::from(committed.is_some());
        offsets.push(json!({
            "topic": &*key.0,
            "partition": key.1,
            "committed": committed.map(|committed| committed.offset),
            "metadata": committed.map(|committed| &*committed.metadata),
            "end": end,
            "lag": behind,
            "member": readers.get(key).map(|members| members.join(", ")),
        }));
    }
    let (offsets, page) = page.cut(offsets);
    Ok(Json(json!({
        "id": &*listed.id,
        "type": listed.kind.to_lowercase(),
        "protocol": &*listed.protocol,
        "state": &*listed.state,
        "coordinator": listed.coordinator,
        "assignor": detail.assignor,
        "members": detail.members.as_ref().map(|members| {
            members.iter().map(|member| member.shown(&seen)).collect::<Vec<_>>()
        }),
        "lag": detail.committed.as_ref().map(|_| lag),
        "committed_in": detail.committed.as_ref().map(|_| committed_in),
        "offsets": offsets,
        "page": page,
        "may_delete": access.sees(Operation::Delete, Resource::Group, &id),
    })))
}

fn check_id(id: &str) -> Result<(), ApiError> {
    if id.len() > ID_BYTES_MAX {
        return Err(ApiError::invalid(format!("a group's id has at most {ID_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// `DELETE /groups/{id}`: a group without members, with its offsets.
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    check_id(&id)?;
    caller.access(&console).group(Operation::Delete, &id).map_err(ApiError::plain)?;
    let context = console.context()?;
    if context.groups.partition_of(&id).is_none() {
        // Nobody has ever committed or joined: there is not even a place for groups.
        return Err(ApiError::not_found(ErrorCode::GroupIdNotFound, format!("there is no group \"{id}\"")));
    }
    let broker =
        coordinator(context, &id).ok_or_else(|| ApiError::plain(ErrorCode::CoordinatorNotAvailable))?;
    let request = DeleteGroupsRequest { groups_names: vec![Text::from(id.as_str())] };
    let answer = console.peers.call(context, broker, &request, DELETE_GROUPS_VERSION).await?;
    let code = answer.results.first().map_or(-1, |result| result.error_code);
    match ErrorCode::from_code(code) {
        _ if code == 0 => Ok(Json(json!({}))),
        ErrorCode::NonEmptyGroup => Err(ApiError::of_code(
            ErrorCode::NonEmptyGroup,
            format!("group \"{id}\" has members: stop them first"),
        )),
        code => Err(ApiError::of_code(code, format!("group \"{id}\" was not deleted: {}", code.name()))),
    }
}

/// Details by group.
pub(super) type Details = HashMap<Text, Detail>;
