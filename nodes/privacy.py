"""Nodes for privacy: an adapter's losses of trained and of held-out images, and what generated images give away."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UnknownName
from ..evaluation.privacy.audit import PrivacyOptions, audit
from ..evaluation.privacy.membership import Membership
from ..files import cache_folder, hash_json, whole
from ..training.membership import MembershipOptions, membership_losses, trained_with
from . import host
from .evaluate import CATEGORY
from .host import ADAPTER, EXTRACTOR, RECORDS, io
from .widgets import inputs, read

MEMBERSHIP = io.Custom("MEDTUNE_MEMBERSHIP")
PRIVACY = io.Custom("MEDTUNE_PRIVACY")
COLUMNS = ["figure", "value", "low", "high", "expected", "images", "why not"]
FIGURES = ("nearest_ratio", "near_training", "nearer_than_held_out", "authentic", "copies", "membership_auc", "membership_auc_loss",
           "membership_found")
SHOWN = 6
"""Pairs in the node, of either kind."""


class MembershipLosses(io.ComfyNode):
    """An adapter, the images that it was trained on and others -> losses."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneMembershipLosses", display_name="Membership Losses", category=CATEGORY,
            description="How well an adapter takes the noise off the images that it was trained on, and off others: what an attacker "
                        "could tell them apart by. For Privacy.",
            inputs=[io.Combo.Input("checkpoint", options=host.checkpoints(), tooltip="The base that the adapter was trained on."),
                    ADAPTER.Input("adapter"),
                    RECORDS.Input("train", tooltip="The images that the adapter was trained on, all of them and no others."),
                    RECORDS.Input("held_out", tooltip="Images of the same kind that it was not trained on."),
                    io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, optional=True),
                    *inputs(MembershipOptions, skip=("size", "fit"))],
            outputs=[MEMBERSHIP.Output("membership", display_name="membership"), io.String.Output("file", display_name="file")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, checkpoint, adapter, train, held_out, strength=1.0, **values):
        from ..training.adapter import read_adapter

        progress = host.Progress(cls)
        adapters = [read_adapter(path) for path in adapter.products.values() or [adapter.path]]
        options = read(MembershipOptions, values, **trained_with(adapters))
        with host.computing() as device:
            base = host.file_base(checkpoint, device)
            losses = membership_losses(base, adapters, train, held_out, options, strength=strength, cache=cache_folder() / "training",
                                       on_progress=lambda done, total: progress(done, total, f"losses: batch {done} of {total}"))
        kept = losses.to_json()
        path = host.product_folder("privacy", f"losses-{hash_json(kept)[:12]}") / "losses.json"
        losses.write(path)
        progress.say(f"losses of {len(train)} training and {len(held_out)} held-out images")
        return io.NodeOutput(Membership.from_json(kept), host.shown(path))


class Privacy(io.ComfyNode):
    """Training, held-out and generated images -> figures and pairs."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTunePrivacy", display_name="Privacy", category=CATEGORY, is_output_node=True,
            description="What generated images give away of those that were trained on: whether they lie nearer to them than to "
                        "others, copies, and the pairs that are most alike.",
            inputs=[RECORDS.Input("train", tooltip="The images that the generator was trained on."),
                    RECORDS.Input("held_out", tooltip="Images of the same kind, of other patients, that it was not trained on."),
                    RECORDS.Input("fake", tooltip="Generated images."),
                    EXTRACTOR.Input("extractor", tooltip="The feature space of the distances. Copies are looked for in pixels, "
                                    "whatever it is."),
                    MEMBERSHIP.Input("membership", optional=True, tooltip="Losses of the adapter that drew the images."),
                    io.String.Input("name", default="privacy", optional=True, tooltip="Begins the folder's name."),
                    io.Combo.Input("figure", options=list(FIGURES), default="nearest_ratio", optional=True,
                                   tooltip="The figure of the output number."),
                    *inputs(PrivacyOptions)],
            outputs=[PRIVACY.Output("privacy", display_name="privacy"), io.String.Output("json", display_name="json"),
                     io.Float.Output("number", display_name="number", tooltip="NaN where it cannot be had; the table says why."),
                     io.Int.Output("copies", display_name="copies", tooltip="Generated images that count as copies.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, train, held_out, fake, extractor, membership=None, name="privacy", figure="nearest_ratio", **values):
        if figure not in FIGURES:
            raise UnknownName("privacy figure", figure, FIGURES)
        options, progress = read(PrivacyOptions, values), host.Progress(cls)
        with host.computing():
            found = audit(train, held_out, fake, extractor, options, membership=membership, cache=cache_folder() / "features",
                          on_progress=lambda done, total: progress(done, total, f"image {done} of {total}"))
        text = json.dumps(found.to_json(), indent=1, allow_nan=False)
        folder = host.product_folder("privacy", f"{name}-{hash_json(text)[:12]}")
        found.write(folder / "privacy.json")
        chosen, copies = found.find(figure), sum(row["copy"] for row in found.images)
        progress.say(f"{copies} copies among {len(fake)} generated images")
        value = math.nan if chosen is None or chosen.value is None else chosen.value
        return io.NodeOutput(found, text, value, copies, ui={"medtune": [panel(found, folder)], "scores": [text]})


def panel(found: Any, folder: Path) -> dict[str, Any]:
    """What the web extension shows: the figures, and rows of pairs, each generated image followed by its training image."""
    rows = [[figure.title, figure.value, figure.low, figure.high, figure.expected,
             ", ".join(f"{name} {count}" for name, count in figure.n.items()), figure.reason or ""] for figure in found.figures]
    kinds = (("alike", "most alike in pixels", found.alike), ("nearest", "nearest in features", found.nearest))
    pictures = [{"name": f"{title}, each with its training image", "images": _pictures(folder, kind, pairs[:SHOWN])}
                for kind, title, pairs in kinds if pairs]
    said = f"copies: a correlation of {found.threshold.value:.3f} or more; {found.threshold.how}"
    return {"table": {"columns": COLUMNS, "rows": rows}, "pictures": pictures, "notices": [said, *found.notices],
            "file": host.shown(folder / "privacy.json")}


def _pictures(folder: Path, kind: str, pairs: Sequence[Any]) -> list[dict[str, str]]:
    """Small copies of both images of each pair, with what the pair is."""
    links = []
    for place, pair in enumerate(pairs):
        said = f"{pair.measure} {pair.value:.4g}{', a copy' if pair.copy else ''}{', mirrored' if pair.mirrored else ''}"
        for role, image in (("generated", pair.fake), ("training", pair.train)):
            path = folder / "pictures" / f"{kind}-{place}-{role}.jpg"
            if not path.exists():
                _shrink(image, path)
            links.append({**host.picture_link(path), "title": f"{role}: {said}"})
    return links


def _shrink(image: Path, path: Path) -> None:
    from ..data.image import open_image

    picture = open_image(image).convert("RGB")
    picture.thumbnail((256, 256))
    with whole(path) as beside:
        picture.save(beside, quality=88)


def nodes() -> list[type]:
    """The nodes of this file."""
    return [MembershipLosses, Privacy]
