"""`python -m segdet` is the `segdet` command."""

from segdet.cli.main import main

main()
