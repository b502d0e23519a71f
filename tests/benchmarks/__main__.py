"""Run a benchmark and print its figures: `python -m tests.benchmarks relay --json`."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from typing import Any

import click

NAMES = ("relay", "retry", "fairness", "notify", "gateway", "consume")


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--quick", is_flag=True, help="A tenth of the work, to see that it runs: no figures to quote.")
def main(name: str, *, as_json: bool, quick: bool) -> None:
    def say(text: str) -> None:
        if not as_json:
            print(text, file=sys.stderr, flush=True)

    measure = import_module(f"tests.benchmarks.{name}").measure
    figures: dict[str, Any] = asyncio.run(measure(say, quick=quick))
    if as_json:
        print(json.dumps(figures))
        return
    for figure, value in figures.items():
        print(f"{figure:24} {value}")


if __name__ == "__main__":
    main()
