//! ApiVersions 0-4: what this broker serves, and the features of the cluster.
//!
//! An unknown version is answered by version 0 with UNSUPPORTED_VERSION and the range of this API (KIP-511). Produce is
//! advertised from 0, though 0-2 are refused: librdkafka before 2.8 takes compression support from it (KAFKA-18659).

use ottla_wire::api::ApiKey;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::api_versions_response::{ApiKey as Entry, FinalizedFeature, SupportedFeature};
use ottla_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_wire::text::Text;

use super::{Answer, Call, Client, Dispatcher};

/// From this version on a client names its software, and the name is checked.
const NAMED_FROM: i16 = 3;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    request: ApiVersionsRequest,
) -> Answer {
    let mut response = ApiVersionsResponse::default();
    if call.version >= NAMED_FROM {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_name(name) || !is_software_name(version) {
            response.error_code = ErrorCode::InvalidRequest.code();
            return call.ready(&response);
        }
        client.software = Some((name.clone(), version.clone()));
    }
    response.api_keys = served(call.version);
    let image = dispatcher.context.image.current();
    response.supported_features = dispatcher
        .context
        .features
        .iter()
        // Before version 4 a client does not understand a least level of 0.
        .filter(|feature| call.version >= 4 || feature.level_min > 0)
        .map(|feature| SupportedFeature {
            name: feature.name.into(),
            min_version: feature.level_min,
            max_version: feature.level_max,
        })
        .collect();
    response.finalized_features_epoch = image.index().0.max(0);
    response.finalized_features = image
        .features()
        .map(|(name, level)| FinalizedFeature {
            name: Text::from(name),
            max_version_level: level,
            min_version_level: level,
        })
        .collect();
    call.ready(&response)
}

/// The answer to a version of ApiVersions that this broker does not know.
pub(super) fn unsupported(call: Call) -> Answer {
    let call = Call { version: 0, ..call };
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: served(0).into_iter().filter(|entry| entry.api_key == ApiKey::ApiVersions.code()).collect(),
        ..Default::default()
    };
    call.ready(&response)
}

fn served(_version: i16) -> Vec<Entry> {
    super::dispatcher::SERVED
        .iter()
        .map(|key| Entry {
            api_key: key.code(),
            min_version: key.advertised_min(),
            max_version: *key.versions().end(),
        })
        .collect()
}

/// Kafka's rule: letters and digits, with dots and dashes inside.
fn is_software_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    alphanumeric(name.chars().next())
        && alphanumeric(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_follow_the_pattern() {
        assert!(["a", "librdkafka", "apache-kafka-java", "4.3.0", "a1"].into_iter().all(is_software_name));
        assert!(["", "-a", "a-", ".a", "a b", "a_b", "é"].into_iter().all(|name| !is_software_name(name)));
    }
}
