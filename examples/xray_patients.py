"""X-rays as DICOM files, several of each patient
==============================================

A reader turns DICOM files into images: it applies the window of each file, and inverts those in
which 0 is white. Here, each patient has several X-rays, and all of them show the same body. So the
folds keep the images of a patient together: a model that recognizes patients would look too good
otherwise. The X-rays are simulated; ``python examples/xray_patients.py FOLDER`` takes DICOM files
of your own, in one folder for each finding.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pydicom
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from featx import FeatureExtractor, TransferClassifier, report
from featx.readers import DicomReader

N_PATIENTS, N_IMAGES = 30, 4
RNG = np.random.default_rng(0)


def body():
    """Return smooth noise, which looks different in each patient."""
    return 1600 + 3000 * gaussian_filter(RNG.normal(size=(96, 96)), 6)


def xray(body, has_nodules):
    """Return an X-ray of a body, 12 bits, with bright nodules if there are any."""
    values = body + RNG.normal(0, 60, body.shape)
    nodules = np.zeros(body.shape)
    for row, column in RNG.integers(12, 84, (3 * has_nodules, 2)):
        nodules[row, column] = 9_000
    return np.clip(values + gaussian_filter(nodules, 2), 0, 4095).astype(np.uint16)


def write_dicom(path, values, patient, is_inverted):
    """Write an X-ray; in files of some devices, 0 is white."""
    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan.SOPClassUID, scan.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    scan.PatientID = patient
    scan.Rows, scan.Columns = values.shape
    scan.SamplesPerPixel, scan.PixelRepresentation = 1, 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
    scan.PhotometricInterpretation = "MONOCHROME1" if is_inverted else "MONOCHROME2"
    scan.WindowCenter, scan.WindowWidth = (2295, 3000) if is_inverted else (1800, 3000)
    scan.PixelData = (4095 - values if is_inverted else values).tobytes()
    scan.save_as(path, enforce_file_format=True)


def write_xrays(folder):
    """Write X-rays of all patients, in one folder for each finding."""
    for number in range(N_PATIENTS):
        has_nodules = number % 2
        place = folder / ("nodules" if has_nodules else "clear")
        place.mkdir(parents=True, exist_ok=True)
        shown = body()
        for image in range(N_IMAGES):
            path = place / f"{number:02}-{image}.dcm"
            write_dicom(
                path, xray(shown, has_nodules), f"P{number:02}", is_inverted=number % 3 == 0
            )


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "xrays")
if not folder.exists():
    write_xrays(folder)
paths = sorted(folder.glob("*/*.dcm"))
y = np.array([path.parent.name for path in paths])
patients = [pydicom.dcmread(path, stop_before_pixels=True).PatientID for path in paths]
print(f"{len(paths)} X-rays of {len(set(patients))} patients")

# %%
# The images as the backbone gets them:

reader = DicomReader()
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
for ax, row in zip(axes, np.linspace(0, len(paths) - 1, 6).astype(int), strict=True):
    ax.imshow(reader(paths[row].read_bytes()), cmap="gray", vmin=0, vmax=255)
    ax.set_title(f"{patients[row]}, {y[row]}")
    ax.axis("off")
plt.show()

# %%
# With ``groups``, no patient is in training and test at once. The difference between the two scores
# is what a model gains by recognizing patients.

classifier = TransferClassifier(FeatureExtractor("tiny", read=reader))
apart = StratifiedKFold(5, shuffle=True, random_state=0)
together = StratifiedGroupKFold(5, shuffle=True, random_state=0)
scores = {
    "patients in both parts": cross_val_score(classifier, paths, y, cv=apart),
    "patients kept together": cross_val_score(classifier, paths, y, cv=together, groups=patients),
}
figure, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
means = [score.mean() for score in scores.values()]
ax.bar_label(ax.barh(list(scores), means, color=["tab:red", "tab:blue"]), fmt="%.3f", padding=3)
ax.set(xlabel="accuracy", xlim=(0, 1.15))
plt.show()

# %%
# The report shows the mistakes as images. Its intervals take into account that the images of a
# patient may be right or wrong together.

found = report(classifier, paths, y, groups=patients, cv=5)
found.to_html("xrays.html")
print(found)
