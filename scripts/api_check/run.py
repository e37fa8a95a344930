"""Runs schemathesis once for each caller, and sums up."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import requests

HERE = pathlib.Path(__file__).parent
DEMO = pathlib.Path(os.environ["DEMO_JSON"])
EXAMPLES = os.environ.get("JADEGATE_EXAMPLES", "10")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,as_described"

demo = json.loads(DEMO.read_text())
ca = str(DEMO.parent / demo["ca"])
parties = {party["id"]: party for party in demo["parties"]}


def session(who):
    answer = requests.post(f"{demo['web']}/demo/login", data={"as": who}, allow_redirects=False)
    assert answer.status_code == 303, answer.status_code
    return ["--header", f"Cookie: jadegate_session={answer.cookies['jadegate_session']}"]


def certificate(party):
    party = parties[party]
    return ["--request-cert", str(DEMO.parent / party["cert"]), "--request-cert-key", str(DEMO.parent / party["key"])]


def logged_in(who):
    made = requests.Session()
    made.post(f"{demo['web']}/demo/login", data={"as": who}, allow_redirects=False)
    return made


def created(who, path, body):
    given = who.post(f"{demo['web']}{path}", json=body)
    assert given.status_code == 201, given.text
    return given.json()


def known():
    """For some operations something that exists, or every made-up call of them would end at a name that nobody knows."""
    me, somebody = demo["people"][0]["id_number"], demo["people"][1]
    wish = {"scenario": "library-deposit", "party": "yx-library"}
    consent = created(logged_in(me), "/v1/me/consents", {**wish, "uses": 200})
    lost = created(logged_in(me), "/v1/me/consents", wish)
    case = created(logged_in("officer-two"), "/v1/cases", {"reason": "x", "person": {"id_number": me}})
    path = requests.get(f"{demo['web']}/log/origins").json()[0]["path"]
    log = {"name": path.strip("/").split("/")[-1]}
    person = {"id_number": somebody["id_number"], "name": somebody["name"]}
    market = created(logged_in(me), "/v1/me/market-consents", {"provider": "yx-telecom"})
    record = {"id": "api-check", "provider": "yx-court", "indicator": "civil-judgment-unperformed", "person": person,
              "occurred_on": "2026-03-01"}
    court = tuple(str(DEMO.parent / parties["yx-court"][part]) for part in ("cert", "key"))
    sent = requests.post(f"{demo['api']}/v1/records", data=json.dumps(record), cert=court, verify=ca,
                         headers={"content-type": "application/x-ndjson"})
    assert sent.status_code == 200, sent.text
    model = next(model for model in requests.get(f"{demo['web']}/v1/models").json() if model["state"] == "in-force")
    draft = (DEMO.parent / "try" / "model.toml").read_text()
    drafted = logged_in("operator-one").post(f"{demo['web']}/v1/models", data=draft.encode(),
                                             headers={"content-type": "application/toml"}).json()
    return {
        # Each of these may come again and again, and changes nothing after its first time.
        "POST /v1/models": draft,
        "POST /v1/models/trials": draft,
        "GET /v1/models/{id}": {"id": model["id"]},
        "POST /v1/models/{id}/approval": {"id": drafted["id"]},
        "POST /v1/models/{id}/publication": {"id": model["id"], "from": model["from"]},
        "GET /v1/batches/{id}": {"id": sent.json()["batches"][0]},
        "POST /v1/records/{id}/withdrawal": {"id": record["id"], "reason": "a mistake"},
        "POST /v1/me/market-consents": {"provider": "yx-telecom", "indicators": ["telecom-arrears"]},
        "DELETE /v1/me/market-consents/{id}": {"id": market["id"]},
        "POST /v1/answers": {"scenario": "library-deposit", "consent": consent["token"]},
        "POST /v1/me/consents": {**wish, "uses": 1, "days": 1},
        "POST /v1/cases": {"person": {"id_number": somebody["id_number"]}},
        "POST /demo/login": {"as": "officer-one"},
        "POST /v1/records": {"provider": "yx-court", "indicator": "civil-judgment-unperformed", "person": person},
        "POST /v1/register": person,
        "POST /v1/cases/{id}/confirm": {"id": case["id"]},
        "GET /v1/me/answers/{scenario}": {"scenario": "library-deposit"},
        "POST /v1/me/consents/{id}/codes": {"id": consent["id"]},
        "DELETE /v1/me/consents/{id}": {"id": lost["id"]},
        "GET /log/tile/{path}": {"path": "0/000.p/1"},
        "GET /log/{name}/checkpoint": log,
        "GET /log/{name}/key": log,
        "GET /log/{name}/tile/{path}": {**log, "path": "0/000.p/1"},
    }


API = "^/(v1/(answers|records|records/.*|register|batches/.*)|docs/errors|healthz|readyz)$"
ADMIN = "^/(metrics|healthz|readyz)$"
# Everything that is on neither of the others, or on all.
WEB = "^/(?!v1/(answers|records|records/.*|register|batches/.*)$|metrics$)"
CALLERS = [
    ("web, nobody", demo["web"], WEB, []),
    ("web, a person", demo["web"], WEB, session(demo["people"][0]["id_number"])),
    ("web, an officer", demo["web"], WEB, session("officer-one")),
    ("web, an operator", demo["web"], WEB, session("operator-one")),
    ("api, nobody", demo["api"], API, []),
    ("api, a library", demo["api"], API, certificate("yx-library")),
    ("api, the registrar", demo["api"], API, certificate("yx-public-security")),
    ("api, the court", demo["api"], API, certificate("yx-court")),
    ("admin", demo["admin"], ADMIN, []),
]


def main():
    failed, total = [], collections.Counter()
    reached = collections.Counter()
    exists = json.dumps(known())
    schema = HERE.parent.parent / "src/http/openapi.json"
    served = requests.get(f"{demo['web']}/openapi.json")
    assert served.json() == json.loads(schema.read_text()), "what is served is not what is in the repository"
    with tempfile.TemporaryDirectory() as folder:
        described = pathlib.Path(folder) / "openapi.json"
        described.write_bytes(served.content)
        for number, (name, url, paths, more) in enumerate(CALLERS):
            print(f"==> {name}", flush=True)
            tally = pathlib.Path(folder) / f"{number}.json"
            told = dict(os.environ, SCHEMATHESIS_HOOKS=str(HERE / "hooks.py"), API_CHECK_TALLY=str(tally))
            told["API_CHECK_KNOWN"] = exists
            command = [
                str(pathlib.Path(sys.executable).parent / "st"), "run", str(described), "--url", url, "--tls-verify", ca,
                "--include-path-regex", paths, "--phases", "coverage,fuzzing", "--max-examples", EXAMPLES,
                "--generation-database", "none", "--max-redirects", "0", "--request-timeout", "30", "--no-color",
                "--continue-on-failure", "--generation-with-security-parameters", "false", "--warnings", "off",
                "--checks", CHECKS, "--suppress-health-check", "all", *more,
            ]
            if subprocess.run(command, env=told).returncode:
                failed.append(name)
            counts = json.loads(tally.read_text()) if tally.exists() else {}
            if not counts:
                failed.append(f"{name}: nothing was called")
            for operation, statuses in counts.items():
                print("   ", operation, statuses)
                for status, count in statuses.items():
                    total[status] += count
                    reached[operation] += count * status.startswith(("2", "3"))
    document = json.loads(schema.read_text())
    everything = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    for never in sorted(everything - {operation for operation, count in reached.items() if count}):
        # A check that meets only refusals checks little.
        failed.append(f"{never}: never answered but by a refusal")
    calls = sum(total.values())
    fives = sum(count for status, count in total.items() if status.startswith("5"))
    print(f"figure | answers as /openapi.json says (schemathesis) | {calls} calls by {len(CALLERS)} callers of "
          f"{len(everything)} operations, {fives} of them 5xx, {len(failed)} faults; by status {dict(sorted(total.items()))}")
    for fault in failed:
        print("FAULT", fault)
    sys.exit(bool(failed))


main()
