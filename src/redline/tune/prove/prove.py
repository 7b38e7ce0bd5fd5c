"""Does a setting help here? Its present and its wanted value in turn, again and again, on the same box under the same
load, and every change taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from redline.analyse.effect import SHARES
from redline.analyse.percentile import LEVELS
from redline.analyse.proof import Proof, Sides, judged, weigh
from redline.analyse.rounds import LATENCIES
from redline.errors import EnvironmentFault, RedlineError, UsageError
from redline.node.apply import STATE_DIR, refuse_beside
from redline.node.facts import facts
from redline.node.live import LiveSys
from redline.node.sys import Sys
from redline.node.tunables.tunable import Profile
from redline.node.weights import model_files
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.faults import did_you_mean
from redline.spec.resolve import resolve_model
from redline.store.read import default_path
from redline.store.store import Store
from redline.tune.events import Events
from redline.tune.preflight import adapter
from redline.tune.prove.arms import Arms
from redline.tune.prove.candidate import CONTROL, CPUS, MAX_RISK, PIN, PREWARM, Candidate, Limits, candidates
from redline.tune.prove.engines import RestartedUrl
from redline.tune.prove.http import Target
from redline.tune.prove.measures import METRICS, Bench, Http, Kind, Load, Measure
from redline.tune.prove.switch import JournalSwitch, NoSwitch, Switch, hang_up_interrupts, mine, refuse_leftovers
from redline.tune.prove.ways import CpusSwitch, PinSwitch, WarmSwitch, binding_for, cpus_for
from redline.tune.stop import Stop
from redline.tune.trial import Context, context_of

ROUNDS, FEWEST_ROUNDS = 8, 3
KNOWN = frozenset(
    (*(name for names in METRICS.values() for name in names), *("total_tokens_per_s", "goodput_per_s"),
     *(f"{name}.{level}" for name in (*LATENCIES, "itl_ms") for level in LEVELS), *SHARES)
)  # fmt: skip
"""What can be asked for as a metric."""
ARTIFACT, FILE = "node-proof", "node-proof.json"


@dataclass(frozen=True)
class Options:
    """How to prove. `restart`: a command that starts the server at a URL again. `metrics` (): the usual ones of the
    measure. `pids` (): found by the port. `settle_s`: pause after each change while the engine runs. `inert`: try also
    what the audit says can have no effect here.
    """

    measure: Kind = "bench"
    profile: Profile = "latency"
    rounds: int = ROUNDS
    restart: str = ""
    http: Target | None = None
    metrics: tuple[str, ...] = ()
    max_risk: int = MAX_RISK
    settle_s: float = 0.5
    pids: tuple[int, ...] = ()
    inert: bool = False


@dataclass
class Proven:
    """`status` is done, interrupted or failed. `proofs` in the order asked for; `errors` of engines and of the box."""

    run_id: str
    status: str
    proofs: list[Proof]
    errors: list[RedlineError] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Transactions that could not be taken back: `redline node revert` of each tries again."""

    @property
    def useful(self) -> list[str]:
        """Ids of the settings worth keeping."""
        return list(dict.fromkeys(proof.id for proof in self.proofs if proof.useful))

    def to_json(self) -> dict[str, Any]:
        proofs = [proof.to_json() for proof in self.proofs]
        return {"run": self.run_id, "status": self.status, "useful": self.useful, "settings": proofs, "left": self.left}


def prove(
    experiment: Experiment,
    settings: Sequence[str] = (),
    options: Options | None = None,
    *,
    sys: Sys | None = None,
    state_dir: Path = STATE_DIR,
    db: Path | None = None,
    argv: Sequence[str] = (),
    events: Events | None = None,
) -> Proven:
    """Proves `settings` (`ID`, `ID=VALUE`, `ID@PLACE=VALUE`; none: all that drift) under the one engine, the one model
    and the load of `experiment`, and keeps everything in `db`.

    The box is afterwards as it was, whatever happens; after kill -9 `redline node revert` makes it so. Raises
    UsageError and EnvironmentFault (NodeBusy after a trial that was killed) before anything was changed.
    """
    options, sys, events = options or Options(), sys or LiveSys(), events or Events()
    _check(experiment, options)
    refuse_leftovers(state_dir)
    found = candidates(sys, settings, Limits(options.profile, options.max_risk, options.inert))
    able = [one for one in found if not one.why_not]
    if any(one.changes for one in able):
        refuse_beside(state_dir)
    _engine_can_run(experiment, options)
    with Store.open(db or default_path()) as store, hang_up_interrupts(), Stop() as stop:
        whole = _stored_experiment(experiment, able, options)
        run_id = store.begin_run(whole, facts(), list(argv))
        context = context_of(whole, store, run_id, stop, events)
        trial = _Trial(context, options, sys, state_dir, found)
        return trial.carry_out()


def _check(experiment: Experiment, options: Options) -> None:
    if len(experiment.engines) != 1 or len(experiment.models) != 1:
        names = ", ".join(spec.label for spec in experiment.engines)
        raise UsageError(f"a setting is proved on one engine with one model, and these are {names}", fix="name one")
    if unknown := [name for name in options.metrics if name not in KNOWN]:
        raise UsageError(f"no metric {unknown[0]!r} can be compared", fix=did_you_mean(unknown[0], sorted(KNOWN)))
    if experiment.search.goal != "off":
        raise UsageError("a setting is proved at a load that stays the same", fix="--concurrency or --rate")
    if options.rounds < FEWEST_ROUNDS:
        raise UsageError(f"{options.rounds} rounds are too few to tell chance from effect", fix="--rounds 8")
    if options.restart and experiment.engines[0].kind != "url":
        raise UsageError("redline starts this engine itself", fix="leave the restart command out")


def _engine_can_run(experiment: Experiment, options: Options) -> None:
    """Raises what the adapter's own check raises, or EnvironmentFault."""
    spec = experiment.engines[0]
    if options.measure == "http" and spec.kind == "url":
        return  # any listener will do
    engine = adapter(spec.kind)
    skipped = engine.available(spec)
    if skipped is not None:
        raise EnvironmentFault(f"{spec.label} cannot run here: {skipped.reason}", fix=skipped.how_to_get_it)
    engine.check(spec, experiment.models[0])


def _stored_experiment(experiment: Experiment, able: Sequence[Candidate], options: Options) -> Experiment:
    """With one engine per value."""
    base = experiment.engines[0]

    def spec(label: str, at_start: bool) -> EngineSpec:
        return base.model_copy(update={"name": label, "keep_up": base.kind != "url" and not at_start})

    specs = [spec(label, one.at_start) for one in able for label in one.labels]
    name = experiment.name or "does it help here: " + (", ".join(one.id for one in able) or "nothing to try")
    return experiment.model_copy(
        update={"name": name, "engines": specs or [base], "rounds": options.rounds, "repeats": 1}
    )


@dataclass
class _Trial:
    """One run of prove."""

    context: Context
    options: Options
    sys: Sys
    state_dir: Path
    found: list[Candidate]
    proofs: dict[str, Proof] = field(default_factory=dict)

    def carry_out(self) -> Proven:
        context = self.context
        measure = self._measure()
        status = "failed"
        context.events.proof(context.run_id, len(self.found), self.options.rounds)
        try:
            # engines that can stay up are measured first: they need not be started again in between
            for one in sorted(self.found, key=lambda one: one.at_start):
                if not context.stop.asked:
                    self._prove(one, measure)
            status = "interrupted" if context.stop.asked else "done"
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            measure.close()
            self._keep(status)
        left = [found.txn for found in mine(self.state_dir)]
        return Proven(context.run_id, status, self._judged(), context.errors, left)

    def _measure(self) -> Measure:
        experiment, options = self.context.experiment, self.options
        spec, model = experiment.engines[0].model_copy(update={"name": ""}), experiment.models[0]
        speaks = options.measure != "http"
        engine = RestartedUrl(options.restart, speaks=speaks) if options.restart else adapter(spec.kind)
        arms = Arms(self.sys, pids=options.pids, files=self._files(), settle_s=options.settle_s)
        restarts = spec.kind != "url" or bool(options.restart)
        self.context.around, self.context.apart = arms.around, True
        parts = (self.context, model, spec, engine, arms, restarts)
        if options.measure == "http":
            return Http(*parts, target=options.http or Target(spec.url or "http://127.0.0.1/health"))
        return Load(*parts) if options.measure == "load" else Bench(*parts)

    def _files(self) -> tuple[Path, ...]:
        model = self.context.experiment.models[0]
        try:
            if self.context.experiment.engines[0].kind == "url" and not Path(model.id).is_dir():
                return ()
            path = resolve_model(model).path
            return tuple(model_files(Path(path))) if path else ()
        except RedlineError:
            return ()

    def _prove(self, one: Candidate, measure: Measure) -> None:
        switch = self._switch(one, measure)
        how = "engine started for every round" if one.at_start or measure.always else "changed while the engine runs"
        proof = Proof(one.id, one.present, one.wanted, one.where, how, "not measured", signal=one.signal)
        if isinstance(switch, str):
            self.proofs[one.labels[1]] = replace(proof, verdict="not testable here", why=switch)
            return
        why = ""
        try:
            try:
                measure.run(one, switch)
            finally:
                switch.close()
        except RedlineError as error:
            self.context.errors.append(error)
            why = error.what
        finally:
            self.proofs[one.labels[1]] = self._weighed(proof, measure.sides(one), why)

    def _weighed(self, proof: Proof, sides: Sides, why: str) -> Proof:
        effects, shifts, rounds = weigh(sides, self.options.metrics or METRICS[self.options.measure])
        if rounds < self.options.rounds and not why:
            why = "; ".join([f"{rounds} of {self.options.rounds} rounds count", *sides.notes[:1]])
        return replace(proof, why=why, rounds=rounds, effects=effects, shifts=shifts, notes=sides.notes)

    def _switch(self, one: Candidate, measure: Measure) -> Switch | str:
        """What changes the setting; text says why it cannot be tested."""
        if one.why_not:
            return one.why_not
        if (one.at_start or measure.always) and not measure.restarts:
            return "a server that runs does not feel it: let redline start the engine (--engine), or give --restart"
        if one.id == CONTROL:
            return NoSwitch()
        if one.id == PREWARM:
            return WarmSwitch(self._files()) if self._files() else "the files of the model are not known here"
        if one.id == CPUS:
            if self.context.experiment.engines[0].kind == "url":
                return "only of an engine that redline starts itself: a killed trial would leave another one bound"
            cpus = cpus_for(one.wanted)
            return cpus if isinstance(cpus, str) else CpusSwitch(cpus)
        if one.id == PIN:
            found = binding_for(self.sys, one.wanted)
            return found if isinstance(found, str) else PinSwitch(found)
        if not self.sys.user_is_root():
            return "blocked: changing the settings of a box takes root"
        return JournalSwitch(self.sys, self.state_dir, one.changes)

    def _judged(self) -> list[Proof]:
        return judged([self.proofs[one.labels[1]] for one in self.found if one.labels[1] in self.proofs])

    def _keep(self, status: str) -> None:
        store, run_id = self.context.store, self.context.run_id
        proofs = self._judged()
        path = store.artifact_dir(run_id) / FILE
        content = {"measure": self.options.measure, "profile": self.options.profile, "rounds": self.options.rounds}
        path.write_bytes(orjson.dumps({**content, "settings": [proof.to_json() for proof in proofs]}))
        store.add_artifact(run_id, path, ARTIFACT)
        reasons = [error.what for error in self.context.errors]
        tested = [proof for proof in proofs if proof.effects]
        store.end_run(run_id, status, "degraded" if reasons or status != "done" or not tested else "valid", reasons)


def worth_keeping(proofs: Collection[Proof], said: Callable[[Proof], str] = lambda proof: proof.why) -> str:
    """The text of a profile: ids that help, one a line; the others as remarks."""
    lines = ["# settings that were found to help on this box; redline node plan --only @THIS_FILE"]
    lines += list(dict.fromkeys(proof.id for proof in proofs if proof.useful))
    lines += [
        f"# {proof.id}: {proof.verdict}" + (f" ({reason})" if (reason := said(proof)) else "")
        for proof in proofs
        if not proof.useful
    ]
    return "\n".join(lines) + "\n"
