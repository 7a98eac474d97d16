"""`python -m hwfault`: the command line without an installed script."""

from hwfault.cli import main

main(prog_name="hwfault")
