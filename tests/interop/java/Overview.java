import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeConsumerGroupsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaFilter;

/** Everything that a web interface of Kafka shows of a cluster, read by Kafka's own AdminClient: `Overview BOOTSTRAP [PROPERTIES]`, as JSON. */
public final class Overview {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> all = new TreeMap<>();
        Properties settings = new Properties();
        if (arguments.length > 1) {
            try (var file = Files.newBufferedReader(Path.of(arguments[1]))) {
                settings.load(file);
            }
        }
        settings.putAll(Map.of("bootstrap.servers", arguments[0], "client.id", "overview"));
        try (Admin admin = Admin.create(settings)) {
            cluster(admin, all);
            topics(admin, all);
            groups(admin, all);
            access(admin, all);
        }
        System.out.println(new ObjectMapper().configure(SerializationFeature.FAIL_ON_EMPTY_BEANS, false).writeValueAsString(all));
    }

    private static void cluster(Admin admin, Map<String, Object> all) throws Exception {
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        all.put("clusterId", cluster.clusterId().get());
        all.put("nodes", cluster.nodes().get().stream().map(node -> node.idString()).sorted().toList());
        all.put("clusterOperations", names(cluster.authorizedOperations().get()));
        var brokers = cluster.nodes().get().stream().map(node -> node.id()).toList();
        all.put("brokerConfigs", configs(admin, new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(brokers.get(0)))));
        Map<String, Object> directories = new TreeMap<>();
        admin.describeLogDirs(brokers).allDescriptions().get().forEach((broker, by) -> by.forEach((path, directory) -> {
            Map<String, Object> told = new HashMap<>();
            told.put("broker", broker);
            told.put("total", directory.totalBytes().orElse(-1));
            told.put("usable", directory.usableBytes().orElse(-1));
            Map<String, Long> sizes = new TreeMap<>();
            directory.replicaInfos().forEach((partition, replica) -> sizes.put(partition.toString(), replica.size()));
            told.put("sizes", sizes);
            directories.put(path, told);
        }));
        all.put("logDirs", directories);
        Map<String, Object> features = new TreeMap<>();
        var described = admin.describeFeatures().featureMetadata().get();
        described.finalizedFeatures().forEach((name, range) -> features.put(name, range.maxVersionLevel()));
        all.put("features", features);
        var quorum = admin.describeMetadataQuorum().quorumInfo().get();
        all.put("quorumLeader", quorum.leaderId());
        all.put("voters", quorum.voters().stream().map(voter -> voter.replicaId()).sorted().toList());
        all.put("reassignments", admin.listPartitionReassignments().reassignments().get().size());
        all.put("transactions", admin.listTransactions().all().get().stream().map(t -> t.transactionalId() + " " + t.state()).toList());
        all.put("configResources", admin.listConfigResources().all().get().stream().map(r -> r.type() + " " + r.name()).sorted().toList());
    }

    private static void topics(Admin admin, Map<String, Object> all) throws Exception {
        var listed = admin.listTopics(new ListTopicsOptions().listInternal(true)).listings().get();
        all.put("internal", listed.stream().filter(topic -> topic.isInternal()).map(topic -> topic.name()).sorted().toList());
        var names = listed.stream().filter(topic -> !topic.isInternal()).map(topic -> topic.name()).toList();
        Map<String, Object> told = new TreeMap<>();
        Map<TopicPartition, OffsetSpec> first = new HashMap<>();
        Map<TopicPartition, OffsetSpec> last = new HashMap<>();
        Map<String, TopicDescription> described =
            admin.describeTopics(names, new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get();
        for (TopicDescription topic : described.values()) {
            for (var partition : topic.partitions()) {
                first.put(new TopicPartition(topic.name(), partition.partition()), OffsetSpec.earliest());
                last.put(new TopicPartition(topic.name(), partition.partition()), OffsetSpec.latest());
            }
        }
        var firsts = admin.listOffsets(first).all().get();
        var lasts = admin.listOffsets(last).all().get();
        var newest = admin.listOffsets(last.keySet().stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.maxTimestamp()))).all().get();
        for (TopicDescription topic : described.values()) {
            List<Object> partitions = new ArrayList<>();
            for (var info : topic.partitions()) {
                var partition = new TopicPartition(topic.name(), info.partition());
                partitions.add(Map.of("leader", info.leader().id(), "replicas", info.replicas().size(), "isr", info.isr().size(),
                    "first", firsts.get(partition).offset(), "last", lasts.get(partition).offset(), "newest", newest.get(partition).offset()));
            }
            told.put(topic.name(), Map.of("partitions", partitions, "operations", names(topic.authorizedOperations()),
                "configs", configs(admin, new ConfigResource(ConfigResource.Type.TOPIC, topic.name()))));
        }
        all.put("topics", told);
    }

    private static void groups(Admin admin, Map<String, Object> all) throws Exception {
        Map<String, Object> told = new TreeMap<>();
        var listed = admin.listGroups().all().get();
        var names = listed.stream().map(group -> group.groupId()).toList();
        var described = admin.describeConsumerGroups(names, new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get();
        var offsets = admin.listConsumerGroupOffsets(
            names.stream().collect(Collectors.toMap(name -> name, name -> new ListConsumerGroupOffsetsSpec()))).all().get();
        for (var group : listed) {
            var description = described.get(group.groupId());
            var committed = offsets.get(group.groupId());
            var ends = admin.listOffsets(committed.keySet().stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()))).all().get();
            Map<String, Long> lag = new TreeMap<>();
            committed.forEach((partition, offset) -> lag.put(partition.toString(), ends.get(partition).offset() - offset.offset()));
            List<Object> members = new ArrayList<>();
            for (var member : description.members()) {
                members.add(Map.of("client", member.clientId(), "host", member.host(),
                    "partitions", member.assignment().topicPartitions().stream().map(TopicPartition::toString).sorted().toList()));
            }
            told.put(group.groupId(), Map.of("type", String.valueOf(group.type().orElse(null)), "state", String.valueOf(description.groupState()),
                "assignor", description.partitionAssignor(), "members", members, "lag", lag, "protocol", group.protocol(),
                "operations", names(description.authorizedOperations()), "coordinator", description.coordinator().id()));
        }
        all.put("groups", told);
    }

    private static void access(Admin admin, Map<String, Object> all) throws Exception {
        all.put("acls", admin.describeAcls(AclBindingFilter.ANY).values().get().stream().map(Object::toString).sorted().toList());
        Map<String, Object> quotas = new TreeMap<>();
        admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get()
            .forEach((entity, values) -> quotas.put(new TreeMap<>(entity.entries()).toString(), values));
        all.put("quotas", quotas);
        Map<String, Object> users = new TreeMap<>();
        admin.describeUserScramCredentials().all().get().forEach((name, user) -> users.put(name,
            user.credentialInfos().stream().map(info -> info.mechanism().mechanismName() + " " + info.iterations()).sorted().toList()));
        all.put("users", users);
    }

    private static Map<String, Object> configs(Admin admin, ConfigResource resource) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Config config = admin.describeConfigs(List.of(resource), options).all().get().get(resource);
        Map<String, Object> told = new TreeMap<>();
        for (ConfigEntry entry : config.entries()) {
            Map<String, Object> one = new HashMap<>();
            one.put("value", entry.value());
            one.put("source", entry.source().name());
            one.put("type", entry.type().name());
            one.put("sensitive", entry.isSensitive());
            one.put("readOnly", entry.isReadOnly());
            one.put("documentation", entry.documentation());
            one.put("synonyms", entry.synonyms().stream().map(s -> s.source() + ":" + s.name() + "=" + s.value()).toList());
            told.put(entry.name(), one);
        }
        return told;
    }

    private static List<String> names(java.util.Set<? extends Enum<?>> set) {
        return set == null ? null : set.stream().map(Enum::name).sorted().toList();
    }
}
