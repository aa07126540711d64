"""A node for the presets of published studies."""

from __future__ import annotations

from ..training.preset import KINDS, PRESETS, use
from . import host
from .host import METHOD, OBJECTIVE, SAMPLE_OPTIONS, TRAIN_OPTIONS, io
from .widgets import seed as seed_input


class Preset(io.ComfyNode):
    """A preset and a checkpoint -> method, training options, objective and sampling options."""

    @classmethod
    def define_schema(cls):
        studies = {name.partition("/")[0]: preset.bases for name, preset in PRESETS.items()}
        kinds = "; ".join(f"{study}/* for {' or '.join(KINDS[kind] for kind in bases)}" for study, bases in studies.items())
        return io.Schema(
            node_id="MedTunePreset", display_name="Preset of a Study", category="MedTune/train",
            description="What a published study trained: its method, training options, objective and sampling options.",
            inputs=[
                io.Combo.Input("preset", options=list(PRESETS), tooltip=f"Study and configuration: {kinds}."),
                io.Combo.Input("checkpoint", options=host.checkpoints(), tooltip="The base that will be trained, which must be of the "
                                                                                 "kind that the study trained."),
                io.Int.Input("steps", default=0, min=0, max=10_000_000, optional=True, tooltip="Steps of the training; 0 takes the "
                             "study's, or the default where they are not known."),
                seed_input(tooltip="Seed of the training.", optional=True),
                io.Boolean.Input("any_base", default=False, optional=True, tooltip="Take the preset for another kind of base."),
            ],
            outputs=[METHOD.Output("method", display_name="method"), TRAIN_OPTIONS.Output("options", display_name="options"),
                     SAMPLE_OPTIONS.Output("sample_options", display_name="sample_options"),
                     io.String.Output("about", display_name="about", tooltip="What the study says, and what is ours."),
                     OBJECTIVE.Output("objective", display_name="objective")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, preset, checkpoint, steps=0, seed=0, any_base=False):
        from ..training.count import empty_base

        chosen = PRESETS[preset]
        notices = use(chosen, empty_base(host.checkpoint_path(checkpoint)), any_base)
        about = "\n".join([f"{chosen.title}: {chosen.source}.", f"Captions: {chosen.caption or 'as they come with the data'}.",
                           chosen.notes, *notices])
        host.Progress(cls).say(about)
        options = chosen.train_options(seed=seed, **({"steps": steps} if steps else {}))
        return io.NodeOutput(chosen.make_method(), options, chosen.sample_options(), about, chosen.objective_options())


def nodes() -> list[type]:
    """The nodes of this file."""
    return [Preset]
