from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.profile import spans as spans_module
from redline.analyse.profile.breakdown import analyse_trace
from redline.analyse.profile.classes import CLASSES
from redline.analyse.profile.nesting import flat
from redline.analyse.profile.spans import ANNOTATION, COPY, GPU_ANNOTATION, KERNEL, LAUNCH, OP, covered, gaps, in_turn
from redline.analyse.profile.steps import parse, steps
from tests.analyse.profile.gpu import Event, spans

GEMM, ATTENTION, NCCL = "nvjet_tst_1", "void flash::flash_fwd_kernel<A>(P)", "ncclDevKernel_AllReduce"
STEP = "execute_context_0(0)_generation_8(8)"
PREFILL = "execute_context_1(512)_generation_0(0)"


def decode_step(at: float, link: int, length: float = 100.0) -> list[Event]:
    """60 µs of matrix product, 20 of attention, an all-reduce half under the attention, launched as one graph."""
    return [
        (LAUNCH, "cudaGraphLaunch", at - 30, 5, 2, link),
        (ANNOTATION, STEP, at - 40, 30, 2, 0),
        (GPU_ANNOTATION, STEP, at, 90, 3, 0),
        (KERNEL, GEMM, at, 60, 0, link),
        (KERNEL, ATTENTION, at + 60, 20, 0, link),
        (KERNEL, NCCL, at + 70, 20, 1, link),
    ]


@pytest.mark.parametrize("seen_from_the_device", [True, False])
def test_streams_that_overlap_are_counted_once(seen_from_the_device: bool) -> None:
    events = [event for step in range(8) for event in decode_step(step * 100.0, step + 1)]
    if not seen_from_the_device:
        events = [event for event in events if event[0] != GPU_ANNOTATION]
    found = analyse_trace(spans(events)).phase("decode")
    assert found is not None
    assert found.step_us == pytest.approx(100)
    assert found.busy_us == pytest.approx(90)
    assert found.gap_us == pytest.approx(10)
    assert found.hidden_us == pytest.approx(10)
    assert found.by_class == pytest.approx({"matrix product": 60, "attention": 20, "communication": 10})
    assert found.kernels == 3
    assert found.launches == 1
    assert found.generated == 8
    assert found.us_per_token == pytest.approx(100 / 8)
    assert found.attention == pytest.approx({"FlashAttention 2": 20})
    assert found.steps == 6  # the first and the last are left out


def test_a_kernel_that_waits_for_the_one_before_it_takes_nothing_from_it() -> None:
    """Programmatic dependent launch: each kernel of a stream is on the device before its predecessor has ended."""
    events = []
    for number in range(8):
        at = number * 100.0
        events += [
            (LAUNCH, "cudaGraphLaunch", at - 30, 5, 2, number + 1),
            (GPU_ANNOTATION, STEP, at, 90, 3, 0),
            (KERNEL, ATTENTION, at, 20, 0, number + 1),
            (KERNEL, GEMM, at + 2, 58, 0, number + 1),
            (KERNEL, ATTENTION, at + 5, 85, 0, number + 1),
        ]
    found = analyse_trace(spans(events)).phase("decode")
    assert found is not None
    assert found.by_class == pytest.approx({"attention": 50, "matrix product": 40})
    assert found.attention == pytest.approx({"FlashAttention 2": 50})
    assert {one.full: one.us for one in found.top} == pytest.approx({ATTENTION: 50, GEMM: 40})
    assert (found.busy_us, found.gap_us, found.hidden_us) == pytest.approx((90, 10, 0))


def test_the_pieces_of_a_prefill_add_up() -> None:
    found = analyse_trace(spans([event for step in range(8) for event in decode_step(step * 100.0, step + 1)]))
    one = found.phase("decode")
    assert one is not None
    whole = one.added_up(3)
    assert whole.by_class == pytest.approx({"matrix product": 180, "attention": 60, "communication": 30})
    assert sum(whole.by_class.values()) == pytest.approx(whole.busy_us)
    assert whole.busy_us + whole.gap_us == pytest.approx(whole.step_us)
    assert (whole.kernels, whole.launches, whole.generated, whole.steps) == (9, 3, 24, one.steps)
    assert (whole.top[0].us, whole.top[0].calls) == pytest.approx((180, 3))
    assert (whole.us_per_token, whole.gap_share) == pytest.approx((one.us_per_token, one.gap_share))
    assert whole.attention == pytest.approx({"FlashAttention 2": 60})


def test_top_kernels() -> None:
    found = analyse_trace(spans([event for step in range(8) for event in decode_step(step * 100.0, step + 1)]))
    decode = found.phase("decode")
    assert decode is not None
    assert [(one.full, round(one.us), one.calls) for one in decode.top[:1]] == [(GEMM, 60, 1.0)]


def test_an_annotation_on_two_streams_is_one_step() -> None:
    """Names that differ from step to step, and a copy stream that runs ahead."""
    events: list[Event] = []
    for step in range(6):
        name = f"execute_4_context_0(sq0sk0sqsq0sqsk0)_generation_4(sq4sk{400 + step}sqsq4sqsk{400 + step})"
        at = step * 50.0
        events += [(GPU_ANNOTATION, name, at, 40, 3, 0), (GPU_ANNOTATION, name, at - 8, 2, 4, 0)]
        events += [(COPY, "Memcpy HtoD", at - 8, 2, 1, 0), (KERNEL, GEMM, at, 40, 0, 0)]
    found = [step for step in steps(spans(events)) if step.phase == "decode"]
    assert len(found) == 6
    assert found[1].end - found[1].start == pytest.approx(50)
    assert found[1].kv_tokens == 401


def test_a_prefill_ends_with_its_work_and_not_with_the_next_request() -> None:
    events: list[Event] = []
    for at in (0.0, 1e6):
        events += [(GPU_ANNOTATION, PREFILL, at, 9000, 3, 0), (KERNEL, GEMM, at, 9000, 0, 1)]
        events.append((KERNEL, "argmax_kernel", at + 9100, 50, 0, 2))  # the first token
    events.append((COPY, "Memcpy HtoD", 900_000.0, 5, 0, 3))  # of nobody's
    found = analyse_trace(spans(events)).phase("prefill")
    assert found is not None
    assert found.step_us == pytest.approx(9150)
    assert found.by_class == pytest.approx({"matrix product": 9000, "sampling": 50})
    assert found.prompt_tokens == 512


def test_an_engine_that_waits_for_work_has_no_gap() -> None:
    events = [event for step in range(10) for event in decode_step(step * 100.0 + (5e5 if step > 5 else 0), step + 1)]
    found = analyse_trace(spans(events)).phase("decode")
    assert found is not None
    assert found.step_us < 102


def test_a_trace_without_steps_counts_as_one() -> None:
    found = analyse_trace(spans([(KERNEL, GEMM, 0, 10, 0, 1), (KERNEL, ATTENTION, 20, 10, 0, 2)]))
    whole = found.phase("whole")
    assert whole is not None
    assert (whole.step_us, whole.busy_us, whole.gap_us) == (30, 20, 10)
    assert "no step is annotated" in found.notes[0]


def test_launches_without_a_kernel_are_no_work_of_a_cpu() -> None:
    """It happens to torch's profiler on a GPU now and then."""
    events = [event for step in range(8) for event in decode_step(step * 100.0, step + 1) if event[0] != KERNEL]
    found = analyse_trace(spans([*events, (OP, "aten::mm", 5.0, 20.0, 2, 0)]))
    assert found.phases == ()
    assert "the profiler recorded none" in found.notes[0]


def test_an_empty_trace() -> None:
    assert analyse_trace(spans([])).phases == ()


def test_operators_of_a_cpu() -> None:
    """linear holds a transpose and a product; the copy inside the product is the product's."""
    events: list[Event] = []
    for step in range(4):
        at = step * 1000.0
        events += [(ANNOTATION, STEP, at, 800, 0, 0)]
        events += [(OP, "aten::linear", at + 100, 300, 0, 0), (OP, "aten::t", at + 110, 10, 0, 0)]
        events += [(OP, "aten::addmm", at + 130, 250, 0, 0), (OP, "aten::copy_", at + 140, 50, 0, 0)]
        events += [(OP, "aten::scaled_dot_product_attention", at + 500, 100, 0, 0)]
        events += [(OP, "aten::_softmax", at + 510, 20, 0, 0), (OP, "aten::mul", at + 650, 50, 0, 0)]
        events += [(OP, "aten::mul", at + 100, 500, 1, 0)]  # another thread's
    found = analyse_trace(spans(events), skip_first=0).phase("decode")
    assert found is not None
    assert not found.device
    assert found.by_class == pytest.approx({"matrix product": 300, "attention": 100, "norm and elementwise": 50})
    assert found.step_us == pytest.approx(1000)
    assert found.gap_us == pytest.approx(550)
    assert found.kernels == 7
    assert found.launches == 3


def test_work_that_torch_does_not_see() -> None:
    events: list[Event] = []
    for step in range(3):
        events += [(ANNOTATION, STEP, step * 100.0, 90, 0, 0)]
        events += [(ANNOTATION, "redline::compiled_pass", step * 100.0 + 5, 80, 0, 0)]
    found = analyse_trace(spans(events), skip_first=0).phase("decode")
    assert found is not None
    assert found.by_class == pytest.approx({"other": 80})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("execute_context_2(700)_generation_0(0)", ("prefill", 700, 0, 2, 0)),
        ("execute_context_0(0)_generation_64(64)", ("decode", 0, 64, 64, 0)),
        ("execute_context_1(100)_generation_3(3)", ("mixed", 100, 3, 4, 0)),
        (
            "execute_16_context_0(sq0sk0sqsq0sqsk0)_generation_16(sq16sk8192sqsq16sqsk8192)",
            ("decode", 0, 16, 16, 8192),
        ),
        ("execute_context_0(0)_generation_0(0)", None),
        ("aten::mm", None),
    ],
)
def test_what_annotations_say(name: str, expected: tuple[str, int, int, int, int] | None) -> None:
    assert parse(name) == expected


Intervals = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=40)


@given(Intervals)
def test_against_counting_every_microsecond(intervals: list[tuple[int, int, int]]) -> None:
    intervals.sort()
    start, length, kind = (np.array(column) for column in zip(*intervals, strict=True))
    owner = [-1] * 240
    for at, took, mine in intervals:
        for tick in range(at, at + took):
            owner[tick] = mine if owner[tick] < 0 else min(owner[tick], mine)
    found = covered(start.astype(float), length.astype(float), kind)
    assert found.busy == sum(one >= 0 for one in owner)
    assert found.by_class.tolist() == [owner.count(place) for place in range(len(CLASSES))]
    assert found.hidden == length.sum() - found.busy
    first, last = intervals[0][0], max(at + took for at, took, _ in intervals)
    assert gaps(start, length).sum() == owner[first:last].count(-1)


@given(Intervals)
def test_kernels_in_turn_against_counting_every_microsecond(intervals: list[tuple[int, int, int]]) -> None:
    """An instant belongs to the kernel of its stream that came first; the third column is the stream."""
    intervals.sort(key=lambda one: one[0])
    start, length, track = (np.array(column) for column in zip(*intervals, strict=True))
    owned = [0] * len(intervals)
    for stream in set(track.tolist()):
        for tick in range(240):
            running = [i for i, (at, took, mine) in enumerate(intervals) if mine == stream and at <= tick < at + took]
            if running:
                owned[running[0]] += 1
    assert in_turn(start, length, track)[1].tolist() == owned


@given(Intervals, st.integers(1, 7))
def test_pieces_make_no_difference(intervals: list[tuple[int, int, int]], piece: int) -> None:
    intervals.sort()
    start, length, kind = (np.array(column, float) for column in zip(*intervals, strict=True))
    expected = covered(start, length, kind.astype(int))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans_module, "PIECE", piece)
        found = covered(start, length, kind.astype(int))
    assert found.by_class.tolist() == expected.by_class.tolist()


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_nested_operators_cover_what_the_outermost_covers(tree: list[object]) -> None:
    events: list[Event] = []

    def place(node: list[object], at: float) -> float:
        begin, at = at, at + 1
        mine = len(events)
        events.append((OP, "aten::view", begin, 0, 0, 0))
        for child in node:
            assert isinstance(child, list)
            at = place(child, at) + 1
        events[mine] = (OP, "aten::view", begin, at + 1 - begin, 0, 0)
        return at + 1

    whole = place(tree, 0.0)
    made = spans(events)
    start, length, _, outermost = flat(made, made.classes())
    assert length.sum() == pytest.approx(whole)
    assert outermost.sum() == 1
    assert (start[1:] >= (start + length)[:-1] - 1e-9).all()
