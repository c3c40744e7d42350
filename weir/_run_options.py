"""What `weir simulate` and `weir replay` may both be told."""

from pathlib import Path
from typing import Annotated

import typer

Speed = Annotated[
    float | None, typer.Option(help="1 is real time; 0 does not wait. Default 1, to a file 0.", show_default=False)
]
Until = Annotated[str, typer.Option(help="Let the event times end at this RFC 3339 time instead of now.")]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
Seq = Annotated[bool, typer.Option("--seq", help="Devices number their messages.")]
Site = Annotated[str | None, typer.Option(help="Default: the spec's.")]
To = Annotated[str, typer.Option(help="mqtt, kafka (as the bridge would write), http, coap, or file:PATH.")]
Gateway = Annotated[str, typer.Option(help="For http and coap: the gateway, such as http://127.0.0.1:28081.")]
Tokens = Annotated[
    Path | None,
    typer.Option(help="For http and coap: JSON of type, device_id and token, as `weir devices credentials` prints."),
]
Out = Annotated[Path | None, typer.Option(help="The file, for --to file: JSON lines of topic and payload.")]
OneFault = Annotated[list[str] | None, typer.Option(help="Such as spike=0.001; may be repeated.")]
FaultsFile = Annotated[Path | None, typer.Option(help="Faults in a YAML file, `kind: share` lines.")]
Truth = Annotated[Path | None, typer.Option(help="JSON lines: each fault, and a summary as the last.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
