"""`python -m benchmarks NAME`: run one of the benchmarks; each prints Markdown on standard output."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.waiting import BenchmarkError, InterruptedBenchmarkError, stop_on_signals

#: Modules of this package with `add_options(parser)` and `run(arguments)`; the first line of each one's
#: docstring is its help.
_BENCHMARKS = (
    "data-plane",
    "small-files",
    "control-plane",
    "scale",
    "startup",
    "verifying",
    "polite",
    "fleet",
    "chaos",
)


def main() -> int:
    """Run the benchmark that is asked for; 1 if its figures would not be worth anything."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(metavar="NAME", required=True)
    for name in _BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        about = (module.__doc__ or "").partition("\n")[0]
        one = names.add_parser(
            name,
            help=about,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(one)
        one.set_defaults(run=module.run)
    arguments = parser.parse_args()
    stop_on_signals()
    try:
        arguments.run(arguments)
    except InterruptedBenchmarkError:
        return 130
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
