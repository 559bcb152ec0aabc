"""The simulated scene in PyBullet: the table, the Franka Panda, the objects on the table and the three cameras.

Each `Scene` has its own PyBullet client. Episodes share nothing, so that an episode's bytes do not depend on earlier
episodes. Lengths are in m, angles in rad. The table top is at z = 0, the robot's base at the origin.
"""

import math
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pybullet
import pybullet_data

from persistworld.data.episodes import BACKGROUND, MANIPULATED_OBJECT, ROBOT
from persistworld.simulator.grasping import CLEAR, PAD, SLIP_PATH, is_weak, landed, opposed
from persistworld.simulator.tasks import COLOURS, CONTAINER_COLOURS, Task, Thing

ARM = range(7)
HAND, FINGERS, FINGERTIP = 8, (9, 10), 11  # link indices in pybullet_data's panda.urdf; 11 lies between the fingertips
PHYSICS_STEP = 1 / 120  # s
REST = (0.0, -0.35, 0.0, -2.5, 0.0, 2.15, 0.785)
LOWER, UPPER = (-2.9, -1.76, -2.9, -3.07, -2.9, 0.0, -2.9), (2.9, 1.76, 2.9, -0.07, 2.9, 3.75, 2.9)
FINGER_TRAVEL = 0.04  # m, per finger
SUPERSAMPLING = 2  # images are rendered at this multiple of their size and averaged, because the renderer has no antialiasing
LINK_COLOURS = {HAND: (0.28, 0.29, 0.31), 9: (0.12, 0.12, 0.13), 10: (0.12, 0.12, 0.13), 6: (0.55, 0.56, 0.58)}


@cache
def _panda_urdf() -> str:
    """The Panda's URDF with its collision meshes as visual meshes: the same outline in a sixth of the rendering time."""
    meshes = Path(pybullet_data.getDataPath(), "franka_panda")
    text = (meshes / "panda.urdf").read_text().replace("meshes/visual/", "meshes/collision/")
    return text.replace("package://meshes", str(meshes / "meshes"))


class Scene:
    """A new simulation of `task`. Colours, light, cameras, and when weak holds slip are drawn from `rng`. Close it after use."""

    def __init__(self, task: Task, rng: np.random.Generator, height: int, width: int):
        self.height, self.width = height, width
        self.client = pybullet.connect(pybullet.DIRECT)
        self._grasp: int | None = None
        self._loose = False  # the object slipped or was knocked: the hand cannot hold it before it has risen above it, open
        self._slip_path, self._tip = math.inf, np.zeros(3)  # how far (m) the fingertips still go until it slips, and where they are
        self._call(pybullet.setPhysicsEngineParameter, fixedTimeStep=PHYSICS_STEP, deterministicOverlappingPairs=1)
        self._call(pybullet.setGravity, 0, 0, -9.81)
        with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
            file.write(_panda_urdf())
            file.flush()
            self.robot = self._call(pybullet.loadURDF, file.name, useFixedBase=True)
        undamped = {"linearDamping": 0, "angularDamping": 0, "lateralFriction": 1.0}
        for link in range(-1, 12):
            self._call(pybullet.changeDynamics, self.robot, link, **undamped)
            colour = LINK_COLOURS.get(link, (0.95, 0.95, 0.95))
            self._call(pybullet.changeVisualShape, self.robot, link, rgbaColor=(*colour, 1))
        for finger in FINGERS:
            self._call(pybullet.changeDynamics, self.robot, finger, lateralFriction=0.0, spinningFriction=0.0, frictionAnchor=0)
        self._look(rng)
        self._chance = np.random.default_rng(rng.integers(1 << 62))
        self._table()
        self.thing, self.object = task.object, self._thing(task.object)
        self._container(task.goal)
        if task.distractor:
            self._thing(task.distractor)

    def close(self) -> None:
        """Free the simulation."""
        pybullet.disconnect(self.client)

    def _call(self, function, *args, **kwargs):
        return function(*args, physicsClientId=self.client, **kwargs)

    # the table and the objects on it -----------------------------------------------------------------------------

    def _table(self) -> None:
        half = (0.75, 1.0, 0.02)
        shape = self._call(pybullet.createCollisionShape, pybullet.GEOM_BOX, halfExtents=half)
        colour = (*self._table_colour, 1)
        look = self._call(pybullet.createVisualShape, pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour)
        table = self._call(pybullet.createMultiBody, 0, shape, look, (0.35, 0, -half[2]))
        self._call(pybullet.changeDynamics, table, -1, lateralFriction=0.8)

    def _thing(self, thing: Thing) -> int:
        sizes = {
            "cube": (pybullet.GEOM_BOX, {"halfExtents": (thing.half, thing.half, thing.half_height)}),
            "ball": (pybullet.GEOM_SPHERE, {"radius": thing.half}),
            "cylinder": (pybullet.GEOM_CYLINDER, {"radius": thing.half}),
        }
        kind, size = sizes[thing.shape]
        tall = {"height": 2 * thing.half_height} if thing.shape == "cylinder" else {}
        shape = self._call(pybullet.createCollisionShape, kind, **size, **tall)
        long = {"length": 2 * thing.half_height} if thing.shape == "cylinder" else {}
        look = self._call(pybullet.createVisualShape, kind, **size, **long, rgbaColor=(*COLOURS[thing.colour], 1))
        turn = pybullet.getQuaternionFromEuler((0, 0, thing.yaw))
        body = self._call(pybullet.createMultiBody, 0.08, shape, look, (*thing.xy, thing.half_height + 0.001), turn)
        self._call(
            pybullet.changeDynamics, body, -1, lateralFriction=0.7, rollingFriction=0.002, spinningFriction=0.002,
            linearDamping=0.2, angularDamping=0.4,
        )  # fmt: skip
        return body

    def _container(self, thing: Thing) -> None:
        """A bowl, tray or block, fixed to the table, made of boxes."""
        colour = (*CONTAINER_COLOURS[thing.colour], 1)
        inner, boxes = thing.half, []
        if thing.shape == "block":
            boxes.append(((inner, inner, thing.half_height), (0, 0, thing.half_height), 0.0, 0.0))
        else:
            sides = 4 if thing.shape == "tray" else 10
            wall, lean = (0.018, 0.0) if thing.shape == "tray" else (0.024, 0.5)
            floor = inner if thing.shape == "tray" else 0.62 * inner
            boxes.append(((floor, floor, 0.004), (0, 0, 0.004), 0.0, 0.0))
            for k in range(sides):
                angle = 2 * math.pi * k / sides
                length = inner * math.tan(math.pi / sides) + 0.003
                reach = inner - (0 if thing.shape == "tray" else wall * math.sin(lean) - 0.004)
                place = (reach * math.cos(angle), reach * math.sin(angle), wall * math.cos(lean) + 0.001)
                boxes.append(((0.0035, length, wall), place, lean, angle))
        halves = [b[0] for b in boxes]
        places = [b[1] for b in boxes]
        turns = [pybullet.getQuaternionFromEuler((0, b[2], b[3])) for b in boxes]
        kinds = [pybullet.GEOM_BOX] * len(boxes)
        shape = self._call(
            pybullet.createCollisionShapeArray, kinds, halfExtents=halves,
            collisionFramePositions=places, collisionFrameOrientations=turns,
        )  # fmt: skip
        look = self._call(
            pybullet.createVisualShapeArray, kinds, halfExtents=halves, rgbaColors=[colour] * len(boxes),
            visualFramePositions=places, visualFrameOrientations=turns,
        )  # fmt: skip
        turn = pybullet.getQuaternionFromEuler((0, 0, thing.yaw))
        body = self._call(pybullet.createMultiBody, 0, shape, look, (*thing.xy, 0), turn)
        self._call(pybullet.changeDynamics, body, -1, lateralFriction=0.8)

    # the robot ---------------------------------------------------------------------------------------------------

    def place_arm(self, position, euler, gripper: float) -> None:
        """Set the arm to a fingertip pose without simulating the motion (for the start of an episode)."""
        for joint, angle in zip(ARM, REST, strict=True):
            self._call(pybullet.resetJointState, self.robot, joint, angle)
        for _ in range(20):  # each call refines the solution of the last one
            for joint, angle in zip(ARM, self._inverse(position, euler), strict=True):
                self._call(pybullet.resetJointState, self.robot, joint, angle)
        for finger in FINGERS:
            self._call(pybullet.resetJointState, self.robot, finger, FINGER_TRAVEL * (1 - gripper))

    def _inverse(self, position, euler) -> tuple[float, ...]:
        return self._call(
            pybullet.calculateInverseKinematics, self.robot, FINGERTIP, position,
            pybullet.getQuaternionFromEuler(euler), lowerLimits=LOWER, upperLimits=UPPER,
            jointRanges=[u - b for b, u in zip(LOWER, UPPER, strict=True)],
            restPoses=REST, maxNumIterations=40, residualThreshold=1e-5,
        )[:7]  # fmt: skip

    def command(self, position, euler, gripper: float) -> None:
        """Command the arm towards a fingertip pose.

        Closing the gripper (`gripper` 0..1) on the object holds it as simulator/grasping.py says; opening releases it.
        """
        self._call(
            pybullet.setJointMotorControlArray, self.robot, list(ARM), pybullet.POSITION_CONTROL,
            targetPositions=self._inverse(position, euler), forces=[400] * 7, positionGains=[0.25] * 7,
        )  # fmt: skip
        for finger in FINGERS:
            self._call(
                pybullet.setJointMotorControl2, self.robot, finger, pybullet.POSITION_CONTROL,
                targetPosition=FINGER_TRAVEL * (1 - gripper), force=15, maxVelocity=0.15,
            )  # fmt: skip
        if gripper < 0.5:
            self._release()
            self._watch_open_hand()
        elif self._grasp is not None:
            self._slip()
        elif gripper > 0.5 and not self._loose:
            self._try_to_hold()

    def _object(self) -> tuple[np.ndarray, np.ndarray]:
        """The object's centre (3,), and its axes (3, 3) in columns."""
        centre, turn = self._call(pybullet.getBasePositionAndOrientation, self.object)
        return np.array(centre), np.array(pybullet.getMatrixFromQuaternion(turn)).reshape(3, 3)

    def _hand(self) -> tuple[np.ndarray, np.ndarray]:
        """The fingertips' position (3,), and the hand's axes (3, 3) in columns; the fingers close along the second."""
        place, turn = self._call(pybullet.getLinkState, self.robot, FINGERTIP, computeForwardKinematics=1)[4:6]
        return np.array(place), np.array(pybullet.getMatrixFromQuaternion(turn)).reshape(3, 3)

    def _try_to_hold(self) -> None:
        """When both fingers touch the object: hold it if their contacts are opposed; otherwise it is loose."""
        found = [self._call(pybullet.getContactPoints, self.robot, self.object, finger) for finger in FINGERS]
        if not all(found):
            return
        centre, axes = self._object()
        first, second = ((np.array([contact[6] for contact in each]) - centre) @ axes for each in found)  # [6]: the place on the object
        tip, hand = self._hand()
        sideways, closing, _ = hand.T
        if opposed(self.thing, first, second, closing @ axes):
            self._take_hold()
            weak = is_weak(self.thing, float(sideways @ (tip - centre)))
            self._slip_path, self._tip = float(self._chance.uniform(*SLIP_PATH)) if weak else math.inf, tip
        else:
            self._loose = True

    def _watch_open_hand(self) -> None:
        """Notice fingers that come down on the object, and that they have risen above it again."""
        centre, axes = self._object()
        tip, hand = self._hand()
        if self._loose:
            self._loose = tip[2] < centre[2] + self.thing.half_height + CLEAR
            return
        if np.linalg.norm(tip - centre) > 0.15:  # far off
            return
        spread = [self._call(pybullet.getJointState, self.robot, finger)[0] * sign for finger, sign in zip(FINGERS, (1, -1), strict=True)]
        edges = [tip + across * hand[:, 0] + along * hand[:, 1] for along in spread for across in (-PAD, 0.0, PAD)]
        self._loose = landed(self.thing, (np.array(edges) - centre) @ axes, axes[2])

    def _slip(self) -> None:
        """Let a weak hold go when the fingertips have moved far enough."""
        if self._slip_path == math.inf:
            return
        tip = self._hand()[0]
        self._slip_path -= float(np.linalg.norm(tip - self._tip))
        self._tip = tip
        if self._slip_path <= 0:
            self._release()
            self._loose = True

    def _release(self) -> None:
        if self._grasp is not None:
            self._call(pybullet.removeConstraint, self._grasp)
            self._grasp = None

    def _take_hold(self) -> None:
        """Attach the object to the hand at its current pose, because with friction only, the hand loses it at this step size."""
        hand = self._call(pybullet.getLinkState, self.robot, HAND)[4:6]
        thing = self._call(pybullet.getBasePositionAndOrientation, self.object)
        place, turn = pybullet.multiplyTransforms(*pybullet.invertTransform(*hand), *thing)
        hand_to_frame = self._call(pybullet.getLinkState, self.robot, HAND)[2:4]
        place, turn = pybullet.multiplyTransforms(*pybullet.invertTransform(*hand_to_frame), place, turn)
        self._grasp = self._call(
            pybullet.createConstraint, self.robot, HAND, self.object, -1, pybullet.JOINT_FIXED, (0, 0, 0),
            place, (0, 0, 0), turn,
        )  # fmt: skip
        self._call(pybullet.changeConstraint, self._grasp, maxForce=100)

    @property
    def holding(self) -> bool:
        """Whether the hand holds the object."""
        return self._grasp is not None

    def step(self, count: int) -> None:
        """Advance the physics by `count` steps of PHYSICS_STEP."""
        for _ in range(count):
            self._call(pybullet.stepSimulation)

    def object_pose(self) -> tuple[np.ndarray, float]:
        """Position (3,) in m and yaw in rad of the manipulated object."""
        place, turn = self._call(pybullet.getBasePositionAndOrientation, self.object)
        return np.array(place), pybullet.getEulerFromQuaternion(turn)[2]

    def robot_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Pose (7,): fingertip x y z (m), Euler xyz (rad), gripper 0..1; and joint angles (7,) in rad."""
        place, turn = self._call(pybullet.getLinkState, self.robot, FINGERTIP, computeForwardKinematics=1)[4:6]
        joints = [self._call(pybullet.getJointState, self.robot, joint)[0] for joint in (*ARM, *FINGERS)]
        gripper = float(np.clip(1 - sum(joints[7:]) / (2 * FINGER_TRAVEL), 0, 1))
        return np.array([*place, *pybullet.getEulerFromQuaternion(turn), gripper]), np.array(joints[:7])

    # the cameras -------------------------------------------------------------------------------------------------

    def _look(self, rng: np.random.Generator) -> None:
        """Draw colours, light and camera jitter of this episode."""
        self._table_colour = np.clip(rng.uniform(0.35, 0.75) + rng.uniform(-0.07, 0.07, 3), 0, 1)
        self._wall_colour = np.clip(rng.uniform(0.45, 0.85) + rng.uniform(-0.12, 0.12, 3), 0, 1) * 255
        self._light = {
            "lightDirection": [float(v) for v in (rng.uniform(0.2, 1.2), rng.uniform(-1, 1), rng.uniform(1.0, 2.0))],
            "lightAmbientCoeff": float(rng.uniform(0.5, 0.65)),
            "lightDiffuseCoeff": float(rng.uniform(0.4, 0.55)),
            "lightSpecularCoeff": 0.05,
        }
        self._external = []
        for side in (1, -1):
            eye = np.array([0.98, 0.50 * side, 0.46]) + rng.uniform(-0.025, 0.025, 3)
            aim = np.array([0.46, 0.0, 0.12]) + rng.uniform(-0.012, 0.012, 3)
            view = pybullet.computeViewMatrix(eye.tolist(), aim.tolist(), (0, 0, 1))
            self._external.append((view, self._projection(34 + float(rng.uniform(-1, 1)))))
        self._wrist_eye = np.array([0.11, 0.0, -0.03]) + rng.uniform(-0.003, 0.003, 3)
        self._wrist_tilt = math.radians(18 + float(rng.uniform(-1, 1)))

    def _projection(self, degrees: float) -> tuple[float, ...]:
        return pybullet.computeProjectionMatrixFOV(degrees, self.width / self.height, 0.02, 4.0)

    def _wrist_camera(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """View and projection matrix of the wrist camera. It is mounted in front of the hand and looks down past the fingertips. The
        robot's forward direction points up in the image."""
        place, turn = self._call(pybullet.getLinkState, self.robot, HAND, computeForwardKinematics=1)[4:6]
        turn = np.array(pybullet.getMatrixFromQuaternion(turn)).reshape(3, 3)
        eye = np.array(place) + turn @ self._wrist_eye
        ahead = turn @ np.array([-math.sin(self._wrist_tilt), 0.0, math.cos(self._wrist_tilt)])
        view = pybullet.computeViewMatrix(eye.tolist(), (eye + ahead).tolist(), (turn @ np.array([1.0, 0, 0])).tolist())
        return view, self._projection(72)

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Render all views: images (3, H, W, 3) uint8 in the order of VIEWS, and masks (3, H, W) uint8."""
        views = [self._picture(*camera) for camera in (*self._external, self._wrist_camera())]
        return np.stack([v[0] for v in views]), np.stack([v[1] for v in views])

    def _picture(self, view: tuple[float, ...], projection: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        n, height, width = SUPERSAMPLING, self.height, self.width
        image = self._call(
            pybullet.getCameraImage, n * width, n * height, view, projection, shadow=0, **self._light,
            renderer=pybullet.ER_TINY_RENDERER,
        )  # fmt: skip
        colour = np.reshape(np.asarray(image[2], dtype=np.uint8), (n * height, n * width, 4))
        colour = colour[..., :3].astype(np.float32)
        body = np.reshape(np.asarray(image[4], dtype=np.int32), (n * height, n * width))
        colour[body < 0] = self._wall_colour  # a wall of one colour behind all bodies, at no rendering cost
        mask = np.full((height, width), BACKGROUND, np.uint8)
        for kind, seen in ((ROBOT, self.robot), (MANIPULATED_OBJECT, self.object)):  # in a tie, the object wins: it is smaller
            mask[_block_mean(body == seen, n) >= 0.5] = kind
        return np.round(_block_mean(colour, n)).astype(np.uint8), mask


def _block_mean(values: np.ndarray, n: int) -> np.ndarray:
    """Mean of (n H, n W, ...) over blocks of n x n pixels: (H, W, ...). Eight times as fast as numpy's mean over two axes at once."""
    rows = sum(values[i::n] for i in range(n))
    return sum(rows[:, i::n] for i in range(n)) / n**2
