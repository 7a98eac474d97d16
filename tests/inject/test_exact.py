"""What makes sums on CUDA devices exact: which of torch's settings are off in the block, and as they were after it."""

import pytest
import torch

from hwfault.inject import exact_on_cuda

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


def settings():
    reduced = (MATMUL.allow_fp16_reduced_precision_reduction, MATMUL.allow_bf16_reduced_precision_reduction)
    return CUDNN.enabled, MATMUL.allow_tf32, *reduced


@pytest.fixture(params=[False, True], ids=["usual", "fast"])
def before(request):
    """Torch's settings as they are, or as those who want speed set them."""
    usual = MATMUL.allow_tf32
    MATMUL.allow_tf32 = request.param
    yield settings()
    MATMUL.allow_tf32 = usual


def test_settings(before):
    assert before[0]
    with exact_on_cuda():
        assert settings() == (False, False, False, False)
        with exact_on_cuda():
            assert not any(settings())
        assert not any(settings())
    assert settings() == before


def test_settings_after_an_error(before):
    with pytest.raises(KeyError), exact_on_cuda():
        raise KeyError
    assert settings() == before


def test_the_cpu_computes_as_ever():
    x, w = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)
    expected = torch.conv2d(x, w)
    with exact_on_cuda():
        assert torch.equal(torch.conv2d(x, w), expected)
