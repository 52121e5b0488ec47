"""The user's own data: what else does a fine-tuning set, or a model that exists already, do?

`audit` describes a set, and `score` scores its rows with a small model. `trial` makes a study of a set on three small
organisms. In a study, `sets` and `models` check the user's sets and models before anything runs, and `report` answers
the question from what `comparison` computes. docs/your-own.md is the user's guide.
"""
