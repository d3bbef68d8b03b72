import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Consumers of Java that come and go while records are written: `Members BOOTSTRAP TOPIC GROUP SCENARIO NAME=VALUE…`, the pairs
 * being properties of the consumers. Fails when an assignment is not as it ought to be; prints how many records were read
 * and how many of them more than once.
 */
public final class Members {
    private static final int PARTITIONS = 6;
    private static final long SETTLE_MS_MAX = 30_000;

    private final String bootstrap;
    private final String topic;
    private final Map<String, String> settings = new HashMap<>();
    private final Map<String, Integer> seen = new ConcurrentHashMap<>();
    private final List<Member> all = new ArrayList<>();
    private final KafkaProducer<String, String> producer;
    private int written;
    private volatile boolean writing = true;

    private Members(String[] arguments) {
        bootstrap = arguments[0];
        topic = arguments[1];
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", arguments[2]);
        settings.put("metadata.max.age.ms", "1000");
        for (String pair : Arrays.copyOfRange(arguments, 4, arguments.length)) {
            String[] parts = pair.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 1), new StringSerializer(), new StringSerializer());
    }

    public static void main(String[] arguments) throws Exception {
        Members members = new Members(arguments);
        Thread writer = new Thread(members::write);
        writer.start();
        try {
            switch (arguments[3]) {
                case "come-and-go" -> members.comeAndGo();
                case "static" -> members.statics();
                case "fenced" -> members.fenced();
                case "upgrade" -> members.upgrade();
                case "pattern" -> members.pattern();
                default -> throw new IllegalArgumentException(arguments[3]);
            }
        } finally {
            members.writing = false;
            writer.join();
            members.producer.close();
            for (Member member : members.all) {
                if (!member.isEnded()) {
                    member.close(GroupMembershipOperation.LEAVE_GROUP);
                }
            }
        }
        long more = members.seen.values().stream().filter(times -> times > 1).count();
        System.out.println("written " + members.written + " read " + members.seen.size() + " more than once " + more);
    }

    private void write() {
        while (writing) {
            try {
                producer.send(new ProducerRecord<>(topic, written % PARTITIONS, null, "record " + written)).get();
                written++;
                Thread.sleep(2);
            } catch (InterruptedException | ExecutionException failure) {
                throw new IllegalStateException(failure);
            }
        }
    }

    private Member join(String name, String... more) {
        return join(name, topic, more);
    }

    private Member join(String name, String subscription, String[] more) {
        Map<String, String> own = new HashMap<>(settings);
        for (int index = 0; index < more.length; index += 2) {
            if (more[index + 1] == null) {
                own.remove(more[index]);
            } else {
                own.put(more[index], more[index + 1]);
            }
        }
        Member member = new Member(name, seen, subscription, own);
        all.add(member);
        return member;
    }

    private void await(String what, BooleanSupplier check) throws InterruptedException {
        long deadline = System.currentTimeMillis() + SETTLE_MS_MAX;
        while (!check.getAsBoolean()) {
            if (System.currentTimeMillis() > deadline) {
                throw fault(what);
            }
            Thread.sleep(20);
        }
    }

    private IllegalStateException fault(String what) {
        StringBuilder text = new StringBuilder("not so: " + what);
        for (Member member : all) {
            text.append("\n").append(member.name).append(" ").append(member.partitions()).append(" ").append(member.events);
            text.append(" ").append(member.failure == null ? "" : member.failure);
        }
        return new IllegalStateException(text.toString());
    }

    private void check(String what, boolean holds) {
        if (!holds) {
            throw fault(what);
        }
    }

    /** Waits until every partition of the topic has one owner among these, each with so many. */
    private void shared(Member... members) throws InterruptedException {
        await("shared by " + members.length, () -> {
            Set<String> owned = new HashSet<>();
            for (Member member : members) {
                Set<String> of = member.partitions();
                if (of.size() != PARTITIONS / members.length || !owned.addAll(of)) {
                    return false;
                }
            }
            return true;
        });
    }

    /** Waits until each record written so far was read. */
    private void caughtUp() throws InterruptedException {
        int now = written;
        await("all records read", () -> seen.size() >= now);
    }

    private boolean isSticky() {
        return settings.getOrDefault("group.remote.assignor", "").equals("uniform")
            || settings.getOrDefault("partition.assignment.strategy", "").contains("Cooperative");
    }

    private void comeAndGo() throws InterruptedException {
        Member first = join("first");
        shared(first);
        Member second = join("second");
        shared(first, second);
        Member third = join("third");
        shared(first, second, third);
        if (isSticky()) {
            Set<String> kept = first.partitions();
            check("what the first keeps was never taken from it",
                first.events.stream().noneMatch(event -> event.startsWith("-") && kept.contains(event.substring(1))));
        }
        caughtUp();
        second.close();
        shared(first, third);
        first.close();
        shared(third);
        caughtUp();
        check("nothing was lost", all.stream().noneMatch(member -> member.events.stream().anyMatch(event -> event.startsWith("!"))));
        third.close();
    }

    private void statics() throws InterruptedException {
        Member first = join("first", "group.instance.id", "a");
        Member second = join("second", "group.instance.id", "b");
        shared(first, second);
        Set<String> its = second.partitions();
        int events = first.eventCount();
        // its place is kept
        second.close();
        Member again = join("again", "group.instance.id", "b");
        await("the same partitions as before", () -> again.partitions().equals(its));
        Thread.sleep(1500);
        check("the other did not notice", first.eventCount() == events && first.partitions().size() == PARTITIONS / 2);
        caughtUp();
        again.close(GroupMembershipOperation.LEAVE_GROUP);
        shared(first);
        caughtUp();
        first.close(GroupMembershipOperation.LEAVE_GROUP);
    }

    /** Two with the same instance id: with the classic protocol the newer one wins, with the newer protocol the older. */
    private void fenced() throws InterruptedException {
        Member older = join("older", "group.instance.id", "a");
        shared(older);
        Member newer = join("newer", "group.instance.id", "a");
        boolean classic = settings.getOrDefault("group.protocol", "classic").equals("classic");
        Member refused = classic ? older : newer;
        await("one is refused", refused::isEnded);
        String expected = classic ? "FencedInstanceIdException" : "UnreleasedInstanceIdException";
        check("refused with " + expected, refused.failure != null && refused.failure.getClass().getSimpleName().equals(expected));
        Member left = classic ? newer : older;
        shared(left);
        caughtUp();
        left.close(GroupMembershipOperation.LEAVE_GROUP);
    }

    /** A group of the classic protocol becomes one of the newer, member by member, and goes back. */
    private void upgrade() throws InterruptedException {
        String assignor = "partition.assignment.strategy";
        String[] newer = {"group.protocol", "consumer", assignor, null, "session.timeout.ms", null, "heartbeat.interval.ms", null};
        Member first = join("first");
        Member second = join("second");
        shared(first, second);
        Member third = join("third", newer);
        shared(first, second, third);
        first.close();
        shared(second, third);
        caughtUp();
        second.close();
        shared(third);
        caughtUp();
        Member fourth = join("fourth");
        shared(third, fourth);
        third.close();
        shared(fourth);
        caughtUp();
        fourth.close();
    }

    /** A subscription to every topic with the prefix, of which there comes one more. */
    private void pattern() throws Exception {
        String expression = settings.containsKey("group.protocol") ? "re2j:" : "java:";
        Member first = join("first", expression + topic + ".*", new String[0]);
        shared(first);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic + "-more", 2, (short) 1))).all().get();
            await("the new topic too", () -> first.partitions().size() == PARTITIONS + 2);
            admin.deleteTopics(List.of(topic + "-more")).all().get();
            await("the old topic alone", () -> first.partitions().size() == PARTITIONS);
        }
        caughtUp();
        first.close();
    }
}
