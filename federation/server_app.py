"""Flower server of the coordinator: wiring only. What a run does stands in `strategy.py`."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.exchange import Patience
from federation.identity import Registry
from federation.plan import RunPlan
from federation.results import write_failure, write_result
from federation.strategy import run

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train what the plan says and write the result, or the reason why there is none."""
    file = Path(str(context.run_config["result"]))
    try:
        plan = RunPlan.from_json(str(context.run_config["plan"]))
        registry = Registry.load(Path(str(context.run_config["registry"])))
        seconds = float(context.run_config["timeout"])
        patience = Patience(quorum_seconds=seconds, round_seconds=seconds)
        result = run(grid, plan, registry=registry, patience=patience)
    except Exception as error:
        write_failure(file, error)
        raise
    write_result(file, result)
