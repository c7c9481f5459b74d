import pytest

from engine.base.encodings import ENCODINGS, UNKNOWN, guess_encoding

# Names that people give to classes: animals, fruit, what is right and wrong with a part.
NAMES = {
    "cp932": ["ソース ソフト 表", "猫 犬 うさぎ", "正常 異常 テスト", "良品 不良品 予測"],
    "gbk": ["苹果 香蕉 番茄", "猫咪 老虎 大象", "合格 不合格 划痕", "小麦 水稻 玉米"],
    "big5": ["蘋果 香蕉 番茄", "貓 狗 老虎", "合格 不合格 刮痕", "功能 許可 圖片"],
    "cp949": ["고양이 강아지 호랑이", "사과 바나나 포도", "정상 불량 균열", "닭 소 돼지"],
    "cp866": ["кошки собаки птицы", "Яблоки Груши", "норма брак", "дефект трещина рис"],
    "cp437": ["Füchse Hühner Vögel", "café château thé", "niño señal", "Größe Länge"],
}


@pytest.mark.parametrize(("encoding", "words"), [(encoding, words) for encoding in NAMES for words in NAMES[encoding]])
def test_names_are_read_as_they_were_written(encoding, words):
    names = [f"train/{word}/{number}.jpg".encode(encoding) for word in words.split() for number in (1, 2)]
    assert guess_encoding(name for name in names if not name.isascii()) == encoding


def test_an_encoding_in_which_one_name_is_no_text_is_not_taken():
    names = ["猫/1.jpg".encode("cp932")] * 1000
    assert guess_encoding(names) == "cp932"
    assert guess_encoding([*names, b"\xff\xfe/1.jpg"]) == UNKNOWN


def test_of_no_names_there_is_no_encoding():
    assert guess_encoding([]) is None
    assert list(ENCODINGS)[-1] == UNKNOWN
