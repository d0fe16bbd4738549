"""Augmented views of each image for few labels: accuracy with an interval, and calibration.

Ten images of each class have a label. Digits are shifted and rotated a little, but not mirrored,
which would change them. Each augmented view goes through the network once, ever; the head trains on
all views of an image and predicts from their mean.

Usage: python examples/several_views.py [FOLDER]
"""

from digits import image_folder
from keras import layers
from sklearn.model_selection import train_test_split

from featx import FeatureExtractor, TransferClassifier, evaluate, load_image_folder

folder = load_image_folder(image_folder())
X, test, y, y_test = train_test_split(
    folder.data,
    folder.target,
    train_size=10 * len(folder.target_names),
    stratify=folder.target,
    random_state=0,
)
augment = [layers.RandomTranslation(0.08, 0.08), layers.RandomRotation(0.03)]

accuracy = {}
for n_views in (1, 6):
    extractor = FeatureExtractor("tiny", views=n_views, augment=augment if n_views > 1 else None)
    classifier = TransferClassifier(extractor, head="logistic").fit(X, y)
    proba = classifier.predict_proba(test)
    result = evaluate(y_test, classifier.predict(test), proba=proba, classes=classifier.classes_)
    accuracy[n_views] = result["accuracy"]
    low, high = result["intervals"]["accuracy"]
    print(
        f"{n_views} views  accuracy {accuracy[n_views]:.3f} ({low:.3f} to {high:.3f})  "
        f"calibration error {result['calibration']['error']:.3f}"
    )
