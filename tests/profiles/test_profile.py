"""What a profile may say, and the one clear error that anything else gets."""

import math

import pytest

from hwfault.errors import FileError, ModelError
from hwfault.profiles.parts import Effect
from hwfault.profiles.profile import Profile
from tests.helpers.profiles.profiles import BASE, GUESS, LAB, REMOVED, changed, curve, profile, rates

POINT = BASE["rate"]["points"][0]


def test_the_smallest_profile():
    p = profile()
    assert (p.name, p.mapping, p.protection, p.bit_weights, p.notes) == ("small", None, None, None, "")
    assert p.resolve_rate({"voltage_v": 0.5}).value == 1e-2
    assert p.status == "read"
    assert p.measured


PE = {"kind": "processing_elements", "rows": 4, "columns": 8}
ARRAY = {"kind": "weight_stationary", "rows": 4, "columns": 8}
FREE = {"quantity": "faulty_cells", "free": ["ber"]}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"schema_version": 2}, r"schema_version: .*\(given: 2\)"),
        ({"schema_version": REMOVED}, "schema_version: Field required"),
        ({"name": "a b"}, "name: .*'a b'"),
        ({"name": "a@b"}, "name: .*'a@b'"),
        ({"nmae": "x"}, "unknown key 'nmae': did you mean 'name'"),
        ({"technology": {"nod": "28 nm"}}, "technology: .*unknown key 'nod': did you mean 'node'"),
        ({"component": "memory"}, "component: .*'weight_memory'.*given: 'memory'"),
        ({"effect": REMOVED}, "effect: Field required"),
        ({"persistence__kind": "forever"}, "persistence: kind: .*'transient', 'intermittent' or 'permanent'"),
        ({"spatial": {"kind": "block"}}, "spatial: .*'block'.*'independent', 'block_column'"),
        ({"mapping": {"kind": "linear", "row_bit": 8}}, "mapping.linear.*'row_bit': did you mean 'row_bits'"),
        # sources
        ({"sources": REMOVED}, "sources: none is given, expected the source of the measured points"),
        ({"sources": [LAB, LAB]}, "sources: the key 'lab' is given twice"),
        ({"sources__0__status": "heard"}, "sources.0: status: .*'read', 'derived' or 'assumed'"),
        ({"sources__0__citaton": "x"}, "sources.0.*'citaton': did you mean 'citation'"),
        ({"rate__points__1__source": "labs"}, "rate.points.1: 'labs' is not among the sources: did you mean 'lab'"),
        ({"rate__points__1__source": REMOVED}, "rate: points.1: source: Field required"),
        ({"rate__axes__0__source": "x"}, "rate.axes.0: 'x' is not among the sources: known are: 'lab', 'guess'"),
        ({"rate__source": "gues"}, "rate: 'gues' is not among the sources: did you mean 'guess'"),
        ({"effect__source": "x"}, "effect: 'x' is not among the sources"),
        ({"spatial__source": "x"}, "spatial: 'x' is not among the sources"),
        ({"persistence__source": "x"}, "persistence: 'x' is not among the sources"),
        ({"mapping": {"kind": "linear", "row_bits": 8, "source": "x"}}, "mapping: 'x' is not among the sources"),
        # points
        ({"rate__points__0__rate": 1.2}, r"rate: points.0: rate: .*1.2, expected a number in \[0, 1\] \(a rate of 3 %"),
        ({"rate__points__0__rate": -0.1}, r"expected a number in \[0, 1\]"),
        ({"rate__points__0__rate": math.nan}, r"expected a number in \[0, 1\]"),
        ({"rate__points__0__rate": True}, "True is not a number"),
        ({"rate__points__0__rate": REMOVED}, "rate: points.0: .*expected a rate, or n_faults and n_bits"),
        ({"rate__points__0__rate": 0}, "the rate at voltage_v=0.6 is 0, which has no logarithm; give n_faults and"),
        ({"rate__points__0__n_faults": 3}, "n_faults and n_bits go together, one of them is missing"),
        ({"rate__points__0__n_bits": 3}, "n_faults and n_bits go together, one of them is missing"),
        ({"rate__points__0": {**POINT, "n_faults": 5, "n_bits": 4}}, "n_faults 5 exceeds n_bits 4"),
        ({"rate__points__0": {**POINT, "n_faults": -5, "n_bits": 4}}, "n_faults: .*greater than or equal to 0"),
        ({"rate__points__0": {**POINT, "n_faults": 0, "n_bits": 0}}, "n_bits: .*greater than or equal to 1"),
        (
            {"rate__points__0": {**POINT, "n_faults": 1002, "n_bits": 10_000_000}},
            "rate 0.0001 contradicts n_faults / n_bits = 1002 / 10000000 = 0.0001002; leave the rate out, or correct",
        ),
        ({"rate__points__0__at": {"voltag_v": 0.6}}, "points.0.at: unknown axis 'voltag_v': did you mean 'voltage_v'"),
        ({"rate__points__0__at": {}}, "points.0.at: the axis 'voltage_v' is missing"),
        ({"rate__points__0__at": {"voltage_v": math.inf}}, "finite number"),
        ({"rate__points__0__at": {"voltage_v": 0.5}}, "points 0 and 1 are both at voltage_v=0.5"),
        (
            {"rate__points": [*BASE["rate"]["points"], {**POINT, "at": {"voltage_v": 0.55}}]},
            r"the points are out of order: voltage_v must rise or fall all along, not \[0.6, 0.5, 0.55\]",
        ),
        ({"rate__points": []}, "expected either measured `points` over `axes`, or `free` parameters"),
        ({"rate__free": ["ber"]}, "expected either measured `points` over `axes`, or `free` parameters"),
        ({"rate__interpolation": "cubic"}, "interpolation: .*'log10_linear', 'linear' or 'exact'"),
        ({"rate__times_listed": 0}, "times_listed: .*greater than or equal to 1"),
        # axes
        ({"rate__axes": []}, "axes: the points lie over at least one axis"),
        ({"rate__axes": [BASE["rate"]["axes"][0]] * 2}, "axes: 'voltage_v' is named twice"),
        ({"rate__axes__0__name": "Voltage V"}, "axes.0: name: .*'Voltage V'"),
        ({"rate__axes__0__fail_free": 1}, "axes.0.*'fail_free': did you mean 'fail_free_from'"),
        ({"rate__axes__0__fail_free_from": 0.55}, "a point at voltage_v = 0.6 lies in the fail-free region"),
        ({"rate__axes__0__fail_free_from": 0.6}, "a point at voltage_v = 0.6 lies in the fail-free region"),
        ({"rate__axes__0__fail_free_from": 0.4}, "fail_free_from 0.4 lies at the end of voltage_v where the rates are"),
        ({"rate__axes__0__crash_below": 0.55}, "a point at voltage_v = 0.5, but the device crashes below 0.55 V"),
        ({"rate__axes__0__crash_above": 0.55}, "a point at voltage_v = 0.6, but the device crashes above 0.55 V"),
        (
            {"rate__axes__0": {"name": "voltage_v", "unit": "V", "crash_below": 0.7, "fail_free_from": 0.65}},
            "crash_below 0.7 lies in the fail-free region, from 0.65 on",
        ),
        (
            {"rate__axes__0": {"name": "voltage_v", "unit": "V", "crash_above": 0.7, "fail_free_from": 0.7}},
            "crash_above 0.7 lies in the fail-free region, from 0.7 on",
        ),
        (
            {"rate__axes__0": {"name": "voltage_v", "unit": "V", "crash_below": 0.4, "worse": "higher"}},
            "crash_below and worse contradict each other: is lower or higher voltage_v harsher",
        ),
        (
            {"rate__axes__0": {"name": "voltage_v", "unit": "V", "fail_free_from": 0.7, "worse": "higher"}},
            "a point at voltage_v = 0.6 lies in the fail-free region",
        ),
        # effect and persistence
        ({"effect": {}}, "effect: .*the shares of flip, stuck_at_0 and stuck_at_1 sum to 0, expected 1"),
        ({"effect": {"flip": 0.5, "stuck_at_0": 0.4}}, "sum to 0.9, expected 1"),
        ({"effect": {"flip": 1.5}}, r"effect: flip: .*1.5, expected a number in \[0, 1\]"),
        ({"effect": {"flip": True}}, "effect: flip: True is neither a number nor a parameter's name"),
        ({"effect": {"flip": "A b"}}, "effect: flip: 'A b' is neither a number nor a parameter's name"),
        ({"effect": {"flip": [1]}}, r"effect: flip: \[1\] is neither a number nor a parameter's name"),
        ({"effect": {"flip": 0.5, "stuck_at_0": "p"}}, "either shares that sum to 1, or names of free parameters"),
        ({"effect": {"flip": "p"}}, "effect: 'p' is not a free parameter of the rate: known are: none"),
        ({"persistence__p_active": 0.5}, "p_active goes with intermittent faults, not with permanent ones"),
        ({"persistence__refresh": "batch"}, "refresh goes with intermittent faults, not with permanent ones"),
        ({"persistence": {"kind": "intermittent", "p_active": 0.5}}, "intermittent faults need both p_active and"),
        ({"persistence": {"kind": "intermittent", "refresh": "batch"}}, "intermittent faults need both p_active and"),
        (
            {"persistence": {"kind": "intermittent", "refresh": None, "p_active": 1}},
            "intermittent faults need both p_active and refresh",
        ),
        ({"bit_weights": []}, "bit_weights: expected numbers from 0, at least one of them above it"),
        ({"bit_weights": [0, 0]}, "bit_weights: expected numbers from 0"),
        ({"bit_weights": [1, -1]}, "bit_weights: expected numbers from 0"),
        # free parameters
        ({"rate": {**FREE, "free": ["a", "a"]}}, "free: 'a' is named twice"),
        ({"rate": {**FREE, "free": ["a", "b"]}}, "rate.free: 2 parameters, expected one, or names of them as shares"),
        ({"rate": {**FREE, "axes": BASE["rate"]["axes"]}}, "free parameters have no axes"),
        ({"rate": {**FREE, "interpolation": "linear"}}, "interpolation and times_listed go with measured points, not"),
        ({"rate": FREE, "effect": {"flip": "bar"}}, "'bar' is not a free parameter of the rate: did you mean 'ber'"),
        ({"rate": {**FREE, "quantity": "flips"}, "effect": {"flip": "ber"}}, "and the rate's quantity is faulty_cells"),
        ({"rate": {**FREE, "free": ["a", "b"]}, "effect": {"flip": "a"}}, "each of them stands once"),
        ({"rate": FREE, "effect": {"stuck_at_0": "ber", "stuck_at_1": "ber"}}, "each of them stands once"),
        # parts that must fit each other
        ({"rate__quantity": "faulty_elements"}, "faulty_elements and processing_elements go together"),
        ({"spatial": PE, "mapping": ARRAY}, "rate.quantity faulty_cells with spatial processing_elements: faulty_ele"),
        ({"rate__quantity": "events"}, "rate.quantity events goes with spatial clusters, not with independent"),
        ({"spatial": {"kind": "rows"}}, "mapping: missing; a spatial pattern of rows lies in a memory or array"),
        (
            {"rate__quantity": "faulty_elements", "spatial": PE, "mapping": {**ARRAY, "rows": 8}},
            "mapping: weight_stationary has 8 x 8, spatial has 4 x 8 processing elements; expected an array of the",
        ),
        (
            {"rate__quantity": "faulty_elements", "spatial": PE, "mapping": {"kind": "linear", "row_bits": 8}},
            "mapping: linear has a plain memory, spatial has 4 x 8 processing elements",
        ),
    ],
)
def test_wrong_profiles(changes, error):
    with pytest.raises(ModelError, match=f"(?s)^profile.yaml: .*{error}"):
        profile(**changes)


GRID_AXES = [{"name": "voltage_v", "unit": "V"}, {"name": "t", "unit": "C"}]


def on_grid(*places):
    points = [{"at": {"voltage_v": v, "t": t}, "rate": 0.1, "source": "lab"} for v, t in places]
    return profile(rate={"quantity": "flips", "axes": GRID_AXES, "points": points})


def test_grids_are_full_and_in_order():
    assert on_grid((1, 1), (1, 2), (2, 1), (2, 2)).rate.values == ((1.0, 2.0), (1.0, 2.0))
    with pytest.raises(ModelError, match="3 points do not fill the grid of 2 x 2 values of their axes"):
        on_grid((1, 1), (1, 2), (2, 1))
    with pytest.raises(ModelError, match=r"points.1: out of order; the last axis must vary fastest"):
        on_grid((1, 1), (2, 1), (1, 2), (2, 2))
    with pytest.raises(ModelError, match=r"out of order: t must rise or fall all along, not \[1.0, 3.0, 2.0\]"):
        on_grid((1, 1), (1, 3), (1, 2))


def test_counts_that_nearly_agree_with_the_rate():
    curve([(0.6, {"rate": 1.0e-4, "n_faults": 10_005, "n_bits": 100_000_000}), (0.5, {"rate": 0.1})])
    with pytest.raises(ModelError, match="contradicts"):
        curve([(0.6, {"rate": 1.0e-4, "n_faults": 10_011, "n_bits": 100_000_000}), (0.5, {"rate": 0.1})])
    with pytest.raises(ModelError, match="contradicts"):
        curve([(0.6, {"rate": 1.0e-9, "n_faults": 0, "n_bits": 100}), (0.5, {"rate": 0.1})])


def test_yaml_numbers_without_a_point():
    p = profile(rate__points__0__rate="1e-4", effect={"flip": "1e0"})
    assert p.rate.points[0].rate == 1e-4
    assert p.effect.flip == 1.0


def test_profiles_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        profile().name = "other"


def test_equal_profiles_have_equal_digests():
    one = profile()
    assert one.digest == profile(technology={}, rate__interpolation="log10_linear", effect={"flip": 1}).digest
    other = [profile(notes="x"), profile(rate__points__0__rate=1.0001e-4), profile(persistence={"kind": "transient"})]
    assert len({p.digest for p in (one, *other)}) == 4


def test_a_known_digest():
    assert profile().digest == "d73d4a7850bf491c9db70310f5f04074599fefdaccdb5d6104b607796220ba2f"


def test_flips_count_stuck_cells_half():
    cases = ({"flip": 1}, 0.01), ({"stuck_at_0": 1}, 0.02), ({"flip": 0.5, "stuck_at_1": 0.5}, 0.01 / 0.75)
    for effect, cells in cases:
        rate = profile(rate__quantity="flips", effect=effect).resolve_rate({"voltage_v": 0.5})
        assert (rate.value, rate.cells) == (0.01, pytest.approx(cells, rel=1e-15))
        assert (rate.p01 + rate.p10) / 2 == pytest.approx(0.01, rel=1e-15)
    with pytest.raises(ModelError, match=r"for 0.6 of the bits to read wrong 1.2 of the cells would have to be faulty"):
        profile(rate__quantity="flips", rate__points__1__rate=0.6, effect={"stuck_at_0": 1}).resolve_rate(
            {"voltage_v": 0.5}
        )


def test_events_cover_several_cells():
    clusters = {"kind": "clusters", "sizes": [0.5, 0.5], "along": "row"}
    p = profile(rate={"quantity": "events", "free": ["event_probability"]}, spatial=clusters)
    for events in (0.0, 1e-9, 0.1, 1.0):
        rate = p.resolve_rate({"event_probability": events})
        assert (rate.value, rate.cells) == (events, pytest.approx(1 - (1 - events) ** 1.5, rel=1e-6))


def test_one_free_parameter_is_the_rate():
    p = profile(rate=FREE, sources=[])
    rate = p.resolve_rate({"ber": 0.03})
    assert (rate.value, rate.cells, rate.flip, rate.region) == (0.03, 0.03, 0.03, "free")
    assert p.resolve_rate({"ber": 0}).value == 0
    for point, words in (
        ({}, "small: the free parameter ber is not given; write for example small@ber=0.001"),
        ({"br": 0.1}, "unknown name 'br' in the operating point: did you mean 'ber'"),
        ({"ber": 3}, r"small: ber is 3.0, expected a number in \[0, 1\] \(a rate of 3 % is written 0.03\)"),
        ({"ber": math.nan}, "ber = nan, expected a finite number"),
    ):
        with pytest.raises(ModelError, match=words):
            p.resolve_rate(point)


def test_free_parameters_that_are_effects():
    p = profile(rate={**FREE, "free": ["p01", "p10"]}, effect={"stuck_at_1": "p01", "stuck_at_0": "p10"})
    rate = p.resolve_rate({"p01": 0.1, "p10": 0.3})
    assert (rate.p01, rate.p10, rate.value) == (0.1, 0.3, 0.4)
    assert rate.effect.shares == (0.0, pytest.approx(0.75), pytest.approx(0.25))
    assert p.resolve_rate({"p01": 0, "p10": 0}).effect == Effect(flip=1.0)
    with pytest.raises(ModelError, match=r"small: p01 \+ p10 is 1.1, expected at most 1 together"):
        p.resolve_rate({"p01": 0.5, "p10": 0.6})


STRICT = "small: strict sources were asked for, but "


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rate__points__1__source": "guess"}, r"rate rest on an assumption \(guess: Nobody looked.\)"),
        ({"rate__axes__0": {"name": "voltage_v", "unit": "V", "fail_free_from": 0.9, "source": "guess"}}, None),
        ({"effect__source": "guess", "spatial__source": "guess"}, r"effect and spatial rest on an assumption"),
        ({"persistence__source": "guess"}, "persistence rest on an assumption"),
        ({"mapping": {"kind": "linear", "row_bits": 8, "source": "guess"}}, "mapping rest on an assumption"),
        ({"rate__source": "guess"}, "rate rest on an assumption"),
        ({"rate": FREE}, r"the rate is a free parameter \(ber\) that no source backs"),
        ({"effect__source": "lab"}, None),
    ],
)
def test_strict_sources(changes, reason):
    p = profile(**changes)
    point = {"ber": 0.1} if p.rate.free else {"voltage_v": 0.5}
    assert p.resolve_rate(point).value > 0
    if reason is None:
        assert p.resolve_rate(point, strict_sources=True) == p.resolve_rate(point)
        return
    with pytest.raises(ModelError, match=STRICT + reason):
        p.resolve_rate(point, strict_sources=True)


def test_strict_sources_look_at_what_is_used():
    p = profile(rate__points__0__source="guess")
    assert p.status == "assumed"
    assert p.resolve_rate({"voltage_v": 0.5}, strict_sources=True).status == "read"
    with pytest.raises(ModelError, match="rate rest on an assumption"):
        p.resolve_rate({"voltage_v": 0.55}, strict_sources=True)


def test_a_fail_free_region_may_be_assumed():
    p = profile(rate__axes__0={"name": "voltage_v", "unit": "V", "fail_free_from": 0.9, "source": "guess"})
    assert p.resolve_rate({"voltage_v": 0.6}, strict_sources=True).sources == ("lab",)
    for voltage in (0.7, 1.0):
        assert p.resolve_rate({"voltage_v": voltage}).status == "assumed"
        with pytest.raises(ModelError, match="rate rest on an assumption"):
            p.resolve_rate({"voltage_v": voltage}, strict_sources=True)


def test_the_worst_status_counts():
    derived = {**LAB, "key": "sum", "status": "derived"}
    p = profile(sources=[LAB, derived, GUESS], rate__points__1__source="sum")
    assert p.status == "derived"
    assert p.resolve_rate({"voltage_v": 0.55}).status == "derived"
    assert p.resolve_rate({"voltage_v": 0.6}).status == "read"
    assert profile(sources__0__measured=False).measured is False
    assert profile(spatial__source="guess").status == "assumed"


def test_a_file_of_ones_own(tmp_path):
    import yaml

    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed()))
    assert Profile.load(path) == Profile.load(str(path)) == profile()
    path.write_text("rate: [")
    with pytest.raises(ModelError, match=r"mine.yaml: not a YAML file"):
        Profile.load(path)
    with pytest.raises(FileError, match=r"none.yaml: cannot be read \(No such file"):
        Profile.load(tmp_path / "none.yaml")


def test_rates_need_not_rise():
    assert rates([(0.7, 1e-3), (0.6, 1e-4), (0.5, 1e-2)]).resolve_rate({"voltage_v": 0.6}).value == 1e-4
