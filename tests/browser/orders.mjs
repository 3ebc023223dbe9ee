// What the dialog before an order says, out of status documents: nobody is said to be gone who may be there.

import { readFileSync } from "node:fs";

globalThis.window = {};
globalThis.document = { querySelector: () => null };
globalThis.CSS = { escape: (text) => text };
new Function(readFileSync(new URL("../../src/serve/admin/page/assets/orders.js", import.meta.url), "utf8"))();
const orders = globalThis.window.tidegateOrders(() => {});

const sessions = (live, engaged, unconfirmed = 0) => ({ live, engaged, kept_alive: live - engaged, unconfirmed });
const release = (state, counts) => ({ state, sessions: counts, backends: { a1: { intent: "serve", health: "up", admission: "everyone", in_flight: 0, sessions: counts } } });
const status = (state, counts, drain) => ({
  apps: { shop: { current: "v2", releases: { v1: release(state, counts), v2: release("current", sessions(0, 0)) } } },
  drains: drain ? [{ id: "d7", target: "shop/v1", verdict: null, ...drain }] : [],
});

function check(order, document, expected, danger) {
  const said = orders[order]("shop/v1", document, null, {});
  const found = JSON.stringify([said.says.at(-1), Boolean(said.danger), said.says.some((text) => /switched off/.test(text))]);
  const wanted = JSON.stringify([expected, danger, order === "stop" && !danger]);
  if (found !== wanted) throw new Error(`${order}: expected ${wanted}, found ${found}`);
}

const none = sessions(0, 0);
const sure = { confident: true }, doubted = { confident: false, confidence: "seen for 8s of 30m" };
check("stop", status("draining", none, sure), "Nobody has a session on v1.", false);
check("stop", status("drained", none), "Nobody has a session on v1.", false);
check("stop", status("staged", none), "No session is known on v1.", false);
check("stop", status("draining", none, doubted), "No session is known on v1, but the count is not sure: seen for 8s of 30m. It may be refused for that.", true);
check("stop", status("draining", none), "No session is known on v1.", true);
check("stop", status("draining", sessions(0, 0, 2), sure), "Nobody has a session on v1 but 2 unconfirmed newborns. That is refused while it is so.", true);
check("stop", status("draining", sessions(37, 12), sure), "37 people are on v1; 12 are active. That is refused while it is so.", true);
check("evict", status("draining", none, doubted), "No session is known on v1, but the count is not sure: seen for 8s of 30m.", true);
