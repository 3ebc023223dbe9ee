// The page for those who only read, who have no mouse, or mean harm.

import { accessibleInBothThemes, ask, check, fits, given, inChromium, openPage, picture, same, until } from "./harness.mjs";

const live = (page) => until("the page is live", async () => (await page.locator("#connection").getAttribute("data-state")) === "live");

// Without JavaScript everything can be read, and nothing is offered that would not work.
await inChromium(
  async (context) => {
    const page = await context.newPage();
    await page.goto(given.url);
    same(await page.locator('[data-k="shop/v1.state"]').textContent(), "current", "the state of v1");
    check(await page.locator('article[id="release-shop:v1"]').isVisible(), "the release is shown");
    check(await page.locator("noscript").first().isVisible(), "it says that it is a picture of one moment");
    same(await page.locator("button:visible").count(), 0, "buttons that would do nothing");
    await picture(page, "no-javascript");
  },
  { javaScriptEnabled: false },
);

await inChromium(async (context) => {
  const { page, faults, unexpected } = await openPage(context);
  await page.goto(given.url);
  await live(page);

  // By keyboard alone: to the button, into the dialog, and back to where one was.
  const focused = () => page.evaluate(() => document.activeElement.dataset.order ?? document.activeElement.id);
  let steps = 0;
  while ((await focused()) !== "promote shop/v2") {
    check(++steps < 100, "the button cannot be reached with the Tab key");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await until("the dialog is open", () => page.locator("dialog#order").evaluate((node) => node.open));
  check(await page.evaluate(() => document.querySelector("dialog#order").contains(document.activeElement)), "focus is in the dialog");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  check((await focused()) !== "promote shop/v2", "focus stays in the dialog");
  await page.keyboard.press("Escape");
  await until("Escape closes it", async () => !(await page.locator("dialog#order").evaluate((node) => node.open)));
  same(await focused(), "promote shop/v2", "where focus is after Escape");

  // A whole order by keyboard, the token included.
  await page.keyboard.press("Enter");
  await until("the dialog is open again", () => page.locator("dialog#order").evaluate((node) => node.open));
  for (steps = 0; (await focused()) !== "confirm"; steps += 1) {
    check(steps < 20, "the confirmation cannot be reached with the Tab key");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await until("the token is asked for", () => page.locator("dialog#sign-in").evaluate((node) => node.open));
  await page.keyboard.type(given.token);
  await page.keyboard.press("Enter");
  await until("v2 is current", async () => (await page.locator('[data-k="shop/v2.state"]').textContent()) === "current");
  await until("focus is on the page and not lost", () => page.evaluate(() => document.querySelector("#page").contains(document.activeElement)));

  // A problem is told in the words of the file, and words never become markup.
  await ask("break the file");
  await until("the problem is told", async () => (await page.locator("body").textContent()).includes(given.markup));
  same(await page.locator("img, b#injected, script:not([src])").count(), 0, "elements made of words");
  same(unexpected([/console: /]), [], "what the page must never do");

  // What somebody might get into the page does nothing.
  await page.evaluate((foreign) => {
    const put = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
    put("script", { textContent: "window.injected = true" });
    put("script", { src: `${foreign}/script.js` });
    put("img", { src: `${foreign}/image.png` });
    put("iframe", { src: foreign });
    put("div", { innerHTML: `<b onclick="window.injected = true" id="handler">x</b>` });
    document.getElementById("handler").click();
  }, given.foreign);
  const blocked = () => faults.filter((fault) => fault.startsWith("policy: ")).map((fault) => fault.split(" ")[1]);
  await until("the policy has blocked all of it", () =>
    ["script-src-elem", "script-src-attr", "img-src"].every((kind) => blocked().includes(kind)) && blocked().some((kind) => /frame-src|default-src|child-src/.test(kind)),
  );
  same(await page.evaluate(() => window.injected ?? null), null, "a script that was put into the page");
  same(await ask("foreign requests"), [], "requests to a foreign host");
});

// Where others can reach the admin address, nothing is told without the token.
await inChromium(async (context) => {
  const { page, unexpected } = await openPage(context);
  await page.goto(given.remote.url);
  const told = () => page.locator('[data-k="shop/v1.live"]').count();
  same(await told(), 0, "figures before signing in");
  check(!(await page.content()).includes("shop"), "not even names are told");
  await accessibleInBothThemes(page, "signing in");
  await fits(page, 360);
  await picture(page, "sign-in-360-light");
  await page.keyboard.type("wrong-wrong-wrong-wrong-wrong-wrong");
  await page.keyboard.press("Enter");
  await until("a wrong token is refused", async () => /wrong/.test(await page.locator("#token-refusal").textContent()));
  same(await told(), 0, "figures after a wrong token");
  await page.locator("#token").fill(given.remote.token);
  await page.keyboard.press("Enter");
  await live(page);
  same(await told(), 1, "figures with the token");
  await page.locator("#forget").click();
  await until("they are gone with the token", async () => (await told()) === 0);
  same(unexpected([/console: Failed to load resource: the server responded with a status of 401/]), [], "what the page must never do");
});
