//! What there is in the cluster, read over the admin plane; and the carrying out of steps.

use std::collections::{BTreeMap, HashMap};

use ottla_proto::admin::{
    self, AclFilter, AlterConfigsRequest, AlterQuotaRequest, AlterUserRequest, ConfigScope,
    CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest, NewTopic, QuotaPart,
};

use super::document::Scope;
use super::plan::{Change, Configured, Setting};
use super::state::{Configs, Entity, Owner, Rule, State, Topic, User};
use crate::admin::Admin;
use crate::command::topic::refusal;
use crate::failure::Failure;
use crate::scram;

/// Rules that one request carries.
const RULES_MAX: usize = 500;

/// Reads the sections that `wanted` has.
pub(super) async fn read(admin: &mut Admin, wanted: &State, delete: bool) -> Result<State, Failure> {
    let mut state = State::default();
    if let Some(topics) = &wanted.topics {
        let all = admin.list_topics(true).await?;
        let is_looked_at = |name: &String| topics.contains_key(name);
        let names = all.iter().map(|topic| topic.name.clone()).filter(is_looked_at).collect();
        let mut there = described(admin, names).await?;
        if delete {
            for topic in all {
                let kept = Topic { internal: topic.internal, ..Topic::default() };
                there.entry(topic.name).or_insert(kept);
            }
        }
        state.topics = Some(there);
    }
    if let Some(configs) = &wanted.configs {
        let mut owners: Vec<Owner> = configs.keys().cloned().collect();
        if delete {
            owners.extend(owners_of_configs(admin).await?);
        }
        state.configs = Some(settings(admin, owners).await?);
    }
    if wanted.users.is_some() {
        state.users = Some(users(admin).await?);
    }
    if wanted.quotas.is_some() {
        state.quotas = Some(quotas(admin).await?);
    }
    if wanted.acls.is_some() {
        let rules = admin.list_acls(AclFilter::default()).await?;
        state.acls = Some(rules.into_iter().map(Rule::from).collect());
    }
    Ok(state)
}

/// Reads everything. Rules are left out where no authorizer is configured.
pub(super) async fn read_all(admin: &mut Admin) -> Result<State, Failure> {
    let topics = admin.list_topics(false).await?.into_iter().map(|topic| topic.name).collect();
    let owners = owners_of_configs(admin).await?;
    let acls = match admin.list_acls(AclFilter::default()).await {
        Ok(rules) => Some(rules.into_iter().map(Rule::from).collect()),
        Err(failure) if failure.to_string().starts_with("no authorizer") => None,
        Err(failure) => return Err(failure),
    };
    Ok(State {
        topics: Some(described(admin, topics).await?),
        configs: Some(settings(admin, owners).await?),
        users: Some(users(admin).await?),
        quotas: Some(quotas(admin).await?),
        acls,
    })
}

async fn described(admin: &mut Admin, names: Vec<String>) -> Result<BTreeMap<String, Topic>, Failure> {
    // No names would mean all.
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let topic = |topic: admin::Topic| {
        let factor = topic.partitions.first().map(|first| count(first.replicas.len()));
        let described = Topic {
            partitions: Some(count(topic.partitions.len())),
            replication_factor: factor,
            configs: topic.configs.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            internal: topic.internal,
        };
        (topic.name, described)
    };
    Ok(admin.describe_topics(names).await?.into_iter().map(topic).collect())
}

async fn owners_of_configs(admin: &mut Admin) -> Result<Vec<Owner>, Failure> {
    let owner = |found: admin::ConfigResource| {
        let scope = Scope::of_admin(found.scope())?;
        Some(Owner { scope, name: found.name })
    };
    Ok(admin.list_config_resources().await?.into_iter().filter_map(owner).collect())
}

/// What is set on each itself: not what its property file or its defaults say.
async fn settings(admin: &mut Admin, owners: Vec<Owner>) -> Result<BTreeMap<Owner, Configs>, Failure> {
    let mut all = BTreeMap::new();
    for owner in owners {
        let source = match owner.scope {
            Scope::Cluster => "cluster",
            Scope::Broker => "broker",
            Scope::Group => "group",
            Scope::ClientMetrics => "client-metrics",
        };
        let (scope, name) = (owner.scope.to_admin().into(), owner.name.clone());
        let request = DescribeConfigsRequest { scope, name, keys: Vec::new() };
        let own = admin.describe_configs(request).await?.into_iter().filter(|one| one.source == source);
        all.insert(owner, own.map(|config| (config.name, config.value)).collect());
    }
    Ok(all)
}

async fn users(admin: &mut Admin) -> Result<BTreeMap<String, User>, Failure> {
    let user = |user: admin::User| {
        let mechanism =
            |one: admin::UserMechanism| (one.mechanism, u32::try_from(one.iterations).unwrap_or(0));
        let mechanisms = user.mechanisms.into_iter().map(mechanism).collect();
        (user.name, User { mechanisms, password: None })
    };
    Ok(admin.list_users().await?.into_iter().map(user).collect())
}

async fn quotas(admin: &mut Admin) -> Result<BTreeMap<Entity, BTreeMap<String, Option<f64>>>, Failure> {
    let quota = |quota: admin::Quota| {
        let mut parts: Vec<_> = quota.entity.into_iter().map(|part| (part.r#type, part.name)).collect();
        parts.sort();
        (Entity(parts), quota.limits.into_iter().map(|(key, value)| (key, Some(value))).collect())
    };
    Ok(admin.list_quotas().await?.into_iter().map(quota).collect())
}

impl From<admin::Acl> for Rule {
    fn from(rule: admin::Acl) -> Self {
        Self {
            principal: rule.principal,
            resource_type: rule.resource_type,
            resource_name: rule.resource_name,
            pattern: rule.pattern,
            host: rule.host,
            permission: rule.permission,
            operation: rule.operation,
        }
    }
}

impl From<Rule> for admin::Acl {
    fn from(rule: Rule) -> Self {
        Self {
            principal: rule.principal,
            resource_type: rule.resource_type,
            resource_name: rule.resource_name,
            pattern: rule.pattern,
            host: rule.host,
            permission: rule.permission,
            operation: rule.operation,
        }
    }
}

/// Has the cluster check every step that it can check without making it. All refusals at once.
pub(super) async fn check(admin: &mut Admin, changes: &[Change]) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut words = std::collections::BTreeSet::new();
    for change in changes {
        let checked = match change {
            Change::SetUser { user, .. } => match &user.password {
                Some(password) => {
                    password.read().map(drop).map_err(|error| Failure::usage(format!("{error:#}")))
                }
                None => Ok(()),
            },
            // A rule of which a word is not known is refused as a filter too.
            Change::AddRule(rule) => {
                let new =
                    words.insert((rule.resource_type.clone(), rule.pattern.clone(), rule.operation.clone()));
                if new { probe(admin, rule).await } else { Ok(()) }
            }
            // What these need is known from what was read.
            Change::RemoveRule(_) | Change::RemoveUser { .. } | Change::DeleteTopic { .. } => Ok(()),
            Change::CreateTopic { .. }
            | Change::AddPartitions { .. }
            | Change::AlterConfigs { .. }
            | Change::AlterQuota { .. } => carry_out(admin, change, true).await,
        };
        failures.extend(checked.err());
    }
    failures
}

async fn probe(admin: &mut Admin, rule: &Rule) -> Result<(), Failure> {
    let filter = AclFilter {
        resource_type: Some(rule.resource_type.clone()),
        resource_name: Some(rule.resource_name.clone()),
        pattern: Some(rule.pattern.clone()),
        principal: Some(rule.principal.clone()),
        host: Some(rule.host.clone()),
        operation: Some(rule.operation.clone()),
        permission: Some(rule.permission.clone()),
    };
    admin.list_acls(filter).await.map(drop)
}

/// How many steps from the first one on are made by one request.
pub(super) fn together(changes: &[Change]) -> usize {
    let rules = changes.iter().take_while(|change| matches!(change, Change::AddRule(_))).count();
    rules.clamp(1, RULES_MAX)
}

/// Makes some steps that belong together.
pub(super) async fn carry_out_all(admin: &mut Admin, changes: &[Change]) -> Result<(), Failure> {
    let rules: Vec<admin::Acl> = changes
        .iter()
        .filter_map(|change| match change {
            Change::AddRule(rule) => Some(rule.clone().into()),
            _ => None,
        })
        .collect();
    if !rules.is_empty() {
        return admin.create_acls(rules).await;
    }
    for change in changes {
        carry_out(admin, change, false).await?;
    }
    Ok(())
}

async fn carry_out(admin: &mut Admin, change: &Change, validate_only: bool) -> Result<(), Failure> {
    match change {
        Change::SetUser { name, user, .. } => set_user(admin, name, user).await,
        Change::CreateTopic { name, topic } => create_topic(admin, name, topic, validate_only).await,
        Change::AddPartitions { name, to, .. } => {
            let (name, count) = (name.clone(), *to);
            let request = CreatePartitionsRequest { validate_only, name, count, assignments: Vec::new() };
            let mut result = admin.create_partitions(request).await?;
            if let Change::AddPartitions { name, .. } = change {
                result.name.clone_from(name);
            }
            if result.error_code == 0 { Ok(()) } else { Err(refusal(&result, "altered")) }
        }
        Change::AlterConfigs { of, change } => alter(admin, of, change, validate_only).await,
        Change::AlterQuota { entity, change, .. } => {
            let part = |(kind, name): (String, Option<String>)| QuotaPart { r#type: kind, name };
            let set: HashMap<_, _> =
                change.iter().filter_map(|(key, (_, after))| Some((key.clone(), (*after)?))).collect();
            let unset = change.iter().filter(|(_, (_, after))| after.is_none()).map(|(key, _)| key.clone());
            let entity = entity.0.iter().cloned().map(part).collect();
            let unset = unset.collect();
            admin.alter_quota(AlterQuotaRequest { entity, set, unset, validate_only }).await
        }
        Change::AddRule(rule) => admin.create_acls(vec![rule.clone().into()]).await,
        Change::RemoveRule(rule) => {
            let filter = AclFilter {
                resource_type: Some(rule.resource_type.clone()),
                resource_name: Some(rule.resource_name.clone()),
                pattern: Some(rule.pattern.clone()),
                principal: Some(rule.principal.clone()),
                host: Some(rule.host.clone()),
                operation: Some(rule.operation.clone()),
                permission: Some(rule.permission.clone()),
            };
            admin.delete_acls(filter).await.map(drop)
        }
        Change::RemoveUser { name, mechanisms } => {
            let (name, remove) = (name.clone(), mechanisms.clone());
            admin.alter_user(AlterUserRequest { name, set: Vec::new(), remove }).await
        }
        Change::DeleteTopic { name } => {
            let results = admin.delete_topics(vec![name.clone()]).await?;
            match results.iter().find(|result| result.error_code != 0) {
                Some(refused) => Err(refusal(refused, "deleted")),
                None => Ok(()),
            }
        }
    }
}

async fn create_topic(
    admin: &mut Admin,
    name: &str,
    topic: &Topic,
    validate_only: bool,
) -> Result<(), Failure> {
    let configs = topic.configs.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    let new = NewTopic {
        name: name.to_owned(),
        partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments: Vec::new(),
        configs: configs.collect(),
    };
    let results = admin.create_topics(CreateTopicsRequest { validate_only, topics: vec![new] }).await?;
    match results.iter().find(|result| result.error_code != 0) {
        Some(refused) => Err(refusal(refused, "created")),
        None => Ok(()),
    }
}

async fn alter(
    admin: &mut Admin,
    of: &Configured,
    change: &BTreeMap<String, Setting>,
    validate_only: bool,
) -> Result<(), Failure> {
    let (scope, name) = match of {
        Configured::Topic(name) => (ConfigScope::Topic, name.clone()),
        Configured::Other(owner) => (owner.scope.to_admin(), owner.name.clone()),
    };
    let set = change.iter().filter_map(|(key, setting)| Some((key.clone(), setting.after.clone()?)));
    let unset = change.iter().filter(|(_, setting)| setting.after.is_none()).map(|(key, _)| key.clone());
    let (set, unset) = (set.collect(), unset.collect());
    admin.alter_configs(AlterConfigsRequest { scope: scope.into(), name, set, unset, validate_only }).await
}

async fn set_user(admin: &mut Admin, name: &str, user: &User) -> Result<(), Failure> {
    let Some(password) = &user.password else { return Ok(()) };
    let password = password.read().map_err(|error| Failure::new(format!("{error:#}")))?;
    let credential = |(mechanism, iterations): (&String, &u32)| {
        scram::user_credential(scram::mechanism(mechanism).ok()?, &password, *iterations)
    };
    let set = user.mechanisms.iter().map(credential).collect::<Option<Vec<_>>>();
    let set = set.ok_or_else(|| Failure::usage(format!("user {name}: iterations must be 4096 to 16384")))?;
    admin.alter_user(AlterUserRequest { name: name.to_owned(), set, remove: Vec::new() }).await
}
