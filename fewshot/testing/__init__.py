"""The laws that components obey, for ours and for yours.

    from fewshot.testing import check_regularizer

    def test_my_drop():
        check_regularizer("my_pkg.my_module.MyDrop:rate=0.2", drops=0.2, mean_one="expectation")
"""

from fewshot.testing.regularizers import check_regularizer

__all__ = ["check_regularizer"]
