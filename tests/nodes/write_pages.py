"""Writes `web/docs` anew: run with a ComfyUI's Python, in its folder, with the package `medtune` on the path."""

# ruff: noqa: E402

import os
import sys

sys.argv[1:] = ["--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)
from medtune.nodes import load, pages

pages.write(load())
