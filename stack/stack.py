"""One running stack: a home folder, ports and a choice of programs. The command line, the demo and the tests use it."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet.errors import ConfigurationError, Unavailable, WeirError
from fleet.settings import CHECKOUT, Settings
from stack import configuration, grafana, kafka, postgres, prefix, programs, provision, readiness, started, supervisor
from stack.credentials import admin_url, ensure_secrets, owner_url, write_env_files
from stack.layout import Layout
from stack.ports import LOOPBACK, Ports, check_free

Progress = Callable[[str, str, float], None]
"""Called with program, what happened (`starting`, `up`, `failed`) and the seconds since its start."""

READY_SECONDS = 480
"""On a machine that is busy with other things. A program that stops is noticed at once, not after this time."""

RENEWAL = timedelta(minutes=3)
"""What a restart of all services may take, on a busy machine, until each has reported again."""


class StartFailed(WeirError):
    """A program did not come up. The message ends with its log's tail."""


class Stack:
    def __init__(
        self,
        home: Path = CHECKOUT / "var",
        ports: Ports | None = None,
        services: Iterable[str] = programs.ALL,
        environ: Mapping[str, str] = os.environ,
        external_db_url: str = "",
    ) -> None:
        """`services`: what to run, of `stack.programs.KNOWN`; what these need comes with them.

        `ports`: as set up before, or the defaults, when None. `external_db_url`: a TimescaleDB of the user's own.
        """
        self.layout = Layout(home.resolve())
        self.environ = environ
        self.services = with_needs(services)
        self.ports = ports or Ports.from_settings(self.settings("operator", environ), {})
        self.external_db_url = external_db_url
        self.supervisor = supervisor.Supervisor(self.layout)

    def settings(self, role: str = "operator", environ: Mapping[str, str] | None = None) -> Settings:
        """The Settings of a role of this stack; the defaults when it has not been set up."""
        path = self.layout.env_file(role)
        wanted = {"WEIR_HOME": str(self.layout.home)} | ({"WEIR_ENV_FILE": str(path)} if path.is_file() else {})
        return Settings.load(wanted)

    def setup(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Native parts, secrets, env files, configuration.

        A running stack keeps its ports and its configuration: raises ConfigurationError when others are asked for.
        """
        kept = configuration.kept_settings(self.layout, self.environ)
        running = self.supervisor.running()
        if running:
            then = configuration.earlier_settings(self.layout)
            started.refuse_changes(Ports.from_settings(self.settings("operator"), {}), self.ports, then, kept)
        self.layout.make()
        self.secrets = ensure_secrets(self.layout, self.external_db_url)
        self.prefix = prefix.ensure(say, database=not self.secrets.get("EXTERNAL_DB_URL"))
        if self.secrets.get("EXTERNAL_DB_URL"):
            self.services = tuple(name for name in self.services if name != "postgres")
        java = {
            "WEIR_JAVA_HOME": str(self.prefix.java_home),
            "WEIR_SPARK_JARS": ",".join(str(path) for path in self.prefix.spark_jars),
        }
        # One that runs already goes on, though nothing names it this time.
        has_grafana = "grafana" in (self.supervisor.programs() if running else self.services)
        write_env_files(self.layout, self.ports, self.secrets, java, kept, has_grafana)
        self.drop = postgres.drop_root(self.prefix) if "postgres" in self.services else ()
        if running:
            return
        configuration.write(self.layout, self.ports, self.secrets, self.program_table(), self.settings("batch"))

    def program_table(self) -> list[programs.Program]:
        return [self._program(name) for name in self.services]

    def _program(self, name: str) -> programs.Program:
        base = programs.base_environment(self.layout, self.environ) | programs.lake_environment(name, self.environ)
        match name:
            case "kafka":
                program = programs.kafka(self.layout, self.prefix)
            case "mosquitto":
                program = programs.mosquitto(self.layout, self.prefix)
            case "postgres":
                program = programs.postgres(self.layout, self.prefix, self.drop)
            case "alertmanager":
                program = programs.alertmanager(self.layout, self.prefix, self.ports)
            case "spark":
                program = programs.spark(self.layout, self.prefix, self.settings("batch").spark_master)
            case "grafana":
                program = grafana.program(self.layout, self.environ, self.secrets)
            case "stream":
                program = programs.stream(self.layout, configuration.passed_settings(self.environ))
            case _ if name in programs.AIRFLOW:
                environment = configuration.airflow_environment(self.layout, self.ports, self.secrets, self.environ)
                program = programs.airflow(name, self.layout, self.ports, environment)
            case _:
                passed = configuration.passed_settings(self.environ)
                program = programs.service(name, self.layout, passed)
        return programs.with_environment(program, base)

    def up(self, progress: Progress = lambda *_: None) -> None:
        """Start what is not running, in order, and return when all of it answers. What runs is brought up to date.

        Raises ConfigurationError when a port is taken or Kafka's storage is a newer Kafka's, StartFailed (everything
        stopped again) when a program fails.
        """
        if "kafka" in self.services:
            kafka.check_format(self.layout)
        if self.supervisor.running():
            self.setup()
            states = self.supervisor.programs()
            running = {n for n, info in states.items() if info["statename"] == "RUNNING"}
            if set(self.services) <= running:
                self._bring_up_to_date(running, progress)
                return
            self.down()
        supervisor.kill_leftovers(self.layout.home)
        self.setup()
        check_free(
            {port: getattr(self.ports, port) for name in self.services for port in programs.PORT_OF.get(name, ())}
        )
        types = started.fingerprint(self.settings().types_dir)
        self.supervisor.start()
        try:
            if self.secrets.get("EXTERNAL_DB_URL"):
                self._provision_database()
            self._bring_up(progress)
        except BaseException:
            self.down()
            raise
        started.remember(self.layout, types)

    def _bring_up_to_date(self, running: Iterable[str], progress: Progress) -> None:
        """Topics, rights, logins and tables that are new since the start, and programs that know other device types."""
        types = started.fingerprint(self.settings().types_dir)
        if "kafka" in running:
            self._provision("kafka")
        if "postgres" in running or self.secrets.get("EXTERNAL_DB_URL"):
            self._provision_database()
        if types == started.remembered(self.layout):
            return
        stale = [name for name in programs.READ_TYPES if name in running]
        if "alertmanager" in running:
            self._hush()
        self.supervisor.stop_together(stale)
        begun = time.monotonic()
        for name in stale:
            progress(name, "starting", 0)
            self._start_program(name)
        for name in stale:
            self._wait(name, begun, lambda: False)
            progress(name, "up", time.monotonic() - begun)
        started.remember(self.layout, types)

    def _hush(self) -> None:
        """Services that are started anew do not report for a while; who still does not at the end is told of."""
        from connections.alertmanager import Alertmanager
        from fleet.channels import OWN_TYPE
        from fleet.silence import Matcher, Silence

        now = datetime.now(UTC)
        those = (Matcher("type", OWN_TYPE), Matcher("alertname", "silent"))
        client = Alertmanager.of(self.settings("operator"))
        try:
            client.add_silence(Silence("", those, now, now + RENEWAL, "make up", "services are started anew"))
        except Unavailable:  # then somebody may be told for nothing
            pass
        finally:
            client.close()

    def _bring_up(self, progress: Progress) -> None:
        done = {name: threading.Event() for name in self.services}
        failures: list[Exception] = []

        def run(name: str) -> None:
            since = time.monotonic()
            try:
                for needed in (*programs.NEEDS.get(name, ()), *programs.AFTER.get(name, ())):
                    while needed in done and not done[needed].wait(0.1):
                        if failures:
                            return
                since = time.monotonic()
                progress(name, "starting", 0)
                self._prepare(name)
                self._start(name, since, lambda: bool(failures))
                self._provision(name)
                progress(name, "up", time.monotonic() - since)
                done[name].set()
            except Exception as error:
                if not isinstance(error, WeirError):
                    error = StartFailed(f"{name}: {error!r}\n--- {self.layout.log(name)}\n{self.log_tail(name)}")
                if not failures:
                    progress(name, "failed", time.monotonic() - since)
                failures.append(error)

        with ThreadPoolExecutor(len(self.services)) as pool:
            list(pool.map(run, self.services))
        if failures:
            raise failures[0]

    def _prepare(self, name: str) -> None:
        if name == "kafka":
            kafka.initialise(self.layout, self.prefix, self.secrets)
        elif name == "postgres":
            postgres.initialise(self.layout, self.prefix, self.drop, self.secrets["DB_SUPERUSER"])
            postgres.hand_over(self.layout, self.drop)

    def _start(self, name: str, since: float, abandoned: Callable[[], bool]) -> None:
        self._start_program(name)
        self._wait(name, since, abandoned)

    def _start_program(self, name: str) -> None:
        if name in programs.GROUP_MEMBERS:
            given = {k: v for k, v in self.environ.items() if k == "WEIR_SERVICE_INSTANCE"}
            bootstrap = f"{LOOPBACK}:{self.ports.kafka}"
            provision.forget_member(bootstrap, self.secrets, name, Settings.from_values(given))
        self.supervisor.start_program(name)

    def _wait(self, name: str, since: float, abandoned: Callable[[], bool]) -> None:
        limit = READY_SECONDS
        reason = "it did not answer"
        while time.monotonic() < since + limit:
            if abandoned():
                raise StartFailed(f"{name}: given up, as another program failed")
            info = self.supervisor.programs().get(name, {})
            if info.get("statename") in ("FATAL", "EXITED", "BACKOFF"):
                reason = f"it stopped ({info.get('spawnerr') or info.get('description')})"
                if info["statename"] != "BACKOFF" or time.monotonic() > since + 6:
                    break
            try:
                readiness.check(name, self.ports, self.secrets)
                return
            except WeirError as error:
                reason = str(error)
            time.sleep(min(0.1 + (time.monotonic() - since) / 20, 1.0))  # asking costs CPU that the program wants
        tail = self.log_tail(name)
        seconds = time.monotonic() - since
        raise StartFailed(f"{name} did not come up in {seconds:.0f} s: {reason}\n--- {self.layout.log(name)}\n{tail}")

    def _provision(self, name: str) -> None:
        if name == "kafka":
            from fleet.catalog import load_catalog

            catalog = load_catalog(self.settings("operator").types_dir)
            provision.provision_kafka(f"{LOOPBACK}:{self.ports.kafka}", self.secrets, catalog)
        elif name == "postgres":
            self._provision_database()
        elif name == "airflow-api-server":
            readiness.finish_airflow(f"http://{LOOPBACK}:{self.ports.airflow}", self.secrets)

    def _provision_database(self) -> None:
        own = not self.secrets.get("EXTERNAL_DB_URL")
        provision.provision_database(admin_url(self.secrets, self.ports), self.secrets, own)
        provision.migrate(owner_url(self.secrets, self.ports))
        if programs.AIRFLOW[0] in self.services:
            configuration.migrate_airflow(self.layout, self._program(programs.AIRFLOW[0]))

    def log_tail(self, name: str, lines: int = 25) -> str:
        path = self.layout.log(name)
        if not path.is_file():
            return "(no log)"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def restart(self, name: str) -> None:
        """Stop and start one program and wait until it answers. Raises as `up` does."""
        if name == "kafka":
            kafka.check_format(self.layout)
        self.secrets = ensure_secrets(self.layout)
        self.supervisor.stop_program(name)
        self._start(name, time.monotonic(), lambda: False)

    def airflow(self) -> programs.Program:
        """Airflow's command line, in the environment of its programs: append what it is to do. Raises
        ConfigurationError while the stack is not up."""
        if not self.supervisor.running():
            raise ConfigurationError("the stack is not up; `make up` starts it, and Airflow with it")
        self.secrets = ensure_secrets(self.layout)
        program = self._program("airflow-scheduler")  # which alone has the lake's keys
        return replace(program, command=program.command[:1])

    def down(self) -> None:
        """Stop everything; nothing of this stack is running afterwards. Clients go first: they may have to flush."""
        self.supervisor.stop_together(set(programs.KNOWN) - set(programs.SERVERS))
        self.supervisor.stop_together(programs.SERVERS)
        self.supervisor.shutdown()
        supervisor.kill_leftovers(self.layout.home)


def with_needs(services: Iterable[str]) -> tuple[str, ...]:
    """The services and what they need, in the table's order. Raises ConfigurationError for a name that is not there."""
    wanted = set(services)
    unknown = sorted(wanted - set(programs.KNOWN))
    if unknown:
        raise ConfigurationError(f"no such service: {', '.join(unknown)}; there are {', '.join(programs.KNOWN)}")
    for name in list(wanted):
        wanted |= set(programs.NEEDS.get(name, ()))
    return tuple(name for name in programs.KNOWN if name in wanted)
