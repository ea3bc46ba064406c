"""The model that the scoring service is measured with: services of two commits are to have as much to compute.

A hundred trees, wherever a search or early stopping would end; values of `search` in params.yaml, older commits' too.
"""

FIXED_MODEL = {
    "method": "manual",
    "candidates": ["boosting"],
    "trials": 1,
    "manual": [{"candidate": "boosting", "max_iter": 100, "n_iter_no_change": 100}],
}
