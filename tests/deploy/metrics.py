#!/usr/bin/env python3
"""Checks that every metric that an alert or a dashboard names is there: `metrics.py PAGE`, a saved answer of /metrics.

Names in PromQL are found without a parser: whatever begins with "ottla_" or "process_". A metric that has no sample yet counts by its # TYPE.
"""

import json
import pathlib
import re
import sys

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
NAME = re.compile(r"\b(?:ottla|process)_[a-z0-9_]+")
# What the text format puts behind a family's name.
SUFFIXES = {
    "counter": ["_total", "_created"],
    "histogram": ["_bucket", "_sum", "_count", "_created"],
    "gauge": [""],
    "info": ["_info"],
}


def offered(page):
    names = set()
    for line in page.splitlines():
        if match := re.match(r"# TYPE (\S+) (\S+)", line):
            names.update(match[1] + suffix for suffix in SUFFIXES.get(match[2], [""]))
        elif match := re.match(r"[a-z_0-9]+", line):
            names.add(match[0])
    return names


def expressions(value):
    """Every query of a dashboard, however deep it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query", "definition") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def named():
    """Name of a metric -> files that name it."""
    found = {}
    texts = [(DEPLOY / "prometheus/alerts.yaml", [(DEPLOY / "prometheus/alerts.yaml").read_text()])]
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        texts.append((path, expressions(json.loads(path.read_text()))))
    for path, parts in texts:
        for part in parts:
            for name in NAME.findall(part):
                found.setdefault(name, set()).add(path.name)
    return found


def main():
    page = pathlib.Path(sys.argv[1]).read_text()
    there, wanted = offered(page), named()
    missing = {name: files for name, files in wanted.items() if name not in there}
    for name, files in sorted(missing.items()):
        print(f"{name} is not at /metrics but in {', '.join(sorted(files))}")
    print(f"{len(wanted)} metrics named, {len(missing)} missing")
    return 1 if missing or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
