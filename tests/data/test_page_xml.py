import pathlib
import time

import foreign
import numpy as np
import pytest
from PIL import Image

from ocr.data.folder import Folder
from ocr.data.sources import choose, pages

PAGE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/"
ALTO = "http://www.loc.gov/standards/alto/ns-v"
HEIGHT, WIDTH = 200, 400


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a folder with the image of a page, and one outside it."""
    (tmp_path / "images").mkdir()
    foreign.noise(1, WIDTH, HEIGHT).save(tmp_path / "images" / "p1.tif")
    foreign.noise(2, WIDTH, HEIGHT).save(tmp_path / "secret.png")
    return tmp_path / "images"


def page_xml(lines: str, image: str = "p1.tif", version: str = "2019-07-15", size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<PcGts xmlns="{PAGE}{version}"><Metadata><Creator/></Metadata>'
        f'<Page imageFilename="{image}" imageWidth="{size[0]}" imageHeight="{size[1]}"><TextRegion id="r">'
        f'<Coords points="0,0 400,0 400,200 0,200"/>{lines}</TextRegion></Page></PcGts>'
    )


def text_line(id: str, points: str, text: str, more: str = "") -> str:
    return (
        f'<TextLine id="{id}"><Coords points="{points}"/>{more}<Word id="w{id}"><Coords points="0,0 1,0 1,1"/><TextEquiv>'
        f"<Unicode>word</Unicode></TextEquiv></Word><TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>"
    )


def alto_xml(lines: str, image: str = "p1.tif", version: str = "4", size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    return (
        f'<alto xmlns="{ALTO}{version}#"><Description><MeasurementUnit>pixel</MeasurementUnit><sourceImageInformation>'
        f"<fileName>{image}</fileName></sourceImageInformation></Description><Layout>"
        f'<Page ID="p" PHYSICAL_IMG_NR="1" WIDTH="{size[0]}" '
        f'HEIGHT="{size[1]}"><PrintSpace><ComposedBlock ID="c"><TextBlock ID="b">{lines}</TextBlock></ComposedBlock>'
        "</PrintSpace></Page></Layout></alto>"
    )


def crop(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Returns what a box of the page is cut to: with a margin of a sixteenth of its height, 32."""
    return np.asarray(foreign.noise(1, WIDTH, HEIGHT).crop((left - 2, top - 2, right + 2, bottom + 2)))


def rows(folder: pathlib.Path, source: str) -> list[tuple[str, str, str]]:
    """Returns name, text and reason of each entry."""
    reader = Folder(str(folder), False)
    return [(entry.name, entry.text, entry.reason) for entry in choose.OF_FOLDERS[source](reader, reader.names())]


@pytest.mark.parametrize("version", ["2013-07-15", "2016-07-15", "2017-07-15", "2018-07-15", "2019-07-15"])
def test_lines_of_page_xml_are_cut_from_the_image(folder: pathlib.Path, tmp_path: pathlib.Path, version: str):
    second = (
        '<TextEquiv index="1"><Unicode>worse</Unicode></TextEquiv><TextEquiv index="0"><Unicode>better</Unicode></TextEquiv>'
    )
    lines = [
        text_line("a", "10,20 210,20 210,52 10,52", "abc", '<Baseline points="10,46 210,46"/>'),
        f'<TextLine id="b"><Coords points="20,100 180,100 180,132 20,132"/>{second}</TextLine>',
        text_line("half", "10,20 210,20", "x"),
        text_line("none", "10,20 210,20 210,52 10,52", ""),
        text_line("off", "1000,20 1100,20 1100,52 1000,52", "x"),
        '<TextLine id="words"><Coords points="10,20 210,20 210,52"/></TextLine>',
    ]
    (folder / "page").mkdir()
    (folder / "page" / "p1.xml").write_text(page_xml("".join(lines), version=version))
    (folder / "mets.xml").write_text("<mets/>")
    summary = foreign.pack(folder)
    assert (summary["records"], summary["rejects"]) == (2, 4)
    packed = foreign.records(tmp_path / "records")
    assert {name: text for name, (text, _) in packed.items()} == {"page/p1.xml#a": "abc", "page/p1.xml#b": "better"}
    np.testing.assert_array_equal(packed["page/p1.xml#a"][1], crop(10, 20, 210, 52))
    np.testing.assert_array_equal(packed["page/p1.xml#b"][1], crop(20, 100, 180, 132))
    assert foreign.rejects(tmp_path / "records") == [
        (3, "page/p1.xml#half", "bad_polygon"),
        (4, "page/p1.xml#none", "no_text"),
        (5, "page/p1.xml#off", "bad_polygon"),
        (6, "page/p1.xml#words", "no_text"),
    ]


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_lines_of_alto_are_cut_from_the_image(folder: pathlib.Path, tmp_path: pathlib.Path, version: str):
    box = 'HPOS="10" VPOS="20" WIDTH="200" HEIGHT="32"'
    polygon = '<Shape><Polygon POINTS="{}"/></Shape>'
    strings = '<String CONTENT="ab" HPOS="1"/><SP WIDTH="3"/><String CONTENT="c"/><HYP CONTENT="d"/>'
    lines = [
        f'<TextLine ID="a" {box} BASELINE="46">{strings}</TextLine>',
        f'<TextLine ID="b" {box}>{polygon.format("20,100 180,100 180,132 20,132")}<String CONTENT="e"/></TextLine>',
        f'<TextLine ID="c" {box}>{polygon.format("20 100 180 100 180 132 20 132")}<String CONTENT="f"/></TextLine>',
        '<TextLine ID="d" HPOS="10" VPOS="20" WIDTH="0" HEIGHT="32"><String CONTENT="g"/></TextLine>',
        f'<TextLine ID="e" {box}></TextLine>',
    ]
    (folder / "p1.xml").write_text(alto_xml("".join(lines), version=version))
    (tmp_path / "charset").write_text("a\nb\nc\nd\ne\nf\ng\n \n")
    assert foreign.pack(folder, charset=str(tmp_path / "charset"))["records"] == 3
    packed = foreign.records(tmp_path / "records")
    assert {name: text for name, (text, _) in packed.items()} == {"p1.xml#a": "ab cd", "p1.xml#b": "e", "p1.xml#c": "f"}
    for name, box_of_line in {"a": (10, 20, 210, 52), "b": (20, 100, 180, 132), "c": (20, 100, 180, 132)}.items():
        np.testing.assert_array_equal(packed[f"p1.xml#{name}"][1], crop(*box_of_line))
    assert [row[1:] for row in foreign.rejects(tmp_path / "records")] == [("p1.xml#d", "bad_polygon"), ("p1.xml#e", "no_text")]


def test_coordinates_in_tenths_of_millimetres_are_scaled(folder: pathlib.Path, tmp_path: pathlib.Path):
    line = '<TextLine ID="a" HPOS="25" VPOS="50" WIDTH="500" HEIGHT="80"><String CONTENT="abc"/></TextLine>'
    (folder / "p1.xml").write_text(alto_xml(line, size=(1000, 500)).replace(">pixel<", ">mm10<"))
    foreign.pack(folder)
    np.testing.assert_array_equal(foreign.records(tmp_path / "records")["p1.xml#a"][1], crop(10, 20, 210, 52))
    (folder / "p1.xml").write_text(alto_xml(line.replace("abc", "d"), size=(1000, 700)))
    (folder / "p2.xml").write_text(alto_xml(line, size=(1000, 500)))
    foreign.pack(folder, output=str(tmp_path / "other"))
    assert foreign.rejects(tmp_path / "other") == [(1, "p1.xml#a", "bad_polygon")]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("p1.tif", ""),
        ("../p1.tif", ""),
        ("C:\\scans\\p1.tif", ""),
        ("/somewhere/p1.tif", ""),
        ("p2.tif", "missing_file"),
        ("../../secret.png", "outside_images"),
        ("/etc/passwd", "outside_images"),
        ("link.png", "outside_images"),
        ("", "missing_file"),
    ],
)
def test_the_image_of_a_page_is_found_inside_the_folder_or_not_at_all(folder: pathlib.Path, image: str, reason: str):
    (folder / "page").mkdir()
    (folder / "page" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "page" / "one.xml").write_text(page_xml(text_line("a", "10,20 210,20 210,52", "abc"), image))
    reader = Folder(str(folder), False)
    (entry,) = choose.OF_FOLDERS["page"](reader, reader.names())
    if image == "link.png":  # it is there, and refused when it is read
        assert entry.location[1] == "page/link.png"
        foreign.noise(3).save(folder / "page" / "b.png")
        foreign_line = text_line("b", "1,1 90,1 90,30 1,30", "b")
        (folder / "page" / "two.xml").write_text(page_xml(foreign_line, "b.png", size=(96, 32)))
        foreign.pack(folder)
        assert foreign.rejects(folder.parent / "records") == [(1, "page/one.xml#a", "outside_images")]
    else:
        assert (entry.reason, entry.location[1:2]) == (reason, () if reason else ("p1.tif",))


def test_damaged_xml_is_one_reject(folder: pathlib.Path):
    good = page_xml(text_line("a", "10,20 210,20 210,52", "abc"))
    (folder / "a.xml").write_text(good[:300])
    (folder / "b.xml").write_text(good)
    (folder / "c.xml").write_text(good.replace("<Page ", "<Nothing ").replace("</Page>", "</Nothing>"))
    (folder / "d.xml").write_bytes(good.replace("UTF-8", "nothing").encode())
    reasons = [(name, reason) for name, _, reason in rows(folder, "page")]
    assert reasons == [("a.xml", "bad_line"), ("b.xml#a", ""), ("c.xml", "bad_line"), ("d.xml", "bad_line")]


BOMB = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE PcGts [<!ENTITY e0 "ha">{BOMB}]>',
        '<!DOCTYPE PcGts [<!ENTITY e11 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE PcGts [<!ENTITY e11 "harmless">]>',
        '<!DOCTYPE PcGts SYSTEM "http://localhost:1/nothing.dtd">',
        '<!DOCTYPE PcGts [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>',
    ],
)
def test_no_entity_is_expanded(folder: pathlib.Path, doctype: str):
    xml = page_xml(text_line("a", "10,20 210,20 210,52", "&e11;")).replace("?>", f"?>{doctype}", 1)
    for name, content in (("a.xml", xml.encode()), ("b.xml", xml.replace("UTF-8", "UTF-16").encode("utf-16"))):
        (folder / name).write_bytes(content)
    begun = time.process_time()
    assert rows(folder, "page") == [("a.xml", "", "bad_line"), ("b.xml", "", "bad_line")]
    assert time.process_time() - begun < 2
    with pytest.raises(pages.Reject, match="document type"):
        pages.parse(xml.encode())


def test_a_page_as_large_as_a_scan_is_cut(folder: pathlib.Path, tmp_path: pathlib.Path):
    Image.new("L", (5000, 9000), 200).save(folder / "scan.tif")  # 45 MB and 45 million pixels: too large for a line
    line = text_line("a", "100,100 900,100 900,180 100,180", "abc")
    (folder / "a.xml").write_text(page_xml(line, "scan.tif", size=(5000, 9000)))
    foreign.pack(folder)
    assert foreign.records(tmp_path / "records")["a.xml#a"][1].shape == (90, 810)
