//! ConsumerGroupDescribe 0-1: consumer groups as their coordinator sees them (KIP-848).

use ottla_coordinator::group::ConsumerGroupDescription;
use ottla_metadata::features::GROUP_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ConsumerGroupDescribeRequest,
) -> Answer {
    let context = &dispatcher.context;
    let is_served = context.image.current().feature_level(GROUP_VERSION) > 0;
    let groups = request.group_ids.into_iter().map(|group_id| {
        if !is_served {
            return ConsumerGroupDescription::refused(group_id, ErrorCode::UnsupportedVersion);
        }
        match context.groups.query(&group_id, |machine| machine.describe_consumer_group(&group_id)) {
            Ok(description) => description.into_response(group_id),
            Err(error) => ConsumerGroupDescription::refused(group_id, error),
        }
    });
    call.ready(&ConsumerGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}
