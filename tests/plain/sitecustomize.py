"""Python begins with this in the workflows that tests run: scikit-learn is hidden.

It is here for lm-evaluation-harness only and not in an installation without the extra `benchmarks`, and where it is,
transformers imports it in every notebook, which takes seconds.
"""

import sys

sys.modules["sklearn"] = None
