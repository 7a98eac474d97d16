import copy

import pytest
import torch

from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.laws.models import bit_errors
from hwfault.network.sites import sites
from hwfault.train import build
from hwfault.train.data import digits
from hwfault.train.networks import digits_cnn
from tests.helpers.train import small


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5])
def test_digits_cnn_is_exact_in_float32(bits, rate):
    network = build("digits_cnn", bits=bits).eval()
    wide = copy.deepcopy(network).double()
    x = digits().test_x[:64]
    with torch.no_grad(), inject(network, bit_errors(rate), seed=1), inject(wide, bit_errors(rate), seed=1):
        assert torch.equal(network(x).double(), wide(x.double()))


def test_digits_cnn_gives_the_same_sums_with_its_channels_in_another_order():
    network = build("digits_cnn").eval()
    shuffled = copy.deepcopy(network)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shuffled.features[4].weight.copy_(network.features[4].weight[order])
        weight = network.classifier.weight.view(10, 64, 4)[:, order]
        shuffled.classifier.weight.copy_(weight.reshape(10, 256))
        x = digits().test_x
        assert torch.equal(network(x), shuffled(x))


def test_digits_cnn_stores_what_it_says():
    found = {site.name: (site.kind, site.bit_width, site.signed) for site in sites(digits_cnn(bits=3))}
    assert found["input.act_quant"] == ("activation", 8, False)
    assert found["features.0.weight_quant"] == ("weight", 3, True)
    assert found["features.5.act_quant"] == ("activation", 3, False)
    assert len(found) == 8


def test_the_seed_fixes_the_weights_and_leaves_torchs_own_state():
    state = torch.get_rng_state()
    one, same, other = (build("digits_cnn", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_users_network():
    assert build("tests.helpers.train.small:network", width=5)[0].out_features == 5


@pytest.mark.parametrize(
    ("spec", "arguments", "text"),
    [
        ("digit_cnn", {}, "did you mean 'digits_cnn'"),
        ("no.such.module:f", {}, "cannot be imported"),
        (":f", {}, "cannot be imported"),
        (".relative:f", {}, "cannot be imported"),
        ("tests.helpers.train.small:netwrok", {}, "did you mean 'network'"),
        ("tests.helpers.train.small:CONSTANT", {}, "no function 'CONSTANT'"),
        ("tests.helpers.train.small:gathering", {"wdith": 3}, "unexpected keyword argument 'wdith'"),
        ("tests.helpers.train.small:not_a_network", {}, "returned dict"),
        ("tests.helpers.train.small:broken", {}, "raised Broken: on purpose ("),
        ("digits_cnn", {"bits": 1}, "bits is 1, expected 2 to 8"),
        ("digits_cnn", {"bits": "4"}, "bits is '4'"),
    ],
)
def test_a_wrong_name_is_one_clear_error(spec, arguments, text):
    with pytest.raises(HwfaultError, match=r"^(network|digits_cnn)") as error:
        build(spec, **arguments)
    assert text in str(error.value)


def test_a_module_that_cannot_be_read_says_where(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hwfault_test_typo.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(HwfaultError, match=r"cannot be imported \(SyntaxError: .*hwfault_test_typo.py, line 2"):
        build("hwfault_test_typo:f")
    (tmp_path / "hwfault_test_wrong.py").write_text("x = 1\ny = {}['key']\n")
    with pytest.raises(HwfaultError, match=r"cannot be imported \(KeyError: 'key' \(.*hwfault_test_wrong.py, line 2\)"):
        build("hwfault_test_wrong:f")


def test_what_the_users_own_code_raises_says_where():
    with pytest.raises(HwfaultError, match=r"small\.py, line \d+\); mend that code") as error:
        build("tests.helpers.train.small:broken")
    assert isinstance(error.value.__cause__, small.Broken)
    with pytest.raises(HwfaultError, match=r"^network .x. is unknown"):
        build("tests.train.test_networks:refusing")


def refusing():
    return build("x")
