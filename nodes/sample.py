"""Nodes for sampling: prompts from a label table for the stock sampler, and sampling straight into an image set."""

from __future__ import annotations

from typing import Any

from .. import config
from ..data.caption import CAPTIONS
from ..errors import DataError
from ..files import hash_json
from ..training.sampler import SampleOptions
from . import host
from .host import ADAPTER, RECORDS, SAMPLE_OPTIONS, io
from .widgets import inputs, read
from .widgets import seed as seed_input

CATEGORY = "MedTune/sample"
TABLE = "labels,count\nNo Finding,2\nCardiomegaly,2\nPleural Effusion,2\nPneumothorax,2\n"


def _table_inputs() -> list[Any]:
    return [
        io.String.Input("table", default=TABLE, multiline=True,
                        tooltip="Rows of labels,count below that header; several labels of one image separated by |."),
        io.String.Input("template", default="chest-xray",
                        tooltip=f"How labels become a caption: {', '.join(CAPTIONS)}, or a text with {{labels}} in it."),
        seed_input(tooltip="Seed of the first image; the next ones count up."),
    ]


class TablePrompts(io.ComfyNode):
    """A label table -> lists of captions, labels and seeds."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneTablePrompts", display_name="Prompts from Label Table", category=CATEGORY,
            description="One caption and one seed for each image of a table of labels and counts. They come as lists: linked to CLIP "
                        "Text Encode and to KSampler's seed, each image is drawn from its own.",
            inputs=_table_inputs(),
            outputs=[io.String.Output("captions", display_name="captions", is_output_list=True),
                     io.String.Output("labels", display_name="labels", is_output_list=True),
                     io.Int.Output("seeds", display_name="seeds", is_output_list=True),
                     io.Int.Output("total", display_name="total")])

    @classmethod
    def execute(cls, table, template, seed):
        from ..training.table import prompts_from_table, read_table

        prompts = prompts_from_table(read_table(_rows(table)), template, seed)
        return io.NodeOutput([prompt.text for prompt in prompts], ["|".join(prompt.labels) for prompt in prompts],
                             [prompt.seed for prompt in prompts], len(prompts))


class Options(io.ComfyNode):
    """How to sample."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="MedTuneSampleOptions", display_name="Sampling Options", category=CATEGORY,
                         description="Sampler, steps, guidance and size.", inputs=inputs(SampleOptions, skip=("seed",)),
                         outputs=[SAMPLE_OPTIONS.Output("options", display_name="options")])

    @classmethod
    def execute(cls, **values):
        return io.NodeOutput(read(SampleOptions, values))


class Sample(io.ComfyNode):
    """A checkpoint, an adapter and a label table -> an image set."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneSample", display_name="Sample from Label Table", category=CATEGORY,
            description="Draws one image for each count of the table into output/medtune/sets, with every parameter beside it. The "
                        "same request finds its images; an interrupted one goes on.",
            inputs=[io.Combo.Input("checkpoint", options=host.checkpoints(), tooltip="The base model's file."), *_table_inputs(),
                    ADAPTER.Input("adapter", optional=True, tooltip="Without it: the base as it is."),
                    io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, optional=True),
                    SAMPLE_OPTIONS.Input("options", optional=True, tooltip="Without it: the defaults."),
                    io.String.Input("name", default="sampled", optional=True, tooltip="Begins the folder's name.")],
            outputs=[RECORDS.Output("records", display_name="records"), io.String.Output("folder", display_name="folder")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, checkpoint, table, template, seed, adapter=None, strength=1.0, options=None, name="sampled"):
        from ..training.sample import sample
        from ..training.table import prompts_from_table, read_table

        options, progress = options or SampleOptions(), host.Progress(cls)
        prompts = prompts_from_table(read_table(_rows(table)), template, seed)
        made_by = adapter.made_by(strength) if adapter is not None else None
        with host.computing() as device:
            base = host.file_base(checkpoint, device)
            if adapter is not None:
                adapter.apply(base, strength)
            settings = {**config.to_json(options), "batch": None}  # changes the time alone
            applied = [made_by["hash"], strength] if made_by else None
            key = hash_json([base.hash, applied, settings, [vars(prompt) for prompt in prompts]])
            folder = host.product_folder("sets", f"{name}-{key[:12]}")
            images = sample(base, prompts, folder, options, made_by, on_image=_on_image(progress),
                            on_step=lambda done, total: host.check_interrupted())
        return io.NodeOutput(images.records, host.shown(folder))


def _on_image(progress: host.Progress):
    return lambda done, total, record: progress(done, total, f"{done} of {total} images", record.image)


def _rows(table: str) -> str:
    """The table's text. A single line would be taken for the path of a file, and a workflow must not choose one."""
    if "\n" not in table.strip():
        raise DataError(f"the table is {table.strip()[:60]!r}; it needs the line labels,count and below it a row a combination")
    return table


def nodes() -> list[type]:
    """The nodes of this file."""
    return [TablePrompts, Options, Sample]
