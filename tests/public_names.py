"""Not run: type-checked. A type checker sees the public names as they are, so that it finds misspelt arguments.

Each wrong use is marked; where a name were Any, mypy would call the mark useless.
"""

import hwfault as hf
from hwfault import BitFlips, inject, sites

BitFlips(probability=0.01)
BitFlips(probabilty=0.01)  # type: ignore[call-arg]
inject("not a network", BitFlips(probability=0.01))  # type: ignore[arg-type]
sites(1)  # type: ignore[arg-type]
hf.session("graph.onnx", thread=1)  # type: ignore[call-arg]
hf.no_such_name  # type: ignore[attr-defined]  # noqa: B018
