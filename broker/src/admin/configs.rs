//! Properties of topics, brokers, groups and the cluster: what holds and why, and changing it.

use ottla_metadata::config::{self, DescribedConfig};
use ottla_proto::admin as proto;
use ottla_proto::admin::ConfigScope;
use ottla_proto::controller;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use tonic::{Code, Status};

use super::{AdminService, grpc_code, status};
use crate::api::authorization::{Access, Operation, Permitted};

fn resource(scope: ConfigScope, name: &str) -> Result<(ResourceType, String), Status> {
    match scope {
        ConfigScope::Topic => Ok((ResourceType::Topic, name.to_owned())),
        ConfigScope::Broker => Ok((ResourceType::Broker, name.to_owned())),
        ConfigScope::Cluster => Ok((ResourceType::Broker, String::new())),
        ConfigScope::Group => Ok((ResourceType::Group, name.to_owned())),
        ConfigScope::ClientMetrics => Ok((ResourceType::ClientMetrics, name.to_owned())),
        ConfigScope::Unspecified => Err(status(
            Code::InvalidArgument,
            ErrorCode::InvalidRequest,
            "no scope was given",
            "name a topic, broker or group",
        )),
    }
}

/// An operation on the configs of a scope.
pub(super) fn right(access: &Access, operation: Operation, scope: ConfigScope, name: &str) -> Permitted {
    match scope {
        ConfigScope::Topic => access.topic(operation, name),
        ConfigScope::Group => access.group(operation, name),
        _ => access.cluster(operation),
    }
}

pub(crate) fn source_name(source: i8) -> &'static str {
    match source {
        1 => "topic",
        2 => "broker",
        3 => "cluster",
        4 => "static",
        7 => "client-metrics",
        8 => "group",
        _ => "default",
    }
}

pub(crate) fn type_name(code: i8) -> &'static str {
    match code {
        1 => "boolean",
        2 => "string",
        3 => "int",
        4 => "short",
        5 => "long",
        6 => "double",
        7 => "list",
        8 => "class",
        9 => "password",
        _ => "unknown",
    }
}

impl AdminService {
    pub(super) fn configs(
        &self,
        request: &proto::DescribeConfigsRequest,
    ) -> Result<proto::DescribeConfigsReply, Status> {
        let image = self.image.current();
        let name = request.name.as_str();
        let unknown = |what: &str, hint: &str| {
            status(
                Code::NotFound,
                ErrorCode::UnknownTopicOrPartition,
                &format!("{what} \"{name}\" does not exist"),
                hint,
            )
        };
        let described = match request.scope() {
            ConfigScope::Topic if image.topic_by_name(name).is_none() => {
                return Err(unknown("topic", "'ottla topic list' shows the topics that do"));
            }
            ConfigScope::Topic => config::describe_topic(&image, &self.properties, self.node_id, name),
            ConfigScope::Broker => {
                let id = name.parse::<i32>().ok().filter(|id| image.broker((*id).into()).is_some());
                let id =
                    id.ok_or_else(|| unknown("broker", "'ottla broker list' shows the brokers that do"))?;
                // Another broker's property file is not known here: what it has from there shows as this node's default.
                let nothing = std::collections::BTreeMap::new();
                let properties = if id == self.node_id { &*self.properties } else { &nothing };
                config::describe_broker(&image, properties, id)
            }
            ConfigScope::Cluster => config::describe_cluster_default(&image),
            ConfigScope::Group => config::describe_group(&image, &self.properties, name),
            ConfigScope::ClientMetrics => config::describe_client_metrics(&image, name),
            ConfigScope::Unspecified => {
                return Err(status(
                    Code::InvalidArgument,
                    ErrorCode::InvalidRequest,
                    "this scope has no configs here",
                    "",
                ));
            }
        };
        let wanted = |config: &DescribedConfig| {
            request.keys.is_empty() || request.keys.iter().any(|key| **key == *config.name)
        };
        let configs = described
            .into_iter()
            .filter(wanted)
            .map(|config| proto::Config {
                name: config.name.clone(),
                value: config.value,
                source: source_name(config.source).to_owned(),
                read_only: config.read_only,
                sensitive: config.sensitive,
                r#type: type_name(config.config_type).to_owned(),
                documentation: config.documentation.to_string(),
            })
            .collect();
        Ok(proto::DescribeConfigsReply { configs })
    }

    /// What has settings of its own; the cluster's defaults of brokers are a resource without a name.
    pub(super) fn config_resources(&self) -> Vec<proto::ConfigResource> {
        let image = self.image.current();
        let of = |kind: ResourceType, scope: ConfigScope| {
            let mut names: Vec<String> = image.config_resources(kind).map(str::to_owned).collect();
            names.sort_unstable();
            names.into_iter().map(move |name| {
                let scope = if scope == ConfigScope::Broker && name.is_empty() {
                    ConfigScope::Cluster
                } else {
                    scope
                };
                proto::ConfigResource { scope: scope.into(), name }
            })
        };
        of(ResourceType::Topic, ConfigScope::Topic)
            .chain(of(ResourceType::Broker, ConfigScope::Broker))
            .chain(of(ResourceType::Group, ConfigScope::Group))
            .chain(of(ResourceType::ClientMetrics, ConfigScope::ClientMetrics))
            .collect()
    }

    pub(super) async fn set_configs(
        &self,
        request: proto::AlterConfigsRequest,
    ) -> Result<proto::AlterConfigsReply, Status> {
        let (resource_type, resource_name) = resource(request.scope(), &request.name)?;
        let set = request.set.into_iter().map(|(name, value)| controller::ConfigChange {
            name,
            operation: controller::ConfigOperation::Set.into(),
            value: Some(value),
        });
        let unset = request.unset.into_iter().map(|name| controller::ConfigChange {
            name,
            operation: controller::ConfigOperation::Delete.into(),
            value: None,
        });
        let alteration = controller::ConfigAlteration {
            resource_type: resource_type.into(),
            resource_name,
            changes: set.chain(unset).collect(),
        };
        if let Some(own) = self.own_configs.get()
            && let Err(message) = own.check(alteration.clone(), false).await
        {
            let hint = "nothing was changed";
            return Err(status(Code::InvalidArgument, ErrorCode::InvalidRequest, &message, hint));
        }
        let command = controller::AlterConfigs {
            validate_only: request.validate_only,
            replace_all: false,
            resources: vec![alteration],
        };
        let reply = self.submit(controller::command::Command::AlterConfigs(command)).await?;
        let controller::command_reply::Reply::AlterConfigs(reply) = reply else {
            return Err(Status::internal("the controller answered another question"));
        };
        match reply.resources.into_iter().find(|resource| resource.error_code != 0) {
            Some(refused) => {
                let code = i16::try_from(refused.error_code)
                    .map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
                Err(status(
                    grpc_code(code),
                    code,
                    &refused.message,
                    "'ottla config reference' shows every property",
                ))
            }
            None => Ok(proto::AlterConfigsReply {}),
        }
    }
}
