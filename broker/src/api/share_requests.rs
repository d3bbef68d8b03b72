//! What ShareFetch and ShareAcknowledge have in common: what members say of records, and what the answer to that is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ottla_coordinator::share_partition::session::{Partition, SessionKey};
use ottla_coordinator::share_partition::{AcknowledgeType, Acknowledgement};
use ottla_coordinator::share_state::ShareKey;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use crate::context::BrokerContext;

/// What is said of one partition: types by ranges of offsets, as they came.
pub(super) struct Said {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) types: Vec<i8>,
}

/// What became of it.
pub(super) type Outcomes = BTreeMap<Partition, ErrorCode>;

/// Who asks, or why it cannot be told.
pub(super) fn session_key(group_id: Option<Text>, member_id: Option<Text>) -> Result<SessionKey, ErrorCode> {
    let given = |text: Option<Text>| text.filter(|text| !text.is_empty()).ok_or(ErrorCode::InvalidRequest);
    Ok(SessionKey { group_id: given(group_id)?, member_id: given(member_id)? })
}

/// Has everything acknowledged that was said; partitions answer by themselves.
pub(super) async fn acknowledge(
    context: Arc<BrokerContext>,
    access: Access,
    session: SessionKey,
    said: Vec<(Partition, Vec<Said>)>,
    (renew_known, is_renew): (bool, bool),
) -> Outcomes {
    // A partition that stands twice is one.
    let mut by_partition: HashMap<Partition, Vec<Said>> = HashMap::new();
    for (partition, said) in said {
        by_partition.entry(partition).or_default().extend(said);
    }
    let each = by_partition.into_iter().map(|(partition, said)| {
        let (context, session) = (&context, &session);
        let permitted = access.topic_by_id(Operation::Read, partition.0);
        async move {
            let checked = permitted.and_then(|()| checked(&said, renew_known, is_renew));
            let outcome = match checked {
                Ok(said) => {
                    let key = ShareKey {
                        group_id: session.group_id.clone(),
                        topic_id: partition.0,
                        partition: partition.1,
                    };
                    context.share.acknowledge(&key, &session.member_id, &said).await
                }
                Err(code) => Err(code),
            };
            (partition, outcome.err().unwrap_or(ErrorCode::None))
        }
    });
    let outcomes: Outcomes = futures_util::future::join_all(each).await.into_iter().collect();
    let counters = &context.share.counters;
    counters.acknowledges.add(outcomes.len());
    counters.failed_acknowledges.add(outcomes.values().filter(|code| **code != ErrorCode::None).count());
    outcomes
}

/// Ranges must rise and have one type, or one for each offset; the last type is known since version 2, in requests that
/// say that they renew.
fn checked(said: &[Said], renew_known: bool, is_renew: bool) -> Result<Vec<Acknowledgement>, ErrorCode> {
    let mut previous_last = -1;
    let mut checked = Vec::with_capacity(said.len());
    for one in said {
        let length = one.last.checked_sub(one.first).and_then(|length| length.checked_add(1));
        let fits = match one.types.len() {
            0 => false,
            1 => true,
            count => length == i64::try_from(count).ok(),
        };
        if one.first < 0 || one.first > one.last || one.first <= previous_last || !fits {
            return Err(ErrorCode::InvalidRequest);
        }
        previous_last = one.last;
        let types: Option<Vec<AcknowledgeType>> =
            one.types.iter().map(|code| AcknowledgeType::from_code(*code)).collect();
        let types = types.ok_or(ErrorCode::InvalidRequest)?;
        if types.contains(&AcknowledgeType::Renew) && !(renew_known && is_renew) {
            return Err(ErrorCode::InvalidRequest);
        }
        checked.push(Acknowledgement { first: one.first, last: one.last, types });
    }
    Ok(checked)
}

/// The leader and its epoch, for clients that asked the wrong broker.
pub(super) fn leader_of(context: &BrokerContext, (topic_id, index): Partition) -> (i32, i32) {
    let image = context.image.current();
    let known = image.topic_by_id(topic_id.into()).zip(usize::try_from(index).ok());
    let known = known.and_then(|(topic, index)| topic.partitions.get(index));
    known.map_or((-1, -1), |known| (known.leader.map_or(-1, |leader| leader.0), known.leader_epoch.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ranges: &[(i64, i64, &[i8])]) -> Vec<Said> {
        ranges
            .iter()
            .map(|(first, last, types)| Said { first: *first, last: *last, types: types.to_vec() })
            .collect()
    }

    #[test]
    fn what_is_said_must_be_in_order_and_complete() {
        let code = |ranges: &[(i64, i64, &[i8])]| checked(&said(ranges), true, false).err();
        assert_eq!(code(&[(0, 4, &[1]), (5, 6, &[2, 3])]), None);
        let wrong: [&[(i64, i64, &[i8])]; 8] = [
            &[(4, 3, &[1])],
            &[(-1, 3, &[1])],
            &[(0, 3, &[1]), (3, 4, &[1])],
            &[(0, 3, &[])],
            &[(0, 3, &[1, 1])],
            &[(0, 0, &[5])],
            &[(0, 0, &[-1])],
            &[(0, 0, &[4])],
        ];
        for ranges in wrong {
            assert_eq!(code(ranges), Some(ErrorCode::InvalidRequest));
        }
        assert!(checked(&said(&[(0, 0, &[4])]), true, true).is_ok());
        assert!(checked(&said(&[(0, 0, &[4])]), false, true).is_err());
        assert!(checked(&said(&[(0, i64::MAX, &[1])]), true, true).is_ok());
    }
}
