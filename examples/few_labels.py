"""Few labels and many images: self-training on embeddings that were computed once.

Only four images of each class have a label, as after an afternoon of labelling; scikit-learn marks
the rest with -1. The head labels the images it is confident about, is fitted again, and repeats.

Usage: python examples/few_labels.py [FOLDER]
"""

import numpy as np
from digits import image_folder
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from featx import FeatureExtractor, load_image_folder

folder = load_image_folder(image_folder())
y = LabelEncoder().fit_transform(folder.target)
X, test, y, y_test = train_test_split(folder.data, y, test_size=0.25, stratify=y, random_state=0)
rng = np.random.default_rng(0)
labeled = np.concatenate([rng.permutation(np.flatnonzero(y == label))[:4] for label in set(y)])
few = np.full(len(y), -1)
few[labeled] = y[labeled]

extractor = FeatureExtractor("tiny")
head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

all_rows = np.arange(len(y))
accuracy = {}
for name, last, rows, labels in [
    ("few labels", head, labeled, few),
    ("self-training", SelfTrainingClassifier(head, threshold=0.9), all_rows, few),
    ("all labels", head, all_rows, y),
]:
    model = make_pipeline(extractor, clone(last)).fit(X[rows], labels[rows])
    accuracy[name] = model.score(test, y_test)
    print(f"{name:13}  accuracy {accuracy[name]:.3f}")
    if name == "self-training":
        n_more = int((model[-1].labeled_iter_ > 0).sum())
        print(f"{'':13}  {len(labeled)} labels of {len(y)}, {n_more} more from the head")
