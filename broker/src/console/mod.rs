//! The web console and its JSON API, `/api/v1`: what the cluster is and does, for people with a browser.
//!
//! What concerns metadata is asked of the node's own admin plane, in the caller's name, so that one place decides who may do what.
//! What only brokers know (offsets, records, groups) is asked of them in the Kafka protocol, after the caller's rights were looked
//! at here. `docs/console.md` describes every path.
//!
//! | module | holds |
//! |---|---|
//! | `guard` | limits, same origin, security headers, around everything |
//! | `login` | who asks |
//! | `parameters` | the query, with limits |
//! | `answer` | JSON and errors |
//! | `assets` | the pages: files of this folder, embedded |
//! | `peers` | connections to brokers |
//! | `offsets` | where partitions begin and end, how large they are |
//! | `group_details` | what coordinators say of groups |
//! | `scan`, `filter` | reading a partition, and what is passed over |
//! | `cluster`, `topics`, `topic_changes`, `configs`, `groups`, `messages`, `traffic` | the API, by what it is about |

mod answer;
mod assets;
mod cluster;
mod configs;
mod filter;
mod group_details;
mod groups;
mod guard;
mod login;
mod messages;
mod offsets;
mod parameters;
mod peers;
mod scan;
mod topic_changes;
mod topics;
mod traffic;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use ottla_proto::admin::DescribeClusterReply;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::answer::ApiError;
use self::login::Logins;
use self::offsets::Sizes;
use self::peers::Peers;
use crate::admin::AdminService;
use crate::broker::Broker;
use crate::context::BrokerContext;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The console of a node.
pub struct Console {
    admin: AdminService,
    /// Empty until the broker has started; for ever, if the node is none.
    broker: OnceLock<Arc<BrokerContext>>,
    peers: Peers,
    sizes: Sizes,
    /// The last overview, good for one index of the metadata.
    overview: Mutex<Option<Arc<DescribeClusterReply>>>,
    logins: Logins,
    turns: Semaphore,
}

impl Console {
    /// The console of a node, beside its admin plane.
    pub fn new(admin: AdminService) -> Arc<Self> {
        Arc::new(Self {
            admin,
            broker: OnceLock::new(),
            peers: Peers::default(),
            sizes: Sizes::default(),
            overview: Mutex::default(),
            logins: Logins::default(),
            turns: Semaphore::new(guard::REQUESTS_MAX),
        })
    }

    /// The node's broker has started: from now on there are messages and groups.
    pub fn attach(&self, broker: &Broker) {
        let context = broker.context();
        let (metrics, counted) = (Arc::clone(&context.metrics), Arc::clone(context));
        let connections = move || counted.connections.get().map_or(0, |limits| limits.open());
        broker.spawn(|stopping| Arc::clone(&self.admin.traffic).run(metrics, connections, stopping));
        // Nobody else sets them.
        drop(self.admin.own_configs.set(context.own_configs.clone()));
        drop(self.broker.set(Arc::clone(context)));
    }

    /// The node's broker.
    fn context(&self) -> Result<&Arc<BrokerContext>, ApiError> {
        self.broker.get().ok_or_else(ApiError::no_broker)
    }

    /// Every path of the console.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        let api = Router::new()
            .route("/session", get(cluster::session))
            .route("/cluster", get(cluster::cluster))
            .route("/quorum", get(cluster::quorum))
            .route("/brokers/{id}", get(cluster::broker))
            .route("/traffic", get(traffic::traffic))
            .route("/topics", get(topics::list).post(topic_changes::create))
            .route("/topics/{name}", get(topics::describe))
            .route("/topics/{name}", delete(topic_changes::delete))
            .route("/topics/{name}/partitions", post(topic_changes::grow))
            .route("/topics/{name}/messages", get(messages::read))
            .route("/groups", get(groups::list))
            .route("/groups/{id}", get(groups::describe))
            .route("/groups/{id}", delete(groups::delete))
            .route("/configs/{scope}/{name}", get(configs::describe))
            .route("/configs/{scope}/{name}", put(configs::alter))
            .fallback(async || ApiError::not_found(NO_PATH, "the API has no such path"))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&self), guard::api))
            .with_state(self);
        assets::router().nest("/api/v1", api).layer(axum::middleware::from_fn(guard::harden))
    }
}

/// What a path that is not there is called.
const NO_PATH: ottla_wire::error_code::ErrorCode = ottla_wire::error_code::ErrorCode::InvalidRequest;
