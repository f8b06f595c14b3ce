"""A trained model as MLflow serves it ("models from code": MLflow runs this file)."""

from pathlib import Path

import mlflow
import pandas as pd
import polars as pl
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from models.serving import ServedModel


class ServedPyfunc(PythonModel):
    """Probability of each row and its reasons; see `ServedModel.predict`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model."""
        text = Path(context.artifacts["model"]).read_text(encoding="utf-8")
        self._served = ServedModel.from_json(text)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, str] | None = None,
    ) -> pd.DataFrame:
        """Probability of each row and its reasons."""
        values = pl.DataFrame({name: model_input[name].to_list() for name in model_input})
        return pd.DataFrame(self._served.predict(values).to_dict(as_series=False))


mlflow.models.set_model(ServedPyfunc())
