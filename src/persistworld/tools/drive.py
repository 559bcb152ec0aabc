"""Drive the robot in the world model, on a page in the browser or with a list of keys (--keyboard).

    persistworld drive
    persistworld drive --keyboard lllrrr --output drive.mp4

Each key makes one chunk of frames. `--keyboard` needs no browser and writes a film of all models side by side.
"""

import argparse
from pathlib import Path

from persistworld.apps.driving import Drive, pushed
from persistworld.apps.recording import save_film
from persistworld.apps.worlds import grasp_reader_for, inhabited, open_models, open_starts, tool_of_starts
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.robot.control import Follower
from persistworld.rollouts.inhabited import Embodiment
from persistworld.rollouts.making import actions_of
from persistworld.runtime.progress import track

OPTIONS = {
    "--models": {
        "nargs": "+",
        "metavar": "MODEL",
        "help": "names in checkpoints/, or folders (default: base and post_trained, those that are there)",
    },
    "--episodes": {"metavar": "FOLDER", "help": "data set to start in, or 'simulator' (default: the workflow's episodes)"},
    "--grasp": {"metavar": "FOLDER", "help": "grasp reader: do closing fingers meet something? or 'none' (default: the tabletop's own)"},
    "--keyboard": {"metavar": "KEYS", "help": "no page: press these keys, such as lllrrr, and write a film"},
    "--episode": {"type": "int", "metavar": "N", "help": "with --keyboard: where to start (default: the first)"},
    "--noise": {"type": "int", "default": 0, "metavar": "SEED", "help": "with --keyboard: of the sampler's noise (default: %(default)s)"},
    "--step": {"type": "float", "default": 0.06, "metavar": "M", "help": "with --keyboard: metres a key (default: %(default)s)"},
    "--angle": {"type": "float", "default": 0.3, "metavar": "RAD", "help": "with --keyboard: of a turn (default: %(default)s)"},
    "--output": {"metavar": "PATH", "help": "the film (default: drive.mp4); of the page, a folder for what is recorded (default: drives)"},
    "--host": {"default": "127.0.0.1", "help": "address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)"},
    "--port": {"type": "int", "default": 8642, "help": "0 takes a free one (default: %(default)s)"},
    "--prefix": {"default": "", "metavar": "PATH", "help": "serve below this path, such as /lab/drive behind a proxy"},
    "--allow-host": {
        "action": "append",
        "default": [],
        "metavar": "NAME",
        "help": "host name under which browsers may reach the page, such as a proxy's (default: this machine's loopback names)",
    },
}
HAND = Follower(gripper_step=0.65)  # the arm follows its target at once, the fingers at a limited speed


def main(params: Params, args: argparse.Namespace) -> None:
    """args: models, episodes, grasp, episode, noise, keyboard, step, output, host, port, prefix, allow_host."""
    # Mistakes in the options first: models of the paper's size take minutes to load.
    pushes = [pushed(letter) for letter in args.keyboard or ""]
    require(0 < args.step <= 0.3, "--step", args.step, "choose metres a chunk, above 0 and up to 0.3")
    models, starts = open_models(args.models, params), open_starts(args.episodes, params)
    actions, grasp = actions_of(next(iter(models.values()))[0], params.episodes, "absolute"), grasp_reader_for(args.grasp, params)
    robot = Embodiment(actions, tool_of_starts(starts), HAND, grasp)
    if args.keyboard is None:
        from persistworld.apps.drive import Drives, drive_app
        from persistworld.apps.server import allowed_hosts, serve

        drives = Drives(models, starts, robot, params, Path(args.output or "drives"))
        serve(drive_app(drives, allowed_hosts(args.host, args.allow_host)), args.host, args.port, args.prefix)
        return
    drive = Drive({name: inhabited(parts, params, robot) for name, parts in models.items()}, starts)
    drive.reset(starts.indices()[0] if args.episode is None else args.episode, args.noise)
    for push in track(pushes, len(pushes), "drive"):
        drive.go(push, args.step, args.angle)
    output = Path(args.output or "drive.mp4")
    save_film(output, drive.recording, params.episodes.fps, {}, drive.start.instruction)
    print(f"{len(pushes)} chunks: {output}")
