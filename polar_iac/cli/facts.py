"""Facts of a plan, from the options of a command. Only a plan with changes loads this."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polar_iac.apply.facts import Needs, gather, needs_of, needs_to_archive
from polar_iac.facts.model import Facts
from polar_iac.files import state_directory
from polar_iac.plan.facts import with_facts, with_shown_blocks
from polar_iac.polar.facts_access import Place, open_facts

if TYPE_CHECKING:
    from polar_iac.cli import options
    from polar_iac.cli.inputs import Inputs
    from polar_iac.clock import Clock
    from polar_iac.plan.model import Plan
    from polar_iac.polar.client import PolarClient


@dataclass(frozen=True)
class FactsSource:
    """Access to the facts of one environment: the session's connection, and the options."""

    inputs: Inputs
    connection: options.Connection
    facts: options.Facts
    client: PolarClient
    clock: Clock

    def planned(self, plan: Plan) -> Plan:
        """Return a plan with all facts that its notes need."""
        return with_facts(plan, self.read(plan, needs_of(plan, self.facts.level)))

    def read(self, plan: Plan, needs: Needs) -> Facts:
        """Read facts of a plan. Where it needs none, nothing is sent; where one is missing, it is a gap."""
        if not needs.any:
            return Facts()
        environment = plan.environment
        place = Place(
            environment,
            self.inputs.manifest.server(environment),
            plan.organization_id,
            lambda: state_directory(self.inputs.lockfile_path),
            self.connection.allow_http,
        )
        budget = self.facts.requests, self.facts.timeout
        with open_facts(place, os.environ, *budget, clock=self.clock, now=self.client.now) as reader:
            return gather(needs, reader)


@dataclass(frozen=True)
class KnownFacts:
    """Facts that an apply knows. It plans twice, around its question, and reads them once."""

    facts: Facts
    reviewed: Plan | None

    @classmethod
    def of(cls, plan: Plan, source: FactsSource, reviewed: Plan | None, *, is_asked: bool) -> KnownFacts:
        """Read all facts if somebody is asked for approval, otherwise only those that block an archive."""
        needs = (needs_of if is_asked else needs_to_archive)(plan, source.facts.level)
        return cls(source.read(plan, needs), reviewed)

    def joined(self, plan: Plan) -> Plan:
        """Return the plan with the facts. What a saved plan showed as blocked by facts is blocked, too."""
        joined = with_facts(plan, self.facts)
        return with_shown_blocks(joined, self.reviewed) if self.reviewed else joined
