import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** One consumer in a thread of its own, which commits what it read before it gives a partition away. */
final class Member implements ConsumerRebalanceListener {
    final String name;
    /** What happened to its assignment, in order: `+partition`, `-partition` and `!partition` for lost. */
    final List<String> events = new ArrayList<>();
    /** How often each record was read, by all members: `partition@offset`. */
    private final Map<String, Integer> seen;
    private final KafkaConsumer<String, String> consumer;
    private final Thread thread;
    private final Set<TopicPartition> assigned = ConcurrentHashMap.newKeySet();
    private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();
    private volatile boolean ending;
    private volatile CloseOptions.GroupMembershipOperation operation = CloseOptions.GroupMembershipOperation.DEFAULT;
    volatile Exception failure;

    Member(String name, Map<String, Integer> seen, String topic, Map<String, String> settings) {
        this.name = name;
        this.seen = seen;
        Map<String, Object> properties = new HashMap<>(settings);
        properties.put("client.id", name);
        properties.putIfAbsent("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        if (topic.startsWith("java:")) {
            consumer.subscribe(Pattern.compile(topic.substring(5)), this);
        } else if (topic.startsWith("re2j:")) {
            consumer.subscribe(new SubscriptionPattern(topic.substring(5)), this);
        } else {
            consumer.subscribe(List.of(topic), this);
        }
        thread = new Thread(this::run, name);
        thread.setDaemon(true);
        thread.start();
    }

    private void run() {
        try {
            while (!ending) {
                var records = consumer.poll(Duration.ofMillis(100));
                records.forEach(record -> seen.merge(record.topic() + "-" + record.partition() + "@" + record.offset(), 1, Integer::sum));
                uncommitted.putAll(records.nextOffsets());
                commit();
            }
        } catch (WakeupException woken) {
            // told to end
        } catch (Exception caught) {
            failure = caught;
        }
        consumer.close(CloseOptions.timeout(Duration.ofSeconds(20)).withGroupMembershipOperation(operation));
    }

    /** Commits what was read and not yet committed. In the middle of a rebalance it may have to wait for the next time. */
    private void commit() {
        if (uncommitted.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(Map.copyOf(uncommitted), Duration.ofSeconds(20));
            uncommitted.clear();
        } catch (RebalanceInProgressException later) {
            // tried again after the next poll, and before a partition goes
        }
    }

    private synchronized void note(String sign, Collection<TopicPartition> partitions) {
        partitions.stream().map(TopicPartition::toString).sorted().forEach(partition -> events.add(sign + partition));
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        note("+", partitions);
        assigned.addAll(partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        note("-", partitions);
        commit();
        uncommitted.keySet().removeAll(partitions);
        assigned.removeAll(partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        note("!", partitions);
        uncommitted.keySet().removeAll(partitions);
        assigned.removeAll(partitions);
    }

    Set<String> partitions() {
        Set<String> names = new TreeSet<>();
        assigned.forEach(partition -> names.add(partition.toString()));
        return names;
    }

    synchronized int eventCount() {
        return events.size();
    }

    boolean isEnded() {
        return !thread.isAlive();
    }

    /** Ends; a static member keeps its place unless it is told to give it up. */
    void close(CloseOptions.GroupMembershipOperation how) throws InterruptedException {
        operation = how;
        ending = true;
        thread.join(30_000);
        if (thread.isAlive()) {
            throw new IllegalStateException(name + " does not end");
        }
        if (failure != null) {
            throw new IllegalStateException(name + " failed", failure);
        }
    }

    void close() throws InterruptedException {
        close(CloseOptions.GroupMembershipOperation.DEFAULT);
    }
}
