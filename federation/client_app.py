"""Flower client of a site: wiring only. What may be computed and released stands in `site.py`."""

from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import SiteManifest
from federation.ledger import AlreadyChargedError
from federation.messages import Answer, Lost, decode_request, encode_answer
from federation.plan import RunPlan
from federation.secure_sum import Upload
from federation.site import answer, charged, greet, reasons_kept_at_site

app = ClientApp()


@app.query()
def hello(message: Message, context: Context) -> Message:
    """Say who the site is and which keys it has for the run, or refuse the plan."""
    file = _manifest_file(context)
    manifest = SiteManifest.load(file)
    said: dict[str, Any] = {"site": manifest.name, "role": manifest.role}
    asked = message.content["config"]
    run = str(asked["run"]) if isinstance(asked, ConfigRecord) else ""
    try:
        with reasons_kept_at_site(manifest):
            if (offer := greet(file, _plan(context), run)) is not None:
                said |= {"key": offer.public_key, "signature": offer.signature}
                said["charged"] = charged(file, run)
    except GroundTruthError as error:
        said["refusal"] = str(error)
    return Message(RecordDict({"config": ConfigRecord(said)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer one query with a noisy sum over the site's patients."""
    plan = _plan(context)
    request = decode_request(message.content, plan.digest)
    file = _manifest_file(context)
    manifest = SiteManifest.load(file)
    reply: Answer | Upload | Lost
    with reasons_kept_at_site(manifest):
        try:
            reply = answer(file, plan, request)
        except AlreadyChargedError:
            reply = Lost(manifest.name)
    return Message(encode_answer(reply), reply_to=message)


def _plan(context: Context) -> RunPlan:
    return RunPlan.from_json(str(context.run_config["plan"]))


def _manifest_file(context: Context) -> Path:
    """The site's own site.toml; in a simulation, that of the plan's site with the node's number."""
    if site := context.node_config.get("site"):
        return Path(str(site))
    number = int(context.node_config["partition-id"])
    folder = Path(str(context.run_config["sites"]))
    return folder / _plan(context).sites[number] / "site.toml"
