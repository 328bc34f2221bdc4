"""The embedded Polar: the API of Polar around meters as one WSGI application over SQLite.

It is the `local` environment: try a manifest offline, without an account, much as test cards let you try a
payment provider. Its answers are those of the real server, including errors and oddities. Where the real
server fails, this one fails too.

Each fact names its source: *observed* on the real server, *read* in its source code, or *assumed*.

The prefix of a token decides what it may do:

| token | is |
|---|---|
| `polar_oat_…` | an organization's: read and write meters, events, products, benefits; read customer meters |
| `polar_oat_all_…` | the same, with `organizations:read` |
| `polar_oat_rw_…`, `polar_oat_ro_…`, `polar_oat_wo_…` | an organization's, for meters: both, or one of them |
| `polar_oat_er_…`, `polar_oat_ew_…` | an organization's, with `events:read` or `events:write` |
| `polar_oat_pr_…`, `polar_oat_pw_…` | an organization's, with `products:read` or `products:write` |
| `polar_oat_br_…`, `polar_oat_bw_…` | an organization's, with `benefits:read` or `benefits:write` |
| `polar_oat_cmr_…` | an organization's, with `customer_meters:read` |
| `polar_oat_orgr_…` | an organization's, with `organizations:read` |
| `polar_oat_facts_…` | an organization's, with `events:read`, `products:read` and `benefits:read` |
| `polar_oat_noscope_…` | an organization's, with none |
| `polar_pat_…` | a person's, who sees the one organization |
| `polar_oat_expired_…`, `polar_oat_000…`, anything else | not valid |

Events that are ingested count at once, and freeze meters as on Polar: a new meter when an event matches it,
others when billing has seen an event. Billing runs after each ingest, at an interval, or on request.
"""

from polar_iac.local.app import LocalPolar, RateLimit
from polar_iac.local.server import serving

__all__ = ["LocalPolar", "RateLimit", "serving"]
