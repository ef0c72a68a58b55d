"""Seals and keys as text: the forms of C2SP and of Go's notes, byte for byte, and everything that is none of them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from engine.audit import PrivateKey, PublicKey, Seal, generate_key, read_private_key, read_public_key, write_key_pair
from engine.audit.keys import checked_name
from engine.errors import AuditError, DoesNotVerify
from tests.audit.logs import AT, KEY, OTHER
from tests.audit.vectors import made

GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
"""From the documentation of golang.org/x/mod/sumdb/note."""
CHECKPOINT = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""
"""From c2sp.org/tlog-checkpoint."""
SEAL = Seal.make(KEY, size=7, root=bytes(range(32)), position=9, at=AT)


def test_keys_are_those_of_gos_notes() -> None:
    import base64

    private, public = PrivateKey.parse(GO_PRIVATE), PublicKey.parse(GO_PUBLIC)
    assert (private.text, public.text, private.public) == (GO_PRIVATE, GO_PUBLIC, public)
    signature = base64.b64decode(GO_SIGNATURE)
    assert signature == public.hash + private.sign(GO_TEXT)
    assert public.verifies(GO_TEXT, signature[4:])
    assert not public.verifies(GO_TEXT + b" ", signature[4:])
    assert not public.verifies(GO_TEXT, b"short")


def test_a_checkpoint_of_somebody_elses_is_read_and_written_as_it_was() -> None:
    seal = Seal.parse(CHECKPOINT)
    assert (seal.origin, seal.size, seal.position, seal.at) == ("example.com/behind-the-sofa", 20852163, None, None)
    assert seal.note == CHECKPOINT


def test_a_seal_is_what_it_says() -> None:
    lines = SEAL.note.split("\n")
    assert lines[:6] == [
        "example.com/shop",
        "7",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "position 9",
        f"at {AT}",
        "",
    ]
    assert lines[6].startswith("— example.com/shop ")
    assert lines[7:] == [""]
    assert Seal.parse(SEAL.note) == SEAL
    SEAL.check(KEY.public)


def test_unknown_lines_and_more_signatures_are_kept() -> None:
    lines = SEAL.note.split("\n")
    more = "\n".join([*lines[:5], "witnessed by nobody", *lines[5:7], "— other.example/x " + "A" * 12, ""])
    seal = Seal.parse(more)
    assert (seal.note, len(seal.signatures)) == (more, 2)
    with pytest.raises(DoesNotVerify, match=r"the seal of 'example.com/shop' at size 7 is not signed by key"):
        seal.check(KEY.public)  # the line is signed, too


@pytest.mark.parametrize("place", range(len(SEAL.note)))
def test_a_changed_character_is_refused(place: int) -> None:
    for new in "5A\n":
        changed = SEAL.note[:place] + new + SEAL.note[place + 1 :]
        if changed != SEAL.note:
            with pytest.raises(AuditError):
                Seal.parse(changed).check(KEY.public)


def test_a_seal_by_another_key_of_that_name_or_of_another_log_is_refused() -> None:
    with pytest.raises(DoesNotVerify, match=f"not signed by key example.com/shop\\+{OTHER.public.hash.hex()}"):
        SEAL.check(OTHER.public)
    with pytest.raises(DoesNotVerify, match="the seal is of log 'example.com/shop', and the key of 'PeterNeumann'"):
        SEAL.check(PublicKey.parse(GO_PUBLIC))


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("", "an empty line and signatures are missing"),
        ("a\n1\nx\n", "an empty line and signatures are missing"),
        ("a\n1\n\n— a AAAAAAAA\n", "its lines are the origin, the size, the root"),
        ("a\n01\nAA==\n\n— a AAAAAAAA\n", "its size is '01'"),
        ("a\n-1\nAA==\n\n— a AAAAAAAA\n", "its size is '-1'"),
        ("a\n٣\nAA==\n\n— a AAAAAAAA\n", "its size is '٣'"),
        (f"a\n{'9' * 5000}\nAA==\n\n— a AAAAAAAA\n", "its size is '99"),
        ("a\n1\nAA==\n\n— a AAAAAAAA\n", "its root is 'AA=='"),
        (f"a\n1\n{'A' * 43}=\nposition x\n\n— a AAAAAAAA\n", "its position is 'x'"),
        (f"a\n1\n{'A' * 43}=\n\n- a AAAAAAAA\n", "stands '- a AAAAAAAA', which is no signature"),
        (f"a\n1\n{'A' * 43}=\n\n— a AAAA\n", "its signature is 'AAAA'"),
        (f"a\n1\n{'A' * 43}=\n\n— a %%%\n", "its signature is '%%%'"),
        ("a\r\n1\n", "too long, or not plain text"),
        ("a\n" * 40_000, "too long, or not plain text"),
    ],
)
def test_what_is_no_seal(note: str, message: str) -> None:
    with pytest.raises(AuditError, match="^here: this is no seal") as caught:
        Seal.parse(note, where="here")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u2028b", "a\u00a0b"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(AuditError, match="cannot name a log and its key"):
        generate_key(name)


def test_names_may_be_of_any_script() -> None:
    assert checked_name("näh.example/☃") == "näh.example/☃"


def test_a_key_pair_in_files(tmp_path: Path) -> None:
    file = tmp_path / "shop.key"
    key = generate_key("example.com/shop")
    public = write_key_pair(file, key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert public == tmp_path / "shop.key.pub"
    assert read_private_key(file) == key
    assert read_public_key(str(public)) == read_public_key(key.public.text) == key.public
    assert generate_key("example.com/shop") != key
    with pytest.raises(AuditError, match=r"shop.key is there already: a key is never overwritten"):
        write_key_pair(file, key)
    file.unlink()
    with pytest.raises(AuditError, match=r"shop.key.pub is there already"):
        write_key_pair(file, key)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "shop.key"
    write_key_pair(file, KEY)
    file.chmod(0o640)
    with pytest.raises(AuditError, match="can be read by other users, so it is no secret: chmod 600"):
        read_private_key(file)


def test_a_secret_is_not_shown() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert repr(KEY.seed)[:8] not in repr(KEY)
    with pytest.raises(AuditError) as caught:
        PrivateKey.parse(KEY.text[:-4])
    assert KEY.text[-20:-6] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no public key"),
        ("a+b", "this is no public key"),
        (GO_PUBLIC.replace("c74f20a3", "c74f20a4"), "is damaged: its hash does not fit it"),
        (GO_PUBLIC.replace("Peter", "peter"), "is damaged: its hash does not fit it"),
        (GO_PRIVATE, "this is a private key: to check seals give the public one"),
    ],
)
def test_what_is_no_public_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(AuditError, match=message) as caught:
        read_public_key(str(file))
    assert str(caught.value).startswith(str(file))


def test_what_is_no_private_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text, message in ((GO_PUBLIC, "begins with PRIVATE"), (GO_PRIVATE.replace("c7", "c8"), "hash does not fit")):
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(AuditError, match=message):
            read_private_key(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(AuditError, match="one line of text"):
        read_private_key(file)


def test_vectors() -> None:
    """What docs/audit.md says of the forms, as a file for other implementations."""
    vectors = json.loads((Path(__file__).parent / "seal_vectors.json").read_text())
    private = PrivateKey(vectors["name"], bytes.fromhex(vectors["seed"]))
    assert (private.text, private.public.text) == (vectors["private_key"], vectors["public_key"])
    seal = Seal.parse(vectors["note"])
    seal.check(private.public)
    assert (seal.size, seal.root.hex()) == (len(vectors["digests"]), vectors["roots"][-1])
    made = Seal.make(private, size=seal.size, root=seal.root, position=seal.position or 0, at=seal.at or 0)
    assert made.note == vectors["note"], "Ed25519 signs the same text the same way"


def test_the_vectors_are_still_made() -> None:
    assert json.loads((Path(__file__).parent / "seal_vectors.json").read_text()) == made()
