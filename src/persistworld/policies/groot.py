"""A client of GR00T N1.5's inference service, with the keys of its DROID embodiment (`oxe_droid`).

The protocol is ZeroMQ REQ/REP with msgpack. A request is {"endpoint": "get_action", "data": observation}, an answer holds the parts of the
action, and an answer with the key `error` is an error. Arrays are sent as {"__ndarray_class__": true, "as_npy": a .npy file}.
"""

import io
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from persistworld.policies.remote import RemoteConfig, line_of, pictures, rows
from persistworld.robot.actions import Kind
from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError

try:
    import msgpack
    import zmq
except ModuleNotFoundError as error:
    raise UserError(f"policies on a server need the package {error.name}: pip install 'persistworld[policies]'") from None

PORT = 5555
GREETING = 10.0  # s that a running service may take to answer a ping
VIEWS = {"video.exterior_image_1": "exterior_1", "video.exterior_image_2": "exterior_2", "video.wrist_image": "wrist"}
PROMPT = "annotation.language.language_instruction"
PARTS = {"action.eef_position_delta": 3, "action.eef_rotation_delta": 3, "action.gripper_position": 1}  # and their numbers


class Groot:
    """A policy whose actions are steps of the hand: displacement (m) and turn (rotation vector) in the base's frame, and the gripper."""

    kind: Kind = "relative"

    def __init__(self, address: str, config: RemoteConfig | None = None) -> None:
        """address: host or host:port. Raises UserError if no inference service answers there."""
        self.config = config or RemoteConfig()
        self.config.check()
        self.rate = self.config.rate
        plain = address.removeprefix("tcp://")
        self.address = f"tcp://{plain}" if ":" in plain else f"tcp://{plain}:{PORT}"
        self._context, self._socket = zmq.Context(), None
        self._call("ping", None, min(self.config.timeout, GREETING))

    def reset(self, seed: int) -> None:
        """Nothing to do: the service keeps no state between requests, and clients cannot seed its noise."""

    def act(self, observation: Observation) -> np.ndarray:
        """(n, 7): the poses of a chunk's frames relative to the current one. Raises UserError for no answer or an invalid one."""
        config, pose = self.config, observation["pose"]
        seen = pictures(observation, config.views or VIEWS, config.height, config.width)
        data: dict[str, Any] = {key: picture[None] for key, picture in seen.items()}  # one moment
        data |= {"state.eef_position": pose[None, :3], "state.eef_rotation": pose[None, 3:6], "state.gripper_position": pose[None, 6:7]}
        data[PROMPT] = [observation["instruction"]]
        answer = self._call("get_action", data, config.timeout)
        steps, turns, grips = (rows(answer, key, numbers, config.actions, self.address) for key, numbers in PARTS.items())
        every = config.actions // config.frames
        action = np.zeros((config.frames, 7))
        turned = Rotation.identity()
        for k, turn in enumerate(turns):
            turned = Rotation.from_rotvec(turn) * turned
            if (k + 1) % every == 0:
                action[k // every, 3:6] = turned.as_euler("xyz")
        action[:, :3] = np.cumsum(steps, axis=0)[every - 1 :: every]
        action[:, 6] = np.clip(grips[every - 1 :: every, 0], 0, 1)
        return action

    def _call(self, endpoint: str, data: dict[str, Any] | None, wait: float) -> dict[str, Any]:
        """Send a request and wait `wait` seconds for the answer. After a time-out, ask once more on a new socket."""
        request = pack({"endpoint": endpoint} if data is None else {"endpoint": endpoint, "data": data})
        message = None
        for _ in range(2):
            self._open(wait)
            try:
                self._socket.send(request)
                message = self._socket.recv()
                break
            except zmq.Again:
                self._shut()
        if message is None:
            raise UserError(f"{self.address}: no answer within {wait:g} s, twice; is the service running, is the address right?")
        try:
            answer = unpack(message)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise UserError(f"{self.address}: its answer is not msgpack ({line_of(error)}); is it GR00T's inference service?") from None
        if not isinstance(answer, dict):
            raise UserError(f"{self.address}: its answer is a {type(answer).__name__}, not a dict; only GR00T N1.5's protocol is known")
        if "error" in answer:
            raise UserError(f"{self.address}: the service reports: {line_of(answer['error'])}")
        return answer

    def _open(self, wait: float) -> None:
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(self.address)
        self._socket.setsockopt(zmq.RCVTIMEO, round(1000 * wait))
        self._socket.setsockopt(zmq.SNDTIMEO, round(1000 * wait))

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Close the connection."""
        self._shut()
        self._context.term()


def pack(value: Any) -> bytes:
    """msgpack with numpy arrays as GR00T writes them."""
    return msgpack.packb(value, default=_packed)


def unpack(message: bytes) -> Any:
    """Reverse of `pack`. Arrays of objects are refused."""
    return msgpack.unpackb(message, object_hook=_unpacked)


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a {type(value).__name__} is not sent")
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": buffer.getvalue()}


def _unpacked(value: dict) -> Any:
    return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False) if "__ndarray_class__" in value else value
