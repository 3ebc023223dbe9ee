// What each order on the status page means: said in figures before it is given, out of the status document of that moment, and the call to
// the API that gives it. Nothing here touches the page.
"use strict";

window.tidegateOrders = (() => {
  const people = (count) => (count === 1 ? "1 person" : `${count} people`);
  const be = (count) => (count === 1 ? "is" : "are");
  const finish = (count) => (count === 1 ? "That person finishes there" : "They finish there");
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const sum = (all, kind) => all.reduce((total, one) => total + one[kind], 0);

  /** What a target is at this moment. */
  function look(status, target) {
    const [app, release, backend] = target.split("/");
    const found = status.apps[app];
    const of = found?.releases[release];
    const one = of?.backends[backend];
    if (!found || (release && !of) || (backend && !one)) throw { status: 404, error: `${target} does not exist any more`, remedy: "look at the page again" };
    return { app, release, backend, found, of, one, name: backend ?? release, sessions: (one ?? of)?.sessions, current: found.releases[found.current] };
  }

  /** What proves or doubts the count of a target: the drain that runs on it, or on its release. */
  function proof(status, target) {
    const [app, release, backend] = target.split("/");
    const drain = drainOf(status, target) ?? drainOf(status, `${app}/${release}`);
    const drained = !backend && status.apps[app].releases[release].state === "drained";
    return { sure: drained || drain?.confident === true, doubt: drain && !drain.confident ? drain.confidence ?? "sessions from before may exist" : "" };
  }

  /** `37 people are on v41; 12 are active.` That nobody is there is said only where it is proven. */
  function who(status, target) {
    const { name, sessions } = look(status, target), { sure, doubt } = proof(status, target);
    if (sessions.live) return `${people(sessions.live)} ${be(sessions.live)} on ${name}; ${sessions.engaged} ${be(sessions.engaged)} active.`;
    const but = sessions.unconfirmed ? ` but ${count(sessions.unconfirmed, "unconfirmed newborn")}` : "";
    return sure ? `Nobody has a session on ${name}${but}.` : `No session is known on ${name}${but}${doubt ? `, but the count is not sure: ${doubt}` : ""}.`;
  }

  const drainOf = (status, target) => status.drains.find((drain) => drain.target === target && drain.verdict === null);

  function becomesCurrent(status, at, release) {
    const backends = Object.values(at.found.releases[release].backends);
    const up = backends.filter((backend) => backend.health === "up" && backend.intent === "serve").length;
    const says = [`${release} takes all new sessions from now on. ${up} of its ${count(backends.length, "backend")} ${be(up)} up.`];
    if (at.current) {
      const { live } = at.current.sessions;
      says.push(who(status, `${at.app}/${at.found.current}`) + (live ? ` ${finish(live)}; new ones get ${release}.` : ""));
    }
    return says;
  }

  /** Where those go who are new, without this backend. */
  function elsewhere(at) {
    const names = [];
    for (const [release, { backends }] of Object.entries(at.found.releases)) {
      for (const [name, { admission }] of Object.entries(backends)) if (admission === "everyone" && !(release === at.release && (!at.backend || name === at.backend))) names.push(`${release}/${name}`);
    }
    const more = names.length > 4 ? ` and ${names.length - 4} more` : "";
    return names.length ? names.slice(0, 4).join(", ") + more : null;
  }

  function evicted(at, sessions) {
    const rate = Number(document.querySelector(`[data-app="${CSS.escape(at.app)}"]`)?.dataset.evictPerSecond ?? 50);
    const to = elsewhere(at) ?? "nowhere: nobody takes new sessions";
    const seconds = Math.ceil(sessions.live / Math.max(1, rate));
    const says = [`${people(sessions.live)} ${be(sessions.live)} sent away from ${at.name} now, ${rate} per second${seconds > 1 ? `: that takes ${count(seconds, "second")}` : ""}. Whoever comes back is new on ${to}.`];
    const active = { 0: "None of them is active.", 1: "1 of them is active and loses what is not saved." };
    says.push(active[sessions.engaged] ?? `${sessions.engaged} of them are active and lose what they have not saved.`);
    return says;
  }

  const began = (drains = []) => (drains.length ? ` Drain ${drains.join(", ")} runs.` : "");

  /** By the word of the button: what will happen, and the call that makes it so. */
  return (ask) => ({
    promote(target, status) {
      const at = look(status, target);
      const own = drainOf(status, target);
      return {
        title: `Promote ${at.release}?`, confirm: `Promote ${at.release}`, options: ["deadline", "then"], force: true,
        says: [...becomesCurrent(status, at, at.release), ...(own ? [`${at.release} drains at present: that drain, ${own.id}, ends.`] : [])],
        call: (fields) => ask("POST", `/api/v1/apps/${at.app}/promote`, { release: at.release, from: at.found.current, ...fields }),
        done: (answer) => `${at.release} takes new sessions.${began(answer.drains)}`,
      };
    },
    rollback(target, status, button) {
      const at = look(status, target), to = button.dataset.to;
      return {
        title: `Roll back ${at.app} to ${to}?`, confirm: `Roll back to ${to}`, options: ["deadline", "then"], force: true,
        says: becomesCurrent(status, at, to),
        call: (fields) => ask("POST", `/api/v1/apps/${at.app}/rollback`, { to, from: at.found.current, ...fields }),
        done: (answer) => `${to} takes new sessions again.${began(answer.drains)}`,
      };
    },
    drain(target, status) {
      const at = look(status, target), to = elsewhere(at), { live } = at.sessions;
      return {
        title: `Drain ${at.name}?`, confirm: `Drain ${at.name}`, options: ["deadline", "then"], force: true,
        says: [
          at.one && at.one.admission !== "everyone"
            ? `${at.name} takes no new sessions now (it is ${at.one.health}), nor will it until it serves again.`
            : `${at.name} takes no new sessions from now on${to ? `; they go to ${to}` : ". It is the last one that does"}.`,
          who(status, target) + (live ? ` ${finish(live)}.` : ""),
        ],
        call: (fields) => ask("POST", "/api/v1/drains", { target, ...fields }),
        done: (answer) => `Drain ${answer.id} of ${target} began with ${people(answer.initial)}.`,
      };
    },
    serve(target, status) {
      const at = look(status, target), drain = drainOf(status, target);
      return {
        title: `Let ${at.name} serve?`, confirm: `${at.name} serves`, options: [], force: false,
        says: [
          `${at.name} takes part again${at.one ? (at.one.health === "up" ? " at once: it is up" : ` as soon as it is up (it is ${at.one.health})`) : ""}.`,
          who(status, target),
          ...(drain ? [`Drain ${drain.id} of it ends without a verdict, ${drain.remaining} of ${drain.initial} left.`] : []),
        ],
        call: () => ask("POST", "/api/v1/intent", { target, intent: "serve" }),
        done: () => `${target} serves.`,
      };
    },
    maintain(target, status) {
      const at = look(status, target), { live } = at.sessions;
      return {
        title: `Maintain ${at.name}?`, confirm: `Maintain ${at.name}`, options: [], force: true, danger: live > 0,
        says: [
          `Nobody goes to ${at.name} any more, whoever has a session there neither.`,
          who(status, target) + (live ? " That is refused: drain it first." : ""),
        ],
        call: (fields) => ask("POST", "/api/v1/intent", { target, intent: "maintain", ...fields }),
        done: () => `Nobody goes to ${target} any more.`,
      };
    },
    evict(target, status, button, { idle } = {}) {
      const at = look(status, target), all = people(at.sessions.live);
      const silent = [`Of ${all} on ${at.name} those are sent away now who have been silent for ${idle}. Their number is told afterwards.`];
      return {
        title: `Evict ${idle ? "the silent" : "everybody"} from ${at.name}?`, confirm: `Evict ${idle ? "the silent" : all}`, options: ["idle"], force: false, danger: true,
        says: at.sessions.live ? (idle ? silent : evicted(at, at.sessions)) : [who(status, target)],
        call: (fields) => ask("POST", "/api/v1/evict", { target, ...fields }),
        done: (answer) => `${people(answer.evicted)} ${be(answer.evicted)} sent away from ${target}.`,
      };
    },
    stop(target, status) {
      const at = look(status, target), { live, unconfirmed } = at.sessions, flight = sum(Object.values(at.of.backends), "in_flight");
      // A staged one has never served: nobody can be there.
      const none = live + unconfirmed === 0 && (at.of.state === "staged" || proof(status, target).sure);
      const off = `, and it may be switched off${flight ? ` when the ${count(flight, "exchange")} under way ${flight === 1 ? "has" : "have"} ended` : ""}`;
      return {
        title: `Stop ${at.release}?`, confirm: `Stop ${at.release}`, options: [], force: true, danger: !none,
        says: [
          `${at.release} admits nobody any more${none ? off : ""}.`,
          who(status, target) + (live + unconfirmed ? " That is refused while it is so." : proof(status, target).doubt ? " It may be refused for that." : ""),
        ],
        call: (fields) => ask("POST", `/api/v1/apps/${at.app}/releases/${at.release}/stop`, fields.force ? fields : {}),
        done: () => `${target} is stopped.`,
      };
    },
    cancel(id, status) {
      const drain = status.drains.find((one) => one.id === id);
      if (!drain) throw { status: 404, error: `drain ${id} does not exist any more`, remedy: "look at the page again" };
      const release = drain.target.split("/").length === 2 && !drain.target.startsWith("host:");
      return {
        title: `Cancel drain ${id} of ${drain.target}?`, confirm: `Cancel drain ${id}`, options: [], force: false,
        says: [
          `${drain.remaining} of ${drain.initial} are left; ${drain.sessions.engaged} ${be(drain.sessions.engaged)} active.`,
          release ? `${drain.target} goes on without new sessions, but nobody watches for its last one. Promote it to let it serve again.` : `${drain.target} serves again and takes new sessions.`,
        ],
        call: () => ask("DELETE", `/api/v1/drains/${id}`),
        done: () => `Drain ${id} is cancelled.`,
      };
    },
  });
})();
