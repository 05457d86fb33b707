"""`stepdistill serve`: a student behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepdistill.cli.options import Set


def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="An export, a run folder, or the folder of one student.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Ask clients for no key; only on this machine's own address.")
    ] = False,
    route: Annotated[
        bool, typer.Option("--route", help="Ask the teacher where the student is below the threshold.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Abstain below this confidence; default: the export's."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of the model; default: as its library does."),
    ] = None,
    set_: Set = None,
) -> None:
    """Answer texts over HTTP; clients bring the key that stands in STEPDISTILL_API_KEY."""
    from stepdistill.deploy.server.limits import serve_config
    from stepdistill.deploy.server.run import ServeOptions, serve

    limits = serve_config(set_ or [])
    if not serve(folder, ServeOptions(host, port, no_key, route, threshold, threads, limits)):
        raise typer.Exit(143)
