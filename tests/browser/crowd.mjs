// A thousand backends and fifty drains: how long until they are seen, and whether the page stays smooth while figures change.
//
// Times are those of the browser itself; a busy machine is no fault of the page, so what is asserted is generous.

import { ask, check, fits, given, inChromium, openPage, picture, same, say, until } from "./harness.mjs";

await inChromium(async (context) => {
  const { page, unexpected } = await openPage(context);
  await page.addInitScript(() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
    }).observe({ type: "longtask", buffered: true });
    addEventListener("DOMContentLoaded", () => {
      // The frame after the next one begins when the first has been painted.
      requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); }));
    });
  });
  const loads = [];
  for (let load = 0; load < 3; load += 1) {
    await page.goto(given.url, { waitUntil: "commit" });
    loads.push(await until("it is painted", () => page.evaluate(() => window.painted)));
  }
  await until("the page is live", async () => (await page.locator("#connection").getAttribute("data-state")) === "live");
  same(await page.locator("tr[data-backend]").count(), given.backends, "backends on the page");
  same(await page.locator("article[data-drain]").count(), given.drains, "drains on the page");
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  const first = await page.evaluate(() => window.longest);

  await page.evaluate(() => {
    new MutationObserver((all) => { window.changed += all.length; }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  /** The longest task while the test does something, and how many places of the page changed. */
  async function during(what) {
    await page.evaluate(() => Object.assign(window, { longest: 0, changed: 0 }));
    await ask(what);
    return page.evaluate(() => ({ longest: window.longest, changed: window.changed }));
  }
  const figures = await during("users come");
  check(figures.changed >= given.users, `figures changed in ${figures.changed} places`);
  const orders = await during("backends are maintained");
  check(orders.changed >= given.maintained, `the page changed in ${orders.changed} places`);
  loads.sort((one, other) => one - other);
  const whole = (ms) => `${Math.round(ms)} ms`;
  say(`page of ${given.backends} backends and ${given.drains} drains (${nodes} elements): painted after ${loads.map(whole).join(", ")};`);
  say(`longest task (those below 50 ms count as 0) while loading ${whole(first)}, while ${given.users} users come ${whole(figures.longest)},`);
  say(`while ${given.maintained} backends go into maintenance one by one ${whole(orders.longest)}`);
  check(loads[1] < 5000, `painted after ${whole(loads[1])}`);
  check(figures.longest < 1000, `a task of ${whole(figures.longest)} while figures change`);
  check(orders.longest < 5000, `a task of ${whole(orders.longest)} while backends change`);

  await fits(page, 360);
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.screenshot({ path: `${given.screenshots}/crowd.png` });
  same(unexpected(), [], "what the page must never do");
});
