"""The pages of the console: their address, what each asks of the API, and what is there once it is drawn."""

from dataclasses import dataclass, field
from urllib.parse import quote

# The rows of a list; an empty one has a row of its own kind.
ROWS = "tbody tr td:not(.empty)"


@dataclass
class Page:
    name: str
    # Behind `#/`.
    address: str
    # Behind `/api/v1/`.
    asks: list = field(default_factory=list)
    # A selector.
    shows: str = ROWS
    # Whether pictures of it are taken, or only its times.
    pictured: bool = True


def pages(topic, group, many="", partitions=0):
    """All of them. `many`: a topic of so many partitions, where there is one."""
    of_topic, of_group = f"topics/{quote(topic, safe='')}", f"groups/{quote(group, safe='')}"
    found = [
        Page("overview", "", ["cluster", "quorum", "traffic", "groups?sort=lag&order=descending&size=5", "topics?sort=bytes&order=descending&size=5"], ".rack .node"),
        Page("topics", "topics", ["topics"]),
        Page("topics-search", "topics?search=events&sort=partitions&order=descending", ["topics?search=events&sort=partitions&order=descending"]),
        Page("topics-largest", "topics?sort=bytes&order=descending&page=3", ["topics?sort=bytes&order=descending&page=3"], pictured=False),
        Page("topics-trouble", "topics?sort=trouble&order=descending&page=2", ["topics?sort=trouble&order=descending&page=2"], pictured=False),
        Page("topic", of_topic, [of_topic]),
        Page("messages", f"{of_topic}/messages", [f"{of_topic}?size=1", f"{of_topic}/messages"]),
        Page("messages-filtered", f"{of_topic}/messages?key=customer-1", [f"{of_topic}?size=1", f"{of_topic}/messages?key=customer-1"], pictured=False),
        Page("topic-configs", f"{of_topic}/configs", [f"{of_topic}?size=1", f"configs/{of_topic.replace('topics', 'topic', 1)}"]),
        Page("groups", "groups?sort=lag&order=descending", ["groups?sort=lag&order=descending"]),
        Page("group", of_group, [of_group]),
        Page("brokers", "brokers", ["cluster", "quorum", "traffic"]),
        Page("broker", "brokers/1", ["brokers/1", "traffic", "configs/broker/1"]),
        Page("configs", "configs", ["cluster", "configs/cluster/default"]),
    ]
    if many:
        of_many = f"topics/{quote(many, safe='')}"
        found += [
            Page(f"topic-of-{partitions}", of_many, [of_many], pictured=False),
            Page(f"topic-of-{partitions}-page-2", f"{of_many}?page=2", [f"{of_many}?page=2"], pictured=False),
            Page(f"messages-of-{partitions}", f"{of_many}/messages?partition=7", [f"{of_many}?size=1", f"{of_many}/messages?partition=7"], "tbody tr td", pictured=False),
        ]
    return found
