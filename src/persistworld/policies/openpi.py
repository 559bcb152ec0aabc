"""A client of openpi's policy servers (pi0, pi0-FAST, pi0.5), with DROID's observation keys.

The protocol is a websocket with msgpack. The server first sends its metadata. Then each request is an observation, and each answer a dict
with `actions`. A text message is an error: the server's traceback. Arrays are sent as dicts with `__ndarray__`, `data`, `dtype` and
`shape`. (openpi's own client package requires numpy 1, with which the rest of this environment does not work.)
"""

import contextlib
from typing import Any

import numpy as np

from persistworld.policies.remote import RemoteConfig, line_of, pictures, rows
from persistworld.robot.actions import Kind
from persistworld.robot.kinematics import JOINTS
from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError

try:
    import msgpack
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
    from websockets.sync.client import ClientConnection, connect
except ModuleNotFoundError as error:
    raise UserError(f"policies on a server need the package {error.name}: pip install 'persistworld[policies]'") from None

PORT = 8000
VIEWS = {"observation/exterior_image_1_left": "exterior_1", "observation/wrist_image_left": "wrist"}
NO_CODE = "OVc"  # numpy kinds that are not sent: objects, records, complex numbers


class OpenPi:
    """A policy whose actions are DROID's: seven joint velocities in -1..1 and the gripper; more than half closed counts as closed."""

    kind: Kind = "joint_velocity"

    def __init__(self, address: str, config: RemoteConfig | None = None) -> None:
        """address: host, host:port or a ws:// or wss:// address. Connects, and reads the server's metadata.

        Raises UserError if nothing answers there, or if the answer does not follow the protocol.
        """
        self.config = config or RemoteConfig()
        self.config.check()
        self.rate = self.config.rate
        plain = address if "://" in address else f"ws://{address}"
        self.address = plain if "://" in address or ":" in address.partition("/")[0] else f"{plain}:{PORT}"
        self._connection: ClientConnection | None = None
        self._held = contextlib.ExitStack()  # what closes the connection
        self.metadata: dict[str, Any] = self._connect()

    def reset(self, seed: int) -> None:
        """Nothing to do: the server keeps no state between requests, and clients cannot seed its noise."""

    def act(self, observation: Observation) -> np.ndarray:
        """(actions a chunk, 8): joint velocities in rad/s and the gripper. Raises UserError for no answer or an invalid one."""
        if "joints" not in observation:
            raise UserError("openpi: its DROID policies need a Panda's joints, which the start does not have; start in another data set")
        config = self.config
        request: dict[str, Any] = pictures(observation, config.views or VIEWS, config.height, config.width)
        request["observation/joint_position"] = observation["joints"].astype(np.float32)
        request["observation/gripper_position"] = observation["pose"][6:7].astype(np.float32)
        request["prompt"] = observation["instruction"]
        found = rows(self._infer(request), "actions", JOINTS + 1, config.actions, self.address)
        velocities = np.clip(found[:, :JOINTS], -1, 1) * config.velocity
        return np.concatenate([velocities, found[:, JOINTS:] > 0.5], axis=1)

    def _infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The server's answer. If the connection was lost since the last request, reconnect once."""
        packed = pack(request)
        for last in (False, True):
            try:
                self._connection.send(packed)
                answer = self._connection.recv(timeout=self.config.timeout)
            except TimeoutError:
                self.close()
                wait = f"{self.config.timeout:g} s"
                raise UserError(f"{self.address}: no answer within {wait}; raise config.timeout, or look at the server") from None
            except ConnectionClosed as error:
                if last:
                    raise UserError(f"{self.address}: the server closes the connection ({line_of(error)}); look at its log") from None
                self._connect()
                continue
            if isinstance(answer, str):
                self._connect()  # a server closes the connection after an error
                raise UserError(f"{self.address}: the server reports: {line_of(answer)}")
            return self._unpacked(answer)
        raise AssertionError("unreachable")

    def _connect(self) -> dict[str, Any]:
        self.close()
        wait = self.config.timeout
        try:
            opened = connect(self.address, open_timeout=wait, close_timeout=1, max_size=None, compression=None)
            self._connection = self._held.enter_context(opened)
            metadata = self._connection.recv(timeout=wait)
        except (InvalidURI, InvalidHandshake) as error:
            raise UserError(f"{self.address}: no websocket server there ({line_of(error)}); is the address right?") from None
        except (TimeoutError, ConnectionClosed) as error:
            raise UserError(f"{self.address}: is not an openpi server ({line_of(error)}); is the address right?") from None
        except OSError as error:
            raise UserError(f"{self.address}: cannot be reached ({error.strerror or line_of(error)}); is the server running?") from None
        if isinstance(metadata, str):
            raise UserError(f"{self.address}: the server reports: {line_of(metadata)}")
        return self._unpacked(metadata)

    def _unpacked(self, message: bytes) -> dict[str, Any]:
        try:
            found = unpack(message)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise UserError(f"{self.address}: its message is not msgpack ({line_of(error)}); is it an openpi server?") from None
        if not isinstance(found, dict):
            raise UserError(f"{self.address}: its message is a {type(found).__name__}, expected a dict; is it an openpi server?")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._held.close()


def pack(value: Any) -> bytes:
    """msgpack with numpy arrays and scalars as openpi writes them. Raises TypeError for types that openpi does not send."""
    return msgpack.packb(value, default=_packed)


def unpack(message: bytes) -> Any:
    """Reverse of `pack`."""
    return msgpack.unpackb(message, object_hook=_unpacked)


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in NO_CODE:
        raise TypeError(f"arrays of {value.dtype} are not sent")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} is not sent")


def _unpacked(value: dict) -> Any:
    if b"__ndarray__" in value:
        kind = np.dtype(value[b"dtype"])
        if kind.kind in NO_CODE:
            raise ValueError(f"an array of {kind} is not read")
        return np.frombuffer(value[b"data"], kind).reshape(value[b"shape"])
    if b"__npgeneric__" in value:
        return np.dtype(value[b"dtype"]).type(value[b"data"])
    return value
