"""The laws that components obey, for ours and for yours.

    from fewshot.testing import check_head, check_regularizer

    def test_my_drop():
        check_regularizer("my_pkg.my_module.MyDrop:rate=0.2", drops=0.2, mean_one="expectation")

    def test_my_head():
        check_head("my_pkg.my_module.MyHead:temperature=0.1")
"""

from fewshot.testing.heads import check_head
from fewshot.testing.regularizers import Case, check_regularizer

__all__ = ["Case", "check_head", "check_regularizer"]
