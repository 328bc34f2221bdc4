"""The differential test: random histories of a team and its meters, held against an oracle of its own.

`world` is what there is, `manifest_edits`, `dashboard_edits` and `lockfile_edits` are what people do to it,
`histories` chooses the steps, and `sessions` runs the real command; `late` is what lands after its run.
`oracle` and `aftermath` say what must be so of an apply and after it, `table` what a plan must say of each
key; `rounds` and `truth` are what they look at. `python -m tests.differential SEED` runs one history and
reduces the one that is flagged.
"""
