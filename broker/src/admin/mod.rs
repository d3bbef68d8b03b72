//! The admin plane, `ottla.admin.v1`: what is asked is answered from this node's image, what changes the cluster goes to the
//! controller that leads. On every node, whatever its roles.

mod configs;
mod describe;
mod partitions;
mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ottla_proto::admin as proto;
use ottla_proto::admin::admin_server::{Admin, AdminServer};
use ottla_proto::controller::{self, Failure};
use ottla_wire::error_code::ErrorCode;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use crate::controller_link::{ControllerClient, ImageHandle, LinkError};
use crate::replica::ReplicaManager;

/// How long a question waits for the first metadata of a node that starts.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a change is tried.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the admin plane of a node stands on.
#[derive(Clone)]
pub struct AdminService {
    node_id: i32,
    image: ImageHandle,
    controller: ControllerClient,
    /// Empty until the broker has opened them; for ever, if the node is none.
    replicas: Arc<OnceLock<Arc<ReplicaManager>>>,
    properties: Arc<BTreeMap<String, String>>,
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
        Self { node_id, image, controller, replicas, properties }
    }

    /// The gRPC service.
    pub fn into_server(self) -> AdminServer<Self> {
        AdminServer::new(self)
    }

    /// A node that has just started has no metadata for a moment: the question waits, rather than being answered by nothing.
    async fn ready(&self) -> Result<(), Status> {
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
        _: Request<proto::DescribeClusterRequest>,
    ) -> Result<Response<proto::DescribeClusterReply>, Status> {
        self.ready().await?;
        Ok(Response::new(self.cluster()))
    }

    async fn describe_quorum(
        &self,
        _: Request<proto::DescribeQuorumRequest>,
    ) -> Result<Response<proto::DescribeQuorumReply>, Status> {
        self.quorum().await.map(Response::new)
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsReply>, Status> {
        self.ready().await?;
        Ok(Response::new(self.list(request.into_inner().include_internal)))
    }

    async fn describe_topics(
        &self,
        request: Request<proto::DescribeTopicsRequest>,
    ) -> Result<Response<proto::DescribeTopicsReply>, Status> {
        self.ready().await?;
        self.describe(request.into_inner().names).await.map(Response::new)
    }

    async fn create_topics(
        &self,
        request: Request<proto::CreateTopicsRequest>,
    ) -> Result<Response<proto::CreateTopicsReply>, Status> {
        self.create(request.into_inner()).await.map(Response::new)
    }

    async fn delete_topics(
        &self,
        request: Request<proto::DeleteTopicsRequest>,
    ) -> Result<Response<proto::DeleteTopicsReply>, Status> {
        self.delete(request.into_inner().names).await.map(Response::new)
    }

    async fn create_partitions(
        &self,
        request: Request<proto::CreatePartitionsRequest>,
    ) -> Result<Response<proto::CreatePartitionsReply>, Status> {
        self.add_partitions(request.into_inner()).await.map(Response::new)
    }

    async fn describe_configs(
        &self,
        request: Request<proto::DescribeConfigsRequest>,
    ) -> Result<Response<proto::DescribeConfigsReply>, Status> {
        self.ready().await?;
        self.configs(&request.into_inner()).map(Response::new)
    }

    async fn alter_configs(
        &self,
        request: Request<proto::AlterConfigsRequest>,
    ) -> Result<Response<proto::AlterConfigsReply>, Status> {
        self.set_configs(request.into_inner()).await.map(Response::new)
    }

    async fn move_partitions(
        &self,
        request: Request<proto::MovePartitionsRequest>,
    ) -> Result<Response<proto::PartitionResults>, Status> {
        self.move_all(request.into_inner()).await.map(Response::new)
    }

    async fn elect_leaders(
        &self,
        request: Request<proto::ElectLeadersRequest>,
    ) -> Result<Response<proto::PartitionResults>, Status> {
        self.elect(request.into_inner()).await.map(Response::new)
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
        self.set_feature(request.into_inner()).await.map(Response::new)
    }

    async fn unregister_broker(
        &self,
        request: Request<proto::UnregisterBrokerRequest>,
    ) -> Result<Response<proto::UnregisterBrokerReply>, Status> {
        self.forget_broker(request.into_inner().broker_id).await.map(Response::new)
    }

    async fn describe_replicas(
        &self,
        request: Request<proto::DescribeReplicasRequest>,
    ) -> Result<Response<proto::DescribeReplicasReply>, Status> {
        Ok(Response::new(self.own_replicas(&request.into_inner().topics)))
    }
}
