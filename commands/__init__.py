"""The command line's verbs, one file each: its docstring is the summary, EXAMPLE an example, ``add_arguments`` the flags and
``run`` the work. Heavy imports belong inside of ``run``."""

VERBS = ("demo", "doctor", "methods", "metrics", "extractors", "convert-weights", "phantom", "train", "sample", "evaluate", "classify",
         "statistics", "report", "privacy", "inspect", "export", "merge")
