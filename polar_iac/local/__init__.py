"""The embedded Polar: the meters API of Polar as one WSGI application over SQLite.

It is the `local` environment: try a manifest offline, without an account, much as test cards let you try a
payment provider. Its answers are those of the real server, including errors and oddities. Where the real
server fails, this one fails too.

Each fact names its source: *observed* on the real server, *read* in its source code, or *assumed*.

The prefix of a token decides what it may do:

| token | is |
|---|---|
| `polar_oat_…` | an organization's, with `meters:read` and `meters:write` |
| `polar_oat_ro_…`, `polar_oat_wo_…` | an organization's, with the first or the second only |
| `polar_oat_noscope_…` | an organization's, with neither |
| `polar_pat_…` | a person's, who sees the one organization |
| `polar_oat_expired_…`, `polar_oat_000…`, anything else | not valid |

Events are not supported yet: `GET /v1/meters/{id}/quantities` is not served, and a meter is frozen by calling
`LocalPolar.freeze`.
"""

from polar_iac.local.app import LocalPolar, RateLimit
from polar_iac.local.server import serving

__all__ = ["LocalPolar", "RateLimit", "serving"]
