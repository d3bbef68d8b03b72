//! DescribeConfigs 1-4: every property of a topic, broker, group or subscription to metrics: value, where it comes from, what else could say it.

use std::collections::BTreeSet;

use ottla_metadata::config::{self, ConfigSource, ConfigType, DescribedConfig};
use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_configs_request::Resource;
use ottla_wire::messages::describe_configs_response::{Config, Result as Described, Synonym};
use ottla_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::config_changes::{BROKER_LOGGER, own_loggers};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::loggers;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeConfigsRequest,
) -> Answer {
    let context = &dispatcher.context;
    let image = context.image.current();
    let access = context.access(&call);
    let results = request
        .resources
        .iter()
        .map(|resource| {
            let mut answer = Described {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            let permitted =
                access.config(Operation::DescribeConfigs, resource.resource_type, &resource.resource_name);
            let described = permitted
                .map_err(|code| (code, REFUSED.to_owned()))
                .and_then(|()| describe(context, &image, resource));
            match described {
                Ok(configs) => {
                    // An empty list asks for everything, as none does.
                    let wanted: Option<BTreeSet<&str>> = resource
                        .configuration_keys
                        .as_ref()
                        .filter(|keys| !keys.is_empty())
                        .map(|keys| keys.iter().map(|key| &**key).collect());
                    answer.configs = configs
                        .into_iter()
                        .filter(|config| wanted.as_ref().is_none_or(|wanted| wanted.contains(&*config.name)))
                        .map(|config| {
                            to_answer(config, request.include_synonyms, request.include_documentation)
                        })
                        .collect();
                }
                Err((code, message)) => {
                    answer.error_code = code.code();
                    answer.error_message = Some(Text::from(message));
                }
            }
            answer
        })
        .collect();
    call.ready(&DescribeConfigsResponse { results, ..Default::default() })
}

fn describe(
    context: &BrokerContext,
    image: &MetadataImage,
    resource: &Resource,
) -> Result<Vec<DescribedConfig>, (ErrorCode, String)> {
    let name = &*resource.resource_name;
    if resource.resource_type == BROKER_LOGGER {
        own_loggers(context, name)?;
        return Ok(loggers());
    }
    let properties = &context.options.properties;
    match ResourceType::try_from(i32::from(resource.resource_type)) {
        Ok(ResourceType::Topic) => {
            ottla_metadata::topic_name::validate(name)
                .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            if image.topic_by_name(name).is_none() {
                return Err((ErrorCode::UnknownTopicOrPartition, format!("no topic is named '{name}'")));
            }
            Ok(context.describe_topic_configs(name))
        }
        Ok(ResourceType::Broker) if name.is_empty() => Ok(config::describe_cluster_default(image)),
        Ok(ResourceType::Broker) => {
            let own = context.options.node_id;
            match name.parse::<i32>() {
                Ok(id) if id == own => Ok(config::describe_broker(image, properties, own)),
                Ok(id) => Err((
                    ErrorCode::InvalidRequest,
                    format!("Unexpected broker id, expected {own} or empty string, but received {id}"),
                )),
                Err(_) => Err((
                    ErrorCode::InvalidRequest,
                    format!("Broker id must be an integer, but it is: {name}"),
                )),
            }
        }
        Ok(ResourceType::ClientMetrics) if !name.is_empty() => {
            Ok(config::describe_client_metrics(image, name))
        }
        Ok(ResourceType::Group) if !name.is_empty() => Ok(config::describe_group(image, properties, name)),
        _ => Err((
            ErrorCode::InvalidRequest,
            format!("resources of type {} named '{name}' have no configs here", resource.resource_type),
        )),
    }
}

fn loggers() -> Vec<DescribedConfig> {
    let levels = loggers::current().map(loggers::Loggers::levels).unwrap_or_default();
    let described = levels.into_iter().map(|(name, level)| DescribedConfig {
        name,
        value: Some(level.to_owned()),
        read_only: false,
        source: ConfigSource::DynamicBrokerLoggerConfig.code(),
        sensitive: false,
        config_type: ConfigType::String.code(),
        documentation: "The least severe events that this logger writes.",
        synonyms: Vec::new(),
    });
    described.collect()
}

fn to_answer(config: DescribedConfig, with_synonyms: bool, with_documentation: bool) -> Config {
    Config {
        name: config.name.into(),
        value: config.value.map(Text::from),
        read_only: config.read_only,
        config_source: config.source,
        is_sensitive: config.sensitive,
        synonyms: if with_synonyms {
            config
                .synonyms
                .into_iter()
                .map(|(name, value, source)| Synonym {
                    name: Text::from(name),
                    value: value.map(Text::from),
                    source,
                })
                .collect()
        } else {
            Vec::new()
        },
        config_type: config.config_type,
        documentation: with_documentation.then(|| Text::from(config.documentation)),
    }
}
