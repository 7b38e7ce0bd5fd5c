from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from redline.observe.prometheus import Series, parse

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b"} 3.0
vllm:num_requests_running{engine="1",model_name="a b"} 4.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0"} 1.2e+03 1700000000000
# TYPE h histogram
h_bucket{le="0.1"} 1
h_bucket{le="+Inf"} 3 # {trace_id="x"} 0.2
h_sum 1.5
h_count 3

a line that is none
nan_gauge NaN
"""


def test_page_as_servers_write_it() -> None:
    page = parse(PAGE)
    assert page.broken == 1
    assert page.total("vllm:num_requests_running") == 7
    assert page.total("vllm:prompt_tokens_total") == 1200
    assert page.total("nothing") is None
    assert page.total("nan_gauge") is None
    assert page.buckets("h") == {0.1: 1.0, math.inf: 3.0}
    kinds = {one.name: one.kind for one in page.series}
    assert kinds["vllm:num_requests_running"] == "gauge"
    assert kinds["vllm:prompt_tokens_total"] == "counter"
    assert kinds["h_bucket"] == kinds["h_sum"] == kinds["h_count"] == "histogram"
    assert kinds["nan_gauge"] == "untyped"


def test_escapes_in_labels() -> None:
    (one,) = parse(r'm{a="q\"uo}te, \\ back\nline",b=""} 1').series
    assert one.labels == (("a", 'q"uo}te, \\ back\nline'), ("b", ""))


_names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
_labels = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=12), max_size=4
)
_values = st.floats(allow_nan=False) | st.integers(-(10**9), 10**9).map(float)


@given(st.lists(st.tuples(_names, _labels, _values), max_size=8))
def test_what_is_written_is_read(wanted: list[tuple[str, dict[str, str], float]]) -> None:
    series = [Series(name, tuple(sorted(labels.items())), value) for name, labels, value in wanted]
    page = parse("\n".join(f"{one.key} {one.value!r}" for one in series))
    assert page.broken == 0
    assert page.series == series


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    page = parse(text)
    assert len(page.series) + page.broken <= text.count("\n") + 1
