//! What AlterConfigs and IncrementalAlterConfigs share: checks that only this broker can make, then the controller's word, and
//! the answer's frame.

use std::sync::Arc;
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::Message;
use ottla_wire::text::Text;

use super::authorization::{Access, Operation, REFUSED};
use super::forward::{code_of, misunderstood, submit};
use super::{Answer, Call, Dispatcher};
use crate::context::BrokerContext;
use crate::loggers;
use crate::security::Principal;

/// The requests name no timeout; this is the broker's `request.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of the operations that are looked at before the controller sees them.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Kafka's number of a broker's loggers.
pub(super) const BROKER_LOGGER: i8 = 8;

/// One change of one resource.
pub(super) struct Change {
    pub(super) name: Text,
    /// Kafka's number: set, delete, append, subtract.
    pub(super) operation: i8,
    pub(super) value: Option<Text>,
}

impl Change {
    /// The legacy request knows nothing but setting.
    pub(super) fn set(name: Text, value: Option<Text>) -> Self {
        Self { name, operation: SET, value }
    }
}

/// All changes of one resource.
pub(super) struct Alteration {
    /// Kafka's number.
    pub(super) resource_type: i8,
    pub(super) resource_name: Text,
    pub(super) changes: Vec<Change>,
}

/// How changes are meant.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    /// Nothing is changed.
    pub(super) validate_only: bool,
    /// What is not named is removed.
    pub(super) replace_all: bool,
}

/// What became of a resource; an error comes with its text.
pub(super) type Outcome = Result<(), (ErrorCode, String)>;

/// Names alone: a value may be a secret.
fn audit(by: &Principal, alteration: &Alteration) {
    let names: Vec<&str> = alteration.changes.iter().map(|change| &*change.name).collect();
    let (resource_type, resource) = (alteration.resource_type, &*alteration.resource_name);
    tracing::info!(target: "ottla::audit", %by, resource_type, resource, ?names, "configs changed");
}

/// What the answer says of a resource.
pub(super) struct Altered {
    pub(super) error_code: i16,
    pub(super) error_message: Option<Text>,
    pub(super) resource_type: i8,
    pub(super) resource_name: Text,
}

/// Alters resources and answers; the connection's next request waits, and sees what was changed.
pub(super) fn alter_and_answer<Response: Message>(
    dispatcher: &Dispatcher,
    call: Call,
    alterations: Vec<Alteration>,
    mode: Mode,
    to_response: impl FnOnce(&mut dyn Iterator<Item = Altered>) -> Response + Send + 'static,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    let by = Arc::clone(&call.principal);
    call.exclusive(async move {
        let outcomes = alter(&context, &access, &by, &alterations, mode).await;
        let mut altered = alterations.into_iter().zip(outcomes).map(|(alteration, outcome)| {
            let (code, message) = outcome.err().unzip();
            Altered {
                error_code: code.map_or(0, ErrorCode::code),
                error_message: message.map(Text::from),
                resource_type: alteration.resource_type,
                resource_name: alteration.resource_name,
            }
        });
        to_response(&mut altered)
    })
}

/// Alters resources; one outcome for each, in their order.
async fn alter(
    context: &Arc<BrokerContext>,
    access: &Access,
    by: &Principal,
    alterations: &[Alteration],
    mode: Mode,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(alterations.len());
    for alteration in alterations {
        let (kind, name) = (alteration.resource_type, &alteration.resource_name);
        outcomes.push(match access.config(Operation::AlterConfigs, kind, name) {
            Ok(()) => check_own(context, alteration, mode).await,
            Err(code) => Err((code, REFUSED.to_owned())),
        });
    }
    let mut admitted: Vec<usize> =
        (0..alterations.len()).filter(|at| outcomes.get(*at).is_some_and(Outcome::is_ok)).collect();
    // Levels of loggers are this process's own: the controller knows nothing of them.
    admitted.retain(|at| {
        let is_logger = alterations[*at].resource_type == BROKER_LOGGER;
        if is_logger {
            outcomes[*at] = alter_loggers(context, &alterations[*at], mode);
        }
        !is_logger
    });
    if admitted.is_empty() {
        return outcomes;
    }
    let command = proto::AlterConfigs {
        validate_only: mode.validate_only,
        replace_all: mode.replace_all,
        resources: admitted.iter().filter_map(|at| alterations.get(*at)).map(to_command).collect(),
    };
    let command = proto::command::Command::AlterConfigs(command);
    let altered = match submit(context, command, PATIENCE).await {
        Ok(proto::command_reply::Reply::AlterConfigs(reply)) => Ok(reply.resources),
        Ok(_) => Err(misunderstood()),
        Err(refusal) => Err(refusal),
    };
    match altered {
        // The controller answers in the order asked.
        Ok(altered) => {
            for (at, altered) in admitted.into_iter().zip(altered) {
                if altered.error_code != 0 {
                    outcomes[at] = Err((code_of(altered.error_code), altered.message));
                } else if !mode.validate_only {
                    audit(by, &alterations[at]);
                }
            }
        }
        Err(refusal) => {
            for at in admitted {
                outcomes[at] = Err(refusal.clone());
            }
        }
    }
    outcomes
}

fn alter_loggers(context: &BrokerContext, alteration: &Alteration, mode: Mode) -> Outcome {
    let invalid = |message: String| (ErrorCode::InvalidRequest, message);
    own_loggers(context, &alteration.resource_name)?;
    if mode.replace_all {
        return Err(invalid("levels of loggers are changed one by one: use IncrementalAlterConfigs".into()));
    }
    let mut levels = Vec::new();
    for change in &alteration.changes {
        let level = match change.operation {
            SET => Some(change.value.as_deref().ok_or_else(|| invalid("no level was given".into()))?),
            DELETE if *change.name == *loggers::ROOT => {
                return Err(invalid("Removing the log level of the root logger is not allowed".into()));
            }
            DELETE => None,
            other => return Err(invalid(format!("operation {other} does not apply to loggers"))),
        };
        let check = loggers::Loggers::check(&change.name, level);
        check.map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
        levels.push((&*change.name, level));
    }
    if mode.validate_only {
        return Ok(());
    }
    let Some(loggers) = loggers::current() else {
        return Err(invalid("the levels of this process cannot be changed".into()));
    };
    let changed = loggers.change(&levels);
    changed.map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))
}

/// Loggers are asked of the broker whose they are.
pub(super) fn own_loggers(context: &BrokerContext, name: &str) -> Outcome {
    let own = context.options.node_id;
    if name.parse() == Ok(own) {
        return Ok(());
    }
    let message = format!("Unexpected broker id, expected {own}, but received '{name}'");
    Err((ErrorCode::InvalidRequest, message))
}

/// A broker's properties are changed at that broker, which alone can say whether it could go on with them.
async fn check_own(context: &BrokerContext, alteration: &Alteration, mode: Mode) -> Outcome {
    let own = context.options.node_id;
    let is_broker = i32::from(alteration.resource_type) == i32::from(ResourceType::Broker);
    let named: Option<i32> = alteration.resource_name.parse().ok().filter(|_| is_broker);
    if let Some(other) = named.filter(|id| *id != own) {
        let message = format!("Unexpected broker id, expected {own}, but received {other}");
        return Err((ErrorCode::InvalidRequest, message));
    }
    let checked = context.own_configs.check(to_command(alteration), mode.replace_all).await;
    checked.map_err(|message| (ErrorCode::InvalidRequest, message))
}

fn to_command(alteration: &Alteration) -> proto::ConfigAlteration {
    proto::ConfigAlteration {
        // An unknown number is refused by the controller.
        resource_type: ResourceType::try_from(i32::from(alteration.resource_type))
            .unwrap_or(ResourceType::Unspecified)
            .into(),
        resource_name: alteration.resource_name.to_string(),
        changes: alteration
            .changes
            .iter()
            .map(|change| proto::ConfigChange {
                name: change.name.to_string(),
                operation: i32::from(change.operation),
                value: change.value.as_ref().map(ToString::to_string),
            })
            .collect(),
    }
}
