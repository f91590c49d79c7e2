"""MLflow's registry of models: versions of a name, one of which is the champion. Nothing here loads Keras."""

from __future__ import annotations

from collections.abc import Mapping

import mlflow
from mlflow.entities.model_registry import ModelVersion

from clothseg.errors import UserError
from clothseg.tracking.find import Found
from clothseg.tracking.store import store_address

CHAMPION = "champion"
# Of a run's metrics those that its version is tagged with.
SCORES = ("val_native/", "val_best/")


class RegisteredModel:
    """A registered model by its name, made where it is missing.

    Args:
        name: of the model.

    Raises:
        UserError: the registry cannot be used.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._client = mlflow.MlflowClient()
        try:
            self._client.create_registered_model(name)
        except mlflow.MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise UserError(
                    f"name={name} cannot be registered in {store_address()}: {error}; "
                    "MLFLOW_REGISTRY_URI names another registry"
                ) from error

    def version_of(self, found: Found) -> ModelVersion:
        """The version that the logged model of a run is, with the run's scores as tags; a new one unless it is one.

        Raises:
            UserError: the run has not finished, or has no logged model.
        """
        if found.run_id is None:
            raise UserError(f"run={found.given} is a folder; only a run in MLflow can be registered")
        if found.status != "FINISHED":
            raise UserError(f"run={found.given} is {found.status}; only a FINISHED run can be registered")
        known = self._client.search_model_versions(f"name='{self.name}' and run_id='{found.run_id}'")
        if known:
            return max(known, key=lambda version: int(version.version))
        run = self._client.get_run(found.run_id)
        logged = run.outputs.model_outputs if run.outputs is not None else []
        if not logged:
            raise UserError(f"run={found.given} has no logged model; tracking.log_model=true logs one")
        model = max(logged, key=lambda output: output.step).model_id
        tags = {key: str(value) for key, value in run.data.metrics.items() if key.startswith(SCORES)}
        tags |= {key: run.data.tags[key] for key in ("preset", "backbone", "git.commit") if key in run.data.tags}
        return self._client.create_model_version(
            self.name, source=f"models:/{model}", run_id=found.run_id, tags=tags, model_id=model
        )

    def champion(self) -> ModelVersion | None:
        """The version that has the alias; None where none has."""
        aliases = self._client.get_registered_model(self.name).aliases
        return self._client.get_model_version(self.name, aliases[CHAMPION]) if CHAMPION in aliases else None

    def crown(self, version: ModelVersion) -> None:
        """Gives a version the alias."""
        self._client.set_registered_model_alias(self.name, CHAMPION, version.version)

    def note(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Tags a version and the run that it comes from."""
        assert version.run_id is not None  # as `version_of` finds and makes them
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version.version, key, value)
            self._client.set_tag(version.run_id, key, value)
