import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Counts words with Kafka Streams: `WordCount INPUT OUTPUT NAME=VALUE…`, the pairs being properties of Streams. Every word of
 * every input record becomes one record of the output: the word, and how often it was seen so far. Prints its state at each
 * change, and ends on SIGTERM.
 */
public final class WordCount {
    public static void main(String[] arguments) throws InterruptedException {
        Properties properties = new Properties();
        properties.put("default.key.serde", Serdes.String().getClass().getName());
        properties.put("default.value.serde", Serdes.String().getClass().getName());
        // no cache: each count is written, not just the last before a commit
        properties.put("statestore.cache.max.bytes", "0");
        for (String pair : Arrays.copyOfRange(arguments, 2, arguments.length)) {
            String[] parts = pair.split("=", 2);
            properties.put(parts[0], parts[1]);
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(arguments[0])
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            // the key changes, so the records go through a repartition topic
            .groupBy((key, word) -> word)
            .count()
            .toStream()
            .mapValues(String::valueOf)
            .to(arguments[1], Produced.with(Serdes.String(), Serdes.String()));
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            System.out.println("state " + now);
            if (now == KafkaStreams.State.ERROR || now == KafkaStreams.State.NOT_RUNNING) {
                ended.countDown();
            }
        });
        streams.setUncaughtExceptionHandler(failure -> {
            System.out.println("thread failed: " + failure);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(java.time.Duration.ofSeconds(20));
        }));
        streams.start();
        ended.await();
    }
}
