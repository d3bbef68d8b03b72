//! `GET` and `PUT /configs/{scope}/{name}`: properties with what they are and why. Scopes: topic, broker, cluster (name `default`), group.
//!
//! A broker's property file is known to itself alone: for another broker it is asked of that one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use ottla_metadata::config::{self, ConfigKind, DescribedConfig};
use ottla_proto::admin as proto;
use ottla_proto::admin::ConfigScope;
use ottla_proto::admin::admin_server::Admin;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{DescribeConfigsRequest, describe_configs_request};
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::login::Caller;
use super::topic_changes::{CONFIGS_MAX, flag, object, texts};
use crate::admin::{source_name, type_name};
use crate::api::authorization::{Operation, Resource};

/// The version that tells types and documentation.
const DESCRIBE_CONFIGS_VERSION: i16 = 4;

fn scope_of(scope: &str, name: &str) -> Result<(ConfigScope, String), ApiError> {
    match scope {
        "topic" => Ok((ConfigScope::Topic, name.to_owned())),
        "broker" => Ok((ConfigScope::Broker, name.to_owned())),
        "cluster" if name == "default" => Ok((ConfigScope::Cluster, String::new())),
        "group" => Ok((ConfigScope::Group, name.to_owned())),
        _ => Err(ApiError::not_found(
            ErrorCode::InvalidRequest,
            "configs are those of topic/NAME, broker/ID, group/ID, cluster/default",
        )),
    }
}

/// The properties, those that differ from the default first.
pub(super) async fn describe(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path((scope, name)): Path<(String, String)>,
) -> Answer {
    let (scope, name) = scope_of(&scope, &name)?;
    let other =
        name.parse::<i32>().ok().filter(|id| scope == ConfigScope::Broker && *id != console.admin.node_id);
    let request = proto::DescribeConfigsRequest { scope: scope.into(), name: name.clone(), keys: Vec::new() };
    // Asked in any case: it looks at the rights.
    let mut configs = console.admin.describe_configs(caller.request(request)).await?.into_inner().configs;
    let mut answered = true;
    if let Some(id) = other {
        match console.of_broker(id).await? {
            Some(told) => configs = told,
            None => {
                // What its property file says is not known: defaults in its place would be a guess.
                answered = false;
                configs.retain(|config| matches!(&*config.source, "broker" | "cluster"));
            }
        }
    }
    if scope == ConfigScope::Cluster {
        configs = console.of_all_brokers();
    }
    configs.sort_by(|one, other| {
        (one.source == "default", &one.name).cmp(&(other.source == "default", &other.name))
    });
    let access = caller.access(&console);
    let may_alter = match scope {
        ConfigScope::Topic => access.sees_topic(Operation::AlterConfigs, &name),
        ConfigScope::Group => access.sees(Operation::AlterConfigs, Resource::Group, &name),
        _ => access.has_cluster(Operation::AlterConfigs),
    };
    let kind = match scope {
        ConfigScope::Topic => ConfigKind::Topic,
        ConfigScope::Group => ConfigKind::Group,
        _ => ConfigKind::Broker,
    };
    let configs: Vec<Value> = configs.iter().map(|config| shown(config, kind)).collect();
    Ok(Json(json!({ "configs": configs, "may_alter": may_alter, "answered": answered })))
}

fn shown(config: &proto::Config, kind: ConfigKind) -> Value {
    let definition = config::definition(kind, &config.name).filter(|found| !found.sensitive);
    json!({
        "name": config.name,
        "value": config.value,
        "default": definition.and_then(|found| found.default),
        "valid": definition.map(|found| found.valid).filter(|valid| !valid.is_empty()),
        "source": config.source,
        "read_only": config.read_only,
        "sensitive": config.sensitive,
        "type": config.r#type,
        "documentation": config.documentation,
    })
}

/// The id of no broker.
const NO_BROKER: i32 = -1;

impl Console {
    /// What can be set for all brokers while they run, and what is: properties of a broker that has none of its own.
    fn of_all_brokers(&self) -> Vec<proto::Config> {
        let image = self.admin.image.current();
        let described = config::describe_broker(&image, &BTreeMap::new(), NO_BROKER);
        let config = |config: DescribedConfig| proto::Config {
            name: config.name.clone(),
            value: config.value,
            source: source_name(config.source).to_owned(),
            read_only: config.read_only,
            sensitive: config.sensitive,
            r#type: type_name(config.config_type).to_owned(),
            documentation: config.documentation.to_string(),
        };
        described.into_iter().filter(|one| !one.read_only).map(config).collect()
    }

    /// What another broker says of its own properties; `None`: this node cannot ask it.
    async fn of_broker(&self, id: i32) -> Result<Option<Vec<proto::Config>>, ApiError> {
        let Ok(context) = self.context() else { return Ok(None) };
        let resource = describe_configs_request::Resource {
            resource_type: i8::try_from(i32::from(ResourceType::Broker)).unwrap_or_default(),
            resource_name: Text::from(id.to_string()),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: false,
            include_documentation: true,
        };
        // One that does not run cannot be asked: what the metadata says is all that is known.
        let asked = self.peers.call(context, id, &request, DESCRIBE_CONFIGS_VERSION).await;
        let Ok(answer) = asked else { return Ok(None) };
        let Some(result) = answer.results.into_iter().next().filter(|result| result.error_code == 0) else {
            return Ok(None);
        };
        let config = |config: ottla_wire::messages::describe_configs_response::Config| proto::Config {
            name: config.name.to_string(),
            value: config.value.map(|value| value.to_string()),
            source: source_name(config.config_source).to_owned(),
            read_only: config.read_only,
            sensitive: config.is_sensitive,
            r#type: type_name(config.config_type).to_owned(),
            documentation: config.documentation.map(|text| text.to_string()).unwrap_or_default(),
        };
        Ok(Some(result.configs.into_iter().map(config).collect()))
    }
}

/// `{"set": {name: value}, "unset": [name], "validate_only"}`.
pub(super) async fn alter(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path((scope, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let (scope, name) = scope_of(&scope, &name)?;
    let fields = object(&body, &["set", "unset", "validate_only"])?;
    let wrong = || ApiError::invalid(format!("\"unset\" is no list of at most {CONFIGS_MAX} texts"));
    let unset = match fields.get("unset") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(names)) if names.len() <= CONFIGS_MAX => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    let request = proto::AlterConfigsRequest {
        scope: scope.into(),
        name,
        set: texts(&fields, "set")?,
        unset,
        validate_only: flag(&fields, "validate_only")?,
    };
    console.admin.alter_configs(caller.request(request)).await?;
    Ok(Json(json!({})))
}
