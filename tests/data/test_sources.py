"""Each layout on disk, good and bad."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from medtune.config import check, fields
from medtune.data.image import save_image
from medtune.data.image_set import ImageSet
from medtune.data.record import Box
from medtune.data.source import SOURCES, read_records
from medtune.data.split import split
from medtune.errors import ConfigError, DataError, Missing, UnknownName


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "a.png"
    save_image(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)), path)
    return path


@pytest.fixture
def put(tmp_path, picture):
    """Write an image, or a text where one is given, under a name."""
    def write(name: str, text: str | bytes | None = None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copy(picture, path)
        else:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def table(put, name: str, header: list[str], *rows: list):
    lines = [header, *rows]
    path = put(name, "")
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_source_describes_itself_and_its_options(name):
    source = SOURCES[name]
    assert source.name == name and len(source.description) > 20
    check(source.Config())
    assert all(facts["help"] for *_, facts in fields(source.Config))


# Image sets


def test_image_set(tmp_path):
    images = ImageSet(tmp_path)
    images.append(torch.zeros(3, 8, 8), "two", ("B",), file_name="b.png", split="validation")
    images.append(torch.zeros(3, 8, 8), "one", ("A",), file_name="a.png", mask=torch.ones(1, 8, 8), boxes=[Box(0, 0, 8, 8, "A")])
    records = read_records(tmp_path)
    assert [record.image.name for record in records] == ["a.png", "b.png"]
    assert [(record.caption, record.split) for record in records] == [("one", None), ("two", "val")]
    assert records[0].mask == tmp_path / "masks" / "a.png" and records[0].boxes == (Box(0, 0, 8, 8, "A"),)
    assert [record.caption for record in read_records(tmp_path, caption="of {labels}")] == ["of A", "of B"]


def test_hugging_face_folder(put, tmp_path):
    for name in ("train/a.png", "train/b.png", "test/c.png"):
        put(name)
    table(put, "train/metadata.csv", ["file_name", "text", "labels", "patient"], ["a.png", "one, with comma", "B|A", "7"],
          ["b.png", "two", "", ""])
    put("test/metadata.jsonl", json.dumps({"file_name": "c.png", "caption": "three", "text": "3"}))
    records = read_records(tmp_path)
    assert [record.caption for record in records] == ["3", "one, with comma", "two"]
    assert records[1].labels == ("A", "B") and records[1].patient == "7" and records[2].patient is None
    assert read_records(tmp_path / "test", text="caption")[0].caption == "three"


def test_image_set_rows_that_cannot_be_used_are_counted(put, tmp_path):
    rows = [{"file_name": f"{i}.png", "text": "x"} for i in range(9)]
    rows += [{"file_name": "9.png"}, {"file_name": "../up.png", "text": "x"}, {"file_name": "gone.png", "text": "x"}]
    for i in range(10):
        put(f"{i}.png")
    put("metadata.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"2 of 12 rows.*9\.png has no caption.*climbs out"):
        read_records(tmp_path)
    put("metadata.jsonl", "\n".join(map(json.dumps, rows[:9] + rows[11:])))
    with pytest.raises(DataError, match=r"1 of 10 images.*gone\.png"):
        read_records(tmp_path)


def test_one_image_listed_twice(put, tmp_path):
    put("a.png")
    put("metadata.jsonl", (json.dumps({"file_name": "a.png", "text": "x"}) + "\n") * 2)
    with pytest.raises(DataError, match=r"1 images are listed more than once.*a\.png"):
        read_records(tmp_path)


def test_a_mask_of_another_shape(tmp_path):
    images = ImageSet(tmp_path)
    images.append(torch.zeros(3, 8, 8), "x", mask=torch.zeros(1, 8, 16))
    with pytest.raises(DataError, match="mask is 16 x 8, its image 8 x 8"):
        read_records(tmp_path)


# kohya


def test_kohya_folders(put, tmp_path):
    for name in ("10_chest/b.png", "10_chest/a.jpg.png", "2_knee/a.png"):
        put(name)
    put("10_chest/b.txt", "\ufeff caption of b \n")
    put("10_chest/a.jpg.txt", "caption of a")
    put("2_knee/a.txt", "knee")
    put("2_knee/a.npz", b"what another trainer left")
    records = read_records(tmp_path)
    assert [(record.image.name, record.caption, record.repeats) for record in records] == [
        ("a.jpg.png", "caption of a", 10), ("b.png", "caption of b", 10), ("a.png", "knee", 2)]


def test_one_folder_with_captions(put, tmp_path):
    put("a.png"), put("a.txt", "x")
    assert read_records(tmp_path)[0].caption == "x" and read_records(tmp_path)[0].repeats == 1


def test_captions_that_are_missing_empty_or_not_utf8_are_counted(put, tmp_path):
    for name in "abcde":
        put(f"1_x/{name}.png")
    put("1_x/a.txt", "fine"), put("1_x/b.txt", " \n"), put("1_x/c.txt", "naïve".encode("latin-1")), put("1_x/e.txt", "fine")
    with pytest.raises(DataError, match=r"3 of 5 images.*b\.txt: the caption is empty.*c\.txt: the caption is not UTF-8") as caught:
        read_records(tmp_path)
    assert "d.txt: there is no caption for d.png" in str(caught.value)
    put("1_x/c.txt", "now fine")
    assert [record.caption for record in read_records(tmp_path, missing="name")] == ["fine", "x", "now fine", "x", "fine"]
    assert [record.caption for record in read_records(tmp_path, missing="empty")] == ["fine", "", "now fine", "", "fine"]


def test_two_files_of_one_name_would_share_a_caption(put, tmp_path):
    put("1_x/a.png"), put("1_x/a.jpg"), put("1_x/a.txt", "x")
    with pytest.raises(DataError, match=r"same name as a\.jpg"):
        read_records(tmp_path)


def test_kohya_folders_without_images_or_repeats(put, tmp_path):
    put("3_x/a.png"), put("3_x/a.txt", "x"), put("4_empty/note.md", "")
    with pytest.raises(DataError, match="4_empty: the folder has no images"):
        read_records(tmp_path)
    shutil.rmtree(tmp_path / "4_empty")
    put("0_y/b.png")
    with pytest.raises(DataError, match="0 times"):
        read_records(tmp_path)


# Class folders


def test_class_folders(put, tmp_path):
    for name in ("nevus/a.png", "nevus/deep/patient7_b.png", "melanoma/a.png"):
        put(name)
    records = read_records(tmp_path, caption="a photograph of {labels}")
    assert [(record.labels, record.caption) for record in records] == [
        (("melanoma",), "a photograph of melanoma"), (("nevus",), "a photograph of nevus"), (("nevus",), "a photograph of nevus")]
    with pytest.raises(DataError, match=r"2 of 3 images.*melanoma/a\.png"):
        read_records(tmp_path, patient=r"patient\d+")
    (tmp_path / "nevus/a.png").rename(tmp_path / "nevus/patient8_x.png")
    (tmp_path / "melanoma/a.png").rename(tmp_path / "melanoma/patient9_x.png")
    assert [record.patient for record in read_records(tmp_path, patient=r"patient(\d+)")] == ["9", "7", "8"]


def test_class_folders_below_splits(put, tmp_path):
    for name in ("train/x/a.png", "valid/x/a.png", "test/y/a.png"):
        put(name)
    found = [(record.split, *record.labels) for record in read_records(tmp_path)]
    assert found == [("test", "y"), ("train", "x"), ("val", "x")]


def test_class_folders_that_cannot_be_used(put, tmp_path):
    put("full/a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: the class has no images"):
        read_records(tmp_path)
    put("loose.png")
    with pytest.raises(DataError, match=r"1 images lie in .* itself.*loose\.png"):
        read_records(tmp_path, "class-folders")
    with pytest.raises(ConfigError, match="no regular expression"):
        read_records(tmp_path, "class-folders", patient="(")


# CheXpert and NIH

CHEXPERT = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Cardiomegaly", "Edema", "Fracture"]


@pytest.fixture
def chexpert(put, tmp_path):
    """Paths in these tables begin with the folder's own name."""
    names = [f"CheXpert-v1.0-small/train/patient0000{i}/study1/view1_{view}.jpg" for i, view in
             ((1, "frontal"), (1, "lateral"), (2, "frontal"), (3, "frontal"))]
    for name in names:
        put("cx/" + name.split("/", 1)[1])
    table(put, "cx/train.csv", CHEXPERT, [names[0], "Female", 68, "Frontal", "AP", "1.0", "", "", ""],
          [names[1], "Female", 68, "Lateral", "", "", "0.0", "1.0", ""],
          [names[2], "Male", 50, "Frontal", "PA", "", "-1.0", "1.0", ""],
          [names[3], "Male", 50, "Frontal", "PA", "", "", "", "1"])
    return tmp_path / "cx"


def test_chexpert(chexpert):
    records = read_records(chexpert)
    assert [record.patient for record in records] == ["patient00001", "patient00001", "patient00002", "patient00003"]
    assert [record.labels for record in records] == [("No Finding",), ("Edema",), ("Edema",), ("Fracture",)]
    assert records[1].caption == "Chest X-ray showing Edema" and {record.split for record in records} == {"train"}
    assert read_records(chexpert / "train.csv") == records
    assert read_records(chexpert, caption="chest-xray-eight")[3].caption == "Normal chest X-ray with no significant findings"


def test_chexpert_uncertain_findings_and_views(chexpert):
    assert read_records(chexpert, uncertain="positive")[2].labels == ("Cardiomegaly", "Edema")
    assert [record.patient[-1] for record in read_records(chexpert, uncertain="ignore")] == ["1", "1", "3"]
    assert len(read_records(chexpert, frontal_only=True)) == 3
    with pytest.raises(ConfigError, match="ignore, positive, negative"):
        read_records(chexpert, uncertain="maybe")


def test_chexpert_rows_that_cannot_be_used(put, tmp_path):
    put("cx/patient1/a.png")
    table(put, "cx/train.csv", CHEXPERT, ["patient1/a.png", "", "", "", "", "2", "", "", ""], ["../../patient1/b.png", *[""] * 8],
          ["patient1/gone.png", *[""] * 8], ["", *[""] * 8])
    with pytest.raises(DataError, match=r"4 of 4 rows.*line 2: No Finding is '2'.*lies outside.*no .*gone\.png.*no file name"):
        read_records(tmp_path / "cx")


def test_nih(put, tmp_path):
    for name in ("a.png", "b.png"):
        put(f"images/{name}")
    table(put, "metadata.csv", ["Path", "PatientID", "Split", "Finding Labels"], ["images/a.png", "0007", "train", "Pneumonia|Mass"],
          ["images/b.png", "0008", "test", "No Finding"])
    records = read_records(tmp_path)
    assert [(record.labels, record.patient, record.split) for record in records] == [
        (("Mass", "Pneumonia"), "0007", "train"), (("No Finding",), "0008", "test")]
    assert records[0].caption == "Chest X-ray showing Pneumonia"


def test_nih_names_of_the_original_table(put, tmp_path):
    put("images/00000001_000.png")
    table(put, "Data_Entry.csv", ["Image Index", "Finding Labels", "Patient ID", "View Position"],
          ["00000001_000.png", "Hernia", "1", "PA"])
    record, = read_records(tmp_path, frontal_only=True)
    assert record.patient == "1" and record.caption == "Chest X-ray showing Hernia"


def test_tables_without_the_columns_or_with_ragged_rows(put, tmp_path):
    path = table(put, "train.csv", ["Path", "Cardiomegally"], ["a.png", "1"])
    with pytest.raises(DataError, match=r"lacks the columns.*its columns are: Path, Cardiomegally"):
        read_records(path, "chexpert")
    put("train.csv", "Path,Edema\na.png,1\nb.png\nc.png,1,1\n")
    with pytest.raises(DataError, match=r"2 of 3 rows.*line 3: 1 fields where the header has 2.*line 4: 3 fields"):
        read_records(path)
    put("train.csv", "Path,Edema\n")
    with pytest.raises(DataError, match="no rows below its header"):
        read_records(path)
    put("train.csv", "Path,Edema\nnaïve.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_records(path, "table", image="Path", labels="Edema")


# Retinopathy: APTOS 2019 and EyePACS


@pytest.fixture
def aptos(put, tmp_path):
    """As Kaggle's archive unpacks."""
    for name in ("000c1434d8d7", "001639a390f0", "0024cdab0c1e", "0083ee8054ee"):
        put(f"aptos/train_images/{name}.png")
    put("aptos/test_images/0005cfc8afb6.png")
    table(put, "aptos/train.csv", ["id_code", "diagnosis"], ["000c1434d8d7", 2], ["001639a390f0", 4], ["0024cdab0c1e", 1],
          ["0083ee8054ee", 0])
    table(put, "aptos/test.csv", ["id_code"], ["0005cfc8afb6"])
    table(put, "aptos/sample_submission.csv", ["id_code", "diagnosis"], ["0005cfc8afb6", 0])
    return tmp_path / "aptos"


@pytest.fixture
def eyepacs(put, tmp_path):
    """As Kaggle's archives unpack, with the answers to the test part."""
    for name in ("train/10_left", "train/10_right", "train/16_left", "train/16_right", "test/1_left"):
        put(f"eyes/{name}.jpeg")
    table(put, "eyes/trainLabels.csv", ["image", "level"], ["10_left", 0], ["10_right", 0], ["16_left", 4], ["16_right", 3])
    table(put, "eyes/retinopathy_solution.csv", ["image", "level", "Usage"], ["1_left", 2, "Private"])
    return tmp_path / "eyes"


def test_aptos(aptos):
    records = read_records(aptos)
    assert [record.image.stem for record in records] == ["000c1434d8d7", "001639a390f0", "0024cdab0c1e", "0083ee8054ee"]
    assert [record.labels for record in records] == [
        ("moderate non-proliferative diabetic retinopathy",), ("proliferative diabetic retinopathy",),
        ("mild non-proliferative diabetic retinopathy",), ("no diabetic retinopathy",)]
    assert records[0].caption == "Retinal image showing moderate non-proliferative diabetic retinopathy"
    assert {(record.patient, record.split) for record in records} == {(None, "train")}
    assert read_records(aptos / "train.csv") == records


def test_eyepacs(eyepacs):
    records = read_records(eyepacs)
    assert [(record.image.parent.name, record.patient, record.split) for record in records] == [
        ("test", "1", "test"), *[("train", patient, "train") for patient in ("10", "10", "16", "16")]]
    assert [record.caption for record in records[::3]] == [
        "Retinal image of left eye showing moderate non-proliferative diabetic retinopathy",
        "Retinal image of left eye showing proliferative diabetic retinopathy"]
    assert records[4].labels == ("right eye", "severe non-proliferative diabetic retinopathy")
    plain = read_records(eyepacs, eye=False)
    assert plain[4].labels == ("severe non-proliferative diabetic retinopathy",) and "eye" not in plain[4].caption
    assert [record.caption for record in read_records(eyepacs, caption="labels")][1] == "left eye, no diabetic retinopathy"


def test_eyes_of_a_patient_stay_together(eyepacs):
    parts = split(read_records(eyepacs), {"train": 0.6, "test": 0.4})
    assert len({(record.patient, record.split) for record in parts}) == 3


def test_retinopathy_rows_that_cannot_be_used(put, eyepacs):
    table(put, "eyes/trainLabels.csv", ["image", "level"], ["10_left", 0], ["10_right", 5], ["16_left", ""], ["16-right", 1],
          ["17_left", 1], ["18_left", 2])
    with pytest.raises(DataError) as caught:
        read_records(eyepacs)
    text = str(caught.value)
    assert "5 of 7 rows" in text and "line 3: level is '5'; it must be a level from 0 to 4" in text and "line 4: level is ''" in text
    assert "line 5: image is '16-right'; EyePACS names are" in text
    assert f"line 6: there is no image 17_left in {eyepacs / 'train'}; set images" in text and "line 7: there is no" in text


def test_retinopathy_images_elsewhere_and_twice(put, aptos, tmp_path):
    (aptos / "train_images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"4 of 4 rows.*there is no image 000c1434d8d7"):
        read_records(aptos)
    assert len(read_records(aptos, "retinopathy", images=str(tmp_path / "elsewhere"))) == 4
    with pytest.raises(DataError, match=r"no such folder; give the folder with the images of train\.csv"):
        read_records(aptos, "retinopathy", images=str(tmp_path / "gone"))
    put("elsewhere/small/001639a390f0.jpg")
    with pytest.raises(DataError, match=r"1 of 4 rows.*line 3: 2 images are called 001639a390f0: .*; keep one"):
        read_records(aptos, images=str(tmp_path / "elsewhere"))


def test_retinopathy_tables_that_are_not(put, tmp_path, aptos):
    path = table(put, "t.csv", ["id_code", "grade"], ["a", 1])
    with pytest.raises(DataError, match=r"neither the columns id_code, diagnosis .*its columns are: id_code, grade"):
        read_records(path, "retinopathy")
    with pytest.raises(DataError, match="no such CSV in the folder"):
        read_records(aptos / "train_images", "retinopathy")
    with pytest.raises(DataError, match="its columns are"):  # the challenge's empty answers are no labels
        read_records(aptos / "sample_submission.csv", "retinopathy")


# ISIC 2019

ISIC = ["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


def one_hot(name, *marked):
    return [name, *["1.0" if code in marked else "0.0" for code in ISIC[1:]]]


@pytest.fixture
def isic(put, tmp_path):
    """As the archive's files unpack: a lesion with two images, one of its own, and one whose lesion is not known."""
    for name in ("ISIC_0000000", "ISIC_0000017_downsampled", "ISIC_0024306", "ISIC_0024307"):
        put(f"isic/ISIC_2019_Training_Input/{name}.jpg")
    put("isic/ISIC_2019_Training_Input/ATTRIBUTION.txt", "x")
    table(put, "isic/ISIC_2019_Training_GroundTruth.csv", ISIC, one_hot("ISIC_0000000", "NV"),
          one_hot("ISIC_0000017_downsampled", "MEL"), one_hot("ISIC_0024306", "SCC"), one_hot("ISIC_0024307", "SCC"))
    table(put, "isic/ISIC_2019_Training_Metadata.csv", ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"],
          ["ISIC_0000000", 55, "anterior torso", "", "female"], ["ISIC_0000017_downsampled", 50, "", "MSK4_0011169", "male"],
          ["ISIC_0024306", 45, "", "HAM_0000550", "male"], ["ISIC_0024307", 45, "", "HAM_0000550", "male"])
    return tmp_path / "isic"


def test_isic(isic):
    records = read_records(isic)
    assert [record.labels for record in records] == [
        ("melanocytic nevus",), ("melanoma",), ("squamous cell carcinoma",), ("squamous cell carcinoma",)]
    assert [record.patient for record in records] == [None, "MSK4_0011169", "HAM_0000550", "HAM_0000550"]
    assert records[1].caption == "a dermoscopic image with melanoma (MEL)" and {record.split for record in records} == {"train"}
    assert read_records(isic / "ISIC_2019_Training_GroundTruth.csv") == records
    assert [record.patient for record in read_records(isic, lesions=False)] == [None] * 4
    parts = split(records, {"train": 0.5, "test": 0.5}, seed=1)
    assert parts[2].split == parts[3].split


def test_isic_test_part_has_no_lesions(put, isic):
    put("isic/ISIC_2019_Test_Input/ISIC_0034321.jpg")
    table(put, "isic/ISIC_2019_Test_GroundTruth.csv", [*ISIC, "score_weight", "validation_weight"],
          [*one_hot("ISIC_0034321", "UNK"), "1.0", "0.0"])
    table(put, "isic/ISIC_2019_Test_Metadata.csv", ["image", "age_approx", "anatom_site_general", "sex"],
          ["ISIC_0034321", 45, "lateral torso", "female"])
    first, *others = read_records(isic)
    assert (first.split, first.patient, first.labels) == ("test", None, ("unknown lesion",)) and len(others) == 4


def test_isic_rows_that_cannot_be_used(put, isic):
    table(put, "isic/ISIC_2019_Training_GroundTruth.csv", ISIC, one_hot("ISIC_0000000", "NV"), one_hot("ISIC_0024306"),
          one_hot("ISIC_0024307", "MEL", "NV"), ["ISIC_0000017_downsampled", "0.5", *["0"] * 8], one_hot("ISIC_9", "BCC"))
    with pytest.raises(DataError) as caught:
        read_records(isic)
    text = str(caught.value)
    assert "4 of 5 rows" in text and "line 3: 0 classes are marked; it must be one" in text
    assert "line 4: 2 classes are marked: MEL, NV" in text and "line 5: MEL is '0.5'; it must be 0 or 1" in text
    assert "line 6: ISIC_9 is not in the metadata" in text
    with pytest.raises(DataError, match=r"line 6: there is no image ISIC_9 in .*ISIC_2019_Training_Input"):
        read_records(isic, lesions=False)


def test_isic_without_its_metadata_or_images(put, isic):
    metadata = isic / "ISIC_2019_Training_Metadata.csv"
    rows = metadata.read_text()
    metadata.write_text(rows + "ISIC_0024307,45,,HAM_0000551,male\n")
    with pytest.raises(DataError, match=r"1 of 5 rows of .*line 6: ISIC_0024307 is of another lesion than in a row above"):
        read_records(isic)
    metadata.write_text(rows.replace("lesion_id", "lesion"))
    with pytest.raises(DataError, match=r"no column 'lesion_id' \(did you mean 'lesion'"):
        read_records(isic)
    metadata.unlink()
    with pytest.raises(DataError, match=r"no .*Training_Metadata\.csv, by whose lesion_id .*or set lesions to false"):
        read_records(isic)
    assert len(read_records(isic, lesions=False)) == 4
    (isic / "ISIC_2019_Training_Input").rename(isic / "pictures")
    with pytest.raises(DataError, match=r"no folder .*ISIC_2019_Training_Input with the images of .*set images"):
        read_records(isic, lesions=False)
    assert len(read_records(isic, lesions=False, images=str(isic / "pictures"))) == 4


def test_isic_tables_that_are_not(put, tmp_path):
    path = table(put, "t.csv", ISIC[:-1], one_hot("a", "NV")[:-1])
    with pytest.raises(DataError, match=r"not ISIC 2019's ground truth.*UNK; its columns are: image, MEL"):
        read_records(path, "isic")
    with pytest.raises(DataError, match="no such CSV in the folder"):
        read_records(tmp_path / "..", "isic")


# Any table


def test_table(put, tmp_path):
    put("pictures/a.png"), put("pictures/b.png"), put("pictures/m.png")
    path = table(put, "t.csv", ["file", "words", "dx", "who", "part", "seg"], ["a.png", "one", "B;A", "7", "Train", "m.png"],
                 ["b.png", "two", "", "", "", ""])
    columns = {"image": "file", "labels": "dx", "separator": ";", "patient": "who", "split": "part", "mask": "seg",
               "images": str(tmp_path / "pictures")}
    first, second = read_records(path, "table", text="words", **columns)
    assert (first.caption, first.labels, first.patient, first.split) == ("one", ("A", "B"), "7", "train")
    assert first.mask == tmp_path / "pictures" / "m.png" and (second.patient, second.split, second.mask) == (None, None, None)
    with pytest.raises(DataError, match=r"1 of 2 rows.*b\.png has neither caption nor labels"):
        read_records(path, "table", **columns)


def test_tables_whose_columns_are_not_there(put, tmp_path):
    put("a.png")
    path = table(put, "t.tsv", ["file"], ["a.png"])
    put("t.tsv", "file\twords\na.png\tone, two\n")
    assert read_records(path, "table", image="file", text="words")[0].caption == "one, two"
    with pytest.raises(DataError, match=r"no column 'word' \(did you mean 'words'\?\); its columns are: file, words"):
        read_records(path, "table", image="file", text="word")
    with pytest.raises(ConfigError, match="both empty"):
        read_records(path, "table", image="file")
    with pytest.raises(DataError, match="no layout that is known"):
        read_records(path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "x/../../secret.png"])
def test_table_paths_that_climb_out(put, tmp_path, name):
    put("secret.png"), put("in/b.png")
    path = table(put, "in/t.csv", ["image", "text"], [name, "x"])
    with pytest.raises(DataError, match="lies outside of"):
        read_records(path, "table", text="text")


# Whatever the layout


def test_nothing_there(tmp_path):
    with pytest.raises(Missing, match="there is no"):
        read_records(tmp_path / "gone")
    with pytest.raises(DataError, match="empty folder"):
        read_records(tmp_path)
    with pytest.raises(DataError, match=r"holds no images|has no images"):
        read_records(tmp_path, "kohya")
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"kohya:.*image-set:|image-set:.*kohya:"):
        read_records(tmp_path)


def test_unknown_sources_options_and_checks(put, tmp_path):
    put("a.png"), put("a.txt", "x")
    with pytest.raises(UnknownName, match=r"unknown source 'koya' \(did you mean 'kohya'\?\)"):
        read_records(tmp_path, "koya")
    with pytest.raises(ConfigError, match=r"no option 'mising' \(did you mean 'missing'\?\)"):
        read_records(tmp_path, mising="name")
    with pytest.raises(ConfigError, match="none, header, decode"):
        read_records(tmp_path, check="all")


def test_bad_images_among_many_are_named_with_their_count(put, tmp_path):
    for i in range(12):
        put(f"c/{i:02d}.png")
    put("c/12.png", b""), put("c/13.png", "text")
    whole = (tmp_path / "c/00.png").read_bytes()
    put("c/14.png", whole[:-30])
    with pytest.raises(DataError, match=r"3 of 15 images.*12\.png is empty.*13\.png is not an image.*14\.png is cut short"):
        read_records(tmp_path)
    put("c/12.png"), put("c/13.png")
    put("c/14.png", whole[:150] + bytes(20) + whole[170:])  # damaged inside: only decoding shows it
    assert len(read_records(tmp_path)) == 15
    with pytest.raises(DataError, match=r"1 of 15 images.*14\.png is damaged"):
        read_records(tmp_path, check="decode")


def test_a_patient_in_two_splits_is_refused_unless_it_is_known(put, tmp_path):
    put("a.png"), put("b.png"), put("c.png")
    table(put, "metadata.csv", ["Path", "PatientID", "Split", "Finding Labels"], ["a.png", "7", "train", "Mass"],
          ["b.png", "7", "test", "Mass"], ["c.png", "8", "test", "Mass"])
    with pytest.raises(DataError, match="1 patients with 2 images are in more than one split: 7"):
        read_records(tmp_path)
    assert len(read_records(tmp_path, shared_patients=True)) == 3


def test_one_image_is_a_data_set(put, tmp_path):
    put("a.png"), put("a.txt", "x")
    assert len(read_records(tmp_path)) == 1
