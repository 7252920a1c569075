"""The data sets that vosformer knows: names, usual folders, expected layouts."""

from __future__ import annotations

from collections.abc import Sequence

from vosformer.data.datasets.layout import Layout, Reader
from vosformer.data.datasets.readers import (
    coco,
    davis,
    folder_videos,
    has_clips,
    has_pictures,
    own_stills,
    own_videos,
    saliency,
    vipseg,
    voc,
    youtube,
)

_FOLDERS = "JPEGImages/NAME/*.jpg and Annotations/NAME/*.png"
_PASCAL = ("datasets/imgs/pascal", "datasets/masks/pascal")
_DAVIS = ("DAVIS", "DAVIS2017", "DAVIS-2017", "DAVIS/2017/trainval", "2017/trainval")


def _video(
    name: str, folders: Sequence[str], expected: str, signs: Sequence[str], read: Reader, distinct: bool = True
) -> Layout:
    return Layout(name, "video", tuple(folders), f"{folders[0]}/ with {expected}", tuple(signs), read, distinct)


def _folders(name: str, folders: Sequence[str], stride: int = 1) -> Layout:
    return _video(name, folders, _FOLDERS, ("JPEGImages", "Annotations"), folder_videos(stride), False)


def _youtube(year: str) -> Layout:
    folders = [f"YouTube-VOS-{year}/train", f"YouTubeVOS{year}/train", f"YTB/{year}/train", f"youtube_vos_{year}/train"]
    folders += ["YouTube/train", "YouTube/train_480p", "YouTube-VOS/train"]
    return _video(f"youtube{year}", folders, f"{_FOLDERS} and meta.json", ("JPEGImages", "Annotations", "meta.json"), youtube)


def _still(name: str, folders: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> Layout:
    ways = [f"{images}/*.jpg and {masks}/*.png" for images, masks in pairs] + ["*.jpg next to *.png of the same names"]
    return Layout(
        name,
        "still",
        tuple(folders),
        f"{folders[0]}/ with {', or '.join(ways)}",
        (),
        saliency(pairs),
        holds=has_pictures(pairs),
    )


def _davis_like(name: str, folders: Sequence[str], year: str, binary: bool = False) -> Layout:
    expected = f"JPEGImages/480p/NAME/*.jpg, Annotations/480p/NAME/*.png and ImageSets/{year}/train.txt"
    return _video(name, folders, expected, ("JPEGImages", "Annotations", f"ImageSets/{year}"), davis(year, binary))


_ALL = (
    _davis_like("davis2017", _DAVIS, "2017"),
    _davis_like("davis2016", _DAVIS, "2016", binary=True),
    _youtube("2019"),
    _youtube("2018"),
    _folders("bl30k", ("BL30K",)),
    _folders("mose", ("MOSE/train", "MOSE")),
    _folders("lvos", ("LVOS/train", "LVOS"), stride=5),
    _folders("vost", ("VOST",), stride=5),
    _davis_like("visor", ("VISOR", "VISOR_2022", "VISOR-VOS"), "2022"),
    _video(
        "vipseg",
        ("VIPSeg", "VIPSeg_720P"),
        "imgs/NAME/*.jpg, panomasks/NAME/*.png and train.txt",
        ("imgs|images", "panomasks"),
        vipseg,
    ),
    _folders("vosw", ("VOSW/train", "VOSW")),
    Layout(
        "coco",
        "still",
        ("COCO", "coco2017"),
        "COCO/ with train2017/*.jpg and annotations/instances_train2017.json",
        ("annotations/instances_train2017.json",),
        coco,
        distinct=True,
    ),
    _still("ecssd", ("ECSSD",), (("images", "ground_truth_mask"), ("Imgs", "GT"))),
    _still("msra10k", ("MSRA10K", "MSRA10K_Imgs_GT", "MSRA10K_Imgs_GT/Imgs"), (("images", "masks"),)),
    _still(
        "pascal-s",
        ("PASCAL-S", "PASCALS", "PASCAL_S"),
        (("Imgs", "GT"), ("images", "masks"), ("datasets/imgs/pascal", "datasets/masks/pascal")),
    ),
    Layout(
        "voc2012",
        "still",
        ("VOC2012", "VOCdevkit/VOC2012"),
        "VOC2012/ with JPEGImages/*.jpg and SegmentationObject/*.png",
        ("JPEGImages", "SegmentationObject"),
        voc,
        distinct=True,
    ),
    _still("fss1000", ("FSS-1000", "FSS1000", "fss", "fewshot_data")),
    _still("duts-tr", ("DUTS-TR", "DUTS/DUTS-TR"), (("DUTS-TR-Image", "DUTS-TR-Mask"),)),
    _still("duts-te", ("DUTS-TE", "DUTS/DUTS-TE"), (("DUTS-TE-Image", "DUTS-TE-Mask"),)),
    _still("hrsod", ("HRSOD", "HRSOD_small"), (("HRSOD_train", "HRSOD_train_mask"), ("images", "masks"))),
    _still("big", ("BIG", "BIG_small")),
    Layout(
        "folder",
        "video",
        (),
        "CLIP/frames/*.jpg (or CLIP/images/) and CLIP/masks/*.png, or frames/CLIP/ and masks/CLIP/, or JPEGImages/CLIP/ and "
        "Annotations/CLIP/",
        (),
        own_videos,
        distinct=True,
        holds=has_clips,
    ),
    Layout(
        "folder-stills",
        "still",
        (),
        "images/*.jpg and masks/*.png of the same names (parts/*.png: the same pictures cut into parts)",
        ("images", "masks"),
        own_stills,
        distinct=True,
        holds=has_pictures((("images", "masks"),)),
    ),
)

LAYOUTS = {layout.name: layout for layout in _ALL}
"""Name -> layout, in the order in which `recognize` tries them."""
