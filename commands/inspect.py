"""Say in a page what an adapter, embedding, VAE or checkpoint is: kind, rank, layers, base, settings, size of the change per block,
unknown keys, and in which of ComfyUI's stock loaders it is exact. Anyone's file will do; pickles are refused unread."""

from pathlib import Path

from ..errors import listing
from .output import show, table

EXAMPLE = "medtune inspect runs/lora-1a2b3c/adapter.safetensors"

# What the page shows of a header, in this order; --json has all of it.
_SETTINGS = (
    "modelspec.title", "modelspec.architecture", "modelspec.date", "medtune.method", "medtune.config", "medtune.options",
    "medtune.merged", "medtune.notice", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
    "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer", "ss_lr_scheduler", "ss_steps", "ss_max_train_steps",
    "ss_num_epochs", "ss_batch_size_per_device", "ss_num_train_images", "ss_resolution", "ss_mixed_precision", "ss_noise_offset",
    "ss_min_snr_gamma", "ss_seed",
)


def add_arguments(parser) -> None:
    """The file."""
    parser.add_argument("file", type=Path, help="a .safetensors file")


def run(arguments) -> None:
    """Print the page."""
    from dataclasses import asdict

    from ..training.anatomy import examine

    anatomy = examine(arguments.file)
    show(arguments, asdict(anatomy), page(anatomy))


def page(anatomy) -> str:
    """The anatomy as text."""
    base = anatomy.base
    said = ", ".join(part for part in (base.get("name"), f"SHA-256 {base['hash'][:12]}" if base.get("hash") else "") if part)
    unknown = f"{len(anatomy.unknown)}: {listing(anatomy.unknown)}" if anatomy.unknown else "none" if anatomy.layers else ""
    rows = [
        ("file", f"{anatomy.file} ({anatomy.bytes:,} bytes; {anatomy.tensors:,} tensors, {anatomy.values:,} values: "
                 f"{', '.join(anatomy.types)})"),
        ("kind", f"{anatomy.kind}{_counts(anatomy.layers, 'layers')}"),
        ("base", f"{base.get('title', 'not said')}{f'; trained on {said}' if said else ''}"),
        *((name, f"{value}") for name, value in base.items() if name not in ("kind", "title", "name", "hash")),
        ("rank", _plain(anatomy.ranks)), ("alpha", _plain(anatomy.alphas)), ("targets", _plain(anatomy.targets)),
        ("parts", ", ".join(f"{name} {count:,}" for name, count in anatomy.parts.items())),
        *anatomy.loaders.items(),
        ("unknown keys", unknown),
        *(("PROBLEM", problem) for problem in anatomy.problems),
    ]
    settings = [(name, _short(anatomy.settings[name])) for name in _SETTINGS if name in anatomy.settings]
    lines = [table([row for row in rows if row[1]], ("", "")).lstrip("\n")]
    if settings:
        lines.append(table(settings, ("setting", "")))
    if anatomy.blocks:
        lines.append(table([(block, count, "" if norm is None else f"{norm:.4g}") for block, count, norm in anatomy.blocks],
                           ("block", "layers", "norm of the change")))
    return "\n\n".join(lines)


def _counts(counts: dict[str, int], what: str) -> str:
    if not counts:
        return ""
    return f" ({', '.join(f'{count} {name}' if len(counts) > 1 else str(count) for name, count in counts.items())} {what})"


def _plain(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _short(value: object) -> str:
    text = ", ".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."
