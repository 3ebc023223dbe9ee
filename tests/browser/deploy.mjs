// A whole deploy by somebody who has only the page: promote, roll back, promote again, drain a backend, evict, stop; then the process
// is restarted and replaced under the open page. Users click all the while.
//
// The page is loaded once. A mark in its window proves at the end that whatever it shows came to it without a reload.

import { accessibleInBothThemes, ask, check, fits, given, inChromium, openPage, picture, same, until } from "./harness.mjs";

const status = async () => (await fetch(new URL("/api/v1/status", given.url))).json();
const shop = async () => (await status()).apps.shop;

/** What the browser itself reports of answers that this script provokes. */
const EXPECTED = [
  /console: Failed to load resource: the server responded with a status of (401|409)/,
  /console: Failed to load resource: net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)/,
];

await inChromium(async (context) => {
  const { page, unexpected } = await openPage(context);
  const order = (words) => page.locator(`button[data-order="${words}"]`);
  const cell = (key) => page.locator(`[data-k="${key}"]`);
  const dialog = page.locator("dialog#order");
  const text = async (locator) => ((await locator.count()) ? (await locator.first().textContent()).trim() : null);
  const shows = (key, value) => until(`${key} says ${value}`, async () => (await text(cell(key))) === value);
  const is = (release, state) => shows(`shop/${release}.state`, state);
  const closed = () => until("the dialog is closed", async () => !(await dialog.evaluate((node) => node.open)));

  async function give(words) {
    await order(words).click();
    await until(`the dialog of "${words}" is open`, () => dialog.evaluate((node) => node.open));
  }
  async function confirmed(words) {
    await give(words);
    await page.locator("#confirm").click();
    await closed();
  }
  async function pictures(name) {
    for (const colorScheme of ["dark", "light"]) {
      for (const width of [390, 1280]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        await picture(page, `${name}-${width}-${colorScheme}`);
      }
    }
  }

  await page.goto(given.url);
  await page.evaluate(() => { window.sameWindow = true; });
  await until("the page is live", async () => (await page.locator("#connection").getAttribute("data-state")) === "live");
  await shows("shop/v1.live", "6");
  await pictures("before");
  for (const width of [360, 768, 1024, 1280]) await fits(page, width);
  await accessibleInBothThemes(page, "before the deploy");

  // Promote: the dialog says in figures what will happen, and nothing happens without the token.
  await give("promote shop/v2");
  const { live, engaged } = (await shop()).releases.v1.sessions;
  same([live, engaged], [6, 6], "users on v1");
  check((await text(page.locator("#order-says"))).includes(`${live} people are on v1; ${engaged} are active.`), `figures: ${await text(page.locator("#order-says"))}`);
  await accessibleInBothThemes(page, "asked for a confirmation");
  await pictures("confirm");
  for (const width of [360, 768, 1024, 1280]) await fits(page, width);
  await page.locator("#confirm").click();
  await until("the token is asked for", () => page.locator("dialog#sign-in").evaluate((node) => node.open));
  await accessibleInBothThemes(page, "asked for the token");
  await page.locator("#token").fill("wrong-wrong-wrong-wrong-wrong-wrong");
  await page.locator("#token-go").click();
  await until("a wrong token is refused", async () => /wrong/.test(await text(page.locator("#token-refusal"))));
  await pictures("token");
  same((await shop()).current, "v1", "current, with a wrong token");
  await page.locator("#token").fill(given.token);
  await page.locator("#token-go").click();
  await closed();
  await is("v2", "current");
  await is("v1", "draining");
  same((await shop()).current, "v2", "current");
  same(await page.evaluate(() => [Object.keys(sessionStorage).length, document.cookie]), [1, ""], "the token is kept in sessionStorage alone");

  // The wave goes out, and the bar moves with it.
  const drain = (await status()).drains.find((one) => one.target === "shop/v1" && one.verdict === null);
  const bar = page.locator(`progress[data-v="${drain.id}.progress"]`);
  same(await bar.evaluate((node) => node.value), 0, "the bar at first");
  await ask("leave", { release: "v1", count: 3 });
  await shows(`${drain.id}.remaining`, "3");
  same(await bar.evaluate((node) => node.value), 0.5, "the bar when half of them have left");
  await ask("come", { count: 4 });
  await until("the new wave comes in", async () => Number(await text(cell("shop/v2.live"))) >= 4);
  await until("the curve shows both releases", async () => {
    const drawn = await page.locator('[data-b="shop.curve"]').textContent();
    return drawn.includes("v1") && drawn.includes("v2");
  });
  check(/promoted/.test(await text(page.locator('[data-b="events"]'))), "the event log tells of the promotion");
  await accessibleInBothThemes(page, "during the drain");
  await pictures("draining");
  for (const width of [360, 768, 1024, 1280]) await fits(page, width);

  // Back, and forth again.
  await confirmed("rollback shop");
  await is("v1", "current");
  await is("v2", "draining");
  await confirmed("promote shop/v2");
  await is("v2", "current");
  await is("v1", "draining");

  // One backend out and in again.
  await confirmed("drain shop/v2/b1");
  await shows("shop/v2/b1.intent", "drain");
  await shows("shop/v2/b1.admission", "known sessions");
  await confirmed("serve shop/v2/b1");
  await shows("shop/v2/b1.admission", "everyone");

  // Maintenance under people is refused, and the remedy stands there.
  await give("maintain shop/v2/b2");
  await page.locator("#confirm").click();
  await until("a refusal with its remedy", async () => (await page.locator("#refusal .error").count()) && (await text(page.locator("#refusal .remedy"))));
  check(await dialog.evaluate((node) => node.open), "the dialog stays while the order is refused");
  await accessibleInBothThemes(page, "refused");
  await pictures("refused");
  await page.locator("#cancel").click();
  await closed();
  same((await shop()).releases.v2.backends.b2.intent, "serve", "what was refused");

  // Away with the last ones, and the proof comes.
  await give("evict shop/v1");
  check(/3 people/.test(await text(page.locator("#confirm"))), `whom it evicts: ${await text(page.locator("#confirm"))}`);
  await page.locator("#confirm").click();
  await closed();
  await is("v1", "drained");
  await until("its verdict is shown", async () => /drained/.test(await text(page.locator("table.verdicts"))));
  await confirmed("stop shop/v1");
  await is("v1", "stopped");
  await pictures("after");
  for (const width of [360, 768, 1024, 1280]) await fits(page, width);
  await accessibleInBothThemes(page, "after the deploy");

  // The process ends under the open page, and another one begins; then it is replaced.
  await ask("stop");
  await until("the page says that it is not connected", async () => (await page.locator("#connection").getAttribute("data-state")) === "lost");
  check(await page.locator("#stale").isVisible(), "a page that shows old figures says so");
  // The last word may have been another one; this is the one that a process says while it ends.
  await page.evaluate(() => Object.assign(document.querySelector('[data-k="process"]'), { textContent: "stopping" }).setAttribute("data-w", "stopping"));
  await accessibleInBothThemes(page, "not connected");
  await pictures("lost");
  await ask("start");
  await until("it goes on by itself", async () => (await page.locator("#connection").getAttribute("data-state")) === "live");
  const before = Number(await text(cell("shop/v2.live")));
  await ask("upgrade");
  await ask("come", { count: 2 });
  await until("it goes on after an upgrade", async () => Number(await text(cell("shop/v2.live"))) === before + 2);
  same(await page.evaluate(() => window.sameWindow), true, "the page was never loaded again");
  same(unexpected(EXPECTED), [], "what the page must never do");
});
