"""The text format of Prometheus, written by hand: a scrape of an engine is a few string joins, no registry.

What stays the same from scrape to scrape, all but the numbers, is put together once.
"""

from collections.abc import Iterable, Mapping

from gateway.dev.engine.counters import Histogram


class Page:
    """One page; every sample carries `labels`, in the order of their names.

    `known` is filled with what comes before the numbers of each histogram; give it to the next page of these labels.
    """

    def __init__(self, labels: Mapping[str, str], known: dict[str, list[str]] | None = None) -> None:
        self._labels = _joined(labels)
        self._pairs = dict(labels)
        self._known = {} if known is None else known
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Add a gauge; `labels` stand in place of the page's own."""
        self._family(name, text, "gauge")
        self._sample(name, self._labels if labels is None else _joined(labels), value)

    def counter(self, name: str, text: str, value: float) -> None:
        """Add a counter, by the full name that is shown."""
        self._family(name, text, "counter")
        self._sample(name, self._labels, value)

    def counters(self, name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> None:
        """Add a counter with one sample for each value of `label`."""
        self._family(name, text, "counter")
        before, after = self._around(label)
        for shown, value in values:
            self._sample(name, f'{before}{label}="{shown}"{after}', value)

    def histogram(self, name: str, text: str, histogram: Histogram) -> None:
        """Add a histogram."""
        self._family(name, text, "histogram")
        if (heads := self._known.get(name)) is None:
            before, after = self._around("le")
            heads = [f'{name}_bucket{{{before}le="{_number(bound)}"{after}}}' for bound in histogram.bounds]
            self._known[name] = heads
        self._lines.extend(f"{head} {count}.0\n" for head, count in zip(heads, histogram.cumulative(), strict=True))
        self._sample(f"{name}_count", self._labels, histogram.count)
        self._sample(f"{name}_sum", self._labels, histogram.total)

    def render(self) -> bytes:
        """Return the page."""
        return "".join(self._lines).encode()

    def _family(self, name: str, text: str, kind: str) -> None:
        self._lines.append(f"# HELP {name} {text}\n# TYPE {name} {kind}\n")

    def _sample(self, name: str, labels: str, value: float) -> None:
        shown = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{name}{shown} {_number(value)}\n")

    def _around(self, label: str) -> tuple[str, str]:
        """Return what stands before and after one more label."""
        before = _joined({name: value for name, value in self._pairs.items() if name < label})
        after = _joined({name: value for name, value in self._pairs.items() if name > label})
        return before and f"{before},", after and f",{after}"


def _joined(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
