//! Producers and consumers. They find leaders by asking brokers, try again as real clients do, and tell the history of all
//! that they ask and learn.

use std::collections::VecDeque;

use ottla_verify::Event;

use super::batch::{Batch, Kind};
use super::isolation::given;
use super::message::{Message, Problem, ReadAnswer};
use super::network::{CLIENTS, Node};
use super::plan::Plan;
use super::random::Random;

/// A request without an answer for so long is given up, and its connection with it.
const REQUEST_TIMEOUT_US: u64 = 1_500_000;
/// Between two records of a producer, at most.
const THINK_US_MAX: u64 = 160_000;
/// Between two polls of a reader.
const POLL_US: (u64, u64) = (40_000, 200_000);

/// Something that clients want to be reminded of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTimer {
    /// A producer has another record.
    Write(usize),
    /// A lane sends what is unanswered again.
    Again(usize, usize, u64),
    /// A lane's connection was silent.
    Silent(usize, usize, u64, u64),
    /// A reader polls.
    Poll(usize),
    /// The answer to that poll did not come.
    PollTimeout(usize, u64),
    /// Somebody asks for an end.
    Look,
}

/// What comes out of a step.
#[derive(Debug, Default)]
pub struct ClientOutbox {
    /// Messages; with a number they arrive in the order of sending among those with the same number.
    pub sends: Vec<(Node, Node, Message, Option<u64>)>,
    /// Timers.
    pub timers: Vec<(u64, ClientTimer)>,
}

#[derive(Debug)]
struct Unanswered {
    number: u64,
    op: u64,
    batch: Batch,
}

/// The records of one producer for one partition.
#[derive(Debug, Default)]
struct Lane {
    next: u64,
    unanswered: VecDeque<Unanswered>,
    /// Names the connection: answers on earlier ones do not count.
    connection: u64,
    requests: u64,
    /// Whom the connection goes to.
    leader: i32,
    /// A pause before everything is sent again.
    is_pausing: bool,
    /// A record of it is acknowledged.
    is_known: bool,
    failures: u32,
    problem: Option<Problem>,
}

#[derive(Debug)]
struct Reader {
    consumer: u32,
    committed: bool,
    partition: usize,
    offset: i64,
    poll: u64,
    is_waiting: bool,
    asked_us: u64,
    asked: Node,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    random: Random,
    idempotent: bool,
    in_flight_max: usize,
    follower_reads: bool,
    brokers: i32,
    partitions: usize,
    /// Of all of them: what one knows of a later leader the others know.
    leaders: Vec<(i32, i32)>,
    producers: Vec<Vec<Lane>>,
    readers: Vec<Reader>,
    looks: Vec<(u64, u64, i32)>,
    next_op: u64,
    next_connection: u64,
    /// No more records.
    pub is_stopped: bool,
    /// What happened.
    pub history: Vec<Event>,
    /// Records acknowledged.
    pub acknowledged: u64,
}

fn node_of_producer(producer: usize) -> Node {
    CLIENTS + i32::try_from(producer).unwrap_or(0)
}

fn node_of_reader(reader: usize) -> Node {
    CLIENTS + 100 + i32::try_from(reader).unwrap_or(0)
}

const LOOKER: Node = CLIENTS + 99;

impl Clients {
    /// Nothing written, nothing read.
    pub fn new(plan: &Plan, out: &mut ClientOutbox) -> Self {
        let partitions = usize::try_from(plan.partitions).unwrap_or(1);
        let mut history = Vec::new();
        let mut readers = Vec::new();
        for consumer in 0..plan.consumers {
            // Of transactions one reads all, the other what is committed.
            let committed = plan.transactions.is_some() && consumer % 2 == 1;
            history.push(Event::Reader { r: consumer, committed });
            for partition in 0..partitions {
                let reader = Reader {
                    consumer,
                    committed,
                    partition,
                    offset: 0,
                    poll: 0,
                    is_waiting: false,
                    asked_us: 0,
                    asked: 0,
                };
                readers.push(reader);
            }
        }
        let count = usize::try_from(plan.producers).unwrap_or(0);
        let producers = (0..count).map(|_| (0..partitions).map(|_| Lane::default()).collect()).collect();
        out.timers.extend((0..count).map(|producer| (10_000, ClientTimer::Write(producer))));
        out.timers.extend((0..readers.len()).map(|reader| (20_000, ClientTimer::Poll(reader))));
        out.timers.push((300_000, ClientTimer::Look));
        Self {
            random: Random::new(plan.seed, 4),
            idempotent: plan.idempotent,
            in_flight_max: plan.in_flight_max,
            follower_reads: plan.follower_reads,
            brokers: plan.brokers,
            partitions,
            leaders: vec![(-1, -1); partitions],
            producers,
            readers,
            looks: Vec::new(),
            next_op: 0,
            next_connection: 0,
            is_stopped: false,
            history,
            acknowledged: 0,
        }
    }

    /// Whether every record has its answer.
    pub fn is_quiet(&self) -> bool {
        self.producers.iter().flatten().all(|lane| lane.unanswered.is_empty())
    }

    /// Which producers wait, for reports.
    pub fn describe_waiting(&self) -> String {
        let lanes = self.producers.iter().enumerate().flat_map(|(producer, lanes)| {
            lanes.iter().enumerate().map(move |(partition, lane)| (producer, partition, lane))
        });
        let waiting = lanes.filter(|(.., lane)| !lane.unanswered.is_empty());
        let texts = waiting.map(|(producer, partition, lane)| {
            let numbers: Vec<u64> = lane.unanswered.iter().map(|record| record.number).collect();
            format!(
                "producer {producer} in partition {partition} for {numbers:?}, after {} failures, the last {:?}; leader {:?}",
                lane.failures, lane.problem, self.leaders[partition]
            )
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    /// Whether every reader is at the end of its partition.
    pub fn have_read_to(&self, ends: &[i64]) -> bool {
        self.readers.iter().all(|reader| ends.get(reader.partition).is_some_and(|end| reader.offset >= *end))
    }

    fn ask_for_leaders(&mut self, from: Node, out: &mut ClientOutbox) {
        let broker =
            i32::try_from(self.random.between(1, u64::from(self.brokers.unsigned_abs()))).unwrap_or(1);
        out.sends.push((from, broker, Message::Metadata, None));
    }

    /// Something is due.
    pub fn due(&mut self, now_us: u64, timer: ClientTimer, out: &mut ClientOutbox) {
        match timer {
            ClientTimer::Write(producer) => {
                self.write(now_us, producer, out);
                out.timers.push((self.random.between(1_000, THINK_US_MAX), timer));
            }
            ClientTimer::Again(producer, partition, connection) => {
                let lane = &mut self.producers[producer][partition];
                if lane.connection == connection {
                    lane.is_pausing = false;
                    self.send_again(producer, partition, out);
                }
            }
            ClientTimer::Silent(producer, partition, connection, number) => {
                let lane = &self.producers[producer][partition];
                let waits = lane.unanswered.front().is_some_and(|first| first.number <= number);
                if lane.connection == connection && waits {
                    self.failed(now_us, producer, partition, Problem::Unknown, out);
                }
            }
            ClientTimer::Poll(reader) => self.poll(now_us, reader, out),
            ClientTimer::PollTimeout(reader, poll) => {
                if self.readers[reader].is_waiting && self.readers[reader].poll == poll {
                    self.ask_for_leaders(node_of_reader(reader), out);
                    self.readers[reader].is_waiting = false;
                    self.poll(now_us, reader, out);
                }
            }
            ClientTimer::Look => {
                let partition = self.random.below(self.partitions as u64);
                let at = usize::try_from(partition).unwrap_or(0);
                let (leader, epoch) = self.leaders[at];
                if leader >= 0 {
                    self.next_op += 1;
                    self.looks.push((self.next_op, now_us, epoch));
                    let index = i32::try_from(at).unwrap_or(0);
                    let look = Message::Look { id: self.next_op, partition: index, leader_epoch: epoch };
                    out.sends.push((LOOKER, leader, look, None));
                }
                if self.looks.len() > 16 {
                    self.looks.remove(0);
                }
                out.timers.push((300_000, timer));
            }
        }
    }

    fn write(&mut self, now_us: u64, producer: usize, out: &mut ClientOutbox) {
        let partition = usize::try_from(self.random.below(self.partitions as u64)).unwrap_or(0);
        // A log that does not know a producer takes any sequence from it, as Kafka's does (its state may have been deleted
        // with its records): records behind the first wait until that is acknowledged, or they may take its place.
        let lane = &self.producers[producer][partition];
        let in_flight_max = if lane.is_known { self.in_flight_max } else { 1 };
        if self.is_stopped || lane.unanswered.len() >= in_flight_max {
            return;
        }
        self.next_op += 1;
        let op = self.next_op;
        let writer = u32::try_from(producer).unwrap_or(0);
        let lane = &mut self.producers[producer][partition];
        let number = lane.next;
        lane.next += 1;
        let (producer_id, sequence) = if self.idempotent {
            (1_000 + i64::from(writer), i32::try_from(number).unwrap_or(0))
        } else {
            (-1, -1)
        };
        let producer_epoch = if self.idempotent { 0 } else { -1 };
        let kind = Kind::Plain;
        let batch = Batch { producer_id, producer_epoch, sequence, writer, number, kind };
        lane.unanswered.push_back(Unanswered { number, op, batch });
        let p = u32::try_from(partition).unwrap_or(0);
        self.history.push(Event::Send {
            t: now_us,
            op,
            w: writer,
            p,
            n: number,
            c: 1,
            x: None,
            src: Vec::new(),
        });
        let leader = self.leaders[partition].0;
        let lane = &self.producers[producer][partition];
        if lane.is_pausing {
            return;
        }
        if lane.connection == 0 || lane.leader != leader {
            self.send_again(producer, partition, out);
        } else {
            let at = lane.unanswered.len() - 1;
            self.send(producer, partition, at, out);
        }
    }

    /// A new connection; everything unanswered goes out again, in order.
    fn send_again(&mut self, producer: usize, partition: usize, out: &mut ClientOutbox) {
        self.next_connection += 1;
        let leader = self.leaders[partition].0;
        let lane = &mut self.producers[producer][partition];
        (lane.connection, lane.leader) = (self.next_connection, leader);
        for at in 0..self.producers[producer][partition].unanswered.len() {
            self.send(producer, partition, at, out);
        }
    }

    fn send(&mut self, producer: usize, partition: usize, at: usize, out: &mut ClientOutbox) {
        let from = node_of_producer(producer);
        let lane = &mut self.producers[producer][partition];
        let leader = lane.leader;
        let Some(record) = lane.unanswered.get(at) else { return };
        lane.requests += 1;
        let (connection, number) = (lane.connection, record.number);
        out.timers.push((REQUEST_TIMEOUT_US, ClientTimer::Silent(producer, partition, connection, number)));
        if leader < 0 {
            self.ask_for_leaders(from, out);
            return;
        }
        let index = i32::try_from(partition).unwrap_or(0);
        let id = (connection, lane.requests);
        let batch = record.batch.clone();
        let produce = Message::Produce { id, partition: index, batch, transaction: None };
        out.sends.push((from, leader, produce, Some(connection)));
    }

    fn failed(
        &mut self,
        now_us: u64,
        producer: usize,
        partition: usize,
        problem: Problem,
        out: &mut ClientOutbox,
    ) {
        self.ask_for_leaders(node_of_producer(producer), out);
        let lane = &mut self.producers[producer][partition];
        lane.failures += 1;
        lane.problem = Some(problem);
        if !self.idempotent
            && let Some(record) = lane.unanswered.pop_front()
        {
            let event = if problem == Problem::NotEnoughReplicas {
                Event::Refused { t: now_us, op: record.op, why: format!("{problem:?}") }
            } else {
                Event::Unknown { t: now_us, op: record.op, why: format!("{problem:?}") }
            };
            self.history.push(event);
        }
        self.next_connection += 1;
        let lane = &mut self.producers[producer][partition];
        (lane.connection, lane.is_pausing) = (self.next_connection, true);
        let pause = self.random.between(20_000, 300_000);
        out.timers.push((pause, ClientTimer::Again(producer, partition, self.next_connection)));
    }

    fn poll(&mut self, now_us: u64, reader: usize, out: &mut ClientOutbox) {
        let next = self.random.between(POLL_US.0, POLL_US.1);
        let from = node_of_reader(reader);
        let (leader, leader_epoch) = self.leaders[self.readers[reader].partition];
        if self.readers[reader].is_waiting {
            return;
        }
        if leader < 0 {
            self.ask_for_leaders(from, out);
            out.timers.push((next, ClientTimer::Poll(reader)));
            return;
        }
        let goes_elsewhere = self.follower_reads && self.random.chance(500);
        let any = i32::try_from(self.random.between(1, u64::from(self.brokers.unsigned_abs()))).unwrap_or(1);
        let to = if goes_elsewhere { any } else { leader };
        let own = &mut self.readers[reader];
        own.poll += 1;
        (own.is_waiting, own.asked_us, own.asked) = (true, now_us, to);
        let read = Message::Read {
            id: own.poll,
            partition: i32::try_from(own.partition).unwrap_or(0),
            offset: own.offset,
            leader_epoch,
            allow_follower: self.follower_reads,
            committed: own.committed,
        };
        out.timers.push((REQUEST_TIMEOUT_US, ClientTimer::PollTimeout(reader, own.poll)));
        out.sends.push((from, to, read, None));
    }

    /// What somebody knows of leaders.
    pub fn hear_of(&mut self, leaders: &[(i32, i32)]) {
        for (known, new) in self.leaders.iter_mut().zip(leaders) {
            // Who knows a later epoch does not believe an earlier one.
            if new.1 > known.1 || new.1 == known.1 && new.0 >= 0 {
                *known = *new;
            }
        }
    }

    /// A message for a client.
    pub fn receive(&mut self, now_us: u64, to: Node, from: Node, message: Message, out: &mut ClientOutbox) {
        match message {
            Message::MetadataAnswer(leaders) => self.hear_of(&leaders),
            Message::Produced { id, partition, number, result } => {
                let producer = usize::try_from(to - CLIENTS).unwrap_or(0);
                let partition = usize::try_from(partition).unwrap_or(0);
                self.produced(now_us, producer, partition, (id.0, number), result, out);
            }
            Message::ReadAnswer { id, answer, .. } => {
                let reader = usize::try_from(to - CLIENTS - 100).unwrap_or(0);
                if self.readers[reader].is_waiting && self.readers[reader].poll == id {
                    self.read(now_us, reader, from, answer, out);
                }
            }
            Message::LookAnswer { id, partition, end } => {
                let Some(at) = self.looks.iter().position(|(other, ..)| *other == id) else { return };
                let (_, asked_us, _) = self.looks.remove(at);
                match end {
                    Some(end) => {
                        let p = u32::try_from(partition).unwrap_or(0);
                        self.history.push(Event::Look { s: asked_us, t: now_us, p, end });
                    }
                    None => self.ask_for_leaders(LOOKER, out),
                }
            }
            _ => {}
        }
    }

    fn produced(
        &mut self,
        now_us: u64,
        producer: usize,
        partition: usize,
        (connection, number): (u64, u64),
        result: Result<i64, Problem>,
        out: &mut ClientOutbox,
    ) {
        let lane = &mut self.producers[producer][partition];
        if lane.connection != connection {
            return;
        }
        match result {
            Ok(offset) => {
                let Some(at) = lane.unanswered.iter().position(|record| record.number == number) else {
                    return;
                };
                let Some(record) = lane.unanswered.remove(at) else { return };
                (lane.failures, lane.is_known) = (0, true);
                self.acknowledged += 1;
                self.history.push(Event::Sent { t: now_us, op: record.op, o: offset });
            }
            Err(problem) => self.failed(now_us, producer, partition, problem, out),
        }
    }

    fn read(&mut self, now_us: u64, reader: usize, from: Node, answer: ReadAnswer, out: &mut ClientOutbox) {
        let pause = self.random.between(POLL_US.0, POLL_US.1);
        let own = &mut self.readers[reader];
        own.is_waiting = false;
        out.timers.push((pause, ClientTimer::Poll(reader)));
        let (r, p) = (own.consumer, u32::try_from(own.partition).unwrap_or(0));
        match answer {
            ReadAnswer::Refused => self.ask_for_leaders(node_of_reader(reader), out),
            ReadAnswer::OutOfRange => {
                self.history.push(Event::OutOfRange { s: own.asked_us, t: now_us, r, p, at: own.offset });
            }
            ReadAnswer::Records { entries, high_watermark, leader_epoch, is_leader, aborted } => {
                debug_assert_eq!(from, own.asked);
                let start = own.offset;
                let runs = given(start, &entries, own.committed, aborted);
                own.offset += i64::try_from(entries.len()).unwrap_or(0);
                // Only leaders of one epoch can be compared.
                let epoch = if is_leader { leader_epoch } else { -1 };
                self.history.push(Event::Poll {
                    s: own.asked_us,
                    t: now_us,
                    r,
                    p,
                    from: start,
                    next: own.offset,
                    hw: high_watermark,
                    epoch,
                    runs,
                    alien: Vec::new(),
                });
            }
        }
    }
}
