"""What Great Expectations found, in Airflow: its Data Docs as a page of the menu, and as a link of each task that
validated."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.configuration import conf

from fleet.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import FileResponse

PREFIX = "/data-docs"
STATIC = "static"
"""Fonts and styles, the same for everybody; a sandboxed page asks for them without a session."""
SANDBOX = {"Content-Security-Policy": "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"}
"""The pages run scripts of foreign servers and show what devices sent: they get no hold of Airflow's session."""


def folder() -> Path:
    return (Settings.load().home / "data-docs").resolve()


class DataDocsLink(BaseOperatorLink):
    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        if not operator.data_docs:
            return ""
        path = Path(operator.data_docs).resolve().relative_to(folder())
        return f"{conf.get('api', 'base_url').rstrip('/')}{PREFIX}/{path.as_posix()}"


class ValidationOperator(_PythonDecoratedOperator):
    """A Python task that leaves in `data_docs` where its page is, a path; it need not succeed for that."""

    operator_extra_links = (DataDocsLink(),)
    data_docs = ""


def validation_task(**options: Any) -> Any:
    """As `@task(**options)`, with the link."""
    return task_decorator_factory(decorated_operator_class=ValidationOperator, **options)


def pages() -> "FastAPI":
    """For who may see a DAG. Airflow's API server alone needs it, and loads it: tasks begin half a second sooner."""
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse

    docs = FastAPI(openapi_url=None)

    def file(path: str) -> FileResponse:
        found = (folder() / path).resolve()
        if not found.is_relative_to(folder()) or not found.is_file():
            raise HTTPException(404, "No such page: nothing was validated yet, or it is one of a run long ago")
        return FileResponse(found, headers=SANDBOX)

    @docs.get(f"/{STATIC}/{{path:path}}")
    def static(path: str) -> "FileResponse":
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise HTTPException(404)
        return file(f"{STATIC}/{path}")

    @docs.get("/{path:path}", dependencies=[Depends(requires_access_dag("GET"))])
    def page(path: str) -> "FileResponse":
        return file(path or "index.html")

    return docs


class DataDocs(AirflowPlugin):
    name = "data_docs"
    external_views = [{"name": "Data Docs", "href": f"{PREFIX}/index.html", "destination": "nav"}]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        return [{"app": pages(), "url_prefix": PREFIX, "name": "Data Docs"}]
