import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.ApiVersions;
import org.apache.kafka.clients.ClientUtils;
import org.apache.kafka.clients.GroupRebalanceConfig;
import org.apache.kafka.clients.Metadata;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.internals.AbstractCoordinator;
import org.apache.kafka.clients.consumer.internals.ConsumerNetworkClient;
import org.apache.kafka.common.internals.ClusterResourceListeners;
import org.apache.kafka.common.message.JoinGroupRequestData;
import org.apache.kafka.common.message.JoinGroupResponseData.JoinGroupResponseMember;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.utils.LogContext;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Timer;

/**
 * Nodes that elect one of them by a group with a protocol type of their own, as a registry of schemas does:
 * `Election BOOTSTRAP GROUP`. Three join; the one that is elected leaves, or stops to answer; the others elect again.
 */
public final class Election {
    private static final int SESSION_MS = 6000;
    private static final long SETTLE_MS_MAX = 30_000;

    /** Each node tells its name and whether it may be elected; the leader of the group elects the first that may. */
    private static final class Node extends AbstractCoordinator {
        private final String name;
        private final boolean eligible;
        private final ConsumerNetworkClient network;
        private volatile String elected;
        private volatile int generation = -1;
        private volatile boolean ending;
        private final Thread thread = new Thread(this::run);

        Node(String bootstrap, String group, String name, boolean eligible) {
            this(group, name, eligible, network(bootstrap, name));
        }

        private Node(String group, String name, boolean eligible, ConsumerNetworkClient network) {
            super(new GroupRebalanceConfig(SESSION_MS, 10_000, 500, group, Optional.empty(), null, 100, 1000), new LogContext(), network,
                new Metrics(), "election", Time.SYSTEM, Optional.empty(), Optional.empty());
            this.name = name;
            this.eligible = eligible;
            this.network = network;
            thread.setDaemon(true);
            thread.start();
        }

        private static ConsumerNetworkClient network(String bootstrap, String name) {
            Map<String, Object> properties = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "client.id", name));
            properties.put("key.deserializer", ByteArrayDeserializer.class);
            properties.put("value.deserializer", ByteArrayDeserializer.class);
            var config = new ConsumerConfig(properties);
            var log = new LogContext();
            var metadata = new Metadata(100, 1000, 60_000, log, new ClusterResourceListeners());
            metadata.bootstrap(ClientUtils.parseAndValidateAddresses(config));
            var client = ClientUtils.createNetworkClient(config, new Metrics(), "election", log, new ApiVersions(), Time.SYSTEM, 100,
                metadata, null, null);
            return new ConsumerNetworkClient(log, client, metadata, Time.SYSTEM, 100, 10_000, 500);
        }

        private void run() {
            while (!ending) {
                ensureCoordinatorReady(Time.SYSTEM.timer(1000));
                if (!coordinatorUnknown()) {
                    if (rejoinNeededOrPending()) {
                        ensureActiveGroup();
                    }
                    pollHeartbeat(System.currentTimeMillis());
                }
                network.poll(Time.SYSTEM.timer(50));
            }
        }

        @Override
        protected String protocolType() {
            return "sr";
        }

        @Override
        protected JoinGroupRequestData.JoinGroupRequestProtocolCollection metadata() {
            byte[] told = (name + ":" + eligible).getBytes(StandardCharsets.UTF_8);
            return new JoinGroupRequestData.JoinGroupRequestProtocolCollection(
                List.of(new JoinGroupRequestData.JoinGroupRequestProtocol().setName("v0").setMetadata(told)).iterator());
        }

        @Override
        protected boolean onJoinPrepare(Timer timer, int before, String member) {
            elected = null;
            return true;
        }

        @Override
        protected Map<String, ByteBuffer> onLeaderElected(String leader, String protocol, List<JoinGroupResponseMember> members, boolean skip) {
            String first = members.stream().map(member -> new String(member.metadata(), StandardCharsets.UTF_8))
                .filter(told -> told.endsWith(":true")).map(told -> told.substring(0, told.indexOf(':'))).sorted().findFirst().orElse("nobody");
            ByteBuffer answer = ByteBuffer.wrap(first.getBytes(StandardCharsets.UTF_8));
            return members.stream().collect(Collectors.toMap(JoinGroupResponseMember::memberId, member -> answer.duplicate()));
        }

        @Override
        protected void onJoinComplete(int joined, String member, String protocol, ByteBuffer assignment) {
            generation = joined;
            elected = StandardCharsets.UTF_8.decode(assignment).toString();
        }

        void leave() throws InterruptedException {
            ending = true;
            thread.join();
            close();
        }

        /** Goes silent without a word. */
        void fallSilent() throws Exception {
            ending = true;
            thread.join();
            network.close();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        Node witness = new Node(bootstrap, arguments[1], "a-witness", false);
        Node first = new Node(bootstrap, arguments[1], "b-first", true);
        Node second = new Node(bootstrap, arguments[1], "c-second", true);
        agree("b-first", witness, first, second);
        first.leave();
        agree("c-second", witness, second);
        Node third = new Node(bootstrap, arguments[1], "d-third", true);
        agree("c-second", witness, second, third);
        second.fallSilent();
        agree("d-third", witness, third);
        third.leave();
        agree("nobody", witness);
        witness.leave();
        System.out.println("elections were right");
    }

    private static void agree(String expected, Node... nodes) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(SETTLE_MS_MAX);
        while (!agreed(expected, nodes)) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(expected + " is not elected: "
                    + List.of(nodes).stream().map(node -> node.name + " says " + node.elected).toList());
            }
            Thread.sleep(20);
        }
    }

    private static boolean agreed(String expected, Node... nodes) {
        return List.of(nodes).stream().allMatch(node -> expected.equals(node.elected) && node.generation == nodes[0].generation);
    }
}
