"""Draw the loss curves of the autoencoder's and of the U-Net's training from the logs that their scripts wrote.

    python -m medtune.training.embedded.curves --autoencoder ONE.jsonl MORE.jsonl --unet ONE.jsonl MORE.jsonl --out loss_curves.png
"""

import argparse
import json
from itertools import accumulate
from pathlib import Path


def read(path: Path, key: str) -> list[float]:
    """One figure a step."""
    return [json.loads(line)[key] for line in path.read_text().splitlines()]


def smooth(values: list[float], width: int = 25) -> list[float]:
    """Running mean over the last `width` values, fewer at the start."""
    return [sum(values[max(0, i + 1 - width) : i + 1]) / min(width, i + 1) for i in range(len(values))]


def stages(logs: list[Path], key: str) -> tuple[list[float], list[int]]:
    """One figure a step over all logs, one after another, and where each but the first begins."""
    parts = [read(path, key) for path in logs]
    return [value for part in parts for value in part], list(accumulate(len(part) for part in parts[:-1]))


def draw(autoencoder: list[Path], unet: list[Path], out: Path) -> None:
    """Two panels: PSNR of the autoencoder's batches, loss of the U-Net's; a line where another stage begins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    psnr, begins = stages(autoencoder, "psnr")
    left.plot(psnr, color="0.85", linewidth=0.6)
    left.plot(smooth(psnr), color="tab:blue")
    left.set(title="Autoencoder", xlabel="step", ylabel="PSNR of the batch, dB")
    _mark(left, begins)
    for key, label, colour in (("mse", "epsilon MSE", "tab:orange"), ("loss", "min-SNR weighted (trained on)", "tab:blue")):
        values, begins = stages(unet, key)
        right.plot(smooth(values), color=colour, label=label)
    right.set(title="U-Net and text encoder", xlabel="step", ylabel="loss, mean of 25 steps", yscale="log")
    right.legend(loc="lower left", fontsize="small")
    _mark(right, begins)
    figure.savefig(out)


def _mark(axes, begins: list[int]) -> None:
    for step in begins:
        axes.axvline(step, color="0.6", linewidth=0.6, linestyle=":")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--autoencoder", type=Path, nargs="+", required=True, help="logs in the order of the stages")
    parser.add_argument("--unet", type=Path, nargs="+", required=True, help="logs in the order of the stages")
    parser.add_argument("--out", type=Path, default=Path("loss_curves.png"))
    options = parser.parse_args()
    draw(options.autoencoder, options.unet, options.out)


if __name__ == "__main__":
    main()
