from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.resources.quantity import (
    QuantityError,
    format_cpu,
    format_memory,
    format_memory_rounded,
    parse_cpu_millis,
    parse_memory_bytes,
)


class TestCpu:
    @pytest.mark.parametrize(
        ("text", "millis"),
        [
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("2.", 2000),
            ("2", 2000),
            (2, 2000),
            (0.1, 100),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1k", 1_000_000),
            ("0", 0),
            ("-0", 0),
            ("+1", 1000),
        ],
    )
    def test_reads_kubernetes_grammar(self, text: str | float, millis: int) -> None:
        assert parse_cpu_millis(text) == millis

    @pytest.mark.parametrize("text", ["0.0001", "1n", "100u", "1e-99"])
    def test_rounds_up_so_that_nothing_is_booked_for_less(self, text: str) -> None:
        assert parse_cpu_millis(text) == 1

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("500 m", "Did you mean 500m"),
            ("2 cores", "Did you mean 2 (cores)"),
            ("0,5", "Did you mean 0.5"),
            ("500mb", 'Write it like "500m"'),
            ("", 'Write it like "500m"'),
        ],
    )
    def test_says_what_was_probably_meant(self, text: str, hint: str) -> None:
        with pytest.raises(QuantityError) as caught:
            parse_cpu_millis(text)

        assert hint in str(caught.value)


class TestMemory:
    @pytest.mark.parametrize(
        ("text", "memory_bytes"),
        [
            ("128Mi", 128 * 2**20),
            ("1Gi", 2**30),
            ("0.5Gi", 2**29),
            ("8M", 8_000_000),
            ("1E", 10**18),
            ("1e3", 1000),
            ("128974848000m", 128974848),
            (1e9, 10**9),
            (134217728, 134217728),
            ("0.1Ki", 103),
        ],
    )
    def test_reads_kubernetes_grammar(self, text: str | float, memory_bytes: int) -> None:
        assert parse_memory_bytes(text) == memory_bytes

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("512mb", '"512mb" is not a quantity. Did you mean 512Mi (mebibytes) or 512M?'),
            ("512 MiB", '"512 MiB" is not a quantity. Did you mean 512Mi (mebibytes)?'),
            ("1g", '"1g" is not a quantity. Did you mean 1Gi (gibibytes) or 1G?'),
            ("64K", '"64K" is not a quantity. Did you mean 64Ki (kibibytes) or 64k?'),
            ("128m", '"128m" is a fraction of a byte'),
            ("-1", '"-1" is negative'),
            ("1e999", '"1e999" is larger than any cluster'),
            ("9Ei", '"9Ei" is larger than any cluster'),
            ("nan", '"nan" is not a quantity'),
            ("1 zillion", "Write it like"),
            ("٣Mi", "is not a quantity"),
            ("1Mi\n", "is not a quantity"),
            ("9" * 100_000, "is not a quantity"),
        ],
    )
    def test_refuses_with_a_suggestion(self, text: str, message: str) -> None:
        with pytest.raises(QuantityError) as caught:
            parse_memory_bytes(text)

        assert message in str(caught.value)

    def test_refuses_true(self) -> None:
        with pytest.raises(QuantityError, match="true is not a quantity"):
            parse_memory_bytes(True)

    def test_measured_use_is_short(self) -> None:
        assert format_memory_rounded(34 * 2**20 - 5) == "34Mi"
        assert format_memory_rounded(1000) == "1Ki"


class TestFormat:
    @pytest.mark.parametrize("text", ["128Mi", "1Gi", "8M", "1500Mi", "512M", "0", "1k"])
    def test_writes_memory_as_people_do(self, text: str) -> None:
        assert format_memory(parse_memory_bytes(text)) == text

    @given(st.integers(0, 2**63 - 1))
    def test_memory_survives_writing_and_reading(self, memory_bytes: int) -> None:
        assert parse_memory_bytes(format_memory(memory_bytes)) == memory_bytes

    @given(st.integers(0, 2**53))
    def test_cpu_survives_writing_and_reading(self, millis: int) -> None:
        assert parse_cpu_millis(format_cpu(millis)) == millis

    @given(st.decimals(0, 10**6, places=5))
    def test_never_less_than_asked_for_and_never_a_unit_more(self, cores: Fraction) -> None:
        exact = Fraction(cores) * 1000

        assert exact <= parse_cpu_millis(str(cores)) < exact + 1

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        for parse in (parse_cpu_millis, parse_memory_bytes):
            with contextlib.suppress(QuantityError):
                assert parse(text) >= 0
