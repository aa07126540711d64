"""What a report's figures cannot say, in sentences made from the facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...data.record import Record
from ..metric import METRICS
from .arm import Arm
from .number import figure, listed
from .score_table import Comparisons, title_of

if TYPE_CHECKING:
    from ..downstream.result import Downstream

UNLIKE = 0.1  # difference of a label's share of the images from which it is told
GENERAL = ("A feature distance first sees brightness and texture; whether a finding is where and what the prompt says, it does not "
           "tell.",
           "No figure here speaks of clinical use: generated images are for research, never for diagnosis.")


def limits(arms: Sequence[Arm], real: Sequence[Record], compared: Comparisons, notices: Sequence[str] = (),
           downstream: Downstream | None = None) -> list[str]:
    """Sentences, what the facts give first, what holds for every such report last. ``notices`` are those of the report."""
    made = [arm for arm in arms if not arm.reference]
    said = [*map(_sentence, notices), *_power(made, compared), *_uncompared(compared), *_unmoved(made), *_missing(made),
            *_training_seeds(made), *_patients(real), *_labels(made, real), *_extractors(arms), *_many(compared), *_reference(arms),
            *_privacy(made), *(map(_sentence, downstream.notices) if downstream else ()), *GENERAL]
    return list(dict.fromkeys(said))


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _power(made: Sequence[Arm], compared: Comparisons) -> list[str]:
    """What differences would be missed."""
    names, told = [arm.name for arm in made], []
    for (metric, label), comparison in compared.items():
        if label is None and comparison.contrasts:
            least = min(comparison.contrasts, key=lambda contrast: contrast.difference.detectable)
            told.append(f"{title_of(metric)} {figure(least.difference.detectable)} ({names[least.first]} and {names[least.second]})")
    return [f"With these numbers of images, smaller true differences than these are missed more often than once in five times, even "
            f"between the two sets that are told apart most easily and before the correction for many comparisons: {'; '.join(told)}."
            ] if told else []


def _uncompared(compared: Comparisons) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for (metric, _), comparison in compared.items():
        if comparison.reason and title_of(metric) not in by_reason.setdefault(comparison.reason, []):
            by_reason[comparison.reason].append(title_of(metric))
    return [_sentence(f"{listed(titles)} {'is' if len(titles) == 1 else 'are'} not compared between sets: {reason}")
            for reason, titles in by_reason.items()]


def _unmoved(made: Sequence[Arm]) -> list[str]:
    """Figures that leaving out images does not move, such as a share of 0."""
    found: dict[str, list[str]] = {}
    for arm in made:
        for score in arm.scores.scores:
            if score.label is None and score.value is not None and score.low is None and score.without_fake:
                found.setdefault(title_of(score.metric), []).append(arm.name)
    told = "; ".join(f"{title} of {listed(names)}" for title, names in found.items())
    return [f"Where leaving out images changes nothing there is no interval, which does not make the figure certain: {told}."
            ] if told else []


def _missing(made: Sequence[Arm]) -> list[str]:
    scores = [score for arm in made for score in arm.scores.scores]
    lost = Counter(score.reason for score in scores if score.value is None)
    if not lost:
        return []
    reasons = [f"{reason} ({count})" if count > 1 else str(reason) for reason, count in lost.most_common(3)]
    more = f"; and {len(lost) - 3} other reasons" if len(lost) > 3 else ""
    return [f"{sum(lost.values())} of {len(scores)} figures cannot be had: {'; '.join(reasons)}{more}."]


def _training_seeds(made: Sequence[Arm]) -> list[str]:
    found: dict[str, set] = {}
    for arm in made:
        if arm.tuned:
            adapter = arm.made_by["adapter"]
            options = dict(adapter.get("options") or {})
            seed = options.pop("seed", None)
            made_with = [adapter.get("method"), adapter.get("config"), options, adapter.get("objective")]
            key = json.dumps(made_with, sort_keys=True, default=str)
            found.setdefault(key, set()).add(seed)
    if not found or any(len(seeds) > 1 for seeds in found.values()):
        return []
    return ["Each method was trained once, with one seed: the intervals tell how far a figure would move with other images, not with "
            "another training."]


def _patients(real: Sequence[Record]) -> list[str]:
    unknown = sum(record.patient is None for record in real)
    if not unknown:
        return []
    return [f"{'The' if unknown == len(real) else f'{unknown} of the {len(real)}'} real images name no patient and count as "
            "independent: where several are of one patient, the intervals are too narrow."]


def _labels(made: Sequence[Arm], real: Sequence[Record]) -> list[str]:
    """Where prompts and real images differ in what they show."""
    of_real, said = _shares(real), []
    if not of_real:
        return []
    for arm in made:
        of_fake = _shares(arm.records)
        apart = sorted({*of_real, *of_fake}, key=lambda label: (-abs(of_real.get(label, 0) - of_fake.get(label, 0)), label))
        if of_fake and abs(of_real.get(apart[0], 0) - of_fake.get(apart[0], 0)) > UNLIKE:
            said.append((f"{apart[0]} is on {100 * of_real.get(apart[0], 0):.0f} % of the real and "
                         f"{100 * of_fake.get(apart[0], 0):.0f} % of the generated images", arm.name))
    by_text: dict[str, list[str]] = {}
    for text, name in said:
        by_text.setdefault(text, []).append(name)
    told = "; ".join(f"{listed(names)}: {text}" for text, names in by_text.items())
    return [f"The labels are not mixed as in the real images ({told}): part of each distance is that."] if told else []


def _shares(records: Sequence[Record]) -> dict[str, float]:
    counts = Counter(label for record in records for label in record.labels)
    return {label: count / len(records) for label, count in counts.items()}


def _extractors(arms: Sequence[Arm]) -> list[str]:
    names = list(dict.fromkeys(str(arm.scores.extractor.get("title")) for arm in arms if arm.scores.extractor))
    had = dict.fromkeys(score.metric for arm in arms for score in arm.scores.scores if score.value is not None)
    biased = [title_of(name) for name in had if name in METRICS and METRICS[name].facts.biased]
    said = [f"The figures are seen through one feature space ({listed(names)}): they can be compared only within the same extractor id"
            + (f", {listed(biased)} only at the same numbers of images" if biased else "") + ", and hardly with published ones."]
    return said if names else []


def _many(compared: Comparisons) -> list[str]:
    count = len({metric for (metric, _), comparison in compared.items() if comparison.contrasts})
    return [f"The correction for many comparisons is within a metric: over {count} metrics, a false difference in one of them is "
            "likelier than 5 %."] if count > 1 else []


def _reference(arms: Sequence[Arm]) -> list[str]:
    return [] if any(arm.reference for arm in arms) else [
        "No set of real images was scored the same way, so that what could be reached at best is not known."]


def _privacy(made: Sequence[Arm]) -> list[str]:
    return [f"{arm.name}: {notice.rstrip('.')}." for arm in made if arm.privacy for notice in arm.privacy.get("notices") or ()]
