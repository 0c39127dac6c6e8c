"""The random words are Philox4x64-10, counted as documented: a GPU kernel that follows the text gets the same ones."""

import numpy as np
import pytest

from gpuconv.random import Stream, generator, words

_MASK = 2**64 - 1


def _philox(counter, key):
    """Return the four words of one block, after the paper (Salmon et al., SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = second >> 64 ^ c1 ^ k0, second & _MASK, first >> 64 ^ c3 ^ k1, first & _MASK
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & _MASK, k1 + 0xBB67AE8584CAA73B & _MASK
    return [c0, c1, c2, c3]


def test_reference_gives_the_published_answers():
    zero = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    ones = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert _philox([0] * 4, [0] * 2) == zero
    assert _philox([_MASK] * 4, [_MASK] * 2) == ones


@pytest.mark.parametrize("stream", Stream)
@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("step", [0, 1, 2**32, 2**64 - 1])
def test_words_are_blocks_of_the_generator(seed, stream, step):
    """Key (seed, stream), counter (block, step, 0, 0), blocks counted from 1."""
    expected = [word for block in (1, 2, 3) for word in _philox([block, step, 0, 0], [seed, int(stream)])]
    drawn = words(10, seed=seed, stream=stream, step=step)
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == expected[:10]


def test_word_does_not_depend_on_how_many_are_drawn():
    many = words(1001, seed=3, stream=Stream.DROPOUT, step=4)
    for count in (0, 1, 2, 3, 4, 5, 999):
        assert words(count, seed=3, stream=Stream.DROPOUT, step=4).tolist() == many[:count].tolist()


def test_seeds_streams_and_steps_do_not_meet():
    places = [(seed, stream, step) for seed in range(4) for stream in Stream for step in range(4)]
    drawn = [word for seed, stream, step in places for word in words(8, seed=seed, stream=stream, step=step).tolist()]
    assert len(set(drawn)) == len(drawn)


def test_stream_numbers_are_frozen():
    """Old checkpoints resume with these: a new purpose gets a new number."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "INIT": 1,
        "SHUFFLE": 2,
        "AUGMENT": 3,
        "DROPOUT": 4,
        "DATA": 5,
    }


def test_generator_is_a_function_of_its_arguments():
    def draw(*place):
        return generator(*place).standard_normal(5).tolist()

    assert draw(1, Stream.INIT, 2) == draw(1, Stream.INIT, 2)
    assert (
        len(
            {
                tuple(draw(*p))
                for p in [(1, Stream.INIT, 2), (2, Stream.INIT, 2), (1, Stream.DATA, 2), (1, Stream.INIT, 3)]
            }
        )
        == 4
    )


def test_drawing_leaves_the_global_state_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state that must not be touched
    words(100, seed=0, stream=Stream.INIT)
    generator(0, Stream.SHUFFLE).permutation(10)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
