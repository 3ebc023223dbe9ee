"""Prints every field of the given dashboards that Grafana's own model of a dashboard does not know, one a line.

A field that Grafana does not know is silently ignored by it: mostly a word that is spelled wrong, or stands in the wrong place.
"""

import json
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

# Known to the Prometheus data source and to the editor of variables, which the model leaves to them.
ELSEWHERE = ("expr", "step", "titleFormat", "textFormat", "tagKeys", "useValueForTime", "target", "builtIn", "definition")


def unknown(said, understood, place):
    if isinstance(said, dict) and isinstance(understood, dict):
        for field, value in said.items():
            elsewhere = field in ELSEWHERE and (".annotations." in place or ".templating." in place)
            if field in understood and not elsewhere:
                yield from unknown(value, understood[field], f"{place}.{field}")
            elif not elsewhere:
                yield f"{place}.{field}: {json.dumps(value)[:80]}"
    elif isinstance(said, list) and isinstance(understood, list):
        for at, (one, other) in enumerate(zip(said, understood)):
            yield from unknown(one, other, f"{place}[{at}]")
    elif said != understood:
        yield f"{place}: {json.dumps(said)[:80]} is understood as {json.dumps(understood)[:80]}"


plugins.register_default_plugins()
for path in sys.argv[1:]:
    with open(path) as file:
        said = json.load(file)
    understood = json.loads(JSONEncoder().encode(dashboard.Dashboard.from_json(said)))
    for line in unknown(said, understood, path.rsplit("/")[-1]):
        print(line)
