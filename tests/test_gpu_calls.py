"""The calls that launch every kernel, by CuPy: held to the oracle's loops in each dtype and memory format."""

import pytest
from core_calls import CORE, OPERATORS
from places import GPU

from tests.ladder.calls import by_loops
from tests.ladder.kernel_calls import CALLS, DTYPES, FORMATS, assert_as_expected, launched

_CASES = [(name, dtype, memory) for name, call in CALLS.items() for dtype in call.dtypes for memory in call.formats]


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize(
    ("name", "dtype", "memory"),
    [pytest.param(*case, marks=pytest.mark.core if case in CORE else (), id="-".join(case)) for case in _CASES],
)
def test_a_call_by_cupy_is_the_oracle_s(name, dtype, memory, gpu):
    assert_as_expected(CALLS[name].on(gpu, dtype, memory), by_loops((name, dtype, memory)))


def _kernels(cases):
    """Return what cases launch: kernels with their template arguments, element types and sizes of packs aside."""
    kernels = set()
    for name, dtype, memory in cases:
        for one in launched([CALLS[name]], (dtype,), (memory,)).values():
            templates = (str(argument) for argument in one.templates)
            aside = (
                "type" if text in (*DTYPES, "bfloat16") else "pack" if text in ("2", "4", "8") else text
                for text in templates
            )
            kernels.add((one.kernel.name, *aside))
    return kernels


def test_the_calls_of_every_change_meet_every_branch():
    assert {name for name, _, _ in CORE} == set(CALLS)
    for operator in OPERATORS:
        of_it = [case for case in CORE if CALLS[case[0]].operator == operator]
        assert {dtype for _, dtype, _ in of_it} == set(DTYPES), operator
        assert {memory for _, _, memory in of_it} == set(FORMATS), operator
    missing = _kernels(_CASES) - _kernels(CORE)
    assert not missing, f"add cases that launch these to tests/core_calls.py: _MORE: {missing}"
