// What every script here needs: one Chromium, a line to the Rust test, and the rules that hold for every page.
//
// A script is started by tests/it/chromium.rs with its arguments as JSON. `ask(name, …)` has the test do something outside
// of the browser (users click, a process restarts) and waits for its answer. Whatever is thrown fails the test.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

// Libraries are installed below target/, far from these files.
const installed = createRequire(join(process.env.TIDEGATE_BROWSER_TOOLS, "package.json"));
const { chromium } = installed("playwright-core");
const AXE = installed.resolve("axe-core/axe.min.js");

export const given = JSON.parse(process.argv[2]);

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
// Nobody waits for an answer yet, so the pipe alone must not keep the script alive.
process.stdin.unref?.();

/** Has the Rust test do something; its answer. */
export async function ask(what, values = {}) {
  process.stdout.write(JSON.stringify({ ask: what, ...values }) + "\n");
  process.stdin.ref?.();
  const { value, done } = await answers.next();
  process.stdin.unref?.();
  if (done) throw new Error(`nobody answers: ${what}`);
  return JSON.parse(value);
}

/** For the log of the test, with the seconds since the script began. */
export function say(...words) {
  process.stderr.write(`${(performance.now() / 1000).toFixed(1)} s: ${words.join(" ")}\n`);
}

export function check(truth, what) {
  if (!truth) throw new Error(what);
}

export function same(found, expected, what) {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  check(one === other, `${what}: expected ${other}, found ${one}`);
}

/** Looks until `look` gives something true; the page itself changes, nobody reloads it. */
export async function until(what, look, seconds = 40) {
  const end = Date.now() + seconds * 1000;
  let last;
  while (Date.now() < end) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await new Promise((go) => setTimeout(go, 50));
  }
  throw new Error(`waited ${seconds} s in vain until ${what}; last: ${last}`);
}

/** A Chromium with a profile of its own; closed when `story` ends. */
export async function inChromium(story, options = {}) {
  const context = await chromium.launchPersistentContext(join(given.scratch, `profile-${Date.now()}`), {
    executablePath: "/usr/bin/chromium",
    headless: true,
    chromiumSandbox: false,
    args: [
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    viewport: { width: 1280, height: 900 },
    ...options,
  });
  context.setDefaultTimeout(40_000);
  try {
    await story(context);
  } finally {
    await context.close();
  }
}

/**
 * A page that notes what it must never do: break the policy, throw, complain, or ask a foreign host.
 * `faults` are all of them so far; `expected` (regular expressions) are those that the script provokes.
 */
export async function openPage(context) {
  const page = await context.newPage();
  const faults = [];
  const own = [given.url, given.remote?.url ?? given.url].map((url) => new URL(url).origin + "/");
  page.on("pageerror", (error) => faults.push(`thrown: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!own.some((origin) => request.url().startsWith(origin)) && !request.url().startsWith("data:")) faults.push(`foreign: ${request.url()}`);
  });
  await page.exposeFunction("tidegateTestViolation", (what) => faults.push(`policy: ${what}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.tidegateTestViolation(`${event.effectiveDirective} ${event.blockedURI}`),
    );
  });
  const unexpected = (expected = []) => faults.filter((fault) => !expected.some((words) => words.test(fault)));
  return { page, faults, unexpected };
}

/** A picture of the whole page for people to look at. */
export async function picture(page, name) {
  mkdirSync(given.screenshots, { recursive: true });
  await page.screenshot({ path: join(given.screenshots, `${name}.png`), fullPage: true });
}

/** Nothing is cut off or has to be moved sideways. */
export async function fits(page, width) {
  await page.setViewportSize({ width, height: 800 });
  const found = await page.evaluate(() => {
    const root = document.documentElement;
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      const box = element.getBoundingClientRect();
      if (box.width === 0 || box.right <= root.clientWidth + 1) return false;
      // What scrolls in a box of its own, or is hidden for eyes only, does no harm.
      for (let at = element; at && at !== document.body; at = at.parentElement) {
        const style = getComputedStyle(at);
        if (style.overflowX !== "visible" || style.clipPath !== "none") return false;
      }
      return true;
    });
    // A label that a narrow column breaks into letters.
    const broken = [...document.querySelectorAll("button")].filter((button) => {
      const { fontSize, paddingTop, paddingBottom } = getComputedStyle(button);
      return button.clientHeight - parseFloat(paddingTop) - parseFloat(paddingBottom) > 3.4 * parseFloat(fontSize);
    });
    // Within a row, what lies on something else hides it.
    const covered = [];
    for (const row of document.querySelectorAll("main tr, main header, main dl")) {
      const parts = [...row.querySelectorAll("[data-k], button, .address, h3")].map((part) => [part, part.getBoundingClientRect()]);
      const seen = parts.filter(([, box]) => box.width > 0 && box.height > 0);
      for (const [index, [part, box]] of seen.entries()) {
        const over = seen.slice(index + 1).find(([other, { left, right, top, bottom }]) => {
          const [wide, high] = [Math.min(right, box.right) - Math.max(left, box.left), Math.min(bottom, box.bottom) - Math.max(top, box.top)];
          return !part.contains(other) && wide > 1 && high > 1;
        });
        if (over) covered.push(`${part.dataset.k ?? part.textContent} by ${over[0].dataset.k ?? over[0].textContent}`);
      }
    }
    return {
      covered: covered.slice(0, 5),
      broken: broken.slice(0, 5).map((button) => button.getAttribute("aria-label") ?? button.textContent),
      scrolls: root.scrollWidth - root.clientWidth,
      wide: wide.slice(0, 5).map((element) => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`),
    };
  });
  check(found.broken.length === 0, `at ${width} px the words of buttons are broken into pieces: ${found.broken.join("; ")}`);
  check(found.covered.length === 0, `at ${width} px something lies on something else: ${found.covered.join("; ")}`);
  check(found.scrolls <= 0, `at ${width} px the page scrolls sideways by ${found.scrolls} px: ${found.wide.join("; ")}`);
}

/** What axe-core finds; each of them is a failure. */
export async function accessible(page, when) {
  if (!(await page.evaluate(() => "axe" in window))) {
    // By the debugger's way in: the page's own policy would forbid a script element.
    const { readFileSync } = await import("node:fs");
    await page.evaluate(readFileSync(AXE, "utf8"));
  }
  const found = await page.evaluate(async () => {
    const results = await window.axe.run(document, { resultTypes: ["violations"] });
    return results.violations.map(({ id, impact, help, nodes }) => ({
      id,
      impact,
      help,
      where: nodes.slice(0, 3).map((node) => `${node.target.join(" ")} (${node.failureSummary ?? ""})`),
    }));
  });
  for (const one of found) say(`axe ${when}: ${one.impact} ${one.id}: ${one.help}\n  ${one.where.join("\n  ")}`);
  same(found.map((one) => `${one.impact} ${one.id}`), [], `what axe-core finds ${when}`);
}

/** In both colour schemes. */
export async function accessibleInBothThemes(page, when) {
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    await accessible(page, `${when}, ${colorScheme}`);
  }
}
