"""`python -m stepdistill` is the `stepdistill` command."""

from stepdistill.cli.main import main

main()
