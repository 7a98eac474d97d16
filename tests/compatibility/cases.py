"""The faults of which 0.4.0 made plans and graphs, as they stand in YAML; files lie in the folder of the data."""

WEIGHTS, ACTIVATIONS, SUMS = {"kind": "weight"}, {"kind": "activation"}, {"kind": "accumulator"}
LINEAR, CONV, GROUPED = "linear.accumulator", "conv.accumulator", "grouped.accumulator"
STATIONARY = {"kind": "weight_stationary", "rows": 4, "columns": 3}
OUTPUTS = {"kind": "output_stationary", "rows": 5, "columns": 3}
UNIT = {"kind": "finn_mvau", "pe": 2, "simd": 3}
SECDED = {"kind": "secded", "data_bits": 32}
TMR = {"kind": "tmr", "data_bits": 8}
PARITY = {"kind": "parity", "data_bits": 16}
MAP = "device.safetensors"


def flips(probability=0.02, **rest):
    return {"model": "bit_flips", "probability": probability, **rest}


def word(effect, sites=WEIGHTS):
    return {"model": "word", "probability": 0.05, "effect": effect, "sites": sites}


def cluster(axis, **rest):
    return {"model": "cluster", "probability": 0.01, "sizes": [0.5, 0.3, 0.2], "axis": axis, **rest}


def profile(name, p=0.03, **rest):
    """Faults of a profile of the data's folder; `p` is its free parameter."""
    return {"model": "profile", "profile": f"profiles/{name}.yaml", "at": {"p": p}, **rest}


def library(name, rest=None, **at):
    return {"model": "profile", "profile": name, "at": at, **(rest or {})}


def device_map(**rest):
    return {"model": "map", "file": MAP, **rest}


def stuck(mapping, sites, bit=9, value=1, **place):
    return {"model": "stuck_element", "bit": bit, "value": value, "mapping": mapping, "sites": sites, **place}


def late(sites, mapping=None, bits=3):
    array = {} if mapping is None else {"mapping": mapping}
    return {"model": "late_bits", "probability": 0.2, "bits": bits, "sites": sites, **array}


PLANS = {
    # what the stream draws
    "flips": [flips()],
    "flips_directed": [{"model": "bit_flips", "p01": 0.01, "p10": 0.06}],
    "flips_one_way": [{"model": "bit_flips", "p10": 0.06, "sites": WEIGHTS}],
    "flips_by_bit": [flips([0.0, 0.01, 0.02, 0.08], sites="act*.act_quant")],
    "flips_by_bit_directed": [
        {"model": "bit_flips", "p01": [0.0, 0.01, 0.02, 0.08], "p10": [0.05, 0.0, 0.0, 0.01], "sites": WEIGHTS}
    ],
    "flips_everywhere": [flips(1.0, sites="conv.weight_quant")],
    "flips_of_accumulators": [flips(0.01, sites=SUMS)],
    "flips_of_biases": [flips(0.03, sites={"kind": "bias"})],
    "flips_by_index": [flips(sites={"kind": "activation", "index": [0, -1]}), flips(sites={"layer": "QuantLinear"})],
    "word_random": [word("random"), word("random", ACTIVATIONS)],
    "word_lsb": [word("lsb")],
    "word_msb": [word("msb", ACTIVATIONS)],
    "word_full": [word("full")],
    "word_mask": [word(5)],
    "cluster_bit": [cluster("bit")],
    "cluster_word": [cluster("word")],
    "cluster_by_bit": [cluster("word", sites=WEIGHTS) | {"probability": [0.0, 0.01, 0.02, 0.0]}],
    "several": [flips(0.01), word("random"), cluster("word", sites=ACTIVATIONS), word(1, "act.act_quant")],
    # profiles
    "profile_transient": [library("uniform-flips", ber=0.02)],
    "profile_directed": [library("asymmetric", p01=0.01, p10=0.04)],
    "profile_events": [library("mcu", event_probability=0.02)],
    "profile_share": [library("uniform-flips", {"share": 0.5, "sites": ["act.act_quant", WEIGHTS]}, ber=0.04)],
    "profile_by_bit": [profile("transient")],
    "profile_sign_magnitude": [
        profile("transient", mapping={"kind": "linear", "row_bits": 32, "representation": "sign_magnitude"})
    ],
    "profile_measured": [library("sram14-ibm-7points", operating_point=0)],
    "profile_permanent": [profile("permanent")],
    "profile_permanent_activations": [profile("permanent", sites=ACTIVATIONS)],
    "profile_rows": [profile("permanent", spatial={"kind": "rows", "fill": 0.5})],
    "profile_clusters": [
        profile("permanent", spatial={"kind": "clusters", "sizes": [0.5, 0.25, 0.25], "along": "column"})
    ],
    "profile_blocks": [library("bram28-kintex7-kc705b-undervolt", voltage_v=0.53), profile("blocks")],
    "profile_in_unit": [profile("permanent", mapping=UNIT, sites="grouped.weight_quant")],
    "profile_in_array": [profile("permanent", mapping=STATIONARY)],
    "profile_in_tiles": [profile("permanent", mapping=STATIONARY | {"tile": "fresh"})],
    "profile_padded": [
        profile(
            "permanent",
            sites=[WEIGHTS, {"kind": "bias"}],
            mapping={"kind": "linear", "row_bits": 48, "packing": "padded", "bit_order": "msb_first", "interleave": 3},
        )
    ],
    "profile_inference": [profile("intermittent_inference", sites=[WEIGHTS, ACTIVATIONS])],
    "profile_batch": [profile("intermittent_batch", sites=[WEIGHTS, ACTIVATIONS])],
    "profile_epoch": [profile("intermittent_epoch", sites=[WEIGHTS, ACTIVATIONS])],
    "profile_power_cycle": [profile("intermittent_power_cycle", sites=[WEIGHTS, ACTIVATIONS])],
    # protected memories
    "parity": [profile("uniform", protection=PARITY, sites=[WEIGHTS, ACTIVATIONS])],
    "secded": [profile("uniform", protection=SECDED)],
    "secded_due": [profile("uniform", protection=SECDED | {"on_detected": "due"})],
    "secded_padded": [
        profile(
            "uniform",
            protection=SECDED,
            sites=ACTIVATIONS,
            mapping={"kind": "linear", "row_bits": 32, "packing": "padded"},
        )
    ],
    "tmr": [profile("uniform", 0.1, protection=TMR)],
    "secded_permanent": [profile("permanent", protection=SECDED)],
    "tmr_intermittent": [profile("intermittent_inference", 0.1, protection=TMR, sites=[WEIGHTS, ACTIVATIONS])],
    "parity_batch": [profile("intermittent_batch", protection=PARITY, sites=[WEIGHTS, ACTIVATIONS])],
    "secded_in_unit": [
        profile(
            "permanent",
            protection=SECDED | {"data_bits": 12},
            mapping=UNIT,
            sites="grouped.weight_quant",
        )
    ],
    # maps of one device
    "map": [device_map()],
    "map_mapping": [device_map(mapping={"kind": "linear", "row_bits": 16, "bit_order": "msb_first"}, first_row=2)],
    "map_repeat": [device_map(mapping={"kind": "linear", "row_bits": 32, "rows": 16, "tile": "repeat"})],
    "map_activations": [device_map(sites=ACTIVATIONS)],
    "map_offset_binary": [device_map(mapping={"kind": "linear", "row_bits": 32, "representation": "offset_binary"})],
    "map_inference": [device_map(p_active=0.5, sites=[WEIGHTS, ACTIVATIONS])],
    "map_batch": [device_map(p_active=0.5, refresh="batch", sites=[WEIGHTS, ACTIVATIONS])],
    "map_epoch": [device_map(p_active=0.5, refresh="epoch", sites=[WEIGHTS, ACTIVATIONS])],
    "map_power_cycle": [device_map(p_active=0.5, refresh="power_cycle", sites=[WEIGHTS, ACTIVATIONS])],
    "map_secded": [device_map(protection=SECDED)],
    "map_secded_inference": [device_map(protection=SECDED, p_active=0.5, sites=ACTIVATIONS)],
    "map_twice": [device_map(sites="linear.weight_quant"), device_map(sites="linear.weight_quant", first_row=9)],
    "map_and_flips": [flips(0.01), device_map(), flips(0.01, sites=WEIGHTS)],
    # accumulators and processing elements
    "accumulator_wraps": [{"model": "accumulator", "width": 8}],
    "accumulator_saturates": [
        {"model": "accumulator", "width": 8, "overflow": "saturate", "mapping": STATIONARY, "sites": LINEAR},
        {"model": "accumulator", "width": 9, "overflow": "saturate", "sites": GROUPED},
    ],
    "accumulator_float64": [{"model": "accumulator", "width": 30, "arithmetic": "float64"}, flips(0.01, sites=SUMS)],
    "stuck_in_array": [stuck(STATIONARY, [CONV, LINEAR], element=[1, 2])],
    "stuck_in_outputs": [stuck(OUTPUTS, CONV, element=[3, 0], value=0)],
    "stuck_in_unit": [stuck(UNIT, [CONV, GROUPED], pe=1)],
    "stuck_and_narrow": [
        {"model": "accumulator", "width": 12, "overflow": "saturate", "mapping": STATIONARY},
        stuck(STATIONARY, [CONV, GROUPED, LINEAR], element=[0, 1]),
    ],
    "elements_of_device": [library("stuck-mac-array", pe_fraction=0.05)],
    "bypassed": [{"model": "bypassed", "elements": [[1, 0], [3, 2]], "mapping": STATIONARY}],
    "bypassed_in_unit": [{"model": "bypassed", "elements": [1], "mapping": UNIT, "sites": "grouped.weight_quant"}],
    "late": [late([CONV, GROUPED, LINEAR])],
    "late_in_outputs": [late([CONV, LINEAR], OUTPUTS)],
    "late_in_one_tile": [late([CONV], {"kind": "weight_stationary", "rows": 9, "columns": 4})],
    "late_in_unit": [late([CONV, GROUPED], UNIT)],
}
"""Name of a plan -> its faults, all of the network `chain`."""

FACTORS = {
    "factors": ([flips(), word("random"), profile("uniform", sites=ACTIVATIONS)], (0.5, 1.0, 0.0)),
    "factors_of_maps": ([device_map(), flips(0.05, sites=ACTIVATIONS), device_map(p_active=0.8)], (0.0, 0.25, 0.5)),
}
"""The same with factors on the probabilities."""

DEVICES = {
    "device": ([profile("permanent"), flips(0.01)], 2**64 - 1),
    "device_of_elements": ([library("stuck-mac-array", pe_fraction=0.05)], 41),
}
"""The same for one device."""

LATE_BEYOND = {
    "late_channels_beyond": [late([LINEAR], {"kind": "weight_stationary", "rows": 128, "columns": 4})],
    "late_products_beyond": [late([LINEAR], {"kind": "weight_stationary", "rows": 64, "columns": 10})],
    "late_behind_stuck": [late([LINEAR]), stuck(STATIONARY, LINEAR, element=[0, 1])],
}
"""Late bits that took a wrong word: refused today."""

OTHER_NETWORKS = {
    "frames": [flips()],
    "twice": [flips()],
    "shared": [flips(sites=WEIGHTS)],
    "tied": [flips(sites=WEIGHTS)],
}
"""Network -> faults of which plan and graph mean less today than 0.4.0 took them to mean."""

GRAPHS = {
    "transient": [flips(0.02), word("random"), cluster("word", sites=ACTIVATIONS), late([CONV])],
    "directed": [{"model": "bit_flips", "p01": 0.01, "p10": 0.06, "sites": ["act*", WEIGHTS]}],
    "channels_first": [flips(0.02, sites=["act*", WEIGHTS]), device_map(p_active=0.5, sites=ACTIVATIONS)],
    "fault_map": [device_map(sites=[WEIGHTS, ACTIVATIONS])],
    "intermittent": [
        *(device_map(p_active=0.5, refresh=refresh) for refresh in ("inference", "batch", "epoch")),
        device_map(p_active=0.5, refresh="batch", sites=ACTIVATIONS),
    ],
    "representations": PLANS["map_offset_binary"] + PLANS["profile_sign_magnitude"],
    "protected": PLANS["secded"] + PLANS["parity_batch"] + PLANS["secded_in_unit"],
    "protected_map": PLANS["map_secded"] + PLANS["map_secded_inference"],
    "arrays": [{"model": "accumulator", "width": 12}, *PLANS["stuck_in_array"], flips(0.01, sites=LINEAR)],
    "arrays_float64": PLANS["accumulator_float64"],
    "saturating": PLANS["stuck_and_narrow"],
}
"""Name of a graph -> its faults, all of the network `chain`."""
