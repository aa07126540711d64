"""What was done, in sentences for a paper's methods section, made from nothing but the facts that the arms carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..macro import MACRO
from ..metric import METRICS, MetricConfig
from .arm import Arm
from .number import listed

if TYPE_CHECKING:
    from ..downstream.result import Downstream

HASH = 12  # letters of a hash that are told
COMMON = tuple(MetricConfig.__dataclass_fields__)


def methods(arms: Sequence[Arm], downstream: Downstream | None = None) -> list[str]:
    """Paragraphs: images and bases, training, sampling, features, metrics, uncertainty, privacy, classifiers, versions."""
    made = [arm for arm in arms if not arm.reference]
    parts = [_sets(arms, made), _bases(made), _training(made), _sampling(made), _features(arms), _metrics(arms), _uncertainty(made),
             _privacy(made), _classifiers(downstream), _versions(arms)]
    return [part for part in parts if part]


def settings(values: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    """Options as text, "rank 16, text encoder off"; what is empty is left out."""
    return ", ".join(f"{name.replace('_', ' ')} {value(one)}" for name, one in values.items()
                     if name not in skip and one not in (None, "", [], (), {}))


def value(one: Any) -> str:
    """One option's value as text."""
    if isinstance(one, bool):
        return "on" if one else "off"
    if isinstance(one, float):
        return f"{one:g}"
    if isinstance(one, Mapping):
        return f"({settings(one)})"
    return ", ".join(map(value, one)) if isinstance(one, (list, tuple)) else str(one)


def seeds(found: Sequence[int]) -> str:
    """Seeds as text, runs of them as ranges."""
    found, runs = sorted(set(found)), []
    for seed in found:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    text = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:5]]
    return listed(text) if len(runs) <= 5 else f"{len(found)} seeds between {found[0]} and {found[-1]}"


def shared(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The items that all mappings have alike."""
    return {name: one for name, one in (values[0] if values else {}).items()
            if all(name in other and other[name] == one for other in values)}


def _sets(arms: Sequence[Arm], made: Sequence[Arm]) -> str:
    numbers = {(arm.scores.n_real, arm.scores.n_fake) for arm in made}
    if len(numbers) == 1:
        (n_real, n_fake), = numbers
        counts = f"{n_fake} images of each against {n_real} real images"
    else:
        counts = "; ".join(f"{arm.name}: {arm.scores.n_fake} generated against {arm.scores.n_real} real images" for arm in made)
    said = f"{len(made)} {'set' if len(made) == 1 else 'sets'} of generated images ({listed([arm.name for arm in made])}) were " \
           f"scored against real images that were held out, {counts}."
    if any(arm.scores.settings.get("equal") for arm in made):
        said += " Of the larger set as many images were drawn as the smaller one has."
    references = [arm.name for arm in arms if arm.reference]
    return said + (f" As a reference, real images were scored against real images ({listed(references)})." if references else "")


def _bases(made: Sequence[Arm]) -> str:
    bases = {str(base.get("hash")): base for arm in made if (base := arm.made_by.get("base"))}
    return " ".join(f"The base model was {base.get('ref')} ({base.get('kind', 'kind unknown')}, predicting {base.get('prediction')}, "
                    f"SHA-256 {key[:HASH]})." for key, base in bases.items())


def _training(made: Sequence[Arm]) -> str:
    tuned = [(arm, arm.made_by["adapter"]) for arm in made if arm.tuned]
    if not tuned:
        return ""
    said = []
    whose = "all adapters" if len(tuned) > 1 else "the adapter"
    for part, words in (("options", "Training options"), ("objective", "Objective")):
        common = shared([adapter.get(part) or {} for _, adapter in tuned])
        if common:
            said.append(f"{words} of {whose}: {settings(common)}.")
    data = {str(adapter.get("data_hash"))[:HASH] for _, adapter in tuned if adapter.get("data_hash")}
    if data:
        said.append(f"Training data: {listed(sorted(data))} (hash).")
    for arm, adapter in tuned:
        own = {part: {name: one for name, one in (adapter.get(part) or {}).items()
                      if name not in shared([other.get(part) or {} for _, other in tuned])} for part in ("options", "objective")}
        config = settings({**(adapter.get("config") or {}), **own["options"], **own["objective"]})
        preset = f", after the preset {adapter['preset']}" if adapter.get("preset") else ""
        said.append(f"{arm.name}: method {adapter.get('method', 'unknown')}{preset}{f' ({config})' if config else ''}, adapter "
                    f"{str(adapter.get('hash', 'without hash')).removeprefix('0x')[:HASH]}.")
    return " ".join(said)


def _sampling(made: Sequence[Arm]) -> str:
    options = [arm.made_by.get("options") or {} for arm in made]
    common, said = shared(options), []
    if common:
        said.append(f"Images were sampled with: {settings(common)}.")
    said += [f"{arm.name} was sampled with: {settings(own)}." for arm, one in zip(made, options)
             if (own := {name: item for name, item in one.items() if name not in common})]
    used = {arm.name: seeds([record.seed for record in arm.records if record.seed is not None]) for arm in made}
    told = {name: text for name, text in used.items() if text}
    if told and len(set(used.values())) == 1:
        said.append(f"Seeds: {next(iter(told.values()))}, the same for every set.")
    else:
        said += [f"Seeds of {name}: {text}." for name, text in told.items()]
    return " ".join(said)


def _features(arms: Sequence[Arm]) -> str:
    found: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for arm in arms:
        for space, about in (arm.scores.settings.get("extractors") or {"chosen": arm.scores.extractor}).items():
            if about:
                spaces, _ = found.setdefault(str(about.get("id")), ([], about))
                spaces += [space] if space not in spaces else []
    said = [f"Features{'' if spaces == ['chosen'] else f' ({listed(spaces)})'}: {about.get('title')} ({about.get('paper')}), "
            f"{key}{_about(about)}." for key, (spaces, about) in found.items()]
    read = {(one["size"], one["fit"]) for arm in arms if "size" in (one := arm.scores.settings)}
    said += [f"Images, real and generated alike, were read at {size} px (fit: {fit}) and then resized by the extractor."
             for size, fit in sorted(read)]
    return " ".join(said)


def _about(about: Mapping[str, Any]) -> str:
    """What an extractor tells of itself besides its name."""
    more = settings(about, ("name", "id", "title", "paper", "auroc", "seen"))
    return f" ({more})" if more else ""


def _metrics(arms: Sequence[Arm]) -> str:
    used: dict[str, Mapping[str, Any]] = {}
    for arm in arms:
        for score in (score for score in arm.scores.scores if score.value is not None):
            used.setdefault(score.metric, (arm.scores.settings.get("metrics") or {}).get(score.metric, {}).get("options", {}))
    said = []
    for name, options in used.items():
        facts = METRICS[name].facts if name in METRICS else None
        own = settings(options, COMMON)
        notes = [f"{facts.direction} is better"] if facts else []
        notes += [facts.paper] if facts else []
        said.append(f"{facts.title if facts else name} ({'; '.join([*notes, *([own] if own else [])])})")
    common = shared([options for options in used.values() if options])
    rest = settings({name: one for name, one in common.items() if name in COMMON})
    labels = {score.label for arm in arms for score in arm.scores.scores} - {None}
    by_class = f" Figures were also computed for {len(labels - {MACRO})} classes, and their mean." if labels else ""
    return f"Metrics: {'; '.join(said)}.{f' Options of all metrics: {rest}.' if rest else ''}{by_class}" if said else ""


def _uncertainty(made: Sequence[Arm]) -> str:
    scores = [score for arm in made for score in arm.scores.scores if score.low is not None]
    if not scores:
        return "No intervals were computed."
    kinds = list(dict.fromkeys(score.interval or "jackknife" for score in scores))
    of_real, of_fake = ({len(getattr(score, key)) for score in scores} - {0} for key in ("without_real", "without_fake"))
    words = {"jackknife": "the delete-a-group jackknife over patients with Student's t", "percentile": "the percentile bootstrap over "
             "patients", "bca": "the BCa bootstrap over patients"}
    groups = " and ".join(f"{_range(found)} groups of {name} images" for name, found in (("real", of_real), ("generated", of_fake))
                          if found)
    said = f"95 % intervals are by {listed([words[kind] for kind in kinds])}{f' ({groups})' if groups else ''}."
    if len(made) > 1:
        said += (" Two sets differ where the p-value of their difference is below 0.05 after Holm's correction over all pairs of sets "
                 "within one metric; differences are paired, by leaving out the same groups of what both sets share (two-sided "
                 "Student's t). Ranks are given with the simultaneous intervals that follow from these tests (Mohamad et al. 2019).")
    return said


def _range(found: set[int]) -> str:
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"


def _privacy(made: Sequence[Arm]) -> str:
    audited = [(arm, arm.privacy) for arm in made if arm.privacy]
    if not audited:
        return ""
    first = audited[0][1]
    counts = "; ".join(f"{arm.name}: {one['n']['fake']} generated, {one['n']['train']} training and {one['n']['held_out']} held-out "
                       "images" for arm, one in audited)
    extractor = first["extractor"]
    return (f"Privacy was audited against the images trained on and others held out ({counts}) in features of "
            f"{extractor.get('title')} ({extractor.get('id')}), with: {settings(first['options'])}. Copies are generated "
            f" images whose pixels correlate with a training image's at {first['threshold']['value']:.3f} or more after small "
            "shifts.")


def _classifiers(downstream: Downstream | None) -> str:
    if downstream is None:
        return ""
    counts, study = downstream.counts, downstream.settings
    return (f"Classifiers ({downstream.mode}-label: {listed(downstream.labels)}) learnt from {counts['n_real']} real images "
            f"of {counts['real_patients']} patients and were tested on {counts['n_test']} real images of {counts['test_patients']} "
            f"others, whom no classifier saw; {counts['n_validation']} images were for validation. Compared were "
            f"{listed(downstream.contenders)}. Study: {settings(study.get('study', {}))}. Learning: "
            f"{settings(study.get('learning', {}))}. Intervals are by the bootstrap over patients and seeds, differences of AUROC by "
            "DeLong's test and of accuracy by McNemar's, with Holm's correction over all pairs.")


def _versions(arms: Sequence[Arm]) -> str:
    found = list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in arm.scores.versions.items()) for arm in arms))
    trained = sorted({str(arm.made_by["adapter"]["version"]) for arm in arms if arm.tuned and arm.made_by["adapter"].get("version")})
    return " ".join([*(f"Software: {text}." for text in found if text),
                     *([f"The adapters were trained by MedTune {listed(trained)}."] if trained else [])])
