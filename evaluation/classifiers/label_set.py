"""The findings that a classifier is to tell: which there are, whether they exclude each other, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from ...data.record import Record
from ...errors import DataError, listing, near
from .network import MULTI, SINGLE


def settle_labels(real: Sequence[Record], test: Sequence[Record], synthetic: Mapping[str, Sequence[Record]],
                  chosen: Sequence[str] = ()) -> list[str]:
    """The labels of a study: those chosen, or all that the real images have.

    Raises DataError, near names suggested, for labels that no real image has, in the choice, the synthetic or the test images; with
    a choice, other images' labels matter only where they are nearly one that was chosen.
    """
    known = count_labels(real)
    unknown = [label for label in chosen if label not in known]
    if unknown:
        raise DataError(f"no real training image has the label {_named(unknown, known)}; they have: {listing(known, 30)}")
    labels = sorted(set(chosen) or known)
    named = {f"synthetic ({name})" if name else "synthetic": records for name, records in synthetic.items()}
    for name, records in ({"test": test} | named).items():
        foreign = [label for label in count_labels(records) if label not in known and (not chosen or near(label, labels))]
        if foreign:
            count = sum(any(label in foreign for label in record.labels) for record in records)
            raise DataError(f"{count} of {len(records)} {name} images have labels that no real training image has: "
                            f"{_named(foreign, known)}. Spell labels alike in all sets, or choose the labels to tell apart")
    if len(labels) < 2 and (not labels or known[labels[0]] == len(real)):
        raise DataError(f"the {len(real)} real training images have the labels {listing(labels) or 'none'}: a classifier needs at "
                        "least two kinds to tell apart")
    return labels


def count_labels(records: Sequence[Record]) -> Counter[str]:
    """How many images have each label."""
    return Counter(label for record in records for label in set(record.labels))


def _named(labels: Sequence[str], known: Mapping[str, int]) -> str:
    return listing(f"{label!r}{near(label, known)}" for label in labels)


def settle_mode(records: Sequence[Record], labels: Sequence[str], asked: str = "auto") -> str:
    """"single" where every image has exactly one of the labels, else "multi"; DataError where "single" is asked for and is not so."""
    wrong = [record for record in records if len(set(record.labels) & set(labels)) != 1]
    if asked == SINGLE and wrong:
        raise DataError(f"{len(wrong)} of {len(records)} images do not have exactly one of the labels {listing(labels, 20)}, such as "
                        f"{wrong[0].image} with {listing(wrong[0].labels) or 'none'}; ask for multi, or choose labels that exclude "
                        "each other")
    return asked if asked in (SINGLE, MULTI) else MULTI if wrong else SINGLE


def to_targets(records: Sequence[Record], labels: Sequence[str]) -> torch.Tensor:
    """Which image has which label, (N, L) of 0 and 1."""
    rows = [[label in record.labels for label in labels] for record in records]
    return torch.tensor(rows, dtype=torch.float32).view(-1, len(labels))


def missing_kinds(targets: torch.Tensor, labels: Sequence[str]) -> dict[str, str]:
    """Why a label cannot be learnt from images with these targets (N, L), by label; empty where all can."""
    found = {}
    for label, positive in zip(labels, targets.sum(0).int().tolist()):
        if positive in (0, len(targets)):
            found[label] = f"of the {len(targets)} training images {'none has' if positive == 0 else 'all have'} {label}"
    return found
