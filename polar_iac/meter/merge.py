"""Three-way merge of metadata."""

from __future__ import annotations

from collections.abc import Mapping

from polar_iac.meter.canonical import same_value
from polar_iac.meter.fields import FieldPath, MetadataValue


def merge_metadata(
    desired: Mapping[str, MetadataValue],
    base: Mapping[str, MetadataValue],
    live: Mapping[str, MetadataValue],
    ignored: frozenset[str],
) -> dict[str, MetadataValue]:
    """Merge metadata three ways, key by key, like `kubectl apply`.

    A desired key is set. A key of `base` (the last declared metadata) that is no longer desired is removed,
    even if someone changed it since. A key that someone else added stays. `ignored` holds `ignore_changes`
    entries; those keys keep their live values.
    """
    if "metadata" in ignored:
        return dict(live)
    # Example: base {a, b}, desired {a}, live {a, b, c}: `b` is removed, and `c` (not ours) stays.
    ours = {k for k in {*desired, *base} if not FieldPath("metadata", k).is_ignored(ignored)}
    kept = {k: v for k, v in live.items() if k not in ours}
    # Keep the live value if Polar would only normalize ours. Example: 1e20 and 100000000000000000000 are
    # equal.
    return kept | {
        k: live[k] if k in live and same_value(live[k], v) else v for k, v in desired.items() if k in ours
    }
