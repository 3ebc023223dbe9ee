#!/usr/bin/env python3
"""Draws a drain from what Prometheus has seen of it.

    plot.py --demo target/release/tidegate -o deploy/pictures/drain.svg     plays `tidegate demo` and draws it
    plot.py --prometheus http://localhost:9090 --app shop --minutes 60      draws the last hour of a real one

Every point is a number that Prometheus scraped; nothing is smoothed. --demo needs the program `prometheus`. Standard library only.
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

WIDTH, LEFT, RIGHT = 960, 64, 28
GAP, TOP, BOTTOM = 44, 64, 40
COUNTS = [step * 10**power for power in range(7) for step in (1, 2, 5)]
SPANS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400]
# What goes is warm, what comes is cool.
HUES = ["old", "new", "third", "fourth"]
STYLE = """
  .card{fill:#ffffff} .text{fill:#24292f} .dim{fill:#57606a} .grid{stroke:#d0d7de} .mark{stroke:#57606a}
  .old{fill:#e08a2e;stroke:#b8660f} .new{fill:#2a9d9d;stroke:#167272}
  .third{fill:#7d6bd0;stroke:#5a49ad} .fourth{fill:#8e8e8e;stroke:#666666}
  .eta{fill:#7d6bd0;stroke:#5a49ad} .bound{stroke:#c93c37} .real{stroke:#24292f}
  @media (prefers-color-scheme: dark){
    .card{fill:#0d1117} .text{fill:#e6edf3} .dim{fill:#9198a1} .grid{stroke:#30363d} .mark{stroke:#9198a1}
    .old{fill:#d07a24;stroke:#f0a04b} .new{fill:#1f8f8f;stroke:#4cc9c9}
    .third{fill:#7563c8;stroke:#a698f0} .fourth{fill:#6e7681;stroke:#9198a1}
    .eta{fill:#7563c8;stroke:#a698f0} .bound{stroke:#f47067} .real{stroke:#e6edf3}
  }
  text{font:12px -apple-system,BlinkMacSystemFont,"Segoe UI",Helvetica,Arial,sans-serif} .title{font-size:17px;font-weight:600}
  .head{font-weight:600} .grid{stroke-width:1} .area{fill-opacity:.78;stroke-width:1.5} .band{fill-opacity:.28;stroke:none}
  .line{fill:none;stroke-width:2} .dash{stroke-dasharray:6 5} .dots{stroke-dasharray:2 4} .mark{stroke-width:1;stroke-dasharray:3 3}
"""


class Question:
    """One span of time, asked of one Prometheus."""

    def __init__(self, url, start, end):
        # Whole seconds: Prometheus answers in milliseconds, and a moment at the edge is to stay within.
        self.url, self.start, self.end = url, math.floor(start), math.floor(end)
        # The demo is over in a minute and is scraped twice a second.
        self.step = max(0.5, math.floor((end - start) / 600))

    def series(self, expression, label):
        """{value of the label: [(time, number)]}, in the order of the labels."""
        form = {"query": expression, "start": self.start, "end": self.end, "step": self.step}
        with urllib.request.urlopen(self.url + "/api/v1/query_range", urllib.parse.urlencode(form).encode()) as answer:
            found = json.load(answer)["data"]["result"]
        numbers = {one["metric"].get(label, ""): [(float(t), float(v)) for t, v in one["values"]] for one in found}
        return dict(sorted(numbers.items()))


class Plot:
    """One panel: a scale for each axis, and what is drawn so far."""

    def __init__(self, title, top, height, span, highest, unit):
        self.top, self.height, self.span, self.unit = top, height, span, unit
        self.ticks = nice_ticks(highest, SPANS if unit == "s" else COUNTS)
        self.highest = max(highest, self.ticks[-1]) or 1
        self.out = [f'<text class="text head" x="{LEFT}" y="{top - 12}">{title}</text>']
        for tick in self.ticks:
            y = self.y(tick)
            self.out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.out.append(f'<text class="dim" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{self.named(tick)}</text>')

    def named(self, number):
        return span_named(number) if self.unit == "s" and number else f"{number:g}"

    def x(self, moment):
        start, end = self.span
        return LEFT + (moment - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    def y(self, number):
        return self.top + self.height * (1 - min(number, self.highest) / self.highest)

    def points(self, pairs):
        return " ".join(f"{self.x(t):.1f},{self.y(v):.1f}" for t, v in pairs)

    def area(self, lower, upper, classes):
        if upper:
            self.out.append(f'<polygon class="{classes}" points="{self.points(upper)} {self.points(reversed(lower))}"/>')

    def line(self, pairs, classes):
        if pairs:
            self.out.append(f'<polyline class="line {classes}" style="fill:none" points="{self.points(pairs)}"/>')

    def inside(self, lower, upper, text):
        """Where there is room: a third into the part where the area is thick, so that it stands on no mark."""
        most = max(high - low for (_, low), (_, high) in zip(lower, upper))
        thick = [(t, low, high) for (t, low), (_, high) in zip(lower, upper) if high - low > max(most * 0.7, self.highest / 12)]
        if thick:
            moment, low, high = thick[len(thick) // 3]
            x, y = self.x(moment), self.y((low + high) / 2) + 4
            self.out.append(f'<text class="text head" text-anchor="middle" x="{x:.1f}" y="{y:.1f}">{text}</text>')

    def mark(self, moment, text):
        if self.span[0] <= moment <= self.span[1]:
            x = self.x(moment)
            anchor, shift = ("end", -5) if x > WIDTH / 4 else ("start", 5)
            self.out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top - 4}" y2="{self.top + self.height}"/>')
            if text:
                self.out.append(f'<text class="dim" x="{x + shift:.1f}" y="{self.top + 8}" text-anchor="{anchor}">{text}</text>')


def nice_ticks(highest, steps):
    step = next((step for step in steps if highest / step <= 5), steps[-1])
    return [step * at for at in range(int(math.ceil(highest / step)) + 1)]


def span_named(seconds):
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds and seconds % size == 0):
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def stacked(series):
    """Each release's lower and upper edge, the first at the bottom; a release that is not there yet counts as nobody."""
    times = sorted({t for pairs in series.values() for t, _ in pairs})
    below = dict.fromkeys(times, 0.0)
    for release, pairs in series.items():
        here = dict(pairs)
        above = {t: below[t] + here.get(t, 0.0) for t in times}
        yield release, [(t, below[t]) for t in times], [(t, above[t]) for t in times]
        below = above


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw(question, app):
    """The picture as text, or None where nothing has drained."""
    sessions = question.series(f'sum by (release) (tidegate_sessions{{app="{app}"}})', "release")
    # The drain that began last is drawn; what goes out lies at the bottom.
    starts = question.series(f'max by (target) (tidegate_drain_started_timestamp_seconds{{target=~"{app}/[^/]*"}})', "target")
    begun = {target: pairs[-1][1] for target, pairs in starts.items() if question.start <= pairs[-1][1] <= question.end}
    if not sessions or not begun:
        return None
    target, promoted = max(begun.items(), key=lambda pair: pair[1])
    old = target.split("/")[1]
    order = sorted(sessions, key=lambda release: (release != old, release))
    sessions = {release: sessions[release] for release in order}
    left = question.series(f'sum by (target) (tidegate_drain_sessions_remaining{{target="{target}",kind!="unconfirmed"}})', "target")
    left = [(t, v) for t, v in left.get(target, []) if t >= promoted]
    done = question.series(f'max by (state) (tidegate_release_state{{app="{app}",release="{old}",state="drained"}})', "state")
    drained = next((t for t, v in done.get("drained", []) if v == 1 and t >= promoted), None)
    until = drained or question.end
    running = lambda pairs: [(t, v) for t, v in pairs if promoted <= t < until]
    eta = question.series(f'max by (quantile) (tidegate_drain_eta_seconds{{target="{target}"}})', "quantile")
    bound = question.series(f'max by (target) (tidegate_drain_upper_bound_seconds{{target="{target}"}})', "target")
    eta, bound = {q: running(pairs) for q, pairs in eta.items()}, running(bound.get(target, []))

    span = (question.start, question.end)
    most = max(upper for _, _, edge in stacked(sessions) for _, upper in edge)
    first = Plot(f"Sessions of {escaped(app)} by release", TOP + 14, 210, span, most, "")
    for hue, (release, lower, upper) in zip(HUES, stacked(sessions)):
        first.area(lower, upper, f"area {hue}")
        first.inside(lower, upper, escaped(release))
    second = Plot(f"Left on {escaped(old)}", first.top + first.height + GAP, 90, span, max((v for _, v in left), default=1), "")
    second.line([pair for pair in left if pair[0] <= until], "old")
    longest = max([v for pairs in [*eta.values(), bound] for _, v in pairs] + [until - promoted])
    title = "Time left: forecast (band 50 to 99 %, line 90 %), bound if nobody clicks again (dashed), and what it really was (dotted)"
    third = Plot(title, second.top + second.height + GAP, 130, span, longest, "s")
    third.area(eta.get("0.5", []), eta.get("0.99", []), "eta band")
    third.line(eta.get("0.9", []), "eta")
    third.line(bound, "bound dash")
    if drained:
        third.line([(promoted, drained - promoted), (drained, 0)], "real dots")
    for plot in (first, second, third):
        plot.mark(promoted, "promoted" if plot is first else "")
        plot.mark(drained or 0, f"drained, seen after {span_named(round(drained - promoted))}" if plot is first and drained else "")
    new = max(sessions, key=lambda release: sessions[release][-1][1] if release != old else -1)
    what = f"{old} empties, {new} fills" + (", and the end is proven" if drained else "; not over yet")
    return svg([first, second, third], what, question)


def svg(plots, what, question):
    last = plots[-1]
    height = last.top + last.height + BOTTOM
    start, end = last.span
    step = next((step for step in SPANS if (end - start) / step <= 10), SPANS[-1])
    axis = []
    for at in range(0, int(end - start) + 1, step):
        axis.append(f'<text class="dim" x="{last.x(start + at):.1f}" y="{height - 16}" text-anchor="middle">{span_named(at)}</text>')
    lines = [line for plot in plots for line in plot.out] + axis
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title what">',
            f"<title id=\"title\">A drain, as Prometheus saw it</title><desc id=\"what\">{escaped(what)}</desc>",
            f"<style>{STYLE}</style>",
            f'<rect class="card" width="{WIDTH}" height="{height}" rx="10"/>',
            f'<text class="text title" x="{LEFT}" y="34">{escaped(what)}</text>',
            *lines,
            f'<text class="dim" x="{WIDTH - RIGHT}" y="34" text-anchor="end">a point every {question.step:g} s</text>',
            "</svg>",
            "",
        ]
    )


def play(binary):
    """Plays `tidegate demo` before a Prometheus of its own: what can be asked then, that Prometheus, and its folder."""
    folder = tempfile.TemporaryDirectory(prefix="tidegate-plot-")
    demo = subprocess.Popen([binary, "demo"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    admin = next(line.split()[1] for line in demo.stdout if line.startswith("admin "))
    target = urllib.parse.urlparse(admin).netloc
    config = os.path.join(folder.name, "prometheus.yml")
    with open(config, "w") as file:
        job = {"job_name": "tidegate", "static_configs": [{"targets": [target]}]}
        json.dump({"global": {"scrape_interval": "500ms"}, "scrape_configs": [job]}, file)
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder.name}/data", f"--web.listen-address=127.0.0.1:{port}"]
    prometheus = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = time.time()
    for line in demo.stdout:
        print(line, end="", file=sys.stderr)
    end = time.time()
    if demo.wait() != 0:
        prometheus.kill()
        sys.exit("the demo did not end well; nothing is drawn")
    return Question(f"http://127.0.0.1:{port}", math.ceil(start) + 2, math.floor(end)), prometheus, folder


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", metavar="BINARY", help="play `BINARY demo` and draw that")
    parser.add_argument("--prometheus", metavar="URL", default="http://localhost:9090")
    parser.add_argument("--app", default="shop")
    parser.add_argument("--minutes", type=float, default=60, help="how far to look back (default 60)")
    parser.add_argument("-o", "--output", default="drain.svg")
    asked = parser.parse_args()
    prometheus = None
    if asked.demo:
        question, prometheus, _folder = play(asked.demo)
    else:
        now = time.time()
        question = Question(asked.prometheus.rstrip("/"), now - asked.minutes * 60, now)
    try:
        picture = draw(question, asked.app)
    finally:
        if prometheus:
            prometheus.kill()
            prometheus.wait()
    if picture is None:
        sys.exit(f"no drain of a release of {asked.app} began in that time")
    with open(asked.output, "w") as file:
        file.write(picture)
    print(f"written: {asked.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
