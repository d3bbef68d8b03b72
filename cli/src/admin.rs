//! The way to the admin plane: any node that answers, and its refusals in our words.

use std::time::Duration;

use ottla_proto::admin as proto;
use ottla_proto::admin::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::failure::Failure;
use crate::profile::Session;

/// A connection that is not there after this long is tried elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer: a description of very many topics.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Trailer that carries what to do about a refusal.
const HINT: &str = "ottla-hint";

/// What to do when nobody could be reached: somebody who refuses us is there.
fn way_out(reasons: &[String]) -> &'static str {
    if reasons.iter().any(|reason| reason.contains("Authentication failed")) {
        "--sasl-user NAME --sasl-password-file FILE --sasl-mechanism MECHANISM say who signs in"
    } else {
        "start a cluster with 'ottla dev', or name a node's gRPC address with --server HOST:PORT"
    }
}

/// A node that answers.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    client: AdminClient<Channel>,
    server: String,
    timeout: Duration,
}

impl Admin {
    /// Connects to the first server that can be reached.
    pub(crate) async fn connect(session: &Session) -> Result<Self, Failure> {
        let mut reasons = Vec::new();
        for server in &session.servers {
            match Self::connect_to(server, session).await {
                Ok(admin) => return Ok(admin),
                Err(reason) => reasons.push(format!("{server}: {reason}")),
            }
        }
        Err(Failure::new(format!("no server can be reached: {}", reasons.join("; "))).hint(way_out(&reasons)))
    }

    /// Connects to one node.
    pub(crate) async fn connect_to(server: &str, session: &Session) -> Result<Self, String> {
        let timeout = session.timeout;
        let security = session.access.server().map_err(|failure| failure.to_string())?;
        // What is encrypted is the connection, which is ours.
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(timeout.min(CONNECT_TIMEOUT));
        let connecting = security.connected_channel(&endpoint);
        let channel = match tokio::time::timeout(timeout.min(CONNECT_TIMEOUT), connecting).await {
            Ok(connected) => connected.map_err(|error| root_cause(&error))?,
            Err(_) => {
                return Err(
                    "no connection in time: does it speak what this side speaks (TLS, SASL)?".to_owned()
                );
            }
        };
        let client = AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client, server: server.to_owned(), timeout })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    fn refusal(&self, status: &Status) -> Failure {
        explain(&self.server, self.timeout, status)
    }

    /// Brokers and state of the cluster.
    pub(crate) async fn describe_cluster(&mut self) -> Result<proto::DescribeClusterReply, Failure> {
        let request = self.request(proto::DescribeClusterRequest {});
        self.client
            .describe_cluster(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|s| self.refusal(&s))
    }

    /// State of the metadata quorum.
    pub(crate) async fn describe_quorum(&mut self) -> Result<proto::DescribeQuorumReply, Failure> {
        let request = self.request(proto::DescribeQuorumRequest {});
        self.client
            .describe_quorum(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|s| self.refusal(&s))
    }

    /// Changes who votes in the metadata quorum or who leads it.
    pub(crate) async fn change_quorum(
        &mut self,
        mut request: proto::ChangeQuorumRequest,
    ) -> Result<proto::ChangeQuorumReply, Failure> {
        // The server says what is wrong a little before we would give up.
        let patience = self.timeout.saturating_sub(self.timeout / 10);
        request.timeout_ms = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        let request = self.request(request);
        let reply = self.client.change_quorum(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner())
    }

    /// Names of topics.
    pub(crate) async fn list_topics(
        &mut self,
        include_internal: bool,
    ) -> Result<Vec<proto::TopicSummary>, Failure> {
        let request = self.request(proto::ListTopicsRequest { include_internal });
        let reply = self.client.list_topics(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().topics)
    }

    /// Topics in full.
    pub(crate) async fn describe_topics(&mut self, names: Vec<String>) -> Result<Vec<proto::Topic>, Failure> {
        let request = self.request(proto::DescribeTopicsRequest { names });
        let reply = self.client.describe_topics(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().topics)
    }

    /// Creates topics; each has its own result.
    pub(crate) async fn create_topics(
        &mut self,
        request: proto::CreateTopicsRequest,
    ) -> Result<Vec<proto::TopicResult>, Failure> {
        let request = self.request(request);
        let reply = self.client.create_topics(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().topics)
    }

    /// Deletes topics; each has its own result.
    pub(crate) async fn delete_topics(
        &mut self,
        names: Vec<String>,
    ) -> Result<Vec<proto::TopicResult>, Failure> {
        let request = self.request(proto::DeleteTopicsRequest { names });
        let reply = self.client.delete_topics(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().topics)
    }

    /// Adds partitions.
    pub(crate) async fn create_partitions(
        &mut self,
        request: proto::CreatePartitionsRequest,
    ) -> Result<proto::TopicResult, Failure> {
        let request = self.request(request);
        let reply = self.client.create_partitions(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().topic.unwrap_or_default())
    }

    /// Settings of something.
    pub(crate) async fn describe_configs(
        &mut self,
        request: proto::DescribeConfigsRequest,
    ) -> Result<Vec<proto::Config>, Failure> {
        let request = self.request(request);
        let reply = self.client.describe_configs(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().configs)
    }

    /// Changes settings.
    pub(crate) async fn alter_configs(&mut self, request: proto::AlterConfigsRequest) -> Result<(), Failure> {
        let request = self.request(request);
        self.client.alter_configs(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// What has settings of its own.
    pub(crate) async fn list_config_resources(&mut self) -> Result<Vec<proto::ConfigResource>, Failure> {
        let request = self.request(proto::ListConfigResourcesRequest {});
        let reply = self.client.list_config_resources(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().resources)
    }

    /// Rules that a filter means.
    pub(crate) async fn list_acls(&mut self, filter: proto::AclFilter) -> Result<Vec<proto::Acl>, Failure> {
        let request = self.request(proto::ListAclsRequest { filter: Some(filter) });
        let reply = self.client.list_acls(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().acls)
    }

    /// Adds rules.
    pub(crate) async fn create_acls(&mut self, acls: Vec<proto::Acl>) -> Result<(), Failure> {
        let request = self.request(proto::CreateAclsRequest { acls });
        self.client.create_acls(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// Removes the rules that a filter means; gives them.
    pub(crate) async fn delete_acls(&mut self, filter: proto::AclFilter) -> Result<Vec<proto::Acl>, Failure> {
        let request = self.request(proto::DeleteAclsRequest { filter: Some(filter) });
        let reply = self.client.delete_acls(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().acls)
    }

    /// Who signs in by SCRAM.
    pub(crate) async fn list_users(&mut self) -> Result<Vec<proto::User>, Failure> {
        let request = self.request(proto::ListUsersRequest {});
        let reply = self.client.list_users(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().users)
    }

    /// Changes what a user signs in with.
    pub(crate) async fn alter_user(&mut self, request: proto::AlterUserRequest) -> Result<(), Failure> {
        let request = self.request(request);
        self.client.alter_user(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// Every quota.
    pub(crate) async fn list_quotas(&mut self) -> Result<Vec<proto::Quota>, Failure> {
        let request = self.request(proto::ListQuotasRequest {});
        let reply = self.client.list_quotas(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().quotas)
    }

    /// Changes limits.
    pub(crate) async fn alter_quota(&mut self, request: proto::AlterQuotaRequest) -> Result<(), Failure> {
        let request = self.request(request);
        self.client.alter_quota(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// Gives partitions other brokers, or ends such moves; each has its own result.
    pub(crate) async fn move_partitions(
        &mut self,
        partitions: Vec<proto::PartitionMove>,
    ) -> Result<Vec<proto::PartitionResult>, Failure> {
        let request = self.request(proto::MovePartitionsRequest { partitions });
        let reply = self.client.move_partitions(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().partitions)
    }

    /// Has leaders elected, of no partition: of all; each in which something happened has its own result.
    pub(crate) async fn elect_leaders(
        &mut self,
        unclean: bool,
        partitions: Vec<proto::PartitionRef>,
    ) -> Result<Vec<proto::PartitionResult>, Failure> {
        let request = self.request(proto::ElectLeadersRequest { unclean, partitions });
        let reply = self.client.elect_leaders(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().partitions)
    }

    /// What the cluster has agreed to do.
    pub(crate) async fn describe_features(&mut self) -> Result<Vec<proto::Feature>, Failure> {
        let request = self.request(proto::DescribeFeaturesRequest {});
        let reply = self.client.describe_features(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().features)
    }

    /// Raises or lowers a feature.
    pub(crate) async fn update_feature(
        &mut self,
        request: proto::UpdateFeatureRequest,
    ) -> Result<(), Failure> {
        let request = self.request(request);
        self.client.update_feature(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// Has the cluster forget a broker.
    pub(crate) async fn unregister_broker(&mut self, broker_id: i32) -> Result<(), Failure> {
        let request = self.request(proto::UnregisterBrokerRequest { broker_id });
        self.client.unregister_broker(request).await.map(drop).map_err(|s| self.refusal(&s))
    }

    /// Makes a delegation token.
    pub(crate) async fn create_token(
        &mut self,
        request: proto::CreateTokenRequest,
    ) -> Result<proto::Token, Failure> {
        let request = self.request(request);
        let reply = self.client.create_token(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner())
    }

    /// Delegation tokens.
    pub(crate) async fn list_tokens(&mut self, owners: Vec<String>) -> Result<Vec<proto::Token>, Failure> {
        let request = self.request(proto::ListTokensRequest { owners });
        let reply = self.client.list_tokens(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().tokens)
    }

    /// Renews a delegation token, or lets it end; gives when it does, in milliseconds since the epoch.
    pub(crate) async fn change_token(&mut self, request: proto::ChangeTokenRequest) -> Result<i64, Failure> {
        let request = self.request(request);
        let reply = self.client.change_token(request).await.map_err(|s| self.refusal(&s))?;
        Ok(reply.into_inner().expiry_ms)
    }

    /// What this node holds on disk.
    pub(crate) async fn describe_replicas(
        &mut self,
        topics: Vec<String>,
    ) -> Result<proto::DescribeReplicasReply, Failure> {
        let request = self.request(proto::DescribeReplicasRequest { topics });
        self.client
            .describe_replicas(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|s| self.refusal(&s))
    }
}

/// A gRPC status as a failure: the server's own words and hint where it has any.
fn explain(server: &str, timeout: Duration, status: &Status) -> Failure {
    let hint = status.metadata().get(HINT).and_then(|hint| hint.to_str().ok()).unwrap_or_default();
    let message = match status.code() {
        _ if is_broken(status) => format!("{server} ended the connection: {}", status.message()),
        Code::DeadlineExceeded | Code::Cancelled => {
            format!("{server} did not answer within {}", crate::parse::show_duration(timeout))
        }
        Code::Unimplemented => format!("{server} does not know this request"),
        Code::Unavailable => format!("{server} cannot answer now: {}", status.message()),
        _ => status.message().to_owned(),
    };
    let hint = match status.code() {
        _ if !hint.is_empty() => hint,
        _ if is_broken(status) => {
            "does the listener speak TLS or SASL? --tls-ca FILE; if it asks for a certificate, --tls-cert FILE --tls-key FILE; if \
             users sign in, --sasl-user NAME --sasl-password-file FILE"
        }
        Code::DeadlineExceeded | Code::Cancelled => "see 'ottla cluster status'; --timeout waits longer",
        Code::Unimplemented => "is it the gRPC listener of an Ottla node of this version?",
        Code::Unavailable => "try again, or name another node with --server",
        _ => "",
    };
    Failure::new(message).hint(hint)
}

/// Whether the connection ended where a server of this protocol would have answered. One that ends before the request is on its
/// way makes it `Cancelled`, as a time-out does too, with words of its own.
fn is_broken(status: &Status) -> bool {
    let message = status.message();
    let is_cut = status.code() == Code::Cancelled && message != "Timeout expired";
    is_cut || message == "transport error" || message.starts_with("h2 protocol error")
}

/// The innermost reason: `tonic` says no more than "transport error" outside.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_words_and_the_hint_of_the_server() {
        let mut status = Status::already_exists("topic \"a\" already exists");
        status.metadata_mut().insert(HINT, "choose another name".parse().unwrap());
        let failure = explain("h:1", Duration::from_secs(1), &status);
        assert_eq!(failure, Failure::new("topic \"a\" already exists").hint("choose another name"));
    }

    #[test]
    fn a_late_answer_names_the_server_and_the_time() {
        let failure = explain("h:1", Duration::from_secs(2), &Status::deadline_exceeded("x"));
        assert_eq!(failure.to_string(), "h:1 did not answer within 2s");
    }

    #[test]
    fn a_connection_that_is_cut_is_not_taken_for_a_late_answer() {
        let cut = explain("h:1", Duration::from_secs(2), &Status::cancelled("operation was canceled"));
        assert!(cut.to_string().starts_with("h:1 ended the connection"), "{cut}");
        let late = explain("h:1", Duration::from_secs(2), &Status::cancelled("Timeout expired"));
        assert_eq!(late.to_string(), "h:1 did not answer within 2s");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let session = Session {
            servers: vec!["127.0.0.1:1".into()],
            bootstrap: Vec::new(),
            timeout: Duration::from_secs(1),
            timeout_given: None,
            access: crate::access::Access::default(),
            output: crate::output::Output { format: crate::output::Format::Table, quiet: false },
        };
        let failure = Admin::connect(&session).await.unwrap_err().to_string();
        assert!(failure.contains("127.0.0.1:1: Connection refused"), "{failure}");
    }
}
