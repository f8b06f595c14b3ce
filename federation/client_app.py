"""Flower client of a site: wiring only. What may be computed and released stands in `site.py`."""

from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from data_contracts.manifest import SiteManifest
from federation.messages import decode_query, encode_answer
from federation.plan import RunPlan
from federation.site import SitePolicyError, answer, noise_source, reasons_kept_at_site

app = ClientApp()


@app.query()
def hello(message: Message, context: Context) -> Message:
    """Say who the site is, or refuse the plan, before any data are read."""
    manifest = SiteManifest.load(_manifest_file(context))
    refusal = ""
    try:
        noise_source(manifest, _plan(context))
    except SitePolicyError as error:
        refusal = str(error)
    record = ConfigRecord({"site": manifest.name, "role": manifest.role, "refusal": refusal})
    return Message(RecordDict({"config": record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer one query with a noisy sum over the site's patients."""
    query, round_number = decode_query(message.content)
    file = _manifest_file(context)
    with reasons_kept_at_site(SiteManifest.load(file)):
        reply = answer(file, _plan(context), query, round_number)
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
