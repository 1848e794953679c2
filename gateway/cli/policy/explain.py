"""`portcullis policy explain`: why a request is allowed or denied, policy by policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, fail, mark, say
from gateway.cli.policy.input import entities_option, fail_policy, path_argument, read, schema_option
from gateway.cli.policy.logged import decision_options, logged_decision, mark_sourced, path_of, policy_config
from gateway.cli.policy.relations import fill_relations, relations_option
from gateway.cli.relation.store import path_document

if TYPE_CHECKING:
    from gateway.config import PolicyConfig
    from gateway.policy.engine import Answer, Engine, Request
    from gateway.policy.explanation import Operand, PolicyExplanation
    from gateway.policy.logged import LoggedDecision
    from gateway.policy.relation_explanation import RelationTest


@click.command("explain")
@path_argument
@click.option("--principal", default="", metavar="UID", help='Who asks: User::"alice".')
@click.option("--action", default="", metavar="UID", help='What for: Action::"view".')
@click.option("--resource", default="", metavar="UID", help='On what: Photo::"1".')
@click.option("--context", default="{}", metavar="JSON", help="In which context, in Cedar's JSON, or @FILE.")
@decision_options
@schema_option
@entities_option
@click.option("--all", "everything", is_flag=True, help="Also the policies whose head does not fit.")
@relations_option
@config_option
@as_json_option
def command(
    *,
    path: Path,
    principal: str,
    action: str,
    resource: str,
    context: str,
    decision: str,
    log: Path | None,
    decision_id: str,
    schema: Path | None,
    entities: Path | None,
    relations: str,
    file: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Decide one request over the policies under PATH, and say what became of each policy.

    The request is told by --principal, --action and --resource, or it is one of a decision log. Of a policy that did
    not hold, the clause that failed is shown, with the values of its parts; of one that asks for relations, the way
    over which the asker stands in them.
    """
    from gateway.policy.engine import Engine
    from gateway.policy.explanation import explain
    from gateway.policy.faults import PolicyFault
    from gateway.policy.relation_explanation import relation_tests
    from gateway.policy.search import may_allow

    logged = logged_decision(decision, log, decision_id, as_json)
    if (logged is None) != bool(principal and action and resource) or (logged and (principal or action or resource)):
        raise click.UsageError("say --principal, --action and --resource, or name a logged decision")
    config = None
    if logged is not None:
        config = _config_of(path, file, as_json)
        schema, entities = _as_configured(config, schema, entities)
    folder = read(path, schema, entities, as_json)
    source = fill_relations(folder, path, relations, file, as_json)
    try:
        engine = Engine(folder.policies, folder.entities, folder.schema)
        mark_sourced(engine, config, as_json)
        request = logged.prepare(engine) if logged else _asked(engine, principal, action, resource, context)
        explained = explain(engine, engine.policies.policies, request)
    except PolicyFault as error:
        fail_policy(error, as_json)
    except OSError as error:
        raise click.UsageError(f"`{context[1:]}`: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError as error:
        fail(f"the request cannot be asked: {error}", as_json)
    heads = ("principal", "action", "resource")
    shown = [each for each in explained.policies if everything or each.clause not in heads]
    asked = {
        each.policy_id: relation_tests(engine, engine.policies.policies[each.policy_id], request) for each in shown
    }
    answer = explained.answer
    # The doors are stricter than Cedar is: a forbid that cannot be evaluated denies.
    allowed = answer.allowed if logged is None else may_allow(engine, answer)
    document: dict[str, object] = {
        "ok": True,
        "decision": "allow" if allowed else "deny",
        "reasons": sorted(answer.reasons),
        "errors": sorted(answer.errors),
        "faults": list(answer.faults),
        "relations": source,
        "policies": [
            {**_document(each), "relations": [_relation_document(test) for test in asked[each.policy_id]]}
            for each in shown
        ],
    }

    if logged is not None:
        document["logged"] = _logged_document(logged, folder.digest)

    def speak() -> None:
        if logged is not None:
            _speak_logged(logged, allowed, folder.digest)
        click.echo(f"{mark(allowed)} {document['decision']}: {_why_so(answer, allowed)}")
        for each in shown:
            _speak(each)
            for test in asked[each.policy_id]:
                _speak_relation(test)
        left = len(explained.policies) - len(shown)
        if left:
            click.echo(f"· {left} more, whose head does not fit (--all shows them)")
        if any(asked.values()) and not source:
            click.echo("· no relations were read (--relations says from where)")

    say(document, as_json, speak)


def _asked(engine: Engine, principal: str, action: str, resource: str, context: str) -> Request:
    """Look up what the options ask. Raises PolicyFault, OSError."""
    from gateway.policy.requests import parse_context, validate_request
    from gateway.policy.testing.running import parse_uid

    who, what, which = parse_uid(principal), parse_uid(action), parse_uid(resource)
    text = Path(context[1:]).read_text(encoding="utf-8") if context.startswith("@") else context
    values = parse_context(text, engine.schema, what)
    if engine.schema is not None:
        validate_request(engine.schema, who, what, which, values)
    return engine.prepare(who, what, which, values)


def _config_of(path: Path, file: Path | None, as_json: bool) -> PolicyConfig | None:
    """Give what a config says, if the policies at `path` are those that it serves."""
    config = policy_config(file, as_json)
    return config if config is not None and config.path and Path(config.path) == path.absolute() else None


def _as_configured(
    config: PolicyConfig | None, schema: Path | None, entities: Path | None
) -> tuple[Path | None, Path | None]:
    """Give schema and entities: those of the options, else those of the config."""
    if config is None:
        return schema, entities
    return schema or path_of(config.schema), entities or path_of(config.entities)


def _logged_document(logged: LoggedDecision, digest: str) -> dict[str, object]:
    return {
        "id": logged.id,
        "place": logged.place,
        "decision": "allow" if logged.allowed else "deny",
        "reason": logged.reason,
        "policies": list(logged.policies),
        "digest": logged.digest,
        "digest_now": digest,
        "same_policies": logged.digest == digest,
    }


def _speak_logged(logged: LoggedDecision, allowed: bool, digest: str) -> None:
    """Say what was decided then, and whether anything is different now."""
    then = "allow" if logged.allowed else "deny"
    click.echo(f"{logged.principal} {logged.action} {logged.resource} at {logged.place}")
    click.echo(f"{mark(logged.allowed)} then {then}: {_why(list(logged.policies), logged.allowed)}")
    if logged.digest != digest:
        told = "unknown" if logged.digest is None else logged.digest[:12]
        click.echo(f"· policies, schema or entities are others now (digest {told} then, {digest[:12]} now)")
    elif logged.allowed != allowed:
        click.echo("· the policies are the same: entities or relations that are kept elsewhere are not")


def _why_so(answer: Answer, allowed: bool) -> str:
    if answer.faults:
        return ", ".join(answer.faults) + (f" ({answer.missing})" if answer.missing is not None else "")
    if answer.allowed and not allowed:
        return f"{', '.join(sorted(answer.errors))} cannot be evaluated, and might forbid it"
    return _why(sorted(answer.reasons), allowed)


def _why(reasons: list[str], allowed: bool) -> str:
    if reasons:
        return f"by {', '.join(reasons)}"
    return "" if allowed else "no policy permits it"


def _speak(each: PolicyExplanation) -> None:
    marks = {"satisfied": "✓ holds", "unsatisfied": "✗ does not hold", "error": "! erred", "fault": "! hit a limit"}
    click.echo(f"  {each.policy_id} ({each.effect}): {marks[each.outcome]}")
    if each.clause is not None:
        code = f" [{each.code}]" if each.code else ""
        click.echo(f"      {each.clause}{code}: {' '.join(each.text.split())}")
    for operand in each.operands:
        click.echo(f"        {' '.join(operand.text.split())} is {_shown(operand)}")


def _speak_relation(test: RelationTest) -> None:
    verb = "does not stand" if test.path is None else "stands"
    click.echo(f"      {' '.join(test.text.split())}: {test.subject} {verb} in {test.asked}")
    for step in test.path or ():
        click.echo(f"        {step}")


def _relation_document(test: RelationTest) -> dict[str, object]:
    return {
        "text": test.text,
        "subject": str(test.subject),
        "asked": str(test.asked),
        "stands": test.path is not None,
        "path": path_document(test.path),
    }


def _shown(operand: Operand) -> str:
    from gateway.policy.json_values import value_to_json

    return (
        f"no value: {operand.error}" if operand.error else json.dumps(value_to_json(operand.value), ensure_ascii=False)
    )


def _document(each: PolicyExplanation) -> dict[str, object]:
    from gateway.policy.json_values import value_to_json

    return {
        "policy": each.policy_id,
        "effect": each.effect,
        "outcome": each.outcome,
        "clause": each.clause,
        "code": each.code,
        "text": each.text,
        "operands": [
            {"text": operand.text, "value": value_to_json(operand.value), "error": operand.error}
            for operand in each.operands
        ],
    }
