//! Levels of a broker's loggers (KIP-412): DescribeConfigs and IncrementalAlterConfigs of the resource type 8, which only the broker
//! itself answers.

use std::time::Instant;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, describe_configs_request,
    incremental_alter_configs_request,
};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::Cluster;

/// Newest versions that are asked.
const DESCRIBE_VERSION: i16 = 4;
const ALTER_VERSION: i16 = 1;
/// Kafka's resource type of loggers.
const BROKER_LOGGER: i8 = 8;
/// Kafka's operations of a change.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Every logger of a broker and its level; with names only those.
pub(crate) async fn levels(
    cluster: &mut Cluster,
    broker: i32,
    names: &[String],
) -> Result<Vec<(String, String)>, ClientError> {
    let text = |name: &String| Text::from(name.as_str());
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::Resource {
            resource_type: BROKER_LOGGER,
            resource_name: Text::from(broker.to_string().as_str()),
            configuration_keys: (!names.is_empty()).then(|| names.iter().map(text).collect()),
        }],
        ..Default::default()
    };
    find(cluster, broker).await?;
    let mut answer = cluster.ask(broker, &request, DESCRIBE_VERSION).await?;
    let Some(result) = answer.results.pop() else { return Ok(Vec::new()) };
    refused(broker, result.error_code, result.error_message)?;
    let shown = |text: Option<Text>| text.map(|text| text.to_string()).unwrap_or_default();
    Ok(result.configs.into_iter().map(|config| (config.name.to_string(), shown(config.value))).collect())
}

/// Gives loggers levels; `None`: what the process began with.
pub(crate) async fn change(
    cluster: &mut Cluster,
    broker: i32,
    levels: &[(String, Option<String>)],
    validate_only: bool,
) -> Result<(), ClientError> {
    let config = |(name, level): &(String, Option<String>)| incremental_alter_configs_request::Config {
        name: Text::from(name.as_str()),
        config_operation: if level.is_some() { SET } else { DELETE },
        value: level.as_deref().map(Text::from),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::Resource {
            resource_type: BROKER_LOGGER,
            resource_name: Text::from(broker.to_string().as_str()),
            configs: levels.iter().map(config).collect(),
        }],
        validate_only,
    };
    find(cluster, broker).await?;
    let answer = cluster.ask(broker, &request, ALTER_VERSION).await?;
    answer
        .responses
        .into_iter()
        .try_for_each(|response| refused(broker, response.error_code, response.error_message))
}

async fn find(cluster: &mut Cluster, broker: i32) -> Result<(), ClientError> {
    let deadline = Instant::now() + cluster.timeout();
    cluster.refresh_until(&[], deadline).await?;
    if cluster.address(broker).is_some() {
        return Ok(());
    }
    Err(ClientError::Refused {
        what: format!("broker {broker}"),
        code: ErrorCode::BrokerNotAvailable,
        message: Some("no such broker runs".to_owned()),
    })
}

fn refused(broker: i32, code: i16, message: Option<Text>) -> Result<(), ClientError> {
    if code == 0 {
        return Ok(());
    }
    Err(ClientError::Refused {
        what: format!("loggers of broker {broker}"),
        code: ErrorCode::from_code(code),
        message: message.map(|message| message.to_string()),
    })
}
