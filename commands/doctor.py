"""Say what is installed, what fits, and what is missing for what.

Versions are read from the installed packages' metadata and imports are tried in a process of their own, so that the
doctor can speak on a machine where nothing else can be imported.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from .output import show

EXAMPLE = "medtune doctor"

PACKAGES = {  # distribution: (module, what it is for)
    "torch": ("torch", "everything"),
    "torchvision": ("torchvision", "timm and open_clip"),
    "diffusers": ("diffusers", "U-Net, autoencoder, schedulers"),
    "transformers": ("transformers", "text encoders and tokenizers"),
    "peft": ("peft", "low-rank methods"),
    "accelerate": ("accelerate", "the training loop"),
    "safetensors": ("safetensors", "every file of weights"),
    "timm": ("timm", "classifiers and their features"),
    "open_clip_torch": ("open_clip", "the tokenizer's vocabulary, prompt alignment"),
    "vendi-score": ("vendi_score", "Vendi score"),
    "clean-fid": ("cleanfid", "the resize and the blocks of Inception"),
    "pydicom": ("pydicom", "DICOM images"),
    "tensorboard": ("tensorboard", "the training log"),
}
OPTIONAL = {"pylibjpeg": ("pylibjpeg", "compressed DICOM images"), "ray": ("ray", "many machines"),
            "bitsandbytes": ("bitsandbytes", "8-bit optimisers (CUDA)")}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; ``state`` is "ok", "note" or "bad", ``remedy`` what to do about it."""

    topic: str
    state: str
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything the doctor can tell of this machine, in the order in which it is worth reading."""
    return [_python(), *_packages(), *_torch_family(), *_devices(), *_comfyui(), *_base(), *_extractors()]


def _python() -> Finding:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    old = sys.version_info < (3, 10)
    return Finding("python", "bad" if old else "ok", text, "install Python 3.10 or newer" if old else "")


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    findings = []
    for name, (_, use) in PACKAGES.items():
        found = installed(name)
        state, remedy = ("ok", "") if found else ("bad", f"pip install {name}")
        findings.append(Finding(name, state, found or f"not installed; needed for {use}", remedy))
    for name, (_, use) in OPTIONAL.items():
        found = installed(name)
        findings.append(Finding(name, "ok" if found else "note", found or f"not installed; only needed for {use}",
                                "" if found else f"pip install {name}, if you need it"))
    return findings


def _release(text: str) -> str:
    return text.split("+", 1)[0]


def pinned_torch(distribution: str) -> str | None:
    """The torch release that an installed torchvision or torchaudio says it was built for, or None where it does not say."""
    for requirement in metadata.requires(distribution) or []:
        if match := re.match(r"torch\s*\(?==\s*([\w.]+)", requirement):
            return match[1]
    return None


def _torch_family() -> list[Finding]:
    """torchvision and torchaudio against torch: a pair that does not match breaks the import of transformers, diffusers
    and peft with an error that names neither."""
    torch, errors = installed("torch"), import_errors()
    findings = []
    for name in ("torchvision", "torchaudio"):
        found = installed(name)
        if not found or not torch:
            continue
        wanted, error = pinned_torch(name), errors.pop(name, None)
        if error or (wanted and _release(wanted) != _release(torch)):
            built = f", built for torch {wanted}," if wanted else ""
            failure = f"; importing it fails: {error}" if error else ""
            findings.append(Finding(name, "bad", f"{name} {found}{built} does not match torch {torch}{failure}. While it is "
                                    "there, transformers, diffusers and peft may fail to import.", _family_remedy(name, torch)))
        else:
            findings.append(Finding(f"{name} / torch", "ok", f"{found} with torch {torch}"))
    if errors:
        findings.append(Finding("imports", "bad", "; ".join(f"{module}: {error}" for module, error in errors.items()),
                                "see the lines above; mend the first that is bad"))
    return findings


def _family_remedy(name: str, torch: str) -> str:
    if name == "torchaudio":
        return ("MedTune does not need torchaudio: `pip uninstall torchaudio` where nothing else does; ComfyUI 0.33 does: there "
                "install three that match, e.g. `pip install torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0`")
    return f"`pip install --upgrade --force-reinstall torchvision torch=={_release(torch)}` so that the two match"


# what is imported, and the class whose import pulls in the rest: these packages load their parts only when asked for
PROBED = {"torchvision": "", "torchaudio": "", "transformers": "CLIPTextModel", "diffusers": "UNet2DConditionModel",
          "peft": "LoraConfig"}
PROBE = """
import importlib, importlib.util, json, sys
errors = {}
for module, name in json.loads(sys.argv[1]).items():
    if importlib.util.find_spec(module) is None:
        continue
    try:
        getattr(importlib.import_module(module), name or "__name__")
    except BaseException as error:
        errors[module] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
print("ERRORS" + json.dumps(errors))
"""


def import_errors(modules: dict[str, str] = PROBED) -> dict[str, str]:
    """What the import of each module says when it fails, tried in a process of its own."""
    try:
        run = subprocess.run([sys.executable, "-c", PROBE, json.dumps(modules)], capture_output=True, text=True, timeout=300,
                             check=False)
    except subprocess.TimeoutExpired:
        return {"python": "the imports gave no answer in 300 s"}
    told = [line.removeprefix("ERRORS") for line in run.stdout.splitlines() if line.startswith("ERRORS")]
    return json.loads(told[0]) if told else {"python": f"the process ended with status {run.returncode} while importing"}


def _devices() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("devices", "bad", f"torch cannot be imported: {error}", "reinstall torch")]
    flags = _cpu_flags()
    bf16 = "has" if flags & {"avx512_bf16", "amx_bf16"} else "lacks"
    found = [Finding("cpu", "ok", f"{torch.get_num_threads()} threads, {'AVX-512' if 'avx512f' in flags else 'no AVX-512'}; "
                     f"{bf16} bf16 units{'' if bf16 == 'has' else ', so bf16 saves no time here'}")]
    if not torch.cuda.is_available():
        return [*found, Finding("gpu", "note", "no CUDA device: the embedded base trains in minutes, Stable Diffusion would "
                                "take days", "use a machine with an NVIDIA GPU of 8 GB or more for real bases")]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(Finding(f"gpu {index}", "ok", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, "
                             f"CUDA {torch.version.cuda}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"))
    return found


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    line = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def _comfyui() -> list[Finding]:
    from ..workflows.server import installations, version

    around = Path(__file__).resolve().parents[3]
    folders = [*([around] if (around / "comfyui_version.py").is_file() else []), *installations()]
    found = []
    for folder in dict.fromkeys(folders):
        number = version(folder)
        old = [int(part) for part in re.findall(r"\d+", number)[:3]] < [0, 3, 64]
        found.append(Finding("comfyui", "bad" if old else "ok", f"{number} at {folder}",
                             "update ComfyUI: 0.3.64 is the oldest that works" if old else ""))
    return found or [Finding("comfyui", "note", "none found", "set COMFYUI_PATH, or put this folder into custom_nodes")]


def _base() -> list[Finding]:
    from ..training.embedded import FILE

    if Path(FILE).is_file():
        return [Finding("embedded base", "ok", f"{Path(FILE).stat().st_size / 2**20:.1f} MB at {FILE}")]
    return [Finding("embedded base", "bad", f"{FILE} is missing; needed for the demonstration and the shipped workflow",
                    "see training/embedded/README.md, or name a file by MEDTUNE_EMBEDDED_BASE")]


def _extractors() -> list[Finding]:
    try:
        from ..evaluation.extractor import EXTRACTORS
        entries = EXTRACTORS.items()
    except (ImportError, OSError, RuntimeError) as error:
        return [Finding("extractors", "bad", f"cannot be imported: {error}", "mend the packages above")]
    return [Finding(f"extractor {name}", "note", f"{entry.facts.title}: not ready", missing) if (missing := entry.missing())
            else Finding(f"extractor {name}", "ok", f"{entry.facts.title}: ready") for name, entry in entries]


def add_arguments(parser) -> None:
    """No arguments of its own."""


def run(arguments) -> int:
    """Print the findings; the exit status is 1 when one of them is bad."""
    findings = examine()
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    lines = [f"{marks[one.state]}  {one.topic}: {one.text}" + (f"\n      -> {one.remedy}" if one.remedy else "") for one in findings]
    show(arguments, [asdict(one) for one in findings], "\n".join(lines))
    return int(any(one.state == "bad" for one in findings))
