//! The admin plane, `ottla.admin.v1`: what is asked is answered from this node's image, what changes the cluster goes to the
//! controller that leads. On every node, whatever its roles.

mod access;
mod configs;
mod describe;
mod partitions;
mod quorum;
mod tokens;
mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ottla_metadata::acl::AuthorizerOptions;
use ottla_proto::admin as proto;
use ottla_proto::admin::admin_server::{Admin, AdminServer};
use ottla_proto::controller::{self, Failure};
use ottla_wire::error_code::ErrorCode;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

pub use self::access::node_gate;
use self::access::permit;
pub(crate) use self::configs::{source_name, type_name};
use crate::api::authorization::Operation;
use crate::controller_link::{ControllerClient, ImageHandle, LinkError};
use crate::metrics::TrafficHistory;
use crate::own_configs::OwnConfigs;
use crate::replica::ReplicaManager;

/// How long a question waits for the first metadata of a node that starts.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a change is tried.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the admin plane of a node stands on.
#[derive(Clone)]
pub struct AdminService {
    pub(crate) node_id: i32,
    pub(crate) image: ImageHandle,
    pub(crate) controller: ControllerClient,
    /// Empty until the broker has opened them; for ever, if the node is none.
    replicas: Arc<OnceLock<Arc<ReplicaManager>>>,
    pub(crate) properties: Arc<BTreeMap<String, String>>,
    /// `None`: everybody may do everything.
    pub(crate) authorizer: Option<Arc<AuthorizerOptions>>,
    /// Sampled as long as the node runs a broker.
    pub(crate) traffic: Arc<TrafficHistory>,
    /// Of the node's broker; empty until it has started.
    pub(crate) own_configs: Arc<OnceLock<OwnConfigs>>,
}

impl AdminService {
    /// `properties` are the node's static ones.
    pub fn new(
        node_id: i32,
        image: ImageHandle,
        controller: ControllerClient,
        replicas: Arc<OnceLock<Arc<ReplicaManager>>>,
        properties: Arc<BTreeMap<String, String>>,
    ) -> Self {
        let authorizer = AuthorizerOptions::from_properties(&properties).map(Arc::new);
        Self {
            node_id,
            image,
            controller,
            replicas,
            properties,
            authorizer,
            traffic: Arc::default(),
            own_configs: Arc::default(),
        }
    }

    /// The gRPC service.
    pub fn into_server(self) -> AdminServer<Self> {
        AdminServer::new(self)
    }

    /// A node that has just started has no metadata for a moment: the question waits, rather than being answered by nothing.
    pub(crate) async fn ready(&self) -> Result<(), Status> {
        if self.image.wait_for(0, READY_PATIENCE).await {
            return Ok(());
        }
        Err(status(
            Code::Unavailable,
            ErrorCode::BrokerNotAvailable,
            &format!("node {} has no metadata yet: it is starting, or no controller leads", self.node_id),
            "look at 'ottla quorum status', or name another node with --server",
        ))
    }

    /// Has a command carried out and waits until this node sees it.
    async fn submit(
        &self,
        command: controller::command::Command,
    ) -> Result<controller::command_reply::Reply, Status> {
        let reply = self.controller.submit_within(command, PATIENCE).await.map_err(unavailable)?;
        if let Some(failure) = reply.failure.filter(|failure| failure.error_code != 0) {
            return Err(refused(&failure));
        }
        if reply.index > 0 {
            self.image.wait_for(reply.index, PATIENCE).await;
        }
        reply.reply.ok_or_else(|| Status::internal("the controller answered nothing"))
    }
}

/// A line of the audit log, beside those of refusals.
fn audit(by: &crate::security::Principal, what: &str) {
    tracing::info!(target: "ottla::audit", %by, plane = "admin", "{what}");
}

fn unavailable(error: LinkError) -> Status {
    status(
        Code::Unavailable,
        ErrorCode::NotController,
        &error.to_string(),
        "look at 'ottla quorum status': a majority of the controllers must run",
    )
}

fn refused(failure: &Failure) -> Status {
    let code = i16::try_from(failure.error_code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
    status(grpc_code(code), code, &failure.message, "")
}

/// A refusal with Kafka's code and what to do in the trailers.
fn status(code: Code, error: ErrorCode, message: &str, hint: &str) -> Status {
    let mut status = Status::new(code, message);
    if let Ok(value) = MetadataValue::try_from(error.name()) {
        status.metadata_mut().insert("ottla-error-code", value);
    }
    if let Some(value) =
        Some(hint).filter(|hint| !hint.is_empty()).and_then(|hint| MetadataValue::try_from(hint).ok())
    {
        status.metadata_mut().insert("ottla-hint", value);
    }
    status
}

fn grpc_code(error: ErrorCode) -> Code {
    match error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::GroupIdNotFound => {
            Code::NotFound
        }
        ErrorCode::TopicAlreadyExists => Code::AlreadyExists,
        ErrorCode::RequestTimedOut | ErrorCode::NotController => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn describe_cluster(
        &self,
        request: Request<proto::DescribeClusterRequest>,
    ) -> Result<Response<proto::DescribeClusterReply>, Status> {
        self.ready().await?;
        let mut reply = self.cluster();
        // Where the brokers are is for everybody, as in the Kafka protocol; how they are is not.
        if !self.access(&request).has_cluster(Operation::Describe) {
            reply.under_replicated.clear();
            reply.offline.clear();
            reply.under_min_isr.clear();
        }
        Ok(Response::new(reply))
    }

    async fn describe_quorum(
        &self,
        request: Request<proto::DescribeQuorumRequest>,
    ) -> Result<Response<proto::DescribeQuorumReply>, Status> {
        self.check_describe(&request)?;
        self.quorum().await.map(Response::new)
    }

    async fn change_quorum(
        &self,
        request: Request<proto::ChangeQuorumRequest>,
    ) -> Result<Response<proto::ChangeQuorumReply>, Status> {
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.change_voters(request.into_inner()).await.map(Response::new)
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsReply>, Status> {
        self.ready().await?;
        let access = self.access(&request);
        let mut reply = self.list(request.into_inner().include_internal);
        reply.topics.retain(|topic| access.sees_topic(Operation::Describe, &topic.name));
        Ok(Response::new(reply))
    }

    async fn describe_topics(
        &self,
        request: Request<proto::DescribeTopicsRequest>,
    ) -> Result<Response<proto::DescribeTopicsReply>, Status> {
        self.ready().await?;
        let access = self.access(&request);
        let mut names = request.into_inner().names;
        if names.is_empty() && access.is_bound() {
            names = self.list(true).topics.into_iter().map(|topic| topic.name).collect();
            names.retain(|name| access.sees_topic(Operation::Describe, name));
            if names.is_empty() {
                return Ok(Response::new(proto::DescribeTopicsReply::default()));
            }
        }
        permit(names.iter().try_for_each(|name| access.topic(Operation::Describe, name)))?;
        self.describe(names).await.map(Response::new)
    }

    async fn create_topics(
        &self,
        request: Request<proto::CreateTopicsRequest>,
    ) -> Result<Response<proto::CreateTopicsReply>, Status> {
        let caller = Self::caller(&request);
        let access = self.access(&request);
        let request = request.into_inner();
        permit(request.topics.iter().try_for_each(|topic| access.create_topic(&topic.name)))?;
        self.create(request).await.map(Response::new).inspect(|_| audit(&caller, "topics created"))
    }

    async fn delete_topics(
        &self,
        request: Request<proto::DeleteTopicsRequest>,
    ) -> Result<Response<proto::DeleteTopicsReply>, Status> {
        let caller = Self::caller(&request);
        let access = self.access(&request);
        let names = request.into_inner().names;
        permit(names.iter().try_for_each(|name| access.topic(Operation::Delete, name)))?;
        self.delete(names).await.map(Response::new).inspect(|_| audit(&caller, "topics deleted"))
    }

    async fn create_partitions(
        &self,
        request: Request<proto::CreatePartitionsRequest>,
    ) -> Result<Response<proto::CreatePartitionsReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).topic(Operation::Alter, &request.get_ref().name))?;
        self.add_partitions(request.into_inner())
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "partitions added"))
    }

    async fn describe_configs(
        &self,
        request: Request<proto::DescribeConfigsRequest>,
    ) -> Result<Response<proto::DescribeConfigsReply>, Status> {
        self.ready().await?;
        let asked = request.get_ref();
        permit(configs::right(
            &self.access(&request),
            Operation::DescribeConfigs,
            asked.scope(),
            &asked.name,
        ))?;
        self.configs(&request.into_inner()).map(Response::new)
    }

    async fn alter_configs(
        &self,
        request: Request<proto::AlterConfigsRequest>,
    ) -> Result<Response<proto::AlterConfigsReply>, Status> {
        let caller = Self::caller(&request);
        let asked = request.get_ref();
        permit(configs::right(&self.access(&request), Operation::AlterConfigs, asked.scope(), &asked.name))?;
        self.set_configs(request.into_inner())
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "configs changed"))
    }

    async fn list_config_resources(
        &self,
        request: Request<proto::ListConfigResourcesRequest>,
    ) -> Result<Response<proto::ListConfigResourcesReply>, Status> {
        self.ready().await?;
        permit(self.access(&request).cluster(Operation::DescribeConfigs))?;
        Ok(Response::new(proto::ListConfigResourcesReply { resources: self.config_resources() }))
    }

    async fn move_partitions(
        &self,
        request: Request<proto::MovePartitionsRequest>,
    ) -> Result<Response<proto::PartitionResults>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.move_all(request.into_inner())
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "partitions moved"))
    }

    async fn elect_leaders(
        &self,
        request: Request<proto::ElectLeadersRequest>,
    ) -> Result<Response<proto::PartitionResults>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.elect(request.into_inner())
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "leaders elected"))
    }

    async fn describe_features(
        &self,
        _: Request<proto::DescribeFeaturesRequest>,
    ) -> Result<Response<proto::DescribeFeaturesReply>, Status> {
        self.ready().await?;
        Ok(Response::new(self.features()))
    }

    async fn update_feature(
        &self,
        request: Request<proto::UpdateFeatureRequest>,
    ) -> Result<Response<proto::UpdateFeatureReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.set_feature(request.into_inner())
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "feature changed"))
    }

    async fn unregister_broker(
        &self,
        request: Request<proto::UnregisterBrokerRequest>,
    ) -> Result<Response<proto::UnregisterBrokerReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.forget_broker(request.into_inner().broker_id)
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "broker unregistered"))
    }

    async fn describe_replicas(
        &self,
        request: Request<proto::DescribeReplicasRequest>,
    ) -> Result<Response<proto::DescribeReplicasReply>, Status> {
        self.check_describe(&request)?;
        Ok(Response::new(self.own_replicas(&request.into_inner().topics)))
    }

    async fn describe_traffic(
        &self,
        _: Request<proto::DescribeTrafficRequest>,
    ) -> Result<Response<proto::DescribeTrafficReply>, Status> {
        let samples = self.traffic.samples();
        Ok(Response::new(proto::DescribeTrafficReply { node_id: self.node_id, samples }))
    }

    async fn list_acls(
        &self,
        request: Request<proto::ListAclsRequest>,
    ) -> Result<Response<proto::ListAclsReply>, Status> {
        self.ready().await?;
        self.check_describe(&request)?;
        let acls = self.acls(request.into_inner().filter.unwrap_or_default())?;
        Ok(Response::new(proto::ListAclsReply { acls }))
    }

    async fn create_acls(
        &self,
        request: Request<proto::CreateAclsRequest>,
    ) -> Result<Response<proto::CreateAclsReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.add_acls(request.into_inner().acls).await?;
        audit(&caller, "rules added");
        Ok(Response::new(proto::CreateAclsReply {}))
    }

    async fn delete_acls(
        &self,
        request: Request<proto::DeleteAclsRequest>,
    ) -> Result<Response<proto::DeleteAclsReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        let acls = self.remove_acls(request.into_inner().filter.unwrap_or_default()).await?;
        audit(&caller, "rules removed");
        Ok(Response::new(proto::DeleteAclsReply { acls }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersReply>, Status> {
        self.ready().await?;
        self.check_describe(&request)?;
        Ok(Response::new(proto::ListUsersReply { users: self.users() }))
    }

    async fn alter_user(
        &self,
        request: Request<proto::AlterUserRequest>,
    ) -> Result<Response<proto::AlterUserReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::Alter))?;
        self.change_user(request.into_inner()).await?;
        audit(&caller, "credentials changed");
        Ok(Response::new(proto::AlterUserReply {}))
    }

    async fn list_quotas(
        &self,
        request: Request<proto::ListQuotasRequest>,
    ) -> Result<Response<proto::ListQuotasReply>, Status> {
        self.ready().await?;
        permit(self.access(&request).cluster(Operation::DescribeConfigs))?;
        Ok(Response::new(proto::ListQuotasReply { quotas: self.quotas()? }))
    }

    async fn alter_quota(
        &self,
        request: Request<proto::AlterQuotaRequest>,
    ) -> Result<Response<proto::AlterQuotaReply>, Status> {
        let caller = Self::caller(&request);
        permit(self.access(&request).cluster(Operation::AlterConfigs))?;
        self.change_quota(request.into_inner()).await?;
        audit(&caller, "quota changed");
        Ok(Response::new(proto::AlterQuotaReply {}))
    }

    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::Token>, Status> {
        let caller = Self::caller(&request);
        self.ready().await?;
        self.make_token(request).await.map(Response::new).inspect(|_| audit(&caller, "delegation token made"))
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensReply>, Status> {
        self.ready().await?;
        Ok(Response::new(proto::ListTokensReply { tokens: self.tokens(&request)? }))
    }

    async fn change_token(
        &self,
        request: Request<proto::ChangeTokenRequest>,
    ) -> Result<Response<proto::ChangeTokenReply>, Status> {
        let caller = Self::caller(&request);
        self.ready().await?;
        self.end_token_later(request)
            .await
            .map(Response::new)
            .inspect(|_| audit(&caller, "delegation token changed"))
    }
}
