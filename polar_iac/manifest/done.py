"""Entries of `import`, `moved` and `removed` that are done: each lockfile already says what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record


def has_entries(manifest: Manifest) -> bool:
    """Tell whether a manifest has any entry that may be done."""
    return bool(manifest.imports or manifest.moved or manifest.removed)


def done_entries(
    manifest: Manifest, recorded: Mapping[str, Mapping[str, Record]]
) -> Iterator[tuple[SourceSpan, str]]:
    """Yield the place of each entry that is done, and a name for it, in the order of the file.

    `recorded` has the records by environment, of each environment with a lockfile. Without one nothing is
    done. An import is not done either while an environment that it names has no lockfile.
    """
    entries = [
        (entry.span, f"the import of `{entry.key}`", _is_imported(entry.key, entry.ids, recorded))
        for entry in manifest.imports
    ]
    entries += [
        (move.span, f"the move from `{move.source}`", _is_gone(move.source, recorded))
        for move in manifest.moved
    ]
    entries += [
        (entry.span, f"the removal of `{entry.key}`", _is_gone(entry.key, recorded))
        for entry in manifest.removed
    ]
    for span, name, is_done in sorted(entries, key=lambda entry: (entry[0].line, entry[0].column)):
        if is_done and recorded:
            yield span, name


def _is_imported(key: str, ids: Mapping[str, str], recorded: Mapping[str, Mapping[str, Record]]) -> bool:
    # A record without a spec is of a meter that Polar refused to change: only the entry says that it is ours.
    records = {environment: recorded.get(environment, {}).get(key) for environment in ids}
    return all(
        record is not None and record.id == ids[environment] and record.spec is not None
        for environment, record in records.items()
    )


def _is_gone(key: str, recorded: Mapping[str, Mapping[str, Record]]) -> bool:
    return not any(key in records for records in recorded.values())
