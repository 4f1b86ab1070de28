"""The pieces of benchmarks.encode that find out what is compared, and with which limit."""

import json

import numpy as np
import pytest

from benchmarks import arithmetic, held
from benchmarks.contenders import OWN, RIVALS
from benchmarks.encode import GOALS, LIMITS, LOSS_GOALS, QUALITY_GOALS, QUERY_GOALS, Limit, _best, _similarities


class TestGoals:
    def test_each_names_contenders_that_there_are(self):
        named = {name for goals in (GOALS, LOSS_GOALS) for ours, rival, _ in goals for name in (ours, rival)}
        assert named <= {*OWN, *RIVALS}
        assert {*LIMITS, *QUERY_GOALS, *QUALITY_GOALS} <= {*OWN}


class TestSimilarities:
    def test_lowest_and_mean_whatever_the_lengths(self):
        lowest, mean = _similarities(np.array([[2.0, 0.0], [3.0, 4.0]]), np.array([[5.0, 0.0], [1.0, 0.0]]))
        assert lowest == pytest.approx(0.6)
        assert mean == pytest.approx(0.8)


class TestLimits:
    def test_the_higher_one_counts_and_none_where_nothing_was_measured(self):
        assert Limit(2.0, 3.0).most == 3.0
        assert Limit(None, 3.0).most == 3.0
        assert Limit(None, None).most is None

    def test_of_several_measures_the_best_of_each(self):
        first = dict.fromkeys(LIMITS, Limit(2.0, None))
        second = dict.fromkeys(LIMITS, Limit(1.0, 5.0))
        assert _best([first, second]) == dict.fromkeys(LIMITS, Limit(2.0, 5.0))

    def test_registers_are_measured_in_what_the_cpu_has(self):
        found = {precision: arithmetic.registers(precision) for precision in arithmetic.PRECISIONS}
        assert all(rate is None or rate > 0 for rate in found.values())

    def test_no_product_of_torch_in_int8(self):
        assert arithmetic.product("int8") is None

    def test_work_of_a_layer(self, tmp_path):
        config = {"hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1}
        (tmp_path / "config.json").write_text(json.dumps(config))
        # One text of 5 tokens: 2 * 5 * (4 * 4 + 2 * 6) for the weights, 4 * 25 * 2 for attention.
        assert arithmetic.work(tmp_path, [5]) == pytest.approx(480e-9)


class TestHeldToAvx2:
    def test_only_questions_for_registers_are_answered(self):
        asked = b"\x31\xc9\x0f\x01\xd0\x89\xc0"
        tested = b"\x89\xd5\x0f\x01\xd0" + bytes(12) + b"\xa8\x06"
        # `and eax, 15; add eax, edx` has the same bytes in it.
        sums = b"\x83\xe0\x0f\x01\xd0\x41\xf6"
        code, count = held._ASKED.subn(held._ANSWER, asked + sums + tested)
        assert count == 2
        assert code == asked.replace(b"\x0f\x01\xd0", b"\x6a\x07\x58") + sums + tested.replace(
            b"\x0f\x01\xd0", b"\x6a\x07\x58"
        )
