import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/**
 * The suite of jetcd: grpc-java over netty.
 *
 * <p>Run by ../driver.py, whose protocol is in ../README.md: a line {@code ok CLAIM} for each claim
 * that holds, {@code RESTART} to have the server killed and started again, {@code DONE} at the end.
 */
final class Suite {
    static final long WAIT_SECONDS_MAX = 30;
    private static final long POLL_MILLIS = 5;

    final String endpoint;
    final Client client;
    private final BufferedReader driver =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private Suite(String endpoint) {
        this.endpoint = endpoint;
        this.client = connect();
    }

    /** A test that one claim holds. */
    interface Test {
        void run(Suite suite) throws Exception;
    }

    public static void main(String[] arguments) {
        // The client's threads would keep the process alive.
        int code = 0;
        try {
            Suite suite = new Suite("http://" + arguments[arguments.length - 1]);
            Keys.claims(suite);
            Watches.claims(suite);
            Leases.claims(suite);
            Coordination.claims(suite);
            suite.client.close();
            System.out.println("DONE");
        } catch (Exception | AssertionError failure) {
            failure.printStackTrace();
            code = 1;
        }
        System.exit(code);
    }

    /** A client with a connection of its own. */
    Client connect() {
        return Client.builder()
                .endpoints(endpoint)
                .connectTimeout(Duration.ofSeconds(WAIT_SECONDS_MAX))
                .build();
    }

    void claim(String name, Test test) throws Exception {
        System.err.println("running: " + name);
        test.run(this);
        System.out.println("ok " + name);
    }

    /** Returns when the server was killed and serves again. */
    void restart() throws IOException {
        System.out.println("RESTART");
        equal("the driver's answer", driver.readLine(), "RESTARTED");
    }

    static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    static String text(ByteSequence bytes) {
        return bytes.toString(StandardCharsets.UTF_8);
    }

    static void check(boolean holds, String text) {
        if (!holds) {
            throw new AssertionError(text);
        }
    }

    static void equal(String what, Object got, Object want) {
        check(Objects.equals(got, want), what + ": got " + got + ", want " + want);
    }

    /** The value of a future, which must come within the bound. */
    static <T> T await(CompletableFuture<T> future) throws Exception {
        return future.get(WAIT_SECONDS_MAX, TimeUnit.SECONDS);
    }

    /** The next element of a queue, which must come within the bound. */
    static <T> T next(BlockingQueue<T> queue, String what) throws InterruptedException {
        T element = queue.poll(WAIT_SECONDS_MAX, TimeUnit.SECONDS);
        check(element != null, what + ": nothing came");
        return element;
    }

    /** The call must fail; class and text of the exception end so. */
    static void refused(CompletableFuture<?> future, String end) throws Exception {
        try {
            await(future);
        } catch (ExecutionException refusal) {
            String text = refusal.getCause().toString();
            check(text.endsWith(end), "refused with " + text);
            return;
        }
        throw new AssertionError("not refused: " + end);
    }

    /** Looks again and again until the condition holds. */
    static void until(String what, BooleanSupplier holds) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS_MAX);
        while (!holds.getAsBoolean()) {
            check(System.nanoTime() < deadline, what + ": not in time");
            Thread.sleep(POLL_MILLIS);
        }
    }

    /** Seconds since a reading of {@link System#nanoTime}. */
    static double secondsSince(long nanos) {
        return (System.nanoTime() - nanos) / 1e9;
    }
}
