"""What makes sums on CUDA devices exact: which of torch's settings are off in the block, and as they were after it."""

import pytest
import torch

from hwfault.arithmetic.exact import exact_on_cuda

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


def usual():
    pass


def old():
    MATMUL.allow_tf32 = True


def new():
    MATMUL.fp32_precision = "tf32"


def settings():
    """Each by its name, None for what torch does not tell after it was set by another name."""
    found = [
        CUDNN.enabled,
        MATMUL.allow_fp16_reduced_precision_reduction,
        MATMUL.allow_bf16_reduced_precision_reduction,
    ]
    for read in (lambda: MATMUL.allow_tf32, lambda: getattr(MATMUL, "fp32_precision", None)):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


@pytest.fixture(params=[usual, old, new])
def before(request):
    """Torch's settings as they are, or as those who want speed set them."""
    if request.param is new and not hasattr(MATMUL, "fp32_precision"):
        pytest.skip("this torch has the old name only")
    request.param()
    yield settings()
    if hasattr(MATMUL, "fp32_precision"):
        MATMUL.fp32_precision = "none"
    MATMUL.allow_tf32 = False


def off(found):
    *others, tf32, precision = found
    return not any(others) and not tf32 and precision in ("ieee", None)


def test_settings(before):
    assert all(before[:3])
    with exact_on_cuda():
        assert off(settings())
        with exact_on_cuda():
            assert off(settings())
        assert off(settings())
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
