"""Draw the loss curves of the autoencoder's and of the U-Net's training from the logs that their scripts wrote.

    python -m medtune.training.embedded.curves AUTOENCODER.jsonl [MORE.jsonl] UNET.jsonl --out loss_curves.png
"""

import argparse
import json
from pathlib import Path


def read(path: Path, key: str) -> list[float]:
    """One figure a step."""
    return [json.loads(line)[key] for line in path.read_text().splitlines()]


def smooth(values: list[float], width: int = 25) -> list[float]:
    """Running mean over the last `width` values, fewer at the start."""
    return [sum(values[max(0, i + 1 - width) : i + 1]) / min(width, i + 1) for i in range(len(values))]


def draw(autoencoder: list[Path], unet: Path, out: Path) -> None:
    """Two panels: PSNR of the autoencoder's batches, loss of the U-Net's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    psnr = [value for path in autoencoder for value in read(path, "psnr")]
    left.plot(psnr, color="0.85", linewidth=0.6)
    left.plot(smooth(psnr), color="tab:blue")
    left.set(title="Autoencoder", xlabel="step", ylabel="PSNR of the batch, dB")
    for key, label, colour in (("mse", "epsilon MSE", "tab:orange"), ("loss", "min-SNR weighted (trained on)", "tab:blue")):
        right.plot(smooth(read(unet, key)), color=colour, label=label)
    right.set(title="U-Net and text encoder", xlabel="step", ylabel="loss, mean of 25 steps", yscale="log")
    right.legend()
    figure.savefig(out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+", help="the autoencoder's, in order, then the U-Net's")
    parser.add_argument("--out", type=Path, default=Path("loss_curves.png"))
    options = parser.parse_args()
    draw(options.logs[:-1], options.logs[-1], options.out)


if __name__ == "__main__":
    main()
