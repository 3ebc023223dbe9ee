// The status page in the browser: keeps it up to date, and gives orders.
//
// It computes no figure: texts, bars and blocks come from the stream under the key that stands in the HTML. What the dialog before an order
// says stands in orders.js. Hooks for scripts and tests: see html.rs.
"use strict";

(() => {
  const TOKEN = "tidegate-token", THEME = "tidegate-theme";
  const $ = (selector, within = document) => within.querySelector(selector);
  const root = document.documentElement;
  root.classList.add("js");

  // Storage may be forbidden; then the theme follows the system and the token lives as long as the page.
  const kept = {
    memory: new Map(),
    read(store, key) { try { return window[store].getItem(key) ?? this.memory.get(key) ?? null; } catch { return this.memory.get(key) ?? null; } },
    write(store, key, value) {
      if (value === null) this.memory.delete(key); else this.memory.set(key, value);
      try { if (value === null) window[store].removeItem(key); else window[store].setItem(key, value); } catch { /* it is in memory */ }
    },
  };

  // ---- Theme -------------------------------------------------------------------------------------------------------------------

  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = kept.read("localStorage", THEME);
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  function nameTheme() {
    const button = $("#theme");
    if (button) button.setAttribute("aria-label", dark() ? "Light theme" : "Dark theme");
  }

  function switchTheme() {
    root.dataset.theme = dark() ? "light" : "dark";
    kept.write("localStorage", THEME, root.dataset.theme);
    nameTheme();
  }

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
  let told = { cells: {}, bars: {}, blocks: {} };
  let nodes = { k: new Map(), v: new Map(), b: new Map() };
  const shown = new WeakMap();

  function collect() {
    nodes = { k: new Map(), v: new Map(), b: new Map() };
    for (const [kind, map] of Object.entries(nodes)) {
      for (const node of document.querySelectorAll(`[data-${kind}]`)) map.set(node.dataset[kind], node);
    }
  }

  function patch({ cells = {}, bars = {}, blocks = {} }) {
    for (const [key, text] of Object.entries(cells)) {
      const node = nodes.k.get(key);
      if (!node || node.textContent === text) continue;
      node.textContent = text;
      if (node.dataset.w !== undefined) node.dataset.w = text;
    }
    for (const [key, share] of Object.entries(bars)) {
      const node = nodes.v.get(key);
      if (node && node.value !== share) node.value = share;
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
  }

  function unfold(ids) {
    for (const id of ids) { const node = document.getElementById(id); if (node) node.open = true; }
  }

  function announce(blocks) {
    if (!blocks || blocks.events === undefined) return;
    const latest = $(".events li");
    const text = latest ? `${$("b", latest).textContent}: ${$(".what", latest).textContent}` : "";
    const news = $("#news");
    if (news && news.textContent !== text) news.textContent = text;
  }

  /** Fetches the page and puts its main part in place of this one, with focus, scrolling and what is unfolded as they were. */
  async function renew() {
    const response = await fetch("/", { headers: bearer(), cache: "no-store" });
    if (response.status === 401) { keepToken(null); return signedOut("The token is not right any more."); }
    if (!response.ok) throw new Error(`page: ${response.status}`);
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    const main = $("#page"), other = $("#page", next);
    if (("signedOut" in main.dataset) !== ("signedOut" in other.dataset)) return replaceBody(next);
    const unfolded = [...document.querySelectorAll("details[open][id]")].map((node) => node.id);
    const scrolled = [...main.querySelectorAll(".scrolls")].map((node) => node.scrollTop);
    const focus = main.contains(document.activeElement) ? document.activeElement : null;
    const same = focus && (focus.dataset.order ? `[data-order="${CSS.escape(focus.dataset.order)}"]` : focus.id ? `#${CSS.escape(focus.id)}` : null);
    const place = focus?.closest("article, section")?.querySelector("h3[id], h2[id]")?.id;
    // Of many apps one has changed: sections that are equal stay.
    const before = [...main.children], after = [...other.children];
    if (before.length !== after.length) main.replaceChildren(...after);
    else before.forEach((section, index) => { if (!section.isEqualNode(after[index])) section.replaceWith(after[index]); });
    main.dataset.structure = other.dataset.structure;
    unfold(unfolded);
    main.querySelectorAll(".scrolls").forEach((node, index) => { node.scrollTop = scrolled[index] ?? 0; });
    if (focus) {
      const target = (same && $(same)) || (place && document.getElementById(place)) || main;
      target.focus({ preventScroll: true });
    }
    collect();
    patch(told);
  }

  function replaceBody(next) {
    document.body.replaceChildren(...next.body.childNodes);
    document.title = next.title;
    begin();
  }

  // ---- The stream --------------------------------------------------------------------------------------------------------------

  /** Longer silence than this is a broken connection: the process gives a sign of life every five seconds. */
  const SILENCE = 12000;
  let stream = null, heard = 0, since = null, attempts = 0, retry = 0, at = "";

  const clock = (iso) => (iso.split("T")[1] ?? "").replace("Z", "");
  const now = () => new Date().toISOString().replace(/\.\d+Z$/, "Z");

  function connection(state) {
    const node = $("#connection");
    if (!node) return;
    node.dataset.state = state;
    $(".says", node).textContent = { live: "live", lost: "not connected", off: "not live" }[state];
    document.body.classList.toggle("stale", state === "lost");
    const stale = $("#stale");
    if (state === "live") { since = null; stale.hidden = true; stale.textContent = ""; return; }
    if (state !== "lost") return;
    since ??= now();
    const shown = at ? `Showing the state of ${clock(at)}.` : "Showing the state of when this page was loaded.";
    const text = `Not connected since ${clock(since)} UTC. ${shown}`;
    if (stale.textContent !== text) stale.textContent = text;
    stale.hidden = false;
  }

  async function connect() {
    if (stream || document.hidden || "signedOut" in $("#page").dataset) return;
    clearTimeout(retry);
    const mine = new AbortController();
    stream = mine;
    heard = Date.now();
    try {
      const response = await fetch("/live", { headers: bearer(), cache: "no-store", signal: mine.signal });
      if (response.status === 401) { keepToken(null); signedOut("The token is not right any more."); return; }
      if (!response.ok) throw new Error(String(response.status));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        heard = Date.now();
        text += value;
        const frames = text.split("\n\n");
        text = frames.pop();
        for (const frame of frames) await take(frame, mine);
      }
    } catch (error) {
      if (mine.signal.aborted && mine.signal.reason === "hidden") return;
    } finally {
      if (stream === mine) stream = null;
    }
    if (document.hidden || "signedOut" in $("#page").dataset) return;
    connection("lost");
    attempts += 1;
    retry = setTimeout(connect, Math.min(5000, 250 * 2 ** attempts));
  }

  async function take(frame, mine) {
    const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
    if (!data || mine.signal.aborted) return;
    const news = JSON.parse(data);
    // Another binary may have another page. A dialog is finished first.
    if (news.build !== root.dataset.build && !document.querySelector("dialog[open]")) { location.reload(); return; }
    attempts = 0;
    at = news.at;
    for (const kind of Object.keys(told)) Object.assign(told[kind], news[kind]);
    if (news.structure !== $("#page").dataset.structure) await renew(); else patch(news);
    announce(news.blocks);
    connection("live");
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
    if ("signedOut" in $("#page").dataset) await renew(); else answerToken(true);
  }

  async function signedOut(why) {
    stream?.abort("hidden");
    stream = null;
    const response = await fetch("/", { cache: "no-store" });
    replaceBody(new DOMParser().parseFromString(await response.text(), "text/html"));
    const refusal = $("#page[data-signed-out] #token-refusal");
    if (refusal) refusal.textContent = why;
  }

  function forget() {
    keepToken(null);
    tell("The token is forgotten.");
    if (!$("#sign-in")) return;
    // Where reading needs it, too, nothing may stay on the screen.
    fetch("/", { cache: "no-store" }).then(async (response) => {
      const next = new DOMParser().parseFromString(await response.text(), "text/html");
      if ("signedOut" in $("#page", next).dataset) { stream?.abort("hidden"); stream = null; replaceBody(next); }
    }, () => {});
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
    const same = document.querySelector(`[data-order="${CSS.escape(button.dataset.order)}"]`);
    const target = button.dataset.order.split(" ")[1];
    const card = document.getElementById(`release-${target.split("/").slice(0, 2).join("-")}-name`);
    (same ?? card ?? $("#page")).focus({ preventScroll: true });
  }

  // ---- Begin -------------------------------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    if (button.dataset.order) open(button);
    else if (button.id === "theme") switchTheme();
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
    told = { cells: {}, bars: {}, blocks: {} };
    collect();
    if (!("signedOut" in $("#page").dataset)) { connect(); return; }
    connection("off");
    if (token()) renew().catch(() => {}); else $("#token").focus();
  }

  document.addEventListener("DOMContentLoaded", begin);
})();
