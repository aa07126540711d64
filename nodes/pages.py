"""The help page of each node, `web/docs/<node>.md`, from what the node declares and the text in `ABOUT`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "web" / "docs"

ABOUT = {
    "MedTuneReadData": """`folder` names a folder or a table below ComfyUI's `datasets`, `input` or `output` folder, such as
`datasets/nih/Data_Entry.csv`. Data elsewhere: add its folder as `datasets` to `extra_model_paths.yaml`. The node runs again
when a file in the folder changes.

`options` are those of the layout, one `name=value` a line. For `table`, whose columns must be named:

    image=Path
    labels=Findings
    patient=PatientID

For `retinopathy` and `isic`, `images` names the folder with the images where it is not the published one, as
`images=datasets/aptos/small`; `eye=false` leaves the eye out of captions, `lesions=false` does without ISIC's metadata.""",
    "MedTunePhantoms": """Draws into `output/medtune/phantoms`; images that are there already are kept. The larger of two
sets with one seed begins with the smaller.""",
    "MedTuneSplit": "The three shares add up to 1. Train on the first part, score against the last.",
    "MedTuneImagesToSet": """Takes batches and lists. With the lists of *Prompts from Label Table* linked to `captions`,
`labels` and `seeds`, each image keeps what it was drawn from. The same images come to the same folder. Link `adapter` so
that a report can say what made the images and draw its losses.""",
    "MedTunePreset": """Link `method` and `options` to *Train*, and choose here the checkpoint that is chosen there: only its header is
read, to tell whether it is of the kind that the study trained. `about` says where the settings come from, what the study
does not tell and is left at the default, and how captions are made: set that in *Read Medical Data Set*, as
`caption=chest-xray-eight`. `medtune methods --presets` lists the presets on the command line.""",
    "MedTuneTrain": """The adapter goes to `output/loras`: link `lora_name` into the stock *Load LoRA*'s `lora_name`, or
choose it there by hand later. `lora` goes to core's *Load LoRA Model*, `loss` to core's *Plot Loss Graph*.

A run's folder in `output/medtune/runs` is named by a hash of method, options, base and data: the same request, also after a
restart, finds its finished adapter; one that was interrupted goes on from where it was, to the same adapter bit for bit.
ComfyUI's own models are taken out of memory first.""",
    "MedTuneTrainModel": """As *Train*, but on what comes through the graph, for instance a checkpoint with a LoRA applied,
which is merged in before training. Load the result over the same model.""",
    "MedTuneTrainLatents": """Takes the lists of core's *Make Training Dataset* or *Load Training Dataset*. `flips` must be
off and `posterior` at mode, since the images are encoded already; captions longer than 77 tokens cannot be used.""",
    "MedTuneLoadAdapter": "For adapters of earlier runs. A file made elsewhere works too; it says less about itself.",
    "MedTuneApplyAdapter": """Does what the stock *Load LoRA* does, and fails, instead of logging a line, when nothing in the
adapter fits the model.""",
    "MedTuneTablePrompts": """The table:

    labels,count
    No Finding,4
    Cardiomegaly|Pleural Effusion,2

makes six captions. They come as lists, so that ComfyUI runs the nodes behind them once for each: link `captions` to the text
of *CLIP Text Encode* and `seeds` to the seed of *KSampler*. Note that ComfyUI reads parentheses in a caption as emphasis.""",
    "MedTuneSample": """Loads the checkpoint with the library's own sampler instead of KSampler: images of any batch size,
each from its own seed, with everything written beside them.""",
    "MedTuneEvaluate": """`real` should be images that neither the base nor the extractor was trained on. A figure that
cannot be had (too few images, for instance) is given as missing with the reason, and `number` is then NaN. `json` is the
whole result as text.""",
    "MedTuneMembershipLosses": """Every image meets the same noises under the base with the adapter and under the base alone. `train`
must be what the adapter was trained on, with the same captions in the same order: the file says so, and other data is refused
unless `other_data` is on. Size and fit are those of the training, as far as the adapter says. `file` is a JSON file in
`output/medtune/privacy`.""",
    "MedTunePrivacy": """`train` and `held_out` must share no patient and no image, also none that was only saved anew: otherwise the
node stops with their count. A copy is a generated image whose pixels correlate with a training image's more than those of another
patient do, after shifts of a few pixels and whatever its brightness and contrast; `false_alarms` is the chance of an error that you
allow. `nearest_ratio` is 1 for a generator that remembers nothing and smaller for one that stays near to its training images.
Figures, pairs and a row for each image are in `privacy.json` in `output/medtune/privacy`.""",
    "MedTuneClassifierTrain": """The network is kept in `output/medtune/classifiers` with its config, and found there when the same is
asked for again. `classifier` can be linked wherever an extractor can: its last layer is a feature space, its answers are a labeller's.
`labels` names the labels to tell apart, separated by commas; empty for all. Every protocol takes `steps` steps, whatever the number of
images; thresholds are set on validation images.""",
    "MedTuneClassifierTest": """Images that the classifier learnt from are refused. The AUROC comes with DeLong's interval, by
patient; `f1`, `accuracy` and `balanced_accuracy` are at the threshold chosen on validation images; `ece` is the calibration error
in 15 bins.""",
    "MedTuneDownstream": """Every protocol is trained at every fraction of the real patients (smaller ones lie within larger ones) and
with every seed; each training is kept in `output/medtune/classifiers`, so that an interrupted study goes on. Test patients and images
must be unknown to the classifier and to the generator, also as images that were saved anew: otherwise the node stops with their count.
Where the synthetic set does not tell what its generator learnt from, link that as `generator_data`. `json` holds trials, curves and
paired differences (DeLong, McNemar, Holm over all pairs), with intervals over patients and seeds.""",
    "MedTuneReport": """Shows the table and the pictures in the node and writes `report.html` (one file, to send or to keep),
`scores.json`, `scores.csv`, `differences.csv` and `tables.tex` (for booktabs) to `output/medtune/reports`. The best is named only
where its difference to every other set holds. Link *Privacy* to the input of the same number, *Downstream Study* to `downstream`. Pictures are in the order of their seeds: with one seed for each
place, the columns line up.""",
}


def page(node: Any) -> str:
    """The help page of one node, in Markdown."""
    schema = node.GET_SCHEMA()
    parts = [f"# {schema.display_name}", schema.description]
    if schema.node_id in ABOUT:
        parts.append(ABOUT[schema.node_id])
    for title, items in (("Inputs", schema.inputs), ("Outputs", schema.outputs)):
        if items:
            parts.append(f"## {title}\n\n" + "\n".join(_line(item) for item in items))
    return "\n\n".join(parts) + "\n"


def _line(item: Any) -> str:
    facts = item.as_dict()
    notes = [facts["tooltip"]] if facts.get("tooltip") else []
    if facts.get("options") and facts.get("default") is not None:
        notes.append(f"One of {', '.join(map(str, facts['options']))}.")
    if facts.get("default") not in (None, "") and "\n" not in str(facts["default"]):
        notes.append(f"Default: {facts['default']}.")
    return f"- `{item.id}` ({item.get_io_type()})" + (f": {' '.join(notes)}" if notes else "")


def write(nodes: Iterable[Any], folder: Path = DOCS) -> None:
    """Write every page, and remove those of nodes that are gone."""
    pages = {f"{node.GET_SCHEMA().node_id}.md": page(node) for node in nodes}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
