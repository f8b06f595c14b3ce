"""What an audit log says of a request: what its message claims to be, in so far as that can be."""

from flwr.app import ConfigRecord, Message

from federation.deployment.audit_entry import Fields, fitting
from federation.messages import QUERIES


def request_facts(message: Message) -> Fields:
    """The run, the step and the round that a message names.

    It may come from anybody and hold anything, so a value that no entry could hold is left out.
    """
    records = message.content if message.has_content() else {}
    config, place = (records.get(name) for name in ("config", "place"))
    said: dict[str, object] = {}
    for record in (config, place):  # a greeting names its run in the former, a query in the latter
        if isinstance(record, ConfigRecord):
            said |= {name: record[name] for name in ("run", "round") if name in record}
    if isinstance(config, ConfigRecord) and (query := QUERIES.get(str(config.get("query")))):
        said["step"] = query.step
    return fitting(said)
