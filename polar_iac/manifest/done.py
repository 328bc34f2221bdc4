"""Entries of `import`, `moved` and `removed` that are done: each lockfile already says what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record


def has_entries(manifest: Manifest) -> bool:
    """Tell whether a manifest has any entry that may be done."""
    return bool(manifest.imports or manifest.moved or manifest.removed)


def done_entries(
    manifest: Manifest, recorded: Mapping[str, Mapping[str, Record]]
) -> Iterator[tuple[SourceSpan, str]]:
    """Yield the place of each entry that is done, and a sentence that says so, in the order of the file.

    Where all entries of a block are done, one sentence says it at the first: after an adoption there may be
    hundreds. `recorded` has the records by environment, of each environment with a lockfile. Without one
    nothing is done. An import is not done either while an environment that it names has no lockfile.
    """
    if not recorded:
        return
    blocks = {
        "import": [
            (entry.span, f"the import of `{entry.key}`", _is_imported(entry.key, entry.ids, recorded))
            for entry in manifest.imports
        ],
        "moved": [
            (move.span, f"the move from `{move.source}`", _is_gone(move.source, recorded))
            for move in manifest.moved
        ],
        "removed": [
            (entry.span, f"the removal of `{entry.key}`", _is_gone(entry.key, recorded))
            for entry in manifest.removed
        ],
    }
    found = [place for name, entries in blocks.items() for place in _of_block(name, entries)]
    yield from sorted(found, key=lambda place: (place[0].line, place[0].column))


def _of_block(name: str, entries: Sequence[tuple[SourceSpan, str, bool]]) -> list[tuple[SourceSpan, str]]:
    done = [(span, f"{entry} is done") for span, entry, is_done in entries if is_done]
    if len(done) > 1 and len(done) == len(entries):
        return [(done[0][0], f"all {len(done)} entries of `{name}` are done")]
    return done


def _is_imported(key: str, ids: Mapping[str, str], recorded: Mapping[str, Mapping[str, Record]]) -> bool:
    # A record without a spec is of a meter that Polar refused to change: only the entry says that it is ours.
    records = {environment: recorded.get(environment, {}).get(key) for environment in ids}
    return all(
        record is not None and record.id == ids[environment] and record.spec is not None
        for environment, record in records.items()
    )


def _is_gone(key: str, recorded: Mapping[str, Mapping[str, Record]]) -> bool:
    return not any(key in records for records in recorded.values())
