//! Where partitions lie and who leads them, features, and brokers that are gone for good.

use ottla_metadata::features::SUPPORTED;
use ottla_proto::admin as proto;
use ottla_proto::controller;
use ottla_wire::error_code::ErrorCode;
use tonic::Status;

use super::{AdminService, grpc_code, status};

/// Kafka's numbers of how a feature may change.
const UPGRADE: i32 = 1;
const SAFE_DOWNGRADE: i32 = 2;

fn misunderstood() -> Status {
    Status::internal("the controller answered another question")
}

fn code_of(code: i32) -> ErrorCode {
    i16::try_from(code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code)
}

fn results(outcomes: Vec<controller::ElectedLeader>) -> proto::PartitionResults {
    let partitions = outcomes.into_iter().map(|outcome| proto::PartitionResult {
        topic: outcome.topic,
        partition: outcome.partition,
        error_code: outcome.error_code,
        error: code_of(outcome.error_code).name().to_owned(),
        message: outcome.message,
    });
    proto::PartitionResults { partitions: partitions.collect() }
}

impl AdminService {
    pub(super) async fn move_all(
        &self,
        request: proto::MovePartitionsRequest,
    ) -> Result<proto::PartitionResults, Status> {
        let partitions = request.partitions.into_iter().map(|asked| controller::Reassignment {
            topic: asked.topic,
            partition: asked.partition,
            cancel: asked.cancel,
            replicas: asked.brokers,
        });
        let command = controller::AlterReassignments {
            allow_replication_factor_change: true,
            partitions: partitions.collect(),
        };
        match self.submit(controller::command::Command::AlterReassignments(command)).await? {
            controller::command_reply::Reply::AlterReassignments(reply) => Ok(results(reply.partitions)),
            _ => Err(misunderstood()),
        }
    }

    pub(super) async fn elect(
        &self,
        request: proto::ElectLeadersRequest,
    ) -> Result<proto::PartitionResults, Status> {
        let partitions = request
            .partitions
            .into_iter()
            .map(|asked| controller::TopicPartition { topic: asked.topic, partition: asked.partition });
        let command = controller::ElectLeaders { unclean: request.unclean, partitions: partitions.collect() };
        match self.submit(controller::command::Command::ElectLeaders(command)).await? {
            controller::command_reply::Reply::ElectLeaders(reply) => Ok(results(reply.partitions)),
            _ => Err(misunderstood()),
        }
    }

    pub(super) fn features(&self) -> proto::DescribeFeaturesReply {
        let image = self.image.current();
        let features = SUPPORTED.iter().map(|feature| proto::Feature {
            name: feature.name.to_owned(),
            level: image.feature_level(feature.name).into(),
            level_min: feature.level_min.into(),
            level_max: feature.level_max.into(),
        });
        proto::DescribeFeaturesReply { features: features.collect() }
    }

    pub(super) async fn set_feature(
        &self,
        request: proto::UpdateFeatureRequest,
    ) -> Result<proto::UpdateFeatureReply, Status> {
        let command = controller::UpdateFeatures {
            validate_only: request.validate_only,
            updates: vec![controller::FeatureUpdate {
                name: request.name,
                level_max: request.level,
                upgrade_type: if request.downgrade { SAFE_DOWNGRADE } else { UPGRADE },
            }],
        };
        let reply = self.submit(controller::command::Command::UpdateFeatures(command)).await?;
        let controller::command_reply::Reply::UpdateFeatures(reply) = reply else {
            return Err(misunderstood());
        };
        match reply.features.into_iter().find(|feature| feature.error_code != 0) {
            None => Ok(proto::UpdateFeatureReply {}),
            Some(failed) => {
                let code = code_of(failed.error_code);
                let hint = "'ottla feature list' shows the levels that there are";
                Err(status(grpc_code(code), code, &failed.message, hint))
            }
        }
    }

    pub(super) async fn forget_broker(&self, broker_id: i32) -> Result<proto::UnregisterBrokerReply, Status> {
        let command = controller::UnregisterBroker { broker_id };
        self.submit(controller::command::Command::UnregisterBroker(command)).await?;
        Ok(proto::UnregisterBrokerReply {})
    }
}
