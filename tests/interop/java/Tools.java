import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's programs one after another in one Java machine, each by its own `main`: a start of Java costs more than most of
 * them. A call on the standard input is a count of words (four bytes) and the words, each with its length before it: the class,
 * its standard input, its arguments. The answer has the exit code, the output and the error output in the same way.
 */
public final class Tools {
    /** Ends a program in place of the Java machine. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1;

        Ended() {
            super(null, null, false, false);
        }
    }

    /** What is written now goes there; the stream itself stays, for a program may keep it. */
    private static final class Switched extends OutputStream {
        private ByteArrayOutputStream target = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int octet) {
            target.write(octet);
        }

        @Override
        public synchronized void write(byte[] octets, int from, int length) {
            target.write(octets, from, length);
        }

        synchronized ByteArrayOutputStream taken() {
            ByteArrayOutputStream written = target;
            target = new ByteArrayOutputStream();
            return written;
        }
    }

    private final List<Runnable> hooks = new ArrayList<>();
    private final Switched out = new Switched();
    private final Switched errors = new Switched();
    private Integer code;

    public static void main(String[] arguments) throws IOException {
        Tools tools = new Tools();
        DataInputStream calls = new DataInputStream(System.in);
        DataOutputStream answers = new DataOutputStream(System.out);
        System.setOut(new PrintStream(tools.out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(tools.errors, true, StandardCharsets.UTF_8));
        Exit.setExitProcedure((code, message) -> tools.end(code));
        Exit.setHaltProcedure((code, message) -> tools.end(code));
        Exit.setShutdownHookAdder((name, hook) -> {
            synchronized (tools.hooks) {
                tools.hooks.add(hook);
            }
        });
        while (true) {
            int count;
            try {
                count = calls.readInt();
            } catch (java.io.EOFException end) {
                Runtime.getRuntime().halt(0);
                return;
            }
            String[] words = new String[count];
            for (int index = 0; index < count; index++) {
                words[index] = new String(calls.readNBytes(calls.readInt()), StandardCharsets.UTF_8);
            }
            tools.answer(words, answers);
        }
    }

    private synchronized void end(int with) {
        // a program that catches everything may end twice: the first code is its own
        if (code == null) {
            code = with;
        }
        throw new Ended();
    }

    private void answer(String[] words, DataOutputStream answers) throws IOException {
        out.taken();
        errors.taken();
        System.setIn(new ByteArrayInputStream(words[1].getBytes(StandardCharsets.UTF_8)));
        code = null;
        int found = run(words);
        System.out.flush();
        answers.writeInt(found);
        for (ByteArrayOutputStream stream : List.of(out.taken(), errors.taken())) {
            answers.writeInt(stream.size());
            stream.writeTo(answers);
        }
        answers.flush();
    }

    private int run(String[] words) {
        int found = 0;
        try {
            String[] arguments = java.util.Arrays.copyOfRange(words, 2, words.length);
            Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException failure) {
            if (!(failure.getCause() instanceof Ended)) {
                failure.getCause().printStackTrace();
                found = 1;
            }
        } catch (ReflectiveOperationException failure) {
            failure.printStackTrace();
            found = 1;
        }
        List<Runnable> left;
        synchronized (hooks) {
            left = List.copyOf(hooks);
            hooks.clear();
        }
        for (Runnable hook : left) {
            try {
                hook.run();
            } catch (Ended ended) {
                // a hook that ends what has ended
            }
        }
        return code == null ? found : code;
    }
}
