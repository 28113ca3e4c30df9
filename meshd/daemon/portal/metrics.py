"""A portal's figures in the text form that Prometheus reads: counters, gauges, and how long answers took.

No name of an account, mesh or device is in them.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts what happens; `gauges` are asked when somebody looks."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # (transaction, Status)
        self.versions = 0
        self.accounts = 0
        self.throttled = 0
        self.failures = 0
        self._spread: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def answered(self, transaction: str, status: int, seconds: float) -> None:
        self.requests[transaction, status] += 1
        spread = self._spread.get(transaction)
        if spread is None:
            spread = self._spread[transaction] = [0] * (len(_BOUNDS) + 1)
        spread[bisect.bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[transaction] += seconds  # type: ignore[assignment]

    def text(self) -> bytes:
        lines: list[str] = []

        def family(name: str, kind: str, about: str, samples: Mapping[str, float]) -> None:
            lines.append(f"# HELP meshd_portal_{name} {about}")
            lines.append(f"# TYPE meshd_portal_{name} {kind}")
            lines.extend(f"meshd_portal_{name}{labels} {value:g}" for labels, value in samples.items())

        family(
            "requests_total",
            "counter",
            "Requests answered, by transaction and Status.",
            {
                f'{{transaction="{name}",status="{status}"}}': count
                for (name, status), count in sorted(self.requests.items())
            },
        )
        family("versions_total", "counter", "Versions stored since the start.", {"": self.versions})
        family("accounts_total", "counter", "Accounts opened since the start.", {"": self.accounts})
        family("throttled_total", "counter", "Calls of strangers that had to wait.", {"": self.throttled})
        family("failures_total", "counter", "Answers with Status 500.", {"": self.failures})
        for name, (about, ask) in self.gauges.items():
            family(name, "gauge", about, {"": ask()})
        lines.append("# HELP meshd_portal_seconds How long answers took.")
        lines.append("# TYPE meshd_portal_seconds histogram")
        for transaction, spread in sorted(self._spread.items()):
            label, total = f'transaction="{transaction}"', 0
            for bound, count in zip((*_BOUNDS, float("inf")), spread, strict=True):
                total += count
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines.append(f'meshd_portal_seconds_bucket{{{label},le="{edge}"}} {total}')
            lines.append(f"meshd_portal_seconds_sum{{{label}}} {self._seconds[transaction]:g}")
            lines.append(f"meshd_portal_seconds_count{{{label}}} {total}")
        return ("\n".join(lines) + "\n").encode()
