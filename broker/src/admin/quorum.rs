//! Changes of the metadata quorum: who votes, who leads.

use std::time::Duration;

use ottla_proto::admin as proto;
use ottla_proto::admin::change_quorum_request::Change;
use ottla_proto::controller;
use ottla_wire::error_code::ErrorCode;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{AdminService, refused, status, unavailable};

/// How long a change is tried for a caller that names no time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody waits longer.
const PATIENCE_MAX: Duration = Duration::from_secs(600);

impl AdminService {
    pub(super) async fn change_voters(
        &self,
        request: proto::ChangeQuorumRequest,
    ) -> Result<proto::ChangeQuorumReply, Status> {
        use controller::change_quorum_request::Change as Asked;
        let directory = match &*request.directory_id {
            "" => bytes::Bytes::new(),
            text => {
                let id = Uuid::parse_str(text).map_err(|_| {
                    let hint = "'ottla quorum status --output json' shows each one's directory_id";
                    let text = format!("'{text}' is no directory id");
                    status(Code::InvalidArgument, ErrorCode::InvalidRequest, &text, hint)
                })?;
                bytes::Bytes::copy_from_slice(id.as_bytes())
            }
        };
        let node_id = request.node_id;
        let change = match request.change() {
            Change::AddVoter => {
                let endpoint = String::new();
                Asked::Add(controller::AddVoter { node_id, incarnation: directory, endpoint })
            }
            Change::RemoveVoter => Asked::Remove(controller::RemoveVoter { node_id, incarnation: directory }),
            Change::TransferLeadership => Asked::Transfer(controller::TransferLeadership { node_id }),
        };
        let asked = u64::try_from(request.timeout_ms).ok().filter(|ms| *ms > 0);
        let patience = asked.map_or(PATIENCE, Duration::from_millis).min(PATIENCE_MAX);
        let request = controller::ChangeQuorumRequest {
            cluster_id: self.image.current().cluster_id().to_owned(),
            timeout_ms: i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
            change: Some(change),
        };
        let reply = self.controller.change_quorum(request, patience).await.map_err(unavailable)?;
        if let Some(failure) = reply.failure.filter(|failure| failure.error_code != 0) {
            return Err(refused(&failure));
        }
        Ok(proto::ChangeQuorumReply { leader_id: reply.leader_id, voters: reply.voters })
    }
}
