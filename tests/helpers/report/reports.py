"""A report of a replay that needs all the room there is: long names, and numbers of many digits."""

from hwfault.proof.report import Codes, Difference, ReplayReport, RunRecord, SiteRecord

_MANY = 1_234_567_890


def long_report():
    """Eight sites in two runs, the second of which differs."""
    sites = []
    for place in range(8):
        name = f"backbone.stage{place}.residual_blocks.{place}.convolution_with_batch_norm.weight_quant.tensor_quant"
        counts = {"words": _MANY, "faults_expected": _MANY, "faults_seen": _MANY, "codes_differ": _MANY * (place == 7)}
        bands = {"differ_at": (0, place, 0, 1), "faults_at": (9, 3, 1, 2)}
        sites.append(SiteRecord(name=name, kind="weight", **counts, **bands))
    words = tuple(Codes(word=_MANY + at, recorded_before=1, recorded_after=-128, found_before=3) for at in range(4))
    first = Difference(kind="codes", site=sites[7].name, sample=3, word=_MANY + 2, recorded=1, found=3, words=words)
    run = {"predictions": _MANY, "predictions_differ": 3, "outputs": _MANY, "outputs_differ": 7}
    clean = RunRecord(seed=None, sites=tuple(sites[:7]), **run, outputs_max_difference=0.0)
    faulty = RunRecord(seed=2**64 - 1, sites=tuple(sites), **run, outputs_max_difference=0.5, first=first)
    return ReplayReport(
        bundle_sha256="0" * 64,
        plan_sha256="f" * 64,
        engine="onnxruntime 1.20",
        versions={"hwfault": "0.5.0"},
        recorded_with={"torch": "2.0"},
        samples=_MANY,
        runs=(clean, faulty),
        faults=("bit_flips probability=0.001 on *",),
        rate="on average 3.5 faults a sample",
        network=f"clean.onnx of the bundle (SHA-256 {'a' * 64})",
        data=f"16 samples in inputs.safetensors of the bundle (SHA-256 {'b' * 64})",
    )
