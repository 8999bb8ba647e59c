"""What other programs say of the pictures in this folder: the reference for tests/anatomy/read.

    python tests/support/data/make_references.py litert TFLITE_FOLDER       outputs of the four networks -> networks.npz
    python tests/support/data/make_references.py mediapipe TFLITE_FOLDER    both of MediaPipe's APIs -> mediapipe.json

TFLITE_FOLDER holds the four files that anatomy/NOTICE.md names. The first needs numpy, Pillow and ai-edge-litert; the
second mediapipe (0.10.21 was used), in an environment of its own, since it wants an older numpy.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
NETWORKS = {
    "palm_full": ("palm_detection_full.tflite", 192),
    "palm_lite": ("palm_detection_lite.tflite", 192),
    "landmarks_full": ("hand_landmark_full.tflite", 224),
    "landmarks_lite": ("hand_landmark_lite.tflite", 224),
}
CROPPED = ("nocurl.jpg", "render_0.png", "render_3.png")  # what the networks are shown, squeezed into their input
KEPT = 21  # of the palm network's 2016 boxes, every so many


def pictures(folder: Path = HERE) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def network_input(name: str, size: int) -> np.ndarray:
    """A picture of this folder, squeezed into (1, size, size, 3) float32 in [0, 1]."""
    picture = Image.open(HERE / name).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32)[None] / 255


def run_litert(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of a tflite file, in the order in which the file lists them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]


def litert(sources: Path) -> None:
    arrays = {}
    for name, (file, size) in NETWORKS.items():
        for picture in CROPPED:
            for i, output in enumerate(run_litert(sources / file, network_input(picture, size))):
                # The order of outputs that LiteRT gives is by name, not the file's: tests match them by size.
                arrays[f"{name}/{picture}/{i}"] = output[::KEPT] if output.shape == (2016, 18) else output
    np.savez_compressed(HERE / "networks.npz", **arrays)


def run_tasks(sources: Path, paths: list[Path]) -> dict[str, list[dict]]:
    """The hands that HandLandmarker finds in each picture: landmarks in pixels, world landmarks, "Left" or "Right"."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "hand.task"
        with zipfile.ZipFile(task, "w", zipfile.ZIP_STORED) as bundle:
            bundle.write(sources / "palm_detection_full.tflite", "hand_detector.tflite")
            bundle.write(sources / "hand_landmark_full.tflite", "hand_landmarks_detector.tflite")
        options = vision.HandLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(task)), num_hands=2)
        found = {}
        with vision.HandLandmarker.create_from_options(options) as landmarker:
            for path in paths:
                pixels = np.ascontiguousarray(Image.open(path).convert("RGB"))
                result = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels))
                height, width = pixels.shape[:2]
                found[path.name] = [
                    {
                        "points": [[p.x * width, p.y * height, p.z * width] for p in points],
                        "world": [[p.x, p.y, p.z] for p in world],
                        "side": side[0].category_name,
                        "score": side[0].score,
                    }
                    for points, world, side in zip(
                        result.hand_landmarks, result.hand_world_landmarks, result.handedness
                    )
                ]
    return found


def run_solutions(paths: list[Path]) -> dict[str, list[dict]]:
    """The same of MediaPipe's older API, whose "Left" and "Right" are those of a mirrored picture."""
    from mediapipe.python.solutions.hands import Hands

    found = {}
    with Hands(static_image_mode=True, max_num_hands=2, model_complexity=1) as hands:
        for path in paths:
            pixels = np.ascontiguousarray(Image.open(path).convert("RGB"))
            result = hands.process(pixels)
            height, width = pixels.shape[:2]
            found[path.name] = [
                {
                    "points": [[p.x * width, p.y * height, p.z * width] for p in points.landmark],
                    "world": [[p.x, p.y, p.z] for p in world.landmark],
                    "side": side.classification[0].label,
                    "score": side.classification[0].score,
                }
                for points, world, side in zip(
                    result.multi_hand_landmarks or [],
                    result.multi_hand_world_landmarks or [],
                    result.multi_handedness or [],
                )
            ]
    return found


def mediapipe_(sources: Path) -> None:
    found = {"tasks": run_tasks(sources, pictures()), "solutions": run_solutions(pictures())}
    (HERE / "mediapipe.json").write_text(json.dumps(_rounded(found)) + "\n")


def _rounded(value):
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {key: _rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    {"litert": litert, "mediapipe": mediapipe_}[sys.argv[1]](Path(sys.argv[2]))
