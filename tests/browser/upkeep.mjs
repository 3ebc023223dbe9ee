// The page stays true while things go wrong between it and the process, and asks no more of the process than it must.

import { ask, check, given, inChromium, openPage, same, until } from "./harness.mjs";

await inChromium(async (context) => {
  const { page, unexpected } = await openPage(context);
  const fetched = { pages: 0, streams: 0 };
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    if (pathname === "/") fetched.pages += 1;
    if (pathname === "/live") fetched.streams += 1;
  });
  const connection = (state) => until(`the connection is ${state}`, async () => (await page.locator("#connection").getAttribute("data-state")) === state);
  const order = (words) => page.locator(`button[data-order="${words}"]`);

  // More frames that nobody understands than a browser has connections: each of them is given back.
  await page.addInitScript(() => {
    const parse = JSON.parse;
    window.broken = 8;
    JSON.parse = (text, ...more) => {
      if (typeof text === "string" && text.startsWith('{"at":') && window.broken > 0) { window.broken -= 1; throw new Error("broken"); }
      return parse(text, ...more);
    };
  });
  await page.goto(given.url);
  await until("it is live after eight broken streams", async () => {
    await page.evaluate(() => dispatchEvent(new Event("online")));
    return (await page.locator("#connection").getAttribute("data-state")) === "live";
  });
  check(fetched.streams > 8, `only ${fetched.streams} streams were begun`);
  same(await page.locator("#news").textContent(), "", "what is read aloud though nothing has happened");

  // An order hides and shows buttons; nobody fetches the page again for that, and focus is not lost with a button.
  const before = { ...fetched };
  await order("maintain shop/v2/b1").focus();
  await ask("maintain");
  await order("serve shop/v2/b1").waitFor({ state: "visible" });
  same(await order("maintain shop/v2/b1").isVisible(), false, "an order that makes no sense is shown");
  check(await page.evaluate(() => document.activeElement.closest("article")?.textContent.includes("v2")), "focus has left the card");
  await until("the news is read aloud", async () => /shop\/v2\/b1/.test(await page.locator("#news").textContent()));
  await ask("serve");
  await order("maintain shop/v2/b1").waitFor({ state: "visible" });
  same(fetched, before, "what was fetched because of two orders");

  // Something has come, and the page cannot be fetched: it says so, and its stream goes on.
  const structure = (url) => url.searchParams.has("structure");
  await page.route(structure, (route) => route.abort());
  await ask("promote");
  await connection("lost");
  check(/^Incomplete since/.test(await page.locator("#stale").textContent()), "it does not say what is wrong");
  await until("figures go on", async () => (await page.locator('[data-k="shop/v1.state"]').textContent()) === "draining");
  await page.unroute(structure);
  await page.locator("article[data-drain]", { hasText: "shop/v1" }).waitFor();
  await connection("live");
  same(fetched.streams, before.streams, "streams that were begun meanwhile");
  same(unexpected([/console: Failed to load resource: net::ERR_FAILED/]), [], "what the page must never do");
});

// Whoever forgets the token while nothing answers leaves nothing on the screen.
await inChromium(async (context) => {
  const { page } = await openPage(context);
  await page.goto(given.remote.url);
  await page.locator("#token").fill(given.remote.token);
  await page.keyboard.press("Enter");
  const told = page.locator('[data-k="shop/v1.live"]');
  await told.waitFor();
  const everything = (url) => url.pathname === "/";
  await page.route(everything, (route) => route.abort());
  await page.locator("#forget").click();
  await page.getByText("Signed out, not connected.").waitFor();
  check(!(await page.content()).includes("shop"), "something is left on the screen");
  await page.unroute(everything);
  await page.locator("#page[data-signed-out] #token").waitFor();
  await page.locator("#token").fill(given.remote.token);
  await page.keyboard.press("Enter");
  await told.waitFor();
});
