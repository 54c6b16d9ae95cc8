// Read every field with the TypeScript client that OpenAPI Generator generates.

import {
  type ApiResponse,
  Configuration,
  type ErrorResponse,
  ErrorResponseFromJSON,
  type GetBatchProgressRequest,
  type Job,
  type ProgressResponse,
  ProgressApi,
  ResponseError,
} from "./client/index";

declare const process: { argv: string[]; stdin: AsyncIterable<string> };

interface Request {
  operation: string;
  token: string;
  scheme: string;
  parameters: Record<string, string | number>;
}

const moment = (value: Date | null) => value?.toISOString().replace(".000Z", "Z");

const job = (one: Job) => ({
  job_id: one.jobId,
  url: one.url,
  status: one.status,
  items_extracted: one.itemsExtracted,
  started_at: one.startedAt,
  finished_at: one.finishedAt,
  error_code: one.errorCode,
  error_message: one.errorMessage,
});

const progress = ({ success, data }: ProgressResponse) => ({
  success,
  data: {
    batch_id: data.batchId,
    total_urls: data.totalUrls,
    completed: data.completed,
    failed: data.failed,
    pending: data.pending,
    total_items_extracted: data.totalItemsExtracted,
    estimated_completion: moment(data.estimatedCompletion),
    jobs: data.jobs.map(job),
    estimate: data.estimate && {
      basis: data.estimate.basis,
      earliest: moment(data.estimate.earliest),
      latest: moment(data.estimate.latest),
      confidence: data.estimate.confidence,
    },
    summary: data.summary && {
      statuses: {
        pending: data.summary.statuses.pending,
        processing: data.summary.statuses.processing,
        completed: data.summary.statuses.completed,
        failed: data.summary.statuses.failed,
        cancelled: data.summary.statuses.cancelled,
      },
      failures: data.summary.failures.map((one) => ({ error_code: one.errorCode, jobs: one.jobs })),
      as_of: moment(data.summary.asOf),
    },
    next_cursor: data.nextCursor,
  },
});

const failure = ({ success, error }: ErrorResponse) => ({
  success,
  error: {
    code: error.code,
    message: error.message,
    system_message: error.systemMessage,
    type: error.type,
    status: error.status,
    details: Object.fromEntries(Object.keys(error.details).map((name) => [name, error.details[name]])),
    trace_id: error.traceId,
    timestamp: moment(error.timestamp),
  },
});

async function ask(address: string, { operation, token, scheme, parameters }: Request) {
  const credential = scheme === "bearer" ? { accessToken: token } : { apiKey: token };
  const api = new ProgressApi(new Configuration({ basePath: address, ...credential }));
  const request: GetBatchProgressRequest = {
    batchId: String(parameters.batch_id),
    status: parameters.status as string | undefined,
    limit: parameters.limit as number | undefined,
    cursor: parameters.cursor as string | undefined,
    include: parameters.include as string | undefined,
    ifNoneMatch: parameters.if_none_match as string | undefined,
  };
  const operations: Record<string, () => Promise<ApiResponse<ProgressResponse | void>>> = {
    getBatchProgress: () => api.getBatchProgressRaw(request),
    getBatchProgressByShortPath: () => api.getBatchProgressByShortPathRaw(request),
    getBatchProgressHeaders: () => api.getBatchProgressHeadersRaw(request),
    getBatchProgressHeadersByShortPath: () => api.getBatchProgressHeadersByShortPathRaw(request),
  };
  try {
    const response = await operations[operation]();
    const value = await response.value();
    return { status: response.raw.status, etag: response.raw.headers.get("ETag"), body: value ? progress(value) : null };
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    const { status, headers } = error.response;
    const text = await error.response.text();
    return { status, etag: headers.get("ETag"), body: text ? failure(ErrorResponseFromJSON(JSON.parse(text))) : null };
  }
}

async function main() {
  let text = "";
  for await (const part of process.stdin) text += part;
  const answers = [];
  for (const request of JSON.parse(text)) answers.push(await ask(process.argv[2], request));
  console.log(JSON.stringify(answers));
}

void main();
