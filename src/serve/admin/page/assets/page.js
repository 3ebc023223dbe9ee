// The status page in the browser: keeps it up to date, and gives orders.
//
// It computes no figure: texts, bars, blocks and offered orders come from the stream under the key that stands in the HTML. What the
// dialog before an order says stands in orders.js; theme.js is served before this in one file. Hooks for scripts and tests: see html.rs.
"use strict";

(() => {
  const TOKEN = "tidegate-token";
  const $ = (selector, within = document) => within.querySelector(selector);
  const root = document.documentElement;
  const { kept, nameTheme } = window.tidegateTheme;

  // ---- Talking to the process --------------------------------------------------------------------------------------------------

  const token = () => kept.read("sessionStorage", TOKEN);
  const bearer = (value = token()) => (value ? { Authorization: `Bearer ${value}` } : {});

  function keepToken(value) {
    kept.write("sessionStorage", TOKEN, value);
    const forget = $("#forget");
    if (forget) forget.hidden = value === null;
  }

  /** Asks the API; a refusal is thrown as `{status, error, remedy, problems}`. */
  async function ask(method, path, body) {
    const headers = { ...bearer(), ...(body ? { "Content-Type": "application/json" } : {}) };
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    } catch {
      throw { status: 0, error: "tidegate does not answer", remedy: "nothing is known of the order: look at the state when the page is connected again" };
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    throw { status: response.status, error: answer.error ?? `the answer was ${response.status}`, remedy: answer.remedy ?? "", problems: answer.problems ?? [] };
  }

  /** Whether this token is right; null when it is, else the refusal. */
  async function refusalOf(value) {
    let response;
    try {
      response = await fetch("/", { headers: bearer(value), cache: "no-store" });
    } catch {
      return "tidegate does not answer; try again.";
    }
    if (response.ok) return null;
    const answer = await response.json().catch(() => ({}));
    return response.status === 401 ? "This token is wrong. Use the one in admin.token_file." : `${answer.error ?? response.status}; ${answer.remedy ?? ""}`;
  }

  // ---- What is shown -----------------------------------------------------------------------------------------------------------

  /** Everything that the stream has told, so that a page fetched meanwhile cannot keep a figure that the stream has passed by. */
  const nothing = () => ({ cells: {}, bars: {}, blocks: {}, offers: {} });
  let told = nothing();
  let nodes = {};
  const shown = new WeakMap();

  function collect() {
    nodes = { k: new Map(), v: new Map(), b: new Map(), o: new Map() };
    for (const [kind, map] of Object.entries(nodes)) {
      for (const node of document.querySelectorAll(`[data-${kind}]`)) map.set(node.dataset[kind], node);
    }
  }

  /** Changes the page; focus stays where it is, or at least in the same card. */
  function keepingFocus(change) {
    const main = $("#page");
    const focus = main.contains(document.activeElement) ? document.activeElement : null;
    const place = focus?.closest("article, section")?.querySelector("h3[id], h2[id]")?.id;
    change();
    if (!focus || (focus.isConnected && !focus.hidden)) return;
    const same = focus.dataset.order ? document.querySelector(`[data-order="${CSS.escape(focus.dataset.order)}"]:not([hidden])`) : document.getElementById(focus.id);
    (same ?? document.getElementById(place) ?? main).focus({ preventScroll: true });
  }

  const patch = (news) => keepingFocus(() => write(news));

  function write({ cells = {}, bars = {}, blocks = {}, offers = {} }) {
    for (const [key, text] of Object.entries(cells)) {
      const node = nodes.k.get(key);
      if (!node || node.textContent === text) continue;
      node.textContent = text;
      if (node.dataset.w !== undefined) node.dataset.w = text;
    }
    for (const [key, share] of Object.entries(bars)) {
      const node = nodes.v.get(key);
      if (!node) continue;
      // Null: unknown, which is neither empty nor full.
      if (share === null) node.removeAttribute("value"); else if (!node.hasAttribute("value") || node.value !== share) node.value = share;
    }
    for (const [key, markup] of Object.entries(blocks)) {
      const node = nodes.b.get(key);
      // Escaped by the templates that made it, as the page itself is.
      if (!node || shown.get(node) === markup) continue;
      const unfolded = [...node.querySelectorAll("details[open][id]")].map((one) => one.id);
      node.innerHTML = markup;
      shown.set(node, markup);
      unfold(unfolded);
    }
    for (const [target, words] of Object.entries(offers)) {
      const offered = words.split(" ");
      for (const button of nodes.o.get(target)?.children ?? []) button.hidden = !offered.includes(button.dataset.order.split(" ")[0]);
    }
  }

  function unfold(ids) {
    for (const id of ids) { const node = document.getElementById(id); if (node) node.open = true; }
  }

  let latest = null;

  /** Tells the newest event to those who listen. A stream's first frame tells what was there before: nothing has happened by that. */
  function announce(first) {
    const event = $(".events li");
    if (!event) return;
    const text = `${$("b", event).textContent}: ${$(".what", event).textContent}`;
    const one = `${$("time", event).dateTime} ${text}`;
    const news = $("#news");
    if (!first && one !== latest && news) news.textContent = text;
    latest = one;
  }

  /** Fetches the page and puts its main part in place of this one, with focus, scrolling and what is unfolded as they were. */
  async function renew(wanted = "") {
    const path = wanted ? `/?structure=${encodeURIComponent(wanted)}` : "/";
    const response = await fetch(path, { headers: bearer(), cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (response.status === 401) { keepToken(null); return signedOut("The token is not right any more."); }
    if (!response.ok) throw new Error(`page: ${response.status}`);
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    const main = $("#page"), other = $("#page", next);
    if (("signedOut" in main.dataset) !== ("signedOut" in other.dataset)) return replaceBody(next);
    const unfolded = [...document.querySelectorAll("details[open][id]")].map((node) => node.id);
    const scrolled = [...main.querySelectorAll(".scrolls")].map((node) => node.scrollTop);
    keepingFocus(() => {
      // Of many apps one has changed: sections that are equal stay.
      const before = [...main.children], after = [...other.children];
      if (before.length !== after.length) main.replaceChildren(...after);
      else before.forEach((section, index) => { if (!section.isEqualNode(after[index])) section.replaceWith(after[index]); });
      main.dataset.structure = other.dataset.structure;
      unfold(unfolded);
      main.querySelectorAll(".scrolls").forEach((node, index) => { node.scrollTop = scrolled[index] ?? 0; });
      collect();
      write(told);
    });
  }

  // A rolling restart changes the structure again and again; the page follows at leisure, and its figures are live all the while.
  const RENEW_EVERY = 3000;
  let renewed = -RENEW_EVERY, renewing = 0, structure = "";

  function renewSoon() {
    if (renewing || !structure || structure === $("#page").dataset.structure) return;
    renewing = setTimeout(async () => {
      renewed = performance.now();
      let failed = false;
      // The stream goes on whatever becomes of this.
      try { if (structure !== $("#page").dataset.structure) await renew(structure); } catch { failed = true; }
      renewing = 0;
      if (signedIn()) { if (stream) connection(failed ? "torn" : "live"); renewSoon(); }
    }, Math.max(0, renewed + RENEW_EVERY - performance.now()));
  }


  function replaceBody(next) {
    document.body.replaceChildren(...next.body.childNodes);
    document.title = next.title;
    begin();
  }

  // ---- The stream --------------------------------------------------------------------------------------------------------------

  /** Longer silence than this is a broken connection: the process gives a sign of life every five seconds. */
  const SILENCE = 12000;
  /** For one answer. */
  const PATIENCE = 10000;
  const signedIn = () => !("signedOut" in $("#page").dataset);
  /** What is shown lacks something that exists. */
  let torn = false;
  let stream = null, heard = 0, since = null, attempts = 0, retry = 0, at = "";

  const clock = (iso) => (iso.split("T")[1] ?? "").replace("Z", "");
  const now = () => new Date().toISOString().replace(/\.\d+Z$/, "Z");

  function connection(state) {
    const node = $("#connection");
    if (!node) return;
    torn = state === "torn" || (torn && state !== "live");
    const old = state === "lost" || state === "torn";
    node.dataset.state = old ? "lost" : state;
    $(".says", node).textContent = { live: "live", lost: "not connected", torn: "incomplete", off: "not live" }[state];
    document.body.classList.toggle("stale", old);
    const stale = $("#stale");
    if (state === "live") { since = null; stale.hidden = true; stale.textContent = ""; return; }
    if (!old) return;
    since ??= now();
    stale.hidden = false;
    if (state === "torn") { stale.textContent = `Incomplete since ${clock(since)} UTC: something has come or gone, and the page cannot be fetched. It is tried again.`; return; }
    const shown = at ? `Showing the state of ${clock(at)}.` : "Showing the state of when this page was loaded.";
    const text = `Not connected since ${clock(since)} UTC. ${shown}`;
    if (stale.textContent !== text) stale.textContent = text;
  }

  async function connect() {
    if (stream || document.hidden || !signedIn()) return;
    clearTimeout(retry);
    const mine = new AbortController();
    stream = mine;
    heard = Date.now();
    try {
      const response = await fetch("/live", { headers: bearer(), cache: "no-store", signal: mine.signal });
      if (response.status === 401) { keepToken(null); signedOut("The token is not right any more."); return; }
      if (!response.ok) throw new Error(String(response.status));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "", first = true;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        heard = Date.now();
        text += value;
        const frames = text.split("\n\n");
        text = frames.pop();
        for (const frame of frames) first = !take(frame, mine, first) && first;
      }
    } catch (error) {
      if (mine.signal.aborted && mine.signal.reason === "hidden") return;
    } finally {
      // However it ended: a browser has six connections, and one that nobody reads holds one of them for ever.
      mine.abort("over");
      if (stream === mine) stream = null;
    }
    if (document.hidden || !signedIn()) return;
    connection("lost");
    attempts += 1;
    retry = setTimeout(connect, Math.min(5000, 250 * 2 ** attempts));
  }

  /** Whether the frame told something. */
  function take(frame, mine, first) {
    const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
    if (!data || mine.signal.aborted) return false;
    const news = JSON.parse(data);
    // Another binary may have another page. A dialog is finished first.
    if (news.build !== root.dataset.build && !document.querySelector("dialog[open]")) { location.reload(); return false; }
    attempts = 0;
    at = news.at;
    structure = news.structure;
    for (const kind of Object.keys(told)) Object.assign(told[kind], news[kind]);
    patch(news);
    announce(first);
    if (!torn || structure === $("#page").dataset.structure) connection("live");
    renewSoon();
    return true;
  }

  setInterval(() => { if (stream && Date.now() - heard > SILENCE) stream.abort("silence"); }, 1000);

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { attempts = 0; connect(); return; }
    clearTimeout(retry);
    stream?.abort("hidden");
    stream = null;
    // Whoever comes back after an hour must not take these figures for new ones before they are.
    if (!since) connection("off");
  });
  addEventListener("online", () => { attempts = 0; connect(); });

  // ---- The token ---------------------------------------------------------------------------------------------------------------

  let waiting = null;

  /** Asks for the token; resolves to whether there is one. */
  function askToken(refusal = "") {
    const dialog = $("#sign-in");
    $("#token-refusal").textContent = refusal;
    $("#token").value = "";
    dialog.showModal();
    $("#token").focus();
    return new Promise((resolve) => { waiting = resolve; });
  }

  function answerToken(given) {
    const dialog = $("#sign-in");
    if (dialog?.open) dialog.close();
    waiting?.(given);
    waiting = null;
  }

  async function submitToken(form) {
    const value = $("#token").value.trim();
    const button = $("#token-go", form);
    button.disabled = true;
    const refusal = await refusalOf(value);
    button.disabled = false;
    $("#token-refusal").textContent = refusal ?? "";
    if (refusal) { $("#token").select(); return; }
    keepToken(value);
    if (signedIn()) { answerToken(true); return; }
    try { await renew(); } catch { $("#token-refusal").textContent = "tidegate does not answer; try again."; }
  }

  /** Takes away whatever this process has told. What cannot be proven to be open to everybody may not stay on the screen. */
  function blank(text) {
    stream?.abort("hidden");
    stream = null;
    clearTimeout(retry);
    told = nothing();
    at = "";
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    for (const node of document.querySelectorAll(".standing, #order-title, #order-says, #refusal, #confirm, #stale, #news, #result")) node.replaceChildren();
    delete $("#order-says")?.dataset.texts;
    document.title = "tidegate";
    const main = $("#page");
    main.dataset.signedOut = "";
    main.replaceChildren(paragraph(text, "sentence"));
    connection("off");
  }

  const withoutToken = async () => {
    const response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(`page: ${response.status}`);
    return new DOMParser().parseFromString(await response.text(), "text/html");
  };

  /** Until there is an answer, nothing is shown. */
  async function signedOut(why) {
    blank("Signed out.");
    try {
      replaceBody(await withoutToken());
    } catch {
      blank("Signed out, not connected.");
      retry = setTimeout(signedOut, 3000, why);
      return;
    }
    const refusal = $("#page[data-signed-out] #token-refusal");
    if (refusal) refusal.textContent = why;
  }

  async function forget() {
    keepToken(null);
    tell("The token is forgotten.");
    if (!$("#sign-in")) return;
    // Where reading needs it, too, nothing may stay on the screen.
    try {
      const next = await withoutToken();
      if ("signedOut" in $("#page", next).dataset) { blank(""); replaceBody(next); }
    } catch {
      await signedOut("The token is forgotten.");
    }
  }

  // ---- Orders ------------------------------------------------------------------------------------------------------------------

  let order = null;

  function tell(text) {
    const node = $("#result");
    if (!node) return;
    node.textContent = text;
    node.classList.add("shown");
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => node.classList.remove("shown"), 10000);
  }

  const paragraph = (text, name) => Object.assign(document.createElement("p"), { textContent: text, className: name ?? "" });

  function refuse(refusal) {
    const lines = [paragraph(refusal.error, "error")];
    for (const problem of refusal.problems ?? []) lines.push(paragraph(`${problem.at}: ${problem.what}; ${problem.remedy}`));
    if (refusal.remedy) lines.push(paragraph(refusal.remedy, "remedy"));
    $("#refusal").replaceChildren(...lines);
    // Force is no habit: it is offered when tidegate has said that it takes force.
    if (order?.plan?.force && /force/.test(refusal.remedy)) $("#force-row").hidden = false;
  }

  function word() {
    const { plan } = order;
    $("#order-title").textContent = plan.title;
    const texts = plan.says.join("\n"), says = $("#order-says");
    if (says.dataset.texts !== texts) { says.replaceChildren(...plan.says.map((text) => paragraph(text))); says.dataset.texts = texts; }
    $("#confirm").textContent = plan.confirm;
    $("#confirm").classList.toggle("danger", Boolean(plan.danger));
  }

  /** Words the dialog with the figures of this moment. */
  async function plan(button) {
    return planWith(button, await ask("GET", "/api/v1/status"));
  }

  function planWith(button, status) {
    const [kind, target] = button.dataset.order.split(" ");
    return { status, ...window.tidegateOrders(ask)[kind](target, status, button, fields(["idle"])) };
  }

  /** What was filled in, of these options. */
  function fields(options) {
    const filled = options.map((field) => [field, $(`#${field}`).value.trim()]).filter(([, value]) => value);
    return Object.fromEntries(filled);
  }

  async function open(button) {
    let made;
    $("#order form").reset();
    try { made = await plan(button); } catch (refusal) { tell(`${refusal.error ?? refusal}. ${refusal.remedy ?? ""}`); return; }
    order = { button, plan: made };
    const dialog = $("#order");
    $("#refusal").replaceChildren();
    for (const field of ["deadline", "then", "idle", "force"]) $(`#${field}-row`).hidden = !made.options.includes(field);
    word();
    if (!dialog.open) dialog.showModal();
    // Enter alone must change nothing.
    $("#cancel").focus();
    clearInterval(open.timer);
    open.timer = setInterval(async () => {
      const current = order;
      if (!dialog.open || !current || current.busy) return;
      try { const fresh = await plan(button); if (order === current && !current.busy) { order.plan = fresh; word(); } } catch { /* the last figures stay */ }
    }, 2000);
  }

  async function confirm() {
    const mine = order;
    if (!mine || mine.busy) return;
    mine.busy = true;
    $("#confirm").disabled = true;
    const given = fields(mine.plan.options);
    if (!$("#force-row").hidden && $("#force").checked) given.force = true;
    $("#refusal").replaceChildren();
    try {
      let answer;
      for (let wrong = "";;) {
        if (!token() && !(await askToken(wrong))) return;
        try { answer = await mine.plan.call(given); break; } catch (refusal) {
          if (refusal.status !== 401) throw refusal;
          keepToken(null);
          wrong = "This token is wrong. Use the one in admin.token_file.";
        }
      }
      $("#order").close();
      tell(mine.plan.done(answer));
    } catch (refusal) {
      refuse(refusal.error ? refusal : { error: String(refusal), remedy: "" });
    } finally {
      mine.busy = false;
      $("#confirm").disabled = false;
    }
  }

  /** The button may have gone with the order: then its card is the place to go on from. */
  function comeBack() {
    clearInterval(open.timer);
    const button = order?.button;
    order = null;
    if (!button) return;
    const same = document.querySelector(`[data-order="${CSS.escape(button.dataset.order)}"]:not([hidden])`);
    const target = button.dataset.order.split(" ")[1];
    const card = document.getElementById(`release-${target.split("/").slice(0, 2).join(":")}:name`);
    (same ?? card ?? $("#page")).focus({ preventScroll: true });
  }

  // ---- Begin -------------------------------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    if (button.dataset.order) open(button);
    else if (button.id === "forget") forget();
    else if (button.id === "cancel") $("#order").close();
    else if (button.id === "token-cancel") answerToken(false);
  });

  document.addEventListener("input", (event) => {
    if (event.target.id === "idle" && order) { order.plan = planWith(order.button, order.plan.status); word(); }
  });

  document.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.matches("form.token")) submitToken(event.target); else confirm();
  });

  function begin() {
    nameTheme();
    const forgets = $("#forget");
    forgets.hidden = !token();
    $("#order")?.addEventListener("close", comeBack);
    $("#sign-in")?.addEventListener("close", () => answerToken(false));
    told = nothing();
    torn = false;
    structure = "";
    collect();
    if (signedIn()) { connect(); return; }
    connection("off");
    if (token()) renew().catch(() => {}); else $("#token").focus();
  }

  document.addEventListener("DOMContentLoaded", begin);
})();
