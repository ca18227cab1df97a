import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * The HttpClient of a JDK with its defaults: it offers HTTP/2 with each request to a server without TLS.
 *
 * <p>Each line of the input is a request: what to do (ask, hold, leave), a name, the URL, the key and the
 * body, divided by tabs. Each line of the output is the name, the status, the protocol and the events or the
 * body in Base64. `hold` reads three events of a stream and leaves it open, `leave` closes it.
 *
 * <p>Events are read as SseHandler.kt of OpenAI's Java client reads them, which cannot be had here: blocks
 * without data are no events, several lines of data are one event, and `[DONE]` ends.
 */
public class JdkClient {
  private static final HttpClient CLIENT = HttpClient.newHttpClient();
  private static Stream<String> held;

  public static void main(String[] arguments) throws IOException, InterruptedException {
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      String[] asked = line.split("\t", -1);
      if (asked[0].equals("leave")) {
        held.close();
        Thread.sleep(200); // the server learns of it
        System.out.println(asked[1] + "\t0\t\t");
      } else {
        System.out.println(asked[1] + "\t" + answer(asked[0].equals("hold"), asked[2], asked[3], asked[4]));
      }
    }
  }

  private static String answer(boolean hold, String url, String key, String body)
      throws IOException, InterruptedException {
    HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + key);
    if (!body.isEmpty()) {
      request.header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
    }
    HttpResponse<Stream<String>> response = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofLines());
    Optional<String> kind = response.headers().firstValue("content-type");
    List<String> found = new ArrayList<>();
    if (kind.orElse("").startsWith("text/event-stream")) {
      readEvents(response.body().iterator(), found, hold ? 3 : Integer.MAX_VALUE);
    } else {
      response.body().forEach(found::add);
    }
    if (hold) {
      held = response.body();
    }
    byte[] text = String.join("\n", found).getBytes(StandardCharsets.UTF_8);
    return response.statusCode() + "\t" + response.version() + "\t" + Base64.getEncoder().encodeToString(text);
  }

  private static void readEvents(Iterator<String> lines, List<String> found, int most) {
    List<String> data = new ArrayList<>();
    while (found.size() < most && lines.hasNext()) {
      String line = lines.next();
      if (line.isEmpty()) {
        if (!data.isEmpty()) {
          found.add(String.join("\n", data));
        }
        data.clear();
      } else if (line.startsWith("data:")) {
        String value = line.substring("data:".length());
        value = value.startsWith(" ") ? value.substring(1) : value;
        if (value.startsWith("[DONE]")) {
          return;
        }
        data.add(value);
      }
    }
  }
}
