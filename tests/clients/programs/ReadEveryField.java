import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.OffsetDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.ApiResponse;
import org.openapitools.client.api.ProgressApi;
import org.openapitools.client.model.ApiError;
import org.openapitools.client.model.ErrorResponse;
import org.openapitools.client.model.Estimate;
import org.openapitools.client.model.Job;
import org.openapitools.client.model.Progress;
import org.openapitools.client.model.ProgressResponse;
import org.openapitools.client.model.Reason;
import org.openapitools.client.model.Statuses;
import org.openapitools.client.model.Summary;

/** Read every field with the Java client that OpenAPI Generator generates. */
public class ReadEveryField {
  private static final ObjectMapper JSON = ApiClient.createDefaultObjectMapper();

  public static void main(String[] arguments) throws Exception {
    List<Object> answers = new ArrayList<>();
    for (JsonNode request : JSON.readTree(System.in)) answers.add(ask(arguments[0], request));
    System.out.println(new ObjectMapper().writeValueAsString(answers));
  }

  private static Object ask(String address, JsonNode request) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(address);
    String token = request.get("token").asText();
    if (request.get("scheme").asText().equals("bearer")) {
      client.setRequestInterceptor(builder -> builder.header("Authorization", "Bearer " + token));
    } else {
      client.setRequestInterceptor(builder -> builder.header("X-API-Key", token));
    }
    try {
      ApiResponse<?> response = called(new ProgressApi(client), request);
      Object body = response.getData() instanceof ProgressResponse answer ? progress(answer) : null;
      return answer(response.getStatusCode(), response.getHeaders(), body);
    } catch (ApiException error) {
      Map<String, List<String>> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
      headers.putAll(error.getResponseHeaders().map());
      String text = error.getResponseBody();
      Object body = text == null || text.isEmpty() ? null : failure(JSON.readValue(text, ErrorResponse.class));
      return answer(error.getCode(), headers, body);
    }
  }

  private static ApiResponse<?> called(ProgressApi api, JsonNode request) throws ApiException {
    JsonNode given = request.get("parameters");
    String batchId = given.get("batch_id").asText();
    String status = text(given, "status");
    Integer limit = given.has("limit") ? given.get("limit").asInt() : null;
    String cursor = text(given, "cursor");
    String include = text(given, "include");
    String ifNoneMatch = text(given, "if_none_match");
    return switch (request.get("operation").asText()) {
      case "getBatchProgress" -> api.getBatchProgressWithHttpInfo(
          batchId, status, limit, cursor, include, ifNoneMatch);
      case "getBatchProgressByShortPath" -> api.getBatchProgressByShortPathWithHttpInfo(
          batchId, status, limit, cursor, include, ifNoneMatch);
      case "getBatchProgressHeaders" -> api.getBatchProgressHeadersWithHttpInfo(
          batchId, status, limit, cursor, include, ifNoneMatch);
      default -> api.getBatchProgressHeadersByShortPathWithHttpInfo(
          batchId, status, limit, cursor, include, ifNoneMatch);
    };
  }

  private static String text(JsonNode given, String name) {
    return given.has(name) ? given.get(name).asText() : null;
  }

  private static Object answer(int status, Map<String, List<String>> headers, Object body) {
    List<String> etag = headers.get("etag");
    return object("status", status, "etag", etag == null ? null : etag.get(0), "body", body);
  }

  private static Object progress(ProgressResponse answer) {
    Progress data = answer.getData();
    List<Object> jobs = new ArrayList<>();
    for (Job one : data.getJobs()) {
      jobs.add(
          object(
              "job_id", one.getJobId(),
              "url", one.getUrl(),
              "status", one.getStatus().getValue(),
              "items_extracted", one.getItemsExtracted(),
              "started_at", one.getStartedAt(),
              "finished_at", one.getFinishedAt(),
              "error_code", one.getErrorCode(),
              "error_message", one.getErrorMessage()));
    }
    return object(
        "success", answer.getSuccess(),
        "data",
            object(
                "batch_id", data.getBatchId(),
                "total_urls", data.getTotalUrls(),
                "completed", data.getCompleted(),
                "failed", data.getFailed(),
                "pending", data.getPending(),
                "total_items_extracted", data.getTotalItemsExtracted(),
                "estimated_completion", moment(data.getEstimatedCompletion()),
                "jobs", jobs,
                "estimate", data.getEstimate() == null ? null : estimate(data.getEstimate()),
                "summary", data.getSummary() == null ? null : summary(data.getSummary()),
                "next_cursor", data.getNextCursor()));
  }

  private static Object estimate(Estimate estimate) {
    return object(
        "basis", estimate.getBasis().getValue(),
        "earliest", moment(estimate.getEarliest()),
        "latest", moment(estimate.getLatest()),
        "confidence", estimate.getConfidence());
  }

  private static Object summary(Summary summary) {
    Statuses statuses = summary.getStatuses();
    List<Object> failures = new ArrayList<>();
    for (Reason one : summary.getFailures()) {
      failures.add(object("error_code", one.getErrorCode(), "jobs", one.getJobs()));
    }
    return object(
        "statuses",
            object(
                "pending", statuses.getPending(),
                "processing", statuses.getProcessing(),
                "completed", statuses.getCompleted(),
                "failed", statuses.getFailed(),
                "cancelled", statuses.getCancelled()),
        "failures", failures,
        "as_of", moment(summary.getAsOf()));
  }

  private static Object failure(ErrorResponse answer) {
    ApiError error = answer.getError();
    return object(
        "success", answer.getSuccess(),
        "error",
            object(
                "code", error.getCode(),
                "message", error.getMessage(),
                "system_message", error.getSystemMessage(),
                "type", error.getType().getValue(),
                "status", error.getStatus(),
                "details", error.getDetails(),
                "trace_id", error.getTraceId(),
                "timestamp", moment(error.getTimestamp())));
  }

  private static String moment(OffsetDateTime value) {
    return value == null ? null : DateTimeFormatter.ISO_INSTANT.format(value);
  }

  private static Map<String, Object> object(Object... pairs) {
    Map<String, Object> made = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2) made.put((String) pairs[i], pairs[i + 1]);
    return made;
  }
}
