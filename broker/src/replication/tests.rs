//! Two brokers in one process: one leads, the other follows over a socket. The server side is a few lines here, so that a
//! failure is replication's and nobody else's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_replica::fetch_session::{PartitionKey, PartitionRequest, TopicKey};
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Records, encode_response_frame};
use ottla_wire::header::RequestHeader;
use ottla_wire::messages::{FetchRequest, FetchResponse, Message, Request, fetch_response};
use ottla_wire::records::{BatchBuilder, BatchOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::replica::test_images::{TOPIC, image};
use crate::replica::{
    AckState, Clock, FetchRequest as Fetch, FetchSessions, FetchingReplica, Grant, Isolation, Partition,
    PartitionId, ReplicaManager, ReplicaOptions, Waiter,
};

struct Broker {
    manager: Arc<ReplicaManager>,
    sessions: Arc<FetchSessions>,
    _dir: tempfile::TempDir,
}

impl Broker {
    fn new(id: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let grant = Arc::new(Grant::new());
        grant.renew_lease(u64::MAX);
        grant.set_broker_epoch(i64::from(id) * 10);
        let options = ReplicaOptions::new(id, vec![dir.path().to_owned()]);
        let manager = ReplicaManager::open(options, Arc::new(BTreeMap::new()), grant).unwrap();
        Self { manager, sessions: Arc::new(FetchSessions::new(100)), _dir: dir }
    }

    fn partition(&self, index: i32) -> Arc<Partition> {
        self.manager.by_name(TOPIC, index).unwrap()
    }
}

fn batch(value: &'static str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(Clock::wall_ms(), None, Some(value.as_bytes()), &[]).unwrap();
    builder.finish().unwrap()
}

/// Serves Fetch as the real handler does, requests of a connection side by side.
async fn serve(broker: Arc<Broker>, listener: TcpListener) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(Arc::clone(&broker), socket));
    }
}

async fn connection(broker: Arc<Broker>, socket: TcpStream) {
    let (mut reader, mut writer) = socket.into_split();
    let (sender, mut answers) = tokio::sync::mpsc::channel::<tokio::task::JoinHandle<Bytes>>(8);
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            if writer.write_all(&answer.await.unwrap()).await.is_err() {
                return;
            }
        }
    });
    while let Ok(length) = reader.read_u32().await {
        let mut frame = vec![0; length as usize];
        if reader.read_exact(&mut frame).await.is_err() {
            return;
        }
        let mut decoder = Decoder::new(Bytes::from(frame));
        let header = RequestHeader::decode(&mut decoder).unwrap();
        let request = FetchRequest::decode(&mut decoder, header.api_version).unwrap();
        let broker = Arc::clone(&broker);
        let answer = tokio::spawn(async move {
            let response = fetch(&broker, request).await;
            let (version, id) = (header.api_version, header.correlation_id);
            encode_response_frame(FetchRequest::KEY, version, id, &response).unwrap().into_bytes()
        });
        if sender.send(answer).await.is_err() {
            return;
        }
    }
}

async fn fetch(broker: &Broker, request: FetchRequest) -> FetchResponse {
    let key = |id: Uuid, index| PartitionKey { topic: TopicKey::Id(id.as_u128()), index };
    let mut asked = Fetch {
        wait_ms_max: u64::try_from(request.max_wait_ms).unwrap(),
        bytes_min: usize::try_from(request.min_bytes).unwrap(),
        bytes_max: usize::try_from(request.max_bytes).unwrap(),
        isolation: Isolation::ReadUncommitted,
        replica: Some(FetchingReplica {
            broker_id: request.replica_state.replica_id,
            broker_epoch: request.replica_state.replica_epoch,
        }),
        allow_follower: false,
        rack: String::new(),
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        uses_topic_ids: true,
        permits: None,
        partitions: Vec::new(),
        forgotten: Vec::new(),
    };
    for topic in &request.topics {
        for partition in &topic.partitions {
            asked.partitions.push((
                key(topic.topic_id, partition.partition),
                PartitionRequest {
                    fetch_offset: partition.fetch_offset,
                    bytes_max: partition.partition_max_bytes,
                    current_leader_epoch: partition.current_leader_epoch,
                    last_fetched_epoch: partition.last_fetched_epoch,
                    log_start_offset: partition.log_start_offset,
                    high_watermark: partition.high_watermark,
                },
            ));
        }
    }
    for topic in &request.forgotten_topics_data {
        asked.forgotten.extend(topic.partitions.iter().map(|&index| key(topic.topic_id, index)));
    }
    let answer = broker.sessions.fetch(&broker.manager, asked).await;
    let mut response = FetchResponse {
        error_code: answer.error.code(),
        session_id: answer.session_id,
        ..Default::default()
    };
    for (key, result) in answer.partitions {
        let TopicKey::Id(id) = key.topic else { panic!("a follower names topics by id") };
        let (epoch, end_offset) = result.diverging.unwrap_or((-1, -1));
        response.responses.push(fetch_response::Response {
            topic_id: Uuid::from_u128(id),
            partitions: vec![fetch_response::Partition {
                partition_index: key.index,
                error_code: result.error.code(),
                high_watermark: result.high_watermark,
                last_stable_offset: result.last_stable_offset,
                log_start_offset: result.log_start_offset,
                records: result.slice.map(|slice| Records::Bytes(slice.to_bytes().unwrap())),
                diverging_epoch: fetch_response::DivergingEpoch { epoch, end_offset },
                ..Default::default()
            }],
            ..Default::default()
        });
    }
    response
}

/// Broker 1 leads with broker 2 in the ISR; both run. Gives the port too, for later images.
async fn pair(partitions: i32) -> (Arc<Broker>, Arc<Broker>, u16, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (one, two) = (Arc::new(Broker::new(1)), Arc::new(Broker::new(2)));
    tokio::spawn(serve(Arc::clone(&one), listener));
    let stop = CancellationToken::new();
    tokio::spawn(super::fetcher::run(Arc::clone(&two.manager), stop.clone()));
    let first = image(port, partitions, 1, (0, 0), &[1, 2]);
    one.manager.apply_image(&first, None);
    two.manager.apply_image(&first, None);
    (one, two, port, stop)
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acks_all_append_is_acknowledged_when_the_follower_has_it() {
    let (one, two, _, stop) = pair(1).await;
    let leader = one.partition(0);
    for round in 0..20 {
        let appended = leader.append_as_leader(batch("value"), -1, Clock::wall_ms()).unwrap();
        assert_eq!(appended.base_offset, round);
        let waiter = Waiter::new(1);
        if leader.await_ack(&appended, &waiter) == AckState::Pending {
            assert!(waiter.wait_at_most(Duration::from_secs(10)).await, "round {round}");
        }
        assert_eq!(leader.ack_result(&appended), AckState::Done);
        assert!(two.partition(0).view().log_end_offset > round);
    }
    // The watermark of the last append reaches the follower with the end of its waiting fetch.
    eventually("the follower's watermark", || two.partition(0).high_watermark() == 20).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_is_fetched_at_once_although_a_fetch_waits() {
    let (one, two, port, stop) = pair(1).await;
    let first = one.partition(0);
    let appended = first.append_as_leader(batch("value"), -1, Clock::wall_ms()).unwrap();
    eventually("the first ack", || first.ack_result(&appended) == AckState::Done).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let more = image(port, 5, 1, (0, 0), &[1, 2]);
    one.manager.apply_image(&more, None);
    let started = std::time::Instant::now();
    two.manager.apply_image(&more, None);
    for index in 1..5 {
        let leader = one.partition(index);
        let appended = leader.append_as_leader(batch("value"), -1, Clock::wall_ms()).unwrap();
        eventually("the ack", || leader.ack_result(&appended) == AckState::Done).await;
    }
    assert!(started.elapsed() < Duration::from_millis(400), "took {:?}", started.elapsed());
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_cuts_what_its_new_leader_does_not_have() {
    let (one, two, port, stop) = pair(1).await;
    let leader = one.partition(0);
    for _ in 0..3 {
        leader.append_as_leader(batch("common"), 1, Clock::wall_ms()).unwrap();
    }
    eventually("replicated", || two.partition(0).view().log_end_offset == 3).await;
    // Broker 2 leads for a while, alone, and appends what nobody else has.
    let alone = image(port, 1, 2, (1, 1), &[2]);
    two.manager.apply_image(&alone, None);
    for _ in 0..4 {
        two.partition(0).append_as_leader(batch("lost"), 1, Clock::wall_ms()).unwrap();
    }
    assert_eq!(two.partition(0).view().log_end_offset, 7);
    // Broker 1 never heard of it and leads again in a later epoch: an unclean election.
    let back = image(port, 1, 1, (2, 2), &[1]);
    one.manager.apply_image(&back, None);
    one.partition(0).append_as_leader(batch("kept"), 1, Clock::wall_ms()).unwrap();
    two.manager.apply_image(&back, None);
    eventually("cut and continued", || two.partition(0).view().log_end_offset == 4).await;
    let id = PartitionId { topic_id: one.partition(0).topic_id(), index: 0 };
    let own = |broker: &Broker| {
        let state = broker.manager.by_id(id).unwrap();
        let log = state.lock();
        log.log.as_ref().unwrap().read(0, 1 << 20, 4, true).unwrap().to_bytes().unwrap()
    };
    assert_eq!(own(&one), own(&two), "replicas are the same bytes");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_is_woken_when_the_follower_has_the_record() {
    let (one, _two, _, stop) = pair(2).await;
    let id = one.partition(0).topic_id();
    let consumer = Arc::clone(&one);
    let key = move |index| PartitionKey { topic: TopicKey::Id(id.as_u128()), index };
    let asked = PartitionRequest {
        fetch_offset: 0,
        bytes_max: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        high_watermark: -1,
    };
    let fetch = |session: (i32, i32), partitions: Vec<i32>| Fetch {
        wait_ms_max: 20_000,
        bytes_min: 1,
        bytes_max: 1 << 20,
        isolation: Isolation::ReadUncommitted,
        replica: None,
        allow_follower: true,
        rack: String::new(),
        session_id: session.0,
        session_epoch: session.1,
        uses_topic_ids: true,
        permits: None,
        // In the second round partition 1 has a record already.
        partitions: partitions
            .into_iter()
            .map(|index| {
                (
                    key(index),
                    PartitionRequest { fetch_offset: i64::from(session.1 < 0 && index == 1), ..asked },
                )
            })
            .collect(),
        forgotten: Vec::new(),
    };
    for session in [(0, 0), (0, -1)] {
        let request = fetch(session, vec![0, 1]);
        let consumer = Arc::clone(&consumer);
        let waiting = tokio::spawn(async move { consumer.sessions.fetch(&consumer.manager, request).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let index = i32::from(session.1 == 0);
        one.partition(index).append_as_leader(batch("value"), 1, Clock::wall_ms()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(answer.partitions.len(), 2, "a full answer names all");
        assert!(answer.partitions.iter().any(|(key, result)| key.index == index && result.slice.is_some()));
    }
    stop.cancel();
}

/// A follower sends ahead, so that it may use a session that it has just emptied.
#[tokio::test(flavor = "multi_thread")]
async fn a_followers_session_outlives_its_last_partition() {
    let (one, _two, _, stop) = pair(1).await;
    let id = one.partition(0).topic_id();
    let key = PartitionKey { topic: TopicKey::Id(id.as_u128()), index: 0 };
    let asked = PartitionRequest {
        fetch_offset: 0,
        bytes_max: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: 0,
        high_watermark: -1,
    };
    let fetch = |session_id, session_epoch, partitions, forgotten| Fetch {
        wait_ms_max: 0,
        bytes_min: 1,
        bytes_max: 1 << 20,
        isolation: Isolation::ReadUncommitted,
        replica: Some(FetchingReplica { broker_id: 9, broker_epoch: 1 }),
        allow_follower: false,
        rack: String::new(),
        session_id,
        session_epoch,
        uses_topic_ids: true,
        permits: None,
        partitions,
        forgotten,
    };
    let answered = one.sessions.fetch(&one.manager, fetch(0, 0, vec![(key.clone(), asked)], vec![])).await;
    let session = answered.session_id;
    assert_ne!(session, 0);
    let emptied = one.sessions.fetch(&one.manager, fetch(session, 1, vec![], vec![key.clone()])).await;
    assert_eq!((emptied.error, emptied.session_id), (ottla_wire::error_code::ErrorCode::None, session));
    let again = one.sessions.fetch(&one.manager, fetch(session, 2, vec![(key, asked)], vec![])).await;
    assert_eq!((again.error, again.partitions.len()), (ottla_wire::error_code::ErrorCode::None, 1));
    stop.cancel();
}
