from __future__ import annotations

from redline.report.tokens import _notes, histogram_text, overhead_text


def test_the_template_is_named_once_or_by_class() -> None:
    assert overhead_text({}) == "not known"
    assert overhead_text({"": 1}) == "1 token"
    assert overhead_text({"a": 13, "b": 13}) == "13 tokens"
    assert overhead_text({"a": 13, "b": 1}) == "a 13, b 1 tokens"


def test_chunks_are_shown_by_share() -> None:
    assert histogram_text({1: 90, 2: 10}) == "1: 90%, 2: 10%"
    assert histogram_text(dict.fromkeys(range(1, 11), 5)).endswith("2 more sizes")


def test_a_reader_is_told_what_several_tokens_in_a_chunk_mean() -> None:
    def row(text: str) -> tuple[str, ...]:
        return ("m", "e", "1 client", "8", "1", "8", text, "usage 100%")

    assert _notes(row("1: 100%")) == []
    assert _notes(row("–")) == []
    assert len(_notes(row("1: 50%, 3: 50%"))) == 1
    assert "totals only" in _notes(row("about 1: 50%, 3: 50%"))[0]
