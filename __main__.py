"""The command line. Results go to stdout (``--json`` for machines), progress to stderr.

Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from . import __version__
from .commands import VERBS
from .errors import ConfigError, MedTuneError, UnknownName


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if words is None else words
    arguments = _parser(words).parse_args(words)
    try:
        return arguments.run(arguments) or 0
    except (ConfigError, UnknownName) as error:
        print(f"medtune {arguments.command}: {error}", file=sys.stderr)
        return 2
    except MedTuneError as error:
        print(f"medtune {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmedtune {arguments.command}: interrupted; what was done is kept: the same command goes on from there",
              file=sys.stderr)
        return 1


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser with the verb that was asked for, or with all of them when none was."""
    parser = argparse.ArgumentParser("medtune", description="Fine-tune diffusion models on medical images and score the result.")
    parser.add_argument("--version", action="version", version=f"medtune {__version__}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = words[0] if words and words[0] in VERBS else None
    for name in (asked,) if asked else VERBS:
        module = importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)
        verb = verbs.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__,
                                epilog=f"example:\n  {module.EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
