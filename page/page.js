// biome-ignore lint/suspicious/noRedundantUseStrict: the built page has a classic script, not a module
"use strict";

// Jobs on one page of the table.
const PAGE_SIZE = 100;
// Jobs in the largest answer. The chart of a batch that fits into it shows the time before the page was opened.
const ANSWER_SIZE = 1000;
// Jobs that a stalled batch names.
const HUNG_SIZE = 5;
// Polls that the chart remembers.
const POLLS_SIZE = 2000;

const SVG = "http://www.w3.org/2000/svg";
const icon = document.createElement("link");

const { floor, max, min, round } = Math;
const $ = (id) => document.getElementById(id);

function setText(id, text) {
  $(id).textContent = text;
}

function create(tagName, text, className) {
  const element = document.createElement(tagName);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

// The batch in the address, and the token

const path = /\/watch\/([^/]+)(\/?)$/.exec(location.pathname);
const segment = decoded(path?.[1] ?? "");
const batchId = /^[A-Za-z0-9_-]{1,128}$/.test(segment) ? segment : null;
// Relative, so that a stage's prefix in the address does not matter.
const api = `${path?.[2] ? "../../" : "../"}v1/scrape/batch/${batchId}/progress`;
// The token of a link to this batch has a key of its own: it must not replace a token that was entered.
const TYPED = "batch-progress";
const LINKED = `${TYPED}/${batchId}`;
let linked = Boolean(load(LINKED));
let token = load(LINKED) || load(TYPED);

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function load(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    // The browser blocks storage: the token is lost on reload.
    return "";
  }
}

function setToken(value, isLinked) {
  token = value;
  linked = isLinked;
  try {
    sessionStorage.setItem(linked ? LINKED : TYPED, value);
  } catch {
    // As above.
  }
}

const isToken = (text) => /^[\w.~+/-]{8,8192}=*$/.test(text);

// Takes the token out of `#token=…`, the address of a link to share, and out of the address bar and the history.
function openLink() {
  const match = /^#token=(.*)/.exec(location.hash);
  if (!match) return false;
  history.replaceState(null, "", location.pathname + location.search);
  if (!batchId) return false;
  setToken(decoded(match[1]), true);
  if (isToken(token)) start();
  else askForToken("TOKEN_INVALID");
  return true;
}

// State

// The latest answer that was not 304, and its ETag.
let data;
let tag;
// When the latest answer came, 304 included.
let updatedAt;
// When the batch was counted, if that was more than 5 s before the answer.
let countedAt;
// What a poll includes. A service that is older than this page refuses the summary.
let extras;
// The status that the table is filtered by, "" for all; and the error code, undefined for all.
let filter = "";
let reason;
// The page of the table, from 0, the cursor of each page that is known, and whether there is a next page.
let page;
let cursors;
let more;
// With an error code: the jobs that have it, as far as they have been read, and the walk that goes on reading.
let found;
let walk;
// Whether the table is on the screen, when its jobs were read, whether they may have changed since, and when they may be
// read again.
let inView = false;
let listedAt;
let stale;
let listAt;
// For the chart: [time, ended, failed] at each poll; the jobs of a batch that is not too large, and when they were read.
let polls;
let jobHistory;
let jobHistoryAt;
// When a poll last found that jobs had moved.
let movedAt;
// The jobs by status when the hung jobs were read.
let hungAt;
// A counter for each kind of request: an answer is dropped when a later request has been sent.
let pollCount = 0;
let listCount = 0;
// The next poll: its timer, and when it is due.
let timer;
let nextPollAt;
// Errors since the last good answer.
let errorCount = 0;
// Milliseconds that the service's clock is ahead of the browser's.
let skew = 0;
let state;
// What a screen reader was last told: { state, tenth, at }.
let announced;

const now = () => Date.now() + skew;

function reset() {
  clearTimeout(timer);
  pollCount += 1;
  stale = false;
  data = undefined;
  tag = undefined;
  updatedAt = undefined;
  countedAt = undefined;
  extras = "summary,estimate";
  polls = [];
  jobHistory = undefined;
  movedAt = 0;
  hungAt = undefined;
  nextPollAt = undefined;
  announced = {};
  select(filter);
  replace($("rows"), []);
}

// Requests

// An answer that is an error; `status` is 0 when there was no valid answer.
class ApiError extends Error {
  constructor(status, code, retryAfter) {
    super(`${status} ${code}`);
    Object.assign(this, { status, code, retryAfter });
  }
}

async function request(parameters, knownTag) {
  const headers = { Authorization: `Bearer ${token}` };
  if (knownTag) headers["If-None-Match"] = knownTag;
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  let answer;
  let body = {};
  try {
    answer = await fetch(`${api}?${query}`, {
      headers,
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(20_000),
    });
    if (answer.status !== 304) body = await answer.json();
  } catch {
    // An error whose body is not JSON still has its status.
    if (!answer || answer.ok) throw new ApiError(0);
  }
  const serverTime = Date.parse(answer.headers.get("Date"));
  if (Math.abs(serverTime - Date.now()) > 2000) skew = serverTime - Date.now();
  const retryAfter = Number(answer.headers.get("Retry-After"));
  if (!answer.ok && answer.status !== 304) throw new ApiError(answer.status, body?.error?.code, retryAfter);
  if (answer.ok && body?.success !== true) throw new ApiError(0);
  return { data: body.data, tag: answer.headers.get("ETag"), retryAfter };
}

async function poll() {
  clearTimeout(timer);
  nextPollAt = undefined;
  pollCount += 1;
  const mine = pollCount;
  try {
    const answer = await request({ limit: "0", include: extras }, tag);
    if (mine !== pollCount) return;
    errorCount = 0;
    updatedAt = now();
    if (answer.data) {
      const before = data;
      data = answer.data;
      tag = answer.tag;
      stale = true;
      const time = parseTime(data.summary?.as_of);
      countedAt = updatedAt - time > 5000 ? time : undefined;
      record(before);
      if (!before && data.total_urls <= ANSWER_SIZE) loadHistory();
    }
    render();
    // To the service a batch without jobs has ended.
    const wait = answer.retryAfter || (isOver() && data.total_urls ? 0 : 30);
    if (wait) pollIn(document.hidden ? max(wait, 60) : wait);
  } catch (error) {
    if (mine !== pollCount) return;
    if (error.status === 422 && extras !== "estimate") {
      extras = "estimate";
      return poll();
    }
    handle(error);
  }
}

// Keeps what a poll found for the chart.
function record(before) {
  const time = countedAt ?? updatedAt;
  if (before && (endedCount(before) !== endedCount() || processingCount(before) !== processingCount())) movedAt = time;
  if (polls.length && time <= polls.at(-1)[0]) return;
  polls.push([time, endedCount(), data.failed]);
  if (polls.length > POLLS_SIZE) polls = polls.filter((_, index) => index % 2);
}

function pollIn(seconds) {
  clearTimeout(timer);
  nextPollAt = now() + seconds * 1000;
  timer = setTimeout(poll, seconds * 1000);
}

function handle(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) return askForToken(error.code);
  if (error.code === "BATCH_NOT_FOUND") {
    reset();
    return setState("unknown");
  }
  errorCount += 1;
  // Exponential backoff with jitter, up to a minute.
  pollIn(max(error.retryAfter || 0, min(60, 2 ** errorCount) * (0.5 + Math.random() / 2)));
  setState("offline", error.status);
}

// Reads when each job ended, once. If that fails, the chart begins with the first poll.
async function loadHistory() {
  const mine = token;
  const time = now();
  try {
    const answer = await request({ include: "details", limit: ANSWER_SIZE });
    if (mine !== token || !data) return;
    jobHistory = answer.data.jobs;
    jobHistoryAt = time;
    drawChart();
    renderTimes();
  } catch {
    // The chart uses the polls.
  }
}

// Yields jobs from many requests: those that the filter selects, unless the caller wants others.
async function* readJobs(status = filter, isWanted = hasReason(reason)) {
  let cursor;
  do {
    const { data: answer } = await request({ include: "details", limit: ANSWER_SIZE, status, cursor });
    yield answer.jobs.filter(isWanted);
    cursor = answer.next_cursor;
  } while (cursor);
}

// Requests the page of the table that is shown.
async function loadJobs() {
  listCount += 1;
  const mine = listCount;
  const time = now();
  stale = false;
  // A poll does not start again what takes longer than the time between two polls.
  listAt = Number.POSITIVE_INFINITY;
  $("table").ariaBusy = true;
  if (!rows.size) showNone("Loading jobs…");
  try {
    const [jobs, isMore] = await (reason === undefined ? loadPage() : findPage(mine));
    if (mine !== listCount) return;
    more = isMore;
    listedAt = time;
    // For most lists the service reads the whole batch.
    listAt = Date.now() + min(filter ? 60_000 : 10_000, 10 * data.total_urls);
    renderRows(jobs);
  } catch (error) {
    if (mine !== listCount) return;
    if (error.status === 401) return handle(error);
    stale = true;
    walk = undefined;
    listAt = Date.now() + max(error.retryAfter || 0, 10) * 1000;
    showNone("The jobs cannot be listed just now. This page tries again.");
  }
  $("table").ariaBusy = false;
}

async function loadPage() {
  const number = page;
  const known = cursors;
  const { data: answer } = await request({
    include: "details",
    limit: PAGE_SIZE,
    status: filter,
    cursor: known[number],
  });
  known[number + 1] = answer.next_cursor;
  return [answer.jobs, Boolean(answer.next_cursor)];
}

// The service does not filter by error code: reads failed jobs until this page of the table is full.
async function findPage(mine) {
  if (!walk) {
    walk = readJobs();
    found = [];
  }
  const jobs = found;
  const end = (page + 1) * PAGE_SIZE;
  while (jobs.length <= end) {
    const { done, value } = await walk.next();
    if (done) break;
    jobs.push(...value);
    if (mine !== listCount) break;
    setText("where", `${formatCount(jobs.length)} found…`);
  }
  return [jobs.slice(end - PAGE_SIZE, end), jobs.length > end];
}

function refreshJobs() {
  setText("listed", stale && now() - listedAt > 5000 ? `, as of ${formatTime(listedAt)}` : "");
  for (const row of rows.values()) {
    if (row.status === "processing" && state !== "offline") row.lastChild.textContent = jobTime(row.job);
  }
  if (stale && inView && Date.now() >= listAt && !document.hidden) {
    walk = undefined;
    loadJobs();
  }
}

// States: loading, signin, running, stalled, offline, unknown (batch), misnamed (batch); and of a batch that has ended:
// finished, partial (some jobs failed), failed (all did), cancelled (all were), empty

function setState(name, status) {
  const before = state;
  state = name;
  const [title, text] = {
    loading: ["Loading this batch…", ""],
    stalled: [
      "This batch has stalled",
      data &&
        `${processingCount() ? "The jobs that are processing" : "No worker has started another job, and the others"} ` +
          "have not changed for longer than one job may take. This page checks twice a minute.",
    ],
    offline: [
      navigator.onLine ? `The service cannot ${status ? "answer just now" : "be reached"}` : "You are offline",
      "",
    ],
    unknown: [
      "No such batch",
      linked
        ? `This link does not open batch ${batchId}. The batch may have been deleted.`
        : `The owner of this token has no batch ${batchId}. It may have been deleted.`,
    ],
    misnamed: [
      "No batch at this address",
      "The address must end with /watch/ and a batch id: 1 to 128 letters, digits, underscores and hyphens.",
    ],
  }[name] ?? [""];
  $("notice").hidden = !title;
  $("notice").className = name;
  setText("notice-title", title);
  setText("notice-text", text ?? "");
  $("hung").hidden = name !== "stalled";
  $("again").hidden = /loading|misnamed/.test(name);
  $("state").hidden = /loading|signin|misnamed/.test(name);
  $("state").className = `pill ${name}`;
  setText("state", { partial: "Part failed", empty: "No jobs" }[name] ?? name[0].toUpperCase() + name.slice(1));
  $("view").hidden = !data;
  $("signin").hidden = name !== "signin";
  $("forget").hidden = !token || name === "signin";
  document.title = [headline(), batchId].filter(Boolean).join(" · ") || "Batch progress";
  drawIcon();
  if (title && name !== before) announce(`${title}. ${text}`);
  drawChart();
  renderTimes();
}

// Names the jobs that have been processing for longest, once for each change of a stalled batch.
async function loadHung() {
  const statuses = JSON.stringify(data.summary?.statuses);
  if (statuses === hungAt) return;
  hungAt = statuses;
  const mine = token;
  let jobs = [];
  try {
    if (processingCount()) for await (const some of readJobs("processing", hasReason())) jobs.push(...some);
  } catch {
    hungAt = undefined;
    jobs = [];
  }
  if (mine !== token || !data || (hungAt ?? statuses) !== statuses) return;
  const started = (job) => parseTime(job.started_at) || 0;
  jobs.sort((a, b) => started(a) - started(b));
  const items = jobs.slice(0, HUNG_SIZE).map((job) => {
    const item = create("li", "");
    const since = started(job) ? `, since ${formatTime(started(job))}` : "";
    item.append(jobLink(job.url), create("span", plain(job.job_id) + since, "small"));
    return item;
  });
  const others = processingCount() - items.length;
  if (items.length && others > 0) {
    const item = create("li", "");
    item.append(action(`and ${formatCount(others)} more`, () => showJobs("processing")));
    items.push(item);
  }
  $("hung").replaceChildren(...items);
}

// The state of a batch whose jobs have all ended.
function verdict() {
  if (!data.total_urls) return "empty";
  if (!data.failed) return "finished";
  if (data.completed) return "partial";
  return data.summary?.statuses.failed === 0 ? "cancelled" : "failed";
}

const isOver = () => data?.estimate.basis === "finished";
const isForecast = () => /declared|observed/.test(data.estimate.basis);

function headline() {
  const done = data && `${percent()}%`;
  return {
    loading: "Loading",
    running: data?.failed ? `${done}, ${losses()}` : done,
    stalled: `Stalled at ${done}`,
    offline: data ? `Offline at ${done}` : "Offline",
    unknown: "No such batch",
    finished: "Done",
    partial: data && `Done, ${losses()}`,
    failed: "All failed",
    cancelled: "Cancelled",
    empty: "No jobs",
  }[state];
}

// The icon is a pie: green for completed, red for failed, and the colour of the state for the rest.
function drawIcon() {
  const part = (jobs) => (data?.total_urls ? (100 * jobs) / data.total_urls : 0);
  const rest = { stalled: "#d9980d", failed: "#b53a22", unknown: "#b53a22", misnamed: "#b53a22" }[state] ?? "#a9afb5";
  const slice = (colour, from, size) =>
    `<circle r="4" fill="none" stroke="${colour}" stroke-width="8" pathLength="100" ` +
    `stroke-dasharray="${size} 100" stroke-dashoffset="${-from}" transform="rotate(-90)"/>`;
  const slices = data && state !== "offline" ? [data.completed, data.failed].map(part) : [0, 0];
  const image =
    `<svg xmlns="${SVG}" viewBox="-8 -8 16 16"><circle r="8" fill="${rest}"/>` +
    `${slice("#23966f", 0, slices[0])}${slice("#b53a22", slices[0], slices[1])}` +
    `${state === "offline" ? '<circle r="5" fill="#fff"/>' : ""}</svg>`;
  icon.href = `data:image/svg+xml,${encodeURIComponent(image)}`;
}

// `code` is that of the 401; "" after "Forget token", undefined when the page opens.
function askForToken(code) {
  const what = linked ? "link" : "token";
  const advice = linked ? " Ask for a new link, or enter a token." : "";
  if (linked) setToken("", true);
  if (!linked || !code) setToken("", false);
  reset();
  if (!code) showTokenError("");
  else if (code.endsWith("EXPIRED")) showTokenError(`This ${what} has expired.${advice}`);
  else if (code.endsWith("DEACTIVATED")) showTokenError(`This ${what} has been deactivated.${advice}`);
  else showTokenError(`This ${what} is not valid.${advice}`);
  setState("signin");
  $("token").value = "";
  if (code !== undefined) $("token").focus();
}

function showTokenError(message) {
  setText("signin-fault", message);
  $("token").ariaInvalid = Boolean(message);
  if (message) announce(message);
}

// A screen reader is told of each new state, and of progress at each tenth and otherwise once a minute at most.
const announce = (text) => setText("say", text);

function announceProgress() {
  const tenth = floor(percent() / 10);
  const same = state === announced.state;
  if (same && (isOver() || (tenth === announced.tenth && now() - announced.at < 60_000))) return;
  announced = { state, tenth, at: now() };
  announce(`${percent()}% done, ${$("left").textContent}. ${summary()}`);
}

// Texts and numbers

const formatCount = new Intl.NumberFormat("en").format;
const parseTime = (text) => Date.parse(text ?? "");
const endedCount = (progress = data) => progress.completed + progress.failed;
const percent = () => (data.total_urls ? floor((100 * endedCount()) / data.total_urls) : 0);
// Untrusted text: replaces control characters, invisible ones, and those that change the direction of text. The joiners
// U+200C and U+200D stay: Persian words and many emoji are wrong without them.
const plain = (text) =>
  String(text).replace(/[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu, "\ufffd");

function formatTime(time, withSeconds = true) {
  const sameDay = new Date(time).toDateString() === new Date(now()).toDateString();
  return new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...(withSeconds && { second: "2-digit" }),
    ...(!sameDay && { day: "numeric", month: "short" }),
  }).format(time);
}

function formatDuration(seconds, exact) {
  const s = max(0, seconds);
  if (exact && s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 90) return `${exact ? round(s) : max(5, round(s / 5) * 5)} s`;
  const minutes = round(s / 60);
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 2160) return `${floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${round(minutes / 1440)} days`;
}

// 0 without a summary.
const processingCount = (progress = data) => progress.summary?.statuses.processing ?? 0;

function summary() {
  const processing = processingCount();
  return (
    `${formatCount(data.completed)} completed, ${formatCount(data.failed)} failed, ` +
    `${formatCount(data.pending)} pending` +
    `${processing ? ` (${formatCount(processing)} of them processing)` : ""}, of ${formatCount(data.total_urls)}.`
  );
}

// "13 failed, 4 cancelled", without those that are 0.
function losses() {
  const cancelled = data.summary?.statuses.cancelled ?? 0;
  return [
    [data.failed - cancelled, "failed"],
    [cancelled, "cancelled"],
  ]
    .filter(([jobs]) => jobs)
    .map(([jobs, status]) => `${formatCount(jobs)} ${status}`)
    .join(", ");
}

function estimate() {
  const { basis, earliest, latest } = data.estimate;
  return {
    basis,
    completion: parseTime(data.estimated_completion),
    earliest: parseTime(earliest),
    latest: parseTime(latest),
  };
}

// The numbers above the chart

function render() {
  const { basis } = data.estimate;
  const processing = processingCount();
  const cancelled = data.summary?.statuses.cancelled;
  for (const name of ["completed", "failed", "pending"]) setText(name, formatCount(data[name]));
  setText("items", formatCount(data.total_items_extracted));
  if (processing) $("pending").append(create("small", `${formatCount(processing)} processing`));
  if (cancelled) $("failed").append(create("small", `${formatCount(cancelled)} cancelled`));
  $("percent").replaceChildren(String(percent()), create("small", "%"));
  const sizes = [data.completed, data.failed, processing];
  for (const [index, size] of sizes.entries()) {
    $("bar").children[index].hidden = !size;
    $("bar").children[index].style.width = size ? `max(3px, ${(100 * size) / data.total_urls}%)` : 0;
  }
  Object.assign($("bar"), {
    ariaValueMax: data.total_urls,
    ariaValueNow: endedCount(),
    ariaValueText: summary(),
  });
  $("percent").className = data.failed && !data.completed ? "bad" : "";
  if (isOver()) setState(verdict());
  else setState(basis === "stalled" ? basis : "running");
  if (state === "stalled") loadHung();
  renderReasons();
  renderFilter();
  announceProgress();
}

// Every second: the texts that change with the time.
function renderTimes() {
  if (data) renderEstimate();
  const wait = nextPollAt ? max(0, round((nextPollAt - now()) / 1000)) : 0;
  const time = updatedAt && data ? formatTime(countedAt ?? updatedAt) : "";
  if (state === "offline") {
    const next = nextPollAt ? `Next try in ${wait} s.` : "Trying now…";
    setText("notice-text", `${time ? `This page shows the state of ${time}. ` : ""}${next}`);
  }
  const next = nextPollAt && state !== "offline" ? `, next update in ${wait} s` : "";
  setText("fresh", time ? `${countedAt ? "Counted at" : "As of"} ${time}${next}` : "");
  refreshJobs();
}

function renderEstimate() {
  const { completion, basis, earliest, latest } = estimate();
  const withSeconds = latest - now() < 1_200_000;
  const range =
    latest < now() || !isForecast()
      ? ""
      : `between ${formatTime(earliest, withSeconds)} and ${formatTime(latest, withSeconds)}`;
  $("left").className = /failed|partial/.test(state) ? "bad" : "";
  if (state === "offline") {
    setText("left", `No news since ${formatTime(countedAt ?? updatedAt)}`);
    setText("range", range && `The forecast then: ${range}`);
  } else if (state === "empty") {
    setText("left", "No jobs yet");
    setText("range", "This batch has no jobs. This page checks twice a minute.");
  } else if (isOver()) {
    const took = jobHistory ? completion - chartPoints()[0][0] : 0;
    const all = data.completed || losses().includes(",") ? "" : "All ";
    setText("left", { finished: "All done", partial: `Done, with ${losses()}` }[verdict()] ?? all + losses());
    setText("range", `Ended ${formatTime(completion)}${took > 0 ? ` after ${formatDuration(took / 1000)}` : ""}`);
  } else if (basis === "stalled") {
    const times = jobHistory?.flatMap((job) => [parseTime(job.started_at), parseTime(job.finished_at)]) ?? [];
    const changedAt = max(movedAt, ...times.filter(Number.isFinite));
    setText("left", `${formatCount(data.pending)} pending, no progress`);
    setText("range", changedAt ? `No job has changed since ${formatTime(changedAt)}` : "");
  } else {
    const left = (completion - now()) / 1000;
    setText("left", left < 3 ? "Any moment now" : `About ${formatDuration(left)} left`);
    setText("range", range && basis === "declared" ? `${range}, a first estimate` : range);
  }
}

// The failures for other reasons than the ten that the service names.
const OTHERS = Symbol("other codes");
// What our own codes mean.
const MEANINGS = new Map([
  [
    "WORKER_LOST",
    "The worker showed no sign of life for longer than the batch allows. Another may start the job again.",
  ],
]);
// The item of each reason, by code.
const reasons = new Map();

const codeName = (code) => (code === OTHERS ? code.description : plain(code ?? "no code") || "empty code");

function countsOfReasons() {
  const { failures, statuses } = data?.summary ?? { failures: [] };
  const counts = new Map(failures.map(({ error_code: code, jobs }) => [code, jobs]));
  const others = failures.reduce((left, { jobs }) => left - jobs, statuses?.failed);
  if (others > 0) counts.set(OTHERS, others);
  return counts;
}

// Returns whether a job failed for this reason; undefined is any.
function hasReason(wanted) {
  const named = countsOfReasons();
  return (job) => {
    if (wanted === undefined) return true;
    // The service cuts a code to 100 characters, and a character here may be two units.
    const code = job.error_code && [...job.error_code].slice(0, 100).join("");
    return wanted === OTHERS ? !named.has(code) : code === wanted;
  };
}

function renderReasons() {
  const counts = countsOfReasons();
  $("failures").hidden = !counts.size;
  for (const code of reasons.keys()) if (!counts.has(code)) reasons.delete(code);
  const items = [...counts].map(([code, jobs]) => {
    if (!reasons.has(code)) {
      const item = create("li", "");
      const text = create("div", "");
      text.append(action(codeName(code), () => showJobs("failed", code)));
      if (MEANINGS.has(code)) text.append(create("p", MEANINGS.get(code), "soft small"));
      item.append(create("b", ""), text);
      reasons.set(code, item);
    }
    reasons.get(code).firstChild.textContent = formatCount(jobs);
    return reasons.get(code);
  });
  replace($("reasons"), items);
}

function action(text, act) {
  const button = create("button", text, "link");
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

// The table

// The row of each job that is shown, by job id.
const rows = new Map();

function renderRows(jobs) {
  const first = page * PAGE_SIZE;
  const end = first + jobs.length;
  // The count may be of another moment than the list. The list knows its end.
  const counted = reason === undefined ? filterCount(filter) : countsOfReasons().get(reason);
  const total = more ? counted : end;
  replace($("rows"), jobs.map(jobRow));
  for (const [id, one] of rows) if (!one.isConnected) rows.delete(id);
  showNone(jobs.length ? "" : "No jobs to show.");
  for (const id of ["previous", "next"]) $(id).hidden = !more && !page;
  for (const id of ["copy", "csv"]) $(id).hidden = !jobs.length;
  const all = total < end || total === undefined ? "" : ` of ${formatCount(total)}`;
  setText("where", jobs.length ? `${formatCount(first + 1)} to ${formatCount(end)}${all}` : "");
  $("previous").ariaDisabled = !page;
  $("next").ariaDisabled = !more;
}

function showNone(text) {
  setText("none", text);
  $("none").hidden = !text;
}

// Leaves the children alone when they are the same: one that is removed loses the focus.
function replace(parent, wanted) {
  const focused = document.activeElement;
  if (wanted.length === parent.children.length && wanted.every((one, index) => one === parent.children[index])) return;
  parent.replaceChildren(...wanted);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function jobRow(job) {
  let row = rows.get(job.job_id);
  if (!row || row.url !== job.url) {
    row = newRow(job);
    rows.set(job.job_id, row);
  }
  const [head, status, items, time] = row.children;
  const why = job.status === "failed" && [job.error_code, job.error_message].filter(Boolean).map(plain).join(": ");
  if (row.status !== job.status) status.replaceChildren(create("span", job.status, `pill ${job.status}`));
  if (row.why !== why) {
    head.querySelector(".why")?.remove();
    if (why) {
      head.append(create("span", why, "why small"));
      head.lastChild.title = why;
    }
  }
  Object.assign(row, { job, status: job.status, why });
  items.textContent = formatCount(job.items_extracted);
  time.textContent = jobTime(job);
  return row;
}

function newRow(job) {
  // Explicit roles: on a small screen CSS lays a row out as a grid, and the browser drops the native ones.
  const cell = (tagName, role) => {
    const element = create(tagName, "");
    element.role = role;
    return element;
  };
  const row = cell("tr", "row");
  const head = cell("th", "rowheader");
  row.url = job.url;
  head.append(jobLink(job.url), create("span", plain(job.job_id), "soft small"));
  row.append(head, cell("td", "cell"), cell("td", "cell"), cell("td", "cell"));
  return row;
}

function jobTime(job) {
  const from = parseTime(job.started_at);
  const to = parseTime(job.finished_at);
  const finished = Number.isFinite(to);
  const took = ((finished ? to : now()) - from) / 1000;
  if (!Number.isFinite(took) || took < 0) return "";
  if (finished) return formatDuration(took, true);
  return job.status === "processing" ? `${formatDuration(took)} so far` : "";
}

// Only an http or https URL becomes a link; any other is text.
function jobLink(url) {
  const text = plain(url) || "no URL";
  let parsed;
  try {
    parsed = new URL(url);
  } catch {
    // Not a URL.
  }
  if (!parsed || !/^https?:$/.test(parsed.protocol)) return create("span", text);
  const link = create("a", text);
  Object.assign(link, { href: parsed.href, target: "_blank", rel: "noopener noreferrer nofollow", title: text });
  return link;
}

// The chart

// Points [time, ended, failed] in the order of time.
function chartPoints() {
  const ends = (jobHistory ?? [])
    .map((job) => [parseTime(job.finished_at), job.status === "completed" ? 0 : 1])
    .filter(([time]) => Number.isFinite(time))
    .sort((a, b) => a[0] - b[0]);
  if (!ends.length) return [...polls];
  const starts = jobHistory.map((job) => parseTime(job.started_at)).filter(Number.isFinite);
  const points = [[min(ends[0][0], ...starts), 0, 0]];
  const stride = Math.ceil(ends.length / 300);
  let failed = 0;
  for (const [index, [time, bad]] of ends.entries()) {
    failed += bad;
    if (index % stride === 0 || index === ends.length - 1) points.push([time, index + 1, failed]);
  }
  points.push(...polls.filter(([time]) => time > max(jobHistoryAt, points.at(-1)[0])));
  const { completion, basis } = estimate();
  const last = basis === "finished" ? completion : updatedAt;
  if (last > points.at(-1)[0]) points.push([last, endedCount(), data.failed]);
  return points;
}

// Seconds between two labels of the time axis.
const TIME_STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800,
];

function drawChart() {
  if (!data) return;
  const svg = $("chart");
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  const total = data.total_urls;
  const points = chartPoints();
  const { completion, earliest, latest } = estimate();
  const forecast = isForecast() && state !== "offline";
  // A single point shows nothing but where a forecast begins.
  $("figure").hidden = !total || (points.length < 2 && !forecast);
  if ($("figure").hidden || !width) return;

  const first = points[0][0];
  const [current, ended] = points.at(-1);
  // The forecast's latest end may be far away: it must not squeeze the past into a corner.
  const last = max(first + 1000, current, forecast ? min(latest, completion + (completion - first) / 2) : 0);
  const left = 12 + 7.5 * formatCount(total).length;
  const right = width - 8;
  const top = 8;
  const bottom = height - 26;
  const x = (time) => left + ((right - left) * (time - first)) / (last - first);
  const y = (jobs) => bottom - ((bottom - top) * jobs) / total;
  const line = (...list) => list.map(([time, jobs]) => `${x(time).toFixed(1)},${y(jobs).toFixed(1)}`).join(" ");
  const elements = [];
  const add = (tagName, attributes, text = "") => {
    const element = document.createElementNS(SVG, tagName);
    for (const name in attributes) element.setAttribute(name, attributes[name]);
    element.textContent = text;
    elements.push(element);
  };

  for (const jobs of new Set([0, round(total / 2), total])) {
    add("line", { class: "grid", x1: left, x2: right, y1: y(jobs), y2: y(jobs) });
    add("text", { x: left - 8, y: y(jobs) + 4, "text-anchor": "end" }, formatCount(jobs));
  }
  const maxLabels = (right - left) / 90;
  const step = 1000 * (TIME_STEPS.find((seconds) => (last - first) / 1000 / seconds <= maxLabels) ?? 2_592_000);
  const zone = new Date(first).getTimezoneOffset() * 60_000;
  for (let time = Math.ceil((first - zone) / step) * step + zone; time <= last; time += step) {
    const label = formatTime(time, step < 60_000);
    const half = label.length * 3.4;
    const middle = min(max(x(time), left + half - 6), right - half + 6);
    add("text", { x: middle, y: height - 6, "text-anchor": "middle" }, label);
  }
  if (forecast) {
    const cut = latest > last ? ended + ((total - ended) * (last - current)) / (latest - current) : total;
    const origin = [current, ended];
    add("polygon", {
      class: "band",
      points: line(origin, [max(earliest, current), total], [last, total], [last, cut]),
    });
    add("polyline", { class: "path", points: line(origin, [max(completion, current), total]) });
    add("line", { class: "now", x1: x(current), x2: x(current), y1: top, y2: bottom });
  }
  const failed = points.map(([time, , count]) => [time, count]);
  add("polygon", { class: "done", points: line(...points, ...failed.toReversed()) });
  add("polyline", { class: "edge", points: line(...points) });
  if (data.failed) {
    add("polygon", { class: "lost", points: line([first, 0], ...failed, [current, 0]) });
    add("polyline", { class: "edge lost-edge", points: line(...failed) });
  }
  svg.replaceChildren(...elements);

  const past =
    `${formatCount(ended)} of ${formatCount(total)} jobs ended from ${formatTime(first)} ` +
    `to ${formatTime(current)}`;
  const future =
    `the rest is forecast to end at ${formatTime(completion)}, ` +
    `between ${formatTime(earliest)} and ${formatTime(latest)}`;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.ariaLabel = `${past}${forecast ? `; ${future}` : ""}.`;
  $("key-band").hidden = !forecast;
  if (forecast) $("key-band").lastChild.textContent = `forecast, ${round(100 * data.estimate.confidence)}% range`;
}

// Controls

for (const name of ["", "completed", "failed", "processing", "pending", "cancelled"]) {
  const label = create("label", "");
  const choice = document.createElement("input");
  Object.assign(choice, { type: "radio", name: "status", value: name, checked: !name });
  label.append(choice, name || "all", create("span", ""));
  $("filter").append(label);
}
$("filter").addEventListener("change", (event) => {
  select(event.target.value);
  loadJobs();
});
$("chosen").addEventListener("click", () => {
  select(filter);
  loadJobs();
  $("jobs-title").focus({ preventScroll: true });
});
$("show-failed").addEventListener("click", () => showJobs("failed"));

// The number of jobs of a status, "" for all; undefined without a summary.
const filterCount = (status) => (status ? data.summary?.statuses[status] : data.total_urls);

function renderFilter() {
  for (const label of $("filter").querySelectorAll("label")) {
    const count = filterCount(label.firstChild.value);
    label.lastChild.textContent = count === undefined ? "" : ` ${formatCount(count)}`;
  }
}

// Filters the table, and goes to its first page.
function select(status, code) {
  filter = status;
  reason = code;
  page = 0;
  cursors = [];
  more = false;
  walk = undefined;
  listAt = 0;
  listCount += 1;
  $("chosen").hidden = code === undefined;
  if (code !== undefined) setText("chosen", `${codeName(code)} only ✕`);
  setText("copy", `Copy ${status ? `${status} ` : ""}URLs`);
  setText("where", "");
  listedAt = undefined;
  tell("");
}

function showJobs(status, code) {
  select(status, code);
  $("filter").querySelector(`[value=${status}]`).checked = true;
  loadJobs();
  $("jobs-title").focus();
}

async function showPage(number) {
  page = number;
  // Until it is known whether a page comes after this one.
  more = false;
  await loadJobs();
  $("jobs-title").scrollIntoView({ block: "nearest" });
  announce(`Jobs ${$("where").textContent}`);
}
for (const [id, way] of Object.entries({ previous: -1, next: 1 })) {
  $(id).addEventListener("click", () => {
    if (way < 0 ? page : more) showPage(page + way);
  });
}

// Copies and files of the jobs that the filter selects, all pages of them

function tell(text) {
  setText("told", text);
  if (text) announce(text);
}

async function exportJobs(convert) {
  const parts = [];
  for await (const jobs of readJobs()) {
    parts.push(...jobs.map(convert));
    setText("told", `${formatCount(parts.length)} jobs read…`);
  }
  return parts;
}

// The clipboard gets a promise: the browser allows to copy only at the click, before the jobs are read.
async function copyUrls() {
  let urls;
  const read = async () => {
    // A URL stays on its line.
    urls = (await exportJobs((job) => inert(job.url.replace(/[\s\p{Cc}]/gu, encodeURIComponent)))).filter(Boolean);
    return new Blob([urls.join("\n")], { type: "text/plain" });
  };
  await navigator.clipboard.write([new ClipboardItem({ "text/plain": read() })]);
  return `${formatCount(urls.length)} URLs copied.`;
}

const COLUMNS = [
  "job_id",
  "url",
  "status",
  "items_extracted",
  "started_at",
  "finished_at",
  "error_code",
  "error_message",
];
let file;

// A spreadsheet runs a text that begins like a formula: an apostrophe makes it text.
const inert = (text) => (/^[\s\p{Cc}=+@\uff1d\uff0b\uff0d\uff20-]/u.test(text) ? `'${text}` : text);

// Of RFC 4180.
const csvCell = (value) => `"${inert(String(value ?? "")).replaceAll('"', '""')}"`;

async function downloadCsv() {
  const name = `${batchId}${filter && `-${filter}`}.csv`;
  const lines = await exportJobs((job) => COLUMNS.map((column) => csvCell(job[column])).join(","));
  // Spreadsheets know by U+FEFF that the file is UTF-8.
  const text = ["\ufeff", ...[COLUMNS.join(","), ...lines].map((line) => `${line}\r\n`)];
  if (file) URL.revokeObjectURL(file);
  file = URL.createObjectURL(new Blob(text, { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: file, download: name }).click();
  return `${formatCount(lines.length)} jobs in ${name}.`;
}

for (const [id, act, failure] of [
  ["copy", copyUrls, "The URLs could not be copied. Try again, or download the CSV."],
  ["csv", downloadCsv, "The jobs could not be read. Try again."],
]) {
  $(id).addEventListener("click", async () => {
    try {
      tell(await act());
    } catch {
      tell(failure);
    }
  });
}
$("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("token").value.trim();
  if (!isToken(value)) {
    return showTokenError("A token is 8 or more letters, digits and - . _ ~ + /, without spaces.");
  }
  showTokenError("");
  setToken(value, false);
  start();
  $("name").focus();
});
$("forget").addEventListener("click", () => askForToken(""));
$("again").addEventListener("click", poll);
addEventListener("hashchange", openLink);
addEventListener("online", () => state === "offline" && poll());
addEventListener("offline", () => data && !isOver() && setState("offline"));
document.addEventListener("visibilitychange", () => !document.hidden && nextPollAt && poll());
new ResizeObserver(drawChart).observe($("chart"));
new IntersectionObserver(
  (entries) => {
    inView = entries.at(-1).isIntersecting;
    refreshJobs();
  },
  { rootMargin: "300px" },
).observe($("jobs"));
setInterval(renderTimes, 1000);

function start() {
  reset();
  setState("loading");
  poll();
}

reset();
setText("name", batchId ?? "No batch");
icon.rel = "icon";
document.head.append(icon);
if (!openLink()) {
  if (!batchId) setState("misnamed");
  else if (token) start();
  else askForToken();
}
