"""`python -m cli`: the command `slimmoa` by a module's name, as Ray jobs call it."""

from cli.main import main

main()
