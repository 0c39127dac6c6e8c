"""Files made to do harm: nothing in them runs, nothing is written, memory stays small, and the refusal says why."""

import builtins
import contextlib
import gzip
import io
import os
import pickle
import pickletools
import random
import subprocess
import tarfile
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import tiny_cifar10 as tiny
from tiny_cifar10 import BINARY, PYTHON

from gpuconv.data import pickles
from gpuconv.data.cifar import archive
from gpuconv.data.pickles import Array, Class, Instance, read_pickle
from gpuconv.errors import DatasetCorruptError, GpuconvError, UnsafeArchiveError

# Pickles -----------------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call: what a hostile file has in place of data."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Plain:
    """Pickles as an object of a class with some state."""


CALLS = {
    "os_system": lambda sentinel: Calls(os.system, f"touch {sentinel}"),
    "subprocess": lambda sentinel: Calls(subprocess.check_call, ["touch", str(sentinel)]),
    "eval": lambda sentinel: Calls(eval, f"open({str(sentinel)!r}, 'w')"),
    "exec": lambda sentinel: Calls(exec, f"open({str(sentinel)!r}, 'w')"),
    "open": lambda sentinel: Calls(open, str(sentinel), "w"),
    "getattr": lambda sentinel: Calls(getattr, "", "join"),
    "import": lambda sentinel: Calls(builtins.__import__, "antigravity"),
    "numpy_load": lambda sentinel: Calls(np.load, str(sentinel)),
    "numpy_fromfile": lambda sentinel: Calls(np.fromfile, str(sentinel)),
    "object_of_a_class": lambda sentinel: Plain(),
    "class_itself": lambda sentinel: Plain,
    "set": lambda sentinel: {1, 2},
    "complex": lambda sentinel: 1j,
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_as_they_were_stored_by_every_protocol(protocol, order):
    array = np.asarray(np.arange(6, dtype="<i4").reshape(2, 3), order=order)
    stored = read_pickle(pickle.dumps(array, protocol=protocol), "batch", most_steps=200)
    assert (stored.shape, stored.dtype, stored.order) == ((2, 3), "i4", "<")
    raw = stored.raw if isinstance(stored.raw, bytes) else stored.raw.encode("latin1")
    read = np.frombuffer(raw, stored.order + stored.dtype).reshape(stored.shape, order="F" if stored.fortran else "C")
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_no_pickle_runs_code(tmp_path, call, protocol):
    sentinel = tmp_path / "sentinel"
    rows = tiny.records()["data_batch_2"]
    content = tiny.batch_dict(rows, str) | {"filenames": [call(sentinel)]}
    folder = tiny.write_folder(tmp_path, PYTHON)
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(UnsafeArchiveError, match=r"data_batch_2 is not plain data: .*; nothing of it was run"):
        tiny.read(tmp_path)
    assert not sentinel.exists()


def test_the_harmful_pickles_do_harm_to_others(tmp_path):
    """The check of the check: an ordinary unpickler makes the sentinel."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(pickle.dumps(CALLS["os_system"](sentinel)))
    assert sentinel.exists()


def test_the_refusal_names_what_was_asked_for():
    with pytest.raises(UnsafeArchiveError, match=r"^batch is not plain data: it names (posix|nt)\.system"):
        read_pickle(pickle.dumps(Calls(os.system, "true")), "batch", most_steps=100)


@pytest.mark.parametrize("program", [b"t.", b"Nt."])
def test_a_mark_that_is_missing_is_named(program):
    with pytest.raises(DatasetCorruptError, match=f"a mark is missing at byte {len(program) - 1}$"):
        read_pickle(program, "batch", most_steps=10)


@pytest.mark.parametrize("what", ["code", "order"])
def test_the_words_of_an_element_type_are_short(what):
    def stored(length):
        code, order = (b"f" * length, b"<") if what == "code" else (b"f4", b"<" * length)
        text = b"cnumpy\ndtype\n(S'" + code + b"'\nI0\nI1\ntR(I3\nS'" + order + b"'\nNNNI-1\nI-1\nI0\ntb."
        return read_pickle(text, "batch", most_steps=50)

    longest = pickles._LONGEST_CODE
    assert len(getattr(stored(longest), what)) == longest
    with pytest.raises(UnsafeArchiveError):
        stored(longest + 1)


@pytest.mark.parametrize("kept", [2, 0])
def test_bytes_that_are_missing_are_counted(kept):
    """Whether they are more than the file has, or only more than are left of it."""
    whole = b"\x80\x03C\x03abc."
    assert read_pickle(whole, "batch", most_steps=10) == b"abc"
    size = 4 + kept
    words = f"^batch is not a sound pickle: 3 bytes are asked for at byte 4 of {size}$"
    with pytest.raises(DatasetCorruptError, match=words):
        read_pickle(whole[:size], "batch", most_steps=10)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"
UNSAFE = {
    "old_class_instance": b"(S'true'\nios\nsystem\n.",
    "old_class_on_stack": b"(cos\nsystem\nS'true'\no.",
    "new_object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "new_object_with_keywords": b"\x80\x04" + NDARRAY + b")}\x92.",
    "persistent_id": b"Psomething\n.",
    "persistent_id_on_stack": b"NQ.",
    "extension_code": b"\x80\x02\x82\x01.",
    "out_of_band_buffer": b"\x80\x05\x97.",
    "array_class_called": NDARRAY + b"(I1000000000000\ntR.",
    "reconstruct_of_a_size": RECONSTRUCT + b"(" + NDARRAY + b"(I1000000000000\ntS'b'\ntR.",
    "reconstruct_of_another_class": RECONSTRUCT + b"(" + DTYPE + b"(I0\ntS'b'\ntR.",
    "dtype_from_a_dict": DTYPE + b"((dI0\nI1\ntR.",
    "encode_to_a_file": b"c_codecs\nencode\n(Vtext\nVhex\ntR.",
    "call_of_data": b"S'x'\n(tR.",
    "state_of_a_name": NDARRAY + b"}b.",
    "state_of_a_list": b"]}b.",
    "state_of_an_array": RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR}b.",
    "attribute_of_an_attribute": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "module_with_a_space": b"cnumpy ndarray\nx\n.",
}


@pytest.mark.parametrize("program", UNSAFE.values(), ids=UNSAFE.keys())
def test_instructions_beyond_plain_data_are_refused(program):
    with pytest.raises(UnsafeArchiveError, match=r"^batch is not plain data"):
        read_pickle(program, "batch", most_steps=100)


BROKEN = {
    "empty": b"",
    "no_end": b"K\x01",
    "nothing_to_return": b".",
    "something_after_the_end": b"K\x01.K",
    "two_values": b"K\x01K\x02.",
    "open_mark": b"(K\x01.",
    "unknown_instruction": b"\xff.",
    "protocol_200": b"\x80\xc8K\x01.",
    "bytes_beyond_the_end": b"B\xff\xff\xff\xffshort.",
    "bytes_far_beyond_the_end": b"\x8e" + b"\xff" * 8 + b"short.",
    "bytearray_far_beyond_the_end": b"\x80\x05\x96" + b"\xff" * 8 + b".",
    "text_far_beyond_the_end": b"\x8d" + b"\xff" * 7 + b"\x7f.",
    "negative_length": b"T\xff\xff\xff\xffx.",
    "line_without_end": b"I12",
    "number_that_is_none": b"Ione\n.",
    "number_of_a_million_digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "text_that_is_none": b"\x8c\x01\xff.",
    "string_without_quotes": b"Sabc\n.",
    "string_with_a_wrong_escape": b"S'\\x'\n.",
    "append_to_nothing": b"K\x01a.",
    "append_to_a_number": b"K\x01K\x02a.",
    "item_for_a_list": b"]K\x01K\x02s.",
    "items_in_odd_number": b"}(K\x01u.",
    "key_that_is_a_list": b"}]K\x01s.",
    "pop_of_nothing": b"\x87.",
    "mark_missing": b"t.",
    "memory_not_stored": b"h\x05.",
    "nothing_to_remember": b"q\x05.",
    "name_of_numbers": b"\x80\x04K\x01K\x02\x93.",
    "bytes_above_255": b"c_codecs\nencode\n(V\\u1234\nVlatin1\ntR.",
    "too_many_instructions": b"N" * 101 + b".",
}


@pytest.mark.parametrize("program", BROKEN.values(), ids=BROKEN.keys())
def test_broken_pickles_are_told_from_harmful_ones(program):
    with pytest.raises(DatasetCorruptError, match=r"^batch is not a sound pickle"):
        read_pickle(program, "batch", most_steps=100)


# What an unpickler by itself takes
LAX = {
    "item_of_a_list": b"]K\x00aK\x00K\x05s.",
    "key_that_is_none": b"}NK\x01s.",
    "key_that_is_true": b"}\x88K\x01s.",
    "key_that_is_a_fraction": b"}G?\xf8\0\0\0\0\0\0K\x01s.",
    "key_that_is_a_tuple": b"}()K\x01u.",
    "key_in_an_entry_that_is_replaced": b"}(K\x01}NNsK\x01K\x02u.",
    "key_of_nine_bytes": b"}\x8a\t" + bytes(8) + b"\x01K\x01s.",
    "key_of_nine_bytes_from_memory": b"(\x8a\t" + bytes(8) + b"\x01q\0}h\0K\x01st.",
    "item_of_a_bytearray": b"\x80\x05\x96\1\0\0\0\0\0\0\0xK\x01a.",
    "lone_surrogate": b"\x8c\3\xed\xa0\x80.",
    "hexadecimal_number": b"I0x10\n.",
    "number_with_an_underscore": b"L1_0L\n.",
    "number_of_21_digits": b"I" + b"1" * 21 + b"\n.",
    "value_left_over": b"K\x01K\x02.",
    "byte_left_over": b"K\x01.K",
    "value_dropped": b"K\x01K\x020.",
    "value_doubled": b"]2\x86.",
    "set": b"\x8f.",
    "fraction_in_words": b"F1.5\n.",
}


@pytest.mark.parametrize("program", LAX.values(), ids=LAX.keys())
def test_what_an_unpickler_takes_is_not_enough(program):
    pickle.loads(program, encoding="bytes")
    with pytest.raises((UnsafeArchiveError, DatasetCorruptError), match=r"^batch is not (plain data|a sound pickle)"):
        read_pickle(program, "batch", most_steps=100)


# What an unpickler by itself takes for something else, or not at all
READ = {
    "number_with_a_zero_before": (b"I010\n.", 10),
    "number_that_looks_like_true": (b"I01\n.", 1),
    "long_number_as_a_short_one": (b"I5L\n.", 5),
    "key_of_eight_bytes": (b"}\x8a\x08" + bytes(7) + b"\x01K\x01s.", {2**56: 1}),
    "bytearray": (b"\x80\x05\x96\1\0\0\0\0\0\0\0x.", b"x"),
    "memory_with_gaps": (b"(K\x01r\xff\xff\xff\xffp-7\nK\x02q\x05g-7\nj\xff\xff\xff\xffh\x05t.", (1, 2, 1, 1, 2)),
    "memory_used_again": (b"(K\x01q\x05K\x02q\x05K\x03\x94h\x05h\x01t.", (1, 2, 3, 2, 3)),
    "frame_too_long": (b"\x80\x04\x95\xff\xff\0\0\0\0\0\0K\x01.", 1),
    "frame_too_short": (b"\x80\x04\x95\1\0\0\0\0\0\0\0\x8c\x03abc.", "abc"),
}


@pytest.mark.parametrize(("program", "value"), READ.values(), ids=READ.keys())
def test_unusual_pickles_are_read(program, value):
    tracemalloc.start()
    try:
        stored = read_pickle(program, "batch", most_steps=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored == value
    assert type(stored) is type(value)
    assert peak < 1 << 20


class Known:
    """A class that a reader knows."""

    def __new__(cls, *arguments):
        raise AssertionError

    def __setstate__(self, state):
        raise AssertionError


class Constant:
    """No class: what some name stands for."""

    value = 1

    def __call__(self, *arguments):
        raise AssertionError


KNOWN = {"net Known": Known, "net constant": Constant()}
_MAKE, _CONSTANT = b"\x80\x02cnet\nKnown\n", b"cnet\nconstant\n"
_ELEMENT = DTYPE + b"(S'u1'\nI0\nI1\ntR"
UNSAFE_KNOWN = {
    "class_called": _MAKE + b")R.",
    "object_with_arguments": _MAKE + b"K\x01\x85\x81.",
    "object_with_a_list_of_arguments": _MAKE + b"]\x81.",
    "state_of_the_class": _MAKE + b"}b.",
    "state_that_is_no_dict": _MAKE + b")\x81]b.",
    "state_set_twice": _MAKE + b")\x81}b}b.",
    "constant_called": _CONSTANT + b")R.",
    "object_of_a_constant": _CONSTANT + b")\x81.",
    "state_of_a_constant": _CONSTANT + b"}S'value'\nI2\nsb.",
    "slots_of_a_constant": _CONSTANT + b"N}S'value'\nI2\ns\x86b.",
    "object_of_a_stand_in": b"\x80\x02" + DTYPE + b"(S'u1'\nI0\nI1\nt\x81.",
    "call_of_what_was_made": _ELEMENT + b"(S'u1'\nI0\nI1\ntR.",
    "state_of_a_stand_in": DTYPE + b"(]S'encode'\nS'bytes'\ntb.",
    "slots_of_a_stand_in": DTYPE + b"N}S'name'\nS'encode'\ns\x86b.",
    "no_state_of_bytes": b"c_codecs\nencode\n(Vx\nVlatin1\ntRNb.",
    "state_of_an_element_type": _ELEMENT + b"}b.",
    "call_with_a_list": b"c_codecs\nencode\n(Vx\nVlatin1\nlR.",
}


@pytest.mark.parametrize("program", UNSAFE_KNOWN.values(), ids=UNSAFE_KNOWN.keys())
def test_known_names_are_used_in_one_way(program):
    with pytest.raises(UnsafeArchiveError, match=r"^batch is not plain data"):
        read_pickle(program, "batch", most_steps=100, known=KNOWN)
    assert vars(KNOWN["net constant"]) == {}
    # Nor did it change what later pickles find.
    assert read_pickle(_ELEMENT + b".", "batch", most_steps=100).code == "u1"


def test_objects_of_known_classes_get_their_attributes():
    program = b"(" + _MAKE + b")\x81}S'a'\nI1\nsb" + _MAKE + _CONSTANT + b"t."
    stored, kind, constant = read_pickle(program, "batch", most_steps=100, known=KNOWN)
    assert (stored.kind, stored.attributes) == (Known, {b"a": 1})
    assert kind == Class(Known)
    assert constant is KNOWN["net constant"]


def _plain(value, seen):
    """Return whether a value and all in it are of the kinds that read_pickle promises."""
    if id(value) in seen:
        return True
    seen[id(value)] = value
    if type(value) is dict:
        return all(type(key) in (str, bytes, int) and _plain(entry, seen) for key, entry in value.items())
    if type(value) in (list, tuple):
        return all(_plain(entry, seen) for entry in value)
    if type(value) is Array:
        return all(_plain(part, seen) for part in (value.shape, value.raw, value.fortran))
    return type(value) in (str, bytes, int, float, bool, type(None), Class, Instance) or type(value).__name__ in (
        "_DType",
        "_StandIn",
        "_Encode",
    )


def test_an_unpickler_gets_no_byte_beyond_the_instruction():
    program = pickles._Program(b"K\x01K\x02.", 100)
    assert (program.read(9), program.read(9), program.read(9)) == (b"K", b"\x01", b"K")


def test_changed_pickles_are_refused_or_plain_data():
    draw = random.Random(13)
    content = {
        b"a": np.arange(4, dtype=np.uint8),
        "b": [1, 300, -5, 2**40, None, True, 1.5, ("x", b"y")],
        3: np.float32(2),
    }
    good = 10 * [pickle.dumps(content, protocol=protocol) for protocol in range(6)]
    good += [*UNSAFE.values(), *UNSAFE_KNOWN.values(), *LAX.values(), *(program for program, _ in READ.values())]
    codes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    outcomes = Counter()
    for _ in range(4000):
        program = bytearray(draw.choice(good))
        for _ in range(draw.choice((1, 1, 2, 3))):
            place, other = draw.randrange(len(program) + 1), draw.choice(good)
            cut = draw.randrange(len(other))
            piece = draw.choice(
                (b"", bytes([draw.randrange(256)]), draw.choice(codes), other[cut : cut + draw.randrange(20)])
            )
            program[place : place + draw.choice((0, 1, 1, 3))] = piece
        try:
            outcomes[_plain(read_pickle(bytes(program), "batch", most_steps=500, known=KNOWN), {})] += 1
        except (UnsafeArchiveError, DatasetCorruptError) as error:
            outcomes[type(error)] += 1
    assert outcomes.keys() == {True, UnsafeArchiveError, DatasetCorruptError}
    assert min(outcomes.values()) > 100


_STEPS = 20_000
_LENGTH = 10_000
_TEXT, _BYTES = (code + _LENGTH.to_bytes(4, "little") + b"x" * _LENGTH + b"q\0" for code in (b"X", b"B"))
BOMBS = {
    "memory_of_four_billion_entries": b"K\x01r\xff\xff\xff\xff" * 10 + b".",
    "a_million_lists": b"]" * 1_000_000 + b".",
    "lists_in_lists": b"]" * 10_000 + b"a" * 9_999 + b".",
    "tuples_in_tuples": b"K\x01" + b"\x85" * 15_000 + b".",
    "doubling_tuples": b"K\x01" + b"q\0h\0\x86" * 1000 + b".",
    "marks": b"(" * 15_000 + b".",
    "frames": (b"\x95" + bytes(8)) * 15_000 + b"N.",
    "remembered_far_up": b"K\x01p400000000\n.",
    "text_encoded_often": _TEXT + b"(" + b"c_codecs\nencode\n(h\0Vlatin1\ntR" * 2000 + b"t\x86.",
    "long_codes_of_element_types": _BYTES + b"(" + (DTYPE + b"(h\0NNtR") * 2000 + b"t\x86.",
    "long_orders_of_element_types": _BYTES + b"(" + (_ELEMENT + b"(Nh\0NNNtb") * 1500 + b"t\x86.",
}


@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS.keys())
def test_pickle_bombs_stay_small(program):
    tracemalloc.start()
    try:
        with contextlib.suppress(GpuconvError):
            read_pickle(program, "batch", most_steps=_STEPS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300 * _STEPS


def test_values_nested_deeply_are_refused_in_few_words(tmp_path):
    deep = b"K\x01" + b"\x85" * 2500
    rows = tiny.records()["data_batch_2"]
    good = tiny.batch_dict(rows, str)
    for entry in ("labels", "data"):
        content = pickle.dumps({name: value for name, value in good.items() if name != entry}, protocol=3)
        body = content.removesuffix(b"u.")
        key = b"X" + len(entry).to_bytes(4, "little") + entry.encode()
        folder = tiny.write_folder(tmp_path, PYTHON)
        padding = b"X\1\0\0\0pB" + (400_000).to_bytes(4, "little") + bytes(400_000)
        (folder / "data_batch_2").write_bytes(body + padding + key + deep + b"u.")
        with pytest.raises(DatasetCorruptError, match=f"'{entry}': 'tuple'"):
            tiny.read(tmp_path)


# Archives ----------------------------------------------------------------------------------------------------------


def with_member(info, content=b""):
    return tiny.archive([*tiny.members(BINARY)[:2], tiny.member(info, content), *tiny.members(BINARY)[2:]])


def link(kind, target, name="cifar-10-batches-bin/data_batch_1.bin"):
    return tiny.archive([tiny.member(name, type=kind, linkname=target), *tiny.members(BINARY)[1:]])


def typed(kind):
    return tiny.archive([tiny.member("cifar-10-batches-bin/data_batch_1.bin", type=kind), *tiny.members(BINARY)[1:]])


def with_extended_header(fields):
    parts = tiny.members(BINARY)
    parts[3][0].pax_headers = fields
    return tiny.archive(parts, tarfile.PAX_FORMAT)


def raw_tar(*blocks):
    return gzip.compress(b"".join(blocks) + bytes(1024), compresslevel=1, mtime=0)


def header(name, size_field, kind=b"0"):
    """Return a tar header block with any twelve bytes as its size."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[124:136] = size_field
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\00000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size):
    return b"%011o\0" % size


TARS = {
    "parent_folder": with_member.__get__("../evil"),
    "parent_folder_inside": with_member.__get__("cifar-10-batches-bin/../../evil"),
    "absolute_name": with_member.__get__("/tmp/evil"),
    "windows_drive": with_member.__get__("C:\\evil"),
    "windows_drive_relative": with_member.__get__("C:evil"),
    "windows_parent": with_member.__get__("..\\evil"),
    "windows_share": with_member.__get__("\\\\host\\share\\evil"),
    "symbolic_link": lambda: link(tarfile.SYMTYPE, "/etc/passwd"),
    "symbolic_link_inside": lambda: link(tarfile.SYMTYPE, "test_batch.bin"),
    "hard_link": lambda: link(tarfile.LNKTYPE, "cifar-10-batches-bin/test_batch.bin"),
    "link_of_another_name": lambda: link(tarfile.SYMTYPE, "/", "cifar-10-batches-bin/more"),
    "fifo": lambda: typed(tarfile.FIFOTYPE),
    "device": lambda: typed(tarfile.CHRTYPE),
    "block_device": lambda: typed(tarfile.BLKTYPE),
    "sparse_file": lambda: typed(tarfile.GNUTYPE_SPARSE),
    "contiguous_file": lambda: typed(tarfile.CONTTYPE),
    "sparse_by_extended_header": lambda: with_extended_header({"GNU.sparse.map": "0,1"}),
    "many_members": lambda: tiny.archive([tiny.member(f"file{i}") for i in range(100)]),
    "large_other_member": lambda: tiny.archive([tiny.member("more", bytes(1_200_000)), *tiny.members(BINARY)]),
    "other_member_of_a_terabyte": lambda: raw_tar(header("more", b"\x80" + (1 << 40).to_bytes(11, "big"))),
    "other_member_of_negative_size": lambda: raw_tar(header("more", b"\xff" * 10 + b"\xfe\x00")),
    "long_name_of_a_gigabyte": lambda: raw_tar(header("././@LongLink", octal(1 << 30), b"L")),
    "extended_header_of_a_gigabyte": lambda: raw_tar(header("pax", octal(1 << 30), b"x")),
    "extended_header_of_negative_size": lambda: raw_tar(header("pax", b"\xff" * 10 + b"\xfe\x00", b"x")),
    "padding_of_gigabytes": lambda: gzip.compress(
        gzip.decompress(tiny.official_archive(BINARY)) + bytes(4 << 20), compresslevel=1
    ),
}


@pytest.mark.parametrize("content", TARS.values(), ids=TARS.keys())
def test_unsafe_archives_are_refused_and_write_nothing(tmp_path, content):
    path = tiny.write_archive(tmp_path / "in", BINARY, content())
    with pytest.raises(UnsafeArchiveError, match=r"cifar-10-binary\.tar\.gz (holds|has|jumps|goes on)"):
        tiny.read(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", path.name]


CORRUPT_TARS = {
    "batch_of_a_terabyte": lambda: raw_tar(
        header("cifar-10-batches-bin/test_batch.bin", b"\x80" + (1 << 40).to_bytes(11, "big"))
    ),
    "batch_of_negative_size": lambda: raw_tar(header("cifar-10-batches-bin/test_batch.bin", b"\xff" * 12)),
    "batch_that_ends_early": lambda: raw_tar(header("cifar-10-batches-bin/test_batch.bin", octal(307_300))),
    "headers_without_end": lambda: raw_tar(*[header("././@LongLink", octal(1), b"L"), b"x" + bytes(511)] * 5000),
    "sparse_map_of_nonsense": lambda: with_extended_header({"GNU.sparse.map": "x" * 1000}),
    "extended_size_of_nonsense": lambda: with_extended_header({"size": "many"}),
    "extended_size_below_zero": lambda: with_extended_header({"size": "-5"}),
    "extended_header_of_nonsense": lambda: raw_tar(header("pax", octal(512), b"x"), b"99999999999 a=b\n" + bytes(496)),
}


@pytest.mark.parametrize("content", CORRUPT_TARS.values(), ids=CORRUPT_TARS.keys())
def test_archives_that_lie_about_sizes_are_refused(tmp_path, content):
    path = tiny.write_archive(tmp_path, BINARY, content())
    tracemalloc.start()
    try:
        with pytest.raises(GpuconvError, match=r"cifar-10-binary\.tar\.gz") as caught:
            tiny.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert len(str(caught.value)) < 500


def test_headers_are_read_up_to_their_limit(tmp_path):
    longest, most = archive._LONGEST_HEADER, archive._MOST_HEADER_BYTES
    guarded = archive._Guarded(tmp_path, io.BytesIO(bytes(2 * most)), longest)
    for _ in range(most // longest):
        assert len(guarded.read(longest)) == longest
    with pytest.raises(UnsafeArchiveError, match=f"a header of 1 bytes after {most:,} bytes of others"):
        guarded.read(1)


def test_a_member_named_twice_by_an_extended_header_is_seen_under_its_real_name(tmp_path):
    """A pax header may give the next member any name: the check must see that one."""
    path = tiny.write_archive(tmp_path, BINARY, with_extended_header({"path": "../../evil"}))
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        assert "../../evil" in tar.getnames()
    with pytest.raises(UnsafeArchiveError, match=r"holds '\.\./\.\./evil', a path that leads out"):
        tiny.read(path)
