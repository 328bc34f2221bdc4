"""Meaning of filters: matches a second beside `jq` and CEL, and how fast claims are decided."""

from __future__ import annotations

import importlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from polar_iac.meter import meaning
from polar_iac.meter.meaning.events import Event
from polar_iac.meter.meaning.filters import compile_filter
from tests.support.random_meaning import Json, changed, random_filter

SAMPLE = Path(__file__).parents[1] / "meter" / "semantics" / "sample.jsonl"

FILTER: Json = {
    "conjunction": "and",
    "clauses": [
        {"property": "name", "operator": "eq", "value": "llm.completion"},
        {
            "conjunction": "or",
            "clauses": [
                {"property": "tokens", "operator": "gte", "value": 500},
                {"property": "model", "operator": "like", "value": "gpt-4"},
            ],
        },
    ],
}
JQ = '.name == "llm.completion" and (.metadata.tokens >= 500 or (.metadata.model | contains("gpt-4")))'
CEL = 'e.name == "llm.completion" && (e.metadata.tokens >= 500 || e.metadata.model.contains("gpt-4"))'
EVENTS = 5000

Match = Callable[[Sequence[str]], list[bool]]


def lines() -> list[str]:
    """Events as JSON text, of which a part matches."""
    random = Random(1)
    return [
        json.dumps(
            {
                "name": random.choice(("llm.completion", "llm.completion", "image.generation")),
                "source": "user",
                "timestamp": "2026-01-01T00:00:00Z",
                "metadata": {
                    "tokens": random.randrange(1000),
                    "model": random.choice(("gpt-4o", "claude", "m1")),
                    "cached": random.random() < 0.5,
                },
            }
        )
        for _ in range(EVENTS)
    ]


def ours() -> Match:
    matches = compile_filter(FILTER).billing
    return lambda texts: [matches(Event.from_json(json.loads(text))) for text in texts]


def with_jq() -> Match:
    program: Any = importlib.import_module("jq").compile(JQ)
    return lambda texts: list(program.input_text("\n".join(texts)).all())


def with_cel() -> Match | None:
    """None where `cel-python` is not installed: `pip install --group benchmarks` brings it."""
    try:
        celpy: Any = importlib.import_module("celpy")
    except ImportError:
        return None
    environment = celpy.Environment()
    program = environment.program(environment.compile(CEL))
    convert = celpy.json_to_cel
    return lambda texts: [bool(program.evaluate({"e": convert(json.loads(text))})) for text in texts]


def compare_matches(runs: int) -> None:
    """Run all in turn, so that a drift of the machine's speed meets each of them."""
    texts = lines()
    ways = {"ours": ours(), "jq": with_jq(), "cel-python": with_cel()}
    there = {name: way for name, way in ways.items() if way is not None}
    expected = there["ours"](texts)
    assert all(way(texts) == expected for way in there.values())
    taken: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(runs):
        for name, way in there.items():
            begun = time.process_time()
            way(texts)
            taken[name].append(time.process_time() - begun)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(f"{'from JSON text, ' + str(EVENTS) + ' events':34} {'matches/s':>12} {'times ours':>12}")
    for name, median in medians.items():
        print(f"{name:34} {EVENTS / median:12,.0f} {medians['ours'] / median:12.2f}", flush=True)
    for name in ways.keys() - there.keys():
        print(f"{name:34} {'left out: not installed':>25}")


def corpus() -> list[tuple[Json, Json]]:
    """The recorded filters, each beside the next one and a changed form; and as many random ones."""
    recorded = [json.loads(line)["filter"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    random = Random(2)
    pairs = list(zip(recorded, [*recorded[1:], recorded[0]], strict=True))
    pairs += [(filter_, changed(random, filter_)) for filter_ in recorded]
    for _ in range(1000):
        one = random_filter(random)
        pairs.append((one, changed(random, one)))
    return pairs


def measure_claims() -> None:
    """Print the median time of each claim in CPU seconds, the slowest, and the share of unknown answers."""
    questions: dict[str, Callable[[Json, Json], Any]] = {
        "never": lambda one, _: meaning.never(one),
        "always": lambda one, _: meaning.always(one),
        "implies": meaning.implies,
        "equivalent": meaning.equivalent,
        "witness": lambda one, _: meaning.witness(one) or meaning.never(one),
        "difference": lambda one, other: meaning.difference(one, other) or meaning.implies(one, other),
    }
    pairs = corpus()
    print(
        f"{'decided, ' + f'{len(pairs):,} pairs of filters':34} {'median':>12} {'slowest':>12} {'unknown':>9}"
    )
    for name, ask in questions.items():
        times, answers = [], Counter[bool]()
        for one, other in pairs:
            begun = time.process_time()
            answers[ask(one, other) is None] += 1
            times.append(time.process_time() - begun)
        median, slowest = statistics.median(times) * 1000, max(times) * 1000
        share = answers[True] / len(pairs)
        print(f"{name:34} {median:9.2f} ms {slowest:9.2f} ms {share:9.2%}", flush=True)
