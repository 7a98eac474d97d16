"""`hwfault schema`: what editors need to check and complete the files that people write."""

import click

from hwfault.cli.command import Command
from hwfault.cli.common import print_json

_KINDS = ("train", "faults", "profile", "campaign")  # tests hold it equal to schemas.KINDS


@click.command("schema", cls=Command, examples=["schema train > train.schema.json"])
@click.argument("kind", type=click.Choice(_KINDS))
def command(kind: str) -> None:
    """Print the JSON Schema of a kind of file, for editors that check and complete YAML.

    KIND is what the file holds: the configuration of `hwfault train`, a list of faults, a profile, or a study of
    `hwfault campaign`. Editors with YAML's language server take it by a first line in the file:
    # yaml-language-server: $schema=train.schema.json
    """
    from hwfault.schemas import schema_of

    print_json(schema_of(kind))
