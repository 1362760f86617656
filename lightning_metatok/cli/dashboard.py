"""`dashboard`: a sweep's arms over each other in TensorBoard, which is started on them and nothing else.

    lightning-metatok dashboard sweeps/x.yaml [--port 6006] [--no_serve true]
    lightning-metatok dashboard --runs runs/plain-1 runs/meta-1 --out FOLDER

Custom Scalars: by length and while learning, means with margins over seeds. HParams: a row a run. Images: the report's
figures. Text: the verdict. Ctrl-C ends it.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from lightning_metatok.cli.studies import add_arguments, read_study
from lightning_metatok.errors import OptionParser, UserError

MADE = "dashboard"
HOST = "127.0.0.1"
STARTS_WITHIN_S = 120
TAB = "#custom_scalars&regexInput="


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok dashboard", description=__doc__)
    add_arguments(parser, MADE)
    parser.add_argument("--port", type=int, default=6006, help="of this machine, where TensorBoard listens (6006)")
    parser.add_argument("--no_serve", default="false", metavar="true|false", help="true: write, start nothing (false)")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Write the event files and serve them."""
    arguments = build_parser().parse(argv)
    if arguments.no_serve not in ("true", "false"):
        raise UserError(f"--no_serve={arguments.no_serve}: expected true or false")
    serves = arguments.no_serve == "false"
    if not 1 <= arguments.port <= 65535:
        raise UserError(f"--port={arguments.port}: expected 1 to 65535")
    if serves:
        check_port(arguments.port)
    from lightning_metatok.report.dashboard import write_dashboard

    study, out = read_study(arguments, verb, MADE)
    write_dashboard(study, out, with_probes=bool(arguments.runs), solved=arguments.solved)
    print(f"{out}: {len(study.runs)} runs, {len(study.conditions)} conditions", flush=True)
    return serve(out, arguments.port) if serves else 0


def check_port(port: int) -> None:
    """Raise `UserError` where somebody listens on the port, or this user may not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port={port}: {error.strerror}; expected a free port") from error


def serve(folder: Path, port: int) -> int:
    """Run TensorBoard until it ends, or this process is told to."""
    before = signal.signal(signal.SIGTERM, _stop)
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", f"--host={HOST}", f"--port={port}"]
    command += ["--reload_interval=15"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            if not _answers(process, port):
                said.seek(0)
                words = [line.strip() for line in said if line.strip()]
                raise UserError(f"--port={port}: TensorBoard did not start: {words[-1] if words else 'no word of it'}")
            print(f"TensorBoard: http://{HOST}:{port}/{TAB}{shown_first()}   (Ctrl-C ends it)", flush=True)
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            signal.signal(signal.SIGTERM, before)


def shown_first() -> str:
    """What chooses among TensorBoard's runs, for an address.

    Conditions alone: TensorBoard draws nothing where more than 40 of its runs are, until they are ticked.
    """
    from lightning_metatok.report.dashboard import RUNS

    return quote(f"^(?!{RUNS}/)", safe="()!")


def _stop(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C: TensorBoard must not outlive this process."""
    raise KeyboardInterrupt


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until TensorBoard listens; whether it does."""
    end = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return process.poll() is None
        except OSError:
            time.sleep(0.2)
    return False
