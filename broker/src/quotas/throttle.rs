//! Says the throttle time in an answer that is already encoded: nearly all of Kafka's answers begin with it.

use bytes::BytesMut;
use ottla_wire::api::ApiKey;
use ottla_wire::encode::{Segment, Segments};

use crate::api::Response;

/// Length and correlation id in front of an answer.
const HEADER_BYTES: usize = 8;

/// From which version on an answer has its throttle time, and how many bytes of the body stand before it. `None`: it has none,
/// or elsewhere (Produce, ApiVersions).
fn place(key: ApiKey) -> Option<(i16, usize)> {
    Some(match key {
        ApiKey::Produce
        | ApiKey::ApiVersions
        | ApiKey::SaslHandshake
        | ApiKey::SaslAuthenticate
        | ApiKey::WriteTxnMarkers
        | ApiKey::CreateDelegationToken
        | ApiKey::RenewDelegationToken
        | ApiKey::ExpireDelegationToken
        | ApiKey::DescribeDelegationToken
        | ApiKey::DescribeQuorum
        | ApiKey::InitializeShareGroupState
        | ApiKey::ReadShareGroupState
        | ApiKey::WriteShareGroupState
        | ApiKey::DeleteShareGroupState
        | ApiKey::ReadShareGroupStateSummary => return None,
        ApiKey::FindCoordinator
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups => (1, 0),
        ApiKey::ListOffsets | ApiKey::JoinGroup => (2, 0),
        ApiKey::Metadata | ApiKey::OffsetCommit | ApiKey::OffsetFetch => (3, 0),
        // Its error code stands first.
        ApiKey::OffsetDelete => (0, 2),
        _ => (0, 0),
    })
}

/// Enters a throttle time, unless the answer has a greater one; the connection is muted in any case.
pub(crate) fn tell(response: Response, key: ApiKey, version: i16, throttle_time_ms: i32) -> Response {
    let mut response = response.muted(throttle_time_ms);
    let Some((_, before)) = place(key).filter(|(first, _)| version >= *first) else { return response };
    let at = HEADER_BYTES + usize::from(key.response_header_version(version) >= 1) + before;
    let segments = std::mem::take(&mut response.segments);
    let mut is_first = true;
    response.segments = segments
        .into_iter()
        .map(|segment| match segment {
            Segment::Bytes(bytes) if std::mem::take(&mut is_first) => {
                let mut bytes = BytesMut::from(bytes);
                if let Some(field) = bytes.get_mut(at..at + 4) {
                    let told = field.try_into().map_or(0, i32::from_be_bytes);
                    field.copy_from_slice(&told.max(throttle_time_ms).to_be_bytes());
                }
                Segment::Bytes(bytes.freeze())
            }
            other => other,
        })
        .collect::<Segments>();
    response
}

#[cfg(test)]
mod tests {
    use ottla_wire::decode::Decoder;
    use ottla_wire::encode::encode_response_frame;
    use ottla_wire::messages::{
        ApiVersionsResponse, FindCoordinatorResponse, Message, MetadataResponse, OffsetDeleteResponse,
    };

    use super::*;

    fn told<M: Message>(key: ApiKey, version: i16, body: &M) -> M {
        let segments = encode_response_frame(key, version, 1, body).unwrap();
        let response = tell(Response { segments, ..Default::default() }, key, version, 77);
        assert_eq!(response.mute_ms, 77);
        let header = 8 + usize::from(key.response_header_version(version) >= 1);
        M::decode(&mut Decoder::new(response.segments.into_bytes().slice(header..)), version).unwrap()
    }

    #[test]
    fn answers_say_it_in_every_version_that_can() {
        for version in ApiKey::Metadata.versions() {
            let expected = if version >= 3 { 77 } else { 0 };
            assert_eq!(
                told(ApiKey::Metadata, version, &MetadataResponse::default()).throttle_time_ms,
                expected
            );
        }
        for version in ApiKey::FindCoordinator.versions() {
            let body = FindCoordinatorResponse { throttle_time_ms: 5, ..Default::default() };
            let expected = if version >= 1 { 77 } else { 0 };
            assert_eq!(told(ApiKey::FindCoordinator, version, &body).throttle_time_ms, expected);
        }
        assert_eq!(told(ApiKey::OffsetDelete, 0, &OffsetDeleteResponse::default()).throttle_time_ms, 77);
        let other = ApiVersionsResponse { error_code: 3, ..Default::default() };
        assert_eq!(told(ApiKey::ApiVersions, 4, &other), other);
        let more = MetadataResponse { throttle_time_ms: 99, ..Default::default() };
        assert_eq!(told(ApiKey::Metadata, 12, &more).throttle_time_ms, 99);
    }
}
