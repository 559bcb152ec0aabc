"""Clients of openpi and GR00T against small servers that speak the published protocols; policies of one's own."""

import threading
import time

import msgpack
import numpy as np
import pytest
import zmq
from scipy.spatial.transform import Rotation
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from persistworld.policies import groot, openpi
from persistworld.policies.policy import Still, Wander
from persistworld.policies.remote import RemoteConfig, fitted, rows
from persistworld.policies.shipped import find_policy
from persistworld.runtime.errors import UserError

POSE = np.array([0.4, 0.1, 0.3, 3.1, 0.1, -0.2, 0.3])
OBSERVATION = {
    "views": {view: np.full((32, 48, 3), 40 * k, np.uint8) for k, view in enumerate(("exterior_1", "exterior_2", "wrist"), 1)},
    "pose": POSE,
    "joints": np.linspace(-1, 1, 7),
    "instruction": "put the red cube in the bowl",
}
QUICK = RemoteConfig(timeout=0.5)
# What openpi_client 0.1.2 makes of {"a": float32 (2, 3) 0..5, "s": float64 1.5, "p": "x", "n": {"u": uint8 [[1]]}}.
OPENPI_BYTES = bytes.fromhex(
    "84a16184c40b5f5f6e6461727261795f5fc3c40464617461c418000000000000803f0000004000004040000080400000a040c4056474797065a33c6634c4057368"
    "617065920203a173cb3ff8000000000000a170a178a16e81a17584c40b5f5f6e6461727261795f5fc3c40464617461c40101c4056474797065a37c7531c4057368"
    "617065920101"
)


class OpenPiServer:
    """Metadata first; then `answers` in turn: a dict, a string (an error, after which it closes), None (it closes), seconds of silence, or
    raw bytes."""

    def __init__(self, *answers, metadata=None):
        self.answers, self.metadata, self.seen = list(answers), {"policy": "test"} if metadata is None else metadata, []
        self.server = serve(self.handle, "127.0.0.1", 0, compression=None, max_size=None)
        self.address = f"127.0.0.1:{self.server.socket.getsockname()[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, connection):
        try:
            connection.send(self.metadata if isinstance(self.metadata, bytes | str) else openpi.pack(self.metadata))
            while True:
                request = openpi.unpack(connection.recv())
                answer = self.answers.pop(0)
                if answer is None:
                    return
                self.seen.append(request)
                if isinstance(answer, float):
                    time.sleep(answer)
                    continue
                connection.send(openpi.pack(answer) if isinstance(answer, dict) else answer)
                if isinstance(answer, str):
                    return
        except ConnectionClosed:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def plan(horizon=15, numbers=8, value=0.5):
    return {"actions": np.full((horizon, numbers), value), "server_timing": {"infer_ms": np.float64(1.0)}}


def test_bytes_are_those_of_openpis_client():
    value = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "s": np.float64(1.5), "p": "x", "n": {"u": np.array([[1]], np.uint8)}}
    assert openpi.pack(value) == OPENPI_BYTES
    assert np.array_equal(openpi.unpack(OPENPI_BYTES)["a"], value["a"])


def test_arrays_that_could_run_code_are_not_read():
    hostile = msgpack.packb({b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "|O", b"shape": [1]})
    with pytest.raises(ValueError):
        openpi.unpack(hostile)
    with pytest.raises(ValueError):
        groot.unpack(msgpack.packb({"__ndarray_class__": True, "as_npy": b"\x80\x04K\x01."}))  # a pickle


def test_openpi_gets_droids_keys_and_gives_joint_velocities():
    steps = np.linspace(-2, 2, 15)[:, None] * np.ones(8)
    with OpenPiServer({"actions": steps}) as server:
        policy = openpi.OpenPi(server.address)
        action = policy.act(OBSERVATION)
        policy.close()
    assert policy.metadata == {"policy": "test"} and (policy.kind, policy.rate) == ("joint_velocity", 15.0)
    seen = server.seen[0]
    assert {key: np.shape(value) for key, value in seen.items()} == {
        "observation/exterior_image_1_left": (224, 224, 3), "observation/wrist_image_left": (224, 224, 3),
        "observation/joint_position": (7,), "observation/gripper_position": (1,), "prompt": (),
    }  # fmt: skip
    assert seen["observation/wrist_image_left"].dtype == np.uint8 and seen["prompt"] == OBSERVATION["instruction"]
    assert seen["observation/gripper_position"][0] == pytest.approx(0.3)
    assert action.shape == (12, 8) and np.allclose(action[:, :7], np.clip(steps[:12, :7], -1, 1) * 3.0)
    assert np.array_equal(action[:, 7], steps[:12, 7] > 0.5)


def test_views_and_sizes_are_configuration():
    config = RemoteConfig(views={"observation/image": "exterior_2"}, height=96, width=64)
    with OpenPiServer(plan()) as server:
        policy = openpi.OpenPi(server.address, config)
        policy.act(OBSERVATION)
        policy.close()
    assert server.seen[0]["observation/image"].shape == (96, 64, 3) and server.seen[0]["observation/image"].max() == 80
    with pytest.raises(UserError, match="top"), OpenPiServer(plan()) as server:
        openpi.OpenPi(server.address, RemoteConfig(views={"image": "top"})).act(OBSERVATION)


def test_a_short_horizon_repeats_its_last_action():
    with OpenPiServer({"actions": np.arange(10)[:, None] / 10 * np.ones(8)}) as server:
        assert np.allclose(openpi.OpenPi(server.address).act(OBSERVATION)[9:, 0], 2.7)


@pytest.mark.parametrize(
    "answer, named",
    [
        ("Traceback (most recent call last):\n  File x\nKeyError: 'observation/state'\n", "KeyError"),
        (plan(numbers=7), "8"),
        (plan(value=np.nan), "finite"),
        ({"action": np.zeros((10, 8))}, "actions"),
        ({"actions": "soon"}, "actions"),
        (b"\xc1", "msgpack"),
        (openpi.pack([1, 2]), "list"),
        (1.0, "0.5 s"),
    ],
    ids=["error string", "numbers", "nan", "key", "type", "no msgpack", "no dict", "time-out"],
)
def test_what_an_openpi_server_does_wrong_is_told_in_a_line(answer, named):
    with OpenPiServer(answer) as server, pytest.raises(UserError, match=named) as caught:
        openpi.OpenPi(server.address, QUICK).act(OBSERVATION)
    assert server.address in str(caught.value) and "\n" not in str(caught.value)


def test_a_lost_connection_is_made_again_and_errors_leave_a_usable_client():
    with OpenPiServer(plan(), None, plan(), "ValueError: no", plan()) as server:
        policy = openpi.OpenPi(server.address, QUICK)
        policy.act(OBSERVATION)
        policy.act(OBSERVATION)  # the server closes in between
        with pytest.raises(UserError):
            policy.act(OBSERVATION)
        policy.act(OBSERVATION)
        policy.close()
    assert len(server.seen) == 4
    with OpenPiServer(None, None) as server, pytest.raises(UserError):
        openpi.OpenPi(server.address, QUICK).act(OBSERVATION)


@pytest.mark.parametrize("metadata", [b"\xc1", "RuntimeError: no model"])
def test_a_server_that_does_not_greet(metadata):
    with OpenPiServer(metadata=metadata) as server, pytest.raises(UserError, match=server.address):
        openpi.OpenPi(server.address, QUICK)


def test_nobody_there(unused_address):
    with pytest.raises(UserError, match=unused_address):
        openpi.OpenPi(unused_address, QUICK)
    with pytest.raises(UserError, match=unused_address):
        groot.Groot(unused_address, RemoteConfig(timeout=0.1))


@pytest.fixture
def unused_address():
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    return f"127.0.0.1:{port}"


def test_openpi_needs_joints():
    with OpenPiServer() as server, pytest.raises(UserError, match="joints"):
        openpi.OpenPi(server.address).act({key: value for key, value in OBSERVATION.items() if key != "joints"})


class GrootServer:
    """Answers pings, and get_action with `answers` in turn: a dict, raw bytes, or seconds of silence."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REP)
        self.address = "127.0.0.1:" + str(self.socket.bind_to_random_port("tcp://127.0.0.1"))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.over = False
        self.thread.start()

    def run(self):
        while not self.over:
            if not self.socket.poll(20):
                continue
            request = groot.unpack(self.socket.recv())
            if request["endpoint"] == "ping":
                self.socket.send(msgpack.packb({"status": "ok"}))
                continue
            self.seen.append(request)
            answer = self.answers.pop(0)
            if isinstance(answer, float):
                time.sleep(answer)
                answer = {}
            self.socket.send(answer if isinstance(answer, bytes) else groot.pack(answer))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()
        self.socket.close(0)
        self.context.term()


def steps(horizon=16):
    return {
        "action.eef_position_delta": np.tile([0.01, 0.0, -0.02], (horizon, 1)),
        "action.eef_rotation_delta": np.tile([0.0, 0.0, 0.1], (horizon, 1)),
        "action.gripper_position": np.linspace(0, 1.5, horizon),
    }


def test_groot_gets_its_keys_and_gives_relative_poses():
    with GrootServer(steps()) as server:
        policy = groot.Groot(server.address)
        action = policy.act(OBSERVATION)
        policy.close()
    request = server.seen[0]
    assert request["endpoint"] == "get_action" and policy.kind == "relative"
    data = request["data"]
    assert data["video.wrist_image"].shape == (1, 224, 224, 3)
    assert data["annotation.language.language_instruction"] == [OBSERVATION["instruction"]]
    assert np.allclose(np.concatenate([data[f"state.{part}"][0] for part in ("eef_position", "eef_rotation", "gripper_position")]), POSE)
    assert np.allclose(action[:, :3], np.array([3, 6, 9, 12])[:, None] * [0.01, 0.0, -0.02])
    assert np.allclose(Rotation.from_euler("xyz", action[:, 3:6]).as_rotvec()[:, 2], [0.3, 0.6, 0.9, 1.2])
    assert np.allclose(action[:, 6], [0.2, 0.5, 0.8, 1.0])


@pytest.mark.parametrize(
    "answer, named",
    [
        ({"error": "Unknown endpoint: get_action"}, "Unknown endpoint"),
        ({"action.left_arm": np.zeros((16, 7))}, "eef_position_delta"),
        (steps() | {"action.eef_position_delta": np.zeros((16, 7))}, "eef_position_delta"),
        (groot.pack([{}, {}]), "list"),
        (b"\xc1", "msgpack"),
    ],
    ids=["error", "key", "shape", "list", "no msgpack"],
)
def test_what_a_groot_service_does_wrong_is_told_in_a_line(answer, named):
    with GrootServer(answer) as server:
        policy = groot.Groot(server.address)
        with pytest.raises(UserError, match=named) as caught:
            policy.act(OBSERVATION)
        policy.close()
    assert server.address in str(caught.value)


def test_groot_asks_again_after_a_time_out():
    with GrootServer(0.4, steps()) as server:
        policy = groot.Groot(server.address, RemoteConfig(timeout=0.3))
        assert policy.act(OBSERVATION).shape == (4, 7)
        policy.close()
    with GrootServer(0.3, 0.3) as server:
        policy = groot.Groot(server.address, RemoteConfig(timeout=0.1))
        with pytest.raises(UserError, match=r"0\.1 s"):
            policy.act(OBSERVATION)
        policy.close()


def test_pictures_keep_their_proportions():
    shown = fitted(np.full((32, 48, 3), 200, np.uint8), 224, 224)
    assert shown.shape == (224, 224, 3) and (shown[37:186] == 200).all() and not shown[:37].any() and not shown[186:].any()


def test_rows_take_a_batch_of_one():
    assert rows({"a": np.zeros((1, 5, 3))}, "a", 3, 4, "x").shape == (4, 3)


def test_impossible_configuration_is_refused():
    with pytest.raises(UserError, match="rate"):
        RemoteConfig(rate=12.0).check()
    with pytest.raises(UserError, match="height"):
        RemoteConfig(height=0).check()


def test_policies_of_the_package_and_of_ones_own(tmp_path, monkeypatch):
    assert isinstance(find_policy("still"), Still)
    wander = find_policy("wander")
    wander.reset(3)
    first = wander.act(OBSERVATION)
    wander.reset(3)
    assert isinstance(wander, Wander) and np.array_equal(wander.act(OBSERVATION), first)
    lines = ("from persistworld.policies.policy import Still as Mine", "class Half:", "    kind = 'absolute'")
    (tmp_path / "mine_for_this_test.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_policy("mine_for_this_test:Mine"), Still)
    for name in ("mine_for_this_test:Half", "mine_for_this_test:Nobody", "no_such_module:Mine", "nobody"):
        with pytest.raises(UserError):
            find_policy(name)
