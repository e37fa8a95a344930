"""What schemathesis is told beside the description: our own check, a tally, and some values that exist."""

import atexit
import collections
import json
import os
import secrets

import schemathesis

# What holds for every path, whatever its operation.
EVERYWHERE = {"not-found", "method-not-allowed", "headers-too-large", "too-many-requests", "overloaded"}
KNOWN = json.loads(os.environ["API_CHECK_KNOWN"])
TALLY = collections.defaultdict(collections.Counter)


@schemathesis.check
def as_described(ctx, response, case):
    """A refusal is a problem with one of the codes that the operation lists; only `overloaded` is a 5xx."""
    operation = case.operation
    label = operation.label
    TALLY[label][str(response.status_code)] += 1
    status = response.status_code
    if status < 400:
        documented = operation.definition.raw["responses"]
        assert str(status) in documented, f"{label}: {status} is not described"
        if status == 204:
            assert not response.content, f"{label}: 204 with a body"
        return
    kind = response.headers.get("content-type", [""])[0]
    assert kind == "application/problem+json", f"{label}: {status} as {kind!r}"
    if case.method.upper() == "HEAD":
        return
    problem = json.loads(response.content)
    code = problem["code"]
    assert problem["status"] == status, f"{label}: {status} says {problem['status']}"
    assert status < 500 or code == "overloaded", f"{label}: {status} {code}"
    listed = set(operation.definition.raw["x-codes"]) | EVERYWHERE
    assert code in listed, f"{label}: {status} {code} is not among the operation's codes"


def some(context, value):
    known = KNOWN.get(context.operation.label) if context.operation is not None else None
    if isinstance(known, str) and isinstance(value, str):
        return known if secrets.randbelow(5) else value
    if isinstance(known, dict) and isinstance(value, dict) and secrets.randbelow(5):
        return {**value, **{name: exists for name, exists in known.items() if name in value}}
    return value


@schemathesis.hook
def map_body(context, body):
    return some(context, body)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return some(context, path_parameters)


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """The description has the schema of one line; a call has two."""
    line = value if isinstance(value, bytes) else json.dumps(value).encode()
    return line + b"\n" + line


@schemathesis.serializer("application/toml")
def model(context, value):
    """A model's file is text, which goes as it is."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@atexit.register
def write():
    with open(os.environ["API_CHECK_TALLY"], "w") as out:
        json.dump(TALLY, out)
