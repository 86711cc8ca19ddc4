import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * Runs SQL statements from standard input, one a line, in a session with the options of the command line. Of each
 * statement it prints the rows as JSON, one a line, and then {@code done}, or {@code failed: } and the first line of
 * the error.
 */
public final class SparkSql {
    public static void main(String[] options) throws Exception {
        var builder = SparkSession.builder();
        for (String option : options) {
            int at = option.indexOf('=');
            builder = builder.config(option.substring(0, at), option.substring(at + 1));
        }
        try (var spark = builder.getOrCreate();
                var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String statement; (statement = in.readLine()) != null; ) {
                System.out.println(run(spark, statement));
            }
        }
    }

    private static String run(SparkSession spark, String statement) {
        try {
            for (Row row : spark.sql(statement).collectAsList()) {
                System.out.println(row.json());
            }
            return "done";
        } catch (Exception error) {
            // Printed whole too: the first line often names no cause.
            error.printStackTrace();
            return "failed: " + String.valueOf(error.getMessage()).lines().findFirst().orElse("");
        }
    }
}
