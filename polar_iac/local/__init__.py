"""The embedded Polar: the meters API of Polar as one WSGI application over SQLite.

It is the `local` environment, what test cards are to a payment provider: try a manifest against it offline,
without an account, and get the answers that the real server would give, errors and oddities included. Where
the real server breaks, this one does too.

Where the facts come from is said beside them: *observed* on the real server, *read* in its source, or else
*assumed*.

A token begins with what it may do:

| token | is |
|---|---|
| `polar_oat_…` | an organization's, with `meters:read` and `meters:write` |
| `polar_oat_ro_…`, `polar_oat_wo_…` | an organization's, with the first or the second only |
| `polar_oat_noscope_…` | an organization's, with neither |
| `polar_pat_…` | a person's, who sees the one organization |
| `polar_oat_expired_…`, `polar_oat_000…`, anything else | not valid |

Events come later: `GET /v1/meters/{id}/quantities` is not served yet, and freezing is a method.
"""

from polar_iac.local.app import LocalPolar, RateLimit
from polar_iac.local.server import serving

__all__ = ["LocalPolar", "RateLimit", "serving"]
