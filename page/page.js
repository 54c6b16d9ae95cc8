// biome-ignore lint/suspicious/noRedundantUseStrict: the page has this as a classic script, not as a module
"use strict";
const ROWS = 100; // jobs of one page of the table
const MOST = 1000; // jobs of one answer: a batch that fits is held whole
const WALK = 20_000; // of a larger batch up to this, every job's end is looked up once, for the chart
const { floor, max, min, round } = Math;
const $ = (id) => document.getElementById(id);
const put = (id, text) => {
  $(id).textContent = text;
};
const set = (element, attributes) => {
  for (const name in attributes) element.setAttribute(name, attributes[name]);
};

// Where this page is, and whose token it holds

const place = /\/watch\/([^/]+)(\/?)$/.exec(location.pathname);
const batch = place && /^[A-Za-z0-9_-]{1,128}$/.test(readable(place[1])) ? readable(place[1]) : null;
const api = `${place?.[2] ? "../../" : "../"}v1/scrape/batch/${batch}/progress`;
let token = stored();

function readable(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return "";
  }
}
function stored(value) {
  try {
    if (value === undefined) return sessionStorage.getItem("batch-progress") ?? "";
    sessionStorage.setItem("batch-progress", value);
  } catch {
    /* a browser that keeps nothing: the token is in memory alone */
  }
  return value ?? "";
}

// What is known

let data;
let tag;
let large;
let filter = "";
let page;
let cursors;
let listed;
let behind;
let move = 0;
let reasons;
let reasonsAt;
let reasonsOf;
let polls;
let walked;
let walkedAt;
let faults = 0;
let seen;
let due;
let timer;
let turn = 0;
let skew = 0;
let state;
let told;
const now = () => Date.now() + skew;

function clear() {
  clearTimeout(timer);
  turn += 1;
  [data, tag, walked, reasonsOf, seen, due, behind] = [];
  large = false;
  page = 0;
  reasonsAt = 0;
  [cursors, listed, reasons, polls, told] = [[], [], [], [], {}];
}

// Asking

class ApiError extends Error {
  constructor(status, code, wait) {
    super(`${status} ${code}`);
    Object.assign(this, { status, code, wait });
  }
}

async function ask(parameters, known) {
  const headers = { Authorization: `Bearer ${token}` };
  if (known) headers["If-None-Match"] = known;
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
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
    if (!answer || answer.ok) throw new ApiError(0);
  }
  const served = Date.parse(answer.headers.get("Date"));
  if (Math.abs(served - Date.now()) > 2000) skew = served - Date.now();
  const wait = Number(answer.headers.get("Retry-After"));
  if (!answer.ok && answer.status !== 304) throw new ApiError(answer.status, body?.error?.code, wait);
  if (answer.ok && body?.success !== true) throw new ApiError(0);
  return { data: body.data, tag: answer.headers.get("ETag"), wait };
}

const ONE_PAGE = { include: "details", limit: ROWS };

async function poll() {
  clearTimeout(timer);
  due = undefined;
  const mine = ++turn;
  try {
    const answer = await ask(
      { include: "details,estimate", limit: large ? ROWS : MOST, status: large ? filter : "" },
      tag,
    );
    if (mine !== turn) return;
    faults = 0;
    seen = now();
    if (answer.data) {
      data = answer.data;
      tag = answer.tag;
      polls.push([seen, ended(), data.failed]);
      if (polls.length > 2000) polls = polls.filter((_, index) => index % 2);
      if (!large && data.next_cursor) {
        // Too many to hold: from here on one page of the table at a time. What came begins the walk for the chart.
        large = true;
        tag = undefined;
        if (data.total_urls <= WALK) walk(data.jobs, data.next_cursor);
        return poll();
      }
      if (large && page) {
        await turnTo(page);
      } else {
        behind = data.next_cursor;
        renderRows(data.jobs);
      }
      if (large) findReasons();
    }
    render();
    if (answer.wait) soon(document.hidden ? max(answer.wait, 60) : answer.wait);
  } catch (fault) {
    if (mine === turn) failed(fault);
  }
}

function soon(seconds) {
  clearTimeout(timer);
  due = now() + seconds * 1000;
  timer = setTimeout(poll, seconds * 1000);
}

function failed(fault) {
  if (!(fault instanceof ApiError)) throw fault;
  if (fault.status === 401) return askForToken(fault.code);
  if (fault.code === "BATCH_NOT_FOUND") {
    clear();
    return setState("unknown");
  }
  faults += 1;
  soon(max(fault.wait || 0, min(60, 2 ** faults) * (0.5 + Math.random() / 2)));
  setState("offline", fault.status);
}

// The ends of a larger batch's jobs, page after page and once; without them the chart begins with the first poll.
async function walk(jobs, cursor) {
  const ends = jobs.map(end);
  let next = cursor;
  const mine = token;
  walkedAt = now();
  try {
    while (next) {
      const { data: more } = await ask({ include: "details", limit: MOST, cursor: next });
      if (mine !== token || !large) return;
      ends.push(...more.jobs.map(end));
      next = more.next_cursor;
    }
    walked = ends;
    draw();
  } catch {
    /* the polls will do */
  }
}

async function turnTo(number) {
  const mine = ++move;
  page = number;
  const answer = await ask({ ...ONE_PAGE, status: filter, cursor: cursors[number] });
  if (mine !== move) return;
  behind = answer.data.next_cursor;
  renderRows(answer.data.jobs);
}

async function findReasons() {
  if (!data.failed || data.failed === reasonsOf || now() - reasonsAt < 60_000) return;
  reasonsAt = now();
  reasonsOf = data.failed;
  try {
    reasons = (await ask({ ...ONE_PAGE, status: "failed" })).data.jobs;
    renderReasons();
  } catch {
    reasonsOf = undefined;
  }
}

// States

function setState(name, status) {
  const before = state;
  state = name;
  const [title, text] = {
    stalled: [
      "This batch has stalled",
      "Jobs are left, and nothing has moved for longer than a job may take. It is looked at twice a minute.",
    ],
    offline: [
      navigator.onLine ? `The service cannot ${status ? "answer just now" : "be reached"}` : "You are offline",
      "",
    ],
    unknown: ["No such batch", `This token has no batch ${batch}. It may be another owner's, or long gone.`],
    misnamed: [
      "No batch at this address",
      "A batch id is 1 to 128 letters, digits, underscores and hyphens, behind /watch/.",
    ],
  }[name] ?? [""];
  $("notice").hidden = !title;
  $("notice").className = name;
  put("notice-title", title);
  put("notice-text", text ?? "");
  $("again").hidden = name === "misnamed";
  $("state").hidden = /loading|signin|misnamed/.test(name);
  $("state").className = `pill ${name}`;
  put("state", name[0].toUpperCase() + name.slice(1));
  $("view").hidden = !data;
  $("signin").hidden = name !== "signin";
  $("forget").hidden = !token || name === "signin";
  document.title = data ? `${percent()}% · ${batch}` : (batch ?? "Batch progress");
  if (title && name !== before) say(`${title}. ${text}`);
  tick();
}

function askForToken(code) {
  token = stored("");
  clear();
  if (!code) refuse("");
  else if (code.endsWith("EXPIRED")) refuse("This token has expired.");
  else if (code.endsWith("DEACTIVATED")) refuse("This token has been deactivated.");
  else refuse("This token is not valid here.");
  setState("signin");
  $("token").value = "";
  if (code !== undefined) $("token").focus();
}

function refuse(reason) {
  put("signin-fault", reason);
  set($("token"), { "aria-invalid": Boolean(reason) });
  if (reason) say(reason);
}

// A listener hears of each change of state, and of progress at most once a minute or for each tenth.
const say = (text) => put("say", text);

function sayProgress() {
  const tenth = floor(percent() / 10);
  const same = state === told.state;
  if (same && (state === "finished" || (tenth === told.tenth && now() - told.at < 60_000))) return;
  told = { state, tenth, at: now() };
  say(`${percent()}% done, ${$("left").textContent}. ${summary()}`);
}

// Words and numbers

const count = new Intl.NumberFormat("en").format;
const moment = (text) => Date.parse(text ?? "");
const ended = () => data.completed + data.failed;
const percent = () => (data.total_urls ? floor((100 * ended()) / data.total_urls) : 100);
// What comes from outside is shown as it is, but for letters that are not seen or turn others round.
const plain = (text) =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to replace
  String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");

function clock(time, seconds) {
  const sameDay = new Date(time).toDateString() === new Date(now()).toDateString();
  return new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...(seconds && { second: "2-digit" }),
    ...(!sameDay && { day: "numeric", month: "short" }),
  }).format(time);
}

function span(seconds, exact) {
  const s = max(0, seconds);
  if (exact && s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 90) return `${exact ? round(s) : max(5, round(s / 5) * 5)} s`;
  const minutes = round(s / 60);
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 2160) return `${floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${round(minutes / 1440)} days`;
}

const many = (status) => (large ? 0 : data.jobs.filter((job) => job.status === status).length);

function summary() {
  const busy = many("processing");
  return (
    `${count(data.completed)} completed, ${count(data.failed)} failed, ${count(data.pending)} pending` +
    `${busy ? ` (${count(busy)} of them processing)` : ""}, of ${count(data.total_urls)}.`
  );
}

// Showing

function render() {
  const basis = data.estimate.basis;
  const busy = many("processing");
  const cancelled = many("cancelled");
  for (const name of ["completed", "failed", "pending"]) put(name, count(data[name]));
  put("items", count(data.total_items_extracted));
  if (busy) $("pending").append(part("small", `${count(busy)} processing`));
  if (cancelled) $("failed").append(part("small", `${count(cancelled)} cancelled`));
  $("percent").replaceChildren(String(percent()), part("small", "%"));
  const [c, f, p] = $("bar").children;
  for (const [piece, size] of [
    [c, data.completed],
    [f, data.failed],
    [p, busy],
  ]) {
    piece.style.width = size ? `max(3px, ${(100 * size) / data.total_urls}%)` : 0;
  }
  set($("bar"), { "aria-valuemax": data.total_urls, "aria-valuenow": ended(), "aria-valuetext": summary() });
  setState(/finished|stalled/.test(basis) ? basis : "running");
  renderReasons();
  draw();
  sayProgress();
}

// What depends on the time of day alone.
function tick() {
  if (data) {
    const { at, basis, earliest, latest } = expected();
    const left = (at - now()) / 1000;
    if (basis === "finished") {
      const took = large ? 0 : at - series()[0]?.[0];
      put("left", data.failed ? `Done, with ${count(data.failed)} failed` : "All done");
      put("range", `Ended ${clock(at, true)}${took > 0 ? ` after ${span(took / 1000)}` : ""}`);
    } else if (basis === "stalled") {
      put("left", `${count(data.pending)} left, none moving`);
      const moved = large
        ? 0
        : max(
            0,
            ...data.jobs.flatMap((job) => [moment(job.started_at), moment(job.finished_at)]).filter(Number.isFinite),
          );
      put("range", moved ? `Nothing has moved since ${clock(moved, true)}` : "");
    } else {
      const seconds = latest - now() < 1_200_000;
      put("left", left < 3 ? "Any moment now" : `About ${span(left)} left`);
      put(
        "range",
        `between ${clock(earliest, seconds)} and ${clock(latest, seconds)}` +
          (basis === "declared" ? ", a first guess" : ""),
      );
    }
  }
  const wait = due ? max(0, round((due - now()) / 1000)) : 0;
  const asOf = seen && data ? `As of ${clock(seen, true)}` : "";
  if (state === "offline")
    put("notice-text", `${asOf ? `What you see is ${asOf.toLowerCase()}. ` : ""}Next try in ${wait} s.`);
  put("fresh", asOf + (asOf && due && state !== "offline" ? `, next look in ${wait} s` : ""));
}

function expected() {
  const { basis, earliest, latest } = data.estimate;
  return { at: moment(data.estimated_completion), basis, earliest: moment(earliest), latest: moment(latest) };
}

function part(name, text, className) {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function renderReasons() {
  const lost = (large ? reasons : data.jobs).filter((job) => job.status === "failed");
  const groups = new Map();
  for (const job of lost) {
    const group = groups.get(job.error_code) ?? { code: job.error_code, size: 0, message: job.error_message };
    group.size += 1;
    groups.set(job.error_code, group);
  }
  const largest = [...groups.values()].sort((a, b) => b.size - a.size).slice(0, 8);
  $("failures").hidden = !largest.length;
  put("sample", large ? `of the first ${count(lost.length)}` : "");
  $("reasons").replaceChildren(
    ...largest.map(({ code, size, message }) => {
      const item = part("li", "");
      const words = part("div", "");
      words.append(part("span", plain(code ?? "No reason recorded")));
      if (message) words.append(" ", part("span", plain(message), "soft small"));
      item.append(part("b", count(size)), words);
      return item;
    }),
  );
}

// The table

const rows = new Map();

function renderRows(jobs = listed) {
  listed = jobs;
  const fitting = large ? listed : listed.filter((job) => !filter || job.status === filter);
  if (!large && page * ROWS >= fitting.length) page = max(0, Math.ceil(fitting.length / ROWS) - 1);
  const shown = large ? fitting.slice(0, ROWS) : fitting.slice(page * ROWS, (page + 1) * ROWS);
  const wanted = shown.map(row);
  const body = $("rows");
  const focused = document.activeElement;
  // Rows that stay are left where they are, and with them the focus.
  if (wanted.length !== body.children.length || wanted.some((one, index) => one !== body.children[index])) {
    body.replaceChildren(...wanted);
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    for (const [id, one] of rows) if (!one.isConnected) rows.delete(id);
  }
  const more = large ? Boolean(behind) : (page + 1) * ROWS < fitting.length;
  const whole = large ? { "": data.total_urls, completed: data.completed }[filter] : fitting.length;
  $("none").hidden = shown.length > 0;
  $("pager").hidden = !more && !page;
  put(
    "where",
    `${count(page * ROWS + 1)} to ${count(page * ROWS + shown.length)}${whole ? ` of ${count(whole)}` : ""}`,
  );
  set($("previous"), { "aria-disabled": !page });
  set($("next"), { "aria-disabled": !more });
}

function row(job) {
  let one = rows.get(job.job_id);
  if (!one || one.url !== job.url) {
    // The roles stand there for the small screen, on which a row is no table row to the eye.
    const cell = (name, role) => {
      const made = part(name, "");
      made.role = role;
      return made;
    };
    one = cell("tr", "row");
    one.url = job.url;
    const head = cell("th", "rowheader");
    head.append(address(job.url), part("span", plain(job.job_id), "soft small"));
    one.append(head, cell("td", "cell"), cell("td", "cell"), cell("td", "cell"));
    rows.set(job.job_id, one);
  }
  const [head, status, items, time] = one.children;
  const why = job.status === "failed" && [job.error_code, job.error_message].filter(Boolean).map(plain).join(": ");
  if (one.status !== job.status) status.replaceChildren(part("span", job.status, `pill ${job.status}`));
  if (one.why !== why) {
    head.querySelector(".why")?.remove();
    if (why) {
      head.append(part("span", why, "why small"));
      head.lastChild.title = why;
    }
  }
  Object.assign(one, { status: job.status, why });
  items.textContent = count(job.items_extracted);
  time.textContent = jobTime(job);
  return one;
}

function jobTime(job) {
  const from = moment(job.started_at);
  const to = moment(job.finished_at);
  const finished = Number.isFinite(to);
  const took = ((finished ? to : now()) - from) / 1000;
  if (!Number.isFinite(took) || took < 0) return "";
  if (finished) return span(took, true);
  return job.status === "processing" ? `${span(took)} so far` : "";
}

// An address is linked only where it leads to the web, and is never anything but text.
function address(url) {
  const text = plain(url) || "no address";
  let parsed;
  try {
    parsed = new URL(url);
  } catch {
    /* not one */
  }
  if (!parsed || !/^https?:$/.test(parsed.protocol)) return part("span", text);
  const link = part("a", text);
  Object.assign(link, { href: parsed.href, target: "_blank", rel: "noopener noreferrer nofollow", title: text });
  return link;
}

// The chart

// When a job ended, and whether badly.
const end = (job) => [moment(job.finished_at), job.status === "completed" ? 0 : 1];

// Moments, with how many jobs had ended by then and how many of those badly.
function series() {
  const known = ((large ? walked : data.jobs.map(end)) ?? [])
    .filter(([at]) => Number.isFinite(at))
    .sort((a, b) => a[0] - b[0]);
  const { at: done, basis } = expected();
  const last = basis === "finished" ? done : seen;
  if (!known.length) return [...polls];
  const starts = large ? [] : data.jobs.map((job) => moment(job.started_at)).filter(Number.isFinite);
  const line = [[min(known[0][0], ...starts), 0, 0]];
  const stride = Math.ceil(known.length / 300);
  let lost = 0;
  known.forEach(([at, bad], index) => {
    lost += bad;
    if (index % stride === 0 || index === known.length - 1) line.push([at, index + 1, lost]);
  });
  if (large) line.push(...polls.filter(([at]) => at > walkedAt));
  if (last > line.at(-1)[0]) line.push([last, ended(), data.failed]);
  return line;
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800];

function draw() {
  if (!data) return;
  const svg = $("chart");
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  const total = data.total_urls;
  const line = series();
  const { at, basis, earliest, latest } = expected();
  $("figure").hidden = !line.length || !total;
  if (!line.length || !total || !width) return;
  const [t, done] = line.at(-1);
  const first = line[0][0];
  const ahead = /declared|observed/.test(basis);
  // A long tail of the forecast must not squeeze what has happened into a corner.
  const last = max(first + 1000, t, ahead ? min(latest, at + (at - first) / 2) : 0);
  const left = 12 + 7.5 * count(total).length;
  const right = width - 8;
  const top = 8;
  const bottom = height - 26;
  const x = (time) => left + ((right - left) * (time - first)) / (last - first);
  const y = (jobs) => bottom - ((bottom - top) * jobs) / total;
  const path = (points) => points.map(([time, jobs]) => `${x(time).toFixed(1)},${y(jobs).toFixed(1)}`).join(" ");
  const pieces = [];
  const add = (name, attributes, text = "") => {
    const piece = document.createElementNS("http://www.w3.org/2000/svg", name);
    set(piece, attributes);
    piece.textContent = text;
    pieces.push(piece);
  };
  for (const jobs of new Set([0, round(total / 2), total])) {
    add("line", { class: "grid", x1: left, x2: right, y1: y(jobs), y2: y(jobs) });
    add("text", { x: left - 8, y: y(jobs) + 4, "text-anchor": "end" }, count(jobs));
  }
  const step = 1000 * (STEPS.find((one) => (last - first) / 1000 / one <= (right - left) / 90) ?? 2_592_000);
  const zone = new Date(first).getTimezoneOffset() * 60_000;
  for (let time = Math.ceil((first - zone) / step) * step + zone; time <= last; time += step) {
    const words = clock(time, step < 60_000);
    const room = words.length * 3.4;
    const middle = min(max(x(time), left + room - 6), right - room + 6);
    add("text", { x: middle, y: height - 6, "text-anchor": "middle" }, words);
  }
  if (ahead) {
    const low = latest > last ? done + ((total - done) * (last - t)) / (latest - t) : total;
    add("polygon", {
      class: "band",
      points: path([
        [t, done],
        [max(earliest, t), total],
        [last, total],
        [last, low],
      ]),
    });
    add("polyline", {
      class: "path",
      points: path([
        [t, done],
        [max(at, t), total],
      ]),
    });
    add("line", { class: "now", x1: x(t), x2: x(t), y1: top, y2: bottom });
  }
  add("polygon", { class: "done", points: path([[first, 0], ...line, [t, 0]]) });
  if (data.failed)
    add("polygon", {
      class: "lost",
      points: path([[first, 0], ...line.map(([time, , lost]) => [time, lost]), [t, 0]]),
    });
  add("polyline", { class: "edge", points: path(line) });
  const words =
    `${count(done)} of ${count(total)} jobs ended from ${clock(first, true)} to ${clock(t, true)}` +
    (ahead
      ? `; the rest is forecast to end at ${clock(at, true)}, between ${clock(earliest, true)} and ${clock(latest, true)}.`
      : ".");
  set(svg, { viewBox: `0 0 ${width} ${height}`, "aria-label": words });
  $("key-band").hidden = !ahead;
  if (ahead) $("key-band").lastChild.textContent = `forecast, ${round(100 * data.estimate.confidence)}% range`;
  svg.replaceChildren(...pieces);
}

// What people do

for (const name of ["", "completed", "failed", "processing", "pending", "cancelled"]) {
  const label = part("label", "");
  const choice = document.createElement("input");
  Object.assign(choice, { type: "radio", name: "status", value: name, checked: !name });
  label.append(choice, name || "all");
  $("filter").append(label);
}
$("filter").addEventListener("change", (event) => {
  filter = event.target.value;
  page = 0;
  move += 1;
  if (large) {
    tag = undefined;
    poll();
  } else renderRows();
});

async function go(number) {
  if (!large) {
    page = number;
    renderRows();
  } else if (number === 0) {
    page = 0;
    move += 1;
    tag = undefined;
    await poll();
  } else {
    if (number > page) cursors[number] = behind;
    try {
      await turnTo(number);
    } catch (fault) {
      failed(fault);
    }
  }
  $("jobs-title").scrollIntoView({ block: "nearest" });
  say(`Jobs ${$("where").textContent}`);
}
for (const [id, way] of [
  ["previous", -1],
  ["next", 1],
]) {
  $(id).addEventListener("click", (event) => {
    if (event.currentTarget.getAttribute("aria-disabled") !== "true") go(page + way);
  });
}
$("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("token").value.trim();
  if (!/^[\w.~+/-]{8,8192}=*$/.test(value))
    return refuse("A token is 8 or more letters, digits and - . _ ~ + /, without blanks.");
  refuse("");
  token = stored(value);
  begin();
  $("name").focus();
});
$("forget").addEventListener("click", () => askForToken(""));
$("again").addEventListener("click", poll);
addEventListener("online", () => state === "offline" && poll());
addEventListener("offline", () => due && setState("offline"));
document.addEventListener("visibilitychange", () => !document.hidden && due && poll());
new ResizeObserver(draw).observe($("chart"));
setInterval(tick, 1000);

function begin() {
  clear();
  setState("loading");
  poll();
}

clear();
put("name", batch ?? "No batch");
if (!batch) setState("misnamed");
else if (token) begin();
else askForToken();
